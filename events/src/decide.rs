//! The decisions: what a command does in a given state.

use crate::{
    ConversationRead, Event, MessageDeleted, MessageEdited, MessageExpired, MessageId,
    MessagePosted, Names, Position, Room, RoomDeleted, RoomHeld, RoomId, RoomInitiated,
    RoomReleased, RoomType, State, Subject, UserCreated, UserDeleted, UserErased, UserId, UserType,
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
    /// Give a message another text.
    EditMessage {
        /// The room it was posted to.
        room: RoomId,
        /// Which.
        message: MessageId,
        /// The new text.
        text: String,
    },
    /// Erase a user: delete it and everything personal of it, for ever.
    EraseUser {
        /// Whom.
        user: UserId,
    },
    /// Put a room under legal hold.
    HoldRoom {
        /// Which.
        room: RoomId,
        /// Why.
        reason: String,
    },
    /// Lift a room's legal hold.
    ReleaseRoom {
        /// Which.
        room: RoomId,
    },
    /// Let the texts of a room's older messages go.
    ExpireMessages {
        /// Which room's.
        room: RoomId,
        /// The last message whose text goes.
        up_to: MessageId,
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
                let names = event.names.as_ref();
                let names = names.map(|names| (&names.first_name, &names.last_name));
                names == Some((first_name, last_name)) && *user_type == event.user_type
            }
            (Self::DeleteUser { user }, Event::UserDeleted(event)) => *user == event.user_id,
            (Self::InitiateRoom { users, room_type }, Event::RoomInitiated(event)) => {
                *room_type == event.room_type
                    && event.members == Self::room_members(users, event.initiator)
            }
            (Self::PostMessage { room, text }, Event::MessagePosted(event)) => {
                (room, Some(text)) == (&event.room_id, event.message_text.as_ref())
            }
            (Self::MarkRead { room, up_to }, Event::ConversationRead(event)) => {
                (room, up_to) == (&event.room_id, &event.up_to)
            }
            (Self::DeleteRoom { room }, Event::RoomDeleted(event)) => *room == event.room_id,
            (Self::DeleteMessage { message }, Event::MessageDeleted(event)) => {
                *message == event.message_id
            }
            (
                Self::EditMessage {
                    room,
                    message,
                    text,
                },
                Event::MessageEdited(event),
            ) => {
                (room, message, Some(text))
                    == (
                        &event.room_id,
                        &event.message_id,
                        event.message_text.as_ref(),
                    )
            }
            (Self::EraseUser { user }, Event::UserErased(event)) => *user == event.user_id,
            (Self::HoldRoom { room, reason }, Event::RoomHeld(event)) => {
                (room, reason) == (&event.room_id, &event.reason)
            }
            (Self::ReleaseRoom { room }, Event::RoomReleased(event)) => *room == event.room_id,
            (Self::ExpireMessages { room, up_to }, Event::MessageExpired(event)) => {
                (room, up_to) == (&event.room_id, &event.up_to)
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
    /// All that, and erase users, put rooms under legal hold and lift it.
    Admin,
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
    /// That of another subject is: nothing has happened there since. [`Position::ZERO`]: it has no event.
    Beside(Subject, Position),
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
    /// Rooms are under legal hold, and until they are released this may not happen.
    #[error("under legal hold: {}", join(.0))]
    UnderHold(Vec<RoomId>),
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
                names: Some(Names {
                    first_name: first_name.clone(),
                    last_name: last_name.clone(),
                }),
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
                message_text: Some(text.clone()),
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
        Command::EditMessage {
            room,
            message,
            text,
        } => edit_message(state, caller, *room, *message, text),
        Command::EraseUser { user } => erase_user(state, caller, *user),
        Command::HoldRoom { room, reason } => {
            only_admins(caller)?;
            let room = state.room(*room).ok_or(Refusal::UnknownRoom(*room))?.id;
            if state.is_held(room) {
                return Ok(Decision::Nothing);
            }
            let reason = reason.clone();
            let event = Event::RoomHeld(RoomHeld {
                room_id: room,
                reason,
            });
            Ok(Decision::Append(event, Expect::Any))
        }
        Command::ReleaseRoom { room } => {
            only_admins(caller)?;
            if !state.is_held(*room) {
                return Ok(Decision::Nothing);
            }
            let event = Event::RoomReleased(RoomReleased { room_id: *room });
            Ok(Decision::Append(event, Expect::Any))
        }
        Command::ExpireMessages { room, up_to } => {
            only_admins(caller)?;
            let room = state.room(*room).ok_or(Refusal::UnknownRoom(*room))?.id;
            if state.is_held(room) {
                return Err(Refusal::UnderHold(vec![room]));
            }
            if state.expired(room).is_some_and(|bound| *up_to <= bound) {
                return Ok(Decision::Nothing);
            }
            let event = Event::MessageExpired(MessageExpired {
                room_id: room,
                up_to: *up_to,
            });
            // What is held in this moment is kept.
            let hold = Expect::Beside(Subject::RoomHold(room), state.last_on_hold(room));
            Ok(Decision::Append(event, hold))
        }
    }
}

fn only_admins(caller: Caller) -> Result<(), Refusal> {
    match caller.authority {
        Authority::Open | Authority::Admin => Ok(()),
        Authority::Own | Authority::Support => Err(Refusal::NotAllowed("only admins may do this")),
    }
}

fn edit_message(
    state: &State,
    caller: Caller,
    room: RoomId,
    message: MessageId,
    text: &str,
) -> Result<Decision, Refusal> {
    let (author, room) = member_of(state, caller, room)?;
    let message = state
        .message(message)
        .filter(|it| it.room == room.id)
        .ok_or(Refusal::UnknownMessage(message))?;
    // Whatever else the caller may do: nobody puts words into another's mouth.
    if message.author != author {
        return Err(Refusal::NotAllowed(
            "only the author of a message may edit it",
        ));
    }
    let event = Event::MessageEdited(MessageEdited {
        room_id: room.id,
        message_id: message.id,
        author,
        posted_at: message.at,
        message_text: Some(text.to_owned()),
    });
    Ok(Decision::Append(event, Expect::Any))
}

fn erase_user(state: &State, caller: Caller, user: UserId) -> Result<Decision, Refusal> {
    only_admins(caller)?;
    let user = state
        .known_user(user)
        .ok_or_else(|| Refusal::UnknownUsers(vec![user]))?;
    if user.erased {
        return Ok(Decision::Nothing);
    }
    let held = state.held_rooms().into_iter().filter(|id| {
        let room = state.known_room(*id);
        room.is_some_and(|room| room.has_member(user.id))
    });
    let held: Vec<RoomId> = held.collect();
    if !held.is_empty() {
        return Err(Refusal::UnderHold(held));
    }
    let event = Event::UserErased(UserErased {
        user_id: user.id,
        user_type: user.user_type,
        created_at: user.created_at,
    });
    Ok(Decision::Append(event, Expect::Exact(user.position)))
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
    if state.is_held(room.id) {
        return Err(Refusal::UnderHold(vec![room.id]));
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

fn join<Id: ToString>(ids: &[Id]) -> String {
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
