//! Transcripts: what happened in a room, for people to read, one entry after the other.
//!
//! What is told does not depend on how it is written: [`Transcript`] makes parts of events, which a [`Style`]
//! writes as text or as a page. Nothing here reads the log.

mod html;
mod outline;
mod text;

use std::collections::BTreeMap;

use event_log::{Position, Recorded};
use events::{
    ConversationRead, DecodeError, Envelope, Event, MessageId, RoomId, Timestamp, UserId,
};

use crate::Selected;
use crate::format::happened;
use crate::people::People;

pub(crate) use html::{Html, content_security_policy};
pub(crate) use outline::Outline;
pub(crate) use text::Text;

/// How a transcript is written.
pub(crate) trait Style: Send + Sync {
    /// Appends a part to `buffer`.
    fn write(&self, part: &Part, buffer: &mut Vec<u8>);
}

/// A part of a transcript.
#[derive(Debug)]
pub(crate) enum Part {
    /// The beginning: what was selected, and up to where the log was read.
    Beginning {
        conditions: BTreeMap<String, String>,
        up_to: Position,
    },
    /// What happened in no room follows.
    OutsideOfRooms,
    /// What happened in this room follows; what it is, and who the people in it are.
    Room { id: RoomId, about: Vec<Phrase> },
    /// What happened on this day follows.
    Day(String),
    /// Something happened.
    Entry(Box<Entry>),
    /// The end: how much was told.
    Ending(String),
    /// The end before everything was told: why.
    BrokenOff(String),
}

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    /// When, of the day.
    pub(crate) time: String,
    pub(crate) what: Phrase,
    /// What was said.
    pub(crate) text: Option<Said>,
    /// What else is to be known of it.
    pub(crate) remark: Option<&'static str>,
}

/// A text of a message.
#[derive(Debug)]
pub(crate) enum Said {
    Text(String),
    /// It is gone for ever, with the author's key.
    Erased,
    /// It is gone for ever, since it was old enough.
    Expired,
}

/// A line of words.
#[derive(Debug, Default)]
pub(crate) struct Phrase(pub(crate) Vec<Word>);

/// Part of a phrase.
#[derive(Debug)]
pub(crate) enum Word {
    /// Hansard's own words, visible and harmless.
    Own(String),
    /// What somebody gave, with whatever characters.
    Given(String),
}

impl Phrase {
    fn own(self, words: impl Into<String>) -> Self {
        self.with(Word::Own(words.into()))
    }

    fn given(self, words: impl Into<String>) -> Self {
        self.with(Word::Given(words.into()))
    }

    fn with(mut self, word: Word) -> Self {
        self.0.push(word);
        self
    }
}

/// Marks that are not seen but change how what is around them is seen or read: control characters, and those
/// that reverse the direction, hide, or break lines. Joiners stay, which scripts and emoji need.
pub(crate) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Makes a transcript of what happened outside of rooms.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    day: Option<String>,
}

impl Outside {
    /// What to write of the next event.
    pub(crate) fn event(&mut self, selected: &Selected, parts: &mut Vec<Part>) {
        let recorded = &selected.recorded;
        let (at, what) = match &selected.decoded {
            Ok(envelope) => {
                let actor = envelope.actor.map(|actor| actor.to_string());
                let actor = actor.unwrap_or_else(|| "somebody".to_owned());
                let what = format!("{actor} {}", happened(envelope));
                (envelope.at, Phrase::default().own(what))
            }
            Err(reason) => (recorded.stored_at, undecodable(recorded, reason)),
        };
        let time = time_of_day(at, &mut self.day, parts);
        parts.push(entry(recorded.position, time, what));
    }
}

/// Makes a transcript of what happened in a room.
pub(crate) struct Transcript {
    room: RoomId,
    outline: Outline,
    people: People,
    day: Option<String>,
    reads: Vec<Read>,
}

/// Readings that follow upon one another are told as one: of each reader the last.
struct Read {
    reader: UserId,
    up_to: Option<MessageId>,
    position: Position,
    at: Timestamp,
}

impl Transcript {
    /// Of the room whose events, these and perhaps others, come to `outline`, with `people` in it.
    pub(crate) fn new(room: RoomId, outline: Outline, people: People) -> Self {
        Self {
            room,
            outline,
            people,
            day: None,
            reads: Vec::new(),
        }
    }

    /// What to write before the first event.
    pub(crate) fn begin(&self, parts: &mut Vec<Part>) {
        let phrase = Phrase::default;
        let mut about = Vec::new();
        let mut others = self.outline.acted.clone();
        match &self.outline.initiated {
            Some((room, at)) => {
                let initiated = format!("{}, initiated on {at} by ", room.room_type);
                about.push(phrase().own(initiated).given(self.name(room.initiator)));
                for member in &room.members {
                    about.push(self.who(phrase().own("member: "), *member));
                    others.remove(member);
                }
            }
            None => {
                about.push(phrase().own("how the room was initiated is not part of what was read"));
            }
        }
        let others = others.into_iter();
        about.extend(others.map(|other| self.who(phrase().own("also there: "), other)));
        parts.push(Part::Room {
            id: self.room,
            about,
        });
    }

    /// What to write of the next event.
    pub(crate) fn event(&mut self, selected: &Selected, parts: &mut Vec<Part>) {
        let recorded = &selected.recorded;
        let envelope = match &selected.decoded {
            Ok(envelope) => envelope,
            Err(reason) => {
                self.tell_reads(parts);
                let time = time_of_day(recorded.stored_at, &mut self.day, parts);
                let what = undecodable(recorded, reason);
                parts.push(entry(recorded.position, time, what));
                return;
            }
        };
        let remark = self.outline.void(recorded.position);
        if let Event::ConversationRead(event) = &envelope.event
            && remark.is_none()
        {
            self.read(recorded.position, envelope.at, event, parts);
            return;
        }
        self.tell_reads(parts);
        let time = time_of_day(envelope.at, &mut self.day, parts);
        let (what, text) = self.happened(recorded.position, envelope);
        parts.push(Part::Entry(Box::new(Entry {
            position: recorded.position,
            time,
            what,
            text,
            remark,
        })));
    }

    /// What to write after the last event.
    pub(crate) fn end(&mut self, parts: &mut Vec<Part>) {
        self.tell_reads(parts);
    }

    fn happened(&self, position: Position, envelope: &Envelope) -> (Phrase, Option<Said>) {
        let actor = match envelope.actor {
            Some(actor) => Phrase::default().given(self.name(actor)),
            None => Phrase::default().own("Hansard or its operator"),
        };
        match &envelope.event {
            Event::MessagePosted(event) => {
                let who = Phrase::default().given(self.name(event.author));
                let id = MessageId::at(position);
                let said = self.said(event.author, id, event.message_text.as_ref());
                (who.own(":"), Some(said))
            }
            Event::MessageEdited(event) => {
                let who = Phrase::default().given(self.name(event.author));
                let what = format!(
                    " edited message {}, posted on {}:",
                    event.message_id, event.posted_at
                );
                let said = self.said(event.author, event.message_id, event.message_text.as_ref());
                (who.own(what), Some(said))
            }
            Event::MessageDeleted(event) => {
                let mut what = actor.own(format!(" deleted message {}", event.message_id));
                if let Some(message) = self.outline.message(event.message_id) {
                    let of = self.name(message.author);
                    what = what.own(" of ").given(of);
                    what = what.own(format!(", posted on {}", message.at));
                }
                (what, None)
            }
            Event::MessageExpired(event) => {
                let what = format!("the texts up to message {} expired", event.up_to);
                (Phrase::default().own(what), None)
            }
            Event::RoomInitiated(_) => (actor.own(" initiated the room"), None),
            Event::RoomDeleted(_) => (actor.own(" deleted the room and its messages"), None),
            Event::RoomHeld(event) => {
                let what = actor.own(" put the room under legal hold: ");
                (what.given(&event.reason), None)
            }
            Event::RoomReleased(_) => (actor.own(" released the room from legal hold"), None),
            Event::ConversationRead(event) => {
                let who = Phrase::default().given(self.name(event.reader));
                (who.own(" read the conversation"), None)
            }
            // Not of rooms.
            Event::UserCreated(_)
            | Event::UserDeleted(_)
            | Event::UserErased(_)
            | Event::AuditRead(_) => (actor.own(" ").own(happened(envelope)), None),
        }
    }

    fn said(&self, author: UserId, message: MessageId, text: Option<&String>) -> Said {
        match text {
            _ if self.people.is_erased(author) => Said::Erased,
            Some(text) if !self.outline.has_expired(message) => Said::Text(text.clone()),
            // Nobody's erasure has destroyed the key: so it went with its month.
            _ => Said::Expired,
        }
    }

    fn read(
        &mut self,
        position: Position,
        at: Timestamp,
        event: &ConversationRead,
        parts: &mut Vec<Part>,
    ) {
        let last = self.reads.last().map(|read| day_and_time(read.at).0);
        if last.is_some_and(|day| day != day_and_time(at).0) {
            self.tell_reads(parts);
        }
        self.reads.retain(|read| read.reader != event.reader);
        self.reads.push(Read {
            reader: event.reader,
            up_to: event.up_to,
            position,
            at,
        });
    }

    fn tell_reads(&mut self, parts: &mut Vec<Part>) {
        let reads = std::mem::take(&mut self.reads);
        let Some(last) = reads.last() else { return };
        let mut what = Phrase::default().own("read by ");
        for (index, read) in reads.iter().enumerate() {
            if index > 0 {
                what = what.own(", ");
            }
            what = what.given(self.name(read.reader));
            if let Some(message) = read.up_to {
                what = what.own(format!(" up to message {message}"));
            }
        }
        let time = time_of_day(last.at, &mut self.day, parts);
        parts.push(entry(last.position, time, what));
    }

    fn who(&self, phrase: Phrase, id: UserId) -> Phrase {
        let what = self.people.user_type(id).map(|it| format!("{it}, "));
        let what = what.unwrap_or_else(|| "no user of the chat, ".to_owned());
        let phrase = phrase.given(self.name(id));
        phrase.own(format!(" ({what}{id})"))
    }

    fn name(&self, id: UserId) -> String {
        self.people.name(id)
    }
}

fn entry(position: Position, time: String, what: Phrase) -> Part {
    Part::Entry(Box::new(Entry {
        position,
        time,
        what,
        text: None,
        remark: None,
    }))
}

fn undecodable(recorded: &Recorded, reason: &DecodeError) -> Phrase {
    let what = format!(
        "an event of {} bytes that can't be decoded: ",
        recorded.payload.len()
    );
    Phrase::default().own(what).given(reason.to_string())
}

fn day_and_time(at: Timestamp) -> (String, String) {
    let written = at.to_string();
    let (day, time) = written.split_once('T').unwrap_or(("", &written));
    (day.to_owned(), time.trim_end_matches('Z').to_owned())
}

/// The time of day; a new day is told first.
fn time_of_day(at: Timestamp, current: &mut Option<String>, parts: &mut Vec<Part>) -> String {
    let (day, time) = day_and_time(at);
    if current.as_ref() != Some(&day) {
        parts.push(Part::Day(day.clone()));
        *current = Some(day);
    }
    time
}
