//! People at work, and those who follow what happens, while things go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use xtask::process::POLL;

use crate::checker::last_due;
use crate::evidence::{Logged, Stream};
use crate::follower::Follower;
use crate::history::{Action, Recorder};
use crate::recovery::{Probe, Times};
use crate::town::Town;
use crate::workload::Person;

/// A town that lives.
pub(crate) struct Living {
    people: Vec<JoinHandle<Person>>,
    followers: Vec<Follower>,
    probe: Probe,
    rooms: Vec<(String, usize)>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Living {
    pub(crate) fn begin(town: Town, recorder: &Arc<Recorder>) -> Self {
        let (stop, done) = (Arc::default(), Arc::default());
        let live = |person: Person| tokio::spawn(person.live(Arc::clone(&stop), Arc::clone(&done)));
        let followers = town.plans.into_iter();
        Self {
            people: town.people.into_iter().map(live).collect(),
            followers: followers
                .map(|plan| Follower::start(plan, recorder))
                .collect(),
            probe: town.probe,
            rooms: town.rooms,
            stop,
            done,
        }
    }

    /// How many operations people have done.
    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until everything works again; how long each thing took.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn measure(&mut self) -> Result<Times, String> {
        self.probe.measure(&self.followers).await
    }

    /// Lets people come to an end, and say a last word in every room that stays; in which rooms they could not.
    ///
    /// # Errors
    /// A person's task ended before.
    pub(crate) async fn end(&mut self) -> anyhow::Result<Vec<String>> {
        self.stop.store(true, Ordering::SeqCst);
        let mut people = Vec::new();
        for person in self.people.drain(..) {
            people.push(person.await.context("a person's task ended")?);
        }
        let mut speechless = Vec::new();
        for (room, person) in &self.rooms {
            let Some(person) = people.get_mut(*person) else {
                continue;
            };
            let text = format!("the last word of {} in {room}", person.own.name);
            let post = Action::Post {
                room: room.clone(),
                text,
            };
            if person.own.command(post).await.is_none() {
                speechless.push(room.clone());
            }
        }
        Ok(speechless)
    }

    /// Waits until all followers have heard what they are to be told. Who never does is the checker's to find.
    pub(crate) async fn heard(&self, log: &[Logged], patience: Duration) {
        let end = Instant::now() + patience;
        for follower in &self.followers {
            let due = last_due(log, &follower.stream());
            while follower.cursor() < due && Instant::now() < end {
                sleep(POLL).await;
            }
        }
    }

    /// What the followers were told. People who are still at work stop in the middle of it.
    pub(crate) fn into_streams(self) -> Vec<Stream> {
        self.people.iter().for_each(JoinHandle::abort);
        self.followers.into_iter().map(Follower::stop).collect()
    }
}
