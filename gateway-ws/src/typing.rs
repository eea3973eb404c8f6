//! Who types in which room at present. Kept for moments, and never in the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{RoomId, UserId};
use tokio::time::Instant;

use crate::hub::Hub;
use crate::outbox::{Push, PushKind};
use crate::protocol::{ServerFrame, Typing};

/// How long somebody types who has not said so again.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(6);

/// How often those who are told of it already are told again, so that those who have come since know as
/// well.
const REPEAT_AFTER: Duration = Duration::from_secs(2);

/// Who types in the rooms that have subscribers here.
#[derive(Debug, Default)]
pub struct TypingUsers {
    users: Mutex<HashMap<(RoomId, UserId), Since>>,
}

#[derive(Debug, Clone, Copy)]
struct Since {
    expires_at: Instant,
    told_at: Instant,
}

impl TypingUsers {
    /// Takes note that `user` types in `room`, or no longer does, and tells the room's subscribers if that
    /// is news.
    pub fn set(&self, hub: &Hub, room: RoomId, user: UserId, state: Typing, now: Instant) {
        let is_news = match state {
            Typing::Start => hub.has_subscribers(room) && self.start(room, user, now),
            Typing::Stop => self.lock().remove(&(room, user)).is_some(),
        };
        if is_news {
            tell(hub, room, user, state);
        }
    }

    /// Takes note that `user` has posted, which ends the typing: the message itself tells of that.
    pub fn has_posted(&self, room: RoomId, user: UserId) {
        self.lock().remove(&(room, user));
    }

    /// Ends the typing of those who have not said for too long that they type.
    pub fn expire(&self, hub: &Hub, now: Instant) {
        let expired: Vec<(RoomId, UserId)> = self
            .lock()
            .extract_if(|_, since| since.expires_at <= now)
            .map(|(who, _)| who)
            .collect();
        for (room, user) in expired {
            tell(hub, room, user, Typing::Stop);
        }
    }

    fn start(&self, room: RoomId, user: UserId, now: Instant) -> bool {
        let mut users = self.lock();
        let before = users.get(&(room, user)).copied();
        let is_news = before.is_none_or(|before| before.told_at + REPEAT_AFTER <= now);
        let told_at = before.filter(|_| !is_news).map_or(now, |it| it.told_at);
        let since = Since {
            expires_at: now + EXPIRES_AFTER,
            told_at,
        };
        users.insert((room, user), since);
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RoomId, UserId), Since>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(hub: &Hub, room: RoomId, user: UserId, state: Typing) {
    hub.publish_ephemeral(&Arc::new(Push {
        kind: PushKind::Typing(room, user),
        position: None,
        frame: ServerFrame::Typing { room, user, state }.encode(),
    }));
}
