//! The catalogue of generations in a MongoDB database: one document, so that each change is one guarded
//! update.

use std::sync::Arc;

use async_trait::async_trait;
use mongodb::Collection;
use mongodb::bson::{Bson, doc, to_bson};
use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::tree::MongoTree;
use super::{MongoReadModels, QUERY_LIMIT, Store, WRITE_LIMIT, failure, insert, prefix};
use crate::{
    Catalogue, Generation, Generations, Projection, ReadModelError, SCHEMA, State, TreeStore,
};

/// The id of the only document.
const CATALOGUE: &str = "catalogue";

/// The catalogue of the generations in a MongoDB database.
pub struct MongoCatalogue {
    connection: Connection,
    documents: Collection<CatalogueDocument>,
    schema: u32,
}

/// In `catalogue`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct CatalogueDocument {
    #[serde(rename = "_id")]
    id: String,
    last: u32,
    generations: Vec<GenerationDocument>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct GenerationDocument {
    number: u32,
    schema: u32,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl MongoCatalogue {
    /// The catalogue in the database at `url`, a connection string that names the database. Does no I/O
    /// (except that `mongodb+srv` is looked up): servers are contacted in the background and when needed.
    ///
    /// # Errors
    /// [`ReadModelError::Unusable`] when `url` is not such a connection string.
    pub async fn open(url: &str) -> Result<Self, ReadModelError> {
        let connection = Connection::open(url).await?;
        Ok(Self {
            documents: connection.database().collection("catalogue"),
            connection,
            schema: SCHEMA,
        })
    }

    /// As a program with another schema would use it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }
}

#[async_trait]
impl Catalogue for MongoCatalogue {
    fn schema(&self) -> u32 {
        self.schema
    }

    async fn prepare(&self) -> Result<(), ReadModelError> {
        let documents = self.documents.clone();
        let empty = CatalogueDocument {
            id: CATALOGUE.to_owned(),
            ..CatalogueDocument::default()
        };
        let preparing = async move { insert(&documents, vec![empty]).await };
        self.connection.run(QUERY_LIMIT, preparing).await
    }

    async fn generations(&self) -> Result<Generations, ReadModelError> {
        let documents = self.documents.clone();
        let finding = async move {
            let found = documents.find_one(doc! { "_id": CATALOGUE });
            found.await.map_err(failure)
        };
        let found = self.connection.run(QUERY_LIMIT, finding).await?;
        Ok(
            found.map_or_else(Generations::default, |found| Generations {
                last: found.last,
                all: found
                    .generations
                    .into_iter()
                    .map(Generation::from)
                    .collect(),
            }),
        )
    }

    async fn add(&self, last: u32, state: State) -> Result<Option<Generation>, ReadModelError> {
        let documents = self.documents.clone();
        let added = GenerationDocument {
            number: last + 1,
            schema: self.schema,
            state,
            note: None,
        };
        let stored = bson(&added)?;
        let adding = async move {
            let updated = documents.update_one(
                doc! { "_id": CATALOGUE, "last": last },
                doc! { "$set": { "last": last + 1 }, "$push": { "generations": stored } },
            );
            updated.await.map_err(failure)
        };
        let updated = self.connection.run(QUERY_LIMIT, adding).await?;
        Ok((updated.matched_count == 1).then(|| added.into()))
    }

    async fn change(
        &self,
        number: u32,
        from: State,
        to: State,
        note: Option<&str>,
    ) -> Result<bool, ReadModelError> {
        let documents = self.documents.clone();
        let filter = doc! {
            "_id": CATALOGUE,
            "generations": { "$elemMatch": { "number": number, "state": from.as_str() } },
        };
        let mut change = doc! { "generations.$.state": to.as_str() };
        if let Some(note) = note {
            change.insert("generations.$.note", note);
        }
        let changing = async move {
            let updated = documents.update_one(filter, doc! { "$set": change });
            updated.await.map_err(failure)
        };
        let updated = self.connection.run(QUERY_LIMIT, changing).await?;
        Ok(updated.matched_count == 1)
    }

    async fn heartbeat(&self, number: u32) -> Result<Option<u64>, ReadModelError> {
        let store = Store::of(self.connection.clone(), number);
        let checkpoint = self.connection.run(QUERY_LIMIT, store.checkpoint()).await?;
        Ok(checkpoint.map(|checkpoint| checkpoint.heartbeat))
    }

    async fn remove(&self, number: u32) -> Result<(), ReadModelError> {
        let (documents, connection) = (self.documents.clone(), self.connection.clone());
        let removing = async move {
            let database = connection.database();
            let names = database.list_collection_names().await.map_err(failure)?;
            let prefix = prefix(number);
            for name in names.iter().filter(|name| name.starts_with(&prefix)) {
                let collection = database.collection::<CatalogueDocument>(name);
                collection.drop().await.map_err(failure)?;
            }
            let store = Store::of(connection.clone(), number);
            let checkpoint = store.checkpoints.delete_one(doc! { "_id": store.number });
            checkpoint.await.map_err(failure)?;
            let forgotten = documents.update_one(
                doc! { "_id": CATALOGUE },
                doc! { "$pull": { "generations": { "number": number } } },
            );
            forgotten.await.map_err(failure)?;
            Ok(())
        };
        self.connection.run(WRITE_LIMIT, removing).await
    }

    async fn open(&self, number: u32) -> Result<Arc<dyn Projection>, ReadModelError> {
        let connection = self.connection.clone();
        Ok(Arc::new(MongoReadModels::generation(connection, number)))
    }

    fn tree(&self) -> Arc<dyn TreeStore> {
        Arc::new(MongoTree::new(self.connection.clone()))
    }
}

impl From<GenerationDocument> for Generation {
    fn from(document: GenerationDocument) -> Self {
        Self {
            number: document.number,
            schema: document.schema,
            state: document.state,
            note: document.note,
        }
    }
}

fn bson(document: &GenerationDocument) -> Result<Bson, ReadModelError> {
    to_bson(document).map_err(|error| ReadModelError::Unusable(error.to_string()))
}
