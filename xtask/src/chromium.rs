//! Finds a Chromium that needs no screen: where a variable says, on the PATH, or in a pinned npm package
//! that holds one with the libraries that it needs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::fetch::{check, make_executable, once, only_file_in, python, run};
use crate::node::Node;
use crate::servers::{on_path, version};

/// The variable that says where Chromium is.
const VARIABLE: &str = "HANSARD_CHROMIUM";
/// What it is called where it is installed.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const PACKAGE: &str = "@sparticuz/chromium@147.0.0";
/// Of the package's archive.
const SHA256: &str = "18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b";
const LIBRARIES: &str =
    "install one (on Debian: apt-get install chromium), or set HANSARD_CHROMIUM to its path";

/// Unpacks the file that the first argument names to the second.
const UNPACK: &str = r#"
const { createReadStream, createWriteStream } = require("node:fs");
const { pipeline } = require("node:stream");
const { createBrotliDecompress } = require("node:zlib");
const [from, to] = process.argv.slice(1);
pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to), (error) => {
  if (error) throw error;
});
"#;

/// Starts the fetched program with the libraries beside it.
const START: &str = r#"#!/bin/sh
here=${0%/*}
LD_LIBRARY_PATH="$here/lib" exec "$here/chromium.bin" "$@"
"#;

/// Where Chromium is; fetches it into `cache` when it is nowhere.
///
/// # Errors
/// It is nowhere and can't be fetched, or it doesn't run; the text says what to install.
pub fn find(node: &Node, cache: &Path) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        version(&path, LIBRARIES)
            .with_context(|| format!("{VARIABLE} is set to {}", path.display()))?;
        return Ok(path);
    }
    let installed = NAMES.into_iter().filter_map(on_path);
    if let Some(path) = installed
        .into_iter()
        .find(|path| version(path, LIBRARIES).is_ok())
    {
        return Ok(path);
    }
    let directory = cache.join(format!("chromium-{}", &SHA256[..12]));
    once(&directory, |scratch, ready| fetch(node, scratch, ready))
        .with_context(|| format!("no Chromium was found: {LIBRARIES}"))?;
    let path = directory.join("chromium");
    version(&path, LIBRARIES)?;
    Ok(path)
}

fn fetch(node: &Node, scratch: &Path, ready: &Path) -> anyhow::Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "there is a package for Linux on x86-64 only"
    );
    eprintln!("fetching chromium ({PACKAGE})");
    run(node.npm("pack").arg(PACKAGE).current_dir(scratch))?;
    let archive = only_file_in(scratch)?;
    check(&archive, SHA256)?;
    extract(&archive, scratch)?;
    let unpack = |name: &str, to: &Path| {
        let from = scratch.join("package/bin").join(name);
        run(Command::new(&node.program)
            .args(["-e", UNPACK])
            .args([from.as_path(), to]))
    };
    let program = ready.join("chromium.bin");
    unpack("chromium.br", &program)?;
    make_executable(&program)?;
    // They are under `lib`.
    let libraries = scratch.join("libraries.tar");
    unpack("al2023.tar.br", &libraries)?;
    extract(&libraries, ready)?;
    let start = ready.join("chromium");
    std::fs::write(&start, START)?;
    make_executable(&start)?;
    Ok(())
}

fn extract(archive: &Path, into: &Path) -> anyhow::Result<()> {
    python([
        OsStr::new("-m"),
        OsStr::new("tarfile"),
        OsStr::new("-e"),
        archive.as_os_str(),
        into.as_os_str(),
    ])
}
