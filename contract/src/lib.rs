//! The API's JSON shapes and validation texts, shared by every service that speaks it.
//!
//! They are those of the Node.js chat tutorial whose clients Hansard serves unchanged; the odd names
//! (`__v`, `roomInfo` as an array of arrays) are the tutorial's.

mod answers;
mod problem;
mod requests;
mod shapes;

pub use answers::{
    ConversationAnswer, DeleteMessageAnswer, DeleteRoomAnswer, DeleteUserAnswer, EditAnswer,
    EraseUserAnswer, HistoryAnswer, HoldAnswer, InitiateAnswer, InitiatedRoom, LoginAnswer,
    MarkReadAnswer, MarkReadResult, PostAnswer, RecentAnswer, SearchAnswer, UserAnswer,
    UsersAnswer,
};
pub use problem::Problem;
pub use requests::{
    CreateUserBody, FieldErrors, HoldBody, InitiateBody, Limits, MarkReadBody, PostMessageBody,
};
pub use shapes::{
    Conversation, ConversationReceipt, Edit, History, Message, MessageKind, MessageText, Moment,
    Post, Receipt, User, Version,
};

/// The API's description, OpenAPI 3.1 as JSON, generated from the routes' own code. Every service serves
/// it, so that each can be asked what the whole API looks like.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// The description of `/ws`, AsyncAPI 3.0 as JSON, written by hand. The gateway serves it, and its tests
/// compare it with the protocol.
pub const ASYNCAPI: &str = include_str!("../asyncapi.json");

/// The refusals' texts that clients of the tutorial may compare with.
pub mod texts {
    /// A path that no route answers.
    pub const UNKNOWN_ENDPOINT: &str = "API endpoint doesnt exist";
    /// A user id that names nobody.
    pub const UNKNOWN_USER: &str = "No user with this id found";
    /// A room id that names no room.
    pub const UNKNOWN_ROOM: &str = "No room exists for this id";
    /// A message id that names no message.
    pub const UNKNOWN_MESSAGE: &str = "No message exists for this id";
    /// Somebody who is not a member of the room asks for something that only members may do.
    pub const NOT_A_MEMBER: &str = "only members of the room may do this";
    /// A request that needs a token came without one.
    pub const NO_TOKEN: &str = "No access token provided";
    /// A request's fields are wrong; the `errors` member says how.
    pub const FIX_ERRORS: &str = "Kindly fix the error(s)";
}
