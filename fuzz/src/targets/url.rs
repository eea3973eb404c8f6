//! Addresses of logs, key stores and read models, which may have passwords in them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use event_log::LogUrl;
use keys::KeysUrl;
use read_models::ReadModelsUrl;

use crate::{Outcome, refused};

/// The password that the corpus has in its addresses.
const PASSWORD: &str = "hunter2hunter2";

pub fn run(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    let outcomes = [
        address::<LogUrl>(text),
        address::<KeysUrl>(text),
        address::<ReadModelsUrl>(text),
    ];
    outcomes.into_iter().min().unwrap()
}

fn address<T>(text: &str) -> Outcome
where
    T: FromStr<Err: Display + Debug> + Display + Debug + PartialEq,
{
    let (outcome, shown) = match text.parse::<T>() {
        Ok(address) => {
            let shown = address.to_string();
            // A login that is hidden can't be read back.
            if !shown.contains('@') {
                assert_eq!(shown.parse::<T>().unwrap(), address);
            }
            (Outcome::Accepted, format!("{shown} {address:?}"))
        }
        Err(error) => (refused(&error), format!("{error} {error:?}")),
    };
    if has_password(text) {
        assert!(!shown.contains(PASSWORD), "{text} is shown as {shown}");
    }
    outcome
}

/// Whether the password stands where passwords stand, and nowhere else.
fn has_password(text: &str) -> bool {
    // A file's path has none, whatever it looks like.
    if text.starts_with("sqlite:") {
        return false;
    }
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let login = rest.rsplit_once('@').map_or("", |(login, _)| login);
    let after_user = login.split_once(':').map_or("", |(_, password)| password);
    after_user.contains(PASSWORD) && text.matches(PASSWORD).count() == 1
}
