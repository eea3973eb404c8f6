//! The ports to the read models, [`ReadModels`], [`Projection`] and [`Catalogue`], and to what is kept beside
//! them, [`TreeStore`]; and their adapters: MongoDB and SQLite.
//!
//! Read models are derived from the log and nothing else. There may be several generations of them, which
//! the [`Catalogue`] lists: one that is read, and one that is being built to take its place. A projector
//! writes each with [`Projection::apply`]; queries read the [`Live`] one. Both adapters, and the in-memory
//! model in the tests, give the same answers to the same log.

mod catalogue;
mod checksum;
mod live;
mod mongo;
mod port;
mod progress;
mod receipts;
mod rows;
mod snapshot;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod tree;
mod url;
mod words;

use std::path::Path;
use std::sync::Arc;

pub use crate::catalogue::{Catalogue, Generation, Generations, State};
pub use crate::checksum::{Checksum, Checksums};
pub use crate::live::Live;
#[cfg(feature = "testing")]
pub use crate::mongo::Phase;
pub use crate::mongo::{MongoCatalogue, MongoReadModels};
pub use crate::port::{Projection, ReadModelError, ReadModels};
pub use crate::progress::Progress;
pub use crate::rows::{
    Batch, COUNT_CAP, Checkpoint, ConversationRow, DeadLetter, Entry, Fence, Gone, HistoryRow,
    Lease, Left, MAX_PAGE, MessageRow, Page, PageStart, Receipt, RecentRow, RoomDeletion, RoomRow,
    Search, UserRow, VersionRow,
};
pub use crate::snapshot::{
    Snapshot, StoredDeletion, StoredEdit, StoredErasure, StoredKey, StoredMark, StoredMember,
    StoredMessage, StoredRoom, StoredText, StoredUser,
};
pub use crate::sqlite::{SqliteCatalogue, SqliteReadModels};
pub use crate::tree::{KeptTree, TreeStore, TreeStoreError};
pub use crate::url::{InvalidReadModelsUrl, ReadModelsUrl};
pub use crate::words::Words;

/// The version of what is stored and how. A program reads and writes generations of its own version only:
/// whoever changes the tables, the documents or what is made of an event raises it, and the projector then
/// builds a new generation. An index can be added without it, see `mongo/migrations.rs`.
pub const SCHEMA: u32 = 2;

/// Opens the read models at `url`. A SQLite file is opened or created; MongoDB is first contacted when it
/// is used, so that a process can start before it.
///
/// # Errors
/// [`ReadModelError`].
pub async fn open(
    url: &ReadModelsUrl,
    data_dir: &Path,
) -> Result<Arc<dyn Catalogue>, ReadModelError> {
    match url {
        ReadModelsUrl::Sqlite(path) => {
            Ok(Arc::new(SqliteCatalogue::open(&data_dir.join(path)).await?))
        }
        ReadModelsUrl::MongoDb(url) => Ok(Arc::new(MongoCatalogue::open(url).await?)),
    }
}
