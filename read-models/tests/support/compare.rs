//! Every query put to read models and to the reference model, with equal answers expected; and all that is
//! stored verified against the log.

use events::{Envelope, Event, MessageId, Position, RoomType, Timestamp};
use read_models::{Entry, Page, PageStart, Projection, Search, Words};

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

/// Searches for what the messages say: words of theirs, whole texts, two texts at once, and nothing.
fn searches(entries: &[Entry], thorough: bool) -> Vec<Search> {
    let texts: Vec<&str> = entries
        .iter()
        .filter_map(|entry| match &entry.envelope.event {
            Event::MessagePosted(event) => event.message_text.as_deref(),
            Event::MessageEdited(event) => event.message_text.as_deref(),
            _ => None,
        })
        .collect();
    let mut queries: Vec<String> = vec![" ?".to_owned(), "absent".to_owned()];
    let step = if thorough { 1 } else { 1 + texts.len() / 6 };
    for (text, other) in texts.iter().zip(texts.iter().rev()).step_by(step) {
        queries.push((*text).to_owned());
        queries.push(text.to_uppercase());
        queries.push(format!("{other} {text}"));
        queries.extend(Words::of(text).iter().take(2).map(str::to_owned));
    }
    let last = entries.last().map_or(0, |entry| entry.position.get());
    let parts = [(None, 100), (Some(1 + last / 2), 2), (Some(u64::MAX), 1)];
    let mut searches = Vec::new();
    for (index, query) in queries.iter().enumerate() {
        let (before, limit) = parts[index % parts.len()];
        let rooms = history::rooms();
        for room in [None, Some(rooms[index % rooms.len()])] {
            searches.push(Search {
                words: Words::of(query),
                room,
                before: before.map(|sequence| MessageId::at(Position::new(sequence))),
                limit,
            });
        }
    }
    searches
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
    for entry in entries {
        let message = match &entry.envelope.event {
            Event::MessagePosted(_) => MessageId::at(entry.position),
            Event::MessageEdited(event) => event.message_id,
            _ => continue,
        };
        let own = entry.envelope.event.room();
        for room in own.into_iter().chain(history::rooms().first().copied()) {
            assert_eq!(
                read_models.history(room, message).await.unwrap(),
                model.history(room, message),
                "{room} {message}"
            );
        }
    }
    for room in history::rooms() {
        assert_eq!(
            read_models.oldest_unexpired(room).await.unwrap(),
            model.oldest_unexpired(room),
            "{room}"
        );
    }
    let after = history::rooms()[0];
    for (before, after, limit) in [(0, None, 9), (500, None, 2), (2_000, Some(after), 9)] {
        let before = Timestamp::from_millis(1_700_000_000_000 + before).unwrap();
        for room_type in RoomType::ALL {
            assert_eq!(
                read_models
                    .expirable(*room_type, before, after, limit)
                    .await
                    .unwrap(),
                model.expirable(*room_type, before, after, limit),
                "{before} {after:?}"
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
    for (index, search) in searches(entries, thorough).into_iter().enumerate() {
        let user = history::user(index as u8 / 2 % USERS);
        assert_eq!(
            read_models.search(user, search.clone()).await.unwrap(),
            model.search(user, &search),
            "{user} {search:?}"
        );
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
