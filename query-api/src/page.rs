//! Which part of a list is asked for, `page` and `limit`, or a cursor; and as of when.

use std::fmt;
use std::str::FromStr;

use audit::Bound;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use contract::FieldErrors;
use events::{MessageId, UserId};
use platform::error::ApiError;
use read_models::{Page, PageStart};

const DEFAULT_LIMIT: u64 = 10;
const MAX_LIMIT: u64 = 100;

/// Far beyond any list's end, yet small enough that no store's arithmetic overflows.
const MAX_PAGE: u64 = 1 << 40;

/// The part of a list that a request's query names, as of now or then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requested {
    /// Which part.
    pub page: Page,
    /// As of when; `None`: now.
    pub as_of: Option<Bound>,
    /// As whom; `None`: as oneself.
    pub user: Option<UserId>,
}

impl<S: Send + Sync> FromRequestParts<S> for Requested {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parameters = Parameters::from_request_parts(parts, state).await?;
        let mut errors = FieldErrors::new();
        let requested = Self {
            page: parameters.page(&mut errors),
            as_of: read_as("asOf", parameters.value("asOf"), &mut errors),
            user: read_as("user", parameters.value("user"), &mut errors),
        };
        if requested.user.is_some() && parameters.value("asOf").is_none() {
            errors.insert("user", "only together with asOf".to_owned());
        }
        if errors.is_empty() {
            Ok(requested)
        } else {
            Err(ApiError::validation(errors))
        }
    }
}

/// The parameters in a request's query.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad_request("the query is not valid URL encoding"))?;
        Ok(Self(pairs))
    }
}

impl Parameters {
    /// The first parameter of this name.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// The part of a list that they name.
    pub(crate) fn page(&self, errors: &mut FieldErrors) -> Page {
        read(
            self.value("page"),
            self.value("limit"),
            self.value("before"),
            self.value("after"),
            errors,
        )
    }
}

fn read(
    page: Option<&str>,
    limit: Option<&str>,
    before: Option<&str>,
    after: Option<&str>,
    errors: &mut FieldErrors,
) -> Page {
    let number = whole_number("page", page, errors).unwrap_or(0);
    let limit = match whole_number("limit", limit, errors) {
        None | Some(0) => DEFAULT_LIMIT,
        Some(limit) => limit.min(MAX_LIMIT),
    };
    let before = cursor("before", before, errors);
    let after = cursor("after", after, errors);
    let start = match (before, after) {
        (Some(_), Some(_)) => {
            errors.insert("after", "use either before or after".to_owned());
            PageStart::Number(0)
        }
        (None, None) => PageStart::Number(number.min(MAX_PAGE)),
        _ if number > 0 => {
            errors.insert("page", "use either page or a cursor".to_owned());
            PageStart::Number(0)
        }
        (Some(message), None) => PageStart::Before(message),
        (None, Some(message)) => PageStart::After(message),
    };
    // The cap keeps the limit far below what fits.
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    Page { start, limit }
}

/// Reads a number as the tutorial's `parseInt(text)` does, whose result it replaces by a default when
/// there is none (`None` here). What it finds must be a whole number that is not negative.
fn whole_number(name: &'static str, text: Option<&str>, errors: &mut FieldErrors) -> Option<u64> {
    let text = text?.trim_start();
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(unsigned.len());
    let (digits, rest) = unsigned.split_at(end);
    if digits.is_empty() {
        return None;
    }
    // Digits alone fail to parse only when there are too many.
    let number = digits.parse().unwrap_or(u64::MAX);
    let mut rest = rest.chars();
    let fraction = rest.next() == Some('.') && rest.next().is_some_and(|c| c.is_ascii_digit());
    if fraction || (negative && number > 0) {
        errors.insert(name, "please provide a whole number, 0 or more".to_owned());
        return None;
    }
    Some(number)
}

fn read_as<T: FromStr<Err: fmt::Display>>(
    name: &'static str,
    text: Option<&str>,
    errors: &mut FieldErrors,
) -> Option<T> {
    let parsed = text?.parse();
    parsed
        .map_err(|error: T::Err| errors.insert(name, error.to_string()))
        .ok()
}

fn cursor(name: &'static str, text: Option<&str>, errors: &mut FieldErrors) -> Option<MessageId> {
    let parsed = text?.parse();
    if parsed.is_err() {
        errors.insert(name, "please provide a message id".to_owned());
    }
    parsed.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(
        page: Option<&str>,
        limit: Option<&str>,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<Page, FieldErrors> {
        let mut errors = FieldErrors::new();
        let page = super::read(page, limit, before, after, &mut errors);
        if errors.is_empty() {
            Ok(page)
        } else {
            Err(errors)
        }
    }

    fn numbered(page: &str, limit: &str) -> Result<(u64, u32), FieldErrors> {
        match read(Some(page), Some(limit), None, None)? {
            Page {
                start: PageStart::Number(number),
                limit,
            } => Ok((number, limit)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_read_as_in_the_tutorial() {
        assert_eq!(numbered("", ""), Ok((0, 10)));
        assert_eq!(numbered("2", "5"), Ok((2, 5)));
        assert_eq!(numbered("x", "y"), Ok((0, 10)));
        assert_eq!(numbered("-0", "0"), Ok((0, 10)));
        assert_eq!(numbered(" 3x", "7 items"), Ok((3, 7)));
        assert_eq!(numbered("1", "1000"), Ok((1, 100)));
        assert_eq!(
            numbered("99999999999999999999999", "99999999999999999999999"),
            Ok((MAX_PAGE, 100))
        );
    }

    #[test]
    fn negative_numbers_and_fractions_are_refused() {
        for (page, limit, wrong) in [
            ("-1", "5", vec!["page"]),
            ("0", "-5", vec!["limit"]),
            ("1.5", "-1", vec!["limit", "page"]),
        ] {
            let errors = numbered(page, limit).unwrap_err();
            assert_eq!(errors.keys().copied().collect::<Vec<_>>(), wrong);
        }
    }

    #[test]
    fn a_cursor_stands_alone() {
        let id = "000000000000002a";
        let page = read(Some("0"), None, Some(id), None).unwrap();
        assert_eq!(page.start, PageStart::Before(id.parse().unwrap()));
        let page = read(None, Some("3"), None, Some(id)).unwrap();
        assert_eq!(page.start, PageStart::After(id.parse().unwrap()));
        assert_eq!(page.limit, 3);
        assert!(read(None, None, Some(id), Some(id)).is_err());
        assert!(read(Some("1"), None, Some(id), None).is_err());
        assert!(read(None, None, Some("42"), None).is_err());
    }
}
