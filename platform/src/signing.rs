//! The keys that tree heads are signed with: a file with one a line. The first signs; what the others signed
//! before is accepted.

use std::path::{Path, PathBuf};

use merkle::{SigningKey, VerifyingKey};

use crate::config::{Config, ConfigError};
use crate::secret;

/// The file in the data directory where none is named.
const GENERATED_SIGNING_KEY: &str = "signing-key";

/// The keys, the one that signs first. Where no file is named, one with a new key is made in the data
/// directory, which only its owner may read.
///
/// # Errors
/// One sentence: the file can't be read or made, or what is in it is no key.
pub fn load(config: &Config) -> Result<Vec<SigningKey>, ConfigError> {
    read(&file(config)?)
}

/// The keys that there are already, the one that signs first.
///
/// # Errors
/// As [`load`]; and when there is no file.
pub fn load_existing(config: &Config) -> Result<Vec<SigningKey>, ConfigError> {
    let generated = || config.data_dir.join(GENERATED_SIGNING_KEY);
    read(&config.signing_key_file.clone().unwrap_or_else(generated))
}

/// The public keys of those that there are already; none where this process can't read them, which only who
/// signs has to.
pub fn known_public_keys(config: &Config) -> Vec<VerifyingKey> {
    let keys = load_existing(config).unwrap_or_default();
    keys.iter().map(|key| key.public().clone()).collect()
}

fn file(config: &Config) -> Result<PathBuf, ConfigError> {
    match &config.signing_key_file {
        Some(file) => Ok(file.clone()),
        None => secret::generated_as(config, GENERATED_SIGNING_KEY, |seed| {
            // Names tell logs apart; one that is made up must be different each time.
            let id: [u8; 4] = rand::random();
            let name = format!("hansard/{:08x}", u32::from_be_bytes(id));
            Ok(new(&name, seed)?.expose().to_owned())
        }),
    }
}

fn new(name: &str, seed: [u8; 32]) -> Result<SigningKey, ConfigError> {
    SigningKey::from_seed(name, seed).map_err(|error| ConfigError::new(error.to_string()))
}

/// A new key for the log with this name.
///
/// # Errors
/// One sentence: it can't be a name.
pub fn generate(name: &str) -> Result<SigningKey, ConfigError> {
    new(name, rand::random())
}

fn read(file: &Path) -> Result<Vec<SigningKey>, ConfigError> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        ConfigError::new(format!("can't read the signing key file {name}: {error}"))
    })?;
    let mut keys: Vec<SigningKey> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let key: SigningKey = line.parse().map_err(|error| {
            let number = index + 1;
            ConfigError::new(format!("line {number} of {name}: {error}"))
        })?;
        let (first, other) = (keys.first().map(SigningKey::public), key.public().name());
        if let Some(first) = first
            && first.name() != other
        {
            return Err(ConfigError::new(format!(
                "the keys in {name} have different names, {:?} and {other:?}: they must all be of one log",
                first.name()
            )));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(ConfigError::new(format!(
            "the signing key file {name} is empty; write a key into it that `hansard tree new-key NAME` makes"
        )));
    }
    Ok(keys)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let data = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: data.path().join("new"),
            ..Config::default()
        };
        let made = load(&config).unwrap();
        let again = load(&config).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].public(), again[0].public());
        assert!(made[0].public().name().starts_with("hansard/"));
        let mode = fs::metadata(config.data_dir.join("signing-key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_has_keys_of_one_log() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("keys");
        let config = Config {
            signing_key_file: Some(path.clone()),
            ..Config::default()
        };
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            let error = load(&config).err().unwrap().to_string();
            error.replace(path.to_str().unwrap(), "FILE")
        };
        let key = |name| generate(name).unwrap().expose().to_owned();
        let (one, two, other) = (key("a.example/log"), key("a.example/log"), key("b"));
        assert!(told("\n").starts_with("the signing key file FILE is empty; "));
        assert!(told(&format!("{one}\n\nx")).starts_with("line 3 of FILE: not a signing key: "));
        assert!(
            told(&format!("{one}\n{other}"))
                .contains("different names, \"a.example/log\" and \"b\"")
        );
        fs::write(&path, format!("{two}\n{one}\n")).unwrap();
        let keys = load(&config).unwrap();
        assert_eq!([keys[0].expose(), keys[1].expose()], [two, one]);
        assert!(generate("two words").is_err());
    }
}
