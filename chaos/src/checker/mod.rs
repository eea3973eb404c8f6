//! The checker: pure functions from the evidence of a run to what is wrong with it, one for each promise.

mod commands;
mod findings;
mod order;
mod past;
mod reads;
mod rooms;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use streams::last_due;

use crate::evidence::Evidence;

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// What is wrong, with everything that tells it from other violations of the rule.
    pub message: String,
    /// What it is about.
    pub about: About,
}

/// What a violation is about: what of the evidence may show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Numbers of operations.
    pub operations: BTreeSet<u64>,
    /// Positions in the log.
    pub positions: BTreeSet<u64>,
    /// The room, where more of it than those may matter.
    pub room: Option<String>,
    /// The follower.
    pub follower: Option<String>,
}

impl About {
    pub(crate) fn operation(number: u64) -> Self {
        Self {
            operations: BTreeSet::from([number]),
            ..Self::default()
        }
    }

    pub(crate) fn position(position: u64) -> Self {
        Self {
            positions: BTreeSet::from([position]),
            ..Self::default()
        }
    }

    pub(crate) fn and_operation(mut self, number: u64) -> Self {
        self.operations.insert(number);
        self
    }

    pub(crate) fn and_positions(mut self, positions: impl IntoIterator<Item = u64>) -> Self {
        self.positions.extend(positions);
        self
    }

    pub(crate) fn and_room(mut self, room: Option<&str>) -> Self {
        self.room = room.map(str::to_owned);
        self
    }
}

/// A promise, and how it is checked.
#[derive(Debug)]
pub struct Rule {
    /// One word or a few, for reports.
    pub name: &'static str,
    /// The promise.
    pub promise: &'static str,
    check: fn(&Evidence) -> Vec<(String, About)>,
}

impl Rule {
    /// All that breaks this rule.
    #[must_use]
    pub fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        let broken = (self.check)(evidence).into_iter();
        let violations = broken.map(|(message, about)| Violation {
            rule: self.name,
            message,
            about,
        });
        violations.collect()
    }
}

/// The name of the rule by which nothing that was acknowledged is lost.
pub const EXACTLY_ONCE: &str = "exactly once";

/// Every rule.
pub const RULES: &[Rule] = &[
    Rule {
        name: EXACTLY_ONCE,
        promise: "every acknowledged command is in the log exactly once, where and as its answer said",
        check: commands::exactly_once,
    },
    Rule {
        name: "at most once",
        promise: "a command of which nobody knows whether it was carried out is in the log once or not at all",
        check: commands::at_most_once,
    },
    Rule {
        name: "refused",
        promise: "a refused command leaves nothing in the log",
        check: commands::refused,
    },
    Rule {
        name: "nothing unasked",
        promise: "nothing is in the log that nobody asked for",
        check: commands::nothing_unasked,
    },
    Rule {
        name: "order",
        promise: "what was asked for after an answer had come stands behind it in the log, whoever asked",
        check: order::order,
    },
    Rule {
        name: "read your writes",
        promise: "who sends back the newest position reads everything up to it",
        check: reads::read_your_writes,
    },
    Rule {
        name: "monotonic reads",
        promise: "who has read something reads nothing older afterwards",
        check: reads::monotonic_reads,
    },
    Rule {
        name: "nothing made up",
        promise: "what is read is what the log says",
        check: reads::nothing_made_up,
    },
    Rule {
        name: "streams",
        promise: "a WebSocket client is told every event of its rooms once and in order, however often it comes back",
        check: streams::streams,
    },
    Rule {
        name: "one room",
        promise: "the same members never have two rooms at a time",
        check: rooms::one_room,
    },
    Rule {
        name: "findings",
        promise: "Hansard's own verifications find nothing, and it recovers by itself without leaving anything behind",
        check: findings::findings,
    },
];

/// All that is wrong.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    RULES.iter().flat_map(|rule| rule.check(evidence)).collect()
}
