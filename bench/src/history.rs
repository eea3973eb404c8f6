//! The histories that reads are measured on, a short one and a long one of the same shape, written straight
//! to a log: rooms of two, and one large room of five.

use std::path::Path;

use anyhow::{Context, ensure};
use events::{ConversationRead, Envelope, Event, Expect, MessageId, MessagePosted, RoomId, UserId};
use futures::{StreamExt, TryStreamExt, stream};
use keys::{AppendError, Record};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::record;
use crate::world::{APPENDS, created, initiated};

/// In how many rooms each caller is, at least: more than a page lists.
const ROOMS_EACH: usize = 20;
/// How many members the large room has.
const CROWD: usize = 5;
/// Of a room of two, how many of its last messages its caller has not read; half are the caller's own.
const UNREAD: usize = 10;
/// Of the large room, the same.
const UNREAD_OF_LARGE: usize = 50;
/// In the large room somebody reads after so many messages.
const READ_EVERY: usize = 20;
/// The text of a message, in bytes.
pub const TEXT_BYTES: usize = 80;

/// How much there is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Size {
    /// Messages in all.
    pub messages: usize,
    /// Rooms in all.
    pub rooms: usize,
    /// Messages in the large room.
    pub large_room: usize,
}

impl Size {
    /// The short history.
    pub const SHORT: Self = Self {
        messages: 1_000,
        rooms: 20,
        large_room: 100,
    };

    /// A long history with so many messages.
    pub fn long(messages: usize) -> Self {
        Self {
            messages,
            rooms: messages / 100,
            large_room: messages / 10,
        }
    }
}

/// A history in a log.
#[derive(Debug)]
pub struct History {
    /// How much there is.
    pub size: Size,
    /// Those who read: members of 20 rooms or more.
    pub callers: Vec<UserId>,
    /// The members of the large room: the first is the first caller, the last has never read it.
    pub crowd: [UserId; CROWD],
    /// The large room.
    pub large_room: RoomId,
    /// Its messages, oldest first.
    pub messages: Vec<MessageId>,
    /// How many events there are.
    pub events: u64,
}

/// A room of two, as it is filled.
struct Pair {
    room: RoomId,
    caller: UserId,
    partner: UserId,
    posted: usize,
    messages: usize,
}

impl History {
    /// Makes a history and writes it to a new log in `data_dir`.
    ///
    /// # Errors
    /// The log can't be written.
    pub async fn create(size: Size, data_dir: &Path) -> anyhow::Result<Self> {
        ensure!(size.rooms >= ROOMS_EACH, "a history has 20 rooms or more");
        let record = record::open(data_dir).await?;
        let pairs = size.rooms - 1;
        let users = |count: usize| (0..count).map(|_| UserId::random()).collect::<Vec<_>>();
        let callers = users((pairs / ROOMS_EACH).max(1));
        let partners = users(pairs.min(1_000));
        let others = users(CROWD - 1);
        let crowd = [callers[0], others[0], others[1], others[2], others[3]];
        let everybody = callers.iter().chain(&partners).chain(&others).copied();
        append(&record, everybody.map(created)).await?;

        let of_large = initiated(crowd.to_vec());
        let large_room = of_large.room_id;
        let mut initiations = vec![Event::RoomInitiated(of_large)];
        let mut rooms: Vec<Pair> = Vec::with_capacity(pairs);
        for number in 0..pairs {
            let caller = callers[(number / ROOMS_EACH).min(callers.len() - 1)];
            let partner = partners[number % partners.len()];
            let initiation = initiated(vec![caller, partner]);
            rooms.push(Pair {
                room: initiation.room_id,
                caller,
                partner,
                posted: 0,
                messages: (size.messages - size.large_room + number) / pairs,
            });
            initiations.push(Event::RoomInitiated(initiation));
        }
        append(&record, initiations.into_iter()).await?;

        // The rooms' messages come in any order, as they do from people, and in the same one every time.
        let mut order: Vec<Option<usize>> = vec![None; size.large_room];
        for (number, room) in rooms.iter().enumerate() {
            order.extend(std::iter::repeat_n(Some(number), room.messages));
        }
        order.shuffle(&mut StdRng::seed_from_u64(1));
        let mut of_large = 0;
        let conversation = order.into_iter().flat_map(move |room| match room {
            Some(number) => rooms[number].next(),
            None => {
                of_large += 1;
                next_of_large(large_room, &crowd, of_large - 1, size.large_room)
            }
        });
        let messages = append(&record, conversation).await?;
        let mut messages: Vec<MessageId> = messages
            .into_iter()
            .filter(|(room, _)| *room == Some(large_room))
            .map(|(_, position)| MessageId::at(position))
            .collect();
        // What waits at once may be committed in another order.
        messages.sort_unstable();
        Ok(Self {
            size,
            callers,
            crowd,
            large_room,
            messages,
            events: record.log.tail().await?.last.get(),
        })
    }
}

impl Pair {
    /// The next message, with the reading before it if it is time for one.
    fn next(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.posted == self.messages / 2 {
            events.push(read(self.room, self.partner));
        }
        if self.posted + UNREAD == self.messages {
            events.push(read(self.room, self.caller));
        }
        let author = [self.caller, self.partner][self.posted % 2];
        events.push(posted(self.room, author));
        self.posted += 1;
        events
    }
}

/// The large room's message with this number, of so many, with the reading before it if it is time for one.
fn next_of_large(
    room: RoomId,
    crowd: &[UserId; CROWD],
    number: usize,
    messages: usize,
) -> Vec<Event> {
    let mut events = Vec::new();
    let last_read = messages - UNREAD_OF_LARGE.min(messages);
    if number == last_read {
        events.push(read(room, crowd[0]));
    } else if number % READ_EVERY == READ_EVERY - 1 {
        let reader = (number / READ_EVERY) % (CROWD - 1);
        if reader > 0 || number < last_read {
            events.push(read(room, crowd[reader]));
        }
    }
    events.push(posted(room, crowd[number % CROWD]));
    events
}

fn posted(room_id: RoomId, author: UserId) -> Event {
    Event::MessagePosted(MessagePosted {
        room_id,
        author,
        message_text: Some("x".repeat(TEXT_BYTES)),
    })
}

fn read(room_id: RoomId, reader: UserId) -> Event {
    Event::ConversationRead(ConversationRead {
        room_id,
        reader,
        up_to: None,
    })
}

/// Appends the events, about in their order; gives the position of each message with its room.
async fn append(
    record: &Record,
    events: impl Iterator<Item = Event>,
) -> anyhow::Result<Vec<(Option<RoomId>, events::Position)>> {
    let appends = events.map(|event| {
        let is_message = matches!(event, Event::MessagePosted(_));
        let room = event.room().filter(|_| is_message);
        let envelope = Envelope::new(event, None, None);
        async move { Ok((room, record.append(&envelope, Expect::Any).await?.position)) }
    });
    let appended: Result<Vec<_>, AppendError> =
        stream::iter(appends).buffered(APPENDS).try_collect().await;
    appended.context("the log can't be written")
}
