//! What became of each command in the log.

use std::collections::HashMap;

use crate::checker::About;
use crate::evidence::{Evidence, Happening, Logged};
use crate::history::{Action, Answer, Operation};

/// The events that operations led to.
pub(crate) struct Caused<'a> {
    by_key: HashMap<&'a str, Vec<&'a Logged>>,
    /// Those without a key, by their text.
    by_text: HashMap<&'a str, Vec<&'a Logged>>,
}

impl<'a> Caused<'a> {
    pub(crate) fn new(log: &'a [Logged]) -> Self {
        let mut caused = Self {
            by_key: HashMap::new(),
            by_text: HashMap::new(),
        };
        for logged in log {
            if let Some(key) = &logged.key {
                caused.by_key.entry(key).or_default().push(logged);
            } else if let Happening::Posted { text, .. } = &logged.happening {
                caused.by_text.entry(text).or_default().push(logged);
            }
        }
        caused
    }

    /// The events that this operation led to.
    pub(crate) fn by(&self, operation: &Operation) -> &[&'a Logged] {
        let events = match (&operation.key, &operation.action) {
            (Some(key), _) => self.by_key.get(key.as_str()),
            (None, Action::Post { text, .. }) => self.by_text.get(text.as_str()),
            (None, _) => None,
        };
        events.map_or(&[], Vec::as_slice)
    }
}

/// Whether this event is what the operation asks for.
fn carries_out(logged: &Logged, operation: &Operation) -> bool {
    if logged
        .actor
        .as_ref()
        .is_some_and(|it| *it != operation.actor)
    {
        return false;
    }
    match (&operation.action, &logged.happening) {
        (Action::CreateUser { name: asked }, Happening::UserCreated { name, .. }) => asked == name,
        (Action::DeleteUser { user: asked }, Happening::UserDeleted { user }) => asked == user,
        (Action::Initiate { members: asked }, Happening::RoomInitiated { members, .. }) => {
            asked == members
        }
        (Action::DeleteRoom { room: asked }, Happening::RoomDeleted { room }) => asked == room,
        (
            Action::Post { room, text },
            Happening::Posted {
                room: to,
                author,
                text: said,
            },
        ) => (room, text, &operation.actor) == (to, said, author),
        (
            Action::Edit {
                room,
                message,
                text,
            },
            Happening::Edited {
                room: of,
                message: edited,
                text: said,
            },
        ) => (room, message, text) == (of, edited, said),
        (
            Action::DeleteMessage { room, message },
            Happening::MessageDeleted {
                room: of,
                message: deleted,
            },
        ) => (room, message) == (of, deleted),
        (
            Action::MarkRead { room },
            Happening::ConversationRead {
                room: of, reader, ..
            },
        ) => (room, &operation.actor) == (of, reader),
        _ => false,
    }
}

/// Whether what the operation asks for was so already, which makes an event superfluous.
fn was_so(operation: &Operation, answer: &Answer, log: &[Logged]) -> bool {
    log.iter()
        .any(|logged| match (&operation.action, &logged.happening) {
            (Action::Initiate { members: asked }, Happening::RoomInitiated { room, members }) => {
                asked == members && *answer == Answer::Room { room: room.clone() }
            }
            (Action::DeleteUser { user: asked }, Happening::UserDeleted { user }) => asked == user,
            (
                Action::DeleteRoom { room: asked } | Action::DeleteMessage { room: asked, .. },
                Happening::RoomDeleted { room },
            ) => asked == room,
            (
                Action::DeleteMessage { message: asked, .. },
                Happening::MessageDeleted { message, .. },
            ) => asked == message,
            _ => false,
        })
}

fn positions(events: &[&Logged]) -> Vec<u64> {
    events.iter().map(|it| it.position).collect()
}

pub(super) fn exactly_once(evidence: &Evidence) -> Vec<(String, About)> {
    let caused = Caused::new(&evidence.log);
    let mut broken = Vec::new();
    for operation in evidence
        .operations
        .iter()
        .filter(|it| !it.action.is_query())
    {
        let Some((position, answer)) = operation.acknowledged() else {
            continue;
        };
        let (number, kind) = (operation.number, operation.action.kind());
        let about = || About::operation(number);
        match caused.by(operation) {
            [] if was_so(operation, answer, &evidence.log) => {}
            [] => broken.push((
                format!("{kind}, operation {number}, was acknowledged and is not in the log"),
                about(),
            )),
            [event] => {
                let says = match (answer, &event.happening) {
                    (Answer::Message { message }, _) => *message == event.position,
                    (Answer::Room { room }, Happening::RoomInitiated { room: new, .. }) => {
                        room == new
                    }
                    (Answer::User { user }, Happening::UserCreated { user: new, .. }) => {
                        user == new
                    }
                    _ => true,
                };
                let stands = position.is_none_or(|it| it == event.position);
                if !says || !stands || !carries_out(event, operation) {
                    broken.push((
                        format!(
                            "{kind}, operation {number}, was answered something else than its event at {} says",
                            event.position
                        ),
                        about().and_positions([event.position]),
                    ));
                }
            }
            events => broken.push((
                format!(
                    "{kind}, operation {number}, was acknowledged once and is in the log at {:?}",
                    positions(events)
                ),
                about().and_positions(positions(events)),
            )),
        }
    }
    broken
}

pub(super) fn at_most_once(evidence: &Evidence) -> Vec<(String, About)> {
    let caused = Caused::new(&evidence.log);
    let unknown = evidence
        .operations
        .iter()
        .filter(|it| !it.action.is_query() && it.acknowledged().is_none() && !it.is_refused());
    let doubled = unknown.filter_map(|operation| {
        let events = caused.by(operation);
        let (number, kind) = (operation.number, operation.action.kind());
        (events.len() > 1).then(|| {
            (
                format!(
                    "{kind}, operation {number}, was never acknowledged and is in the log at {:?}",
                    positions(events)
                ),
                About::operation(number).and_positions(positions(events)),
            )
        })
    });
    doubled.collect()
}

pub(super) fn refused(evidence: &Evidence) -> Vec<(String, About)> {
    let caused = Caused::new(&evidence.log);
    let refused = evidence.operations.iter().filter(|it| it.is_refused());
    let carried_out = refused.filter_map(|operation| {
        let events = caused.by(operation);
        let (number, kind) = (operation.number, operation.action.kind());
        (!events.is_empty()).then(|| {
            (
                format!(
                    "{kind}, operation {number}, was refused and is in the log at {:?}",
                    positions(events)
                ),
                About::operation(number).and_positions(positions(events)),
            )
        })
    });
    carried_out.collect()
}

pub(super) fn nothing_unasked(evidence: &Evidence) -> Vec<(String, About)> {
    let mut asked: HashMap<&str, &Operation> = HashMap::new();
    for operation in &evidence.operations {
        match (&operation.key, &operation.action) {
            (Some(key), _) => {
                asked.insert(key, operation);
            }
            (None, Action::Post { text, .. }) => {
                asked.insert(text, operation);
            }
            (None, _) => {}
        }
    }
    let unasked = evidence.log.iter().filter(|logged| {
        let name = match (&logged.key, &logged.happening) {
            (Some(key), _) => key,
            (None, Happening::Posted { text, .. }) => text,
            (None, _) => return true,
        };
        let operation = asked.get(name.as_str());
        !operation.is_some_and(|it| carries_out(logged, it))
    });
    let unasked = unasked.map(|logged| {
        (
            format!("nobody asked for what stands at {}", logged.position),
            About::position(logged.position),
        )
    });
    unasked.collect()
}
