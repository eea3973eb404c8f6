//! `hansard healthcheck`: for container images that have no other program to ask with.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::http::Uri;

/// How long connecting, and each wait for more of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct HealthcheckArgs {
    /// What to ask
    #[arg(
        value_name = "URL",
        default_value = "http://127.0.0.1:3000/health/ready"
    )]
    url: Uri,
}

/// Asks, and fails unless the answer is a success.
pub(crate) fn check(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let url = &args.url;
    ensure!(
        url.scheme_str() == Some("http"),
        "can't ask {url}: only http:// URLs can be asked"
    );
    let host = url.host().with_context(|| format!("{url} has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(80);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let answer = ask(host, port, path).with_context(|| format!("{url} does not answer"))?;

    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_ascii_whitespace().nth(1).unwrap_or("");
    match status.parse::<u16>() {
        Ok(200..=299) => Ok(()),
        Ok(status) => bail!("{url} answers {status}: {}", body.trim()),
        Err(_) => bail!("{url} does not answer in HTTP"),
    }
}

/// Sends a request (RFC 9112) and reads the answer up to its end.
fn ask(host: &str, port: u16, path: &str) -> std::io::Result<String> {
    let mut failure = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => stream,
            Err(error) => {
                failure = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // HTTP/1.0, so that the answer ends with the connection and comes in one piece.
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        // The status and the reason are near the beginning.
        stream.take(64 * 1024).read_to_end(&mut answer)?;
        return Ok(String::from_utf8_lossy(&answer).into_owned());
    }
    Err(failure)
}
