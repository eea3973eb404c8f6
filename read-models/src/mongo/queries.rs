//! The queries. Each is answered from an index, without sorting, and reads no more than it returns, up to
//! a factor: the tests look at the server's profile.

use std::collections::HashMap;

use events::{MessageId, Position, RoomId, RoomType, Timestamp, UserId};
use futures::FutureExt;
use futures::future::OptionFuture;
use futures::stream::TryStreamExt;
use mongodb::bson::{Bson, DateTime, Document, doc};
use serde::Deserialize;
use uuid::Uuid;

use super::apply::each;
use super::connection::reply;
use super::documents::{
    CheckpointDocument, DeadLetterDocument, DeletionDocument, EditDocument, ErasureDocument,
    MarkDocument, MessageDocument, RoomDocument, UserDocument, date, message_id, timestamp,
};
use super::{
    EDITS_OF_MESSAGE, MESSAGES_OF_AUTHORS, MESSAGES_OF_ROOM, ROOMS_OF_TYPE, Store, failure, hint,
};
use crate::receipts::{self, Mark};
use crate::rows::{position, sequence};
use crate::{
    COUNT_CAP, Checkpoint, ConversationRow, DeadLetter, HistoryRow, Left, MessageRow, Page,
    PageStart, ReadModelError, RecentRow, RoomDeletion, RoomRow, UserRow, VersionRow,
};

/// Marks are looked up this many at a time with one command.
const LOOK_UPS: usize = 50;

/// Further pages than this do not exist; the server adds a page's items to it without overflow.
const MAX_OFFSET: u64 = 1 << 53;

/// Rooms that are looked at together for what may expire.
const ROOMS_AT_ONCE: i64 = 100;

/// A message and when it was posted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated {
    #[serde(rename = "_id")]
    id: i64,
    created_at: DateTime,
}

/// A room with messages of it whose readers are wanted.
pub(super) struct RoomPart<'a> {
    pub room: RoomId,
    pub members: &'a [UserId],
    /// Who has not read the newest of the messages, where that is known of somebody.
    pub unread_by: Option<UserId>,
    pub messages: &'a mut [MessageRow],
}

/// The answer to the command `count`.
#[derive(Deserialize)]
struct Counted {
    n: i64,
}

/// Up to which message a room has been read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadUpTo {
    #[serde(rename = "_id")]
    room: RoomId,
    up_to: i64,
}

impl Store {
    pub(super) async fn checkpoint(self) -> Result<Option<Checkpoint>, ReadModelError> {
        let found = self.checkpoints.find_one(doc! { "_id": self.number });
        let found = found.await.map_err(failure)?;
        Ok(found.and_then(CheckpointDocument::into_checkpoint))
    }

    pub(super) async fn dead_letters(
        self,
        after: Position,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        let found = self
            .dead_letters
            .find(doc! { "_id": { "$gt": sequence(after) } })
            .sort(doc! { "_id": 1 })
            .limit(i64::from(limit));
        let found: Vec<DeadLetterDocument> = collected(found.await).await?;
        Ok(found
            .into_iter()
            .map(DeadLetterDocument::into_row)
            .collect())
    }

    pub(super) async fn dead_letter_count(self) -> Result<u64, ReadModelError> {
        // Exact rather than estimated: there are few, and none is the answer that must be right.
        let count = self.dead_letters.count_documents(doc! {});
        count.await.map_err(failure)
    }

    pub(super) async fn all_users(self) -> Result<Vec<UserRow>, ReadModelError> {
        let found = self
            .users
            .find(doc! { "deleted": false })
            .sort(doc! { "position": 1 });
        let found: Vec<UserDocument> = collected(found.await).await?;
        found.into_iter().map(UserDocument::into_row).collect()
    }

    pub(super) async fn users_by_id(
        self,
        ids: Vec<UserId>,
    ) -> Result<Vec<UserRow>, ReadModelError> {
        let ids: Vec<String> = ids.iter().map(UserId::to_string).collect();
        let found = self.users.find(doc! { "_id": { "$in": ids } });
        let found: Vec<UserDocument> = collected(found.await).await?;
        found.into_iter().map(UserDocument::into_row).collect()
    }

    pub(super) async fn room(self, id: RoomId) -> Result<Option<RoomRow>, ReadModelError> {
        let found = self.find_room(id).await?;
        Ok(found.map(RoomDocument::into_row))
    }

    pub(super) async fn find_room(
        &self,
        id: RoomId,
    ) -> Result<Option<RoomDocument>, ReadModelError> {
        let filter = doc! { "_id": id.to_string(), "deletedAt": null };
        self.rooms.find_one(filter).await.map_err(failure)
    }

    pub(super) async fn recent(
        self,
        user: UserId,
        page: Page,
    ) -> Result<Vec<RecentRow>, ReadModelError> {
        let part = Part::of(page);
        let found = self
            .rooms
            .find(doc! { "members": user.to_string(), "lastMessage": part.range() })
            .sort(doc! { "lastMessage": part.direction() })
            .skip(part.offset)
            .limit(part.limit);
        let mut rooms: Vec<RoomDocument> = collected(found.await).await?;
        if part.newer {
            rooms.reverse();
        }
        let (messages, read) = futures::join!(
            self.last_messages(&rooms),
            self.read_up_to(user, rooms.iter().map(|room| room.id)),
        );
        let (mut messages, read) = (messages?, read?);
        let mut rows: Vec<(RoomRow, [MessageRow; 1])> = rooms
            .into_iter()
            .filter_map(|room| {
                let message = messages.remove(&room.id)?;
                Some((room.into_row(), [message]))
            })
            .collect();
        // Of each room that has not been read to its end, up to where it has.
        let unread: Vec<Option<i64>> = rows
            .iter()
            .map(|(room, [newest])| {
                let from = read.get(&room.id).copied().unwrap_or(0);
                let newest = sequence(newest.id.position());
                (from < newest).then_some(from)
            })
            .collect();
        let counts = rows.iter().zip(&unread).map(|((room, _), from)| {
            let counted = from.map(|from| {
                let others = others(&room.members, user);
                self.count_by(others, room.id, from, i64::MAX)
            });
            // Most rooms have been read to their end: that takes no asking.
            OptionFuture::from(counted).map(|counted| counted.unwrap_or(Ok(0)))
        });
        let counts = each(counts.collect());
        let readers = self.fill_receipts(
            rows.iter_mut()
                .zip(&unread)
                .map(|((room, messages), from)| RoomPart {
                    room: room.id,
                    members: &room.members,
                    unread_by: from.map(|_| user),
                    messages,
                })
                .collect(),
        );
        let (counts, readers) = futures::join!(counts, readers);
        readers?;
        Ok(rows
            .into_iter()
            .zip(counts?)
            .map(|((room, [message]), unread)| RecentRow {
                room,
                message,
                unread,
            })
            .collect())
    }

    /// The newest message of each of `rooms`.
    async fn last_messages(
        &self,
        rooms: &[RoomDocument],
    ) -> Result<HashMap<RoomId, MessageRow>, ReadModelError> {
        let ids: Vec<i64> = rooms.iter().filter_map(|room| room.last_message).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self
            .messages
            .find(doc! { "_id": { "$in": ids }, "deleted": false })
            .projection(doc! { "words": 0 });
        let mut found: Vec<MessageDocument> = collected(found.await).await?;
        // One that a batch has just deleted, before it came to update the room.
        let newest = Part::of(Page {
            start: PageStart::Number(0),
            limit: 1,
        });
        for room in rooms {
            if found.iter().all(|message| message.room != room.id) {
                found.extend(self.messages_of(room.id, &newest, false).await?);
            }
        }
        let expired: HashMap<RoomId, Option<i64>> =
            rooms.iter().map(|room| (room.id, room.expired)).collect();
        let rows = found.into_iter().map(|message| {
            let expired = expired.get(&message.room).copied().flatten();
            Ok((message.room, message.into_row(expired)?))
        });
        rows.collect()
    }

    pub(super) async fn conversation(
        self,
        room: RoomId,
        page: Page,
    ) -> Result<Option<ConversationRow>, ReadModelError> {
        let part = Part::of(page);
        // The room after them: it is hidden before it is emptied, so while it is there none of them was gone.
        let messages = self
            .messages_of(room, &part, doc! { "$in": [false, true] })
            .await?;
        let Some(room) = self.find_room(room).await? else {
            return Ok(None);
        };
        let rows = messages.into_iter().map(|it| it.into_row(room.expired));
        let mut messages = rows.collect::<Result<Vec<MessageRow>, ReadModelError>>()?;
        if !part.newer {
            messages.reverse();
        }
        self.fill_receipts(vec![RoomPart {
            room: room.id,
            members: &room.members,
            unread_by: None,
            messages: &mut messages,
        }])
        .await?;
        Ok(Some(ConversationRow {
            room: room.into_row(),
            messages,
        }))
    }

    /// With this in the field `deleted`, in the part's own direction.
    async fn messages_of(
        &self,
        room: RoomId,
        part: &Part,
        deleted: impl Into<Bson>,
    ) -> Result<Vec<MessageDocument>, ReadModelError> {
        let found = self
            .messages
            .find(doc! {
                "room": room.to_string(),
                "deleted": deleted.into(),
                "_id": part.range(),
            })
            .sort(doc! { "_id": part.direction() })
            .skip(part.offset)
            .limit(part.limit)
            .projection(doc! { "words": 0 })
            .hint(hint(MESSAGES_OF_ROOM));
        collected(found.await).await
    }

    pub(super) async fn history(
        self,
        room: RoomId,
        message: MessageId,
    ) -> Result<Option<HistoryRow>, ReadModelError> {
        let id = sequence(message.position());
        let posted = self
            .messages
            .find_one(doc! { "_id": id, "room": room.to_string() })
            .projection(doc! { "words": 0 });
        let edits = self
            .edits
            .find(doc! { "room": room.to_string(), "message": id })
            .sort(doc! { "_id": 1 })
            .hint(hint(EDITS_OF_MESSAGE));
        // Versions first: texts that go meanwhile are then said to be gone.
        let edits: Vec<EditDocument> = collected(edits.await).await?;
        let (posted, found) = (posted.await.map_err(failure)?, self.find_room(room).await?);
        let (Some(posted), Some(found)) = (posted, found) else {
            return Ok(None);
        };
        let created_at = timestamp(posted.created_at)?;
        let first = VersionRow {
            position: message.position(),
            text: posted.text.clone(),
            at: created_at,
        };
        let mut versions = vec![first];
        for edit in edits {
            versions.push(VersionRow {
                position: position(edit.position),
                text: edit.text,
                at: timestamp(edit.at)?,
            });
        }
        let (author, deletion) = (posted.author, posted.deletion);
        let left = posted.into_row(found.expired)?.left;
        if left != Left::Text {
            versions.iter_mut().for_each(|version| version.text = None);
        }
        let gone = match left {
            Left::Deleted => deletion.map(DeletionDocument::gone).transpose()?,
            Left::Erased => {
                let erasure = self.erasures.find_one(doc! { "_id": author.to_string() });
                let erasure = erasure.await.map_err(failure)?;
                erasure.map(ErasureDocument::gone).transpose()?
            }
            Left::Text | Left::Expired => None,
        };
        Ok(Some(HistoryRow {
            author,
            created_at,
            versions,
            left,
            gone,
        }))
    }

    pub(super) async fn expirable(
        self,
        room_type: RoomType,
        before: Timestamp,
        mut after: Option<RoomId>,
        limit: u32,
    ) -> Result<Vec<(RoomId, MessageId)>, ReadModelError> {
        let mut found = Vec::new();
        loop {
            let mut filter = doc! { "type": room_type.as_str(), "deletedAt": null };
            filter
                .extend(after.map(|id| ("_id".to_owned(), doc! { "$gt": id.to_string() }.into())));
            let rooms = self
                .rooms
                .find(filter)
                .sort(doc! { "_id": 1 })
                .limit(ROOMS_AT_ONCE)
                .hint(hint(ROOMS_OF_TYPE));
            let rooms: Vec<RoomDocument> = collected(rooms.await).await?;
            let Some(last) = rooms.last() else { break };
            after = Some(last.id);
            let looked = rooms.iter().map(|room| self.last_older(room, before));
            found.extend(each(looked.collect()).await?.into_iter().flatten());
            if found.len() >= limit as usize {
                break;
            }
        }
        found.truncate(limit as usize);
        Ok(found)
    }

    /// The last of the room's messages, after those that have expired, before the first that is not older than
    /// `before`.
    async fn last_older(
        &self,
        room: &RoomDocument,
        before: Timestamp,
    ) -> Result<Option<(RoomId, MessageId)>, ReadModelError> {
        let expired = room.expired.unwrap_or(0);
        let first = self
            .at_end_of(room.id, doc! { "$gt": expired }, doc! {}, 1)
            .await?;
        let Some(first) = first.filter(|first| first.created_at < date(before)) else {
            return Ok(None);
        };
        let younger = doc! { "createdAt": { "$gte": date(before) } };
        let younger = self
            .at_end_of(room.id, doc! { "$gt": first.id }, younger, 1)
            .await?;
        let bound = younger.map_or(i64::MAX, |younger| younger.id);
        let last = self
            .at_end_of(room.id, doc! { "$lt": bound }, doc! {}, -1)
            .await?;
        Ok(last.map(|last| (room.id, message_id(last.id))))
    }

    pub(super) async fn oldest_unexpired(
        self,
        room: RoomId,
    ) -> Result<Option<Timestamp>, ReadModelError> {
        let room = self
            .rooms
            .find_one(doc! { "_id": room.to_string(), "deletedAt": null });
        let Some(room) = room.await.map_err(failure)? else {
            return Ok(None);
        };
        let after = doc! { "$gt": room.expired.unwrap_or(0) };
        let oldest = self.at_end_of(room.id, after, doc! {}, 1).await?;
        oldest
            .map(|oldest| timestamp(oldest.created_at))
            .transpose()
    }

    /// The first (1) or last (-1) message of the room, deleted or not, in a range of ids that fulfils a
    /// condition.
    async fn at_end_of(
        &self,
        room: RoomId,
        ids: Document,
        condition: Document,
        direction: i32,
    ) -> Result<Option<Dated>, ReadModelError> {
        let mut filter = doc! {
            "room": room.to_string(),
            "deleted": { "$in": [false, true] },
            "_id": ids,
        };
        filter.extend(condition);
        let messages = self.messages.clone_with_type::<Dated>();
        let found = messages
            .find_one(filter)
            .projection(doc! { "createdAt": 1 })
            .sort(doc! { "_id": direction })
            .hint(hint(MESSAGES_OF_ROOM));
        found.await.map_err(failure)
    }

    /// Who has read the messages: reads the marks among each room's and one more for each member, not all
    /// that came after.
    pub(super) async fn fill_receipts(
        &self,
        rooms: Vec<RoomPart<'_>>,
    ) -> Result<(), ReadModelError> {
        let mut look_ups = Vec::new();
        for room in &rooms {
            let Some((oldest, newest)) = receipts::range(room.messages) else {
                continue;
            };
            let (oldest, newest) = (sequence(oldest.position()), sequence(newest.position()));
            let id = room.room.to_string();
            // Those who wrote all of them have read by writing.
            let readers = room
                .members
                .iter()
                .filter(|member| room.messages.iter().any(|it| it.author != **member));
            if oldest < newest {
                let readers: Vec<String> = readers.clone().map(UserId::to_string).collect();
                look_ups.push(vec![doc! { "$match": {
                    "room": &id,
                    "reader": { "$in": readers },
                    "upTo": { "$gte": oldest, "$lt": newest },
                } }]);
            }
            let readers: Vec<String> = readers
                .filter(|member| room.unread_by != Some(**member))
                .map(UserId::to_string)
                .collect();
            if !readers.is_empty() {
                look_ups.push(vec![
                    doc! { "$match": {
                        "room": &id,
                        "reader": { "$in": readers },
                        "upTo": { "$gte": newest },
                    } },
                    // So that the server skips from one reader to the next.
                    doc! { "$sort": { "room": 1, "reader": 1, "upTo": 1 } },
                    doc! { "$group": { "_id": "$reader", "first": { "$first": "$$ROOT" } } },
                    doc! { "$replaceRoot": { "newRoot": "$first" } },
                ]);
            }
        }
        let mut marks: HashMap<RoomId, Vec<Mark>> = HashMap::new();
        for mark in self.look_up_marks(look_ups).await? {
            let of_room = marks.entry(mark.room).or_default();
            of_room.push(mark.into_mark()?);
        }
        for room in rooms {
            let marks = marks.get(&room.room).map_or(&[][..], Vec::as_slice);
            receipts::fill(room.messages, marks);
        }
        Ok(())
    }

    /// Up to which message `reader` has read each of `rooms`; those not read at all are left out. The server
    /// skips from one room to the next.
    async fn read_up_to(
        &self,
        reader: UserId,
        rooms: impl Iterator<Item = RoomId>,
    ) -> Result<HashMap<RoomId, i64>, ReadModelError> {
        let rooms: Vec<String> = rooms.map(|room| room.to_string()).collect();
        if rooms.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self
            .marks
            .aggregate([
                doc! { "$match": { "room": { "$in": rooms }, "reader": reader.to_string() } },
                doc! { "$sort": { "room": -1, "reader": -1, "upTo": -1 } },
                doc! { "$group": { "_id": "$room", "upTo": { "$first": "$upTo" } } },
            ])
            .with_type::<ReadUpTo>();
        let found: Vec<ReadUpTo> = collected(found.await).await?;
        Ok(found
            .into_iter()
            .map(|read| (read.room, read.up_to))
            .collect())
    }

    /// The marks that any of the pipelines finds, many pipelines to one round trip.
    async fn look_up_marks(
        &self,
        pipelines: Vec<Vec<Document>>,
    ) -> Result<Vec<MarkDocument>, ReadModelError> {
        let commands: Vec<Vec<Document>> = pipelines
            .chunks(LOOK_UPS)
            .map(|pipelines| {
                let (first, others) = pipelines.split_at(1);
                let mut command = first.concat();
                command.extend(others.iter().map(|pipeline| {
                    doc! { "$unionWith": { "coll": self.marks.name(), "pipeline": pipeline } }
                }));
                command
            })
            .collect();
        let found = commands.into_iter().map(|command| async move {
            let found = self.marks.aggregate(command).with_type::<MarkDocument>();
            collected(found.await).await
        });
        let found: Vec<Vec<MarkDocument>> = each(found.collect()).await?;
        Ok(found.concat())
    }

    /// How many messages after `from` up to `up_to` are by `authors`, capped. Reads nothing but the index,
    /// skipping from one author's to the next. The driver counts by an aggregation, which takes the server half
    /// as long again.
    async fn count_by(
        &self,
        authors: Document,
        room: RoomId,
        from: i64,
        up_to: i64,
    ) -> Result<u64, ReadModelError> {
        let command = doc! {
            "count": self.messages.name(),
            "query": messages_by(authors, room, from, up_to),
            "limit": COUNT_CAP.cast_signed(),
            "hint": MESSAGES_OF_AUTHORS,
        };
        let counted: Counted = reply(self.connection.read(command).await?)?;
        Ok(counted.n.unsigned_abs())
    }

    pub(super) async fn newly_read(self, position: Position) -> Result<u64, ReadModelError> {
        let found = self.marks.find_one(doc! { "_id": sequence(position) });
        match found.await.map_err(failure)? {
            None => Ok(0),
            Some(mark) => {
                let others = anybody_but(mark.reader);
                self.count_by(others, mark.room, mark.from, mark.up_to)
                    .await
            }
        }
    }

    pub(super) async fn deleted_by(
        self,
        message: MessageId,
        position: Position,
    ) -> Result<bool, ReadModelError> {
        let found = self.messages.find_one(doc! {
            "_id": sequence(message.position()),
            "deletion.position": sequence(position),
        });
        Ok(found.await.map_err(failure)?.is_some())
    }

    pub(super) async fn room_deletion(
        self,
        room: RoomId,
    ) -> Result<Option<RoomDeletion>, ReadModelError> {
        let found = self.rooms.find_one(doc! { "_id": room.to_string() });
        let found = found.await.map_err(failure)?;
        Ok(found
            .and_then(|room| room.deleted_messages)
            .map(|messages| RoomDeletion {
                messages: messages.unsigned_abs(),
            }))
    }

    pub(super) async fn position_of_key(
        self,
        deduplication_id: Uuid,
    ) -> Result<Option<Position>, ReadModelError> {
        let id = deduplication_id.simple().to_string();
        let found = self.keys.find_one(doc! { "_id": id });
        let found = found.await.map_err(failure)?;
        Ok(found.map(|key| position(key.position)))
    }
}

/// The authors that the other members of a room are. Of a single one the server counts the keys between two, which
/// takes it a fraction of looking at each.
fn others(members: &[UserId], reader: UserId) -> Document {
    let others = members.iter().filter(|member| **member != reader);
    doc! { "$in": others.map(UserId::to_string).collect::<Vec<String>>() }
}

/// The same where the members are not at hand.
pub(super) fn anybody_but(reader: UserId) -> Document {
    doc! { "$ne": reader.to_string() }
}

/// The messages after `from` up to `up_to` that are by `authors`.
pub(super) fn messages_by(authors: Document, room: RoomId, from: i64, up_to: i64) -> Document {
    doc! {
        "room": room.to_string(),
        "deleted": false,
        "author": authors,
        "_id": { "$gt": from, "$lte": up_to },
    }
}

/// Everything that a query finds.
pub(super) async fn collected<T>(
    cursor: Result<mongodb::Cursor<T>, mongodb::error::Error>,
) -> Result<Vec<T>, ReadModelError>
where
    T: for<'a> Deserialize<'a> + Unpin + Send + Sync,
{
    let cursor = cursor.map_err(failure)?;
    cursor.try_collect().await.map_err(failure)
}

/// A [`Page`] as bounds and offsets.
struct Part {
    /// Whether it is the oldest after `bound` rather than the newest before it.
    newer: bool,
    bound: i64,
    limit: i64,
    offset: u64,
}

impl Part {
    fn of(page: Page) -> Self {
        let limit = page.items();
        let (newer, bound, offset) = match page.start {
            PageStart::Number(number) => {
                let offset = number.saturating_mul(u64::from(limit));
                (false, i64::MAX, offset.min(MAX_OFFSET))
            }
            PageStart::Before(message) => (false, sequence(message.position()), 0),
            PageStart::After(message) => (true, sequence(message.position()), 0),
        };
        Self {
            newer,
            bound,
            limit: i64::from(limit),
            offset,
        }
    }

    /// A condition that only numbers fulfil, and not a field that is missing.
    fn range(&self) -> Bson {
        match self.newer {
            true => doc! { "$gt": self.bound }.into(),
            false => doc! { "$lt": self.bound }.into(),
        }
    }

    fn direction(&self) -> i32 {
        if self.newer { 1 } else { -1 }
    }
}
