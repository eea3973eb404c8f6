//! What is done to a stack while clients are at work.

pub mod clock;
mod cluster;
pub mod disk;
pub mod proxy;
pub mod schedule;
mod victims;

use std::fmt;

use hansard_tests::{Member, Service};

pub use cluster::Harm;
pub use victims::Victims;

use crate::faults::proxy::Weather;

/// A way that bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Between clients and Hansard.
    Clients,
    /// Between Hansard and nats-server.
    Log,
    /// Between Hansard and mongod.
    ReadModels,
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The process is killed with signal 9, and started again when the fault ends.
    Kill(Service),
    /// The process is told to stop, and started again when the fault ends.
    Terminate(Service),
    /// The process stands still (SIGSTOP), with its connections open.
    Pause(Service),
    /// Every process is killed at once; when the fault ends they are started in this order.
    PowerCut(Vec<Service>),
    /// A way is not what it should be.
    Weather(Link, Weather),
    /// The process's clock is so many seconds off.
    ClockJump(Service, i64),
    /// The data directory's file system has no byte left.
    FullDisk,
    /// No fault, but what operators do at the worst of times: the read models are made anew.
    Rebuild,
    /// Whoever is this member of a cluster when it begins is harmed.
    Member(Member, Harm),
    /// No fault either: every server is restarted, one after the other.
    RollServers,
    /// No fault either: every process of Hansard's own is restarted, one after the other.
    RollHansard,
    /// The same, from programs of an older Hansard to those that were built.
    Upgrade,
}

impl Fault {
    /// What kind it is, for summaries.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Kill(service) => format!("kill {service:?}"),
            Self::Terminate(service) => format!("terminate {service:?}"),
            Self::Pause(service) => format!("pause {service:?}"),
            Self::PowerCut(_) => "kill everything".to_owned(),
            Self::Weather(link, Weather::Resets(_)) => format!("reset connections to {link}"),
            Self::Weather(link, Weather::Cut) => format!("cut connections to {link}"),
            Self::Weather(link, Weather::Silent) => format!("hold back bytes to {link}"),
            Self::Weather(link, Weather::Fair) => format!("leave connections to {link}"),
            Self::ClockJump(service, _) => format!("move the clock of {service:?}"),
            Self::FullDisk => "fill the disk".to_owned(),
            Self::Rebuild => "rebuild".to_owned(),
            Self::Member(member, Harm::Trouble(trouble)) => {
                format!("{trouble:?} of the host of {member:?}")
            }
            Self::Member(member, harm) => format!("{harm:?} {member:?}"),
            Self::RollServers => "restart all servers in turn".to_owned(),
            Self::RollHansard => "restart Hansard's processes in turn".to_owned(),
            Self::Upgrade => "upgrade Hansard's processes in turn".to_owned(),
        }
    }

    /// Whether both can't go wrong at the same time, since they are about the same thing.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        if self.takes_turns() || other.takes_turns() {
            return true;
        }
        match (self.victim(), other.victim()) {
            (Some(one), Some(another)) => one == another,
            _ => {
                let is_whole = |it: &Self| matches!(it, Self::PowerCut(_));
                let is_process = |it: &Self| it.victim().is_some() || is_whole(it);
                (is_whole(self) && is_process(other))
                    || (is_whole(other) && is_process(self))
                    || matches!((self, other), (Self::Weather(one, _), Self::Weather(another, _)) if one == another)
                    || self.kind() == other.kind()
            }
        }
    }

    /// Whether it restarts one process after the other, and waits for each.
    pub(crate) fn takes_turns(&self) -> bool {
        matches!(self, Self::RollServers | Self::RollHansard | Self::Upgrade)
    }

    fn victim(&self) -> Option<Service> {
        match self {
            Self::Kill(service) | Self::Terminate(service) | Self::Pause(service) => Some(*service),
            _ => None,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Clients => "Hansard",
            Self::Log => "nats-server",
            Self::ReadModels => "mongod",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.kind())?;
        match self {
            Self::PowerCut(order) => write!(formatter, ", start again in the order {order:?}"),
            Self::Weather(_, Weather::Resets(probability)) => {
                write!(formatter, " at one piece in {:.0}", 1.0 / probability)
            }
            Self::ClockJump(_, seconds) => write!(formatter, " by {seconds:+} s"),
            _ => Ok(()),
        }
    }
}
