//! Under which conditions something was measured.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;

use crate::server::Setup;
use crate::socket;

/// The machine, the versions, and who else was busy.
#[derive(Debug, Serialize)]
pub struct Conditions {
    /// The processor's name.
    pub processor: String,
    /// How many cores this process could use.
    pub cores: usize,
    /// Whether server and generator had a core each.
    pub pinned: bool,
    /// The machine's memory, in MiB.
    pub memory_mib: u64,
    /// How many processes waited for a core, on average over the minute before: the machine's own load.
    pub load: String,
    /// The kernel's version.
    pub kernel: String,
    /// How many files a process may have open.
    pub open_files: u64,
    /// The commit that was measured, with `+` where files had been changed since.
    pub commit: String,
    /// The compiler's version.
    pub rustc: String,
    /// Node's version, where socket.io was measured.
    pub node: Option<String>,
    /// The version of socket.io, where it was measured.
    pub socket_io: Option<String>,
    /// mongod's version, where one was given.
    pub mongod: Option<String>,
    /// nats-server's version, where one was given.
    pub nats_server: Option<String>,
}

impl Conditions {
    /// Looks.
    ///
    /// # Errors
    /// A program that is needed can't be run.
    pub fn find(setup: &Setup) -> anyhow::Result<Self> {
        let changed =
            !output("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let commit = output("git", &["rev-parse", "--short=12", "HEAD"])?;
        let (mut node, mut socket_io) = (None, None);
        if let Some(directory) = &setup.socket_io {
            let package = directory.join("node_modules/socket.io/package.json");
            let package: serde_json::Value = serde_json::from_slice(&std::fs::read(&package)?)?;
            socket_io = package["version"].as_str().map(str::to_owned);
            node = Some(output("node", &["--version"])?);
        }
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name")?,
            cores: setup.cores.count(),
            pinned: setup.cores.are_split(),
            memory_mib: field("/proc/meminfo", "MemTotal")?
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()?
                / 1024,
            load: std::fs::read_to_string("/proc/loadavg")?
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            kernel: output("uname", &["-r"])?,
            open_files: socket::most_files()?,
            commit: commit + if changed { "+" } else { "" },
            rustc: output("rustc", &["--version"])?,
            node,
            socket_io,
            mongod: version(setup.mongod.as_deref(), "db version ")?,
            nats_server: version(setup.nats_server.as_deref(), "nats-server: ")?,
        })
    }
}

/// What the first line of `--version` says after this beginning.
fn version(program: Option<&Path>, beginning: &str) -> anyhow::Result<Option<String>> {
    let Some(program) = program else {
        return Ok(None);
    };
    let text = output(&program.to_string_lossy(), &["--version"])?;
    let line = text.lines().next().unwrap_or_default();
    Ok(Some(
        line.strip_prefix(beginning).unwrap_or(line).to_owned(),
    ))
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{program} can't be run"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The value of the first line with this name in a file of `name : value` lines.
fn field(path: &str, name: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{path} can't be read"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}
