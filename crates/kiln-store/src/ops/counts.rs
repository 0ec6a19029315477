//! Changes that are gathered while many operations are looked at, and written at once.

use std::collections::BTreeMap;

use kiln_core::farm::{GroupId, JobId};
use serde_json::json;

use crate::{StoreError, dialect::each, rows, tx::Tx};

/// What others are to be told: what, of which job, of which group.
pub(crate) type Told = (&'static str, Option<JobId>, Option<GroupId>);

/// By how much lanes and shares change.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    lanes: BTreeMap<(i64, i64), i64>,
    shares: BTreeMap<i64, (i64, Option<i64>)>,
}

impl Counts {
    /// So many more jobs of this class and share wait.
    pub(crate) fn queued(&mut self, class: i64, share: i64, by: i64) {
        *self.lanes.entry((class, share)).or_default() += by;
    }

    /// So many more jobs of this share run.
    pub(crate) fn running(&mut self, share: i64, by: i64) {
        self.shares.entry(share).or_default().0 += by;
    }

    /// This share had its last turn with this fence.
    pub(crate) fn turn(&mut self, share: i64, fence: i64) {
        self.shares.entry(share).or_default().1 = Some(fence);
    }

    /// Writes them.
    pub(crate) async fn write(&self, tx: &mut Tx) -> Result<(), StoreError> {
        // A lane that is not there yet has nothing to take away.
        let lanes: Vec<(i64, i64, i64)> = self
            .lanes
            .iter()
            .filter(|(_, by)| **by != 0)
            .map(|((class, share), by)| (*class, *share, *by))
            .collect();
        let (more, less): (Vec<_>, Vec<_>) = lanes.into_iter().partition(|(_, _, by)| *by > 0);
        if !more.is_empty() {
            sqlx::query(each!(tx.engine,
                "INSERT INTO lanes (class_id, share_id, queued)
                 SELECT CAST(e.value->>0 AS BIGINT), CAST(e.value->>1 AS BIGINT),
                    CAST(e.value->>2 AS BIGINT) FROM" EACH
                "WHERE true
                 ON CONFLICT (class_id, share_id) DO UPDATE
                    SET queued = lanes.queued + excluded.queued"
            ))
            .bind(rows::to_json(&more)?)
            .execute(&mut **tx)
            .await?;
        }
        if !less.is_empty() {
            sqlx::query(each!(tx.engine,
                "UPDATE lanes SET queued = queued + CAST(e.value->>2 AS BIGINT) FROM" EACH
                "WHERE lanes.class_id = CAST(e.value->>0 AS BIGINT)
                   AND lanes.share_id = CAST(e.value->>1 AS BIGINT)"
            ))
            .bind(rows::to_json(&less)?)
            .execute(&mut **tx)
            .await?;
        }
        let shares: Vec<(&i64, &i64, &Option<i64>)> = self
            .shares
            .iter()
            .map(|(share, (by, turn))| (share, by, turn))
            .collect();
        if !shares.is_empty() {
            sqlx::query(each!(tx.engine,
                "UPDATE shares SET running = running + CAST(e.value->>1 AS BIGINT),
                    turn = COALESCE(CAST(e.value->>2 AS BIGINT), turn)
                 FROM" EACH
                "WHERE shares.id = CAST(e.value->>0 AS BIGINT)"
            ))
            .bind(rows::to_json(&shares)?)
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
    }
}

/// Writes what others are to be told, in this order.
pub(crate) async fn tell(tx: &mut Tx, all: &[Told]) -> Result<(), StoreError> {
    if all.is_empty() {
        return Ok(());
    }
    let values: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(number, (kind, job, group))| {
            json!([number, kind, job.map(|id| id.0), group.map(|id| id.0)])
        })
        .collect();
    sqlx::query(each!(tx.engine,
        "INSERT INTO outbox (kind, job_id, group_id, created)
         SELECT e.value->>1, CAST(e.value->>2 AS BIGINT), CAST(e.value->>3 AS BIGINT), $2 FROM" EACH
        "ORDER BY CAST(e.value->>0 AS BIGINT)"
    ))
    .bind(rows::to_json(&values)?)
    .bind(tx.now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
