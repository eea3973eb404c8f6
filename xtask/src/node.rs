//! Finds Node.js with its npm, and installs the JavaScript packages that the tests use.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::fetch::{name_of, once, run};
use crate::servers::{NODE, on_path};

/// What npm is told on every call: no package's own scripts are run, and nothing is sent anywhere that
/// is not needed.
const QUIET: [&str; 4] = [
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
];

/// Node.js and npm.
#[derive(Debug)]
pub struct Node {
    /// Where node is.
    pub program: PathBuf,
    /// The command that is npm, and its first arguments.
    npm: Vec<OsString>,
}

impl Node {
    /// Finds both; fetches into `cache` what is nowhere.
    ///
    /// # Errors
    /// As [`crate::servers::Server::find`].
    pub fn find(cache: &Path) -> anyhow::Result<Self> {
        let program = NODE.find(cache)?;
        let own_npm = program.with_file_name("npm");
        let installed = if own_npm.is_file() {
            Some(own_npm)
        } else {
            on_path("npm")
        };
        let npm = match installed {
            Some(npm) => vec![npm.into()],
            // The fetched node has its npm as a directory; distributions have node without npm.
            None => {
                let fetched = NODE.fetched(cache).context("no npm was found")?;
                let script = fetched.with_file_name("npm").join("bin/npm-cli.js");
                vec![fetched.into(), script.into()]
            }
        };
        Ok(Self { program, npm })
    }

    /// Where the packages are installed that the lock file in `directory` names: a directory in `cache`
    /// with their `node_modules`. Installs them if they are not.
    ///
    /// # Errors
    /// npm can't install them.
    pub fn packages(&self, directory: &Path, cache: &Path) -> anyhow::Result<PathBuf> {
        let files = ["package.json", "package-lock.json"];
        let texts = files.map(|name| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))
        });
        let [package, lock] = texts;
        let (package, lock) = (package?, lock?);
        let installed = cache.join(format!("packages-{}", name_of(&[&package, &lock])));
        once(&installed, |_, ready| {
            eprintln!("installing the packages of {}", directory.display());
            for (name, text) in files.iter().zip([&package, &lock]) {
                std::fs::write(ready.join(name), text)?;
            }
            run(self.npm("ci").current_dir(ready)).map(drop)
        })
        .context("npm could not install the packages that the tests use")?;
        Ok(installed)
    }

    /// An npm command.
    pub(crate) fn npm(&self, verb: &str) -> Command {
        // What npm starts, npm itself included where it is a script, is for `node` on the PATH.
        let own = self.program.parent().map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)));
        let mut command = Command::new(&self.npm[0]);
        command.args(&self.npm[1..]).arg(verb).args(QUIET);
        if let Ok(path) = path {
            command.env("PATH", path);
        }
        command
    }
}
