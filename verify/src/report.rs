//! What a verification found, for people and for machines.

use std::fmt;

use events::Position;
use serde::Serialize;

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Users.
    User,
    /// Erasures of users.
    Erasure,
    /// Rooms.
    Room,
    /// Members of rooms, with the place of the room in each one's list of recent conversations and the
    /// number of messages not read.
    Member,
    /// Messages.
    Message,
    /// Edits of messages.
    Edit,
    /// Read marks.
    Mark,
    /// Idempotency keys.
    Key,
    /// Events of the log that can't be projected.
    Event,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::User => "user",
            Self::Erasure => "erasure",
            Self::Room => "room",
            Self::Member => "member",
            Self::Message => "message",
            Self::Edit => "edit",
            Self::Mark => "mark",
            Self::Key => "key",
            Self::Event => "event",
        })
    }
}

/// One thing that is stored otherwise than the log says. It tells nothing that people have written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about.
    pub kind: Kind,
    /// Which one.
    pub id: String,
    /// How it differs.
    pub difference: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            id,
            difference,
        } = self;
        write!(formatter, "{kind} {id}: {difference}")
    }
}

/// How many of each kind the log gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub users: u64,
    pub erasures: u64,
    pub rooms: u64,
    pub members: u64,
    pub messages: u64,
    pub edits: u64,
    pub marks: u64,
    pub keys: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The read models' checkpoint: the log was folded up to and with here.
    pub position: Position,
    /// Where the log ended then. What comes between has not been projected yet.
    pub log_end: Position,
    /// How many of each kind were compared.
    pub compared: Counts,
    /// How many events up to there are set aside as dead letters, and so not in the read models.
    pub set_aside: u64,
    /// How many differences there are.
    pub differing: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    #[serde(skip)]
    listed: usize,
}

impl Report {
    /// Nothing found yet; lists up to `listed` differences.
    pub(crate) fn new(position: Position, log_end: Position, listed: usize) -> Self {
        Self {
            position,
            log_end,
            compared: Counts::default(),
            set_aside: 0,
            differing: 0,
            differences: Vec::new(),
            listed,
        }
    }

    pub(crate) fn differs(&mut self, kind: Kind, id: impl fmt::Display, difference: String) {
        self.differing += 1;
        if self.differences.len() < self.listed {
            self.differences.push(Difference {
                kind,
                id: id.to_string(),
                difference,
            });
        }
    }

    /// Whether what is stored is what the log gives.
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }
}

/// Each difference in a line, and then what was compared.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(formatter, "{difference}")?;
        }
        let more = self.differing - self.differences.len() as u64;
        if more > 0 {
            writeln!(formatter, "and {more} more")?;
        }
        match self.set_aside {
            0 => {}
            1 => writeln!(
                formatter,
                "1 event is set aside as a dead letter; it is not in the read models"
            )?,
            events => writeln!(
                formatter,
                "{events} events are set aside as dead letters; they are not in the read models"
            )?,
        }
        let Counts {
            users,
            erasures,
            rooms,
            members,
            messages,
            edits,
            marks,
            keys,
        } = self.compared;
        let found = match self.differing {
            0 => "no difference".to_owned(),
            1 => "1 difference".to_owned(),
            more => format!("{more} differences"),
        };
        write!(
            formatter,
            "{found} up to position {}, of {}: compared {users} users, {erasures} erasures, {rooms} rooms, {members} members with \
             their recent rooms and unread counts, {messages} messages, {edits} edits, {marks} marks, {keys} keys",
            self.position, self.log_end
        )
    }
}
