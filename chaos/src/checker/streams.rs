//! What followers were told against what happened in their rooms.

use std::collections::{HashMap, HashSet};

use crate::checker::About;
use crate::checker::past;
use crate::evidence::{Evidence, Happening, Logged, Stream, Told};

/// The log as those see it who follow it.
struct Telling<'a> {
    log: &'a [Logged],
    members: HashMap<&'a str, HashSet<&'a str>>,
    /// Where the deletion of each room stands.
    deleted: HashMap<&'a str, u64>,
    /// Where the first deletion of each message stands.
    message_deleted: HashMap<u64, u64>,
    /// Users who were deleted.
    gone: HashSet<&'a str>,
}

impl<'a> Telling<'a> {
    fn new(log: &'a [Logged]) -> Self {
        let mut members: HashMap<&str, HashSet<&str>> = HashMap::new();
        let mut message_deleted = HashMap::new();
        let mut gone = HashSet::new();
        for logged in log {
            match &logged.happening {
                Happening::RoomInitiated { room, members: of } => {
                    members.insert(room, of.iter().map(String::as_str).collect());
                }
                Happening::MessageDeleted { message, .. } => {
                    message_deleted.entry(*message).or_insert(logged.position);
                }
                Happening::UserDeleted { user } => {
                    gone.insert(user.as_str());
                }
                _ => {}
            }
        }
        let rooms = past::rooms(log).into_iter();
        Self {
            log,
            members,
            deleted: rooms
                .filter_map(|(room, it)| Some((room, it.deleted?)))
                .collect(),
            message_deleted,
            gone,
        }
    }

    /// Whether a frame says what stands in the log. A new room is told without members who are gone.
    fn is_true(&self, told: &Told, logged: &Logged) -> bool {
        let (
            Happening::RoomInitiated { room, members },
            Happening::RoomInitiated {
                room: new,
                members: all,
            },
        ) = (&told.happening, &logged.happening)
        else {
            return told.happening == logged.happening;
        };
        let is_told = |it: &String| members.contains(it) || self.gone.contains(it.as_str());
        room == new && all.iter().all(is_told) && members.iter().all(|it| all.contains(it))
    }

    /// What a follower is to be told, and whether it may be left out.
    fn expected<'s>(&'s self, stream: &'s Stream) -> impl Iterator<Item = (&'a Logged, bool)> + 's {
        self.log.iter().filter_map(|logged| {
            let room = logged.happening.room()?;
            let is_member = self.members.get(room)?.contains(stream.person.as_str());
            let is_followed = stream.room.as_deref().is_none_or(|it| it == room);
            if !is_member || !is_followed || logged.position <= stream.start? {
                return None;
            }
            let deleted = self.deleted.get(room).copied();
            if deleted.is_some_and(|it| logged.position > it) {
                // It is void.
                return None;
            }
            // A replay of a room that has been deleted meanwhile tells just that.
            let is_gone = deleted.is_some_and(|it| logged.position < it);
            let is_void = match &logged.happening {
                Happening::Edited { message, .. } => {
                    let deleted = self.message_deleted.get(message);
                    deleted.is_some_and(|it| *it < logged.position)
                }
                _ => false,
            };
            Some((logged, is_gone || is_void))
        })
    }
}

/// The position of the last event that a follower has to be told of; 0 when there is none.
#[must_use]
pub fn last_due(log: &[Logged], stream: &Stream) -> u64 {
    let telling = Telling::new(log);
    let due = telling
        .expected(stream)
        .filter(|(_, may_be_left_out)| !may_be_left_out);
    due.map(|(logged, _)| logged.position)
        .max()
        .unwrap_or_default()
}

pub(super) fn streams(evidence: &Evidence) -> Vec<(String, About)> {
    let telling = Telling::new(&evidence.log);
    let streams = evidence.streams.iter();
    streams
        .flat_map(|stream| of_one(&telling, stream))
        .collect()
}

fn of_one(telling: &Telling<'_>, stream: &Stream) -> Vec<(String, About)> {
    let name = &stream.follower;
    let about = |position: Option<u64>, room: Option<&str>| {
        let mut about = About::default().and_positions(position).and_room(room);
        about.follower = Some(name.clone());
        about
    };
    let mut broken: Vec<(String, About)> = stream
        .wrong
        .iter()
        .map(|wrong| (format!("{name}: {wrong}"), about(None, None)))
        .collect();
    if stream.start.is_none() {
        broken.push((format!("{name} was never subscribed"), about(None, None)));
        return broken;
    }
    let at = |told: &Told| about(Some(told.position), told.happening.room());
    let mut before = 0;
    let mut told = stream.told.iter();
    let mut told_in_order = || {
        for told in told.by_ref() {
            if told.position > before {
                before = told.position;
                return Some(told);
            }
            let message = format!("{name} was told {} after {before}", told.position);
            broken.push((message, at(told)));
        }
        None
    };
    let mut next = told_in_order();
    let mut faults = Vec::new();
    for (logged, may_be_left_out) in telling.expected(stream) {
        while let Some(told) = next.filter(|it| it.position < logged.position) {
            let message = format!("{name} was told {}, which is not to be told", told.position);
            faults.push((message, at(told)));
            next = told_in_order();
        }
        match next {
            Some(told) if told.position == logged.position => {
                if !telling.is_true(told, logged) {
                    let message = format!(
                        "{name} was told something else than stands at {}",
                        told.position
                    );
                    faults.push((message, at(told)));
                }
                next = told_in_order();
            }
            _ if may_be_left_out => {}
            _ => faults.push((
                format!("{name} was never told {}", logged.position),
                about(Some(logged.position), logged.happening.room()),
            )),
        }
    }
    while let Some(told) = next {
        let message = format!("{name} was told {}, which is not to be told", told.position);
        faults.push((message, at(told)));
        next = told_in_order();
    }
    broken.extend(faults);
    broken
}
