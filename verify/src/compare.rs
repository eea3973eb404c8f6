//! Compares what a shard of the log comes to with what is stored of it. What has been compared is taken out
//! of the fold, so that what is left at the end is what is missing.

use std::collections::HashSet;
use std::fmt::Display;

use events::{MessageId, Position, RoomId, UserId};
use read_models::{
    Gone, ReadModelError, Snapshot, StoredEdit, StoredErasure, StoredKey, StoredMark, StoredMember,
    StoredMessage, StoredRoom, StoredText, StoredUser,
};

use crate::fold::{Edit, Fold, Mark, Message, Room, Shard, Text, TextHash, User};
use crate::keys::Keys;
use crate::report::{Kind, Report};

/// How many rows are read at a time.
const PAGE: u32 = 1_000;

const MISSING: &str = "is in the log, but not stored";
const SURPLUS: &str = "is stored, but the log gives none";

/// Does something with each row that is stored of a kind.
macro_rules! for_each_stored {
    ($snapshot:ident.$kind:ident, $key:expr, |$row:pat_param| $do:block) => {
        let mut after = None;
        loop {
            let page = $snapshot.$kind(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some($key(last));
            for $row in page $do
        }
    };
}

/// Compares keys; `void` gains what a key of an event that was set aside makes void.
pub(crate) async fn keys(
    mut keys: Keys,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    void: &mut HashSet<Position>,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    report.compared.keys += keys.first.len() as u64;
    for_each_stored!(
        snapshot.keys,
        |key: &StoredKey| key.id,
        |StoredKey { id, position }| {
            if !shard.holds(&id) || keys.is_of_set_aside(&id, position, void) {
                continue;
            }
            match keys.first.remove(&id) {
                None => report.differs(Kind::Key, id.simple(), SURPLUS.to_owned()),
                Some(expected) => {
                    let mut differing = Differing::default();
                    differing.field("position", position, expected);
                    differing.report(Kind::Key, id.simple(), report);
                }
            }
        }
    );
    for id in sorted(keys.first.into_keys()) {
        report.differs(Kind::Key, id.simple(), MISSING.to_owned());
    }
    Ok(())
}

/// Compares everything else.
pub(crate) async fn shard(
    mut fold: Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    let compared = &mut report.compared;
    compared.users += fold.users.len() as u64;
    compared.rooms += fold.rooms.len() as u64;
    compared.messages += fold.messages.len() as u64;
    compared.marks += fold.marks.len() as u64;
    compared.edits += fold.edits.len() as u64;
    members(&fold, shard, snapshot, report).await?;
    edits(&fold, shard, snapshot, report).await?;
    messages(&mut fold, shard, snapshot, report).await?;
    users(&mut fold, shard, snapshot, report).await?;
    erasures(&fold, shard, snapshot, report).await?;
    rooms(&mut fold, shard, snapshot, report).await?;
    marks(&mut fold, shard, snapshot, report).await
}

async fn users(
    fold: &mut Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    for_each_stored!(snapshot.users, |user: &StoredUser| user.row.id, |stored| {
        let id = stored.row.id;
        if !shard.holds(id.as_uuid()) {
            continue;
        }
        match fold.users.remove(&id) {
            None => report.differs(Kind::User, id, SURPLUS.to_owned()),
            Some(expected) => user(&stored, &expected).report(Kind::User, id, report),
        }
    });
    for id in sorted(fold.users.drain().map(|(id, _)| id)) {
        report.differs(Kind::User, id, MISSING.to_owned());
    }
    Ok(())
}

fn user(stored: &StoredUser, expected: &User) -> Differing {
    let row = &stored.row;
    let mut differing = Differing::default();
    differing.field(
        "the position of its creation",
        stored.created,
        expected.created,
    );
    differing.text("the first name", Some(&row.first_name), expected.first_name);
    differing.text("the last name", Some(&row.last_name), expected.last_name);
    differing.field("the type", row.user_type, expected.user_type);
    differing.field(
        "the time of its creation",
        row.created_at,
        expected.created_at,
    );
    differing.field(
        "the time of its last change",
        row.updated_at,
        expected.updated_at,
    );
    differing.field("whether it is deleted", row.deleted, expected.deleted);
    differing
}

async fn rooms(
    fold: &mut Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    for_each_stored!(snapshot.rooms, |room: &StoredRoom| room.id, |stored| {
        let id = stored.id;
        if !shard.holds(id.as_uuid()) {
            continue;
        }
        match fold.rooms.remove(&id) {
            None => report.differs(Kind::Room, id, SURPLUS.to_owned()),
            Some(expected) => room(&stored, &expected).report(Kind::Room, id, report),
        }
    });
    for id in sorted(fold.rooms.drain().map(|(id, _)| id)) {
        report.differs(Kind::Room, id, MISSING.to_owned());
    }
    Ok(())
}

fn room(stored: &StoredRoom, expected: &Room) -> Differing {
    let deletion = expected.deletion;
    let mut differing = Differing::default();
    differing.field("the type", stored.room_type, expected.room_type);
    differing.field(
        "the position of its initiation",
        stored.initiated,
        expected.initiated,
    );
    differing.optional(
        "the last message whose text has expired",
        stored.expired,
        expected.expired.map(MessageId::at),
    );
    differing.optional(
        "the position of its deletion",
        stored.deleted,
        deletion.map(|deletion| deletion.position),
    );
    differing.optional(
        "how many messages went with it",
        stored.deleted_messages,
        deletion.map(|deletion| deletion.messages),
    );
    differing
}

/// Members come before anything is taken out: their unread counts need the messages.
async fn members(
    fold: &Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    let name = |(room, user): (RoomId, UserId)| format!("{user} of room {room}");
    let mut missing: HashSet<(RoomId, UserId)> = HashSet::new();
    for (id, room) in &fold.rooms {
        missing.extend(room.members.iter().map(|member| (*id, *member)));
    }
    report.compared.members += missing.len() as u64;
    let key = |member: &StoredMember| (member.room, member.user);
    for_each_stored!(snapshot.members, key, |stored| {
        if !shard.holds(stored.room.as_uuid()) {
            continue;
        }
        let key = (stored.room, stored.user);
        let Some(room) = fold
            .rooms
            .get(&stored.room)
            .filter(|_| missing.remove(&key))
        else {
            report.differs(Kind::Member, name(key), SURPLUS.to_owned());
            continue;
        };
        let mut differing = Differing::default();
        differing.optional(
            "the room's newest message in the list of recent rooms",
            stored.last_message,
            fold.last_message(room).map(MessageId::at),
        );
        differing.field(
            "the number of unread messages",
            snapshot.unread(stored.room, stored.user).await?,
            fold.unread(room, stored.user),
        );
        differing.report(Kind::Member, name(key), report);
    });
    for key in sorted(missing.into_iter()) {
        report.differs(Kind::Member, name(key), MISSING.to_owned());
    }
    Ok(())
}

async fn erasures(
    fold: &Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    let erased = fold.erasures.keys().copied();
    let mut missing: HashSet<UserId> = erased.filter(|id| shard.holds(id.as_uuid())).collect();
    report.compared.erasures += missing.len() as u64;
    for_each_stored!(
        snapshot.erasures,
        |erasure: &StoredErasure| erasure.user,
        |stored| {
            let id = stored.user;
            if !shard.holds(id.as_uuid()) {
                continue;
            }
            let Some(expected) = fold.erasures.get(&id).filter(|_| missing.remove(&id)) else {
                report.differs(Kind::Erasure, id, SURPLUS.to_owned());
                continue;
            };
            let mut differing = Differing::default();
            differing.field("position", stored.position, expected.position);
            differing.gone("it", Some(stored.gone), Some(expected.gone));
            differing.report(Kind::Erasure, id, report);
        }
    );
    for id in sorted(missing.into_iter()) {
        report.differs(Kind::Erasure, id, MISSING.to_owned());
    }
    Ok(())
}

/// Edits come before any message is taken out: whether their texts are gone is seen from it.
async fn edits(
    fold: &Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    let mut missing: HashSet<Position> = fold.edits.keys().copied().collect();
    for_each_stored!(
        snapshot.edits,
        |edit: &StoredEdit| edit.edit.position,
        |stored| {
            let id = stored.edit.position;
            match fold.edits.get(&id).filter(|_| missing.remove(&id)) {
                Some(expected) => {
                    let mut differing = Differing::default();
                    differing.field("the room", stored.room, expected.room);
                    differing.field(
                        "the message",
                        stored.message,
                        MessageId::at(expected.message),
                    );
                    let message = &fold.messages[&expected.message];
                    differing.edit(fold, message, &stored.edit, expected);
                    differing.report(Kind::Edit, id, report);
                }
                None if shard.holds(stored.room.as_uuid()) => {
                    report.differs(Kind::Edit, id, SURPLUS.to_owned());
                }
                None => {}
            }
        }
    );
    for id in sorted(missing.into_iter()) {
        report.differs(Kind::Edit, id, MISSING.to_owned());
    }
    Ok(())
}

/// Messages come before rooms are taken out: whether their texts have expired is seen from these.
async fn messages(
    fold: &mut Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    for_each_stored!(
        snapshot.messages,
        |message: &StoredMessage| message.id,
        |stored| {
            let id = stored.id;
            match fold.messages.remove(&id.position()) {
                Some(expected) => {
                    message(fold, &stored, &expected).report(Kind::Message, id, report);
                }
                // Of another shard, unless its room says that it should be here.
                None if shard.holds(stored.room.as_uuid()) => {
                    report.differs(Kind::Message, id, SURPLUS.to_owned());
                }
                None => {}
            }
        }
    );
    for id in sorted(fold.messages.drain().map(|(id, _)| id)) {
        report.differs(Kind::Message, id, MISSING.to_owned());
    }
    Ok(())
}

fn message(fold: &Fold, stored: &StoredMessage, expected: &Message) -> Differing {
    let deletion = expected.deletion.as_deref();
    let mut differing = Differing::default();
    differing.field("the room", stored.room, expected.room);
    differing.field("the author", stored.author, expected.author);
    differing.text(
        "the text",
        stored.text.as_deref(),
        fold.text(stored.id.position(), expected, expected.text),
    );
    differing.field(
        "the time of posting",
        stored.created_at,
        expected.created_at,
    );
    differing.optional(
        "the position of the newest edit",
        stored.edit.as_ref().map(|edit| edit.position),
        expected.edit,
    );
    if let Some(edit) = &stored.edit
        && let Some(newest) = fold.edits.get(&edit.position)
        && newest.message == stored.id.position()
    {
        differing.edit(fold, expected, edit, newest);
    }
    differing.field("whether it is deleted", stored.deleted, deletion.is_some());
    differing.optional(
        "the position of its deletion",
        stored.deletion.as_ref().map(|deletion| deletion.position),
        deletion.map(|deletion| deletion.position),
    );
    differing.gone(
        "its deletion",
        stored.deletion.as_ref().map(|deletion| deletion.gone),
        deletion.map(|deletion| deletion.gone),
    );
    differing
}

async fn marks(
    fold: &mut Fold,
    shard: Shard,
    snapshot: &mut dyn Snapshot,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    for_each_stored!(
        snapshot.marks,
        |mark: &StoredMark| mark.position,
        |stored| {
            let id = stored.position;
            match fold.marks.remove(&id) {
                Some(expected) => mark(&stored, &expected).report(Kind::Mark, id, report),
                None if shard.holds(stored.room.as_uuid()) => {
                    report.differs(Kind::Mark, id, SURPLUS.to_owned());
                }
                None => {}
            }
        }
    );
    for id in sorted(fold.marks.drain().map(|(id, _)| id)) {
        report.differs(Kind::Mark, id, MISSING.to_owned());
    }
    Ok(())
}

fn mark(stored: &StoredMark, expected: &Mark) -> Differing {
    let mut differing = Differing::default();
    differing.field("the room", stored.room, expected.room);
    differing.field("the reader", stored.reader, expected.reader);
    differing.field("after which message", stored.from, expected.from);
    differing.field("up to which message", stored.up_to, expected.up_to);
    differing.field("the time of reading", stored.at, expected.at);
    differing
}

/// What is not there comes in an order that is the same each time.
fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items
}

/// The fields in which a row differs.
#[derive(Default)]
struct Differing(Vec<String>);

impl Differing {
    fn field<T: PartialEq + Display>(&mut self, name: &str, stored: T, expected: T) {
        if stored != expected {
            self.0
                .push(format!("{name} is {stored}, should be {expected}"));
        }
    }

    fn optional<T: PartialEq + Display>(
        &mut self,
        name: &str,
        stored: Option<T>,
        expected: Option<T>,
    ) {
        let shown = |value: Option<T>| value.map_or_else(|| "none".to_owned(), |it| it.to_string());
        self.field(name, shown(stored), shown(expected));
    }

    /// What a message says since an edit.
    fn edit(&mut self, fold: &Fold, message: &Message, stored: &StoredText, expected: &Edit) {
        self.field("the time of the edit", stored.at, expected.at);
        self.text(
            "the edited text",
            stored.text.as_deref(),
            fold.text(expected.message, message, expected.text),
        );
    }

    fn gone(&mut self, name: &str, stored: Option<Gone>, expected: Option<Gone>) {
        let time = |gone: Gone| gone.at;
        self.optional(
            &format!("the time of {name}"),
            stored.map(time),
            expected.map(time),
        );
        let by = |gone: Gone| gone.by;
        self.optional(
            &format!("who is behind {name}"),
            stored.and_then(by),
            expected.and_then(by),
        );
    }

    /// Nothing that people wrote is shown.
    fn text(&mut self, name: &str, stored: Option<&str>, expected: Text) {
        self.0.extend(match (stored, expected) {
            (Some(_), Text::Gone) => Some(format!("{name} is there, should be gone")),
            (None, Text::Is(_)) => Some(format!("{name} is gone, should be there")),
            (Some(stored), Text::Is(expected)) if TextHash::of(stored) != expected => {
                Some(format!("{name} is not the one in the log"))
            }
            _ => None,
        });
    }

    fn report(self, kind: Kind, id: impl Display, report: &mut Report) {
        if !self.0.is_empty() {
            report.differs(kind, id, self.0.join("; "));
        }
    }
}
