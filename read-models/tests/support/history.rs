//! Histories: events in log order, made by hand or at random, with what no well-behaved client would send.

use events::{
    ConversationRead, Envelope, Event, IdempotencyKey, MessageDeleted, MessageEdited,
    MessageExpired, MessageId, MessagePosted, Names, Position, RoomDeleted, RoomHeld, RoomId,
    RoomInitiated, RoomType, Timestamp, UserCreated, UserDeleted, UserErased, UserId, UserType,
};
use proptest::prelude::*;
use read_models::Entry;
use uuid::Uuid;

/// Users that a random history is about.
pub const USERS: u8 = 4;

/// Sets of members whose rooms a random history is about, and generations of each.
const MEMBERS: [&[u8]; 4] = [&[0, 1], &[0, 2], &[1, 2, 3], &[3]];
const GENERATIONS: u32 = 2;

pub fn user(number: u8) -> UserId {
    // Spread over the id's bytes, in an order that is not the numbers'.
    UserId::from_uuid(Uuid::from_u128(u128::from(number ^ 2) << 120 | 7))
}

pub fn members(set: usize) -> Vec<UserId> {
    let mut members: Vec<UserId> = MEMBERS[set].iter().map(|number| user(*number)).collect();
    members.sort_unstable();
    members
}

pub fn rooms() -> Vec<RoomId> {
    (0..MEMBERS.len())
        .flat_map(|set| (0..GENERATIONS).map(move |generation| room(set, generation)))
        .collect()
}

pub fn room(set: usize, generation: u32) -> RoomId {
    RoomId::derive(RoomType::ConsumerToConsumer, &members(set), generation)
}

/// A history under construction.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub entries: Vec<Entry>,
    last: u64,
}

impl History {
    /// Appends an event after `gap` positions that hold none.
    pub fn push(&mut self, gap: u64, actor: Option<u8>, key: Option<u8>, event: Event) -> Position {
        self.last += 1 + gap;
        let position = Position::new(self.last);
        // A clock that jumps: nothing may be ordered by it.
        let at = 1_700_000_000_000 + (self.last as i64 * 7_919) % 1_000;
        let key = key.map(|key| format!("key-{key}").parse::<IdempotencyKey>().unwrap());
        self.entries.push(Entry {
            position,
            envelope: Envelope {
                id: Uuid::from_u128(u128::from(self.last) << 64 | 1),
                at: Timestamp::from_millis(at).unwrap(),
                actor: actor.map(user),
                key,
                event,
            },
        });
        position
    }

    pub fn create(&mut self, number: u8) -> Position {
        self.push(0, None, None, created(number, "Anna"))
    }

    pub fn initiate(&mut self, set: usize, generation: u32) -> Position {
        self.push(0, Some(0), None, initiated(set, generation))
    }

    pub fn post(&mut self, room: RoomId, author: u8, text: &str) -> MessageId {
        MessageId::at(self.push(0, Some(author), None, posted(room, author, text)))
    }

    /// Rooms of `owner` with somebody else each, who is in no other.
    pub fn many_rooms(&mut self, owner: u8, count: u32) -> Vec<RoomId> {
        let mut rooms = Vec::new();
        for number in 0..count {
            let other = UserId::from_uuid(Uuid::from_u128(u128::from(number) << 64 | 9));
            let mut members = vec![user(owner), other];
            members.sort_unstable();
            let room_id = RoomId::derive(RoomType::ConsumerToConsumer, &members, 0);
            rooms.push(room_id);
            let event = Event::RoomInitiated(RoomInitiated {
                room_id,
                room_type: RoomType::ConsumerToConsumer,
                members,
                initiator: user(owner),
                generation: 0,
            });
            self.push(0, Some(owner), None, event);
        }
        rooms
    }

    pub fn read(&mut self, room: RoomId, reader: u8, up_to: Option<MessageId>) -> Position {
        self.push(0, Some(reader), None, read(room, reader, up_to))
    }

    pub fn delete_message(&mut self, room: RoomId, message: MessageId) -> Position {
        self.push(0, Some(0), None, message_deleted(room, message))
    }

    pub fn edit(&mut self, room: RoomId, message: MessageId, author: u8, text: &str) -> Position {
        self.push(0, Some(author), None, edited(room, message, author, text))
    }

    pub fn expire(&mut self, room: RoomId, up_to: MessageId) -> Position {
        self.push(0, None, None, expired(room, up_to))
    }

    pub fn erase(&mut self, number: u8) -> Position {
        self.push(0, Some(0), None, user_erased(number))
    }

    pub fn delete_room(&mut self, set: usize, generation: u32) -> Position {
        self.push(0, Some(0), None, room_deleted(set, generation))
    }

    pub fn last(&self) -> Position {
        Position::new(self.last)
    }
}

pub fn created(number: u8, first_name: &str) -> Event {
    Event::UserCreated(UserCreated {
        user_id: user(number),
        names: Some(Names::new(first_name, "O'Neill \u{0} ن")),
        user_type: UserType::ALL[usize::from(number % 2)],
    })
}

pub fn user_deleted(number: u8) -> Event {
    Event::UserDeleted(UserDeleted {
        user_id: user(number),
        user_type: UserType::ALL[usize::from(number % 2)],
        created_at: Timestamp::from_millis(0).unwrap(),
    })
}

pub fn initiated(set: usize, generation: u32) -> Event {
    Event::RoomInitiated(RoomInitiated {
        room_id: room(set, generation),
        room_type: RoomType::ConsumerToConsumer,
        members: members(set),
        initiator: members(set)[0],
        generation,
    })
}

pub fn room_deleted(set: usize, generation: u32) -> Event {
    Event::RoomDeleted(RoomDeleted {
        room_id: room(set, generation),
        room_type: RoomType::ConsumerToConsumer,
        members: members(set),
        initiator: members(set)[0],
        generation,
        initiated_at: Timestamp::from_millis(0).unwrap(),
    })
}

pub fn posted(room: RoomId, author: u8, text: &str) -> Event {
    Event::MessagePosted(MessagePosted {
        room_id: room,
        author: user(author),
        message_text: Some(text.to_owned()),
    })
}

pub fn edited(room: RoomId, message: MessageId, author: u8, text: &str) -> Event {
    Event::MessageEdited(MessageEdited {
        room_id: room,
        message_id: message,
        author: user(author),
        posted_at: Timestamp::from_millis(0).unwrap(),
        message_text: Some(text.to_owned()),
    })
}

pub fn expired(room: RoomId, up_to: MessageId) -> Event {
    Event::MessageExpired(MessageExpired {
        room_id: room,
        up_to,
    })
}

pub fn user_erased(number: u8) -> Event {
    Event::UserErased(UserErased {
        user_id: user(number),
        user_type: UserType::ALL[usize::from(number % 2)],
        created_at: Timestamp::from_millis(0).unwrap(),
    })
}

fn held(room: RoomId) -> Event {
    Event::RoomHeld(RoomHeld {
        room_id: room,
        reason: "case 17".to_owned(),
    })
}

pub fn message_deleted(room: RoomId, message: MessageId) -> Event {
    Event::MessageDeleted(MessageDeleted {
        room_id: room,
        message_id: message,
    })
}

pub fn read(room: RoomId, reader: u8, up_to: Option<MessageId>) -> Event {
    Event::ConversationRead(ConversationRead {
        room_id: room,
        reader: user(reader),
        up_to,
    })
}

/// One random event, before it is known what precedes it.
#[derive(Debug, Clone)]
struct Step {
    gap: u64,
    actor: u8,
    key: Option<u8>,
    set: usize,
    generation: u32,
    /// A place among the messages posted so far.
    pick: prop::sample::Index,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    CreateUser,
    DeleteUser,
    EraseUser,
    Initiate,
    DeleteRoom,
    Post(String),
    Edit(String),
    /// By whom it may be, with another room's name on it.
    EditElsewhere(String),
    /// Up to a message of the room's.
    Expire,
    ExpireUpToNothing(u64),
    Hold,
    DeleteMessage,
    /// With another room's name on it.
    DeleteMessageElsewhere,
    DeleteNothing(u64),
    Read,
    ReadUpTo,
    ReadUpToNothing(u64),
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        2 => Just(What::CreateUser),
        1 => Just(What::DeleteUser),
        1 => Just(What::EraseUser),
        4 => Just(What::Initiate),
        1 => Just(What::DeleteRoom),
        8 => "[a-z\\PC]{0,6}".prop_map(What::Post),
        // Words that come up again and again.
        8 => "([aÀbßΣ東京ไ]{1,2}[ .'\"*]){0,4}".prop_map(What::Post),
        6 => "([aÀbßΣ東京ไ]{1,2}[ .'\"*]){0,4}".prop_map(What::Edit),
        1 => "[ab]{1,2}".prop_map(What::EditElsewhere),
        2 => Just(What::Expire),
        1 => prop_oneof![0..90_u64, Just(u64::MAX)].prop_map(What::ExpireUpToNothing),
        1 => Just(What::Hold),
        4 => Just(What::DeleteMessage),
        1 => Just(What::DeleteMessageElsewhere),
        1 => prop_oneof![0..90_u64, Just(u64::MAX)].prop_map(What::DeleteNothing),
        5 => Just(What::Read),
        4 => Just(What::ReadUpTo),
        2 => prop_oneof![0..90_u64, Just(u64::MAX)].prop_map(What::ReadUpToNothing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (
        prop_oneof![6 => Just(0), 1 => 1..4_u64],
        0..USERS,
        prop_oneof![3 => Just(None), 1 => (0..3_u8).prop_map(Some)],
        0..MEMBERS.len(),
        prop_oneof![5 => Just(0), 1 => 1..GENERATIONS],
        any::<prop::sample::Index>(),
        what(),
    )
        .prop_map(|(gap, actor, key, set, generation, pick, what)| Step {
            gap,
            actor,
            key,
            set,
            generation,
            pick,
            what,
        })
}

/// A random history of up to `length` events.
pub fn history(length: usize) -> impl Strategy<Value = History> {
    prop::collection::vec(step(), 0..length).prop_map(|steps| {
        let mut history = History::default();
        let mut messages: Vec<(MessageId, RoomId, u8)> = Vec::new();
        for step in steps {
            let room = room(step.set, step.generation);
            let at = |sequence| MessageId::at(Position::new(sequence));
            let (message, home, author) = match messages.is_empty() {
                true => (at(1), room, step.actor),
                false => *step.pick.get(&messages),
            };
            let event = match &step.what {
                What::CreateUser => created(step.actor, &format!("Anna {}", step.set)),
                What::DeleteUser => user_deleted(step.actor),
                What::EraseUser => user_erased(step.actor),
                What::Initiate => initiated(step.set, step.generation),
                What::DeleteRoom => room_deleted(step.set, step.generation),
                What::Post(text) => posted(room, step.actor, text),
                What::Edit(text) => edited(home, message, author, text),
                What::EditElsewhere(text) => edited(room, message, step.actor, text),
                What::Expire => expired(home, message),
                What::ExpireUpToNothing(sequence) => expired(room, at(*sequence)),
                What::Hold => held(room),
                What::DeleteMessage => message_deleted(home, message),
                What::DeleteMessageElsewhere => message_deleted(room, message),
                What::DeleteNothing(sequence) => message_deleted(room, at(*sequence)),
                What::Read => read(room, step.actor, None),
                What::ReadUpTo => read(home, step.actor, Some(message)),
                What::ReadUpToNothing(sequence) => read(room, step.actor, Some(at(*sequence))),
            };
            let is_post = matches!(step.what, What::Post(_));
            let position = history.push(step.gap, Some(step.actor), step.key, event);
            if is_post {
                messages.push((MessageId::at(position), room, step.actor));
            }
        }
        history
    })
}
