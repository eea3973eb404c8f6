//! The indexes of a generation, in versioned steps: each is done once, and noted as done.
//!
//! A step may be added without a new schema: the next projector that starts does it on the generations
//! that there are. Many may do it at once, since creating an index that is there does nothing; a step that
//! was cut off is repeated. A step that has been released is never changed.

use mongodb::IndexModel;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::IndexOptions;
use serde::{Deserialize, Serialize};

use super::{
    EDITS_OF_MESSAGE, MESSAGES_BY_WORD, MESSAGES_OF_AUTHORS, MESSAGES_OF_ROOM, ROOMS_OF_TYPE,
    Store, failure, insert,
};
use crate::ReadModelError;

/// An index to create.
struct Index {
    /// The collection's name, without the generation's prefix.
    collection: &'static str,
    keys: Document,
    name: &'static str,
}

/// Every step, the first first.
fn steps() -> Vec<Vec<Index>> {
    let index = |collection, keys, name| Index {
        collection,
        keys,
        name,
    };
    vec![vec![
        index(
            "users",
            doc! { "deleted": 1, "position": 1 },
            "deleted_position",
        ),
        index(
            "rooms",
            doc! { "members": 1, "lastMessage": -1 },
            "members_last",
        ),
        index(
            "messages",
            doc! { "room": 1, "deleted": 1, "_id": -1 },
            MESSAGES_OF_ROOM,
        ),
        index(
            "messages",
            doc! { "room": 1, "deleted": 1, "author": 1, "_id": 1 },
            MESSAGES_OF_AUTHORS,
        ),
        index(
            "messages",
            doc! { "room": 1, "words": 1, "_id": -1 },
            MESSAGES_BY_WORD,
        ),
        index("rooms", doc! { "type": 1, "_id": 1 }, ROOMS_OF_TYPE),
        index(
            "edits",
            doc! { "room": 1, "message": 1, "_id": 1 },
            EDITS_OF_MESSAGE,
        ),
        index(
            "marks",
            doc! { "room": 1, "reader": 1, "upTo": 1 },
            "room_reader_up_to",
        ),
    ]]
}

/// In `migrations`: that a step was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct MigrationDocument {
    /// The step's number, from 1.
    #[serde(rename = "_id")]
    step: i64,
    at: DateTime,
}

impl Store {
    /// Does the steps that have not been done.
    pub(super) async fn migrate(self) -> Result<(), ReadModelError> {
        let migrations = self.collection::<MigrationDocument>("migrations");
        for (step, indexes) in (1..).zip(steps()) {
            let done = migrations.find_one(doc! { "_id": step });
            if done.await.map_err(failure)?.is_some() {
                continue;
            }
            for index in indexes {
                let options = IndexOptions::builder().name(index.name.to_owned()).build();
                let model = IndexModel::builder()
                    .keys(index.keys)
                    .options(options)
                    .build();
                let collection = self.collection::<Document>(index.collection);
                collection.create_index(model).await.map_err(failure)?;
            }
            let at = DateTime::now();
            insert(&migrations, vec![MigrationDocument { step, at }]).await?;
        }
        Ok(())
    }
}
