//! Who may write a generation: kept with its checkpoint, so that one guarded update moves the checkpoint
//! for the newest fence only.

use mongodb::bson::doc;
use mongodb::options::ReturnDocument;

use super::documents::CheckpointDocument;
use super::{Store, failure, insert};
use crate::{Fence, Lease, ReadModelError};

impl Store {
    pub(super) async fn lease(self) -> Result<Lease, ReadModelError> {
        let found = self.checkpoints.find_one(doc! { "_id": self.number });
        let found = found.await.map_err(failure)?;
        Ok(found.map_or_else(Lease::default, |found| Lease {
            fence: Fence(found.fence.unsigned_abs()),
            holder: found.holder,
        }))
    }

    pub(super) async fn take_lease(
        self,
        seen: Fence,
        holder: String,
    ) -> Result<Option<Fence>, ReadModelError> {
        // The first to take it makes the document.
        let unclaimed = CheckpointDocument::unclaimed(self.number);
        insert(&self.checkpoints, vec![unclaimed]).await?;
        let taken = self
            .checkpoints
            .find_one_and_update(
                doc! { "_id": self.number, "fence": stored(seen) },
                doc! { "$set": { "holder": holder }, "$inc": { "fence": 1_i64 } },
            )
            .return_document(ReturnDocument::After)
            .await
            .map_err(failure)?;
        Ok(taken.map(|taken| Fence(taken.fence.unsigned_abs())))
    }

    pub(super) async fn release_lease(self, fence: Fence) -> Result<(), ReadModelError> {
        self.checkpoints
            .update_one(
                doc! { "_id": self.number, "fence": stored(fence) },
                doc! { "$unset": { "holder": "" } },
            )
            .await
            .map_err(failure)?;
        Ok(())
    }
}

/// A fence as it is stored. It counts how often the lease was taken, so it fits.
pub(super) fn stored(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}
