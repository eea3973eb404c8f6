//! Turns rows of the read models into the API's shapes.

use std::collections::HashMap;

use as_of::AsOf;
use contract::{
    Conversation, ConversationReceipt, History, Message, MessageKind, MessageText, Receipt, User,
    Version,
};
use events::{MessageId, RoomId, Timestamp, UserId};
use platform::error::ApiError;
use read_models::{HistoryRow, Left, MessageRow, ReadModels, RecentRow, UserRow};

/// A user as the API shows it.
pub(crate) fn user(row: UserRow) -> User {
    User {
        id: row.id,
        first_name: row.first_name,
        last_name: row.last_name,
        user_type: row.user_type,
        created_at: row.created_at,
        updated_at: row.updated_at,
        v: 0,
        deleted: row.deleted,
    }
}

/// The profiles of the users that a page shows.
pub(crate) struct Profiles(HashMap<UserId, User>);

impl Profiles {
    /// Looks up each of `ids`, which may repeat, once.
    pub(crate) async fn load(
        read_models: &dyn ReadModels,
        mut ids: Vec<UserId>,
    ) -> Result<Self, ApiError> {
        ids.sort_unstable();
        ids.dedup();
        Ok(Self::of(read_models.users_by_id(&ids).await?))
    }

    /// As [`Self::load`], as of then.
    pub(crate) async fn of_then(then: &AsOf, mut ids: Vec<UserId>) -> Result<Self, ApiError> {
        ids.sort_unstable();
        ids.dedup();
        Ok(Self::of(then.users_by_id(&ids).await?))
    }

    fn of(rows: Vec<UserRow>) -> Self {
        Self(rows.into_iter().map(|row| (row.id, user(row))).collect())
    }

    /// An author: deleted ones are shown without a name.
    fn author(&self, id: UserId, at: Timestamp) -> User {
        match self.0.get(&id) {
            Some(user) => user.clone(),
            None => User::unknown(id, at),
        }
    }

    /// The user, unless deleted.
    pub(crate) fn present(&self, id: UserId) -> Option<User> {
        self.0.get(&id).filter(|user| !user.deleted).cloned()
    }

    /// Those of `ids` who have not been deleted.
    pub(crate) fn members(&self, ids: &[UserId]) -> Vec<User> {
        ids.iter().filter_map(|id| self.present(*id)).collect()
    }

    /// A message of a conversation.
    pub(crate) fn message(&self, row: MessageRow) -> Message {
        let read = row.read_by.iter().map(|receipt| receipt.read_at);
        let updated_at = read.chain(row.edited_at);
        Message {
            id: row.id,
            chat_room_id: row.room,
            message: MessageText {
                message_text: row.text,
            },
            kind: MessageKind::Text,
            posted_by_user: self.author(row.author, row.created_at),
            updated_at: updated_at.fold(row.created_at, Timestamp::max),
            read_by_recipients: row
                .read_by
                .into_iter()
                .map(|receipt| Receipt {
                    read_by_user_id: receipt.reader,
                    read_at: receipt.read_at,
                })
                .collect(),
            created_at: row.created_at,
            v: 0,
            edited_at: row.edited_at,
            deleted: row.left == Left::Deleted,
            expired: row.left == Left::Expired,
            erased: row.left == Left::Erased,
        }
    }

    /// All that the message `id` of this room has ever said.
    pub(crate) fn history(&self, room: RoomId, id: MessageId, row: HistoryRow) -> History {
        let author = row.author;
        let versions = row.versions.into_iter().map(|version| Version {
            message: version
                .text
                .map(|message_text| MessageText { message_text }),
            posted_by_user_id: author,
            at: version.at,
        });
        History {
            id,
            chat_room_id: room,
            posted_by_user: self.author(author, row.created_at),
            versions: versions.collect(),
            deleted: row.left == Left::Deleted,
            expired: row.left == Left::Expired,
            erased: row.left == Left::Erased,
            gone_at: row.gone.map(|gone| gone.at),
            gone_by_user_id: row.gone.and_then(|gone| gone.by),
        }
    }

    /// One of the caller's conversations.
    pub(crate) fn conversation(&self, row: RecentRow) -> Conversation {
        let RecentRow {
            room,
            message,
            unread,
        } = row;
        Conversation {
            id: room.id,
            message_id: message.id,
            chat_room_id: room.id,
            message: MessageText {
                message_text: message.text,
            },
            kind: MessageKind::Text,
            posted_by_user: self.author(message.author, message.created_at),
            read_by_recipients: message
                .read_by
                .into_iter()
                .map(|receipt| ConversationReceipt {
                    read_by_user_id: receipt.reader,
                    read_at: receipt.read_at,
                    read_by_user: self.members(&[receipt.reader]),
                })
                .collect(),
            room_info: self
                .members(&room.members)
                .into_iter()
                .map(|member| vec![member])
                .collect(),
            created_at: message.created_at,
            unread_count: unread,
            edited_at: message.edited_at,
            expired: message.left == Left::Expired,
            erased: message.left == Left::Erased,
        }
    }
}
