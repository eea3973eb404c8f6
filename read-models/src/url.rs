//! The address of read models, as it is written in the configuration.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use mongodb::options::ConnectionString;

/// Where read models are. Its texts, [`Display`](fmt::Display) and [`Debug`], hide a password.
#[derive(Clone, PartialEq, Eq)]
pub enum ReadModelsUrl {
    /// A file, absolute or relative to the data directory.
    Sqlite(PathBuf),
    /// A database on a MongoDB server: the connection string as given, which names the database.
    MongoDb(String),
}

/// An address that read models can't be at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is no read models URL: {reason}; use sqlite:PATH or mongodb://HOST[:PORT]/DATABASE"
)]
pub struct InvalidReadModelsUrl {
    /// The address without its password.
    url: String,
    reason: String,
}

impl FromStr for ReadModelsUrl {
    type Err = InvalidReadModelsUrl;

    fn from_str(text: &str) -> Result<Self, InvalidReadModelsUrl> {
        let invalid = |reason: &str| InvalidReadModelsUrl {
            url: without_password(text),
            reason: reason.to_owned(),
        };
        if let Some(path) = text.strip_prefix("sqlite:") {
            // `sqlite://read.db` would name a file in the root directory, which nobody means.
            let host_like = path.starts_with("//") && !path.starts_with("///");
            return match path {
                "" => Err(invalid("the path is missing")),
                _ if host_like => Err(invalid("a path does not begin with //")),
                _ if path.contains('\0') => Err(invalid("the path holds a zero byte")),
                _ => Ok(Self::Sqlite(PathBuf::from(path))),
            };
        }
        if text.starts_with("mongodb://") || text.starts_with("mongodb+srv://") {
            // The driver, 3.9.1, panics at a percent sign in a login that no ASCII follows.
            if !is_percent_encoded(text) {
                return Err(invalid(
                    "a percent sign is not followed by two hexadecimal digits (%25 is the sign itself)",
                ));
            }
            // The parser's own message may quote any part of the address, the password included.
            let parsed = ConnectionString::parse(text)
                .map_err(|_| invalid("it is not a MongoDB connection string"))?;
            return match parsed.default_database.as_deref() {
                None | Some("") => Err(invalid("the name of the database is missing")),
                Some(name) if !is_database_name(name) => Err(invalid(
                    "the name of a database is at most 63 bytes without spaces and /\\.\"$*<>:|?",
                )),
                Some(_) => Ok(Self::MongoDb(text.to_owned())),
            };
        }
        Err(invalid("it begins with neither sqlite: nor mongodb://"))
    }
}

impl fmt::Display for ReadModelsUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
            Self::MongoDb(url) => formatter.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for ReadModelsUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ReadModelsUrl({self})")
    }
}

/// <https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions>
fn is_database_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "/\\.\"$*<>:|?".contains(c))
}

/// Whether each percent sign begins an encoded byte.
/// <https://www.rfc-editor.org/rfc/rfc3986#section-2.1>
fn is_percent_encoded(url: &str) -> bool {
    url.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The address with `***` in place of a password, however malformed the rest is.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    // A password that should have been percent-encoded may hold any character, so the last @ counts.
    let Some((credentials, rest)) = rest.rsplit_once('@') else {
        return url.to_owned();
    };
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{rest}"),
        None => format!("{scheme}://{credentials}@{rest}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn addresses_read_back() {
        for text in [
            "sqlite:read.db",
            "sqlite:/var/lib/hansard/read.db",
            "mongodb://127.0.0.1:27017/hansard",
            "mongodb://a,b:27018/hansard?replicaSet=rs0",
            "mongodb://host/hansard?appName=50%25",
        ] {
            assert_eq!(text.parse::<ReadModelsUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_address_says_what_is_wrong_with_it() {
        for (text, reason) in [
            ("", "neither sqlite: nor mongodb://"),
            ("postgres://host/db", "neither sqlite: nor mongodb://"),
            ("sqlite:", "the path is missing"),
            ("sqlite://read.db", "does not begin with //"),
            ("mongodb://host", "the name of the database is missing"),
            ("mongodb://host/", "the name of the database is missing"),
            (
                "mongodb://host/?replicaSet=rs0",
                "the name of the database is missing",
            ),
            ("mongodb://host/a:b", "the name of a database"),
            ("mongodb://host:port/db", "not a MongoDB connection string"),
            ("mongodb://anna:50%@host/db", "a percent sign"),
            ("mongodb://anna%8\u{40e}@host/db", "a percent sign"),
        ] {
            let error = text.parse::<ReadModelsUrl>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn no_text_shows_the_password() {
        for text in [
            "mongodb://anna:s3cret@host/db",
            "mongodb://anna:s3cret@host",
            "mongodb://anna:s3c/r@et@host/db",
            "mongodb://anna:s3cret@ho st:port/db",
            "postgres://anna:s3cret@host/db",
        ] {
            let shown = match text.parse::<ReadModelsUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(shown.contains("anna:***@ho"), "{shown}");
            assert!(!shown.contains("s3c"), "{shown}");
        }
    }
}
