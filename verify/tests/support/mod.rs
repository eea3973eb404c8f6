//! What the tests of verification share, with what they take from the tests of the read models.
#![allow(dead_code)]

#[path = "../../../read-models/tests/support/compare.rs"]
pub mod compare;
#[path = "../../../read-models/tests/support/history.rs"]
pub mod history;
#[path = "../../../read-models/tests/support/model.rs"]
pub mod model;
#[path = "../../../read-models/tests/support/record.rs"]
pub mod record;

use std::sync::Arc;

use mongodb::bson::{Document, doc};
use read_models::testing::TestDatabase;
use read_models::{Batch, Entry, Fence, MongoReadModels, Projection, SqliteReadModels};

use history::History;

/// Where read models are stored, made anew for each use.
pub enum Store {
    Sqlite(tempfile::TempDir),
    Mongo(TestDatabase),
}

impl Store {
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// Unless there is no server and none is wanted.
    pub fn mongo() -> Option<Self> {
        TestDatabase::new().map(Self::Mongo)
    }

    /// Every kind that can be had.
    pub fn all() -> Vec<Self> {
        std::iter::once(Self::sqlite())
            .chain(Self::mongo())
            .collect()
    }

    pub async fn open(&self) -> Arc<dyn Projection> {
        match self {
            Self::Sqlite(directory) => {
                let path = directory.path().join("read.db");
                Arc::new(SqliteReadModels::open(&path).await.unwrap())
            }
            Self::Mongo(database) => Arc::new(MongoReadModels::open(&database.url).await.unwrap()),
        }
    }

    /// With the history in them.
    pub async fn filled(&self, history: &History) -> Arc<dyn Projection> {
        let read_models = self.open().await;
        read_models.prepare().await.unwrap();
        let all = batch(&history.entries, history);
        read_models.apply(&all).await.unwrap();
        read_models
    }

    /// Changes one row past the port, by hand: with this statement, or with this update of what matches.
    pub async fn tamper(&self, sql: &str, collection: &str, filter: Document, update: Document) {
        match self {
            Self::Sqlite(directory) => {
                let path = directory.path().join("read.db");
                let connection = rusqlite::Connection::open(path).unwrap();
                assert_eq!(connection.execute(sql, []).unwrap(), 1, "{sql}");
            }
            Self::Mongo(database) => {
                let database = database.connect().await.unwrap();
                // Of the first generation.
                let collection = database.collection::<Document>(&format!("g1_{collection}"));
                if update.is_empty() {
                    let removed = collection.delete_one(filter.clone()).await.unwrap();
                    assert_eq!(removed.deleted_count, 1, "{filter}");
                    return;
                }
                // Writes what is not there, as INSERT does.
                let changed = collection
                    .update_one(filter.clone(), update)
                    .upsert(true)
                    .await
                    .unwrap();
                let changed = changed.modified_count + u64::from(changed.upserted_id.is_some());
                assert_eq!(changed, 1, "{filter}");
            }
        }
    }

    pub async fn remove(self) {
        if let Self::Mongo(database) = self {
            database.drop_database().await.unwrap();
        }
    }
}

/// These events of the history, as the batch that ends with it.
pub fn batch(entries: &[Entry], history: &History) -> Batch {
    Batch {
        incarnation: record::incarnation(),
        entries: entries.to_vec(),
        up_to: history.last(),
        fence: Fence::default(),
    }
}

/// Nothing to update with: removes.
pub fn removal() -> Document {
    doc! {}
}
