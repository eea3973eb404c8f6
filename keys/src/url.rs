//! The address of a key store, as it is given on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use event_log::{LogUrl, NatsAddress};

/// The file of the key store where the log is a file.
const DEFAULT_FILE: &str = "keys.db";

/// Where keys are kept: `sqlite:PATH` or `nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/BUCKET[?replicas=N]`.
///
/// Written without passwords, so that it can be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysUrl {
    /// A file, absolute or relative to the data directory.
    Sqlite(PathBuf),
    /// A bucket of the key-value store on NATS servers, in the place of the stream.
    Nats(NatsAddress),
}

/// A key store's address that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no key store URL: {reason}; use sqlite:PATH or nats://HOST:4222/BUCKET")]
pub struct InvalidKeysUrl {
    /// As it was given, without its password.
    url: String,
    reason: String,
}

impl KeysUrl {
    /// Where the keys of this log are unless something else is said: in the file `keys.db`, or in the bucket
    /// `STREAM-keys` on the log's servers, on as many of them as the log.
    pub fn beside(log: &LogUrl) -> Self {
        match log {
            LogUrl::Sqlite(_) => Self::Sqlite(DEFAULT_FILE.into()),
            LogUrl::Nats(address) => Self::Nats(NatsAddress {
                stream: format!("{}-keys", address.stream),
                monitors: Vec::new(),
                ..address.clone()
            }),
        }
    }
}

impl FromStr for KeysUrl {
    type Err = InvalidKeysUrl;

    fn from_str(text: &str) -> Result<Self, InvalidKeysUrl> {
        // The same address as a log's, but for what it names.
        let url: LogUrl = text.parse().map_err(|error: event_log::InvalidLogUrl| {
            let (url, reason) = error.parts();
            InvalidKeysUrl {
                url: url.to_owned(),
                reason: reason.to_owned(),
            }
        })?;
        match url {
            LogUrl::Sqlite(path) => Ok(Self::Sqlite(path)),
            LogUrl::Nats(address) if names_a_bucket(text) => Ok(Self::Nats(address)),
            LogUrl::Nats(address) => Err(InvalidKeysUrl {
                url: address.hosts(),
                reason: "it names no bucket".to_owned(),
            }),
        }
    }
}

impl fmt::Display for KeysUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
            Self::Nats(address) => address.fmt(formatter),
        }
    }
}

fn names_a_bucket(text: &str) -> bool {
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let (address, _) = rest.split_once('?').unwrap_or((rest, ""));
    address
        .split_once('/')
        .is_some_and(|(_, bucket)| !bucket.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_a_file_or_a_bucket() {
        for (given, shown) in [
            ("sqlite:keys.db", "sqlite:keys.db"),
            ("nats://a,b:1/SECRETS", "nats://a:4222,b:1/SECRETS"),
            ("nats://ann:secret@a/X", "nats://ann:***@a:4222/X"),
        ] {
            assert_eq!(given.parse::<KeysUrl>().unwrap().to_string(), shown);
        }
        for (given, reason) in [
            ("keys.db", "neither the scheme"),
            ("sqlite:", "names no file"),
            ("nats://a", "names no bucket"),
            ("nats://a/", "names no bucket"),
            ("nats://a?monitor=http://a/X", "no monitoring address"),
            ("nats://ann:secret@a", "names no bucket"),
        ] {
            let error = given.parse::<KeysUrl>().unwrap_err().to_string();
            assert!(error.contains(reason), "{given}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_default_is_beside_the_log() {
        for (log, keys) in [
            ("sqlite:/somewhere/log.db", "sqlite:keys.db"),
            ("nats://a,b", "nats://a:4222,b:4222/HANSARD-keys"),
            (
                "nats://ann:x@a/CHAT?monitor=http://a:8222",
                "nats://ann:***@a:4222/CHAT-keys",
            ),
            (
                "nats://a,b,c?replicas=3",
                "nats://a:4222,b:4222,c:4222/HANSARD-keys?replicas=3",
            ),
        ] {
            let log: LogUrl = log.parse().unwrap();
            assert_eq!(KeysUrl::beside(&log).to_string(), keys);
        }
    }
}
