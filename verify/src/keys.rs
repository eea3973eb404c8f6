//! Idempotency keys: which events come first with theirs, and which are void because they do not.
//!
//! A key is an actor's, and its events may be of any users and rooms. So this is settled before anything
//! else is folded, and only what comes out is kept: the positions of void events, which the log itself
//! keeps rare.

use std::collections::{HashMap, HashSet};

use events::{Envelope, Position};
use uuid::Uuid;

use crate::fold::Shard;

/// The keys of one shard.
pub(crate) struct Keys {
    shard: Shard,
    /// The first event with each.
    pub(crate) first: HashMap<Uuid, Position>,
    /// The first of the events set aside with each. The key may have been noted before the event was
    /// refused; then it holds.
    set_aside: HashMap<Uuid, Position>,
}

impl Keys {
    pub(crate) fn of(shard: Shard) -> Self {
        Self {
            shard,
            first: HashMap::new(),
            set_aside: HashMap::new(),
        }
    }

    /// Notes the next event's key. An event whose key is another's goes to `void`.
    pub(crate) fn event(
        &mut self,
        position: Position,
        envelope: &Envelope,
        is_set_aside: bool,
        void: &mut HashSet<Position>,
    ) {
        let id = envelope.deduplication_id();
        if envelope.key.is_none() || !self.shard.holds(&id) {
            return;
        }
        if is_set_aside {
            if !self.first.contains_key(&id) {
                self.set_aside.entry(id).or_insert(position);
            }
        } else if *self.first.entry(id).or_insert(position) != position {
            void.insert(position);
        }
    }

    /// Whether a key is stored for an event that was set aside. If it is, the first event that was not is
    /// void as well.
    pub(crate) fn is_of_set_aside(
        &mut self,
        id: &Uuid,
        position: Position,
        void: &mut HashSet<Position>,
    ) -> bool {
        let found = self.set_aside.get(id) == Some(&position);
        if found {
            void.extend(self.first.remove(id));
        }
        found
    }
}
