//! Finding messages by the words in them, newest first, from one index over room, word and id.
//!
//! Not a text index: `$text` can't be read in the order of the messages, and looks up any of the words
//! where all are wanted. See `docs/decisions/0017-search.md`.

use std::collections::{BTreeMap, HashMap};

use events::{RoomId, UserId};
use mongodb::bson::{Document, doc};
use serde::Deserialize;

use super::apply::each;
use super::documents::{MessageDocument, RoomDocument};
use super::queries::{RoomPart, collected};
use super::{MESSAGES_BY_WORD, QUERY_LIMIT, Store, failure, hint};
use crate::{MessageRow, ReadModelError, Search};

/// Rooms that one query looks into. The server merges that many ordered parts of an index; of more it would
/// sort everything that it finds.
const ROOMS_AT_ONCE: usize = 200;

/// A word that is found this often is as common as any.
const COMMON: u64 = 1_000;

/// A room of the caller's, before it is known whether anything in it is found.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(rename = "_id")]
    id: RoomId,
    last_message: i64,
}

impl Store {
    pub(super) async fn search(
        self,
        user: UserId,
        search: Search,
    ) -> Result<Vec<MessageRow>, ReadModelError> {
        if search.words.is_empty() {
            return Ok(Vec::new());
        }
        let rooms = match search.room {
            None => self.rooms_with_messages(user).await?,
            Some(room) => self
                .find_room(room)
                .await?
                .filter(|room| room.members.contains(&user))
                .map(|room| Listed {
                    id: room.id,
                    last_message: i64::MAX,
                })
                .into_iter()
                .collect(),
        };
        let mut found: BTreeMap<i64, MessageDocument> = BTreeMap::new();
        for rooms in rooms.chunks(ROOMS_AT_ONCE) {
            // Only what is newer than the oldest of a full page can still come onto it.
            let over = match found.first_key_value() {
                Some((oldest, _)) if found.len() == search.items() => *oldest,
                _ => 0,
            };
            if rooms.iter().all(|room| room.last_message < over) {
                // So are all messages of the rooms that follow.
                break;
            }
            for message in self.messages_with(rooms, &search, over).await? {
                found.insert(message.id, message);
            }
            while found.len() > search.items() {
                found.pop_first();
            }
        }
        self.rows(found).await
    }

    /// The rooms of `user` that have a message, those with the newest first: all at once, so that none
    /// is missed that comes forward meanwhile.
    async fn rooms_with_messages(&self, user: UserId) -> Result<Vec<Listed>, ReadModelError> {
        let rooms = self.rooms.clone_with_type::<Listed>();
        let found = rooms
            .find(doc! { "members": user.to_string(), "lastMessage": { "$gt": 0 } })
            .projection(doc! { "lastMessage": 1 })
            .sort(doc! { "lastMessage": -1 });
        collected(found.await).await
    }

    /// The newest messages after `over` in any of the rooms that have all of the words.
    async fn messages_with(
        &self,
        rooms: &[Listed],
        search: &Search,
        over: i64,
    ) -> Result<Vec<MessageDocument>, ReadModelError> {
        let rooms: Vec<String> = rooms.iter().map(|room| room.id.to_string()).collect();
        let with = |word: &str| {
            doc! {
                "room": { "$in": &rooms },
                "words": word,
                "_id": { "$gt": over, "$lt": search.bound() },
            }
        };
        let rarest = self.rarest(search, with).await?;
        let others: Vec<&str> = search.words.iter().filter(|word| *word != rarest).collect();
        let mut filter = with(rarest);
        if !others.is_empty() {
            // In a form that the server never takes for what to look up in the index.
            filter.insert("$expr", doc! { "$setIsSubset": [others, "$words"] });
        }
        let found = self
            .messages
            .find(filter)
            .sort(doc! { "_id": -1 })
            .limit(i64::try_from(search.items()).unwrap_or(i64::MAX))
            .projection(doc! { "words": 0 })
            .max_time(QUERY_LIMIT)
            .hint(hint(MESSAGES_BY_WORD));
        collected(found.await).await
    }

    /// The word that the fewest messages have: those that have it are read to see whether they have the
    /// others as well.
    async fn rarest<'a>(
        &self,
        search: &'a Search,
        with: impl Fn(&str) -> Document,
    ) -> Result<&'a str, ReadModelError> {
        let words: Vec<&str> = search.words.iter().collect();
        if let [word] = words[..] {
            return Ok(word);
        }
        let counts = words.into_iter().map(|word| {
            let count = self
                .messages
                .count_documents(with(word))
                .limit(COMMON)
                .max_time(QUERY_LIMIT)
                .hint(hint(MESSAGES_BY_WORD));
            async move { Ok((count.await.map_err(failure)?, word)) }
        });
        let counts = each(counts.collect()).await?;
        let rarest = counts.into_iter().min();
        Ok(rarest.map_or("", |(_, word)| word))
    }

    /// The messages with their readers, newest first.
    async fn rows(
        &self,
        found: BTreeMap<i64, MessageDocument>,
    ) -> Result<Vec<MessageRow>, ReadModelError> {
        let mut ids: Vec<String> = found.values().map(|found| found.room.to_string()).collect();
        ids.sort_unstable();
        ids.dedup();
        let rooms = self.rooms.find(doc! { "_id": { "$in": ids } });
        let rooms: Vec<RoomDocument> = collected(rooms.await).await?;
        let members: HashMap<RoomId, Vec<UserId>> = rooms
            .into_iter()
            .filter(|room| room.deleted_at.is_none())
            .map(|room| (room.id, room.members))
            .collect();
        let mut rows: Vec<[MessageRow; 1]> = Vec::new();
        for message in found.into_values().rev() {
            // Its room may have been deleted in the meantime.
            if members.contains_key(&message.room) {
                // What is found has a text: nothing of it has expired.
                rows.push([message.into_row(None)?]);
            }
        }
        // Each by itself: between two messages that are found lie any number of marks.
        let parts = rows.iter_mut().map(|messages| RoomPart {
            room: messages[0].room,
            members: members.get(&messages[0].room).map_or(&[], Vec::as_slice),
            unread_by: None,
            messages,
        });
        self.fill_receipts(parts.collect()).await?;
        Ok(rows.into_iter().flatten().collect())
    }
}
