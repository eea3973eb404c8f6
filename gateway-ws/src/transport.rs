//! What a connection needs of the transport beneath it: a sink of frames and a stream of what the client
//! sends. WebSocket (`websocket.rs`) and Socket.IO (`socketio.rs`) are such transports.

use axum::extract::ws::Utf8Bytes;
use events::{Position, RoomId, UserId};
use futures::{Sink, Stream};

use crate::protocol::{After, ClientFrame};
use crate::protocol::{Cursor, ErrorCode, InvalidFrame};

/// A client's connection.
pub struct Transport<Out, In> {
    /// Takes what the client is sent. A sink that is not ready is a client that does not read.
    pub sink: Out,
    /// What the client sends; it ends when the client is gone.
    pub stream: In,
    /// Which transport it is.
    pub kind: Kind,
    /// From where subscriptions resume that don't say it themselves.
    pub after: Option<After>,
}

/// Which transport a connection uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Plain WebSocket. The connection looks after pings, and wants a token in time.
    WebSocket,
    /// Socket.IO. The library beneath looks after pings; who it is may be said at any time.
    SocketIo,
}

/// What comes from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A frame, or why it can't be used.
    Frame(Result<ClientFrame, InvalidFrame>),
    /// The client says who it is: Socket.IO's `identity`.
    Identity(UserId),
    /// Socket.IO's `subscribe(room, otherUser)`: the Socket.IO connections of the other user are to be
    /// subscribed to the room as well.
    Bring {
        /// The other user.
        user: UserId,
        /// The room.
        room: RoomId,
    },
    /// A sign of life.
    Alive,
    /// The client has begun to close the connection.
    Closing,
    /// The client's bytes are not as the transport wants them: nothing more can be read.
    Broken {
        /// With what to close.
        code: u16,
        /// What was wrong.
        reason: String,
        /// The error frame to send before, if there is one for it.
        error: Option<ErrorCode>,
    },
}

/// What goes to the client.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// A frame.
    Frame {
        /// Its text.
        text: Utf8Bytes,
        /// The event it tells of, if any.
        position: Option<Position>,
    },
    /// A question whether the client is still there.
    Ping,
    /// The end of the connection.
    Close {
        /// See [`close`](crate::protocol::close).
        code: u16,
        /// The reason, for people.
        reason: String,
        /// What to resume from, where not everything queued was sent.
        resume: Option<Cursor>,
    },
}

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// What takes frames.
pub trait FrameSink: Sink<Outgoing, Error = Gone> + Send + Unpin {}

impl<T: Sink<Outgoing, Error = Gone> + Send + Unpin> FrameSink for T {}

/// What brings frames.
pub trait FrameStream: Stream<Item = Incoming> + Send + Unpin {}

impl<T: Stream<Item = Incoming> + Send + Unpin> FrameStream for T {}
