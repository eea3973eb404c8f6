//! The checker against histories that are wrong on purpose: each rule has at least one that breaks it and no
//! other rule, and one history that is right breaks none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use super::check;
use crate::evidence::{Evidence, Finding, Happening, Logged, Stream, Told};
use crate::history::{Action, Answer, Attempt, Operation, Outcome, Shown};
use crate::shrink::shrink;

/// Ada and Bela's room.
const ROOM: &str = "parlour";

fn text(text: &str) -> String {
    text.to_owned()
}

fn acknowledged(position: u64, answer: Answer) -> Outcome {
    Outcome::Acknowledged {
        position: Some(position),
        answer,
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown {
        why: text("time-out"),
    }
}

fn refused() -> Outcome {
    Outcome::Refused {
        status: 404,
        message: text("no such room"),
    }
}

/// Of an operation: when each attempt was sent is its number times ten, and it was answered five later.
fn operation(number: u64, actor: &str, action: Action, outcomes: Vec<Outcome>) -> Operation {
    let is_query = action.is_query();
    let attempts = outcomes
        .into_iter()
        .enumerate()
        .map(|(index, outcome)| Attempt {
            through: text("http://edge"),
            from: None,
            invoked: number * 10 + index as u64,
            returned: number * 10 + 5 + index as u64,
            outcome,
        });
    Operation {
        number,
        client: text(actor),
        actor: text(actor),
        action,
        key: (!is_query).then(|| format!("key {number}")),
        attempts: attempts.collect(),
    }
}

/// The event that an operation led to.
fn event(position: u64, operation: &Operation, happening: Happening) -> Logged {
    Logged {
        position,
        actor: Some(operation.actor.clone()),
        key: operation.key.clone(),
        happening,
    }
}

fn shown(message: u64, says: &str) -> Shown {
    Shown {
        message,
        author: text("ada"),
        text: text(says),
        deleted: false,
    }
}

fn read(number: u64, from: Option<u64>, messages: Vec<Shown>) -> Operation {
    let page = Answer::Page {
        messages,
        full: false,
    };
    let outcome = Outcome::Acknowledged {
        position: None,
        answer: page,
    };
    let action = Action::Read { room: text(ROOM) };
    let mut read = operation(number, "bela", action, vec![outcome]);
    read.attempts[0].from = from;
    read
}

/// A right history with something of everything:
///
/// | operation | position |
/// |---|---|
/// | 1 Ada initiates the room | 1 |
/// | 2 Ada posts "one", once without an answer | 2 |
/// | 3 Ada posts "two" | 3 |
/// | 4 Ada edits "two" into "three" | 4 |
/// | 5 Ada deletes "one" | 5 |
/// | 6 Bela marks as read, and never learns whether it worked | 6 |
/// | 7 Ada posts where there is no room | |
/// | 8 Ada initiates the room that is there | |
/// | 9 to 11 Bela reads | |
/// | 12 Ada posts "four" without a key | 7 |
/// | 13 the office creates a user, 14 deletes it | 8, 9 |
fn right() -> Evidence {
    let members = vec![text("ada"), text("bela")];
    let room = || text(ROOM);
    let initiate = Action::Initiate {
        members: members.clone(),
    };
    let there = Answer::Room { room: room() };
    let post = |says: &str| Action::Post {
        room: room(),
        text: text(says),
    };
    let said = |message| acknowledged(message, Answer::Message { message });
    let edit = Action::Edit {
        room: room(),
        message: 3,
        text: text("three"),
    };
    let delete = Action::DeleteMessage {
        room: room(),
        message: 2,
    };
    let nowhere = Action::Post {
        room: text("nowhere"),
        text: text("nothing"),
    };
    let create = Action::CreateUser {
        name: text("guest"),
    };
    let user = Answer::User {
        user: text("guest-1"),
    };
    let see_off = Action::DeleteUser {
        user: text("guest-1"),
    };
    let gone = Shown {
        deleted: true,
        ..shown(2, "")
    };
    let mut operations = vec![
        operation(
            1,
            "ada",
            initiate.clone(),
            vec![acknowledged(1, there.clone())],
        ),
        operation(2, "ada", post("one"), vec![unknown(), said(2)]),
        operation(3, "ada", post("two"), vec![said(3)]),
        operation(4, "ada", edit, vec![acknowledged(4, Answer::Done)]),
        operation(5, "ada", delete, vec![acknowledged(5, Answer::Done)]),
        operation(
            6,
            "bela",
            Action::MarkRead { room: room() },
            vec![unknown(), unknown()],
        ),
        operation(7, "ada", nowhere, vec![refused()]),
        operation(8, "ada", initiate, vec![acknowledged(1, there)]),
        // Older than the edit and the deletion, which is nobody's promise here.
        read(9, None, vec![shown(2, "one"), shown(3, "two")]),
        read(10, Some(4), vec![shown(2, "one"), shown(3, "three")]),
        read(11, Some(5), vec![gone, shown(3, "three")]),
        operation(12, "ada", post("four"), vec![said(7)]),
        operation(13, "office", create, vec![acknowledged(8, user)]),
        operation(14, "office", see_off, vec![acknowledged(9, Answer::Done)]),
    ];
    operations[11].key = None;
    let posted = |says: &str| Happening::Posted {
        room: room(),
        author: text("ada"),
        text: text(says),
    };
    let of = |number: usize| &operations[number - 1];
    let log = vec![
        event(
            1,
            of(1),
            Happening::RoomInitiated {
                room: room(),
                members,
            },
        ),
        event(2, of(2), posted("one")),
        event(3, of(3), posted("two")),
        event(
            4,
            of(4),
            Happening::Edited {
                room: room(),
                message: 3,
                text: text("three"),
            },
        ),
        event(
            5,
            of(5),
            Happening::MessageDeleted {
                room: room(),
                message: 2,
            },
        ),
        event(
            6,
            of(6),
            Happening::ConversationRead {
                room: room(),
                reader: text("bela"),
                up_to: 6,
            },
        ),
        event(7, of(12), posted("four")),
        event(
            8,
            of(13),
            Happening::UserCreated {
                user: text("guest-1"),
                name: text("guest"),
            },
        ),
        event(
            9,
            of(14),
            Happening::UserDeleted {
                user: text("guest-1"),
            },
        ),
    ];
    let told = log[2..7].iter().map(|logged| Told {
        position: logged.position,
        happening: logged.happening.clone(),
    });
    let stream = Stream {
        follower: text("follower"),
        person: text("bela"),
        room: None,
        start: Some(2),
        told: told.collect(),
        wrong: Vec::new(),
        notes: Vec::new(),
    };
    Evidence {
        streams: vec![stream],
        findings: vec![Finding {
            what: text("hansard verify log"),
            wrong: None,
        }],
        operations,
        log,
    }
}

/// That exactly these rules are broken by the history that `change` makes of the right one, and that each
/// violation is still seen in the shortest history, which is at most that long.
#[track_caller]
fn breaks(rules: &[&str], longest: usize, change: impl FnOnce(&mut Evidence)) {
    let mut evidence = right();
    change(&mut evidence);
    let violations = check(&evidence);
    let broken: BTreeSet<&str> = violations.iter().map(|it| it.rule).collect();
    assert_eq!(broken, rules.iter().copied().collect(), "{violations:#?}");
    for violation in violations {
        let shortest = shrink(&evidence, &violation);
        let still = check(&shortest);
        assert!(
            still.contains(&violation),
            "{violation:?} is not in {shortest}"
        );
        let length = shortest.operations.len() + shortest.log.len();
        assert!(
            length <= longest,
            "{length} lines: {violation:?}\n{shortest}"
        );
    }
}

fn remove_event(evidence: &mut Evidence, position: u64) {
    evidence.log.retain(|it| it.position != position);
}

#[test]
fn a_right_history_breaks_nothing() {
    breaks(&[], 0, |_| {});
}

#[test]
fn an_acknowledged_command_that_is_lost() {
    // The office, whose doings nobody reads or is told of.
    breaks(&["exactly once"], 1, |it| remove_event(it, 8));
}

#[test]
fn an_acknowledged_message_that_is_lost() {
    // It was read and told as well, so more than one promise is broken.
    breaks(&["exactly once", "nothing made up", "streams"], 4, |it| {
        remove_event(it, 3)
    });
}

#[test]
fn an_acknowledged_command_that_is_doubled() {
    breaks(&["exactly once"], 3, |it| {
        let again = Logged {
            position: 10,
            ..it.log[8].clone()
        };
        it.log.push(again);
    });
}

#[test]
fn a_post_without_a_key_that_is_doubled() {
    breaks(&["exactly once", "streams"], 3, |it| {
        let again = Logged {
            position: 10,
            ..it.log[6].clone()
        };
        it.log.push(again);
    });
}

#[test]
fn an_answer_that_names_another_place() {
    breaks(&["exactly once"], 2, |it| {
        it.operations[13].attempts[0].outcome = acknowledged(7, Answer::Done);
    });
}

#[test]
fn an_event_that_says_something_else_than_was_asked() {
    breaks(&["exactly once", "nothing unasked"], 2, |it| {
        it.log[7].happening = Happening::UserCreated {
            user: text("guest-1"),
            name: text("somebody else"),
        };
    });
}

#[test]
fn a_command_of_unknown_fate_that_is_doubled() {
    breaks(&["at most once"], 3, |it| {
        let again = Logged {
            position: 10,
            ..it.log[5].clone()
        };
        it.log.push(again.clone());
        it.streams[0].told.push(Told {
            position: 10,
            happening: again.happening,
        });
    });
}

#[test]
fn a_refused_command_that_was_carried_out() {
    breaks(&["refused"], 2, |it| {
        let refused = it.operations[6].clone();
        let happening = Happening::Posted {
            room: text("nowhere"),
            author: text("ada"),
            text: text("nothing"),
        };
        it.log.push(event(10, &refused, happening));
    });
}

#[test]
fn an_event_that_nobody_asked_for() {
    breaks(&["nothing unasked"], 1, |it| {
        it.log.push(Logged {
            position: 10,
            actor: None,
            key: None,
            happening: Happening::Other {
                what: text("audit.read"),
            },
        });
    });
}

#[test]
fn commands_that_changed_places() {
    breaks(&["order"], 4, |it| {
        // Both the office's: created at 8 and deleted at 9, but asked for the other way round.
        for attempt in &mut it.operations[13].attempts {
            attempt.invoked = 100;
            attempt.returned = 101;
        }
        it.operations.sort_by_key(Operation::invoked);
    });
}

#[test]
fn a_read_that_lacks_what_was_written_before() {
    breaks(&["read your writes", "monotonic reads"], 4, |it| {
        it.operations[9] = read(10, Some(4), vec![shown(2, "one")]);
    });
    breaks(&["read your writes"], 4, |it| {
        it.operations[9] = read(10, Some(4), vec![shown(2, "one"), shown(3, "two")]);
    });
}

#[test]
fn a_read_of_what_was_deleted_before() {
    breaks(&["read your writes"], 3, |it| {
        it.operations[10] = read(11, Some(5), vec![shown(2, "one"), shown(3, "three")]);
    });
}

#[test]
fn a_read_that_finds_no_room() {
    breaks(&["monotonic reads", "read your writes"], 3, |it| {
        it.operations[10].attempts[0].outcome = refused();
    });
}

#[test]
fn a_read_that_goes_back() {
    breaks(&["monotonic reads"], 5, |it| {
        it.operations[10] = read(11, None, vec![shown(2, "one"), shown(3, "two")]);
    });
}

#[test]
fn a_read_of_what_was_never_said() {
    breaks(&["nothing made up"], 2, |it| {
        it.operations[8] = read(9, None, vec![shown(2, "one"), shown(3, "too")]);
    });
}

#[test]
fn a_read_with_a_message_twice() {
    breaks(&["nothing made up"], 2, |it| {
        it.operations[8] = read(9, None, vec![shown(2, "one"), shown(2, "one")]);
    });
}

#[test]
fn a_stream_with_a_gap() {
    breaks(&["streams"], 2, |it| {
        it.streams[0].told.remove(1);
    });
    breaks(&["streams"], 2, |it| {
        it.streams[0].told.pop();
    });
}

#[test]
fn a_stream_with_something_twice() {
    breaks(&["streams"], 1, |it| {
        let again = it.streams[0].told[1].clone();
        it.streams[0].told.insert(2, again);
    });
}

#[test]
fn a_stream_out_of_order() {
    breaks(&["streams"], 2, |it| it.streams[0].told.swap(1, 2));
}

#[test]
fn a_stream_with_something_else() {
    breaks(&["streams"], 2, |it| {
        it.streams[0].told[0].happening = Happening::Posted {
            room: text(ROOM),
            author: text("ada"),
            text: text("too"),
        };
    });
    // What stands before its beginning.
    breaks(&["streams"], 1, |it| {
        let before = Told {
            position: 2,
            happening: it.log[1].happening.clone(),
        };
        it.streams[0].told.insert(0, before);
    });
    breaks(&["streams"], 0, |it| {
        it.streams[0].wrong.push(text("recovered: false"));
    });
    breaks(&["streams"], 0, |it| it.streams[0].start = None);
}

#[test]
fn two_rooms_of_the_same_members() {
    let initiate = |it: &mut Evidence, room: &str, position| {
        let members = vec![text("ada"), text("bela")];
        let action = Action::Initiate {
            members: members.clone(),
        };
        let answer = Answer::Room { room: text(room) };
        let number = position + 20;
        let new = operation(number, "ada", action, vec![acknowledged(position, answer)]);
        let happening = Happening::RoomInitiated {
            room: text(room),
            members,
        };
        it.streams[0].told.push(Told {
            position,
            happening: happening.clone(),
        });
        it.log.push(event(position, &new, happening));
        it.operations.push(new);
    };
    breaks(&["one room"], 2, |it| initiate(it, "drawing room", 10));
    breaks(&["one room"], 2, |it| initiate(it, ROOM, 10));
}

#[test]
fn what_hansard_itself_finds() {
    breaks(&["findings"], 0, |it| {
        it.findings[0].wrong = Some(text("position 3 differs"));
    });
}
