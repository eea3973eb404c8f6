//! How long it takes until everything works again after faults have ended.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use xtask::process::POLL;

use crate::client::Session;
use crate::faults::schedule::Round;
use crate::follower::Follower;
use crate::history::Action;

/// How long anything may take. It is no promise, but beyond it nobody would call it recovered by itself.
const LONGEST: Duration = Duration::from_secs(90);

/// How long after the end of the faults each came back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Until a command was acknowledged.
    pub commands: Duration,
    /// Until a query had what that command did.
    pub queries: Duration,
    /// Until every follower had been told of it.
    pub sockets: Duration,
}

/// Somebody who tries whether everything works.
#[derive(Debug)]
pub struct Probe {
    session: Session,
    /// A room of which everybody is a member.
    room: String,
    tried: u64,
}

impl Probe {
    /// A probe in this room.
    #[must_use]
    pub fn new(session: Session, room: String) -> Self {
        Self {
            session,
            room,
            tried: 0,
        }
    }

    /// Tries until everything works.
    ///
    /// # Errors
    /// Something does not, for so long that nobody would wait any longer; says what.
    pub async fn measure(&mut self, followers: &[Follower]) -> Result<Times, String> {
        let begun = Instant::now();
        let mut times = Times::default();
        self.tried += 1;
        let post = Action::Post {
            room: self.room.clone(),
            text: format!("{} {}", self.session.name, self.tried),
        };
        // A command is repeated by the session itself.
        if self.session.command(post).await.is_none() {
            return Err("no command is acknowledged".to_owned());
        }
        times.commands = begun.elapsed();
        let read = Action::Read {
            room: self.room.clone(),
        };
        while self.session.query(read.clone()).await.is_none() {
            if begun.elapsed() > LONGEST {
                return Err("queries don't come up to the newest command".to_owned());
            }
            tokio::time::sleep(POLL).await;
        }
        times.queries = begun.elapsed();
        let position = self.session.position;
        let is_behind = |it: &&Follower| it.follows_everything() && it.cursor() < position;
        while followers.iter().any(|it| is_behind(&it)) {
            if begun.elapsed() > LONGEST {
                let behind = followers.iter().filter(is_behind).count();
                return Err(format!(
                    "{behind} followers are not told of the newest command"
                ));
            }
            tokio::time::sleep(POLL).await;
        }
        times.sockets = begun.elapsed();
        Ok(times)
    }
}

/// The worst that was seen after each kind of fault.
#[derive(Debug, Default)]
pub struct Worst {
    rows: BTreeMap<String, (usize, Times)>,
}

impl Worst {
    /// Takes a round into account.
    pub fn add(&mut self, round: &Round, times: Times) {
        let name = match &round.faults[..] {
            [single] => single.fault.kind(),
            _ => "several at once".to_owned(),
        };
        let (rounds, worst) = self.rows.entry(name).or_default();
        *rounds += 1;
        worst.commands = worst.commands.max(times.commands);
        worst.queries = worst.queries.max(times.queries);
        worst.sockets = worst.sockets.max(times.sockets);
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| after | times | commands succeed | queries are fresh | sockets have resumed |"
        )?;
        writeln!(formatter, "|---|---|---|---|---|")?;
        for (name, (rounds, times)) in &self.rows {
            let [commands, queries, sockets] =
                [times.commands, times.queries, times.sockets].map(|it| it.as_secs_f64());
            writeln!(
                formatter,
                "| {name} | {rounds} | {commands:.2} s | {queries:.2} s | {sockets:.2} s |"
            )?;
        }
        Ok(())
    }
}
