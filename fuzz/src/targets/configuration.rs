//! Configuration. The first byte chooses between a file and variables, one `NAME=VALUE` a line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::LazyLock;

use platform::config::{Args, Config};
use tempfile::NamedTempFile;

use crate::{Outcome, choice, refused};

static FILE: LazyLock<NamedTempFile> = LazyLock::new(|| NamedTempFile::new().unwrap());

pub fn run(data: &[u8]) -> Outcome {
    let (choice, rest) = choice(data);
    let mut args = Args::default();
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    if choice % 2 == 0 {
        std::fs::write(FILE.path(), rest).unwrap();
        args.config = Some(FILE.path().to_owned());
    } else {
        let lines = rest.split(|byte| *byte == b'\n');
        variables.extend(lines.filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&line[..at], &line[at + 1..]);
            // Other files are not what is tested.
            (name != b"HANSARD_CONFIG").then(|| {
                (
                    OsString::from_vec(name.to_vec()),
                    OsString::from_vec(value.to_vec()),
                )
            })
        }));
    }
    match Config::load_from(&args, variables) {
        Ok(config) => {
            let limits = config.limits();
            assert!(limits.members >= 2 && limits.text_bytes >= 1 && limits.name_bytes >= 1);
            // It may be logged.
            assert!(!format!("{config:?}").is_empty());
            Outcome::Accepted
        }
        Err(error) => refused(&error),
    }
}
