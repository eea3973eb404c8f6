//! Servers for tests, of this crate and of those that build on it.
//!
//! For tests only: what goes wrong here panics with what to do.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use xtask::port::Port;
use xtask::process::Supervised;

use crate::{DEFAULT_STREAM, LogUrl};

/// The server's program, from `HANSARD_TEST_NATS_SERVER`; `None` when the tests that need servers are
/// switched off by `HANSARD_TEST_EMBEDDED_ONLY=1`.
///
/// # Panics
/// When there is neither.
pub fn nats_server_program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("HANSARD_TEST_NATS_SERVER") {
        return Some(program.into());
    }
    let embedded_only = std::env::var_os("HANSARD_TEST_EMBEDDED_ONLY").is_some_and(|it| it == "1");
    if embedded_only {
        println!("skipped: needs a nats-server, and HANSARD_TEST_EMBEDDED_ONLY is set");
        return None;
    }
    panic!(
        "this test needs a nats-server: run `cargo xtask test`, or set HANSARD_TEST_NATS_SERVER to the path \
         of one (2.12 or later), or HANSARD_TEST_EMBEDDED_ONLY=1 to skip"
    );
}

/// A nats-server with JetStream on free ports of 127.0.0.1, with its files in a temporary directory. It
/// is killed, and its files deleted, on drop.
pub struct NatsServer {
    program: PathBuf,
    /// Before the directory: what writes there ends first.
    process: Supervised,
    directory: TempDir,
    port: Port,
    monitor_port: Port,
}

impl NatsServer {
    /// Starts a server that syncs before it acknowledges, as the deployments do. `None` when tests that
    /// need servers are switched off.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Option<Self> {
        Self::start_with("sync_interval: always")
    }

    /// Starts a server with these settings in its `jetstream` block. `None` when tests that need servers
    /// are switched off.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_with(jetstream_settings: &str) -> Option<Self> {
        let program = nats_server_program()?;
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let port = Port::reserve().expect("a port is free");
        let monitor_port = Port::reserve().expect("a port is free");
        let settings = format!(
            "http: {}\njetstream {{\n  max_file_store: 1GB\n  {jetstream_settings}\n}}\n",
            monitor_port.address(),
        );
        std::fs::write(settings_in(directory.path()), settings)
            .expect("the settings can be written");
        let process = run(&program, directory.path(), &port);
        Some(Self {
            program,
            process,
            directory,
            port,
            monitor_port,
        })
    }

    /// The URL of the log in this server's stream with the default name.
    pub fn url(&self) -> String {
        format!("nats://{}/{DEFAULT_STREAM}", self.port.address())
    }

    /// The URL of the log with the server's monitoring address, from which its durability can be read.
    pub fn monitored_url(&self) -> String {
        let url = self.url();
        format!("{url}?monitor=http://{}", self.monitor_port.address())
    }

    /// The parsed [`Self::url`].
    ///
    /// # Panics
    /// Never.
    pub fn log_url(&self) -> LogUrl {
        self.url().parse().expect("the URL is valid")
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Kills the server, as `kill -9` does. Its files stay.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again, on the same port and files.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.process = run(&self.program, self.directory.path(), &self.port);
    }

    /// Stops the server's clock, so to speak: it keeps its connections and answers nothing until
    /// [`Self::thaw`].
    pub fn freeze(&mut self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Ends [`Self::freeze`].
    pub fn thaw(&mut self) {
        self.process.signal(Signal::SIGCONT);
    }
}

fn settings_in(directory: &Path) -> PathBuf {
    directory.join("nats.conf")
}

fn run(program: &Path, directory: &Path, port: &Port) -> Supervised {
    xtask::nats::start(program, directory, port, Some(&settings_in(directory)))
        .expect("the server starts")
}
