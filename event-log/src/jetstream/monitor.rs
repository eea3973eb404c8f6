//! Whether the servers sync to disk before they acknowledge.
//!
//! An ordinary client can't learn that: neither the server's INFO nor the JetStream API says it (seen on
//! nats-server 2.15). The monitoring endpoint `/varz` does: `jetstream.config.sync_always`, and
//! `sync_interval` in nanoseconds.

use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{LogError, NatsAddress};

/// How long one endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The largest answer that is read, in bytes. The true ones have a few thousand.
const LONGEST_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
struct Varz {
    server_id: String,
    jetstream: Option<JetStream>,
}

#[derive(Deserialize)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    sync_interval: u64,
}

/// `Ok` if every monitored server that answers syncs always, and the one in use is among them; else the reason.
/// One that is down acknowledges nothing, so a cluster with one server less is still good for use.
///
/// # Errors
/// [`LogError::Unavailable`] when the server in use may be one that did not answer.
pub(super) async fn syncs_always(
    address: &NatsAddress,
    server_id: &str,
) -> Result<Result<(), String>, LogError> {
    const UNKNOWN: &str =
        "whether the server syncs before it acknowledges could not be determined:";
    if address.monitors.is_empty() {
        return Ok(Err(format!(
            "{UNKNOWN} only its monitoring endpoint says so; add ?monitor=http://HOST:8222 to the log's URL"
        )));
    }
    let answers = address.monitors.iter().map(async |monitor| {
        let varz = timeout(TIMEOUT, varz(monitor)).await;
        (
            monitor,
            varz.unwrap_or_else(|_| Err("no answer in time".to_owned())),
        )
    });
    let mut in_use = false;
    let mut silent = None;
    for (monitor, varz) in join_all(answers).await {
        let varz = match varz {
            Ok(varz) => varz,
            Err(reason) => {
                silent.get_or_insert(format!("{UNKNOWN} {monitor}: {reason}"));
                continue;
            }
        };
        in_use |= varz.server_id == server_id;
        let Some(config) = varz.jetstream.and_then(|jetstream| jetstream.config) else {
            return Ok(Err(format!(
                "{UNKNOWN} {monitor} says nothing of JetStream"
            )));
        };
        if !config.sync_always {
            let seconds = Duration::from_nanos(config.sync_interval).as_secs_f64();
            return Ok(Err(format!(
                "the server at {monitor} syncs every {seconds} s only: what it acknowledged in between is \
                 lost with the power; set sync_interval: always"
            )));
        }
    }
    match (in_use, silent) {
        (true, None) => Ok(Ok(())),
        (true, Some(reason)) => {
            tracing::warn!("{reason}");
            Ok(Ok(()))
        }
        (false, Some(reason)) => Err(LogError::Unavailable(reason)),
        (false, None) => Ok(Err(format!(
            "{UNKNOWN} none of the monitoring addresses is that of the server in use"
        ))),
    }
}

async fn varz(monitor: &str) -> Result<Varz, String> {
    let host = monitor.strip_prefix("http://").unwrap_or(monitor);
    let answer = get(host, "/varz")
        .await
        .map_err(|error| error.to_string())?;
    let separator = b"\r\n\r\n";
    let body = answer
        .windows(separator.len())
        .position(|window| window == separator)
        .map(|end| &answer[end + separator.len()..])
        .filter(|_| answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"))
        .ok_or("not the answer of a monitoring endpoint")?;
    serde_json::from_slice(body).map_err(|error| format!("not understood: {error}"))
}

/// A plain HTTP/1.0 request: the server closes the connection after its answer, so that nothing of HTTP
/// is needed here beyond its first line and the empty one.
async fn get(host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}
