//! The decisions: what a command does in a given state.

use crate::{
    ConversationRead, Event, MessageDeleted, MessageId, MessagePosted, Position, Room, RoomDeleted,
    RoomId, RoomInitiated, RoomType, State, UserCreated, UserDeleted, UserId, UserType,
};

/// What somebody wants to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Create a user.
    CreateUser {
        /// The id the new user gets.
        user: UserId,
        /// Given name.
        first_name: String,
        /// Family name.
        last_name: String,
        /// What kind of user.
        user_type: UserType,
    },
    /// Delete a user.
    DeleteUser {
        /// Whom.
        user: UserId,
    },
    /// Initiate the room of the caller and these users, or find it.
    InitiateRoom {
        /// The other members; the caller may be among them.
        users: Vec<UserId>,
        /// What kind of conversation.
        room_type: RoomType,
    },
    /// Post a message.
    PostMessage {
        /// Where to.
        room: RoomId,
        /// The text.
        text: String,
    },
    /// Mark a conversation as read.
    MarkRead {
        /// Which room's.
        room: RoomId,
        /// The last message read; `None`: all.
        up_to: Option<MessageId>,
    },
    /// Delete a room and its messages.
    DeleteRoom {
        /// Which.
        room: RoomId,
    },
    /// Delete a message.
    DeleteMessage {
        /// Which.
        message: MessageId,
    },
}

impl Command {
    /// Whether `event` is what this command leads to, or led to earlier. Ids that are made up for each
    /// attempt and what is copied from the state do not count.
    ///
    /// Tells a repeated request from another request that uses the same idempotency key.
    pub fn leads_to(&self, event: &Event) -> bool {
        match (self, event) {
            (
                Self::CreateUser {
                    user: _,
                    first_name,
                    last_name,
                    user_type,
                },
                Event::UserCreated(event),
            ) => {
                (first_name, last_name, user_type)
                    == (&event.first_name, &event.last_name, &event.user_type)
            }
            (Self::DeleteUser { user }, Event::UserDeleted(event)) => *user == event.user_id,
            (Self::InitiateRoom { users, room_type }, Event::RoomInitiated(event)) => {
                *room_type == event.room_type
                    && event.members == Self::room_members(users, event.initiator)
            }
            (Self::PostMessage { room, text }, Event::MessagePosted(event)) => {
                (room, text) == (&event.room_id, &event.message_text)
            }
            (Self::MarkRead { room, up_to }, Event::ConversationRead(event)) => {
                (room, up_to) == (&event.room_id, &event.up_to)
            }
            (Self::DeleteRoom { room }, Event::RoomDeleted(event)) => *room == event.room_id,
            (Self::DeleteMessage { message }, Event::MessageDeleted(event)) => {
                *message == event.message_id
            }
            _ => false,
        }
    }

    /// The members of the room that `initiator` initiates with `users`: in ascending order, each once.
    pub fn room_members(users: &[UserId], initiator: UserId) -> Vec<UserId> {
        let mut members = users.to_vec();
        members.push(initiator);
        members.sort_unstable();
        members.dedup();
        members
    }
}

/// Who commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user who calls; `None` where nobody in particular does.
    pub user: Option<UserId>,
    /// What the caller may do beyond taking part in the rooms it is a member of.
    pub authority: Authority,
}

/// What a caller may do beyond taking part in the rooms it is a member of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Create and delete anything: authentication is switched off.
    Open,
    /// What is the caller's own.
    Own,
    /// Create users; delete users, rooms and messages.
    Support,
}

/// What a command leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This event, if the log agrees with what was expected.
    Append(Event, Expect),
    /// No event: what the command asks for is already so.
    Nothing,
}

/// What must be true of an event's subject when it is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// It has no event yet.
    Empty,
    /// Its last event is at this position.
    Exact(Position),
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command needs to know who calls.
    #[error("the command needs a caller")]
    NoCaller,
    /// There is no such room, or not any more.
    #[error("no room with the id {0}")]
    UnknownRoom(RoomId),
    /// There are no such users, or not any more.
    #[error("no users with the ids {}", join(.0))]
    UnknownUsers(Vec<UserId>),
    /// The room has no such message.
    #[error("no message with the id {0} in this room")]
    UnknownMessage(MessageId),
    /// Only members of the room may do this.
    #[error("only members of the room may do this")]
    NotAMember,
    /// Only callers with more authority may do this; the text says who.
    #[error("{0}")]
    NotAllowed(&'static str),
}

/// Decides what `command`, called by `caller`, does in `state`.
///
/// `state` must hold the users, rooms and messages that the command names, as the log knows them; for
/// [`Command::InitiateRoom`] every generation of the room.
///
/// # Errors
/// Why the command is refused. A refused command changes nothing.
pub fn decide(state: &State, caller: Caller, command: &Command) -> Result<Decision, Refusal> {
    match command {
        Command::CreateUser {
            user,
            first_name,
            last_name,
            user_type,
        } => {
            if caller.authority == Authority::Own {
                return Err(Refusal::NotAllowed("only support may create users"));
            }
            let event = Event::UserCreated(UserCreated {
                user_id: *user,
                first_name: first_name.clone(),
                last_name: last_name.clone(),
                user_type: *user_type,
            });
            Ok(Decision::Append(event, Expect::Empty))
        }
        Command::DeleteUser { user } => delete_user(state, caller, *user),
        Command::InitiateRoom { users, room_type } => {
            initiate_room(state, caller, users, *room_type)
        }
        Command::PostMessage { room, text } => {
            let (author, room) = member_of(state, caller, *room)?;
            let event = Event::MessagePosted(MessagePosted {
                room_id: room.id,
                author,
                message_text: text.clone(),
            });
            Ok(Decision::Append(event, Expect::Any))
        }
        Command::MarkRead { room, up_to } => {
            let (reader, room) = member_of(state, caller, *room)?;
            if let Some(message) = *up_to {
                let known = state.message(message).is_some_and(|it| it.room == room.id);
                if !known {
                    return Err(Refusal::UnknownMessage(message));
                }
            }
            let event = Event::ConversationRead(ConversationRead {
                room_id: room.id,
                reader,
                up_to: *up_to,
            });
            Ok(Decision::Append(event, Expect::Any))
        }
        Command::DeleteRoom { room } => delete_room(state, caller, *room),
        Command::DeleteMessage { message } => delete_message(state, caller, *message),
    }
}

fn delete_user(state: &State, caller: Caller, user: UserId) -> Result<Decision, Refusal> {
    let own = caller.user == Some(user);
    if caller.authority == Authority::Own && !own {
        return Err(Refusal::NotAllowed(
            "only users themselves and support may delete a user",
        ));
    }
    let Some(user) = state.user(user) else {
        return Ok(Decision::Nothing);
    };
    let event = Event::UserDeleted(UserDeleted {
        user_id: user.id,
        user_type: user.user_type,
        created_at: user.created_at,
    });
    Ok(Decision::Append(event, Expect::Exact(user.position)))
}

fn initiate_room(
    state: &State,
    caller: Caller,
    users: &[UserId],
    room_type: RoomType,
) -> Result<Decision, Refusal> {
    let initiator = caller.user.ok_or(Refusal::NoCaller)?;
    let members = Command::room_members(users, initiator);
    let unknown: Vec<UserId> = members
        .iter()
        .copied()
        .filter(|member| state.user(*member).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::UnknownUsers(unknown));
    }
    let (room_id, generation) = state.room_of(room_type, &members);
    if state.room(room_id).is_some() {
        return Ok(Decision::Nothing);
    }
    let event = Event::RoomInitiated(RoomInitiated {
        room_id,
        room_type,
        members,
        initiator,
        generation,
    });
    Ok(Decision::Append(event, Expect::Empty))
}

fn delete_room(state: &State, caller: Caller, room: RoomId) -> Result<Decision, Refusal> {
    let Some(room) = state.room(room) else {
        return Ok(Decision::Nothing);
    };
    let member = caller.user.is_some_and(|user| room.has_member(user));
    if caller.authority == Authority::Own && !member {
        return Err(Refusal::NotAllowed(
            "only members of a room and support may delete it",
        ));
    }
    let event = Event::RoomDeleted(RoomDeleted {
        room_id: room.id,
        room_type: room.room_type,
        members: room.members.clone(),
        initiator: room.initiator,
        generation: room.generation,
        initiated_at: room.initiated_at,
    });
    Ok(Decision::Append(event, Expect::Exact(room.position)))
}

fn delete_message(state: &State, caller: Caller, message: MessageId) -> Result<Decision, Refusal> {
    let Some(message) = state.message(message) else {
        return Ok(Decision::Nothing);
    };
    if state.room(message.room).is_none() {
        return Ok(Decision::Nothing);
    }
    if caller.authority == Authority::Own && caller.user != Some(message.author) {
        return Err(Refusal::NotAllowed(
            "only the author of a message and support may delete it",
        ));
    }
    let event = Event::MessageDeleted(MessageDeleted {
        room_id: message.room,
        message_id: message.id,
    });
    Ok(Decision::Append(event, Expect::Any))
}

fn join(ids: &[UserId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

/// The caller and the room, if the caller may take part in it.
fn member_of(state: &State, caller: Caller, room: RoomId) -> Result<(UserId, &Room), Refusal> {
    let user = caller.user.ok_or(Refusal::NoCaller)?;
    if state.is_deleted(user) {
        return Err(Refusal::NotAllowed("the user who calls has been deleted"));
    }
    let room = state.room(room).ok_or(Refusal::UnknownRoom(room))?;
    if !room.has_member(user) {
        return Err(Refusal::NotAMember);
    }
    Ok((user, room))
}
