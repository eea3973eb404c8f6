//! Reads the log to its end, past Hansard's services: with the adapter and the keys alone.

use anyhow::{Context, ensure};
use event_log::{Filter, Position};
use events::Event;
use futures::TryStreamExt;
use hansard_tests::Stack;

use crate::evidence::{Happening, Logged};

/// Every event of the log, in its order.
///
/// # Errors
/// The log can't be read.
///
/// # Panics
/// It can't be opened.
pub async fn read(stack: &Stack) -> anyhow::Result<Vec<Logged>> {
    let record = stack.open_record().await;
    let events = record.log.read(Filter::All, Position::ZERO).await;
    let mut events = events.context("the log can't be read")?;
    let mut log: Vec<Logged> = Vec::new();
    while let Some(recorded) = events.try_next().await? {
        let position = recorded.position.get();
        ensure!(
            log.last().is_none_or(|it| it.position < position),
            "the log gives {position} out of order"
        );
        let decoded = record.decode(&recorded).await?;
        log.push(match decoded {
            Ok(envelope) => Logged {
                position,
                actor: envelope.actor.map(|it| it.to_string()),
                key: envelope.key.map(|it| it.to_string()),
                happening: happening(position, &envelope.event),
            },
            Err(error) => Logged {
                position,
                actor: None,
                key: None,
                happening: Happening::Other {
                    what: error.to_string(),
                },
            },
        });
    }
    Ok(log)
}

fn happening(position: u64, event: &Event) -> Happening {
    match event {
        Event::UserCreated(event) => Happening::UserCreated {
            user: event.user_id.to_string(),
            name: event.first_name().to_owned(),
        },
        Event::UserDeleted(event) => Happening::UserDeleted {
            user: event.user_id.to_string(),
        },
        Event::RoomInitiated(event) => Happening::RoomInitiated {
            room: event.room_id.to_string(),
            members: event.members.iter().map(ToString::to_string).collect(),
        },
        Event::RoomDeleted(event) => Happening::RoomDeleted {
            room: event.room_id.to_string(),
        },
        Event::MessagePosted(event) => Happening::Posted {
            room: event.room_id.to_string(),
            author: event.author.to_string(),
            text: event.message_text.clone().unwrap_or_default(),
        },
        Event::MessageEdited(event) => Happening::Edited {
            room: event.room_id.to_string(),
            message: event.message_id.position().get(),
            text: event.message_text.clone().unwrap_or_default(),
        },
        Event::MessageDeleted(event) => Happening::MessageDeleted {
            room: event.room_id.to_string(),
            message: event.message_id.position().get(),
        },
        Event::ConversationRead(event) => {
            // Without a message: everything up to the reading itself.
            let named = event.up_to.map(|it| it.position().get());
            Happening::ConversationRead {
                room: event.room_id.to_string(),
                reader: event.reader.to_string(),
                up_to: named.map_or(position, |it| it.min(position)),
            }
        }
        other => Happening::Other {
            what: other.type_name().to_owned(),
        },
    }
}
