//! What people do: all that the API offers, by chance, one thing after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::client::Session;
use crate::history::{Action, Answer};

/// The longest that somebody thinks before the next thing.
const LONGEST_THOUGHT: Duration = Duration::from_millis(120);
/// How many of one's own messages one has in mind.
const REMEMBERED: usize = 30;

/// Somebody who takes part.
#[derive(Debug)]
pub struct Person {
    /// In the person's own name.
    pub own: Session,
    /// In the name of the back office, which may create and delete users.
    office: Session,
    /// Ids of the others.
    others: Vec<String>,
    /// Rooms that are there for the whole run.
    rooms: Vec<String>,
    /// Rooms that anybody in them may delete at any time.
    passing: Vec<String>,
    guests: Vec<String>,
    /// Rooms and ids of messages.
    said: Vec<(String, u64)>,
    /// How much has been said: no text comes twice.
    texts: u64,
    random: StdRng,
}

impl Person {
    /// Somebody who has not done anything.
    #[must_use]
    pub fn new(
        own: Session,
        office: Session,
        others: Vec<String>,
        rooms: Vec<String>,
        seed: u64,
    ) -> Self {
        Self {
            own,
            office,
            others,
            rooms,
            passing: Vec::new(),
            guests: Vec::new(),
            said: Vec::new(),
            texts: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Takes part until told to stop; counts what was done.
    pub async fn live(mut self, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Self {
        while !stop.load(Ordering::SeqCst) {
            self.act().await;
            done.fetch_add(1, Ordering::SeqCst);
            let thought = LONGEST_THOUGHT.mul_f64(self.random.random());
            tokio::time::sleep(thought).await;
        }
        self
    }

    /// One thing, or a few that belong together.
    async fn act(&mut self) {
        match self.random.random_range(0..100) {
            0..40 => {
                let room = self.some_room();
                self.say(room).await;
            }
            40..60 => {
                let room = self.some_room();
                self.own.query(Action::Read { room }).await;
            }
            60..70 => {
                let room = self.some_room();
                self.own.command(Action::MarkRead { room }).await;
            }
            70..78 => self.correct().await,
            78..83 => self.take_back().await,
            83..93 => self.meet().await,
            93..97 => self.invite().await,
            _ => self.see_off().await,
        }
    }

    fn some_room(&mut self) -> String {
        let rooms = match self.passing.is_empty() || self.random.random_bool(0.8) {
            true => &self.rooms,
            false => &self.passing,
        };
        rooms.choose(&mut self.random).cloned().unwrap_or_default()
    }

    fn text(&mut self) -> String {
        self.texts += 1;
        format!("{} {}", self.own.name, self.texts)
    }

    async fn say(&mut self, room: String) {
        let text = self.text();
        let post = Action::Post {
            room: room.clone(),
            text,
        };
        // Not everybody is careful.
        let answer = match self.random.random_bool(0.1) {
            true => self.own.command_once(post).await,
            false => self.own.command(post).await,
        };
        if self.random.random_bool(0.2) {
            // To see one's own words.
            self.own.query(Action::Read { room: room.clone() }).await;
        }
        if let Some(Answer::Message { message }) = answer {
            self.said.push((room, message));
            if self.said.len() > REMEMBERED {
                self.said.remove(0);
            }
        }
    }

    async fn correct(&mut self) {
        let text = self.text();
        if let Some((room, message)) = self.said.choose(&mut self.random).cloned() {
            let edit = Action::Edit {
                room,
                message,
                text,
            };
            self.own.command(edit).await;
        }
    }

    async fn take_back(&mut self) {
        if self.said.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.said.len());
        let (room, message) = self.said.swap_remove(index);
        self.own
            .command(Action::DeleteMessage { room, message })
            .await;
    }

    /// Initiates a room that others initiate and delete as well.
    async fn meet(&mut self) {
        let mut candidates = self.others.clone();
        candidates.extend(self.guests.iter().cloned());
        let Some(other) = candidates.choose(&mut self.random).cloned() else {
            return;
        };
        let mut members = vec![self.own.actor.clone(), other];
        members.sort_unstable();
        let answer = self.own.command(Action::Initiate { members }).await;
        let Some(Answer::Room { room }) = answer else {
            return;
        };
        self.passing.retain(|it| *it != room);
        self.say(room.clone()).await;
        if self.random.random_bool(0.3) {
            self.own.command(Action::DeleteRoom { room }).await;
        } else {
            self.passing.push(room);
            if self.passing.len() > REMEMBERED {
                self.passing.remove(0);
            }
        }
    }

    async fn invite(&mut self) {
        let name = self.text();
        let answer = self.office.command(Action::CreateUser { name }).await;
        if let Some(Answer::User { user }) = answer {
            self.guests.push(user);
        }
    }

    async fn see_off(&mut self) {
        self.guests.shuffle(&mut self.random);
        if let Some(user) = self.guests.pop() {
            self.office.command(Action::DeleteUser { user }).await;
        }
    }
}
