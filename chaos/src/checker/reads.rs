//! What was read against what the log says.

use std::collections::{BTreeMap, HashMap};

use crate::checker::About;
use crate::checker::past;
use crate::evidence::Evidence;
use crate::history::{Action, Answer, Operation, Outcome, Shown};

/// A page that was read.
struct Page<'a> {
    operation: &'a Operation,
    room: &'a str,
    /// The position that the reader sent.
    from: Option<u64>,
    messages: &'a [Shown],
    /// Messages before it are on another page.
    first: u64,
}

fn page(operation: &Operation) -> Option<Page<'_>> {
    let Action::Read { room } = &operation.action else {
        return None;
    };
    let attempt = operation.attempts.last()?;
    let Outcome::Acknowledged {
        answer: Answer::Page { messages, full },
        ..
    } = &attempt.outcome
    else {
        return None;
    };
    let first = messages.first().filter(|_| *full);
    Some(Page {
        operation,
        room,
        from: attempt.from,
        messages,
        first: first.map_or(0, |it| it.message),
    })
}

/// What a session has seen of a room last: in which operation, and in which version each message.
type Seen<'a> = (&'a Operation, BTreeMap<u64, u64>);

/// A room that was asked for and said not to be there, from this position on.
fn missing(operation: &Operation) -> Option<(&str, Option<u64>)> {
    let Action::Read { room } = &operation.action else {
        return None;
    };
    let attempt = operation.attempts.last()?;
    match &attempt.outcome {
        Outcome::Refused { status: 404, .. } => Some((room, attempt.from)),
        _ => None,
    }
}

fn about(operation: &Operation, room: &str) -> About {
    About::operation(operation.number).and_room(Some(room))
}

pub(super) fn read_your_writes(evidence: &Evidence) -> Vec<(String, About)> {
    let rooms = past::rooms(&evidence.log);
    let mut broken = Vec::new();
    for operation in &evidence.operations {
        let number = operation.number;
        if let Some((name, Some(from))) = missing(operation)
            && let Some(room) = rooms.get(name)
            && room.initiated.is_some_and(|it| it <= from)
            && room.deleted.is_none()
        {
            let message = format!("operation {number} from {from} finds no room, which was there");
            broken.push((message, about(operation, name)));
        }
        let Some(page) = page(operation) else {
            continue;
        };
        let (Some(from), Some(room)) = (page.from, rooms.get(page.room)) else {
            continue;
        };
        if let Some(deleted) = room.deleted.filter(|it| *it <= from) {
            let message = format!(
                "operation {number} from {from} reads a room that was deleted at {deleted}"
            );
            broken.push((message, about(operation, page.room)));
            continue;
        }
        let shown: HashMap<u64, &Shown> = page.messages.iter().map(|it| (it.message, it)).collect();
        let expected = room.messages.range(page.first..=from.max(page.first));
        for (position, message) in expected.filter(|(position, _)| **position <= from) {
            let wanted = message.version_at(from);
            let version = shown.get(position).map(|it| message.version(it));
            let fault = match version {
                None => "is not shown".to_owned(),
                // Something that never was is another rule's.
                Some(None) => continue,
                Some(Some(version)) if version >= wanted => continue,
                Some(Some(version)) => {
                    format!("is shown as of {version}, and was changed at {wanted}")
                }
            };
            broken.push((
                format!("operation {number} from {from}: message {position} {fault}"),
                about(operation, page.room).and_positions([*position]),
            ));
        }
    }
    broken
}

pub(super) fn monotonic_reads(evidence: &Evidence) -> Vec<(String, About)> {
    let rooms = past::rooms(&evidence.log);
    // By session and room.
    let mut seen: HashMap<(&str, &str), Seen<'_>> = HashMap::new();
    let mut broken = Vec::new();
    for operation in &evidence.operations {
        let number = operation.number;
        if let Some((name, _)) = missing(operation)
            && let Some((earlier, _)) = seen.get(&(operation.client.as_str(), name))
            && rooms.get(name).is_some_and(|it| it.deleted.is_none())
        {
            let message = format!(
                "operation {number} finds no room, which operation {} had read",
                earlier.number
            );
            broken.push((
                message,
                about(operation, name).and_operation(earlier.number),
            ));
        }
        let Some(page) = page(operation) else {
            continue;
        };
        let Some(room) = rooms.get(page.room) else {
            continue;
        };
        let versions = page.messages.iter().filter_map(|shown| {
            let version = room.messages.get(&shown.message)?.version(shown)?;
            Some((shown.message, version))
        });
        let versions: BTreeMap<u64, u64> = versions.collect();
        let session = (page.operation.client.as_str(), page.room);
        if let Some((earlier, known)) = seen.get(&session) {
            for (message, before) in known.range(page.first..) {
                let fault = match versions.get(message) {
                    Some(now) if now >= before => continue,
                    Some(now) => format!("is shown as of {now}, before it was as of {before}"),
                    // It is there, as something that never was: another rule's.
                    None if page.messages.iter().any(|it| it.message == *message) => continue,
                    None => "is not shown any more".to_owned(),
                };
                broken.push((
                    format!(
                        "operation {number}, after operation {}: message {message} {fault}",
                        earlier.number
                    ),
                    about(operation, page.room)
                        .and_operation(earlier.number)
                        .and_positions([*message]),
                ));
            }
        }
        seen.insert(session, (page.operation, versions));
    }
    broken
}

pub(super) fn nothing_made_up(evidence: &Evidence) -> Vec<(String, About)> {
    let rooms = past::rooms(&evidence.log);
    let mut broken = Vec::new();
    for page in evidence.operations.iter().filter_map(page) {
        let room = rooms.get(page.room);
        let mut last = None;
        for shown in page.messages {
            let message = room.and_then(|it| it.messages.get(&shown.message));
            let number = page.operation.number;
            let fault = if message.and_then(|it| it.version(shown)).is_none() {
                "was never as it is shown"
            } else if last >= Some(shown.message) {
                "is shown out of order, or twice"
            } else {
                last = Some(shown.message);
                continue;
            };
            broken.push((
                format!("operation {number}: message {} {fault}", shown.message),
                about(page.operation, page.room).and_positions([shown.message]),
            ));
        }
    }
    broken
}
