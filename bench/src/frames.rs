//! Counts the messages that a server pushes and makes nothing of them, so that it is the server that is measured,
//! not what reads.

use std::io;

use anyhow::ensure;
use tokio::net::TcpStream;

use crate::fan_out::TEXT_BYTES;
use crate::socket::Socket;

/// Read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// A connection whose frames are counted.
#[derive(Debug)]
pub struct Frames {
    stream: TcpStream,
    counter: Counter,
}

impl Frames {
    /// Counts what comes from now on: all that came before has been taken.
    pub fn of(socket: Socket) -> Self {
        Self {
            stream: socket.into_stream(),
            counter: Counter::default(),
        }
    }

    /// Waits until messages have come; how many.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next(&mut self) -> anyhow::Result<usize> {
        loop {
            self.stream.readable().await?;
            match self.read() {
                Ok(0) => {}
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until so many messages have come.
    ///
    /// # Errors
    /// The connection is over, or more have come.
    pub async fn take(&mut self, count: usize) -> anyhow::Result<()> {
        let mut taken = 0;
        while taken < count {
            taken += self.next().await?;
        }
        ensure!(taken == count, "{taken} messages came instead of {count}");
        Ok(())
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; READ_BYTES];
        let read = self.stream.try_read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.counter.count(&buffer[..read]))
    }
}

/// Finds the ends of frames in the bytes of a server: <https://www.rfc-editor.org/rfc/rfc6455#section-5.2>.
#[derive(Debug, Default)]
struct Counter {
    /// What has come of a header that has not come whole.
    header: Vec<u8>,
    /// The payload of the frame that has not come whole, and how much of it is to come.
    frame: Option<(usize, usize)>,
}

impl Counter {
    /// How many messages end in these bytes. A question whether the client is still there is too short for one.
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut ended = 0;
        while let Some((payload, to_come)) = self.frame.take().or_else(|| self.begin(&mut bytes)) {
            let came = to_come.min(bytes.len());
            bytes = &bytes[came..];
            if came < to_come {
                self.frame = Some((payload, to_come - came));
                break;
            }
            ended += usize::from(payload >= TEXT_BYTES);
        }
        ended
    }

    /// The frame whose header ends in these bytes; its beginning is taken from them.
    fn begin(&mut self, bytes: &mut &[u8]) -> Option<(usize, usize)> {
        while let Some((first, rest)) = bytes.split_first() {
            self.header.push(*first);
            *bytes = rest;
            let payload = match self.header[..] {
                [_, short @ ..126] => usize::from(short),
                [_, 126, high, low] => usize::from(u16::from_be_bytes([high, low])),
                [_, 127, _, _, _, _, a, b, c, d] => {
                    usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX)
                }
                _ => continue,
            };
            self.header.clear();
            return Some((payload, payload));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [TEXT_BYTES, 3, 126, 70_000, TEXT_BYTES + 1] {
            bytes.push(0x81);
            match u16::try_from(length) {
                Ok(short) if short < 126 => bytes.push(u8::try_from(short).unwrap_or_default()),
                Ok(medium) => {
                    bytes.push(126);
                    bytes.extend(medium.to_be_bytes());
                }
                Err(_) => {
                    bytes.push(127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.resize(bytes.len() + length, b'x');
        }
        for piece in [1, 2, 7, 1_000, bytes.len()] {
            let mut counter = Counter::default();
            let counted: usize = bytes.chunks(piece).map(|it| counter.count(it)).sum();
            assert_eq!(counted, 3, "in pieces of {piece}");
            assert!(counter.header.is_empty() && counter.frame.is_none());
        }
    }
}
