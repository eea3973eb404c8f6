//! What a client's events mean: the name and the arguments of each, and what they ask of the connection.

use events::UserId;
use serde_json::{Map, Value};

use crate::protocol::{ClientFrame, ErrorCode, InvalidFrame};
use crate::transport::Incoming;

/// Reads an event, `["name", argument, ...]`. Missing arguments at the end are as good as null, and null as
/// missing, since that is what JavaScript makes of `undefined`.
///
/// - `identity(user)`
/// - `subscribe(room?, otherUser = "", after?, presence?)`: without a room, to all rooms of the caller
/// - `unsubscribe(room?)`
/// - `typing(room, state)`
/// - `auth(token)`: prolongs the connection
/// - `ping()`
pub fn read(event: &str) -> impl Iterator<Item = Incoming> {
    let (first, second) = match parse(event) {
        Ok((incoming, bring)) => (incoming, bring),
        Err(invalid) => (Incoming::Frame(Err(invalid)), None),
    };
    std::iter::once(first).chain(second)
}

fn parse(event: &str) -> Result<(Incoming, Option<Incoming>), InvalidFrame> {
    let values: Vec<Value> = serde_json::from_str(event).map_err(|_| InvalidFrame {
        code: ErrorCode::NotJson,
        message: "an event is a JSON array of its name and its arguments".to_owned(),
    })?;
    let mut values = values.into_iter();
    let Some(Value::String(name)) = values.next() else {
        return Err(invalid("an event's name is a string"));
    };
    let arguments: Vec<Value> = values.collect();
    match name.as_str() {
        "identity" => {
            let [user] = named(arguments, ["user"])?;
            let user = user.as_ref().and_then(Value::as_str).map(str::parse);
            match user {
                Some(Ok(user)) => Ok((Incoming::Identity(user), None)),
                _ => Err(invalid("identity(user) takes a user's id")),
            }
        }
        "subscribe" => {
            let names = ["room", "otherUser", "after", "presence"];
            let [room, other, after, presence] = named(arguments, names)?;
            let other = other_user(other)?;
            let frame = frame(
                &name,
                [("room", room), ("after", after), ("presence", presence)],
            )?;
            let bring = match (&frame, other) {
                (_, None) => None,
                (
                    ClientFrame::Subscribe {
                        room: Some(room), ..
                    },
                    Some(user),
                ) => Some(Incoming::Bring { user, room: *room }),
                _ => return Err(invalid("another user can be subscribed to a room only")),
            };
            Ok((Incoming::Frame(Ok(frame)), bring))
        }
        "unsubscribe" => {
            let [room] = named(arguments, ["room"])?;
            let frame = frame(&name, [("room", room)])?;
            Ok((Incoming::Frame(Ok(frame)), None))
        }
        "typing" => {
            let [room, state] = named(arguments, ["room", "state"])?;
            let frame = frame(&name, [("room", room), ("state", state)])?;
            Ok((Incoming::Frame(Ok(frame)), None))
        }
        "auth" => {
            let [token] = named(arguments, ["token"])?;
            let frame = frame(&name, [("token", token)])?;
            Ok((Incoming::Frame(Ok(frame)), None))
        }
        "ping" => {
            let [] = named(arguments, [])?;
            Ok((Incoming::Frame(Ok(ClientFrame::Ping)), None))
        }
        _ => Err(InvalidFrame {
            code: ErrorCode::UnknownType,
            message: "the event is unknown; possible events are identity, subscribe, unsubscribe, \
                      typing, auth and ping"
                .to_owned(),
        }),
    }
}

/// The arguments in their places; more than there are names for is refused.
fn named<const COUNT: usize>(
    mut arguments: Vec<Value>,
    names: [&str; COUNT],
) -> Result<[Option<Value>; COUNT], InvalidFrame> {
    if arguments.len() > COUNT {
        let names = names.join(", ");
        return Err(invalid(&format!(
            "the event has too many arguments; it takes these: ({names})"
        )));
    }
    arguments.resize(COUNT, Value::Null);
    let mut arguments = arguments.into_iter();
    Ok(names.map(|_| arguments.next().filter(|argument| !argument.is_null())))
}

/// The frame of `/ws` that says the same.
fn frame<const COUNT: usize>(
    name: &str,
    fields: [(&str, Option<Value>); COUNT],
) -> Result<ClientFrame, InvalidFrame> {
    let mut frame = Map::new();
    frame.insert("type".to_owned(), name.into());
    for (field, value) in fields {
        if let Some(value) = value {
            frame.insert(field.to_owned(), value);
        }
    }
    ClientFrame::from_fields(&frame)
}

/// The other user; the tutorial's clients say "" where there is none.
fn other_user(argument: Option<Value>) -> Result<Option<UserId>, InvalidFrame> {
    let wrong = || invalid("otherUser must be a user's id");
    match argument {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| wrong()),
        Some(_) => Err(wrong()),
    }
}

fn invalid(message: &str) -> InvalidFrame {
    InvalidFrame {
        code: ErrorCode::InvalidMessage,
        message: message.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROOM: &str = "0123456789abcdef0123456789abcdef";
    const USER: &str = "fedcba9876543210fedcba9876543210";

    fn read_all(event: &str) -> Vec<Incoming> {
        read(event).collect()
    }

    fn subscribe(room: Option<&str>, after: Option<&str>, presence: bool) -> Incoming {
        Incoming::Frame(Ok(ClientFrame::Subscribe {
            room: room.map(|room| room.parse().unwrap()),
            after: after.map(|after| after.parse().unwrap()),
            presence,
        }))
    }

    #[test]
    fn missing_arguments_at_the_end_are_as_good_as_null() {
        for event in [
            r#"["subscribe","ROOM"]"#,
            r#"["subscribe","ROOM",""]"#,
            r#"["subscribe","ROOM",null,null]"#,
            r#"["subscribe","ROOM","",null,false]"#,
        ] {
            let event = event.replace("ROOM", ROOM);
            assert_eq!(read_all(&event), [subscribe(Some(ROOM), None, false)]);
        }
        for event in [r#"["subscribe"]"#, r#"["subscribe",null,""]"#] {
            assert_eq!(read_all(event), [subscribe(None, None, false)], "{event}");
        }
    }

    #[test]
    fn the_other_user_comes_after_oneself() {
        let event = format!(r#"["subscribe","{ROOM}","{USER}","00000000000000ff",true]"#);
        let bring = Incoming::Bring {
            user: USER.parse().unwrap(),
            room: ROOM.parse().unwrap(),
        };
        let expected = [subscribe(Some(ROOM), Some("00000000000000ff"), true), bring];
        assert_eq!(read_all(&event), expected);
    }

    #[test]
    fn every_other_event_is_read() {
        let identity = Incoming::Identity(USER.parse().unwrap());
        assert_eq!(read_all(&format!(r#"["identity","{USER}"]"#)), [identity]);
        assert_eq!(
            read_all(r#"["ping"]"#),
            [Incoming::Frame(Ok(ClientFrame::Ping))]
        );
        assert_eq!(
            read_all(&format!(r#"["unsubscribe","{ROOM}"]"#)),
            [Incoming::Frame(Ok(ClientFrame::Unsubscribe {
                room: Some(ROOM.parse().unwrap())
            }))]
        );
        assert_eq!(
            read_all(r#"["auth","a token"]"#),
            [Incoming::Frame(Ok(ClientFrame::Auth {
                token: "a token".to_owned()
            }))]
        );
        assert!(matches!(
            &read_all(&format!(r#"["typing","{ROOM}","start"]"#))[..],
            [Incoming::Frame(Ok(ClientFrame::Typing { .. }))]
        ));
    }

    #[test]
    fn garbage_is_told_and_never_silence() {
        for (event, code) in [
            ("", ErrorCode::NotJson),
            ("{}", ErrorCode::NotJson),
            ("[", ErrorCode::NotJson),
            ("[]", ErrorCode::InvalidMessage),
            ("[7]", ErrorCode::InvalidMessage),
            (r#"["dance"]"#, ErrorCode::UnknownType),
            (r#"["identity"]"#, ErrorCode::InvalidMessage),
            (r#"["identity",{}]"#, ErrorCode::InvalidMessage),
            (r#"["identity","me"]"#, ErrorCode::InvalidMessage),
            (r#"["subscribe","chat.>"]"#, ErrorCode::InvalidMessage),
            (r#"["subscribe",{"room":7}]"#, ErrorCode::InvalidMessage),
            (r#"["subscribe","ROOM",7]"#, ErrorCode::InvalidMessage),
            (r#"["subscribe","ROOM","me"]"#, ErrorCode::InvalidMessage),
            (r#"["subscribe","ROOM","","x"]"#, ErrorCode::InvalidMessage),
            (
                r#"["subscribe","ROOM","",null,7]"#,
                ErrorCode::InvalidMessage,
            ),
            (
                r#"["subscribe","ROOM","",null,true,1]"#,
                ErrorCode::InvalidMessage,
            ),
            (r#"["subscribe",null,"USER"]"#, ErrorCode::InvalidMessage),
            (r#"["unsubscribe",7]"#, ErrorCode::InvalidMessage),
            (r#"["typing"]"#, ErrorCode::InvalidMessage),
            (r#"["typing","ROOM","loudly"]"#, ErrorCode::InvalidMessage),
            (r#"["auth"]"#, ErrorCode::InvalidMessage),
            (r#"["ping",1]"#, ErrorCode::InvalidMessage),
        ] {
            let event = event.replace("ROOM", ROOM).replace("USER", USER);
            match &read_all(&event)[..] {
                [Incoming::Frame(Err(invalid))] => assert_eq!(invalid.code, code, "{event}"),
                other => panic!("{event}: {other:?}"),
            }
        }
    }
}
