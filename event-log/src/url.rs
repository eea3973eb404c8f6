//! The address of a log, as it is given on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The name of the stream where the URL names none.
pub const DEFAULT_STREAM: &str = "HANSARD";

/// Where a log is: `sqlite:PATH` or
/// `nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/STREAM][?replicas=N][&monitor=http://HOST:8222[,...]]`
/// (`tls://` where the servers require TLS).
///
/// Written without passwords, so that it can be logged.
#[derive(Clone, PartialEq, Eq)]
pub enum LogUrl {
    /// A file, absolute or relative to the data directory.
    Sqlite(PathBuf),
    /// A stream on NATS servers.
    Nats(NatsAddress),
}

/// A stream on NATS servers.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsAddress {
    /// The servers' addresses, `nats://HOST:PORT` or `tls://HOST:PORT`: members of one cluster. The
    /// first one that answers is used.
    pub servers: Vec<String>,
    /// With what to log in.
    pub credentials: Option<Credentials>,
    /// The stream's name.
    pub stream: String,
    /// On how many servers the stream is kept, if it has to be created.
    pub replicas: usize,
    /// The servers' monitoring addresses, `http://HOST:PORT`. An ordinary client can't learn whether a
    /// server syncs before it acknowledges; these tell.
    pub monitors: Vec<String>,
}

/// As many replicas as JetStream allows.
const MOST_REPLICAS: usize = 5;

/// With what to log in to NATS.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `nats://USER:PASSWORD@...`
    UserPassword(String, String),
    /// `nats://TOKEN@...`
    Token(String),
}

/// A log's address that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no log URL: {reason}; use sqlite:PATH or nats://HOST:4222")]
pub struct InvalidLogUrl {
    /// As it was given, without its password.
    url: String,
    reason: String,
}

impl InvalidLogUrl {
    /// What was given, without its password, and what is wrong with it.
    pub fn parts(&self) -> (&str, &str) {
        (&self.url, &self.reason)
    }
}

impl FromStr for LogUrl {
    type Err = InvalidLogUrl;

    fn from_str(text: &str) -> Result<Self, InvalidLogUrl> {
        parse(text).map_err(|reason| InvalidLogUrl {
            url: redact(text),
            reason,
        })
    }
}

impl fmt::Display for LogUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite:{}", path.display()),
            Self::Nats(address) => address.fmt(formatter),
        }
    }
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self
            .servers
            .first()
            .and_then(|server| server.split_once("://"))
            .map_or("nats", |(scheme, _)| scheme);
        write!(formatter, "{scheme}://")?;
        match &self.credentials {
            None => {}
            Some(Credentials::UserPassword(user, _)) => write!(formatter, "{user}:***@")?,
            Some(Credentials::Token(_)) => formatter.write_str("***@")?,
        }
        write!(formatter, "{}/{}", self.hosts(), self.stream)?;
        let mut parameters = Vec::new();
        if self.replicas != 1 {
            parameters.push(format!("replicas={}", self.replicas));
        }
        if !self.monitors.is_empty() {
            parameters.push(format!("monitor={}", self.monitors.join(",")));
        }
        if !parameters.is_empty() {
            write!(formatter, "?{}", parameters.join("&"))?;
        }
        Ok(())
    }
}

impl NatsAddress {
    /// The servers as `HOST:PORT`, joined by commas: for messages.
    pub fn hosts(&self) -> String {
        let hosts: Vec<&str> = self
            .servers
            .iter()
            .map(|server| server.split_once("://").map_or(server.as_str(), |it| it.1))
            .collect();
        hosts.join(",")
    }

    /// Warns where an existing stream has fewer replicas than it would be created with.
    pub fn warn_of_replicas(&self, stream: &str, replicas: usize) {
        if replicas < self.replicas {
            let wanted = self.replicas;
            tracing::warn!(
                stream,
                replicas,
                wanted,
                "the stream has fewer replicas than its URL says, and keeps them; to change it: \
                 nats stream edit {stream} --replicas {wanted}"
            );
        }
    }
}

impl fmt::Debug for LogUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LogUrl({self})")
    }
}

impl fmt::Debug for NatsAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NatsAddress({self})")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(***)")
    }
}

fn parse(text: &str) -> Result<LogUrl, String> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        return parse_path(path);
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or("it has neither the scheme sqlite nor nats")?;
    if !matches!(scheme, "nats" | "tls") {
        return Err(format!("its scheme {scheme:?} is not known"));
    }
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    if rest[authority_end..].contains('@') {
        return Err(
            "characters other than letters and digits in its login must be percent-encoded"
                .to_owned(),
        );
    }
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, stream) = match rest.split_once('/') {
        Some((authority, stream)) => (authority, stream),
        None => (rest, ""),
    };
    let mut credentials = None;
    let mut servers = Vec::new();
    for host in authority.split(',') {
        let host = match host.rsplit_once('@') {
            None => host,
            Some((login, host)) => {
                let login = parse_credentials(login)?;
                if credentials.as_ref().is_some_and(|known| *known != login) {
                    return Err("its hosts have different logins".to_owned());
                }
                credentials = Some(login);
                host
            }
        };
        servers.push(parse_server(scheme, host)?);
    }
    let mut address = NatsAddress {
        servers,
        credentials,
        stream: parse_stream(stream)?,
        replicas: 1,
        monitors: Vec::new(),
    };
    for (key, value) in ::url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*key {
            "replicas" => address.replicas = parse_replicas(&value)?,
            "monitor" => address.monitors.extend(parse_monitors(&value)?),
            _ => {
                return Err(format!(
                    "its parameter {key:?} is not known, only replicas and monitor are"
                ));
            }
        }
    }
    Ok(LogUrl::Nats(address))
}

fn parse_path(path: &str) -> Result<LogUrl, String> {
    if path.is_empty() {
        return Err("it names no file".to_owned());
    }
    if path.starts_with("//") {
        return Err("a path does not begin with two slashes".to_owned());
    }
    if path.contains('\0') || path == ":memory:" {
        return Err("it needs a file".to_owned());
    }
    Ok(LogUrl::Sqlite(path.into()))
}

fn parse_credentials(login: &str) -> Result<Credentials, String> {
    let decode = |part: &str| percent_decode(part).ok_or("its login is not percent-encoded UTF-8");
    Ok(match login.split_once(':') {
        Some((user, password)) => Credentials::UserPassword(decode(user)?, decode(password)?),
        None => Credentials::Token(decode(login)?),
    })
}

/// The reasons don't quote the host: a login that is not percent-encoded may be taken for one.
fn parse_server(scheme: &str, host: &str) -> Result<String, String> {
    let parsed = ::url::Url::parse(&format!("{scheme}://{host}"))
        .map_err(|error| format!("one of its hosts is not valid: {error}"))?;
    let invalid = || "one of its hosts is not valid".to_owned();
    let name = parsed.host_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(invalid)?;
    let clean = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c));
    if !clean || !matches!(parsed.path(), "" | "/") || parsed.port() == Some(0) {
        return Err(invalid());
    }
    Ok(format!(
        "{scheme}://{name}:{}",
        parsed.port().unwrap_or(4222)
    ))
}

fn parse_stream(stream: &str) -> Result<String, String> {
    let stream = if stream.is_empty() {
        DEFAULT_STREAM
    } else {
        stream
    };
    let valid = stream.len() <= 64
        && stream
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !valid {
        return Err(format!(
            "{stream:?} is no stream name: 1 to 64 letters, digits, - and _"
        ));
    }
    Ok(stream.to_owned())
}

fn parse_replicas(text: &str) -> Result<usize, String> {
    let replicas = text.parse().ok();
    let valid = replicas.filter(|it| (1..=MOST_REPLICAS).contains(it));
    valid.ok_or_else(|| {
        format!(
            "{text:?} is no number of replicas, 1 to {MOST_REPLICAS}: 3 bear the loss of one server"
        )
    })
}

fn parse_monitors(text: &str) -> Result<Vec<String>, String> {
    let monitors = text.split(',').map(|monitor| {
        let invalid = || format!("{monitor:?} is no monitoring address, http://HOST:8222");
        let parsed = ::url::Url::parse(monitor).map_err(|_| invalid())?;
        let host = parsed.host_str().ok_or_else(invalid)?;
        let plain = parsed.scheme() == "http"
            && parsed.path() == "/"
            && parsed.query().is_none()
            && parsed.username().is_empty();
        if !plain {
            return Err(invalid());
        }
        let port = parsed.port_or_known_default().unwrap_or(80);
        Ok(format!("http://{host}:{port}"))
    });
    monitors.collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The text without what may be a password in it: it may be any text, not only a URL.
fn redact(text: &str) -> String {
    let Some(at) = text.rfind('@') else {
        return text.to_owned();
    };
    let start = text.find("://").map_or(0, |scheme| scheme + 3);
    if at < start {
        return text.to_owned();
    }
    format!("{}***{}", &text[..start], &text[at..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn logs_are_files_or_streams() {
        for (given, shown) in [
            ("sqlite:log.db", "sqlite:log.db"),
            (
                "sqlite:/var/lib/hansard/log.db",
                "sqlite:/var/lib/hansard/log.db",
            ),
            ("nats://localhost", "nats://localhost:4222/HANSARD"),
            ("nats://localhost:4333/", "nats://localhost:4333/HANSARD"),
            (
                "nats://a,b:1,[::1]:2/CHAT_1",
                "nats://a:4222,b:1,[::1]:2/CHAT_1",
            ),
            ("tls://nats.example:4443/X", "tls://nats.example:4443/X"),
            (
                "nats://ann:secret@a,b",
                "nats://ann:***@a:4222,b:4222/HANSARD",
            ),
            ("nats://secret@a", "nats://***@a:4222/HANSARD"),
            (
                "nats://a/X?monitor=http://a:8222,http://b:8222",
                "nats://a:4222/X?monitor=http://a:8222,http://b:8222",
            ),
            (
                "nats://a,b,c?monitor=http://a:8222&replicas=3",
                "nats://a:4222,b:4222,c:4222/HANSARD?replicas=3&monitor=http://a:8222",
            ),
            ("nats://a/X?replicas=1", "nats://a:4222/X"),
        ] {
            assert_eq!(given.parse::<LogUrl>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn credentials_are_decoded() {
        let LogUrl::Nats(address) = "nats://an%40n:p%3Aw@a".parse().unwrap() else {
            panic!("not NATS");
        };
        let expected = Credentials::UserPassword("an@n".to_owned(), "p:w".to_owned());
        assert_eq!(address.credentials, Some(expected));
    }

    #[test]
    fn what_is_no_log_is_said_why() {
        for (given, reason) in [
            ("", "neither the scheme"),
            ("log.db", "neither the scheme"),
            ("postgres://localhost/x", "\"postgres\" is not known"),
            ("sqlite:", "names no file"),
            ("sqlite://log.db", "two slashes"),
            ("sqlite::memory:", "needs a file"),
            ("nats://", "hosts is not valid"),
            ("nats://a,,b", "hosts is not valid"),
            ("nats://a:99999", "hosts is not valid"),
            ("nats://a:0", "hosts is not valid"),
            ("nats://a b", "hosts is not valid"),
            ("nats://a/x.y", "no stream name"),
            ("nats://a/x/y", "no stream name"),
            ("nats://a/x>", "no stream name"),
            ("nats://a?monitor=ftp://b", "no monitoring address"),
            ("nats://a?x=1", "only replicas and monitor are"),
            (
                "nats://a?replicas=three",
                "\"three\" is no number of replicas",
            ),
            ("nats://a?replicas=0", "1 to 5"),
            ("nats://a?replicas=6", "1 to 5"),
            ("nats://x:1@a,y:2@b", "different logins"),
        ] {
            let error = given.parse::<LogUrl>().unwrap_err().to_string();
            assert!(error.contains(reason), "{given}: {error}");
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        for given in [
            "nats://ann:secret@a:4222",
            "nats://secret@a:4222",
            "nats://ann:secret@a:99999",
            "nats://ann:secret@",
            "bad://ann:secret@a",
            "ann:secret@a",
            "nats://ann:secret/x@a",
            "nats://ann:secret?x@a",
            "nats://ann:secret,x@a",
            "nats://ann:x/secret@a",
            "nats://ann:secret@a,ann:secret@b/x.y",
        ] {
            let shown = match given.parse::<LogUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("secret"), "{given}: {shown}");
        }
    }
}
