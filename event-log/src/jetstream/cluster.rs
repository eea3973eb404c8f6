//! Whether what a server of a cluster tells of a stream is the newest there is.
//!
//! Only a stream's leader is to tell. But a server that stood still, or that is cut off from the others, does not
//! know yet that it leads no longer, and one that has just come back may tell what it knew when it went. Others
//! elect a new leader after no less than four seconds in which they have not heard of the old one; so a leader
//! that has heard a majority within less is the only one.

use std::time::Duration;

use serde::Deserialize;

/// Less than the shortest time after which servers elect another leader (`minElectionTimeout` of nats-server).
const LEASE: Duration = Duration::from_secs(3);

/// The part of the answer to `STREAM.INFO` that a cluster adds.
#[derive(Debug, Deserialize)]
pub(super) struct ClusterInfo {
    /// The leader's name, as the server that answers knows.
    #[serde(default)]
    leader: String,
    /// The servers that have the stream, but for the leader if it answers itself.
    #[serde(default)]
    replicas: Vec<Peer>,
}

/// An answer to `STREAM.INFO`.
pub(super) trait OfCluster {
    /// What it says of the cluster, if there is one.
    fn cluster(&self) -> Option<&ClusterInfo>;
}

#[derive(Debug, Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
    /// How long ago it was heard, in nanoseconds; 0 where the server that answers does not listen to it.
    #[serde(default)]
    active: u64,
}

impl Peer {
    fn is_heard(&self) -> bool {
        let is_known = self.current || self.active > 0;
        !self.offline && is_known && Duration::from_nanos(self.active) < LEASE
    }
}

impl ClusterInfo {
    /// Makes sure that the leader answers, and is the only one; else says what is in the way.
    pub(super) fn check_leader(&self) -> Result<(), String> {
        let Self { leader, replicas } = self;
        if leader.is_empty() {
            return Err("the stream has no leader (yet)".to_owned());
        }
        if replicas.iter().any(|it| it.name == *leader) {
            return Err("a server answers that does not lead the stream".to_owned());
        }
        let heard = replicas.iter().filter(|it| it.is_heard()).count();
        if 2 * (heard + 1) <= replicas.len() + 1 {
            return Err(format!(
                "{leader} led the stream, and has not heard the other servers for some seconds"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn peer(name: &str, current: bool, active: u64) -> Value {
        json!({"name": name, "current": current, "active": active, "peer": "E0aSZGFM"})
    }

    fn check(leader: Option<&str>, replicas: &[Value]) -> Result<(), String> {
        let info =
            json!({"name": "hansard", "leader": leader.unwrap_or_default(), "replicas": replicas});
        serde_json::from_value::<ClusterInfo>(info)
            .unwrap()
            .check_leader()
    }

    #[test]
    fn a_leader_that_hears_a_majority_is_believed() {
        for (first, second) in [
            (peer("b", true, 1_496_772), peer("c", true, 8_298_495)),
            (peer("b", true, SECOND), peer("c", false, 40 * SECOND)),
            (peer("b", false, SECOND), peer("c", false, 0)),
        ] {
            assert_eq!(check(Some("a"), &[first, second]), Ok(()));
        }
        // With one replica there is nobody to hear.
        assert_eq!(check(Some("a"), &[]), Ok(()));
    }

    #[test]
    fn a_leader_that_was_cut_off_or_stood_still_is_not() {
        for (first, second) in [
            (peer("b", true, 4 * SECOND), peer("c", true, 14 * SECOND)),
            (peer("b", false, 0), peer("c", true, 3 * SECOND)),
            (
                json!({"name": "b", "offline": true, "active": 1}),
                peer("c", true, 9 * SECOND),
            ),
        ] {
            let reason = check(Some("a"), &[first, second]).unwrap_err();
            assert!(reason.contains("has not heard"), "{reason}");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        let heard = [peer("b", true, 1), peer("c", true, 1)];
        let reason = check(Some("b"), &heard).unwrap_err();
        assert!(reason.contains("does not lead"), "{reason}");
        let reason = check(None, &heard).unwrap_err();
        assert!(reason.contains("no leader"), "{reason}");
    }
}
