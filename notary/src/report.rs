//! What verifying the log comes to.

use std::fmt;

use event_log::Position;
use serde::Serialize;

/// Differences that are listed; the rest are counted.
pub(crate) const LISTED: usize = 100;

/// What verifying the log came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogReport {
    /// Events that were read from the log.
    pub events: u64,
    /// The position of the log's last event.
    pub last: u64,
    /// How many leaves the stored tree has; `None` when there was none to compare with.
    pub tree_size: Option<u64>,
    /// Signed tree heads that the log was compared with.
    pub heads: u64,
    /// The size of the largest of them that the log gives the root of: up to there the record is proven.
    pub proven: u64,
    /// Positions at which the log has no event any more, and had none when it was hashed.
    pub missing: u64,
    /// What differs, the first hundred.
    pub differences: Vec<Difference>,
    /// How many differences there are.
    pub differing: u64,
}

/// Something that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The position that differs, if it is a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// In which way.
    #[serde(flatten)]
    pub how: How,
}

/// In which way something differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "kind"
)]
pub enum How {
    /// The bytes are not those that were hashed.
    Changed,
    /// There is no event.
    Missing,
    /// There is an event where there was none.
    Appeared,
    /// The event that was hashed here is at another position now, and that one's is here.
    Swapped {
        /// The other position.
        with: Position,
    },
    /// The event that is here now is the one that was hashed at another position.
    Moved {
        /// That position.
        from: Position,
    },
    /// Events were put in: what was hashed from here on follows behind them.
    Inserted {
        /// How many.
        count: u64,
    },
    /// Events were taken out: what was hashed behind them is here now.
    Removed {
        /// How many.
        count: u64,
    },
    /// The log ends before what was hashed or signed.
    CutOff {
        /// The position of its last event.
        last: Position,
        /// How many events there were.
        size: u64,
        /// What says so.
        by: String,
    },
    /// It is another log.
    OtherLog {
        /// The log's identity.
        log: String,
        /// That of the log that was hashed or signed.
        expected: String,
        /// What says so.
        by: String,
    },
    /// The first events do not give the root of a signed tree head.
    Root {
        /// How many events the tree head is over.
        size: u64,
        /// Up to where an earlier tree head still fits: what differs is behind it.
        after: u64,
        /// Where the tree head is from.
        by: String,
    },
    /// A tree head can't be trusted.
    Head {
        /// Why.
        reason: String,
        /// Where it is from.
        by: String,
    },
    /// The log is as it was signed, and the stored tree is not what it gives.
    Tree {
        /// What is wrong with it.
        reason: String,
    },
}

impl LogReport {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.differing == 0
    }

    pub(crate) fn add(&mut self, position: Option<Position>, how: How) {
        self.differing += 1;
        if self.differences.len() < LISTED {
            self.differences.push(Difference { position, how });
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(formatter, "position {position}: ")?;
        }
        match &self.how {
            How::Changed => write!(formatter, "the event's bytes were changed"),
            How::Missing => write!(formatter, "the event is missing"),
            How::Appeared => write!(formatter, "there is an event where there was none"),
            How::Swapped { with } => {
                write!(formatter, "the event was swapped with the one at {with}")
            }
            How::Moved { from } => write!(formatter, "the event that was at {from} is here"),
            How::Inserted { count } => write!(
                formatter,
                "{count} inserted here; everything behind has moved by as much"
            ),
            How::Removed { count } => write!(
                formatter,
                "{count} removed here; everything behind has moved by as much"
            ),
            How::CutOff { last, size, by } => write!(
                formatter,
                "the tail was cut off: the log ends at position {last}, {by} has {size} events"
            ),
            How::OtherLog { log, expected, by } => write!(
                formatter,
                "another log: this is {log:?}, {by} is over {expected:?}"
            ),
            How::Root { size, after, by } => write!(
                formatter,
                "the first {size} events are not those of the signed tree head from {by}: they differ after the first {after}"
            ),
            How::Head { reason, by } => {
                write!(
                    formatter,
                    "a tree head from {by} can't be trusted: {reason}"
                )
            }
            How::Tree { reason } => {
                write!(
                    formatter,
                    "the stored tree was changed, not the log: {reason}"
                )
            }
        }
    }
}

impl fmt::Display for LogReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(formatter, "{difference}")?;
        }
        if self.missing > 0 {
            writeln!(
                formatter,
                "{} positions had no event any more when they were hashed",
                self.missing
            )?;
        }
        match self.differing {
            0 => write!(formatter, "no difference")?,
            1 => write!(formatter, "1 difference")?,
            many => write!(formatter, "{many} differences")?,
        }
        let tree = match self.tree_size {
            Some(size) => format!("a stored tree of {size} leaves and "),
            None => String::new(),
        };
        write!(
            formatter,
            ": compared {} events up to position {} with {tree}{} signed tree heads; proven up to position {}",
            self.events,
            Position::new(self.last),
            self.heads,
            Position::new(self.proven)
        )
    }
}
