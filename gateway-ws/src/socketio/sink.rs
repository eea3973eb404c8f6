//! Frames as events: the sink of a Socket.IO connection.
//!
//! The library's queue of a session refuses what does not fit and tells nobody when it has been read. So
//! the sink keeps a second reference to the bytes of each packet: one whose bytes nobody else refers to
//! any more has been taken by the transport. With that the sink bounds the queue by count and by bytes,
//! and is not ready while it is full.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use engineioxide::{DisconnectReason, Str};
use futures::Sink;
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep};

use super::Socket;
use crate::protocol::{Cursor, close};
use crate::transport::{Gone, Outgoing};

/// The packet that disconnects a client from the namespace.
const DISCONNECT: &str = "1";

/// How many frames, and how many bytes of them, may wait for the transport. A single frame may be larger.
pub const WINDOW_FRAMES: usize = 64;
pub const WINDOW_BYTES: usize = 256 * 1024;

/// How soon a full queue is looked at again: at first, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The sink of a session.
pub struct EventSink {
    socket: Arc<Socket>,
    /// The packets that the transport may not have taken yet, oldest first.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    pause: Duration,
    look_again: Option<Pin<Box<Sleep>>>,
    /// Whether the session ends once everything has been taken.
    closing: bool,
}

impl EventSink {
    /// The sink of this session.
    pub fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pause: FIRST_PAUSE,
            look_again: None,
            closing: false,
        }
    }

    /// Forgets what the transport has taken.
    fn settle(&mut self) {
        while self.waiting.front().is_some_and(Bytes::is_unique) {
            if let Some(taken) = self.waiting.pop_front() {
                self.waiting_bytes -= taken.len();
                self.pause = FIRST_PAUSE;
            }
        }
    }

    /// Waits until at most this much waits.
    fn poll_waiting(
        &mut self,
        context: &mut Context<'_>,
        max_frames: usize,
        max_bytes: usize,
    ) -> Poll<Result<(), Gone>> {
        loop {
            self.settle();
            if self.waiting.len() <= max_frames && self.waiting_bytes <= max_bytes {
                self.look_again = None;
                return Poll::Ready(Ok(()));
            }
            if self.socket.is_closed() {
                return Poll::Ready(Err(Gone));
            }
            let look_again = match &mut self.look_again {
                Some(look_again) => look_again,
                none => none.insert(Box::pin(sleep(self.pause))),
            };
            ready!(look_again.as_mut().poll(context));
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            look_again.as_mut().reset(Instant::now() + self.pause);
        }
    }

    fn send(&mut self, packet: String) -> Result<(), Gone> {
        let packet = Str::from(packet);
        let bytes = Bytes::from(packet.clone());
        self.socket.emit(packet).map_err(|_| Gone)?;
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(bytes);
        Ok(())
    }

    fn close(&mut self, code: u16, reason: &str, resume: Option<Cursor>) -> Result<(), Gone> {
        let mut closing = json!({"type": "closing", "code": code, "reason": reason});
        if let Some(position) = resume {
            closing["position"] = json!(position);
        }
        self.send(event("closing", &closing.to_string()))?;
        // A client that is disconnected stays so; one whose session just ends connects again by itself.
        if !comes_back(code) {
            self.send(DISCONNECT.to_owned())?;
        }
        self.closing = true;
        Ok(())
    }
}

/// Whether a client that is closed with this code should connect again as it is.
fn comes_back(code: u16) -> bool {
    matches!(
        code,
        close::GOING_AWAY
            | close::LOG_REPLACED
            | close::TRY_AGAIN_LATER
            | close::TOO_SLOW
            | close::SILENT
    )
}

/// The name of the event that a frame becomes: its type.
fn name(frame: &str) -> &str {
    // Every frame begins with its type, and no type's name needs escapes.
    frame
        .strip_prefix(r#"{"type":""#)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or("message")
}

/// The packet of an event with this name and one argument, given as JSON.
fn event(name: &str, argument: &str) -> String {
    let mut packet = String::with_capacity(name.len() + argument.len() + 6);
    packet.push_str("2[\"");
    packet.push_str(name);
    packet.push_str("\",");
    packet.push_str(argument);
    packet.push(']');
    packet
}

impl Sink<Outgoing> for EventSink {
    type Error = Gone;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        self.poll_waiting(context, WINDOW_FRAMES - 1, WINDOW_BYTES)
    }

    fn start_send(mut self: Pin<&mut Self>, outgoing: Outgoing) -> Result<(), Self::Error> {
        match outgoing {
            Outgoing::Frame { text, .. } => self.send(event(name(&text), &text)),
            // The library asks by itself.
            Outgoing::Ping => Ok(()),
            Outgoing::Close {
                code,
                reason,
                resume,
            } => self.close(code, &reason, resume),
        }
    }

    /// Waits until the transport has taken everything.
    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        ready!(self.poll_waiting(context, 0, 0))?;
        if self.closing {
            self.socket.close(DisconnectReason::TransportClose);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Self::Error>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_an_event_of_its_type() {
        let frame = r#"{"type":"new message","room":"r"}"#;
        let packet = event(name(frame), frame);
        assert_eq!(packet, format!(r#"2["new message",{frame}]"#));
        // Else taking its bytes would copy them.
        assert_eq!(packet.len(), packet.capacity());
    }
}
