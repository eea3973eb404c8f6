//! Compares JSON with patterns that leave open what no test can know: ids, dates, tokens.

use std::collections::BTreeMap;
use std::ops::Index;

use serde_json::{Map, Value};

/// Compares JSON with patterns, and remembers what the named places in them held.
///
/// A pattern is JSON. Objects must have the same members and no others, arrays as many items, and every
/// other value must be equal, except for texts like these in the pattern, which stand for
///
/// - `<id>`: a user's or room's id, 32 lower-case hex digits;
/// - `<message>`: a message's id or a position, 16 lower-case hex digits;
/// - `<date>`: a time in ISO 8601, UTC, with milliseconds;
/// - `<token>`: a JSON web token;
/// - `<text>`: a text that is not empty;
/// - `<number>`: a whole number, 0 or more;
/// - `<any>`: anything.
///
/// With a name, `<id ada>`, whatever stands there is remembered, and wherever the name comes again it must
/// be the same.
///
/// ```
/// # use hansard_tests::Shapes;
/// # use serde_json::json;
/// let mut seen = Shapes::new();
/// let answer = json!({"_id": "0123456789abcdef0123456789abcdef", "names": ["Ada"]});
/// seen.check(&answer, &json!({"_id": "<id ada>", "names": ["Ada"]}));
/// assert_eq!(&seen["ada"], "0123456789abcdef0123456789abcdef");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Shapes {
    seen: BTreeMap<String, Value>,
}

impl Shapes {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares `actual` with `pattern`.
    ///
    /// # Panics
    /// They don't match; the message says where.
    pub fn check(&mut self, actual: &Value, pattern: &Value) {
        if let Err(difference) = self.compare("$", actual, pattern) {
            panic!("{difference}\n  in {actual}\n  expected {pattern}");
        }
    }

    fn compare(&mut self, place: &str, actual: &Value, pattern: &Value) -> Result<(), String> {
        match (actual, pattern) {
            (Value::Object(actual), Value::Object(pattern)) => {
                self.compare_members(place, actual, pattern)
            }
            (Value::Array(items), Value::Array(patterns)) => {
                if items.len() != patterns.len() {
                    return Err(format!(
                        "{place} has {} items instead of {}",
                        items.len(),
                        patterns.len()
                    ));
                }
                for (index, (item, pattern)) in items.iter().zip(patterns).enumerate() {
                    self.compare(&format!("{place}[{index}]"), item, pattern)?;
                }
                Ok(())
            }
            (actual, Value::String(text)) if text.starts_with('<') && text.ends_with('>') => {
                self.compare_with_placeholder(place, actual, &text[1..text.len() - 1])
            }
            (actual, pattern) if actual == pattern => Ok(()),
            (actual, pattern) => Err(format!("{place} is {actual} instead of {pattern}")),
        }
    }

    fn compare_members(
        &mut self,
        place: &str,
        actual: &Map<String, Value>,
        pattern: &Map<String, Value>,
    ) -> Result<(), String> {
        for name in actual.keys() {
            if !pattern.contains_key(name) {
                return Err(format!("{place} has an unexpected member {name}"));
            }
        }
        for (name, pattern) in pattern {
            let Some(value) = actual.get(name) else {
                return Err(format!("{place} has no member {name}"));
            };
            self.compare(&format!("{place}.{name}"), value, pattern)?;
        }
        Ok(())
    }

    fn compare_with_placeholder(
        &mut self,
        place: &str,
        actual: &Value,
        placeholder: &str,
    ) -> Result<(), String> {
        let (kind, name) = match placeholder.split_once(' ') {
            Some((kind, name)) => (kind, Some(name)),
            None => (placeholder, None),
        };
        let text = actual.as_str();
        let fits = match kind {
            "id" => text.is_some_and(|text| is_hex(text, 32)),
            "message" => text.is_some_and(|text| is_hex(text, 16)),
            "date" => text.is_some_and(is_date),
            "token" => text.is_some_and(is_token),
            "text" => text.is_some_and(|text| !text.is_empty()),
            "number" => actual.is_u64(),
            "any" => true,
            _ => return Err(format!("the pattern's <{kind}> is unknown")),
        };
        if !fits {
            return Err(format!("{place} is {actual}, which is no <{kind}>"));
        }
        let Some(name) = name else { return Ok(()) };
        let first = self
            .seen
            .entry(name.to_owned())
            .or_insert_with(|| actual.clone());
        if first == actual {
            Ok(())
        } else {
            Err(format!("{place} is {actual}, but {name} was {first}"))
        }
    }
}

impl Index<&str> for Shapes {
    type Output = str;

    /// The text that the place with this name held.
    fn index(&self, name: &str) -> &str {
        self.seen
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no text with the name {name} was seen"))
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `2026-11-22T17:16:12.692Z`, as JavaScript's `toISOString` writes it.
fn is_date(text: &str) -> bool {
    const MODEL: &[u8] = b"0000-00-00T00:00:00.000Z";
    text.len() == MODEL.len()
        && text.bytes().zip(MODEL).all(|(byte, model)| match model {
            b'0' => byte.is_ascii_digit(),
            model => byte == *model,
        })
}

fn is_token(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn difference(actual: Value, pattern: Value) -> String {
        Shapes::new()
            .compare("$", &actual, &pattern)
            .expect_err("they differ")
    }

    #[test]
    fn members_items_and_values_must_be_the_same() {
        Shapes::new().check(
            &json!({"a": [1, {"b": null}]}),
            &json!({"a": [1, {"b": null}]}),
        );
        let more = difference(json!({"a": 1, "b": 2}), json!({"a": 1}));
        assert_eq!(more, "$ has an unexpected member b");
        let fewer = difference(json!({"a": {}}), json!({"a": {"b": "<any>"}}));
        assert_eq!(fewer, "$.a has no member b");
        let items = difference(json!({"a": [1]}), json!({"a": []}));
        assert_eq!(items, "$.a has 1 items instead of 0");
        let value = difference(json!([1, "1"]), json!([1, 1]));
        assert_eq!(value, "$[1] is \"1\" instead of 1");
    }

    #[test]
    fn placeholders_have_kinds() {
        let id = "0123456789abcdef0123456789abcdef";
        for (kind, right, wrong) in [
            ("<id>", json!(id), json!(id.to_uppercase())),
            ("<message>", json!(&id[..16]), json!(id)),
            (
                "<date>",
                json!("2026-11-22T17:16:12.692Z"),
                json!("2026-11-22T17:16:12Z"),
            ),
            ("<token>", json!("a.b-_.c"), json!("Bearer a.b.c")),
            ("<text>", json!("x"), json!("")),
            ("<number>", json!(0), json!(-1)),
        ] {
            Shapes::new().check(&right, &json!(kind));
            difference(wrong, json!(kind));
        }
    }

    #[test]
    fn what_has_the_same_name_must_be_the_same() {
        let mut seen = Shapes::new();
        seen.check(&json!(["x", "x"]), &json!(["<text a>", "<text a>"]));
        assert_eq!(&seen["a"], "x");
        assert!(seen.compare("$", &json!("y"), &json!("<text a>")).is_err());
    }
}
