//! Files with secrets: master keys, signing keys, secrets of tokens. The first byte chooses among them.

use std::sync::LazyLock;

use keys::MasterKeys;
use merkle::SigningKey;
use platform::auth::Auth;
use platform::config::{AuthMode, Config};
use platform::signing;
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use crate::{Outcome, choice, refused};

static FILE: LazyLock<NamedTempFile> = LazyLock::new(|| NamedTempFile::new().unwrap());

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
});

pub fn run(data: &[u8]) -> Outcome {
    let (choice, text) = choice(data);
    std::fs::write(FILE.path(), text).unwrap();
    let told = match choice % 3 {
        0 => master_keys(text),
        1 => signing_keys(),
        _ => token_secrets(),
    };
    match told {
        Ok(()) => Outcome::Accepted,
        Err(error) => {
            no_secret_of(text, &error);
            refused(&error)
        }
    }
}

fn master_keys(text: &[u8]) -> Result<(), String> {
    let opening = MasterKeys::open(FILE.path().to_owned());
    let masters = RUNTIME
        .block_on(opening)
        .map_err(|error| error.to_string())?;
    let ids = RUNTIME.block_on(masters.ids()).unwrap();
    let text = std::str::from_utf8(text).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    assert_eq!(ids.len(), lines.count());
    Ok(())
}

fn signing_keys() -> Result<(), String> {
    let config = Config {
        signing_key_file: Some(FILE.path().to_owned()),
        ..Config::default()
    };
    let keys = signing::load_existing(&config).map_err(|error| error.to_string())?;
    for key in keys {
        let again: SigningKey = key.expose().parse().unwrap();
        assert_eq!(again.public(), key.public());
    }
    Ok(())
}

fn token_secrets() -> Result<(), String> {
    let config = Config {
        auth: AuthMode::Token,
        jwt_secret_file: Some(FILE.path().to_owned()),
        ..Config::default()
    };
    Auth::load(&config)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// What looks like a secret is not told.
fn no_secret_of(text: &[u8], error: &str) {
    let is_of_secret = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    for run in text.split(|byte| !is_of_secret(byte)) {
        if run.len() >= 24 {
            let run = std::str::from_utf8(run).unwrap();
            assert!(!error.contains(run), "{error}");
        }
    }
}
