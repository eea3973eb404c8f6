//! What every command does in every state that matters, and every refusal: given, when, then.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use events::{
    Authority, Caller, Command, ConversationRead, Decision, Envelope, Event, Expect,
    MessageDeleted, MessageEdited, MessageExpired, MessageId, MessagePosted, Names, Position,
    Refusal, RoomDeleted, RoomHeld, RoomId, RoomInitiated, RoomReleased, RoomType, State, Subject,
    Timestamp, UserCreated, UserDeleted, UserErased, UserId, UserType, decide,
};
use uuid::Uuid;

/// The history that a test starts from; its events stand at the positions 1, 2, 3, ...
struct Given(State);

/// A command and what came of it.
struct When(Result<Decision, Refusal>);

fn given(history: impl IntoIterator<Item = Event>) -> Given {
    let mut state = State::default();
    let mut position = Position::ZERO;
    for event in history {
        position = position.next();
        state.apply(position, &envelope(event));
    }
    Given(state)
}

impl Given {
    fn when(&self, caller: Caller, command: Command) -> When {
        When(decide(&self.0, caller, &command))
    }
}

impl When {
    #[track_caller]
    fn then(self, event: Event, expect: Expect) {
        assert_eq!(self.0, Ok(Decision::Append(event, expect)));
    }

    #[track_caller]
    fn then_nothing(self) {
        assert_eq!(self.0, Ok(Decision::Nothing));
    }

    #[track_caller]
    fn then_refused(self, refusal: Refusal, message: &str) {
        assert_eq!(refusal.to_string(), message);
        assert_eq!(self.0, Err(refusal));
    }
}

fn at() -> Timestamp {
    "2026-11-22T17:16:12.692Z".parse().unwrap()
}

fn envelope(event: Event) -> Envelope {
    Envelope {
        id: Uuid::nil(),
        at: at(),
        actor: None,
        key: None,
        event,
    }
}

const fn user(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(number))
}
const ANNA: UserId = user(1);
const BELA: UserId = user(2);
const CARL: UserId = user(3);
const NOBODY: UserId = user(99);

const C2C: RoomType = RoomType::ConsumerToConsumer;

fn own(user: UserId) -> Caller {
    Caller {
        user: Some(user),
        authority: Authority::Own,
    }
}

fn support(user: UserId) -> Caller {
    Caller {
        user: Some(user),
        authority: Authority::Support,
    }
}

const OPEN: Caller = Caller {
    user: None,
    authority: Authority::Open,
};

/// Somebody with rights enough, but no user.
const SUPPORT_WITHOUT_USER: Caller = Caller {
    user: None,
    authority: Authority::Support,
};

fn created(user_id: UserId) -> Event {
    Event::UserCreated(UserCreated {
        user_id,
        names: Some(Names::new("First", "Last")),
        user_type: UserType::Consumer,
    })
}

fn deleted(user_id: UserId) -> Event {
    Event::UserDeleted(UserDeleted {
        user_id,
        user_type: UserType::Consumer,
        created_at: at(),
    })
}

fn room(generation: u32) -> RoomId {
    RoomId::derive(C2C, &[ANNA, BELA], generation)
}

fn initiated(generation: u32) -> Event {
    Event::RoomInitiated(RoomInitiated {
        room_id: room(generation),
        room_type: C2C,
        members: vec![ANNA, BELA],
        initiator: ANNA,
        generation,
    })
}

fn room_deleted(generation: u32) -> Event {
    Event::RoomDeleted(RoomDeleted {
        room_id: room(generation),
        room_type: C2C,
        members: vec![ANNA, BELA],
        initiator: ANNA,
        generation,
        initiated_at: at(),
    })
}

fn admin(user: UserId) -> Caller {
    Caller {
        user: Some(user),
        authority: Authority::Admin,
    }
}

fn held() -> Event {
    Event::RoomHeld(RoomHeld {
        room_id: room(0),
        reason: "a case".to_owned(),
    })
}

fn released() -> Event {
    Event::RoomReleased(RoomReleased { room_id: room(0) })
}

fn erased(user_id: UserId) -> Event {
    Event::UserErased(UserErased {
        user_id,
        user_type: UserType::Consumer,
        created_at: at(),
    })
}

fn edited(text: &str) -> Event {
    Event::MessageEdited(MessageEdited {
        room_id: room(0),
        message_id: message(5),
        author: ANNA,
        posted_at: at(),
        message_text: Some(text.to_owned()),
    })
}

/// A history and what happened next.
fn and_then(mut history: Vec<Event>, next: impl IntoIterator<Item = Event>) -> Vec<Event> {
    history.extend(next);
    history
}

fn posted(author: UserId, text: &str) -> Event {
    Event::MessagePosted(MessagePosted {
        room_id: room(0),
        author,
        message_text: Some(text.to_owned()),
    })
}

/// Anna (1), Bela (2) and Carl (3) exist; Anna and Bela have a room (4) where Anna posted message 5.
fn a_conversation() -> Vec<Event> {
    vec![
        created(ANNA),
        created(BELA),
        created(CARL),
        initiated(0),
        posted(ANNA, "hello"),
    ]
}

fn message(position: u64) -> MessageId {
    MessageId::at(Position::new(position))
}

mod creating_a_user {
    use super::*;

    fn create() -> Command {
        Command::CreateUser {
            user: CARL,
            first_name: " \0 any thing\n".to_owned(),
            last_name: "名".to_owned(),
            user_type: UserType::Support,
        }
    }

    fn carl_created() -> Event {
        Event::UserCreated(UserCreated {
            user_id: CARL,
            names: Some(Names::new(" \0 any thing\n", "名")),
            user_type: UserType::Support,
        })
    }

    #[test]
    fn is_the_first_event_of_the_users_history_with_the_names_as_sent() {
        given([])
            .when(OPEN, create())
            .then(carl_created(), Expect::Empty);
        given([created(ANNA)])
            .when(support(ANNA), create())
            .then(carl_created(), Expect::Empty);
    }

    #[test]
    fn takes_more_than_the_authority_over_ones_own() {
        given([created(ANNA)])
            .when(own(ANNA), create())
            .then_refused(
                Refusal::NotAllowed("only support may create users"),
                "only support may create users",
            );
    }
}

mod deleting_a_user {
    use super::*;

    const DELETE_ANNA: Command = Command::DeleteUser { user: ANNA };

    #[test]
    fn follows_exactly_what_was_known_of_the_user() {
        for caller in [own(ANNA), support(BELA), OPEN] {
            given([created(BELA), created(ANNA)])
                .when(caller, DELETE_ANNA)
                .then(deleted(ANNA), Expect::Exact(Position::new(2)));
        }
    }

    #[test]
    fn who_is_not_there_does_nothing() {
        given([]).when(OPEN, DELETE_ANNA).then_nothing();
        given([created(ANNA), deleted(ANNA)])
            .when(support(BELA), DELETE_ANNA)
            .then_nothing();
    }

    #[test]
    fn is_for_oneself_and_support_and_tells_others_not_even_who_exists() {
        for history in [vec![], vec![created(ANNA), created(BELA)]] {
            given(history).when(own(BELA), DELETE_ANNA).then_refused(
                Refusal::NotAllowed("only users themselves and support may delete a user"),
                "only users themselves and support may delete a user",
            );
        }
    }
}

mod initiating_a_room {
    use super::*;

    fn with(users: &[UserId]) -> Command {
        Command::InitiateRoom {
            users: users.to_vec(),
            room_type: C2C,
        }
    }

    #[test]
    fn is_the_first_event_of_the_rooms_life_whoever_of_the_members_calls() {
        for users in [&[BELA][..], &[BELA, ANNA], &[ANNA, BELA, BELA]] {
            given([created(ANNA), created(BELA)])
                .when(own(ANNA), with(users))
                .then(initiated(0), Expect::Empty);
        }
        let by_bela = Event::RoomInitiated(RoomInitiated {
            room_id: room(0),
            room_type: C2C,
            members: vec![ANNA, BELA],
            initiator: BELA,
            generation: 0,
        });
        given([created(ANNA), created(BELA)])
            .when(own(BELA), with(&[ANNA]))
            .then(by_bela, Expect::Empty);
    }

    #[test]
    fn that_is_there_does_nothing() {
        given(a_conversation())
            .when(own(BELA), with(&[ANNA]))
            .then_nothing();
    }

    #[test]
    fn of_another_type_or_with_other_members_is_another_room() {
        for (users, room_type) in [
            (vec![BELA], RoomType::ConsumerToSupport),
            (vec![BELA, CARL], C2C),
            (vec![], C2C),
        ] {
            let mut members = users.clone();
            members.insert(0, ANNA);
            let event = Event::RoomInitiated(RoomInitiated {
                room_id: RoomId::derive(room_type, &members, 0),
                room_type,
                members,
                initiator: ANNA,
                generation: 0,
            });
            given(a_conversation())
                .when(own(ANNA), Command::InitiateRoom { users, room_type })
                .then(event, Expect::Empty);
        }
    }

    #[test]
    fn that_was_deleted_starts_its_next_generation() {
        let mut history = a_conversation();
        history.push(room_deleted(0));
        given(history.clone())
            .when(own(ANNA), with(&[BELA]))
            .then(initiated(1), Expect::Empty);
        history.extend([initiated(1), room_deleted(1)]);
        given(history.clone())
            .when(own(ANNA), with(&[BELA]))
            .then(initiated(2), Expect::Empty);
        history.push(initiated(2));
        given(history).when(own(ANNA), with(&[BELA])).then_nothing();
    }

    #[test]
    fn with_users_who_do_not_exist_names_them() {
        given([created(ANNA), created(BELA), deleted(BELA)])
            .when(own(ANNA), with(&[NOBODY, BELA]))
            .then_refused(
                Refusal::UnknownUsers(vec![BELA, NOBODY]),
                "no users with the ids 00000000000000000000000000000002, 00000000000000000000000000000063",
            );
        given([created(BELA)])
            .when(own(ANNA), with(&[BELA]))
            .then_refused(
                Refusal::UnknownUsers(vec![ANNA]),
                "no users with the ids 00000000000000000000000000000001",
            );
    }

    #[test]
    fn needs_a_caller() {
        for caller in [OPEN, SUPPORT_WITHOUT_USER] {
            given(a_conversation())
                .when(caller, with(&[BELA]))
                .then_refused(Refusal::NoCaller, "the command needs a caller");
        }
    }
}

mod posting_a_message {
    use super::*;

    fn post(room: RoomId) -> Command {
        Command::PostMessage {
            room,
            text: "\u{202e}\0 text".to_owned(),
        }
    }

    #[test]
    fn by_a_member_expects_nothing_of_the_room() {
        for member in [ANNA, BELA] {
            given(a_conversation())
                .when(own(member), post(room(0)))
                .then(posted(member, "\u{202e}\0 text"), Expect::Any);
        }
    }

    #[test]
    fn is_for_members_only_whatever_their_authority() {
        let open_carl = Caller {
            user: Some(CARL),
            authority: Authority::Open,
        };
        for caller in [own(CARL), support(CARL), open_carl] {
            given(a_conversation())
                .when(caller, post(room(0)))
                .then_refused(Refusal::NotAMember, "only members of the room may do this");
        }
    }

    #[test]
    fn to_a_room_that_is_not_there_is_refused() {
        let message = "no room with the id ";
        let unknown = room(7);
        given(a_conversation())
            .when(own(ANNA), post(unknown))
            .then_refused(
                Refusal::UnknownRoom(unknown),
                &format!("{message}{unknown}"),
            );
        let mut history = a_conversation();
        history.push(room_deleted(0));
        given(history).when(own(ANNA), post(room(0))).then_refused(
            Refusal::UnknownRoom(room(0)),
            &format!("{message}{}", room(0)),
        );
    }

    #[test]
    fn needs_a_caller_who_still_exists() {
        given(a_conversation())
            .when(OPEN, post(room(0)))
            .then_refused(Refusal::NoCaller, "the command needs a caller");
        let mut history = a_conversation();
        history.push(deleted(ANNA));
        given(history).when(own(ANNA), post(room(0))).then_refused(
            Refusal::NotAllowed("the user who calls has been deleted"),
            "the user who calls has been deleted",
        );
    }
}

mod marking_a_conversation_read {
    use super::*;

    fn mark(up_to: Option<MessageId>) -> Command {
        Command::MarkRead {
            room: room(0),
            up_to,
        }
    }

    #[test]
    fn marks_all_or_up_to_a_message() {
        for up_to in [None, Some(message(5))] {
            let event = Event::ConversationRead(ConversationRead {
                room_id: room(0),
                reader: BELA,
                up_to,
            });
            given(a_conversation())
                .when(own(BELA), mark(up_to))
                .then(event, Expect::Any);
        }
    }

    #[test]
    fn up_to_what_is_no_message_of_the_room_is_refused() {
        let mut history = a_conversation();
        let other = RoomId::derive(C2C, &[ANNA, CARL], 0);
        history.push(Event::RoomInitiated(RoomInitiated {
            room_id: other,
            room_type: C2C,
            members: vec![ANNA, CARL],
            initiator: ANNA,
            generation: 0,
        }));
        history.push(Event::MessagePosted(MessagePosted {
            room_id: other,
            author: ANNA,
            message_text: Some("elsewhere".to_owned()),
        }));
        // The room's initiation, another room's message, the future.
        for not_a_message in [4, 7, 1_000] {
            given(history.clone())
                .when(own(ANNA), mark(Some(message(not_a_message))))
                .then_refused(
                    Refusal::UnknownMessage(message(not_a_message)),
                    &format!("no message with the id {not_a_message:016x} in this room"),
                );
        }
    }

    #[test]
    fn is_for_members_of_a_room_that_is_there() {
        given(a_conversation())
            .when(support(CARL), mark(None))
            .then_refused(Refusal::NotAMember, "only members of the room may do this");
        given(a_conversation())
            .when(OPEN, mark(None))
            .then_refused(Refusal::NoCaller, "the command needs a caller");
        let mut history = a_conversation();
        history.push(room_deleted(0));
        given(history).when(own(ANNA), mark(None)).then_refused(
            Refusal::UnknownRoom(room(0)),
            &format!("no room with the id {}", room(0)),
        );
    }
}

mod deleting_a_room {
    use super::*;

    fn delete() -> Command {
        Command::DeleteRoom { room: room(0) }
    }

    #[test]
    fn follows_exactly_what_was_known_of_the_room() {
        for caller in [own(ANNA), own(BELA), support(CARL), OPEN] {
            given(a_conversation())
                .when(caller, delete())
                .then(room_deleted(0), Expect::Exact(Position::new(4)));
        }
    }

    #[test]
    fn that_is_not_there_does_nothing() {
        given([]).when(own(ANNA), delete()).then_nothing();
        let mut history = a_conversation();
        history.push(room_deleted(0));
        given(history).when(own(ANNA), delete()).then_nothing();
    }

    #[test]
    fn is_for_members_and_support() {
        given(a_conversation())
            .when(own(CARL), delete())
            .then_refused(
                Refusal::NotAllowed("only members of a room and support may delete it"),
                "only members of a room and support may delete it",
            );
    }
}

mod deleting_a_message {
    use super::*;

    fn delete(position: u64) -> Command {
        Command::DeleteMessage {
            message: message(position),
        }
    }

    #[test]
    fn by_its_author_or_support_expects_nothing_of_the_room() {
        for caller in [own(ANNA), support(CARL), OPEN] {
            let event = Event::MessageDeleted(MessageDeleted {
                room_id: room(0),
                message_id: message(5),
            });
            given(a_conversation())
                .when(caller, delete(5))
                .then(event, Expect::Any);
        }
    }

    #[test]
    fn that_is_not_there_does_nothing() {
        // No event, not a message, a message of a deleted room.
        given(a_conversation())
            .when(own(ANNA), delete(6))
            .then_nothing();
        given(a_conversation())
            .when(own(ANNA), delete(4))
            .then_nothing();
        let mut history = a_conversation();
        history.push(room_deleted(0));
        given(history).when(own(ANNA), delete(5)).then_nothing();
    }

    #[test]
    fn of_somebody_else_is_refused_also_to_members() {
        for caller in [own(BELA), own(CARL)] {
            given(a_conversation())
                .when(caller, delete(5))
                .then_refused(
                    Refusal::NotAllowed("only the author of a message and support may delete it"),
                    "only the author of a message and support may delete it",
                );
        }
    }
}

mod editing_a_message {
    use super::*;

    fn edit(room: RoomId, number: u64) -> Command {
        Command::EditMessage {
            room,
            message: message(number),
            text: "hello again".to_owned(),
        }
    }

    #[test]
    fn is_for_its_author() {
        given(a_conversation())
            .when(own(ANNA), edit(room(0), 5))
            .then(edited("hello again"), Expect::Any);
        let refusal = "only the author of a message may edit it";
        for caller in [own(BELA), support(BELA), admin(BELA)] {
            given(a_conversation())
                .when(caller, edit(room(0), 5))
                .then_refused(Refusal::NotAllowed(refusal), refusal);
        }
    }

    #[test]
    fn takes_a_member_and_a_message_of_the_room() {
        given(a_conversation())
            .when(own(CARL), edit(room(0), 5))
            .then_refused(Refusal::NotAMember, "only members of the room may do this");
        given(a_conversation())
            .when(own(ANNA), edit(room(0), 4))
            .then_refused(
                Refusal::UnknownMessage(message(4)),
                "no message with the id 0000000000000004 in this room",
            );
        let gone = and_then(a_conversation(), [room_deleted(0)]);
        given(gone).when(own(ANNA), edit(room(0), 5)).then_refused(
            Refusal::UnknownRoom(room(0)),
            &format!("no room with the id {}", room(0)),
        );
    }
}

mod legal_holds {
    use super::*;

    fn hold() -> Command {
        Command::HoldRoom {
            room: room(0),
            reason: "a case".to_owned(),
        }
    }

    fn release() -> Command {
        Command::ReleaseRoom { room: room(0) }
    }

    #[test]
    fn are_begun_and_lifted_once() {
        given(a_conversation())
            .when(admin(CARL), hold())
            .then(held(), Expect::Any);
        given(a_conversation())
            .when(admin(CARL), release())
            .then_nothing();
        let under_hold = and_then(a_conversation(), [held()]);
        given(under_hold.clone())
            .when(admin(CARL), hold())
            .then_nothing();
        given(under_hold)
            .when(OPEN, release())
            .then(released(), Expect::Any);
    }

    #[test]
    fn are_for_admins() {
        for caller in [own(ANNA), support(ANNA)] {
            for command in [hold(), release()] {
                given(a_conversation()).when(caller, command).then_refused(
                    Refusal::NotAllowed("only admins may do this"),
                    "only admins may do this",
                );
            }
        }
    }

    #[test]
    fn keep_the_room_and_its_texts_and_its_members() {
        let under_hold = and_then(a_conversation(), [held()]);
        let message = format!("under legal hold: {}", room(0));
        for command in [
            Command::DeleteRoom { room: room(0) },
            Command::EraseUser { user: BELA },
            Command::ExpireMessages {
                room: room(0),
                up_to: super::message(5),
            },
        ] {
            given(under_hold.clone())
                .when(admin(CARL), command.clone())
                .then_refused(Refusal::UnderHold(vec![room(0)]), &message);
            let after = given(and_then(under_hold.clone(), [released()]));
            assert!(after.when(admin(CARL), command).0.is_ok());
        }
        // Also of a user who has been deleted, but not of one who is no member.
        given(and_then(under_hold.clone(), [deleted(BELA)]))
            .when(admin(CARL), Command::EraseUser { user: BELA })
            .then_refused(Refusal::UnderHold(vec![room(0)]), &message);
        given(under_hold)
            .when(admin(CARL), Command::EraseUser { user: CARL })
            .then(erased(CARL), Expect::Exact(Position::new(3)));
    }
}

mod erasing_a_user {
    use super::*;

    const ERASE: Command = Command::EraseUser { user: ANNA };

    #[test]
    fn is_for_admins_whether_or_not_the_user_was_deleted() {
        given(a_conversation())
            .when(admin(CARL), ERASE)
            .then(erased(ANNA), Expect::Exact(Position::new(1)));
        given(and_then(a_conversation(), [deleted(ANNA)]))
            .when(admin(CARL), ERASE)
            .then(erased(ANNA), Expect::Exact(Position::new(6)));
        for caller in [own(ANNA), support(CARL)] {
            given(a_conversation()).when(caller, ERASE).then_refused(
                Refusal::NotAllowed("only admins may do this"),
                "only admins may do this",
            );
        }
    }

    #[test]
    fn happens_once_and_to_somebody() {
        given(and_then(a_conversation(), [erased(ANNA)]))
            .when(admin(CARL), ERASE)
            .then_nothing();
        given([]).when(admin(CARL), ERASE).then_refused(
            Refusal::UnknownUsers(vec![ANNA]),
            &format!("no users with the ids {ANNA}"),
        );
    }

    #[test]
    fn is_to_be_deleted_as_well() {
        let history = given(and_then(a_conversation(), [erased(ANNA)]));
        assert!(history.0.user(ANNA).is_none());
        assert!(history.0.is_deleted(ANNA));
    }
}

#[test]
fn texts_expire_in_a_room_that_is_there() {
    let expire = Command::ExpireMessages {
        room: room(0),
        up_to: message(5),
    };
    let event = Event::MessageExpired(MessageExpired {
        room_id: room(0),
        up_to: message(5),
    });
    let unless_held =
        |position| Expect::Beside(Subject::RoomHold(room(0)), Position::new(position));
    given(a_conversation())
        .when(admin(CARL), expire.clone())
        .then(event.clone(), unless_held(0));
    let released = and_then(a_conversation(), [held(), released()]);
    let last = released.len() as u64;
    given(released.clone())
        .when(admin(CARL), expire.clone())
        .then(event.clone(), unless_held(last));
    // What has expired does not again.
    let expired = and_then(a_conversation(), [event]);
    given(expired.clone())
        .when(admin(CARL), expire.clone())
        .then_nothing();
    let later = Command::ExpireMessages {
        room: room(0),
        up_to: message(6),
    };
    let event = Event::MessageExpired(MessageExpired {
        room_id: room(0),
        up_to: message(6),
    });
    given(expired)
        .when(admin(CARL), later)
        .then(event, unless_held(0));
    given([]).when(admin(CARL), expire).then_refused(
        Refusal::UnknownRoom(room(0)),
        &format!("no room with the id {}", room(0)),
    );
}

mod state {
    use super::*;
    use events::{Room, User};

    #[test]
    fn the_last_event_of_a_user_is_its_whole_state() {
        let history = [created(ANNA), deleted(ANNA)];
        let after_deletion = User::after(Position::new(2), &envelope(history[1].clone())).unwrap();
        assert!(after_deletion.deleted);
        assert_eq!(after_deletion.created_at, at());
        assert_eq!(after_deletion.first_name, "");
        assert!(given(history).0.user(ANNA).is_none());
        assert!(User::after(Position::new(1), &envelope(initiated(0))).is_none());
    }

    #[test]
    fn the_last_event_of_a_room_is_its_whole_state() {
        let living = Room::after(Position::new(1), &envelope(initiated(0))).unwrap();
        let gone = Room::after(Position::new(2), &envelope(room_deleted(0))).unwrap();
        let expected = Room {
            deleted: true,
            position: Position::new(2),
            ..living
        };
        assert_eq!(gone, expected);
        assert!(Room::after(Position::new(1), &envelope(posted(ANNA, ""))).is_none());
    }
}

#[test]
fn a_command_knows_its_own_event_again_and_no_other() {
    let create = |first_name: &str| Command::CreateUser {
        user: NOBODY,
        first_name: first_name.to_owned(),
        last_name: "Last".to_owned(),
        user_type: UserType::Consumer,
    };
    let initiate = |users: &[UserId]| Command::InitiateRoom {
        users: users.to_vec(),
        room_type: C2C,
    };
    let post = |text: &str| Command::PostMessage {
        room: room(0),
        text: text.to_owned(),
    };
    let mark = |up_to| Command::MarkRead {
        room: room(0),
        up_to,
    };
    let delete_message = Command::DeleteMessage {
        message: message(5),
    };
    let read = |up_to| {
        Event::ConversationRead(ConversationRead {
            room_id: room(0),
            reader: BELA,
            up_to,
        })
    };
    let message_deleted = Event::MessageDeleted(MessageDeleted {
        room_id: room(0),
        message_id: message(5),
    });
    let edit = |text: &str| Command::EditMessage {
        room: room(0),
        message: message(5),
        text: text.to_owned(),
    };
    let hold = Command::HoldRoom {
        room: room(0),
        reason: "a case".to_owned(),
    };
    let expire = Command::ExpireMessages {
        room: room(0),
        up_to: message(5),
    };
    let expired = Event::MessageExpired(MessageExpired {
        room_id: room(0),
        up_to: message(5),
    });
    // Each command with its event, in one row; it must lead to no event of another row.
    let rows = [
        (create("First"), created(ANNA)),
        (Command::DeleteUser { user: ANNA }, deleted(ANNA)),
        (Command::DeleteUser { user: BELA }, deleted(BELA)),
        // The generation is the state's, not the request's.
        (initiate(&[BELA, ANNA]), initiated(3)),
        (Command::DeleteRoom { room: room(0) }, room_deleted(0)),
        (Command::DeleteRoom { room: room(1) }, room_deleted(1)),
        (post("a"), posted(ANNA, "a")),
        (post("b"), posted(ANNA, "b")),
        (mark(None), read(None)),
        (mark(Some(message(5))), read(Some(message(5)))),
        (delete_message, message_deleted),
        (edit("a"), edited("a")),
        (edit("b"), edited("b")),
        (Command::EraseUser { user: ANNA }, erased(ANNA)),
        (hold, held()),
        (Command::ReleaseRoom { room: room(0) }, released()),
        (expire, expired),
    ];
    for (row, (command, _)) in rows.iter().enumerate() {
        for (other_row, (_, event)) in rows.iter().enumerate() {
            assert_eq!(
                command.leads_to(event),
                row == other_row,
                "{command:?} {event:?}"
            );
        }
    }
    assert!(initiate(&[BELA]).leads_to(&initiated(0)));
    for other in [
        create("first"),
        initiate(&[CARL]),
        Command::InitiateRoom {
            users: vec![BELA],
            room_type: RoomType::ConsumerToSupport,
        },
    ] {
        for (_, event) in &rows {
            assert!(!other.leads_to(event), "{other:?} {event:?}");
        }
    }
}
