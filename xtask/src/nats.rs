//! A nats-server with JetStream.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::port::Port;
use crate::process::{Supervised, wait_for};

/// How long it may take to start on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long its greeting may take.
const GREETING: Duration = Duration::from_secs(5);

/// Starts a nats-server with its data, and its output, in `directory`, and waits until it takes connections;
/// with the settings in a file, or its defaults.
///
/// # Errors
/// It can't be started or is not ready in time; with its output.
pub fn start(
    binary: &Path,
    directory: &Path,
    port: &Port,
    config: Option<&Path>,
) -> anyhow::Result<Supervised> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("{} can't be made", directory.display()))?;
    let mut command = Command::new(binary);
    command
        .args(["--jetstream", "--addr", "127.0.0.1", "--port"])
        .arg(port.number().to_string())
        .arg("--store_dir")
        .arg(directory.join("nats"));
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let mut process = Supervised::start(command, &directory.join("nats.log"))?;
    let ready = wait_for(START, || {
        if process.ended().is_some() {
            return Some(false);
        }
        greets(port).then_some(true)
    });
    if ready != Some(true) {
        bail!("nats-server does not start:\n{}", process.output());
    }
    Ok(process)
}

/// Whether it sends the first line of its protocol, which it does once JetStream is ready.
fn greets(port: &Port) -> bool {
    let Ok(connection) = TcpStream::connect(port.address()) else {
        return false;
    };
    let mut line = String::new();
    connection.set_read_timeout(Some(GREETING)).is_ok()
        && BufReader::new(connection).read_line(&mut line).is_ok()
        && line.starts_with("INFO ")
}
