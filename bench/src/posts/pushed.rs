//! How long it takes until a message is pushed to a member of its room, beside how long it takes until the post is
//! acknowledged, at the same load.

use anyhow::Context;
use serde::Serialize;

use crate::arrivals::Pace;
use crate::contract::{Connection, Whole};
use crate::figure::Figure;
use crate::load::{self, Client, Length};
use crate::posts::stack::{Kind, Stack};
use crate::socket::Socket;

/// The percentile that is compared.
const PERCENTILE: f64 = 99.0;

/// A client that posts to a room of its own, and waits until the message is pushed to the room's other member.
#[derive(Debug)]
pub struct Pushing {
    /// Of whoever posts.
    pub connection: Connection,
    /// What is posted.
    pub request: Whole,
    /// Of the other member.
    pub socket: Socket,
}

/// A load on one server.
#[derive(Debug)]
pub struct Paired {
    kind: Kind,
    per_second: f64,
    acknowledged: Vec<f64>,
    pushed: Vec<f64>,
}

/// What it led to. Times are in microseconds from the moment at which a post was due.
#[derive(Debug, Serialize)]
pub struct Times {
    /// On which server.
    pub kind: Kind,
    /// Posts that were due, a second.
    pub per_second: f64,
    /// In which 99 of 100 posts were acknowledged: durable, with `Prefer: respond-async`.
    pub acknowledged: Figure,
    /// In which 99 of 100 were acknowledged and pushed.
    pub pushed: Figure,
}

impl Client for Pushing {
    async fn request(&mut self) -> anyhow::Result<()> {
        self.connection.send(self.request.clone()).await?;
        let pushed = self.socket.pushed().await;
        pushed.context("a message is not pushed").map(drop)
    }
}

impl Paired {
    /// So many posts a second.
    pub fn new(kind: Kind, per_second: f64) -> Self {
        Self {
            kind,
            per_second,
            acknowledged: Vec::new(),
            pushed: Vec::new(),
        }
    }

    /// Measures once, one after the other, with so many clients.
    ///
    /// # Errors
    /// The server fails or refuses.
    pub async fn measure(
        &mut self,
        stacks: &[Stack],
        clients: usize,
        length: Length,
    ) -> anyhow::Result<()> {
        let stack = Stack::of_kind(stacks, self.kind)?;
        let pace = Pace::Open {
            per_second: self.per_second,
        };
        let posting = stack.posting(clients, true).await?;
        let acknowledged = load::run(posting, pace, length).await?;
        stack.settled().await?;
        let pushing = stack.pushing(clients).await?;
        let pushed = load::run(pushing, pace, length).await?;
        stack.settled().await?;
        let [acknowledged, pushed] = [acknowledged, pushed].map(|it| it.percentile(PERCENTILE));
        eprintln!(
            "{}, {:.0} posts/s offered: acknowledged in {acknowledged:.0}, pushed in {pushed:.0} µs",
            self.kind.name(),
            self.per_second
        );
        self.acknowledged.push(acknowledged);
        self.pushed.push(pushed);
        Ok(())
    }

    /// What all runs measured.
    pub fn times(&self) -> Times {
        Times {
            kind: self.kind,
            per_second: self.per_second,
            acknowledged: Figure::of(self.acknowledged.clone()),
            pushed: Figure::of(self.pushed.clone()),
        }
    }
}
