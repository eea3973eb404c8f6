//! Servers for tests, of this crate and of those that build on it.
//!
//! For tests only: what goes wrong here panics with what to do.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{DEFAULT_STREAM, LogUrl};

/// How long a server may take to start. Generous: the machine may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(30);

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
    directory: TempDir,
    port: u16,
    monitor_port: u16,
    child: Option<Child>,
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
        // Another process may take a port between its choice and its use: then choose again.
        for _ in 0..5 {
            let mut server = Self {
                program: program.clone(),
                directory: tempfile::tempdir().expect("a temporary directory can be created"),
                port: free_port(),
                monitor_port: free_port(),
                child: None,
            };
            server.configure(jetstream_settings);
            if server.try_start() {
                return Some(server);
            }
        }
        panic!("{} does not start", program.display());
    }

    /// The URL of the log in this server's stream with the default name.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}/{DEFAULT_STREAM}", self.port)
    }

    /// The URL of the log with the server's monitoring address, from which its durability can be read.
    pub fn monitored_url(&self) -> String {
        let url = self.url();
        format!("{url}?monitor=http://127.0.0.1:{}", self.monitor_port)
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
        self.port
    }

    /// Kills the server, as `kill -9` does. Its files stay.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the server again, on the same port and files.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.try_start(), "the server does not start again");
    }

    /// Stops the server's clock, so to speak: it keeps its connections and answers nothing until
    /// [`Self::thaw`].
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Ends [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            let sent = Command::new("kill")
                .args([format!("-{signal}"), child.id().to_string()])
                .status()
                .expect("the program kill can be run");
            assert!(sent.success(), "the signal {signal} can't be sent");
        }
    }

    fn configure(&self, jetstream_settings: &str) {
        let directory = self.directory.path();
        let text = format!(
            "listen: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\nlog_file: {:?}\njetstream {{\n  store_dir: {:?}\n  \
             max_file_store: 1GB\n  {jetstream_settings}\n}}\n",
            self.port,
            self.monitor_port,
            directory.join("log"),
            directory.join("store"),
        );
        std::fs::write(directory.join("nats.conf"), text).expect("the settings can be written");
    }

    fn try_start(&mut self) -> bool {
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.directory.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => self.child.insert(child),
            Err(error) => panic!("{} can't be run: {error}", self.program.display()),
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Ok(Some(_)) = child.try_wait() {
                return false;
            }
            if greets(self.port) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a port is free")
        .port()
}

/// Whether a server sends its greeting: then it has read its streams.
fn greets(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    let mut greeting = [0; 5];
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && greeting == *b"INFO "
}
