//! Installs Schemathesis, which sends hostile requests that it makes up from the API's description.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::fetch::{name_of, once, python};

/// Where the Python packages are that `requirements` pins: a directory in `cache`, to be named in `PYTHONPATH`.
/// Installs them if they are not.
///
/// # Errors
/// pip can't install them; the text says what it takes.
pub fn find(requirements: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(requirements)
        .with_context(|| format!("{}", requirements.display()))?;
    let directory = cache.join(format!("schemathesis-{}", name_of(&[&text])));
    once(&directory, |_, ready| {
        eprintln!("installing the packages of {}", requirements.display());
        let arguments = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "--target",
        ];
        let arguments = arguments.iter().map(OsStr::new);
        python(arguments.chain([
            ready.as_os_str(),
            OsStr::new("--requirement"),
            requirements.as_os_str(),
        ]))
    })
    .context("pip could not install Schemathesis; it takes Python 3.11 or later")?;
    Ok(directory)
}
