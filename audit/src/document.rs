//! A replay as it is written: piece by piece, to whatever wants it.
//!
//! Lines are written as the log is read. A transcript has a conversation for each room, so the log is read once
//! for what happened outside of rooms and to learn of the rooms, and then each room by itself: twice, since what
//! an event came to may depend on later ones. What stays in memory is of one room.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use event_log::{Filter, LogError, Position};
use events::{RoomId, Subject, Timestamp};
use futures::TryStreamExt;
use keys::Record;
use serde_json::json;

use crate::format::{write_json_line, write_text_line};
use crate::people::People;
use crate::transcript::{Html, Outline, Outside, Part, Style, Text, Transcript};
use crate::{Format, ReplayFilter, Selected, Selection, Step};

/// A replay in progress.
pub(crate) struct Document {
    record: Record,
    filter: ReplayFilter,
    up_to: Position,
    format: Format,
    stage: Stage,
    told: Told,
    rooms: usize,
    /// Where the selection is that rests or reads.
    position: Position,
}

enum Stage {
    Lines(Box<Selection>),
    /// Nothing of a transcript has been written.
    Blank(Box<Selection>),
    OutsideOfRooms {
        selection: Box<Selection>,
        outside: Option<Outside>,
        rooms: Rooms,
    },
    BetweenRooms(VecDeque<RoomId>),
    Room {
        selection: Box<Selection>,
        transcript: Box<Transcript>,
        left: VecDeque<RoomId>,
    },
    Done,
}

/// Rooms in the order in which something happened in them first.
#[derive(Default)]
struct Rooms {
    known: HashSet<RoomId>,
    order: VecDeque<RoomId>,
}

/// How far one step got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// To an event, stored at this time, which was written.
    Told(Timestamp),
    /// Past one that is not told, or not now.
    On,
    /// To the end.
    End,
}

/// How much was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// How many events were written.
    pub events: u64,
    /// How many of them can't be decoded.
    pub undecodable: u64,
    /// How many were left out because they can't be decoded, so that nothing tells whether they are meant.
    pub unattributed: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let are = |count| if count == 1 { "event" } else { "events" };
        write!(formatter, "{} {}", self.events, are(self.events))?;
        if self.undecodable > 0 {
            write!(formatter, "; {} can't be decoded", self.undecodable)?;
        }
        if self.unattributed > 0 {
            write!(
                formatter,
                "; left out {} {} that can't be decoded, since nothing tells whether they are meant",
                self.unattributed,
                are(self.unattributed)
            )?;
        }
        Ok(())
    }
}

impl Document {
    /// Begins a replay of what the log holds up to and with the position `up_to`.
    ///
    /// # Errors
    /// [`LogError`]: the log can't be read.
    pub(crate) async fn start(
        record: Record,
        filter: ReplayFilter,
        up_to: Position,
        format: Format,
    ) -> Result<Self, LogError> {
        let selection = Selection::start(record.clone(), filter.clone(), up_to).await?;
        let position = selection.position();
        let selection = Box::new(selection);
        let stage = match style_of(format) {
            None => Stage::Lines(selection),
            Some(_) => Stage::Blank(selection),
        };
        Ok(Self {
            record,
            filter,
            up_to,
            format,
            stage,
            told: Told::default(),
            rooms: 0,
            position,
        })
    }

    /// Reads on by one event at most, and appends to `buffer` what is to be written.
    ///
    /// # Errors
    /// [`LogError`]: the log can't be read any further.
    pub(crate) async fn step(&mut self, buffer: &mut Vec<u8>) -> Result<Moved, LogError> {
        let mut parts = Vec::new();
        let moved = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Lines(selection) => self.line(selection, buffer).await?,
            Stage::Blank(selection) => self.begin(selection, &mut parts),
            Stage::OutsideOfRooms {
                selection,
                outside,
                rooms,
            } => {
                let step = self.outside_of_rooms(selection, outside, rooms, &mut parts);
                step.await?
            }
            Stage::BetweenRooms(rooms) => self.next_room(rooms, &mut parts).await?,
            Stage::Room {
                selection,
                transcript,
                left,
            } => {
                let step = self.in_room(selection, transcript, left, &mut parts);
                step.await?
            }
            Stage::Done => Moved::End,
        };
        if let Some(style) = style_of(self.format) {
            parts.iter().for_each(|part| style.write(part, buffer));
        }
        Ok(moved)
    }

    /// Lets go of the log for a while; see [`Selection::rest`].
    pub(crate) fn rest(&mut self) {
        match &mut self.stage {
            Stage::Lines(selection)
            | Stage::Blank(selection)
            | Stage::OutsideOfRooms { selection, .. }
            | Stage::Room { selection, .. } => selection.rest(),
            Stage::BetweenRooms(_) | Stage::Done => {}
        }
    }

    /// Appends to `buffer` that, and why, the rest is missing.
    pub(crate) fn break_off(&self, reason: &str, buffer: &mut Vec<u8>) {
        match style_of(self.format) {
            Some(style) => style.write(&Part::BrokenOff(reason.to_owned()), buffer),
            None => {
                let line = match self.format {
                    Format::Jsonl => json!({ "error": reason }).to_string(),
                    _ => format!("INCOMPLETE: {reason}"),
                };
                buffer.extend_from_slice(line.as_bytes());
                buffer.push(b'\n');
            }
        }
    }

    /// How much has been told.
    pub(crate) fn told(&self) -> Told {
        self.told
    }

    /// The position of the event read last.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// How far it is, and how far there is to go: in positions of the log, and then in rooms.
    pub(crate) fn progress(&self) -> (u64, u64) {
        match &self.stage {
            Stage::Lines(selection)
            | Stage::Blank(selection)
            | Stage::OutsideOfRooms { selection, .. } => {
                let (before, last) = selection.range();
                let from_there = |position: Position| position.get().saturating_sub(before.get());
                (from_there(selection.position()), from_there(last))
            }
            Stage::BetweenRooms(left) | Stage::Room { left, .. } => (
                self.rooms.saturating_sub(left.len()) as u64,
                self.rooms as u64,
            ),
            Stage::Done => (1, 1),
        }
    }

    async fn line(
        &mut self,
        mut selection: Box<Selection>,
        buffer: &mut Vec<u8>,
    ) -> Result<Moved, LogError> {
        let step = self.read(&mut selection).await?;
        let Some(step) = step else {
            self.told.unattributed = selection.unattributed();
            return Ok(Moved::End);
        };
        self.stage = Stage::Lines(selection);
        let Step::Selected(selected) = step else {
            return Ok(Moved::On);
        };
        match self.format {
            Format::Text => write_text_line(&selected, buffer),
            _ => write_json_line(&selected, buffer),
        }
        Ok(self.tell(&selected))
    }

    fn begin(&mut self, selection: Box<Selection>, parts: &mut Vec<Part>) -> Moved {
        parts.push(Part::Beginning {
            conditions: self.filter.conditions(),
            up_to: self.up_to,
        });
        self.stage = match self.filter.room {
            // Nothing else is asked for.
            Some(room) => self.rooms_to_tell(VecDeque::from([room])),
            None => Stage::OutsideOfRooms {
                selection,
                outside: None,
                rooms: Rooms::default(),
            },
        };
        Moved::On
    }

    async fn outside_of_rooms(
        &mut self,
        mut selection: Box<Selection>,
        mut outside: Option<Outside>,
        mut rooms: Rooms,
        parts: &mut Vec<Part>,
    ) -> Result<Moved, LogError> {
        let Some(step) = self.read(&mut selection).await? else {
            self.told.unattributed = selection.unattributed();
            self.stage = self.rooms_to_tell(rooms.order);
            return Ok(Moved::On);
        };
        let mut moved = Moved::On;
        if let Step::Selected(selected) = step {
            match room_of(&selected) {
                Some(room) => rooms.add(room),
                None => {
                    let transcript = outside.get_or_insert_with(|| {
                        parts.push(Part::OutsideOfRooms);
                        Outside::default()
                    });
                    transcript.event(&selected, parts);
                    moved = self.tell(&selected);
                }
            }
        }
        self.stage = Stage::OutsideOfRooms {
            selection,
            outside,
            rooms,
        };
        Ok(moved)
    }

    async fn next_room(
        &mut self,
        mut rooms: VecDeque<RoomId>,
        parts: &mut Vec<Part>,
    ) -> Result<Moved, LogError> {
        let Some(room) = rooms.pop_front() else {
            parts.push(Part::Ending(self.told.to_string()));
            return Ok(Moved::End);
        };
        let outline = outline(&self.record, room, self.up_to).await?;
        let people = People::look_up(&self.record, outline.people(), self.up_to).await?;
        let transcript = Transcript::new(room, outline, people);
        transcript.begin(parts);
        let filter = ReplayFilter {
            room: Some(room),
            ..self.filter.clone()
        };
        let selection = Selection::start(self.record.clone(), filter, self.up_to).await?;
        self.stage = Stage::Room {
            selection: Box::new(selection),
            transcript: Box::new(transcript),
            left: rooms,
        };
        Ok(Moved::On)
    }

    async fn in_room(
        &mut self,
        mut selection: Box<Selection>,
        mut transcript: Box<Transcript>,
        left: VecDeque<RoomId>,
        parts: &mut Vec<Part>,
    ) -> Result<Moved, LogError> {
        let Some(step) = self.read(&mut selection).await? else {
            transcript.end(parts);
            if self.filter.room.is_some() {
                self.told.unattributed = selection.unattributed();
            }
            self.stage = Stage::BetweenRooms(left);
            return Ok(Moved::On);
        };
        let mut moved = Moved::On;
        if let Step::Selected(selected) = step {
            transcript.event(&selected, parts);
            moved = self.tell(&selected);
        }
        self.stage = Stage::Room {
            selection,
            transcript,
            left,
        };
        Ok(moved)
    }

    fn rooms_to_tell(&mut self, rooms: VecDeque<RoomId>) -> Stage {
        self.rooms = rooms.len();
        Stage::BetweenRooms(rooms)
    }

    async fn read(&mut self, selection: &mut Selection) -> Result<Option<Step>, LogError> {
        let step = selection.step().await?;
        self.position = self.position.max(selection.position());
        Ok(step)
    }

    fn tell(&mut self, selected: &Selected) -> Moved {
        self.told.events += 1;
        self.told.undecodable += u64::from(selected.decoded.is_err());
        Moved::Told(selected.recorded.stored_at)
    }
}

impl Rooms {
    fn add(&mut self, room: RoomId) {
        if self.known.insert(room) {
            self.order.push_back(room);
        }
    }
}

/// What all events of the room come to, selected or not.
pub(crate) async fn outline(
    record: &Record,
    room: RoomId,
    up_to: Position,
) -> Result<Outline, LogError> {
    let mut outline = Outline::default();
    let mut events = record.log.read(Filter::Room(room), Position::ZERO).await?;
    while let Some(recorded) = events.try_next().await? {
        if recorded.position > up_to {
            break;
        }
        if let Ok(envelope) = record.outline(&recorded) {
            outline.event(recorded.position, &envelope);
        }
    }
    Ok(outline)
}

/// How a transcript of this format is written; `None` for lines.
fn style_of(format: Format) -> Option<&'static dyn Style> {
    match format {
        Format::Jsonl | Format::Text => None,
        Format::Transcript => Some(&Text),
        Format::Html => Some(&Html),
    }
}

/// The room whose history an event stands in, whether it can be decoded or not.
fn room_of(selected: &Selected) -> Option<RoomId> {
    let subject: Subject = selected.recorded.subject.parse().ok()?;
    subject.room()
}
