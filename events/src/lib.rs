//! The domain of Hansard: ids, events, their envelope, the state folded from them, and the decisions.
//!
//! Pure: no I/O and no async, so every rule here is tested in microseconds. The other crates move these
//! values to and from a log, read models and sockets; what a command means is decided only here.

mod decide;
mod envelope;
mod event;
mod id;
mod payload;
mod seal;
mod state;
mod subject;
mod timestamp;

pub use decide::{Authority, Caller, Command, Decision, Expect, Refusal, decide};
pub use envelope::{
    DecodeError, Encoded, Envelope, IdempotencyKey, InvalidIdempotencyKey, OpenedEnvelope,
};
pub use event::{
    AuditRead, ConversationRead, Event, MessageDeleted, MessageEdited, MessageExpired,
    MessagePosted, Names, RoomDeleted, RoomHeld, RoomInitiated, RoomReleased, RoomType,
    UnknownVariant, UserCreated, UserDeleted, UserErased, UserType,
};
pub use id::{InvalidId, MessageId, Position, RoomId, UserId};
pub use seal::{DataKey, InvalidKeyId, KeyId, Month};
pub use state::{PostedMessage, Room, State, User};
pub use subject::{InvalidSubject, Subject};
pub use timestamp::{InvalidTimestamp, Timestamp};
