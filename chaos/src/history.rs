//! The history: what clients asked, when, and what they were told. It says nothing of what is true; that is
//! the log's to say.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What a client asked for. Ids are as the API has them; a message's is its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "asked",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Action {
    /// `POST /users`
    CreateUser {
        /// The first name, which nobody else has.
        name: String,
    },
    /// `DELETE /users/:id`
    DeleteUser {
        /// Whom.
        user: String,
    },
    /// `POST /room/initiate`
    Initiate {
        /// All members, in ascending order.
        members: Vec<String>,
    },
    /// `DELETE /delete/room/:roomId`
    DeleteRoom {
        /// Which.
        room: String,
    },
    /// `POST /room/:roomId/message`
    Post {
        /// Where to.
        room: String,
        /// The text, which nobody else says.
        text: String,
    },
    /// `PATCH /room/:roomId/message/:messageId`
    Edit {
        /// Where.
        room: String,
        /// Which message.
        message: u64,
        /// The new text, which nobody else says.
        text: String,
    },
    /// `DELETE /delete/message/:messageId`
    DeleteMessage {
        /// The room that it is in, as the client knows it.
        room: String,
        /// Which.
        message: u64,
    },
    /// `PUT /room/:roomId/mark-read`
    MarkRead {
        /// Which room's conversation.
        room: String,
    },
    /// `GET /room/:roomId`, the newest page.
    Read {
        /// Which room's conversation.
        room: String,
    },
}

impl Action {
    /// What kind of request it is, for summaries.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateUser { .. } => "create user",
            Self::DeleteUser { .. } => "delete user",
            Self::Initiate { .. } => "initiate room",
            Self::DeleteRoom { .. } => "delete room",
            Self::Post { .. } => "post",
            Self::Edit { .. } => "edit",
            Self::DeleteMessage { .. } => "delete message",
            Self::MarkRead { .. } => "mark read",
            Self::Read { .. } => "read room",
        }
    }

    /// The room that it is about, if it names one.
    #[must_use]
    pub fn room(&self) -> Option<&str> {
        match self {
            Self::DeleteRoom { room }
            | Self::Post { room, .. }
            | Self::Edit { room, .. }
            | Self::DeleteMessage { room, .. }
            | Self::MarkRead { room }
            | Self::Read { room } => Some(room),
            Self::CreateUser { .. } | Self::DeleteUser { .. } | Self::Initiate { .. } => None,
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_query(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// A message as it was shown to a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Its id.
    pub message: u64,
    /// Who wrote it.
    pub author: String,
    /// What it says; empty when it is deleted.
    pub text: String,
    /// Whether it is shown as deleted.
    pub deleted: bool,
}

/// What an answer says, as far as it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "said",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Answer {
    /// That it is done.
    Done,
    /// The id of the new user.
    User {
        /// It.
        user: String,
    },
    /// The room that there is now.
    Room {
        /// Its id.
        room: String,
    },
    /// The id of the new message.
    Message {
        /// It.
        message: u64,
    },
    /// The newest messages of a room, oldest first.
    Page {
        /// They.
        messages: Vec<Shown>,
        /// Whether there may be older ones.
        full: bool,
    },
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "outcome",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Outcome {
    /// It was answered 200.
    Acknowledged {
        /// `Hansard-Position`, if the answer has one.
        position: Option<u64>,
        /// The rest.
        answer: Answer,
    },
    /// It was answered 4xx: nothing has happened, nor will it.
    Refused {
        /// The status.
        status: u16,
        /// What was said.
        message: String,
    },
    /// Nobody knows: no answer, or 5xx.
    Unknown {
        /// What came instead of an answer.
        why: String,
    },
}

/// One request on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which address it went to.
    pub through: String,
    /// The `Hansard-Position` that it sent.
    pub from: Option<u64>,
    /// When it was sent, in microseconds since the run began, by a clock that never jumps.
    pub invoked: u64,
    /// When it was answered or given up, by the same clock.
    pub returned: u64,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Something that a client wanted, with all attempts at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number in the run.
    pub number: u64,
    /// The session; one thing after the other happens in it.
    pub client: String,
    /// The user in whose name it was sent.
    pub actor: String,
    /// What was asked.
    #[serde(flatten)]
    pub action: Action,
    /// The `Idempotency-Key`, the same for each attempt; without one there is one attempt.
    pub key: Option<String>,
    /// In their order.
    pub attempts: Vec<Attempt>,
}

impl Operation {
    /// Where the answer that the client went by says that the event stands, and the answer; `None` when it
    /// never got one.
    #[must_use]
    pub fn acknowledged(&self) -> Option<(Option<u64>, &Answer)> {
        self.attempts
            .iter()
            .find_map(|attempt| match &attempt.outcome {
                Outcome::Acknowledged { position, answer } => Some((*position, answer)),
                Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
            })
    }

    /// Whether nothing can have come of it: each attempt was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let refused = |it: &Attempt| matches!(it.outcome, Outcome::Refused { .. });
        !self.attempts.is_empty() && self.attempts.iter().all(refused)
    }

    /// When the first attempt was sent.
    #[must_use]
    pub fn invoked(&self) -> u64 {
        self.attempts.first().map_or(0, |it| it.invoked)
    }

    /// When the last attempt was answered or given up.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.attempts.last().map_or(u64::MAX, |it| it.returned)
    }

    /// One word for what became of it, for summaries.
    #[must_use]
    pub fn fate(&self) -> &'static str {
        match self.attempts.last().map(|it| &it.outcome) {
            Some(Outcome::Acknowledged { .. }) => "acknowledged",
            Some(Outcome::Refused { .. }) => "refused",
            Some(Outcome::Unknown { .. }) | None => "unknown",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = serde_json::to_string(&self.action).map_err(|_| fmt::Error)?;
        write!(
            formatter,
            "operation {} of {}: {action}",
            self.number, self.client
        )?;
        if let Some(key) = &self.key {
            write!(formatter, " key {key}")?;
        }
        for attempt in &self.attempts {
            let outcome = serde_json::to_string(&attempt.outcome).map_err(|_| fmt::Error)?;
            write!(
                formatter,
                "\n    {} to {} ms, {}",
                attempt.invoked / 1000,
                attempt.returned / 1000,
                attempt.through
            )?;
            if let Some(from) = attempt.from {
                write!(formatter, ", from {from}")?;
            }
            write!(formatter, ": {outcome}")?;
        }
        Ok(())
    }
}

/// Takes down what clients do, in memory and in a file.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    operations: Vec<Operation>,
    /// How many numbers have been given out.
    numbers: u64,
    file: BufWriter<File>,
}

impl Recorder {
    /// A new history, also in this file: one operation a line, as they end.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("{} can't be made", path.display()))?;
        Ok(Self {
            begun: Instant::now(),
            written: Mutex::new(Written {
                operations: Vec::new(),
                numbers: 0,
                file: BufWriter::new(file),
            }),
        })
    }

    /// Microseconds since the history began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A number that no other operation has.
    pub fn number(&self) -> u64 {
        let mut written = self.lock();
        written.numbers += 1;
        written.numbers
    }

    /// Takes an operation down that has ended.
    pub fn add(&self, operation: Operation) {
        let mut written = self.lock();
        if let Ok(line) = serde_json::to_string(&operation) {
            // The history in memory is what is checked; a full disk must not end the run.
            let _ = writeln!(written.file, "{line}");
        }
        written.operations.push(operation);
    }

    /// How many operations have ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().operations.len()
    }

    /// Whether no operation has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was taken down, in the order in which the operations began.
    #[must_use]
    pub fn finish(&self) -> Vec<Operation> {
        let mut written = self.lock();
        let _ = written.file.flush();
        let mut operations = std::mem::take(&mut written.operations);
        operations.sort_by_key(Operation::invoked);
        operations
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
