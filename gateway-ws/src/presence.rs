//! Who is connected, to this gateway or another one, and who wants to know.
//!
//! Each gateway knows its own connections and tells the others of each user's first and last one
//! (`signals.rs`). A gateway that is silent for too long is dead, and so are its connections. A user is
//! offline only some moments after the last connection has ended, so that one who reconnects, perhaps to
//! another gateway, stays online for everybody.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{Timestamp, UserId};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;
use uuid::Uuid;

use crate::hub::ConnectionId;
use crate::outbox::{Outbox, Push, PushKind};
use crate::protocol::{Presence, ServerFrame};
use crate::signals::{Message, Sender};

/// After how long a silence another gateway is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(4);

/// How long after the last connection's end a user still counts as online.
const GRACE: Duration = Duration::from_secs(3);

/// Of how many users it is remembered when they were last seen.
const REMEMBERED: u64 = 100_000;

/// How many users one signal tells of at most, so that it is small enough
/// ([`event_log::MAX_SIGNAL_BYTES`]).
const PART: usize = 1024;

/// The presence of every user of the deployment.
pub struct Presences {
    sender: Sender,
    state: Mutex<State>,
    last_seen: Cache<UserId, Timestamp>,
}

#[derive(Default)]
struct State {
    /// How many connections to this gateway each user has.
    own: HashMap<UserId, usize>,
    /// The number of this gateway's last change.
    last_change: u64,
    others: HashMap<Uuid, Gateway>,
    /// To how many gateways each user is connected.
    connected: HashMap<UserId, usize>,
    /// Those who are connected no longer, but still count as online.
    leaving: HashMap<UserId, Leaving>,
    watchers: HashMap<UserId, HashMap<ConnectionId, Arc<Outbox>>>,
}

/// Another gateway.
struct Gateway {
    users: HashSet<UserId>,
    last_change: u64,
    /// Whether changes were missed, so that `users` may be wrong.
    stale: bool,
    heard: Instant,
    heard_at: Timestamp,
    /// When it was last asked for the whole picture.
    asked: Option<Instant>,
    /// The parts of the picture that have come so far.
    picture: HashSet<UserId>,
}

#[derive(Clone, Copy)]
struct Leaving {
    last_seen: Timestamp,
    offline_at: Instant,
}

impl Presences {
    /// Nobody is connected.
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            state: Mutex::default(),
            last_seen: Cache::builder()
                .max_capacity(REMEMBERED)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    // --- This gateway's connections ---

    /// A connection of `user` was made.
    pub fn connected(&self, user: UserId) {
        let mut state = self.lock();
        let connections = state.own.entry(user).or_default();
        *connections += 1;
        if *connections == 1 {
            self.arrive(&mut state, user);
            self.tell(&mut state, user, true);
        }
    }

    /// A connection of `user` has ended.
    pub fn disconnected(&self, user: UserId) {
        let mut state = self.lock();
        let Some(connections) = state.own.get_mut(&user) else {
            return;
        };
        *connections -= 1;
        if *connections == 0 {
            state.own.remove(&user);
            state.leave(user, Timestamp::now(), Instant::now());
            self.tell(&mut state, user, false);
        }
    }

    /// Has the connection told of each change of these users' presence, and returns the frames that tell
    /// of the present.
    pub fn watch(
        &self,
        users: &[UserId],
        id: ConnectionId,
        outbox: &Arc<Outbox>,
    ) -> Vec<Arc<Push>> {
        let mut state = self.lock();
        users
            .iter()
            .map(|user| {
                let watchers = state.watchers.entry(*user).or_default();
                watchers.insert(id, Arc::clone(outbox));
                let is_online = state.is_online(*user);
                self.push(*user, is_online)
            })
            .collect()
    }

    /// Ends the watching of these users.
    pub fn unwatch<'a>(&self, users: impl Iterator<Item = &'a UserId>, id: ConnectionId) {
        let mut state = self.lock();
        for user in users {
            if let Some(watchers) = state.watchers.get_mut(user) {
                watchers.remove(&id);
                if watchers.is_empty() {
                    state.watchers.remove(user);
                }
            }
        }
    }

    // --- The other gateways ---

    /// Tells the others that this gateway is alive.
    pub fn say_alive(&self) {
        let last_change = self.lock().last_change;
        self.sender.send(Message::Alive { last_change });
    }

    /// Signals were missed: what is known of the others may be wrong.
    pub fn has_missed(&self) {
        for gateway in self.lock().others.values_mut() {
            gateway.stale = true;
        }
    }

    /// Another gateway has sent this.
    pub fn on_message(&self, from: Uuid, message: Message) {
        let mut state = self.lock();
        let now = Instant::now();
        match message {
            Message::Alive { last_change } => {
                let gateway = state.hear(from, now);
                gateway.stale |= gateway.last_change != last_change;
                self.ask_if_stale(from, gateway, now);
            }
            Message::Change {
                number,
                user,
                online,
            } => {
                let gateway = state.hear(from, now);
                if number <= gateway.last_change {
                    return;
                }
                gateway.stale |= gateway.last_change + 1 != number;
                gateway.last_change = number;
                let is_news = match online {
                    true => gateway.users.insert(user),
                    false => gateway.users.remove(&user),
                };
                self.ask_if_stale(from, gateway, now);
                match (is_news, online) {
                    (true, true) => self.arrive(&mut state, user),
                    (true, false) => state.leave(user, Timestamp::now(), now),
                    (false, _) => {}
                }
            }
            Message::Ask(whom) => {
                state.hear(from, now);
                if whom == self.sender.me() {
                    self.send_picture(&state);
                }
            }
            Message::Picture {
                last_change,
                first,
                last,
                online,
                last_seen,
            } => self.on_picture(
                &mut state,
                from,
                (last_change, first, last),
                online,
                &last_seen,
            ),
            Message::Gone => {
                if let Some(gateway) = state.others.remove(&from) {
                    for user in gateway.users {
                        state.leave(user, Timestamp::now(), now);
                    }
                }
            }
            Message::Typing { .. } | Message::Bring { .. } => {}
        }
    }

    /// Takes silent gateways for dead, and those who left some moments ago for offline.
    pub fn expire(&self, now: Instant) {
        let mut state = self.lock();
        let dead: Vec<Gateway> = state
            .others
            .extract_if(|_, gateway| gateway.heard + DEAD_AFTER <= now)
            .map(|(_, gateway)| gateway)
            .collect();
        for gateway in dead {
            tracing::info!("another gateway is silent; its connections are taken for ended");
            for user in gateway.users {
                state.leave(user, gateway.heard_at, now);
            }
        }
        let offline: Vec<(UserId, Leaving)> = state
            .leaving
            .extract_if(|_, leaving| leaving.offline_at <= now)
            .collect();
        for (user, leaving) in offline {
            self.last_seen.insert(user, leaving.last_seen);
            self.publish(&state, user, false);
        }
    }

    fn ask_if_stale(&self, from: Uuid, gateway: &mut Gateway, now: Instant) {
        let asked_lately = gateway
            .asked
            .is_some_and(|at| at + Duration::from_secs(1) > now);
        if gateway.stale && !asked_lately {
            gateway.asked = Some(now);
            self.sender.send(Message::Ask(from));
        }
    }

    /// Under the lock, so that no change comes in between.
    fn send_picture(&self, state: &State) {
        let online: Vec<UserId> = state.own.keys().copied().collect();
        let last_seen: Vec<(UserId, Timestamp)> = self
            .last_seen
            .iter()
            .map(|(user, at)| (*user, at))
            .collect();
        let parts = online.len().max(last_seen.len()).div_ceil(PART).max(1);
        for part in 0..parts {
            self.sender.send(Message::Picture {
                last_change: state.last_change,
                first: part == 0,
                last: part + 1 == parts,
                online: page(&online, part),
                last_seen: page(&last_seen, part),
            });
        }
    }

    fn on_picture(
        &self,
        state: &mut State,
        from: Uuid,
        (last_change, first, last): (u64, bool, bool),
        online: Vec<UserId>,
        last_seen: &[(UserId, Timestamp)],
    ) {
        for (user, at) in last_seen {
            let newest = self.last_seen.get(user).map_or(*at, |known| known.max(*at));
            self.last_seen.insert(*user, newest);
        }
        let now = Instant::now();
        let gateway = state.hear(from, now);
        if first {
            gateway.picture.clear();
        }
        gateway.picture.extend(online);
        // An older picture than the changes since: the heartbeat will ask again.
        if !last || last_change < gateway.last_change {
            return;
        }
        gateway.stale = false;
        gateway.last_change = last_change;
        let picture = std::mem::take(&mut gateway.picture);
        let before = std::mem::replace(&mut gateway.users, picture.clone());
        for user in picture.difference(&before) {
            self.arrive(state, *user);
        }
        for user in before.difference(&picture) {
            state.leave(*user, Timestamp::now(), now);
        }
    }

    // --- Changes ---

    fn tell(&self, state: &mut State, user: UserId, online: bool) {
        state.last_change += 1;
        self.sender.send(Message::Change {
            number: state.last_change,
            user,
            online,
        });
    }

    /// The user is connected to one gateway more.
    fn arrive(&self, state: &mut State, user: UserId) {
        let was_online = state.is_online(user);
        *state.connected.entry(user).or_default() += 1;
        state.leaving.remove(&user);
        if !was_online {
            self.publish(state, user, true);
        }
    }

    fn publish(&self, state: &State, user: UserId, online: bool) {
        if let Some(watchers) = state.watchers.get(&user) {
            let push = self.push(user, online);
            for outbox in watchers.values() {
                outbox.push(&push);
            }
        }
    }

    fn push(&self, user: UserId, online: bool) -> Arc<Push> {
        let (status, last_seen) = match online {
            true => (Presence::Online, None),
            false => (Presence::Offline, self.last_seen.get(&user)),
        };
        let frame = ServerFrame::Presence {
            user,
            status,
            last_seen,
        };
        Arc::new(Push {
            kind: PushKind::Presence,
            position: None,
            frame: frame.encode(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_online(&self, user: UserId) -> bool {
        self.connected.contains_key(&user) || self.leaving.contains_key(&user)
    }

    /// The user is connected to one gateway less.
    fn leave(&mut self, user: UserId, last_seen: Timestamp, now: Instant) {
        let Some(gateways) = self.connected.get_mut(&user) else {
            return;
        };
        *gateways -= 1;
        if *gateways == 0 {
            self.connected.remove(&user);
            let offline_at = now + GRACE;
            let leaving = Leaving {
                last_seen,
                offline_at,
            };
            self.leaving.insert(user, leaving);
        }
    }

    fn hear(&mut self, from: Uuid, now: Instant) -> &mut Gateway {
        let gateway = self.others.entry(from).or_insert_with(|| Gateway {
            users: HashSet::new(),
            last_change: 0,
            // It may have been there before.
            stale: true,
            heard: now,
            heard_at: Timestamp::now(),
            asked: None,
            picture: HashSet::new(),
        });
        gateway.heard = now;
        gateway.heard_at = Timestamp::now();
        gateway
    }
}

fn page<T: Clone>(all: &[T], number: usize) -> Vec<T> {
    all.chunks(PART).nth(number).unwrap_or_default().to_vec()
}
