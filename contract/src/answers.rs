//! The bodies of successful answers.

use events::{RoomId, RoomType};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Conversation, Edit, History, Message, Moment, Post, User};

macro_rules! answer {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// Always `true`.
            pub success: bool,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            /// The answer with these members.
            pub const fn new($($field: $type),*) -> Self {
                Self { success: true, $($field),* }
            }
        }
    };
}

answer!(
    /// Answers a login.
    LoginAnswer {
        /// A token to send as `Authorization: Bearer TOKEN`.
        authorization: String,
    }
);

answer!(
    /// Answers with all users.
    UsersAnswer {
        /// Every user, in the order of creation.
        users: Vec<User>,
    }
);

answer!(
    /// Answers with one user.
    UserAnswer {
        /// The user.
        user: User,
    }
);

answer!(
    /// Answers the deletion of a user.
    DeleteUserAnswer {
        /// `Deleted a count of N user.`, N = 0 or 1.
        message: String,
    }
);

/// The room that was initiated or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitiatedRoom {
    /// Whether this request created it.
    pub is_new: bool,
    /// `creating a new chatroom` or `retrieving an old chat room`.
    pub message: &'static str,
    /// The room's id: opaque, 32 hex digits.
    #[schema(value_type = String)]
    pub chat_room_id: RoomId,
    /// What kind of conversation it holds.
    #[serde(rename = "type")]
    #[schema(value_type = String, pattern = "^(consumer-to-consumer|consumer-to-support)$", example = "consumer-to-consumer")]
    pub room_type: RoomType,
}

impl InitiatedRoom {
    /// A room that was or was not made by this request.
    pub const fn new(is_new: bool, chat_room_id: RoomId, room_type: RoomType) -> Self {
        Self {
            is_new,
            message: if is_new {
                "creating a new chatroom"
            } else {
                "retrieving an old chat room"
            },
            chat_room_id,
            room_type,
        }
    }
}

answer!(
    /// Answers the initiation of a room.
    InitiateAnswer {
        /// The room.
        chat_room: InitiatedRoom,
    }
);

answer!(
    /// Answers a post.
    PostAnswer {
        /// The message as posted.
        post: Post,
    }
);

answer!(
    /// Answers an edit.
    EditAnswer {
        /// What the message says now.
        edit: Edit,
    }
);

answer!(
    /// Answers the erasure of a user.
    EraseUserAnswer {
        /// What was done, in a sentence.
        message: String,
    }
);

answer!(
    /// Answers the beginning or the end of a legal hold.
    HoldAnswer {
        /// Whether the room is under legal hold now.
        held: bool,
        /// Whether it was the other way round before.
        changed: bool,
    }
);

answer!(
    /// Answers with the caller's conversations.
    RecentAnswer {
        /// One item for each of the caller's rooms that has a message, the newest first.
        conversation: Vec<Conversation>,
        /// As of when, where that was asked for; otherwise absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        as_of: Option<Moment>,
    }
);

answer!(
    /// Answers with a part of a room's conversation.
    ConversationAnswer {
        /// The messages, oldest first, deleted ones included.
        conversation: Vec<Message>,
        /// The room's members.
        users: Vec<User>,
        /// As of when, where that was asked for; otherwise absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        as_of: Option<Moment>,
    }
);

answer!(
    /// Answers with all that a message has ever said.
    HistoryAnswer {
        /// The message and its versions.
        history: History,
    }
);

answer!(
    /// Answers a search.
    SearchAnswer {
        /// The messages that have all of the words, newest first.
        messages: Vec<Message>,
        /// Those who wrote or have read one of them.
        users: Vec<User>,
    }
);

/// How many messages were marked as read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MarkReadResult {
    /// How many messages became read for the caller; 1000 stands for that many or more.
    pub n: u64,
    /// The same.
    pub n_modified: u64,
    /// Always 1.
    pub ok: u32,
}

impl MarkReadResult {
    /// `count` messages became read.
    pub const fn new(count: u64) -> Self {
        Self {
            n: count,
            n_modified: count,
            ok: 1,
        }
    }
}

answer!(
    /// Answers a reading of a conversation.
    MarkReadAnswer {
        /// How many messages became read.
        data: MarkReadResult,
    }
);

answer!(
    /// Answers the deletion of a room.
    DeleteRoomAnswer {
        /// `Operation performed succesfully`: the spelling is the tutorial's.
        message: &'static str,
        /// 0 or 1.
        deleted_rooms_count: u64,
        /// How many messages went with the room.
        deleted_messages_count: u64,
    }
);

answer!(
    /// Answers the deletion of a message.
    DeleteMessageAnswer {
        /// 0 or 1.
        deleted_messages_count: u64,
    }
);
