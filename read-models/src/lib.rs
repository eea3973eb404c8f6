//! The port to the read models, [`ReadModels`], and its adapters: MongoDB and SQLite.
//!
//! Read models are derived from the log and nothing else. The projector writes them with
//! [`ReadModels::apply`]; queries read them. Both adapters, and the in-memory model in the tests, give the
//! same answers to the same log.

mod mongo;
mod port;
mod progress;
mod receipts;
mod rows;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod url;
mod words;

use std::path::Path;
use std::sync::Arc;

pub use crate::mongo::MongoReadModels;
#[cfg(feature = "testing")]
pub use crate::mongo::Phase;
pub use crate::port::{ReadModelError, ReadModels};
pub use crate::progress::Progress;
pub use crate::rows::{
    Batch, COUNT_CAP, Checkpoint, DeadLetter, Entry, MAX_PAGE, MessageRow, Page, PageStart,
    Receipt, RecentRow, RoomDeletion, RoomRow, Search, UserRow,
};
pub use crate::sqlite::SqliteReadModels;
pub use crate::url::{InvalidReadModelsUrl, ReadModelsUrl};
pub use crate::words::Words;

/// Opens the read models at `url`. A SQLite file is opened or created; MongoDB is first contacted when it
/// is used, so that a process can start before it.
///
/// # Errors
/// [`ReadModelError`].
pub async fn open(
    url: &ReadModelsUrl,
    data_dir: &Path,
) -> Result<Arc<dyn ReadModels>, ReadModelError> {
    match url {
        ReadModelsUrl::Sqlite(path) => Ok(Arc::new(
            SqliteReadModels::open(&data_dir.join(path)).await?,
        )),
        ReadModelsUrl::MongoDb(url) => Ok(Arc::new(MongoReadModels::open(url).await?)),
    }
}
