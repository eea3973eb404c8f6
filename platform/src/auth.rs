//! Tokens: issuing them, checking them, and the secrets behind them.
//!
//! A token is a JSON web token signed with HMAC-SHA-256 (RFC 7519, HS256) with the claims
//! `{userId, userType, role, iat, exp}`, of which `role` may be absent. No other algorithm is accepted,
//! whatever the token's header says.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use events::{Timestamp, UserId, UserType};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{AuthMode, Config, ConfigError};
use crate::error::ApiError;
use crate::role::Role;
use crate::secret;

/// Clocks of different machines may differ by this many seconds.
const LEEWAY_SECONDS: u64 = 5;

/// A secret must be as long as the hash it keys (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The name of the generated secret's file in the data directory.
const GENERATED_SECRET: &str = "jwt-secret";

/// Who a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The user.
    pub user: UserId,
    /// What kind of user it was when the token was issued.
    pub user_type: UserType,
    /// What the token's holder may do.
    pub role: Role,
    /// When the token ceases to be valid.
    pub expires_at: Timestamp,
}

/// Why a token is refused. Where the tutorial's library has a text for it, that is the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The header has no token in it.
    #[error("jwt must be provided")]
    Missing,
    /// Not a token at all.
    #[error("jwt malformed")]
    Malformed,
    /// Signed with another algorithm than HS256, or not at all.
    #[error("invalid algorithm")]
    Algorithm,
    /// The signature was not made with any of the accepted secrets.
    #[error("invalid signature")]
    Signature,
    /// It has expired.
    #[error("jwt expired")]
    Expired,
    /// Its time has not come.
    #[error("jwt not active")]
    NotYetValid,
    /// It does not say when it expires.
    #[error("jwt without an exp claim")]
    NoExpiry,
    /// Its `userId` is absent or no user id.
    #[error("jwt with an invalid userId claim")]
    UserId,
    /// Its `userType` is absent or no user type.
    #[error("jwt with an invalid userType claim")]
    UserType,
    /// Its `role` is no role.
    #[error("jwt with an invalid role claim")]
    Role,
}

/// The claims as they stand in a token that is issued.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IssuedClaims {
    user_id: UserId,
    user_type: UserType,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    iat: i64,
    exp: i64,
}

/// The claims of a token that is checked: each can be absent or anything, and is judged by itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenClaims {
    user_id: Option<Value>,
    user_type: Option<Value>,
    /// The one that may be absent: `null` is something else.
    #[serde(default, deserialize_with = "given")]
    role: Option<Value>,
    exp: Option<Value>,
}

fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Issues and checks tokens.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    mode: AuthMode,
    time_to_live: Duration,
    signing_key: EncodingKey,
    /// In the order of the secret file. Never empty.
    verifying_keys: Vec<DecodingKey>,
    validation: Validation,
}

impl Auth {
    /// Reads the secrets that the configuration names; with open authentication and none named, makes
    /// one in the data directory, which all processes that share the directory use.
    ///
    /// # Errors
    /// No usable secret, or open authentication on an address that other machines can reach.
    pub fn load(config: &Config) -> Result<Self, ConfigError> {
        if config.auth == AuthMode::Open && !config.listens_on_loopback() {
            return Err(ConfigError::new(format!(
                "auth=open lets anybody act as anybody and is refused on {}, which other machines can \
                 reach; listen on a loopback address such as 127.0.0.1:{}, or use --auth token",
                config.listen,
                config.listen.port()
            )));
        }
        let secrets = match (&config.jwt_secret_file, config.auth) {
            (Some(file), _) => read_secrets(file)?,
            (None, AuthMode::Open) => read_secrets(&secret::generated(config, GENERATED_SECRET)?)?,
            (None, AuthMode::Token) => {
                return Err(ConfigError::new(
                    "auth=token needs --jwt-secret-file, a file with a secret of at least 32 bytes",
                ));
            }
        };
        Self::new(config.auth, config.token_ttl(), &secrets)
    }

    /// Issues tokens that live for `time_to_live`, signed with the first of `secrets`, and accepts those
    /// signed with any of them.
    ///
    /// # Errors
    /// There is no secret.
    pub fn new(
        mode: AuthMode,
        time_to_live: Duration,
        secrets: &[String],
    ) -> Result<Self, ConfigError> {
        let [first, ..] = secrets else {
            return Err(ConfigError::new("there is no secret to sign tokens with"));
        };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        // Tokens name no audience, and one that does was issued for something else; but the tutorial's
        // tokens are accepted whatever else they say.
        validation.validate_aud = false;
        let verifying_keys = secrets
            .iter()
            .map(|secret| DecodingKey::from_secret(secret.as_bytes()))
            .collect();
        Ok(Self(Arc::new(Inner {
            mode,
            time_to_live,
            signing_key: EncodingKey::from_secret(first.as_bytes()),
            verifying_keys,
            validation,
        })))
    }

    /// Whether callers must prove who they are.
    pub fn mode(&self) -> AuthMode {
        self.0.mode
    }

    /// A new token for this user, valid for the configured time.
    pub fn issue(&self, user: UserId, user_type: UserType) -> String {
        self.issue_for(user, user_type, None, self.0.time_to_live)
    }

    /// A new token for this user, valid for `time_to_live`; without a role its type decides on it.
    // Signing text with HMAC and serialising plain fields cannot fail.
    #[allow(clippy::expect_used)]
    pub fn issue_for(
        &self,
        user: UserId,
        user_type: UserType,
        role: Option<Role>,
        time_to_live: Duration,
    ) -> String {
        let now = Timestamp::now().as_millis() / 1000;
        let seconds = i64::try_from(time_to_live.as_secs()).unwrap_or(i64::MAX);
        let claims = IssuedClaims {
            user_id: user,
            user_type,
            role: role.map(Role::as_str),
            iat: now,
            exp: now.saturating_add(seconds),
        };
        let header = Header::new(Algorithm::HS256);
        jsonwebtoken::encode(&header, &claims, &self.0.signing_key)
            .expect("signing with HMAC cannot fail")
    }

    /// Who the token speaks for.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let mut outcome = Err(TokenError::Signature);
        for key in &self.0.verifying_keys {
            outcome = jsonwebtoken::decode::<GivenClaims>(token, key, &self.0.validation)
                .map_err(|error| token_error(&error));
            // Only a wrong signature says nothing about what another secret would find.
            if !matches!(outcome, Err(TokenError::Signature)) {
                break;
            }
        }
        let claims = outcome?.claims;
        let text = |claim: &Option<Value>| claim.as_ref()?.as_str().map(str::to_owned);
        let user = text(&claims.user_id)
            .and_then(|text| text.parse().ok())
            .ok_or(TokenError::UserId)?;
        let user_type = text(&claims.user_type)
            .and_then(|text| text.parse().ok())
            .ok_or(TokenError::UserType)?;
        let role = match &claims.role {
            None => Role::of(user_type),
            Some(_) => text(&claims.role)
                .and_then(|text| text.parse().ok())
                .ok_or(TokenError::Role)?,
        };
        Ok(Claims {
            user,
            user_type,
            role,
            expires_at: claims
                .exp
                .and_then(|exp| exp.as_f64())
                // Rounds to the millisecond; what does not fit saturates and is out of range.
                .and_then(|seconds| Timestamp::from_millis((seconds * 1000.0) as i64))
                .ok_or(TokenError::NoExpiry)?,
        })
    }

    /// Who the request's `Authorization: Bearer TOKEN` header speaks for.
    ///
    /// # Errors
    /// 401 without such a header, or with a token that is refused.
    pub fn bearer(&self, headers: &HeaderMap) -> Result<Claims, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(ApiError::unauthorized(contract::texts::NO_TOKEN));
        };
        let token = value.to_str().ok().and_then(bearer_token).unwrap_or("");
        self.verify(token).map_err(ApiError::from)
    }
}

/// The token in the value of an `Authorization` header (RFC 6750, section 2.1); the scheme's case does
/// not matter.
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_start())
}

fn token_error(error: &errors::Error) -> TokenError {
    use errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            TokenError::NoExpiry
        }
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        // An algorithm that the library has no name for, such as `none`.
        ErrorKind::Json(error) if error.to_string().contains("unknown variant") => {
            TokenError::Algorithm
        }
        _ => TokenError::Malformed,
    }
}

fn read_secrets(file: &Path) -> Result<Vec<String>, ConfigError> {
    let name = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| ConfigError::new(format!("can't read the secret file {name}: {error}")))?;
    let mut secrets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let secret = line.trim();
        if secret.is_empty() {
            continue;
        }
        if secret.len() < MIN_SECRET_BYTES {
            return Err(ConfigError::new(format!(
                "the secret in line {} of {name} has {} bytes; at least {MIN_SECRET_BYTES} are needed",
                index + 1,
                secret.len()
            )));
        }
        secrets.push(secret.to_owned());
    }
    if secrets.is_empty() {
        return Err(ConfigError::new(format!(
            "the secret file {name} is empty; write a random secret of at least {MIN_SECRET_BYTES} bytes \
             into it"
        )));
    }
    Ok(secrets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;

    const OLD: &str = "an old secret that is long enough, really";
    const NEW: &str = "a new secret that is long enough, really";

    fn auth(secrets: &[&str]) -> Auth {
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        Auth::new(AuthMode::Token, Duration::from_secs(60), &secrets).unwrap()
    }

    fn now() -> i64 {
        Timestamp::now().as_millis() / 1000
    }

    fn signed(algorithm: Algorithm, claims: &Value) -> String {
        let key = EncodingKey::from_secret(NEW.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn claims(changes: Value) -> Value {
        let mut claims = json!({
            "userId": "0123456789abcdef0123456789abcdef",
            "userType": "consumer",
            "iat": now(),
            "exp": now() + 60,
        });
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }

    #[test]
    fn an_issued_token_speaks_for_its_user_until_it_expires() {
        let auth = auth(&[NEW]);
        let user = UserId::random();
        let claims = auth.verify(&auth.issue(user, UserType::Support)).unwrap();
        assert_eq!((claims.user, claims.user_type), (user, UserType::Support));
        let left = claims.expires_at.as_millis() / 1000 - now();
        assert!((58..=60).contains(&left), "{left}");
        let forever = auth.issue_for(user, UserType::Support, None, Duration::from_secs(1 << 33));
        assert!(auth.verify(&forever).is_ok());
    }

    #[test]
    fn a_token_without_a_role_has_that_of_its_users_type() {
        let auth = auth(&[NEW]);
        let role = |user_type, role| {
            let token = auth.issue_for(UserId::random(), user_type, role, Duration::from_secs(60));
            auth.verify(&token).unwrap().role
        };
        assert_eq!(role(UserType::Consumer, None), Role::Member);
        assert_eq!(role(UserType::Support, None), Role::Support);
        for given in Role::ALL {
            for user_type in UserType::ALL {
                assert_eq!(role(*user_type, Some(given)), given);
            }
        }
    }

    #[test]
    fn secrets_rotate() {
        let (old, new, both) = (auth(&[OLD]), auth(&[NEW]), auth(&[NEW, OLD]));
        let user = UserId::random();
        let issued_before = old.issue(user, UserType::Consumer);
        assert!(both.verify(&issued_before).is_ok());
        assert!(new.verify(&both.issue(user, UserType::Consumer)).is_ok());
        assert_eq!(new.verify(&issued_before), Err(TokenError::Signature));
    }

    #[test]
    fn every_wrong_token_is_refused_with_its_reason() {
        let auth = auth(&[NEW, OLD]);
        let good = signed(Algorithm::HS256, &claims(json!({})));
        assert!(auth.verify(&good).is_ok());
        let mut with_null_role = claims(json!({}));
        with_null_role["role"] = Value::Null;
        // {"alg":"none","typ":"JWT"}
        let payload = good.split('.').nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        let stripped = format!("{}.", good.rsplit_once('.').unwrap().0);
        let other_payload = signed(Algorithm::HS256, &claims(json!({"userType": "support"})));
        let swapped = {
            let parts: Vec<&str> = good.split('.').collect();
            let payload = other_payload.split('.').nth(1).unwrap();
            format!("{}.{payload}.{}", parts[0], parts[2])
        };
        for (token, reason) in [
            (String::new(), TokenError::Missing),
            ("x".to_owned(), TokenError::Malformed),
            ("a.b.c".to_owned(), TokenError::Malformed),
            ("..".to_owned(), TokenError::Malformed),
            ("é.é.é".to_owned(), TokenError::Malformed),
            (format!("{good}.x"), TokenError::Malformed),
            (unsigned, TokenError::Algorithm),
            (stripped, TokenError::Signature),
            (swapped, TokenError::Signature),
            (
                signed(Algorithm::HS384, &claims(json!({}))),
                TokenError::Algorithm,
            ),
            (
                signed(Algorithm::HS512, &claims(json!({}))),
                TokenError::Algorithm,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"exp": now() - 60}))),
                TokenError::Expired,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"nbf": now() + 60}))),
                TokenError::NotYetValid,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"exp": null}))),
                TokenError::NoExpiry,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"exp": "tomorrow"}))),
                TokenError::NoExpiry,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"exp": 1e300}))),
                TokenError::NoExpiry,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"userId": null}))),
                TokenError::UserId,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"userId": "chat.user.>"}))),
                TokenError::UserId,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"userId": {"$ne": 1}}))),
                TokenError::UserId,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"userType": "admin"}))),
                TokenError::UserType,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"role": "root"}))),
                TokenError::Role,
            ),
            (
                signed(Algorithm::HS256, &claims(json!({"role": ["admin"]}))),
                TokenError::Role,
            ),
            (signed(Algorithm::HS256, &with_null_role), TokenError::Role),
            (
                signed(Algorithm::HS256, &json!([1, 2])),
                TokenError::Malformed,
            ),
        ] {
            assert_eq!(auth.verify(&token), Err(reason), "{token}");
        }
    }

    #[test]
    fn the_bearer_header_is_read() {
        let auth = auth(&[NEW]);
        let token = auth.issue(UserId::random(), UserType::Consumer);
        let bearer = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            auth.bearer(&headers)
        };
        assert!(bearer(&format!("Bearer {token}")).is_ok());
        assert!(bearer(&format!("bearer  {token} ")).is_ok());
        for wrong in ["", "Bearer", "Bearer ", "Basic abc", &token] {
            let error = bearer(wrong).unwrap_err();
            assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(error.message(), "jwt must be provided", "{wrong}");
        }
        let none = auth.bearer(&HeaderMap::new()).unwrap_err();
        assert_eq!(none.message(), "No access token provided");
    }

    #[test]
    fn open_authentication_is_for_loopback_addresses() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: data.path().to_owned(),
            ..Config::default()
        };
        assert!(Auth::load(&config).is_ok());
        config.listen = "0.0.0.0:3000".parse().unwrap();
        let error = Auth::load(&config).err().unwrap().to_string();
        assert!(error.contains("is refused on 0.0.0.0:3000"), "{error}");
        config.auth = AuthMode::Token;
        let error = Auth::load(&config).err().unwrap().to_string();
        assert!(
            error.starts_with("auth=token needs --jwt-secret-file"),
            "{error}"
        );
    }

    #[test]
    fn processes_that_start_together_agree_on_the_generated_secret() {
        let data = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: data.path().join("new/dir"),
            ..Config::default()
        };
        let auths: Vec<Auth> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Auth::load(&config).unwrap()))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.collect()
        });
        for auth in &auths {
            let token = auth.issue(UserId::random(), UserType::Consumer);
            assert!(auths.iter().all(|other| other.verify(&token).is_ok()));
        }
        let files: Vec<_> = fs::read_dir(&config.data_dir).unwrap().collect();
        assert_eq!(files.len(), 1);
        let file = config.data_dir.join("jwt-secret");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_to_string(&file).unwrap().trim().len(), 64);
    }

    #[test]
    fn a_secret_file_must_hold_long_secrets() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("secrets");
        let mut config = Config {
            auth: AuthMode::Token,
            jwt_secret_file: Some(file.clone()),
            ..Config::default()
        };
        let mut error = |text: Option<&str>| {
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            config.listen = "0.0.0.0:3000".parse().unwrap();
            let error = Auth::load(&config).err();
            error.map(|error| error.to_string().replace(file.to_str().unwrap(), "FILE"))
        };
        assert_eq!(
            error(None).unwrap(),
            "can't read the secret file FILE: No such file or directory (os error 2)"
        );
        assert_eq!(
            error(Some(&format!("{NEW}\n\nshort\n"))).unwrap(),
            "the secret in line 3 of FILE has 5 bytes; at least 32 are needed"
        );
        assert!(
            error(Some("\n"))
                .unwrap()
                .starts_with("the secret file FILE is empty")
        );
        assert_eq!(error(Some(&format!("{NEW}\n{OLD}"))), None);
    }
}
