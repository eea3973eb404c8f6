//! Every query put to read models and to the reference model, with equal answers expected; and all that is
//! stored verified against the log.

use events::{Envelope, Event, MessageId, Position};
use read_models::{Entry, Page, PageStart, Projection};

use super::history::{self, USERS};
use super::model::Model;
use super::record::assert_verified;

fn pages(entries: &[Entry], thorough: bool) -> Vec<Page> {
    let last = entries.last().map_or(0, |entry| entry.position.get());
    let limits: &[u32] = if thorough { &[1, 3, 100] } else { &[2, 100] };
    let mut starts: Vec<PageStart> = (0..3).map(PageStart::Number).collect();
    let step = if thorough { 1 + last / 5 } else { 1 + last / 3 };
    for sequence in (0..=last + 1).step_by(step as usize).chain([u64::MAX]) {
        let message = MessageId::at(Position::new(sequence));
        starts.push(PageStart::Before(message));
        starts.push(PageStart::After(message));
    }
    let pages = limits.iter().flat_map(|limit| {
        starts.iter().map(|start| Page {
            start: *start,
            limit: *limit,
        })
    });
    pages.collect()
}

/// Compares the answers after `entries`. `thorough` puts many more pages to the test.
pub async fn compare(read_models: &dyn Projection, entries: &[Entry], thorough: bool) {
    let mut model = Model::default();
    entries.iter().for_each(|entry| model.apply(entry));

    assert_eq!(read_models.users().await.unwrap(), model.users());
    let mut ids: Vec<_> = (0..USERS + 1).map(history::user).collect();
    ids.push(ids[0]);
    let mut found = read_models.users_by_id(&ids).await.unwrap();
    let mut expected = model.users_by_id(&ids);
    found.sort_unstable_by_key(|user| user.id);
    expected.sort_unstable_by_key(|user| user.id);
    assert_eq!(found, expected);

    let pages = pages(entries, thorough);
    for room in history::rooms() {
        assert_eq!(read_models.room(room).await.unwrap(), model.room(room));
        assert_eq!(
            read_models.room_deletion(room).await.unwrap(),
            model.room_deletion(room)
        );
        for page in &pages {
            assert_eq!(
                read_models.conversation(room, *page).await.unwrap(),
                model.conversation(room, *page),
                "{room} {page:?}"
            );
        }
    }
    for number in 0..USERS {
        let user = history::user(number);
        for page in &pages {
            assert_eq!(
                read_models.recent(user, *page).await.unwrap(),
                model.recent(user, *page),
                "{user} {page:?}"
            );
        }
    }
    for Entry { position, envelope } in entries {
        match &envelope.event {
            Event::ConversationRead(_) => assert_eq!(
                read_models.newly_read(*position).await.unwrap(),
                model.newly_read(*position),
                "{position}"
            ),
            Event::MessageDeleted(event) => assert_eq!(
                read_models
                    .deleted_by(event.message_id, *position)
                    .await
                    .unwrap(),
                model.deleted_by(event.message_id, *position),
                "{position}"
            ),
            _ => {}
        }
        let Some(key) = &envelope.key else { continue };
        let id = Envelope::deduplication_id_for(envelope.actor, key);
        assert_eq!(
            read_models.position_of_key(id).await.unwrap(),
            model.position_of_key(id)
        );
    }
    assert_verified(entries, read_models).await;
}
