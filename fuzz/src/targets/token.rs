//! Tokens: `platform::auth::Auth::verify`. The first byte says whether the rest is a token (an even one) or
//! claims, for which a good signature is made.

use std::sync::LazyLock;
use std::time::Duration;

use events::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use platform::auth::Auth;
use platform::config::AuthMode;
use serde_json::Value;

use crate::{Outcome, choice, refused};

/// What the token of the corpus that is genuine was signed with.
const SECRETS: [&str; 2] = [
    "a new secret that is long enough for it",
    "an old secret that is long enough for it",
];

/// How far clocks may differ, in milliseconds.
const LEEWAY: i64 = 5000;

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let secrets = SECRETS.map(str::to_owned);
    Auth::new(AuthMode::Token, Duration::from_secs(60), &secrets).unwrap()
});

pub fn run(data: &[u8]) -> Outcome {
    let (choice, rest) = choice(data);
    if choice % 2 == 0 {
        return token(rest);
    }
    match serde_json::from_slice::<Value>(rest) {
        Ok(claims) if claims.is_object() => signed(&claims),
        _ => Outcome::Refused,
    }
}

/// Nothing is accepted but what was signed, byte for byte.
fn token(data: &[u8]) -> Outcome {
    let Ok(token) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    if let Err(error) = AUTH.verify(token) {
        return refused(&error);
    }
    let (message, signature) = token.rsplit_once('.').unwrap();
    let genuine = SECRETS.iter().any(|secret| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let again = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        again.unwrap() == signature
    });
    assert!(genuine, "{token} is not signed, and is accepted");
    Outcome::Accepted
}

/// Of what is signed, only claims that say who and until when are accepted.
fn signed(claims: &Value) -> Outcome {
    let key = EncodingKey::from_secret(SECRETS[1].as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap();
    let read = match AUTH.verify(&token) {
        Ok(read) => read,
        Err(error) => return refused(&error),
    };
    assert_eq!(claims["userId"], read.user.to_string());
    assert_eq!(claims["userType"], read.user_type.as_str());
    if let Some(role) = claims.get("role") {
        assert_eq!(role, read.role.as_str());
    }
    let now = Timestamp::now().as_millis();
    assert!(
        read.expires_at.as_millis() + LEEWAY >= now,
        "it has expired"
    );
    Outcome::Accepted
}
