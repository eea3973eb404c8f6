//! How fast one room's messages reach many subscribers, one message at a time: the next is posted when all
//! subscribers have the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use events::{RoomId, UserId};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

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

/// Measures it with these subscribers, on `server`. `padding` bytes are added to socket.io's messages, which
/// lack what Hansard's tell beside the text.
///
/// # Errors
/// A message does not reach everybody in time.
pub async fn measure(
    server: &Server,
    subscribers: Vec<Socket>,
    room: RoomId,
    author: UserId,
    padding: usize,
) -> anyhow::Result<FanOut> {
    let count = subscribers.len();
    let received = Arc::new(Received::default());
    let (all_have_it, mut reached) = mpsc::unbounded_channel();
    let mut readers = JoinSet::new();
    for mut subscriber in subscribers {
        let (received, all_have_it) = (Arc::clone(&received), all_have_it.clone());
        readers.spawn(async move {
            while let Ok(frame) = subscriber.pushed().await {
                received
                    .frame_bytes
                    .store(frame.as_str().len(), Ordering::Relaxed);
                let before = received.count.fetch_add(1, Ordering::Relaxed);
                if (before + 1) % count == 0 && all_have_it.send(()).is_err() {
                    return;
                }
            }
        });
    }
    drop(all_have_it);

    let (room, author_token) = (room.to_string(), token(author)?);
    let text = "x".repeat(TEXT_BYTES);
    let padded = "x".repeat(TEXT_BYTES + padding);
    let mut poster = match server.system() {
        System::Hansard => None,
        System::SocketIo | System::Broadcast => Some(server.speaker().await?),
    };
    let mut begun = Instant::now();
    for message in 0..WARM_UP + MEASURED {
        if message == WARM_UP {
            begun = Instant::now();
        }
        match &mut poster {
            None => server.post(&room, &author_token, &text).await?,
            Some(poster) => poster.emit(&json!(["post", room, padded])).await?,
        }
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
        frame_bytes: received.frame_bytes.load(Ordering::Relaxed),
    })
}

#[derive(Debug, Default)]
struct Received {
    count: AtomicUsize,
    frame_bytes: AtomicUsize,
}
