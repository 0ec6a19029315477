//! Logs that are one packed object: see `chunks.rs`.

use kiln_core::farm::LogName;
use sqlx::Row as _;

use super::chunks::end;
use crate::{
    Store, StoreError,
    model::{Added, Chunk, Held, Moment, NewPacked},
    rows,
    tx::{SECOND, write},
};

/// The objects of a log's pieces stay so long after it was packed: somebody may read them.
const READERS: i64 = 10 * 60 * SECOND;

impl Store {
    /// Puts an object with a whole log in the place of its pieces, if the log ends just there
    /// and has none yet. The pieces' objects are garbage some minutes later. Nothing is added
    /// to the log from then on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn pack_log(&self, log: &LogName, packed: &NewPacked) -> Result<Added, StoreError> {
        write!(self, write_beside, |tx| {
            let done = sqlx::query(
                "UPDATE logs SET packed = $4, packed_length = $5
                 WHERE job_id = $1 AND task = $2 AND stored = $3 AND packed IS NULL",
            )
            .bind(i64::from(log.job().0))
            .bind(log.task())
            .bind(rows::signed(packed.stored))
            .bind(&packed.object)
            .bind(rows::signed(packed.length))
            .execute(&mut **tx)
            .await?;
            if done.rows_affected() == 0 {
                return Ok(Added::Elsewhere(end(tx, log).await?));
            }
            let garbage = "INSERT INTO garbage (object, due)
                 SELECT object, $3 FROM chunks
                 WHERE job_id = $1 AND task = $2 AND object IS NOT NULL
                 ON CONFLICT (object) DO NOTHING";
            sqlx::query(garbage)
                .bind(i64::from(log.job().0))
                .bind(log.task())
                .bind(tx.now.0 + READERS)
                .execute(&mut **tx)
                .await?;
            sqlx::query("DELETE FROM chunks WHERE job_id = $1 AND task = $2")
                .bind(i64::from(log.job().0))
                .bind(log.task())
                .execute(&mut **tx)
                .await?;
            Added::Stored(packed.stored)
        })
    }
}

/// The one piece of a packed log, if it is one and has something from this byte on.
pub(crate) async fn chunks(
    store: &Store,
    log: &LogName,
    from: u64,
) -> Result<Vec<Chunk>, StoreError> {
    let row = sqlx::query(
        "SELECT stored, packed, packed_length FROM logs
         WHERE job_id = $1 AND task = $2 AND packed IS NOT NULL AND stored > $3",
    )
    .bind(i64::from(log.job().0))
    .bind(log.task())
    .bind(rows::signed(from))
    .fetch_optional(&store.pool)
    .await?;
    let Some(row) = row else {
        return Ok(Vec::new());
    };
    Ok(vec![Chunk {
        start: 0,
        length: rows::number(&row, "stored")?,
        created: Moment(0),
        held: Held::Packed {
            key: row.try_get("packed")?,
            length: rows::number(&row, "packed_length")?,
        },
    }])
}
