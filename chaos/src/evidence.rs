//! All that is known of a run when it has ended: what clients were told, what the log holds, what was pushed,
//! and what Hansard's own verifications say.

use std::fmt;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::history::Operation;

/// What happened, in the words of the log or of a frame. Ids are as the API has them; a message's is its
/// position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Happening {
    /// `user.created`
    UserCreated {
        /// The new user.
        user: String,
        /// The first name.
        name: String,
    },
    /// `user.deleted`
    UserDeleted {
        /// Whom.
        user: String,
    },
    /// `room.initiated`
    RoomInitiated {
        /// The new room.
        room: String,
        /// In ascending order.
        members: Vec<String>,
    },
    /// `room.deleted`
    RoomDeleted {
        /// Which.
        room: String,
    },
    /// `message.posted`
    Posted {
        /// Where to.
        room: String,
        /// By whom.
        author: String,
        /// What it says.
        text: String,
    },
    /// `message.edited`
    Edited {
        /// Where.
        room: String,
        /// Which message.
        message: u64,
        /// What it says now.
        text: String,
    },
    /// `message.deleted`
    MessageDeleted {
        /// Where.
        room: String,
        /// Which message.
        message: u64,
    },
    /// `conversation.read`
    ConversationRead {
        /// Where.
        room: String,
        /// By whom.
        reader: String,
        /// The last message read.
        up_to: u64,
    },
    /// Anything else, which no client of a run asks for.
    Other {
        /// Its type, and what is wrong with it if it can't be read.
        what: String,
    },
}

impl Happening {
    /// The room that it happened in, if it happened in one.
    #[must_use]
    pub fn room(&self) -> Option<&str> {
        match self {
            Self::RoomInitiated { room, .. }
            | Self::RoomDeleted { room }
            | Self::Posted { room, .. }
            | Self::Edited { room, .. }
            | Self::MessageDeleted { room, .. }
            | Self::ConversationRead { room, .. } => Some(room),
            Self::UserCreated { .. } | Self::UserDeleted { .. } | Self::Other { .. } => None,
        }
    }
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Where it stands.
    pub position: u64,
    /// Who commanded it.
    pub actor: Option<String>,
    /// The client's idempotency key.
    pub key: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What a follower was told of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Where the frame says that it stands.
    pub position: u64,
    /// What the frame says.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What a client of the WebSocket was told, over all its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The follower's name.
    pub follower: String,
    /// The user.
    pub person: String,
    /// The room that it follows; `None`: all of the user's.
    pub room: Option<String>,
    /// After which position everything was to be told; `None` when it was never subscribed.
    pub start: Option<u64>,
    /// What was told, in that order.
    pub told: Vec<Told>,
    /// Frames that should never have come.
    pub wrong: Vec<String>,
    /// When connections were made and how they ended, for people who read what went wrong.
    pub notes: Vec<String>,
}

/// What one of Hansard's own verifications, or a look at its processes, came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What is wrong; `None`: nothing.
    pub wrong: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// In the order in which they began.
    pub operations: Vec<Operation>,
    /// In the order of the log.
    pub log: Vec<Logged>,
    /// One for each follower.
    pub streams: Vec<Stream>,
    /// One for each verification.
    pub findings: Vec<Finding>,
}

impl Evidence {
    /// Writes what is not in the history's own file into a directory: `log.jsonl`, `streams.jsonl`,
    /// `findings.jsonl`.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        write_lines(&directory.join("log.jsonl"), &self.log)?;
        write_lines(&directory.join("streams.jsonl"), &self.streams)?;
        write_lines(&directory.join("findings.jsonl"), &self.findings)
    }
}

fn write_lines<T: Serialize>(path: &Path, values: &[T]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for value in values {
            serde_json::to_writer(&mut file, value)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    };
    write().with_context(|| format!("{} can't be written", path.display()))
}

impl fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for operation in &self.operations {
            writeln!(formatter, "  {operation}")?;
        }
        for logged in &self.log {
            writeln!(formatter, "  log: {}", json(logged)?)?;
        }
        for stream in &self.streams {
            let (person, start) = (&stream.person, stream.start);
            let scope = stream.room.as_deref().unwrap_or("all rooms");
            writeln!(
                formatter,
                "  {} of {person} follows {scope} after {start:?}:",
                stream.follower
            )?;
            for told in &stream.told {
                writeln!(formatter, "    told: {}", json(told)?)?;
            }
            for wrong in &stream.wrong {
                writeln!(formatter, "    wrong: {wrong}")?;
            }
        }
        for finding in self.findings.iter().filter(|it| it.wrong.is_some()) {
            writeln!(formatter, "  {}", json(finding)?)?;
        }
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<String, fmt::Error> {
    serde_json::to_string(value).map_err(|_| fmt::Error)
}
