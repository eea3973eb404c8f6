//! Free TCP ports for servers that tests start, stop and start again on the same port.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, bail};

/// Below what Linux hands out by itself (32768 and up), so that no outgoing connection takes the port
/// while its server is down.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A port on 127.0.0.1 that no other test uses for as long as this value lives, whether or not a server
/// listens on it at the moment.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked; the lock goes with the process that holds it, however that ends.
    _lock: File,
}

impl Port {
    /// Reserves a free port.
    ///
    /// # Errors
    /// No port is free, or the directory for the locks can't be written.
    pub fn reserve() -> anyhow::Result<Self> {
        let directory = lock_directory();
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("{} can't be created", directory.display()))?;
        // Starting points differ between processes, so that few ports have to be tried.
        let count = u32::from(PORTS.end - PORTS.start);
        let start = std::process::id().wrapping_mul(37) % count;
        for step in 0..count {
            let offset = u16::try_from((start + step) % count)?;
            if let Some(port) = Self::try_reserve(PORTS.start + offset)? {
                return Ok(port);
            }
        }
        bail!("none of the ports {PORTS:?} is free")
    }

    fn try_reserve(number: u16) -> anyhow::Result<Option<Self>> {
        let path = lock_directory().join(number.to_string());
        let lock =
            File::create(&path).with_context(|| format!("{} can't be created", path.display()))?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_err() {
            return Ok(None);
        }
        Ok(Some(Self {
            number,
            _lock: lock,
        }))
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

fn lock_directory() -> PathBuf {
    std::env::temp_dir().join("hansard-test-ports")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_reserved_port_is_not_handed_out_again() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
    }
}
