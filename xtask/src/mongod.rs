//! Starts a mongod as a replica set of one, which is what transactions and change streams need, or as a member of
//! a larger one.
//!
//! Initiating the set takes two commands, so this speaks just enough of the wire protocol (`OP_MSG`,
//! <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>) and of BSON
//! (<https://bsonspec.org/spec.html>) to send them, instead of pulling in the driver.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::port::Port;
use crate::process::{Supervised, wait_for};

/// How long a mongod may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How long one command, or a connection, may take.
const COMMAND: Duration = Duration::from_secs(10);
const OP_MSG: i32 = 2013;

/// Starts mongod with its data and its output in `directory` and waits until it takes writes. Also starts it
/// again on the data it left there.
///
/// # Errors
/// It can't be started or is not ready in time; with the end of its output.
pub fn start(binary: &Path, directory: &Path, port: &Port) -> anyhow::Result<Supervised> {
    let output = directory.join("mongod.log");
    start_in(binary, &directory.join("mongod"), &output, port)
}

/// As [`start`], with its data in one directory and its output in a file elsewhere.
///
/// # Errors
/// It can't be started or is not ready in time; with the end of its output.
pub fn start_in(
    binary: &Path,
    data: &Path,
    output: &Path,
    port: &Port,
) -> anyhow::Result<Supervised> {
    std::fs::create_dir_all(data)?;
    let mut command = Command::new(binary);
    command.args(arguments(data, "127.0.0.1", port.number()));
    let mut process = Supervised::start(command, output)?;
    let address = port.address();
    let ready = wait_for(START, || {
        if let Some(status) = process.ended() {
            return Some(Err(anyhow::anyhow!("mongod ended at once, {status}")));
        }
        match role(&address).ok()? {
            Role::Primary => Some(Ok(())),
            Role::Uninitiated => {
                // It is looked again.
                let _ = initiate(std::slice::from_ref(&address));
                None
            }
            Role::Secondary | Role::Other => None,
        }
    });
    match ready {
        Some(Ok(())) => Ok(process),
        Some(Err(error)) => Err(error.context(last_lines(&process.output()))),
        None => {
            bail!(
                "mongod takes no writes after {} s:\n{}",
                START.as_secs(),
                last_lines(&process.output())
            )
        }
    }
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// What to tell a mongod that is to be a member of the replica set `rs0`.
#[must_use]
pub fn arguments(data: &Path, host: &str, port: u16) -> Vec<OsString> {
    let port = port.to_string();
    let mut arguments: Vec<OsString> = vec!["--dbpath".into(), data.into()];
    let rest = ["--port", &port, "--bind_ip", host]
        .into_iter()
        .chain(["--nounixsocket", "--quiet"])
        .chain(["--replSet", "rs0", "--oplogSize", "64"])
        .chain(["--wiredTigerCacheSizeGB", "0.25"])
        .chain(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    arguments.extend(rest.map(OsString::from));
    arguments
}

/// What a mongod is to its replica set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It has what the primary has.
    Secondary,
    /// Its set has not been initiated.
    Uninitiated,
    /// It is starting, or catching up.
    Other,
}

/// Asks the server at this address, `HOST:PORT`.
///
/// # Errors
/// It does not answer.
pub fn role(address: &str) -> anyhow::Result<Role> {
    let hello = run(&mut connect(address)?, vec![("hello", Value::Int32(1))])?;
    let says = |name| contains(&hello, &boolean(name, true));
    Ok(if says("isWritablePrimary") {
        Role::Primary
    } else if says("secondary") {
        Role::Secondary
    } else if says("isreplicaset") {
        // Present only before the set is initiated.
        Role::Uninitiated
    } else {
        Role::Other
    })
}

/// Makes the servers at these addresses one replica set, by telling the first of them.
///
/// # Errors
/// It does not answer.
pub fn initiate(addresses: &[String]) -> anyhow::Result<()> {
    let first = addresses.first().context("a replica set has a member")?;
    let members = addresses.iter().zip(0..).map(|(address, number)| {
        Value::Document(vec![
            ("_id", Value::Int32(number)),
            ("host", Value::Text(address.clone())),
        ])
    });
    let configuration = vec![
        ("_id", Value::Text("rs0".to_owned())),
        ("members", Value::Array(members.collect())),
    ];
    let command = vec![("replSetInitiate", Value::Document(configuration))];
    run(&mut connect(first)?, command)?;
    Ok(())
}

fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let address = address.parse().context("an address is IP:PORT")?;
    let connection = TcpStream::connect_timeout(&address, COMMAND)?;
    connection.set_read_timeout(Some(COMMAND))?;
    connection.set_write_timeout(Some(COMMAND))?;
    Ok(connection)
}

/// A BSON value, of the types that are needed here.
enum Value {
    Int32(i32),
    Text(String),
    Document(Vec<(&'static str, Value)>),
    Array(Vec<Value>),
}

impl Value {
    fn tag(&self) -> u8 {
        match self {
            Self::Text(_) => 0x02,
            Self::Document(_) => 0x03,
            Self::Array(_) => 0x04,
            Self::Int32(_) => 0x10,
        }
    }

    fn encode(self) -> Vec<u8> {
        match self {
            Self::Int32(number) => number.to_le_bytes().to_vec(),
            Self::Text(text) => {
                let mut bytes = length(text.len() + 1);
                bytes.extend(text.as_bytes());
                bytes.push(0);
                bytes
            }
            Self::Document(members) => elements(
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value)),
            ),
            Self::Array(values) => elements(
                values
                    .into_iter()
                    .enumerate()
                    .map(|(index, value)| (index.to_string(), value)),
            ),
        }
    }
}

fn elements(members: impl Iterator<Item = (String, Value)>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in members {
        body.push(value.tag());
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(value.encode());
    }
    let mut bytes = length(4 + body.len() + 1);
    bytes.extend(body);
    bytes.push(0);
    bytes
}

/// A length as BSON and the wire protocol write it. What is sent here is far below 2 GB.
fn length(bytes: usize) -> Vec<u8> {
    i32::try_from(bytes)
        .unwrap_or(i32::MAX)
        .to_le_bytes()
        .to_vec()
}

/// A boolean element as it stands in a BSON document.
fn boolean(name: &str, value: bool) -> Vec<u8> {
    [&[0x08], name.as_bytes(), &[0, u8::from(value)]].concat()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// Runs a command on the database `admin`; gives the answer's BSON.
fn run(
    connection: &mut TcpStream,
    mut command: Vec<(&'static str, Value)>,
) -> anyhow::Result<Vec<u8>> {
    command.push(("$db", Value::Text("admin".to_owned())));
    let mut body = vec![0; 4]; // flags: none
    body.push(0); // section of kind 0: the command
    body.extend(Value::Document(command).encode());
    let mut message = length(16 + body.len());
    for field in [1, 0, OP_MSG] {
        message.extend(i32::to_le_bytes(field));
    }
    message.extend(body);
    connection.write_all(&message)?;

    let mut size = [0; 4];
    connection.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_le_bytes(size)).context("an answer of negative length")?;
    ensure!(
        (21..16 << 20).contains(&size),
        "an answer of {size} bytes is none of mongod's"
    );
    let mut answer = vec![0; size - 4];
    connection.read_exact(&mut answer)?;
    Ok(answer.split_off(17))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_are_written_as_the_specification_shows() {
        let hello = Value::Document(vec![("hello", Value::Text("world".to_owned()))]);
        assert_eq!(
            hello.encode(),
            b"\x16\x00\x00\x00\x02hello\x00\x06\x00\x00\x00world\x00\x00"
        );
    }

    #[test]
    fn arrays_are_documents_with_numbers_as_names() {
        let array = Value::Array(vec![Value::Int32(7), Value::Int32(8)]);
        assert_eq!(
            array.encode(),
            b"\x13\x00\x00\x00\x100\x00\x07\x00\x00\x00\x101\x00\x08\x00\x00\x00\x00"
        );
    }
}
