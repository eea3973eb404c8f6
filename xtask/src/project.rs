//! Where this project and what is built of it are.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

/// The project's directories.
#[derive(Debug)]
pub struct Project {
    /// Where the workspace's Cargo.toml is.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
}

impl Project {
    /// Asks cargo.
    pub fn find() -> anyhow::Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cargo can't be run")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let path = |name: &str| {
            metadata[name]
                .as_str()
                .map(PathBuf::from)
                .with_context(|| format!("cargo metadata has no {name}"))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
        })
    }

    /// Where fetched programs and packages are kept.
    pub fn servers(&self) -> PathBuf {
        self.target.join("servers")
    }

    /// The file that pins the Python packages of the tests.
    pub fn python_requirements(&self) -> PathBuf {
        self.root.join("tests/python/requirements.txt")
    }

    /// Where the tests' JavaScript is, with the file that names its packages.
    pub fn javascript(&self) -> PathBuf {
        self.root.join("tests/js")
    }
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells this program about itself would reach the tests, and make cargo build what
    // depends on it again.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}
