//! `cargo xtask test`: every suite, on both stacks, against real servers and real binaries.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::Context;
use clap::Args;
use xtask::chromium;
use xtask::mongod;
use xtask::node::Node;
use xtask::port::Port;
use xtask::process::without_own_settings;
use xtask::schemathesis;
use xtask::servers::{EMBEDDED_ONLY_VARIABLE, MONGOD, NATS_SERVER, find_nginx};

use crate::project::{Project, cargo};
use crate::runner::Runner;

/// The packages whose tests start the binaries.
const BLACK_BOX_SUITES: [&str; 2] = ["hansard-tests", "hansard-chaos"];

/// How the names of the settings of `tests/tests/soak.rs` begin: its length and its seed.
const SOAK_VARIABLES: &str = "HANSARD_SOAK_";

/// nextest's setting of how many tests run at once. Unless the developer says otherwise one more than there are
/// cores, since many wait for something that is to happen.
const AT_ONCE: &str = "NEXTEST_TEST_THREADS";

/// How to test.
#[derive(Debug, Args)]
pub struct Options {
    /// Test the embedded (SQLite) stack only; no server is needed or fetched, and JavaScript clients,
    /// the browser and Schemathesis are left out. Without an nginx the four-process layout is left out too.
    #[arg(long)]
    embedded_only: bool,
    /// What to run instead of everything: names of tests, or options of `cargo nextest run` (of
    /// `cargo test` where nextest is not installed).
    #[arg(last = true)]
    filters: Vec<OsString>,
}

/// Runs the tests; the exit code says whether all passed.
pub fn run(options: &Options, project: &Project, runner: &Runner) -> anyhow::Result<ExitCode> {
    // Declared first, so removed last: after the servers whose data is in it have stopped.
    let directory = tempfile::Builder::new()
        .prefix("hansard-test-")
        .tempdir()
        .context("no temporary directory can be made")?;
    let mut environment: Vec<(&str, OsString)> = vec![(
        "HANSARD_TEST_BIN_DIR",
        project.target.join("debug").into_os_string(),
    )];
    let mut servers = Vec::new();
    if options.embedded_only {
        environment.push((EMBEDDED_ONLY_VARIABLE, "1".into()));
        if let Ok(nginx) = find_nginx() {
            environment.push(("HANSARD_TEST_NGINX", nginx.into()));
        }
    } else {
        let programs = Programs::find(project)?;
        let port = Port::reserve()?;
        let process = mongod::start(&programs.mongod, directory.path(), &port)?;
        environment.extend(programs.environment());
        let url = format!("mongodb://{}", port.address());
        environment.push(("HANSARD_TEST_MONGODB", url.into()));
        servers.push((process, port));
        let node = Node::find(&project.servers())?;
        let packages = node.packages(&project.javascript(), &project.servers())?;
        let chromium = chromium::find(&node, &project.servers())?;
        let schemathesis = schemathesis::find(&project.python_requirements(), &project.servers())?;
        environment.push(("HANSARD_TEST_SCHEMATHESIS", schemathesis.into()));
        environment.push(("HANSARD_TEST_NODE", node.program.into()));
        environment.push(("HANSARD_TEST_JS", packages.into()));
        environment.push(("HANSARD_TEST_CHROMIUM", chromium.into()));
    }

    let mut code = ExitCode::SUCCESS;
    for mut command in commands(&options.filters) {
        without_own_settings(&mut command);
        let of_soak = std::env::vars_os()
            .filter(|(name, _)| name.to_string_lossy().starts_with(SOAK_VARIABLES));
        command
            .envs(of_soak)
            .current_dir(&project.root)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let status = runner.run(&mut command)?;
        if !status.success() {
            code = exit_code(status);
            break;
        }
    }
    drop(servers);
    Ok(code)
}

/// The servers that stacks are made of.
pub struct Programs {
    nginx: PathBuf,
    nats_server: PathBuf,
    mongod: PathBuf,
}

impl Programs {
    /// Takes what there is, and fetches the others.
    ///
    /// # Errors
    /// One is not to be had.
    pub fn find(project: &Project) -> anyhow::Result<Self> {
        Ok(Self {
            nginx: find_nginx()?,
            nats_server: NATS_SERVER.find(&project.servers())?,
            mongod: MONGOD.find(&project.servers())?,
        })
    }

    /// The variables that tell where they are.
    pub fn environment(self) -> [(&'static str, OsString); 3] {
        [
            ("HANSARD_TEST_NGINX", self.nginx.into()),
            ("HANSARD_TEST_NATS_SERVER", self.nats_server.into()),
            ("HANSARD_TEST_MONGOD", self.mongod.into()),
        ]
    }
}

/// What is run, in this order.
fn commands(filters: &[OsString]) -> Vec<Command> {
    let names_packages = filters
        .iter()
        .any(|filter| filter == "-p" || filter == "--package");
    let is_black_box = |filter: &OsString| BLACK_BOX_SUITES.iter().any(|it| filter == it);
    let whole: &[&str] = if names_packages {
        &[]
    } else {
        &["--workspace"]
    };
    let mut commands = Vec::new();
    if !names_packages || filters.iter().any(is_black_box) {
        // One build of everything: the same features, so each dependency is compiled once.
        let mut build = cargo();
        build.args(["build", "--workspace", "--bins", "--tests"]);
        commands.push(build);
    }
    if has_nextest() {
        let mut tests = cargo();
        tests.args(["nextest", "run"]).args(whole).args(filters);
        if std::env::var_os(AT_ONCE).is_none() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            tests.env(AT_ONCE, (cores + 1).to_string());
        }
        commands.push(tests);
        if filters.is_empty() {
            let mut examples = cargo();
            examples.args(["test", "--workspace", "--doc"]);
            commands.push(examples);
        }
    } else {
        let mut tests = cargo();
        tests
            .args(["test", "--no-fail-fast"])
            .args(whole)
            .args(filters);
        commands.push(tests);
    }
    commands
}

fn has_nextest() -> bool {
    cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The same as that of a program that has ended.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
