//! Getting texts that are gone out of the server's files.
//!
//! The server writes a document that has changed to a new place; the old one is free, and keeps its bytes until
//! it is needed. `compact` moves what is behind free places into them and gives the end of the file back, while
//! everything goes on. See `docs/decisions/0023-edits-and-texts-that-are-gone.md` for what is left.

use mongodb::bson::doc;

use super::{Store, failure};
use crate::ReadModelError;

impl Store {
    /// See [`crate::Projection::purge`].
    pub(super) async fn purge(self) -> Result<(), ReadModelError> {
        let found = self.checkpoints.find_one(doc! { "_id": self.number });
        let found = found.await.map_err(failure)?;
        let Some(unpurged) = found.and_then(|found| found.unpurged) else {
            return Ok(());
        };
        for collection in [
            self.messages.name(),
            self.edits.name(),
            self.users.name(),
            self.dead_letters.name(),
        ] {
            // Without force the primary of a replica set refuses.
            let compact = doc! { "compact": collection, "force": true };
            let compacted = self.database().run_command(compact).await;
            match compacted.map_err(failure) {
                Err(error) if !is_missing(&error) => return Err(error),
                _ => {}
            }
        }
        let filter = doc! { "_id": self.number, "unpurged": unpurged };
        let purged = self
            .checkpoints
            .update_one(filter, doc! { "$unset": { "unpurged": "" } });
        purged.await.map_err(failure)?;
        Ok(())
    }
}

/// NamespaceNotFound: nothing has ever been stored there.
fn is_missing(error: &ReadModelError) -> bool {
    matches!(error, ReadModelError::Unavailable(reason) if reason.ends_with("(code 26)"))
}
