//! `cargo xtask chaos`: faults, and a checker of what Hansard promises.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::ensure;
use clap::Args;
use xtask::process::without_own_settings;

use crate::project::{Project, cargo};
use crate::runner::Runner;
use crate::test::{Programs, exit_code};

/// How to run.
#[derive(Debug, Args)]
pub struct Options {
    /// Run optimised builds; named before all others.
    #[arg(long)]
    release: bool,
    /// `--minutes N`, `--seed S`, `--stack embedded`, `distributed` or `cluster`, `--longest-fault SECONDS`,
    /// `--upgrade-from DIRECTORY`; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds and runs; the exit code is 1 when a promise was broken.
pub fn run(options: &Options, project: &Project, runner: &Runner) -> anyhow::Result<ExitCode> {
    let mut build = cargo();
    build
        .current_dir(&project.root)
        .args(["build", "--workspace", "--bins"])
        .args(options.release.then_some("--release"));
    let status = runner.run(&mut build)?;
    ensure!(status.success(), "cargo failed: {status}");
    let binaries = project.target.join(match options.release {
        true => "release",
        false => "debug",
    });
    let mut chaos = Command::new(binaries.join("hansard-chaos"));
    without_own_settings(&mut chaos);
    chaos
        .current_dir(&project.root)
        .env("HANSARD_TEST_BIN_DIR", &binaries)
        .envs(Programs::find(project)?.environment())
        .arg("--directory")
        .arg(project.target.join("chaos"))
        .args(&options.arguments);
    Ok(exit_code(runner.run(&mut chaos)?))
}
