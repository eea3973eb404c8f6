//! `cargo xtask bench`: measures, on this machine, in release builds.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::Args;
use xtask::process::without_own_settings;
use xtask::servers::{MONGOD, NATS_SERVER};

use crate::project::{Project, cargo};
use crate::runner::Runner;

/// The files of the socket.io server.
const SOCKET_IO: [&str; 3] = ["package.json", "package-lock.json", "server.js"];

/// What can be measured.
const BENCHES: [&str; 7] = [
    "sockets", "bursts", "posts", "reads", "rebuild", "replay", "start",
];

/// What to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// Names of benches (`sockets`, `bursts`, `posts`, `reads`, `rebuild`, `replay`, `start`), or options of the bench
    /// binary (`--runs 3`, `--against URL`); everything if there are no names.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds and measures; the results are in bench/.
pub fn run(options: &Options, project: &Project, runner: &Runner) -> anyhow::Result<ExitCode> {
    // One after the other: built together, Hansard would get the features that the bench wants of shared
    // dependencies, and be another program than the one that people run.
    for package in ["hansard", "gateway-ws", "hansard-bench"] {
        let mut build = cargo();
        build
            .current_dir(&project.root)
            .args(["build", "--release", "--package", package]);
        succeed(runner, &mut build)?;
    }
    let bench = project.root.join("bench");
    // What is not named is not measured, unless nothing is.
    let named = |name: &str| options.arguments.iter().any(|it| it == name);
    let none_named = !BENCHES.into_iter().any(named);

    let release = project.target.join("release");
    let mut measure = Command::new(release.join("hansard-bench"));
    without_own_settings(&mut measure);
    measure
        .current_dir(&project.root)
        .arg("--hansard")
        .arg(release.join("hansard"))
        .arg("--gateway")
        .arg(release.join("gateway-ws"))
        .arg("--results")
        .arg(&bench)
        .args(&options.arguments);
    if none_named || named("sockets") || named("bursts") {
        let socket_io = install(&bench.join("js"), &project.target.join("bench/js"), runner)?;
        measure.arg("--socket-io").arg(socket_io);
    }
    if none_named || named("posts") {
        measure
            .arg("--nats-server")
            .arg(NATS_SERVER.find(&project.servers())?);
    }
    if none_named || named("posts") || named("reads") || named("rebuild") {
        measure
            .arg("--mongod")
            .arg(MONGOD.find(&project.servers())?);
    }
    succeed(runner, &mut measure)?;
    Ok(ExitCode::SUCCESS)
}

/// Copies the socket.io server to where its packages can be installed, and installs them.
fn install(from: &Path, to: &Path, runner: &Runner) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(to)?;
    for file in SOCKET_IO {
        std::fs::copy(from.join(file), to.join(file))
            .with_context(|| format!("{file} can't be copied to {}", to.display()))?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(to)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    succeed(runner, &mut npm)?;
    Ok(to.to_owned())
}

fn succeed(runner: &Runner, command: &mut Command) -> anyhow::Result<()> {
    let status = runner.run(command)?;
    let program = command.get_program().to_string_lossy();
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}
