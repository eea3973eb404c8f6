//! `cargo xtask fuzz`: invents hostile input for every decoder, led by what code it reaches (crate `fuzz`).

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::project::{Project, cargo};
use crate::runner::Runner;

/// The largest input that is invented, in bytes.
const MAX_BYTES: u32 = 64 * 1024;

/// How long one input may take, in seconds.
const PATIENCE: u32 = 10;

/// How to fuzz.
#[derive(Debug, Args)]
pub struct Options {
    /// The targets, each a directory of fuzz/corpus; without any, all of them.
    targets: Vec<String>,
    /// For how many seconds inputs are invented for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// What chance follows: the same seed invents the same inputs from the same corpus.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Invent nothing; add to the committed corpus what was found under target/fuzz and reaches code that the
    /// corpus does not reach yet.
    #[arg(long)]
    keep: bool,
}

/// Runs the targets one after the other; the exit code says whether a fault was found.
pub fn run(options: &Options, project: &Project, runner: &Runner) -> anyhow::Result<ExitCode> {
    let corpus = project.root.join("fuzz/corpus");
    let targets = targets(&options.targets, &corpus)?;
    let program = build(project, runner)?;
    let mut faulty = Vec::new();
    for target in targets {
        let found = project.target.join("fuzz").join(&target);
        let grown = found.join("corpus");
        std::fs::create_dir_all(&grown)?;
        let (committed, findings) = (corpus.join(&target), found.join("findings"));
        std::fs::create_dir_all(&findings)?;
        let mut command = Command::new(&program);
        command
            .env("HANSARD_FUZZ_TARGET", &target)
            .args(["-verbosity=0", "-print_funcs=0", "-print_final_stats=1"])
            .arg(format!("-max_len={MAX_BYTES}"))
            .arg(format!("-timeout={PATIENCE}"))
            .arg(format!("-artifact_prefix={}/", findings.display()));
        if options.keep {
            command.arg("-merge=1").args([&committed, &grown]);
        } else {
            // What is found goes into the first directory.
            command
                .arg(format!("-seed={}", options.seed))
                .arg(format!("-max_total_time={}", options.seconds))
                .args([&grown, &committed]);
        }
        eprintln!("\n== {target}");
        if !runner.run(&mut command)?.success() {
            faulty.push((target, findings));
        }
    }
    for (target, findings) in &faulty {
        eprintln!(
            "{target} has a fault: above is what it is, in {} the input that shows it. Mend it, and put the \
             input into fuzz/corpus/{target}, under a name that says what it is",
            findings.display()
        );
    }
    Ok(match faulty.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The targets that were named, or all.
fn targets(named: &[String], corpus: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(corpus).context("there is no corpus")?;
    let mut known = Vec::new();
    for entry in entries {
        known.push(entry?.file_name().to_string_lossy().into_owned());
    }
    known.sort_unstable();
    if let Some(unknown) = named.iter().find(|name| !known.contains(name)) {
        bail!(
            "there is no target {unknown}; there are {}",
            known.join(", ")
        );
    }
    Ok(match named {
        [] => known,
        named => named.to_vec(),
    })
}

/// Builds the program with the workspace's own crates instrumented; all others are those of the tests.
fn build(project: &Project, runner: &Runner) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build
        .current_dir(&project.root)
        .args(["build", "--package", "fuzz", "--bin", "fuzz"])
        .args(["--features", "libfuzzer"])
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            project.root.join("fuzz/instrument.sh"),
        );
    ensure!(
        runner.run(&mut build)?.success(),
        "the fuzzer can't be built; it takes a C++ compiler (on Debian: apt-get install g++)"
    );
    Ok(project.target.join("debug/fuzz"))
}
