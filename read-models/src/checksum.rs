//! Checksums of everything that is stored, the same for every adapter: whether two stores hold the same is
//! seen without comparing them row by row.

use sha2::{Digest, Sha256};

use crate::snapshot::{
    Snapshot, StoredDeletion, StoredEdit, StoredErasure, StoredKey, StoredMark, StoredMember,
    StoredMessage, StoredRoom, StoredText, StoredUser,
};
use crate::{Gone, ReadModelError, UserRow};

/// How many rows are read at a time.
const PAGE: u32 = 1_000;

/// The checksum of one kind of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// Which kind: `users`, `erasures`, `rooms`, `members`, `messages`, `edits`, `marks` or `keys`.
    pub of: &'static str,
    /// How many there are.
    pub rows: u64,
    /// SHA-256 over all of them in key order.
    pub sha256: [u8; 32],
}

/// The checksums of each kind of rows that the log gives. Dead letters are not part of it: what could not
/// be projected may differ from one attempt to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums(pub Vec<Checksum>);

impl Checksums {
    /// Reads all of `snapshot`.
    ///
    /// # Errors
    /// [`ReadModelError`].
    pub async fn of(snapshot: &mut dyn Snapshot) -> Result<Self, ReadModelError> {
        /// Reads one kind to its end.
        macro_rules! sum {
            ($of:ident, $key:expr) => {{
                let mut sum = Sum::default();
                let mut after = None;
                loop {
                    let page = snapshot.$of(after, PAGE).await?;
                    let Some(last) = page.last() else { break };
                    after = Some($key(last));
                    page.iter().for_each(|row| sum.add(row));
                }
                sum.finish(stringify!($of))
            }};
        }
        let sums = vec![
            sum!(users, |user: &StoredUser| user.row.id),
            sum!(erasures, |erasure: &StoredErasure| erasure.user),
            sum!(rooms, |room: &StoredRoom| room.id),
            sum!(members, |member: &StoredMember| (member.room, member.user)),
            sum!(messages, |message: &StoredMessage| message.id),
            sum!(edits, |edit: &StoredEdit| edit.edit.position),
            sum!(marks, |mark: &StoredMark| mark.position),
            sum!(keys, |key: &StoredKey| key.id),
        ];
        snapshot.finish().await?;
        Ok(Self(sums))
    }

    /// The kinds whose rows are not the same in `other`.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .filter(|(one, other)| one != other)
            .map(|(one, _)| one.of)
            .collect()
    }
}

#[derive(Default)]
struct Sum {
    rows: u64,
    hash: Sha256,
    row: Vec<u8>,
}

impl Sum {
    fn add(&mut self, row: &impl Encode) {
        self.rows += 1;
        self.row.clear();
        row.encode(&mut self.row);
        self.hash.update(&self.row);
    }

    fn finish(self, of: &'static str) -> Checksum {
        Checksum {
            of,
            rows: self.rows,
            sha256: self.hash.finalize().into(),
        }
    }
}

/// A row as bytes, in one way only: numbers and ids in fixed widths, texts with their length, and what may
/// be missing with a byte that says whether it is there.
trait Encode {
    fn encode(&self, to: &mut Vec<u8>);
}

impl Encode for u64 {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.to_be_bytes());
    }
}

impl Encode for bool {
    fn encode(&self, to: &mut Vec<u8>) {
        to.push((*self).into());
    }
}

impl Encode for str {
    fn encode(&self, to: &mut Vec<u8>) {
        (self.len() as u64).encode(to);
        to.extend(self.as_bytes());
    }
}

impl Encode for String {
    fn encode(&self, to: &mut Vec<u8>) {
        self.as_str().encode(to);
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, to: &mut Vec<u8>) {
        self.is_some().encode(to);
        if let Some(value) = self {
            value.encode(to);
        }
    }
}

impl Encode for uuid::Uuid {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.as_bytes());
    }
}

impl Encode for events::UserId {
    fn encode(&self, to: &mut Vec<u8>) {
        self.as_uuid().encode(to);
    }
}

impl Encode for events::RoomId {
    fn encode(&self, to: &mut Vec<u8>) {
        self.as_uuid().encode(to);
    }
}

impl Encode for events::Position {
    fn encode(&self, to: &mut Vec<u8>) {
        self.get().encode(to);
    }
}

impl Encode for events::MessageId {
    fn encode(&self, to: &mut Vec<u8>) {
        self.position().encode(to);
    }
}

impl Encode for events::Timestamp {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.as_millis().to_be_bytes());
    }
}

impl Encode for StoredUser {
    fn encode(&self, to: &mut Vec<u8>) {
        // Taken apart, so that a new field can't be forgotten; below as well.
        let Self { row, created } = self;
        let UserRow {
            id,
            first_name,
            last_name,
            user_type,
            created_at,
            updated_at,
            deleted,
        } = row;
        id.encode(to);
        created.encode(to);
        first_name.encode(to);
        last_name.encode(to);
        user_type.as_str().encode(to);
        created_at.encode(to);
        updated_at.encode(to);
        deleted.encode(to);
    }
}

impl Encode for StoredRoom {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self {
            id,
            room_type,
            initiated,
            expired,
            deleted,
            deleted_messages,
        } = self;
        id.encode(to);
        room_type.as_str().encode(to);
        initiated.encode(to);
        expired.encode(to);
        deleted.encode(to);
        deleted_messages.encode(to);
    }
}

impl Encode for StoredMember {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self {
            room,
            user,
            last_message,
        } = self;
        room.encode(to);
        user.encode(to);
        last_message.encode(to);
    }
}

impl Encode for StoredMessage {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self {
            id,
            room,
            author,
            text,
            created_at,
            edit,
            deleted,
            deletion,
        } = self;
        id.encode(to);
        room.encode(to);
        author.encode(to);
        text.encode(to);
        created_at.encode(to);
        edit.encode(to);
        deleted.encode(to);
        deletion.encode(to);
    }
}

impl Encode for StoredText {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self { position, text, at } = self;
        position.encode(to);
        text.encode(to);
        at.encode(to);
    }
}

impl Encode for StoredDeletion {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self { position, gone } = self;
        position.encode(to);
        gone.encode(to);
    }
}

impl Encode for Gone {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self { at, by } = self;
        at.encode(to);
        by.encode(to);
    }
}

impl Encode for StoredEdit {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self {
            room,
            message,
            edit,
        } = self;
        room.encode(to);
        message.encode(to);
        edit.encode(to);
    }
}

impl Encode for StoredErasure {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self {
            user,
            position,
            gone,
        } = self;
        user.encode(to);
        position.encode(to);
        gone.encode(to);
    }
}

impl Encode for StoredMark {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self {
            position,
            room,
            reader,
            from,
            up_to,
            at,
        } = self;
        position.encode(to);
        room.encode(to);
        reader.encode(to);
        from.encode(to);
        up_to.encode(to);
        at.encode(to);
    }
}

impl Encode for StoredKey {
    fn encode(&self, to: &mut Vec<u8>) {
        let Self { id, position } = self;
        id.encode(to);
        position.encode(to);
    }
}
