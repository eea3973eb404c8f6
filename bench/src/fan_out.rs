//! How fast one room's messages reach many subscribers, one message at a time: the next is posted when all
//! subscribers have the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use events::{RoomId, UserId};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::frames::Frames;
use crate::server::{Server, System, token};
use crate::socket::Socket;

/// The text of a message, in bytes.
pub const TEXT_BYTES: usize = 600;
/// Messages before the measured ones, and measured ones.
const WARM_UP: usize = 100;
const MEASURED: usize = 500;
/// How long a message may take to reach everybody.
const LIMIT: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FanOut {
    /// Messages received by subscribers, a second.
    pub deliveries_per_second: f64,
    /// The size of a frame, in bytes.
    pub frame_bytes: usize,
}

/// Measures it with these subscribers, on `server`, in frames of so many bytes where the server does not decide it.
///
/// # Errors
/// A message does not reach everybody in time.
pub async fn measure(
    server: &Server,
    subscribers: Vec<Socket>,
    room: RoomId,
    author: UserId,
    frame_bytes: usize,
) -> anyhow::Result<FanOut> {
    let count = subscribers.len();
    let mut speaker = Speaker::of(server, room, author, frame_bytes).await?;
    let (all_have_it, mut reached) = mpsc::unbounded_channel();
    speaker.say().await?;
    let received = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    let mut frame_bytes = 0;
    for mut subscriber in subscribers {
        let first = timeout(LIMIT, subscriber.pushed()).await;
        frame_bytes = first
            .context("the first message did not reach everybody")??
            .len();
        let (mut frames, received) = (Frames::of(subscriber), Arc::clone(&received));
        let all_have_it = all_have_it.clone();
        readers.spawn(async move {
            while let Ok(more) = frames.next().await {
                let all = received.fetch_add(more, Ordering::Relaxed) + more;
                if all % count == 0 && all_have_it.send(()).is_err() {
                    return;
                }
            }
        });
    }
    drop(all_have_it);

    let mut begun = Instant::now();
    for message in 0..WARM_UP + MEASURED {
        if message == WARM_UP {
            begun = Instant::now();
        }
        speaker.say().await?;
        let reached = timeout(LIMIT, reached.recv()).await;
        if reached
            .context("a message did not reach everybody")?
            .is_none()
        {
            bail!("all subscribers were disconnected");
        }
    }
    let taken = begun.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let deliveries = (MEASURED * count) as f64;
    Ok(FanOut {
        deliveries_per_second: deliveries / taken,
        frame_bytes,
    })
}

/// Who says what the subscribers are told.
enum Speaker<'a> {
    OverHttp {
        server: &'a Server,
        room: String,
        token: String,
        text: String,
    },
    OverSocket(Box<Socket>, String),
}

impl<'a> Speaker<'a> {
    async fn of(
        server: &'a Server,
        room: RoomId,
        author: UserId,
        frame_bytes: usize,
    ) -> anyhow::Result<Self> {
        Ok(match server.system() {
            System::Hansard => Self::OverHttp {
                server,
                room: room.to_string(),
                token: token(author)?,
                text: "x".repeat(TEXT_BYTES),
            },
            system @ (System::SocketIo | System::Broadcast) => {
                let frame = system.saying(room, frame_bytes)?;
                Self::OverSocket(Box::new(server.speaker().await?), frame)
            }
        })
    }

    async fn say(&mut self) -> anyhow::Result<()> {
        match self {
            Self::OverHttp {
                server,
                room,
                token,
                text,
            } => server.post(room, token, text).await,
            Self::OverSocket(socket, frame) => socket.send(frame.clone()).await,
        }
    }
}
