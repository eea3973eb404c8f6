//! What the gateways of a deployment tell each other and nobody keeps: who is connected, who types, and
//! whose Socket.IO connections are to join a room.
//!
//! Signals may get lost. Typing expires by itself; of presence each gateway repeats every second what
//! number its last signal had, so that who has missed one asks for the whole picture.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use directory::Directory;
use event_log::{Listening, Signal, Signals};
use events::{RoomId, Timestamp, UserId};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::hub::Hub;
use crate::pause::Pause;
use crate::presence::Presences;
use crate::protocol::Typing;
use crate::typing::TypingUsers;

/// How often a gateway says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How often what expires by itself is looked through.
const TICK: Duration = Duration::from_millis(250);

/// A signal as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The gateway that sends it.
    pub from: Uuid,
    /// What it says.
    pub message: Message,
}

/// What a signal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The gateway is alive, and its last change had this number.
    Alive {
        /// The number.
        last_change: u64,
    },
    /// A user's first connection to this gateway was made, or the last one has ended.
    Change {
        /// Numbers a gateway's changes, from 1 on.
        number: u64,
        /// Who.
        user: UserId,
        /// Which of both.
        online: bool,
    },
    /// The sender does not know who is connected to this gateway.
    Ask(Uuid),
    /// A part of the answer to `Ask`: who is connected to the sender, and who was last seen when.
    Picture {
        /// The number of the last change that it includes.
        last_change: u64,
        /// Whether it is the first part.
        first: bool,
        /// Whether it is the last part.
        last: bool,
        /// Who is connected.
        online: Vec<UserId>,
        /// Who was last seen when.
        last_seen: Vec<(UserId, Timestamp)>,
    },
    /// A user types in a room, or no longer does.
    Typing {
        /// Where.
        room: RoomId,
        /// Who.
        user: UserId,
        /// Which of both.
        state: Typing,
    },
    /// The user's Socket.IO connections are to be subscribed to the room.
    Bring {
        /// Who.
        user: UserId,
        /// Where.
        room: RoomId,
    },
    /// The gateway has ended: nobody is connected to it any more.
    Gone,
}

/// How many signals may wait to be sent.
const QUEUE: usize = 8192;

/// Sends signals of this gateway.
#[derive(Debug, Clone)]
pub struct Sender {
    me: Uuid,
    queue: mpsc::Sender<Bytes>,
}

impl Sender {
    /// A sender with an identity of its own. Must be called within a Tokio runtime.
    pub fn start(signals: Arc<dyn Signals>) -> Self {
        let (queue, mut queued) = mpsc::channel::<Bytes>(QUEUE);
        // Ends when the last sender is gone.
        tokio::spawn(async move {
            while let Some(bytes) = queued.recv().await {
                if let Err(error) = signals.send(bytes).await {
                    tracing::debug!(%error, "a signal is lost");
                }
            }
        });
        let me = Uuid::new_v4();
        Self { me, queue }
    }

    /// This gateway.
    pub fn me(&self) -> Uuid {
        self.me
    }

    /// Sends a message to every gateway, this one included, after what was sent before. Without a
    /// connection it is lost. Does not wait.
    pub fn send(&self, message: Message) {
        let from = self.me;
        match serde_json::to_vec(&Envelope { from, message }) {
            Ok(bytes) => {
                if self.queue.try_send(bytes.into()).is_err() {
                    tracing::debug!("a signal is lost: too many wait to be sent");
                }
            }
            Err(error) => tracing::error!(%error, "a signal can't be encoded"),
        }
    }
}

/// Receives signals, and lets expire what expires by itself.
pub struct Receiver {
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) sender: Sender,
    pub(crate) directory: Directory,
    pub(crate) hub: Arc<Hub>,
    pub(crate) typing: Arc<TypingUsers>,
    pub(crate) presences: Arc<Presences>,
}

impl Receiver {
    /// Receives until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let Some(mut signals) = stop.run_until_cancelled(self.listen()).await else {
            return;
        };
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut tick = tokio::time::interval(TICK);
        for interval in [&mut heartbeat, &mut tick] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = heartbeat.tick() => self.presences.say_alive(),
                _ = tick.tick() => {
                    let now = Instant::now();
                    self.typing.expire(&self.hub, now);
                    self.presences.expire(now);
                }
                signal = signals.next() => match signal {
                    Some(Signal::Sent(bytes)) => self.on_bytes(&bytes).await,
                    Some(Signal::Missed) => self.presences.has_missed(),
                    None => break,
                },
            }
        }
        self.sender.send(Message::Gone);
    }

    async fn listen(&self) -> Listening {
        let mut pause = Pause::new();
        loop {
            match self.signals.listen().await {
                Ok(signals) => return signals,
                Err(error) => tracing::debug!(%error, "signals can't be heard"),
            }
            pause.wait().await;
        }
    }

    async fn on_bytes(&self, bytes: &[u8]) {
        // Of a newer version, perhaps.
        let Ok(Envelope { from, message }) = serde_json::from_slice(bytes) else {
            tracing::debug!("skipping a signal that can't be decoded");
            return;
        };
        match message {
            Message::Typing { room, user, state } => {
                self.typing
                    .set(&self.hub, room, user, state, Instant::now());
            }
            Message::Bring { user, room } => self.bring(user, room).await,
            message if from != self.sender.me => self.presences.on_message(from, message),
            _ => {}
        }
    }

    async fn bring(&self, user: UserId, room: RoomId) {
        match self.directory.room(room).await {
            Ok(Some(room)) if room.has_member(user) && !room.deleted => {
                self.hub.bring(user, room.id);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "somebody is not brought to a room"),
        }
    }
}
