//! The bodies of requests: the rules their fields must keep, and the texts that say which were broken.
//!
//! The rules and their texts are those of the tutorial's validator, plus upper limits. Fields that no
//! rule names are ignored, as there.

use std::collections::{BTreeMap, HashSet};

use events::{MessageId, RoomType, UserType};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Which fields are wrong, and how: field to text.
pub type FieldErrors = BTreeMap<&'static str, String>;

/// Upper limits for what a request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a first or last name.
    pub name_bytes: usize,
    /// Bytes in a message's text.
    pub text_bytes: usize,
    /// Users named when a room is initiated.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            name_bytes: 1024,
            text_bytes: 64 * 1024,
            members: 1000,
        }
    }
}

/// The body of `POST /users`.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CreateUserBody {
    /// Given name: not blank, at most 1 KiB.
    #[schema(min_length = 1, example = "Ada")]
    pub first_name: String,
    /// Family name: not blank, at most 1 KiB.
    #[schema(min_length = 1, example = "Lovelace")]
    pub last_name: String,
    /// `consumer` or `support`.
    #[schema(rename = "type", value_type = String, pattern = "^(consumer|support)$", example = "consumer")]
    pub user_type: UserType,
}

impl CreateUserBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Map<String, Value>, limits: &Limits) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let first_name = string(fields, "firstName", limits.name_bytes, &mut errors);
        let last_name = string(fields, "lastName", limits.name_bytes, &mut errors);
        let user_type = one_of(fields, "type", UserType::ALL, UserType::as_str, &mut errors);
        match (first_name, last_name, user_type) {
            (Some(first_name), Some(last_name), Some(user_type)) => Ok(Self {
                first_name,
                last_name,
                user_type,
            }),
            _ => Err(errors),
        }
    }
}

/// The body of `POST /room/initiate`.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct InitiateBody {
    /// The other members' ids: at least one, each once. The caller is a member in any case.
    #[schema(min_items = 1)]
    pub user_ids: Vec<String>,
    /// `consumer-to-consumer` or `consumer-to-support`.
    #[schema(rename = "type", value_type = String, pattern = "^(consumer-to-consumer|consumer-to-support)$", example = "consumer-to-consumer")]
    pub room_type: RoomType,
}

impl InitiateBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Map<String, Value>, limits: &Limits) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        let user_ids = strings(fields, "userIds", limits.members, &mut errors);
        let room_type = one_of(fields, "type", RoomType::ALL, RoomType::as_str, &mut errors);
        match (user_ids, room_type) {
            (Some(user_ids), Some(room_type)) => Ok(Self {
                user_ids,
                room_type,
            }),
            _ => Err(errors),
        }
    }
}

/// The body of `POST /room/{roomId}/message`.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct PostMessageBody {
    /// The text: not blank, at most 64 KiB. Kept byte for byte.
    #[schema(min_length = 1, example = "Hello there")]
    pub message_text: String,
}

/// The body of `PUT /room/:roomId/hold`.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct HoldBody {
    /// Why, for the record: the name of a case, for example. It is not sealed: nothing personal belongs here.
    #[schema(min_length = 1, example = "case 17/2026")]
    pub reason: String,
}

impl HoldBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Map<String, Value>, limits: &Limits) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        match string(fields, "reason", limits.text_bytes, &mut errors) {
            Some(reason) => Ok(Self { reason }),
            None => Err(errors),
        }
    }
}

impl PostMessageBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Map<String, Value>, limits: &Limits) -> Result<Self, FieldErrors> {
        let mut errors = FieldErrors::new();
        match string(fields, "messageText", limits.text_bytes, &mut errors) {
            Some(message_text) => Ok(Self { message_text }),
            None => Err(errors),
        }
    }
}

/// The body of `PUT /room/{roomId}/mark-read`, which may be absent.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct MarkReadBody {
    /// The id of the last message that was read; absent: all there are.
    #[schema(value_type = Option<String>, example = "000000000000002a")]
    pub up_to: Option<MessageId>,
}

impl MarkReadBody {
    /// Reads the body's fields.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(fields: &Map<String, Value>) -> Result<Self, FieldErrors> {
        let up_to = match fields.get("upTo") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.parse().map_err(|_| Self::unknown_message())?),
            Some(_) => {
                return Err(FieldErrors::from([(
                    "upTo",
                    "please provide a string".to_owned(),
                )]));
            }
        };
        Ok(Self { up_to })
    }

    /// What is wrong with an `upTo` that names no message of the room.
    pub fn unknown_message() -> FieldErrors {
        FieldErrors::from([(
            "upTo",
            "no message exists in this room for this id".to_owned(),
        )])
    }
}

fn string(
    fields: &Map<String, Value>,
    name: &'static str,
    max_bytes: usize,
    errors: &mut FieldErrors,
) -> Option<String> {
    let problem = match fields.get(name).and_then(Value::as_str) {
        None => "please provide a string".to_owned(),
        Some(text) if text.trim().is_empty() => "string cannot be empty".to_owned(),
        Some(text) if text.len() > max_bytes => {
            format!("string cannot be longer than {max_bytes} bytes")
        }
        Some(text) => return Some(text.to_owned()),
    };
    errors.insert(name, problem);
    None
}

fn one_of<T: Copy>(
    fields: &Map<String, Value>,
    name: &'static str,
    values: &[T],
    as_str: fn(T) -> &'static str,
    errors: &mut FieldErrors,
) -> Option<T> {
    let text = fields.get(name).and_then(Value::as_str);
    let found = values
        .iter()
        .copied()
        .find(|value| Some(as_str(*value)) == text);
    if found.is_none() {
        let possible: Vec<&str> = values.iter().map(|value| as_str(*value)).collect();
        errors.insert(name, format!("Possible value are {}", possible.join(",")));
    }
    found
}

fn strings(
    fields: &Map<String, Value>,
    name: &'static str,
    max_items: usize,
    errors: &mut FieldErrors,
) -> Option<Vec<String>> {
    let problem = match fields.get(name).and_then(Value::as_array) {
        None => "Please provide an array".to_owned(),
        Some(values) => {
            let texts: Vec<&str> = values
                .iter()
                .filter_map(Value::as_str)
                .filter(|text| !text.is_empty())
                .collect();
            let distinct: HashSet<String> = values.iter().map(Value::to_string).collect();
            if distinct.len() < values.len() {
                "Values of array should be unique".to_owned()
            } else if texts.len() < values.len() {
                "Values of array should be string only".to_owned()
            } else if values.is_empty() {
                "Array cannot be empty".to_owned()
            } else if values.len() > max_items {
                format!("Array cannot have more than {max_items} values")
            } else {
                return Some(texts.into_iter().map(str::to_owned).collect());
            }
        }
    };
    errors.insert(name, problem);
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_users_fields_are_checked_with_the_tutorials_texts() {
        let limits = Limits::default();
        let errors = |value| CreateUserBody::read(&fields(value), &limits).unwrap_err();
        assert_eq!(
            errors(json!({})),
            FieldErrors::from([
                ("firstName", "please provide a string".to_owned()),
                ("lastName", "please provide a string".to_owned()),
                ("type", "Possible value are consumer,support".to_owned()),
            ])
        );
        assert_eq!(
            errors(json!({"firstName": " \n", "lastName": 5, "type": "admin"})),
            FieldErrors::from([
                ("firstName", "string cannot be empty".to_owned()),
                ("lastName", "please provide a string".to_owned()),
                ("type", "Possible value are consumer,support".to_owned()),
            ])
        );
        let long = "x".repeat(limits.name_bytes + 1);
        assert_eq!(
            errors(json!({"firstName": long, "lastName": "b", "type": "support"})),
            FieldErrors::from([(
                "firstName",
                "string cannot be longer than 1024 bytes".to_owned()
            )])
        );
    }

    #[test]
    fn names_and_texts_are_kept_byte_for_byte() {
        let text = " \u{0}\u{7}\u{202e}👩\u{200d}👩\u{200d}👧 e\u{301} ";
        let body = PostMessageBody::read(&fields(json!({"messageText": text})), &Limits::default());
        assert_eq!(body.unwrap().message_text, text);
    }

    #[test]
    fn the_first_broken_rule_of_an_array_is_named() {
        for (value, problem) in [
            (json!({}), "Please provide an array"),
            (json!({"userIds": "a"}), "Please provide an array"),
            (
                json!({"userIds": [1, 1]}),
                "Values of array should be unique",
            ),
            (
                json!({"userIds": [1]}),
                "Values of array should be string only",
            ),
            (
                json!({"userIds": [""]}),
                "Values of array should be string only",
            ),
            (json!({"userIds": []}), "Array cannot be empty"),
        ] {
            let mut body = fields(value.clone());
            body.insert("type".to_owned(), json!("consumer-to-consumer"));
            let errors = InitiateBody::read(&body, &Limits::default()).unwrap_err();
            assert_eq!(
                errors,
                FieldErrors::from([("userIds", problem.to_owned())]),
                "{value}"
            );
        }
        let errors = InitiateBody::read(&fields(json!({"userIds": ["a"]})), &Limits::default());
        assert_eq!(
            errors.unwrap_err(),
            FieldErrors::from([(
                "type",
                "Possible value are consumer-to-consumer,consumer-to-support".to_owned()
            )])
        );
    }

    #[test]
    fn up_to_is_a_message_id_or_absent() {
        assert_eq!(MarkReadBody::read(&fields(json!({}))).unwrap().up_to, None);
        let body = MarkReadBody::read(&fields(json!({"upTo": "000000000000002a"}))).unwrap();
        assert_eq!(body.up_to.unwrap().position().get(), 42);
        assert!(MarkReadBody::read(&fields(json!({"upTo": "x"}))).is_err());
        assert!(MarkReadBody::read(&fields(json!({"upTo": 42}))).is_err());
    }
}
