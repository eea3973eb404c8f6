//! Who may write a generation.

use rusqlite::{Connection, params};

use crate::{Fence, Lease};

pub(super) fn lease(snapshot: &Connection) -> rusqlite::Result<Lease> {
    snapshot
        .prepare_cached("SELECT fence, holder FROM lease")?
        .query_row([], |row| {
            Ok(Lease {
                fence: Fence(row.get::<_, i64>(0)?.unsigned_abs()),
                holder: row.get(1)?,
            })
        })
}

pub(super) fn take(
    connection: &Connection,
    seen: Fence,
    holder: &str,
) -> rusqlite::Result<Option<Fence>> {
    let taken = connection
        .prepare_cached("UPDATE lease SET fence = fence + 1, holder = ?2 WHERE fence = ?1")?
        .execute(params![stored(seen), holder])?;
    Ok((taken == 1).then_some(Fence(seen.0 + 1)))
}

pub(super) fn release(connection: &Connection, fence: Fence) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE lease SET holder = NULL WHERE fence = ?1")?
        .execute(params![stored(fence)])?;
    Ok(())
}

/// A fence as it is stored. It counts how often the lease was taken, so it fits.
fn stored(fence: Fence) -> i64 {
    i64::try_from(fence.0).unwrap_or(i64::MAX)
}
