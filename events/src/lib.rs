//! The domain of Hansard: ids, events, their envelope, the state folded from them, and the decisions.
//!
//! Pure: no I/O and no async, so every rule here is tested in microseconds. The other crates move these
//! values to and from a log, read models and sockets; what a command means is decided only here.

mod decide;
mod envelope;
mod event;
mod id;
mod state;
mod subject;
mod timestamp;

pub use decide::{Authority, Caller, Command, Decision, Expect, Refusal, decide};
pub use envelope::{DecodeError, Envelope, IdempotencyKey, InvalidIdempotencyKey};
pub use event::{
    ConversationRead, Event, MessageDeleted, MessagePosted, RoomDeleted, RoomInitiated, RoomType,
    UnknownVariant, UserCreated, UserDeleted, UserType,
};
pub use id::{InvalidId, MessageId, Position, RoomId, UserId};
pub use state::{PostedMessage, Room, State, User};
pub use subject::{InvalidSubject, Subject};
pub use timestamp::{InvalidTimestamp, Timestamp};
