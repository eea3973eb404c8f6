//! The users and rooms that are there when a measurement begins: written straight to the log.

use std::path::Path;

use anyhow::Context;
use events::{
    Envelope, Event, Expect, Names, RoomId, RoomInitiated, RoomType, UserCreated, UserId, UserType,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::record;

/// How many users there are.
pub const USERS: usize = 5_500;
/// How many of them, the first ones, are in rooms.
pub const MEMBERS: usize = 500;
/// In how many rooms each of these is.
pub const ROOMS_EACH: usize = 100;
/// How many users the room for fan-out has, each with many connections: the messages of a room name all its
/// members, so a room with as many members as subscribers would measure that.
pub const POSTERS: usize = 5;
/// How many appends wait at once, so that the log can commit them together.
pub const APPENDS: usize = 512;

/// How the rooms are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Each room has all [`MEMBERS`].
    Groups,
    /// Each room has two members.
    Pairs,
}

/// Users and their rooms.
#[derive(Debug)]
pub struct World {
    /// All users.
    pub users: Vec<UserId>,
    /// The rooms of each of the first [`MEMBERS`] users.
    pub rooms: Vec<Vec<RoomId>>,
    /// The last [`POSTERS`] users' room.
    pub fan_out: RoomId,
}

impl World {
    /// Makes a world and writes it to a new log in `data_dir`.
    ///
    /// # Errors
    /// The log can't be written.
    pub async fn create(shape: Shape, data_dir: &Path) -> anyhow::Result<Self> {
        let users: Vec<UserId> = (0..USERS).map(|_| UserId::random()).collect();
        let mut rooms = vec![Vec::new(); MEMBERS];
        let mut events: Vec<Event> = users.iter().copied().map(created).collect();
        for members in memberships(shape) {
            let event = initiated(members.iter().map(|member| users[*member]).collect());
            for member in members {
                if let Some(rooms) = rooms.get_mut(member) {
                    rooms.push(event.room_id);
                }
            }
            events.push(Event::RoomInitiated(event));
        }
        let fan_out = initiated(users[USERS - POSTERS..].to_vec());
        let world = Self {
            users,
            rooms,
            fan_out: fan_out.room_id,
        };
        events.push(Event::RoomInitiated(fan_out));

        let record = &record::open(data_dir).await?;
        let appends = events.into_iter().map(async |event| {
            record
                .append(&Envelope::new(event, None, None), Expect::Empty)
                .await
        });
        let appended: Result<Vec<_>, _> = stream::iter(appends)
            .buffer_unordered(APPENDS)
            .try_collect()
            .await;
        appended.context("the log can't be written")?;
        Ok(world)
    }

    /// The users of the room for fan-out.
    pub fn posters(&self) -> &[UserId] {
        &self.users[USERS - POSTERS..]
    }
}

/// The members of each room, by number.
fn memberships(shape: Shape) -> Vec<Vec<usize>> {
    match shape {
        // One more makes the room another one than the others.
        Shape::Groups => (0..ROOMS_EACH)
            .map(|room| (0..MEMBERS).chain([MEMBERS + room]).collect())
            .collect(),
        // Each with the fifty after it on a ring, and so with the fifty before it.
        Shape::Pairs => (0..MEMBERS)
            .flat_map(|one| (1..=ROOMS_EACH / 2).map(move |step| vec![one, (one + step) % MEMBERS]))
            .collect(),
    }
}

/// That there is such a user.
pub fn created(user_id: UserId) -> Event {
    Event::UserCreated(UserCreated {
        user_id,
        names: Some(Names::new("Some", "Body")),
        user_type: UserType::Consumer,
    })
}

/// A room of these members.
pub fn initiated(mut members: Vec<UserId>) -> RoomInitiated {
    members.sort_unstable();
    let room_type = RoomType::ConsumerToConsumer;
    RoomInitiated {
        room_id: RoomId::derive(room_type, &members, 0),
        room_type,
        initiator: members[0],
        members,
        generation: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_in_as_many_rooms() {
        for shape in [Shape::Groups, Shape::Pairs] {
            let mut counts = vec![0; MEMBERS];
            for member in memberships(shape).into_iter().flatten() {
                if let Some(count) = counts.get_mut(member) {
                    *count += 1;
                }
            }
            assert!(counts.iter().all(|count| *count == ROOMS_EACH), "{shape:?}");
        }
    }
}
