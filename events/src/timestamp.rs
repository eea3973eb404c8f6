//! Points in time with millisecond precision, as the API and the log write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not an RFC 3339 date and time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: expected RFC 3339, for example 2026-11-22T17:16:12.692Z")]
pub struct InvalidTimestamp;

/// A point in time in UTC with millisecond precision, written `2026-11-22T17:16:12.692Z`.
///
/// For people to read. Nothing is ever ordered by it: clocks differ and jump; order is by
/// [`Position`](crate::Position).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The present, by this machine's clock.
    pub fn now() -> Self {
        Self::truncate(jiff::Timestamp::now())
    }

    /// The point in time `milliseconds` after 1970-01-01T00:00:00Z; `None` outside the years -9999 to 9999.
    pub fn from_millis(milliseconds: i64) -> Option<Self> {
        jiff::Timestamp::from_millisecond(milliseconds)
            .ok()
            .map(Self)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Year and month in UTC.
    pub(crate) fn year_and_month(self) -> (i16, i8) {
        let date = self.0.to_zoned(jiff::tz::TimeZone::UTC).date();
        (date.year(), date.month())
    }

    /// Midnight of the first day of a month in UTC; `None` outside the years -9999 to 9999.
    pub(crate) fn beginning_of_month(year: i16, month: i8) -> Option<Self> {
        let date = jiff::civil::Date::new(year, month, 1).ok()?;
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(Self(zoned.timestamp()))
    }

    /// The point in time so much earlier; the earliest there is, where there is none.
    #[must_use]
    pub fn before(self, duration: std::time::Duration) -> Self {
        self.0.saturating_sub(duration).map_or(self, Self::truncate)
    }

    fn truncate(timestamp: jiff::Timestamp) -> Self {
        Self::from_millis(timestamp.as_millisecond()).unwrap_or(Self(timestamp))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}", self.0)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let parsed: Result<jiff::Timestamp, _> = text.parse();
        // The last second there is has no milliseconds.
        parsed
            .ok()
            .and_then(|timestamp| Self::from_millis(timestamp.as_millisecond()))
            .ok_or(InvalidTimestamp)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn always_three_decimals_and_utc() {
        for (given, written) in [
            ("2026-11-22T17:16:12.692Z", "2026-11-22T17:16:12.692Z"),
            ("2026-11-22T17:16:12Z", "2026-11-22T17:16:12.000Z"),
            ("2026-11-22T18:16:12.6929+01:00", "2026-11-22T17:16:12.692Z"),
        ] {
            assert_eq!(given.parse::<Timestamp>().unwrap().to_string(), written);
        }
        for given in ["yesterday", "9999-12-30T22:00:00.9399Z"] {
            assert_eq!(given.parse::<Timestamp>(), Err(InvalidTimestamp));
        }
    }
}
