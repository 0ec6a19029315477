//! A farm whose state is a copy's, of some time ago.
//!
//! What was between the copy and now is known to workers, clients and files, and not to
//! this database. So nothing of it may be taken for something that comes: numbers go on
//! far behind all that may have been given, and no lease of then is one now.

use kiln_core::farm::{Fence, JobId, attempt::Outcome, lease};
use sqlx::Executor as _;

use super::moves;
use crate::{
    Store, StoreError,
    model::Changed,
    rows,
    tx::{Tx, write},
};

/// What the owner of a job reads whose task ran when the copy was made.
const REASON: &str = "the farm was put back from a backup while this job ran";

/// What became of what ran when the copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Jobs whose first task had begun: they have failed.
    pub failed: usize,
    /// Jobs that go back to the queue.
    pub queued: usize,
}

impl Store {
    /// Makes a copy that was put back the farm's state: ends all leases, and leaves out a
    /// million of each number. Before any server uses it; with the role that owns the
    /// tables.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn restored(&self) -> Result<Restored, StoreError> {
        write!(self, |tx| {
            let mut changed = Changed::default();
            let mut restored = Restored {
                failed: 0,
                queued: 0,
            };
            for (fence, job, begun, tries) in leases(tx).await? {
                let next = lease::lost(begun, tries);
                moves::end_lease(tx, fence, Outcome::Reaped, Some(REASON), &mut changed).await?;
                let present = moves::present(tx, job).await?;
                moves::job(tx, &present, next.status, Some(REASON), &mut changed).await?;
                match next.status.is_terminal() {
                    true => restored.failed += 1,
                    false => restored.queued += 1,
                }
            }
            for text in self.engine.leave_numbers_out() {
                tx.execute(*text).await?;
            }
            restored
        })
    }
}

/// All that have not ended: fence, job, whether it has begun, its tries.
async fn leases(tx: &mut Tx) -> Result<Vec<(Fence, JobId, bool, u32)>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.id, a.job_id, a.begun, j.tries FROM attempts a JOIN jobs j ON j.id = a.job_id
         WHERE a.ended IS NULL ORDER BY a.id",
    )
    .fetch_all(&mut **tx)
    .await?;
    let lease = |row| {
        let fence = Fence(sqlx::Row::try_get(row, "id")?);
        let job = JobId(rows::number(row, "job_id")?);
        let begun = rows::optional_moment(row, "begun")?.is_some();
        Ok((fence, job, begun, rows::number(row, "tries")?))
    };
    rows.iter().map(lease).collect()
}
