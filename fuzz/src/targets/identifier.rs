//! The short texts that name something: ids, positions, times, subjects, cursors.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use audit::{Bound, EventType, Speed};
use events::{
    IdempotencyKey, KeyId, MessageId, Position, RoomId, RoomType, Subject, Timestamp, UserId,
    UserType,
};
use gateway_ws::protocol::{After, Cursor};
use keys::{MasterId, Slot};
use merkle::Hash;
use platform::role::Role;

use crate::{Outcome, refused};

pub fn run(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    let outcomes = [
        has_one_spelling::<UserId>(text),
        has_one_spelling::<RoomId>(text),
        has_one_spelling::<MessageId>(text),
        has_one_spelling::<Position>(text),
        has_one_spelling::<Subject>(text),
        has_one_spelling::<KeyId>(text),
        has_one_spelling::<Slot>(text),
        has_one_spelling::<MasterId>(text),
        has_one_spelling::<Hash>(text),
        has_one_spelling::<UserType>(text),
        has_one_spelling::<RoomType>(text),
        has_one_spelling::<EventType>(text),
        has_one_spelling::<IdempotencyKey>(text),
        is_read_back::<Timestamp>(text),
        is_read_back::<Bound>(text),
        after(text),
        Outcome::of(text.parse::<Role>()),
        Outcome::of(text.parse::<Speed>()),
    ];
    // An idempotency key may be nearly anything.
    match outcomes
        .iter()
        .filter(|it| **it == Outcome::Accepted)
        .count()
    {
        0 | 1 => Outcome::Refused,
        _ => Outcome::Accepted,
    }
}

/// No two texts name the same.
fn has_one_spelling<T: FromStr<Err: Display> + Display>(text: &str) -> Outcome {
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string(), text);
            Outcome::Accepted
        }
        Err(error) => refused(&error),
    }
}

/// Several texts may mean the same; the one that is written is one of them.
fn is_read_back<T: FromStr<Err: Display + Debug> + Display + PartialEq + Debug>(
    text: &str,
) -> Outcome {
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string().parse::<T>().unwrap(), value);
            Outcome::Accepted
        }
        Err(error) => refused(&error),
    }
}

/// A position of a frame, or a message's id.
fn after(text: &str) -> Outcome {
    match text.parse() {
        Ok(After { position, log }) => {
            let written = match log {
                Some(log) => Cursor { position, log }.to_string(),
                None => position.to_string(),
            };
            assert_eq!(written, text);
            Outcome::Accepted
        }
        Err(error) => refused(&error),
    }
}
