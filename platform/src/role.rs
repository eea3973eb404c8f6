//! Roles: what the holder of a token may do beyond taking part, and the guard of routes that read the record.

use std::fmt;
use std::str::FromStr;

use axum::http::HeaderMap;
use events::{Authority, UserType};

use crate::auth::{Auth, Claims};
use crate::config::AuthMode;
use crate::error::ApiError;

/// What the holder of a token may do, beyond what everybody may. Only [`Self::Admin`] holds what others do:
/// somebody who audits need not be able to change what is audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes part in rooms.
    Member,
    /// Creates users, and removes users, rooms and messages of others.
    Support,
    /// Reads the record.
    Auditor,
    /// Does all of this, and erases users, holds rooms and releases them.
    Admin,
}

/// The text names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("possible values are member,support,auditor,admin")]
pub struct UnknownRole;

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Member, Self::Support, Self::Auditor, Self::Admin];

    /// The role as it is written in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Support => "support",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// The role of a token that names none.
    pub const fn of(user_type: UserType) -> Self {
        match user_type {
            UserType::Consumer => Self::Member,
            UserType::Support => Self::Support,
        }
    }

    /// Whether a token may belong to no user of the chat: the firm's own back office acts with such ones, and
    /// somebody has to create the first user.
    pub const fn stands_alone(self) -> bool {
        !matches!(self, Self::Member)
    }

    /// What commands let the role do to what is another's.
    pub const fn authority(self) -> Authority {
        match self {
            Self::Member | Self::Auditor => Authority::Own,
            Self::Support => Authority::Support,
            Self::Admin => Authority::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let mut roles = Self::ALL.into_iter();
        roles.find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

impl Auth {
    /// The caller of a route that reads the record.
    ///
    /// Whether the caller exists is for the route to find out, where it looks users up.
    ///
    /// # Errors
    /// 401 without a good token; 403 when it does not carry the role, unless everybody may do everything.
    pub fn auditor(&self, headers: &HeaderMap) -> Result<Claims, ApiError> {
        let claims = self.bearer(headers)?;
        // Where anybody may log in as anybody, a role would protect nothing.
        if self.mode() == AuthMode::Open || matches!(claims.role, Role::Auditor | Role::Admin) {
            Ok(claims)
        } else {
            Err(ApiError::forbidden(
                "only auditors and admins may read the record",
            ))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use axum::http::{StatusCode, header};
    use events::UserId;

    use super::*;

    fn auth(mode: AuthMode) -> Auth {
        let secret = "a secret of thirty-two bytes, or more".to_owned();
        Auth::new(mode, Duration::from_secs(60), &[secret]).unwrap()
    }

    fn asked(mode: AuthMode, role: Option<Role>) -> Result<Claims, ApiError> {
        let auth = auth(mode);
        let minute = Duration::from_secs(60);
        let token = auth.issue_for(UserId::random(), UserType::Support, role, minute);
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {token}").parse().unwrap();
        headers.insert(header::AUTHORIZATION, value);
        auth.auditor(&headers)
    }

    #[test]
    fn auditors_and_admins_read_the_record() {
        for (role, reads) in [
            // Support reads no record for being support.
            (None, false),
            (Some(Role::Member), false),
            (Some(Role::Support), false),
            (Some(Role::Auditor), true),
            (Some(Role::Admin), true),
        ] {
            let asked_with_tokens = asked(AuthMode::Token, role);
            assert_eq!(asked_with_tokens.is_ok(), reads, "{role:?}");
            if let Err(refused) = asked_with_tokens {
                assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{role:?}");
            }
            assert!(asked(AuthMode::Open, role).is_ok());
        }
    }

    #[test]
    fn a_token_is_needed_in_every_mode() {
        for mode in [AuthMode::Open, AuthMode::Token] {
            let refused = auth(mode).auditor(&HeaderMap::new()).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        }
    }

    #[test]
    fn a_role_reads_as_it_is_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("Admin".parse::<Role>(), Err(UnknownRole));
        let all = Role::ALL.map(Role::as_str).join(",");
        assert!(UnknownRole.to_string().ends_with(&all));
    }
}
