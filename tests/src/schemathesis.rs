//! Schemathesis: makes up requests from `/openapi.json`, sound ones and broken ones, and checks that every answer
//! is as the description says.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use xtask::servers::for_tests;

use crate::edge::project_file;
use crate::stack::Stack;
use crate::wait::within;

/// How long a run may take on a busy machine. It has a number of requests, not a time.
const PATIENCE: Duration = Duration::from_secs(210);

/// Schemathesis, with what it is to know of the stack that it attacks.
#[derive(Debug)]
pub struct Schemathesis {
    packages: PathBuf,
    configuration: String,
}

impl Schemathesis {
    /// Finds it. `None`, and a line that says so, where only the embedded stack is tested.
    ///
    /// # Panics
    /// Nothing says where it is.
    #[must_use]
    pub fn prepare() -> Option<Self> {
        let packages = for_tests("HANSARD_TEST_SCHEMATHESIS")?;
        let path = project_file("tests/python/schemathesis.toml");
        Some(Self {
            packages,
            configuration: std::fs::read_to_string(path).unwrap(),
        })
    }

    /// Names values that there are: one of the dictionaries that `tests/python/schemathesis.toml` ends before.
    #[must_use]
    pub fn with(mut self, dictionary: &str, values: &[String]) -> Self {
        // Arrays of texts are the same in TOML.
        writeln!(
            self.configuration,
            "{dictionary}.values = {}",
            json!(values)
        )
        .unwrap();
        self
    }

    /// Sends some `examples` requests to each operation, with this token, as the seed makes them.
    ///
    /// # Panics
    /// An answer is not as the description says, or the run does not come to its end; with all that was said.
    pub async fn attack(&self, stack: &Stack, token: &str, examples: u32, seed: u32) {
        let directory = tempfile::tempdir().unwrap();
        let configuration = directory.path().join("schemathesis.toml");
        std::fs::write(&configuration, &self.configuration).unwrap();
        let mut command = Command::new("python3");
        command
            // The directory of its own is where it keeps what it wants to replay.
            .current_dir(directory.path())
            .env("PYTHONPATH", &self.packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*")
            .args(["-m", "schemathesis.cli", "--no-color", "--config-file"])
            .arg(&configuration)
            .args(["run", "--continue-on-failure", "--request-timeout=60"])
            .args(["--warnings=off", "--output-truncate=false"])
            .arg(format!("--max-examples={examples}"))
            .arg(format!("--seed={seed}"))
            .arg(format!("--header=Authorization: Bearer {token}"))
            .arg(format!("{}/openapi.json", stack.base_url()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = within("Schemathesis", PATIENCE, command.output()).await;
        let output = output.expect("python3 can be run");
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{complaints}");
        println!("{said}");
    }
}
