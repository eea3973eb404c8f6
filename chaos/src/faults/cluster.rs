//! What happens to a cluster: to its members by what they do, and to everything in turn.

use std::time::Duration;

use hansard_tests::{Member, Service, Trouble};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};
use xtask::process::POLL;

use crate::faults::Victims;

/// How long a process of a rolling restart may take to stop, and then to be ready again.
const TURN: Duration = Duration::from_secs(90);

/// What is done to a member of a cluster for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// It is killed with signal 9, and started again when the fault ends.
    Kill,
    /// It stands still (SIGSTOP), with its connections open.
    Pause,
    /// The ways to and from its host, which has a server of each kind, are not what they should be.
    Trouble(Trouble),
}

impl Victims {
    /// Does it to the server that is this member now, or to the first where nobody says which one is.
    pub(super) async fn harm(&mut self, member: Member, harm: Harm) {
        let any = match member {
            Member::LogLeader | Member::LogFollower => Service::Nats,
            Member::Primary | Member::Secondary => Service::Mongod,
        };
        let service = self.stack.member(member).await.unwrap_or(any);
        println!("    that is {service:?}");
        self.harmed.push((member, harm, service));
        tokio::task::block_in_place(|| match harm {
            Harm::Kill => self.stack.kill(service),
            Harm::Pause => self.stack.signal(service, Signal::SIGSTOP),
            Harm::Trouble(trouble) => self.stack.trouble(service, Some(trouble)),
        });
    }

    /// Puts it right again.
    pub(super) async fn heal(&mut self, member: Member, harm: Harm) {
        let is_it = |it: &(Member, Harm, Service)| (it.0, it.1) == (member, harm);
        let Some(index) = self.harmed.iter().position(is_it) else {
            return;
        };
        let (_, _, service) = self.harmed.remove(index);
        match harm {
            Harm::Kill => self.stack.spawn(service).await,
            Harm::Pause => self.stack.signal(service, Signal::SIGCONT),
            Harm::Trouble(_) => self.stack.trouble(service, None),
        }
    }

    /// Restarts each of these, one after the other: the next once the one before is ready, which a server is
    /// when it has what the others have.
    pub(super) async fn roll(&mut self, which: impl Fn(Service) -> bool) {
        let services = self.stack.services().into_iter();
        for service in services.filter(|it| which(*it)).collect::<Vec<_>>() {
            self.stack.signal(service, Signal::SIGTERM);
            let end = Instant::now() + TURN;
            while self.stack.runs(service) && Instant::now() < end {
                sleep(POLL).await;
            }
            if self.stack.runs(service) {
                self.ended
                    .push(format!("{service:?} does not stop when told to"));
            }
            self.stack.spawn(service).await;
            let end = Instant::now() + TURN;
            while !self.stack.is_ready(service).await && Instant::now() < end {
                sleep(POLL).await;
            }
            if Instant::now() >= end {
                let waited = TURN.as_secs();
                self.ended.push(format!(
                    "{service:?} is not ready {waited} s after its restart"
                ));
            }
        }
    }
}
