//! The protocol of the gateway: what clients may send ([`ClientFrame`]), what they are sent
//! ([`ServerFrame`], [`Change`]), the positions in both ([`Cursor`]), and the codes of errors and of closing.

mod client;
mod cursor;
mod server;

pub use client::{ClientFrame, InvalidFrame};
pub use cursor::{After, Cursor, InvalidAfter, LogTag};
pub use server::{Change, Presence, ServerFrame};

use serde::Serialize;

/// Close codes (RFC 6455, section 7.4; 4000 to 4999 are Hansard's own). A code never changes its meaning.
pub mod close {
    /// The gateway is shutting down. Connect again and resume.
    pub const GOING_AWAY: u16 = 1001;
    /// A frame or message was larger than allowed.
    pub const TOO_LARGE: u16 = 1009;
    /// The frames are not as RFC 6455 wants them.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The gateway follows another log than before. Connect again and start over.
    pub const LOG_REPLACED: u16 = 1012;
    /// The gateway can't do its work at present. Connect again later.
    pub const TRY_AGAIN_LATER: u16 = 1013;
    /// No token in time, a bad token, or the token has expired. Connect again with a good one.
    pub const UNAUTHORIZED: u16 = 4001;
    /// The user has been deleted.
    pub const USER_DELETED: u16 = 4003;
    /// The client reads too slowly. The reason names the position to resume from.
    pub const TOO_SLOW: u16 = 4008;
    /// Nothing was heard from the client for too long.
    pub const SILENT: u16 = 4009;
    /// The user has as many connections as one may have. Close another one first.
    pub const TOO_MANY_CONNECTIONS: u16 = 4010;

    /// Every one of them.
    pub const ALL: [u16; 10] = [
        GOING_AWAY,
        PROTOCOL_ERROR,
        TOO_LARGE,
        LOG_REPLACED,
        TRY_AGAIN_LATER,
        UNAUTHORIZED,
        USER_DELETED,
        TOO_SLOW,
        SILENT,
        TOO_MANY_CONNECTIONS,
    ];
}

/// What was wrong with a client's frame. The codes never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The frame is not JSON.
    NotJson,
    /// The frame is JSON but no message: no object, no type, or a field is missing or wrong.
    InvalidMessage,
    /// The message's type is none that clients may send.
    UnknownType,
    /// The frame is binary.
    UnsupportedFrame,
    /// The frame is larger than allowed.
    TooLarge,
    /// The connection sends more frames than allowed.
    RateLimited,
    /// The token is missing, bad or expired.
    Unauthorized,
    /// There is no such room, or not any more.
    UnknownRoom,
    /// The caller is not a member of the room.
    NotAMember,
    /// The connection has as many subscriptions as it may have.
    TooManySubscriptions,
    /// The user has as many connections as one may have.
    TooManyConnections,
    /// The log can't be reached.
    Unavailable,
}

impl ErrorCode {
    /// Every one of them.
    pub const ALL: [Self; 12] = [
        Self::NotJson,
        Self::InvalidMessage,
        Self::UnknownType,
        Self::UnsupportedFrame,
        Self::TooLarge,
        Self::RateLimited,
        Self::Unauthorized,
        Self::UnknownRoom,
        Self::NotAMember,
        Self::TooManySubscriptions,
        Self::TooManyConnections,
        Self::Unavailable,
    ];

    /// The code as it is sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::InvalidMessage => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::UnsupportedFrame => "unsupported_frame",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::UnknownRoom => "unknown_room",
            Self::NotAMember => "not_a_member",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::TooManyConnections => "too_many_connections",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Whether somebody is typing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Typing {
    /// Typing has begun or goes on.
    Start,
    /// Typing is over.
    Stop,
}
