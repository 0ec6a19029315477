//! Logs whose pieces are objects: which pieces there are, and where each log ends.
//!
//! These transactions go on beside those of the one writer, for there are many of them and
//! they decide nothing of jobs. So each locks what it decides by, always in this order:
//!
//! 1. the attempt, which then stays: who ends it waits, and so what the farm says last, in the
//!    transaction that ends it, comes last;
//! 2. the log's row: of two that append, one comes after the other, and sees that it does.

use std::collections::BTreeMap;

use kiln_core::farm::LogName;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use crate::{
    Store, StoreError,
    dialect::each,
    model::{Added, Chunk, Held, LeaseKey, NewChunk},
    rows,
    tx::{Tx, write},
};

impl Store {
    /// Where a log ends; 0 when there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn log_end(&self, log: &LogName) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT stored FROM logs WHERE job_id = $1 AND task = $2")
            .bind(i64::from(log.job().0))
            .bind(log.task())
            .fetch_optional(&self.pool)
            .await?;
        row.map_or(Ok(0), |row| rows::number(&row, "stored"))
    }

    /// The pieces that hold a log's bytes from this one on, in order; so many at the most.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn chunks(
        &self,
        log: &LogName,
        from: u64,
        most: u32,
    ) -> Result<Vec<Chunk>, StoreError> {
        let rows = sqlx::query(
            "SELECT start, length, created, sha256, object, line FROM chunks
             WHERE job_id = $1 AND task = $2 AND start >= COALESCE((SELECT MAX(start) FROM chunks
                WHERE job_id = $1 AND task = $2 AND start <= $3), 0)
             ORDER BY start LIMIT $4",
        )
        .bind(i64::from(log.job().0))
        .bind(log.task())
        .bind(rows::signed(from))
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            // It may have been packed just now.
            return super::pack::chunks(self, log, from).await;
        }
        rows.iter().map(chunk).collect()
    }

    /// Adds a piece at the end of a log, under a lease. Only logs in which something is
    /// grow so: the server writes their first lines.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], also when the log is another job's.
    pub async fn add_chunk(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        chunk: &NewChunk,
    ) -> Result<Added, StoreError> {
        write!(self, write_beside, |tx| {
            hold(tx, lease, log).await?;
            let grown = sqlx::query(
                "UPDATE logs SET stored = stored + $4, mid_line = $5
                 WHERE job_id = $1 AND task = $2 AND stored = $3 AND packed IS NULL",
            )
            .bind(i64::from(log.job().0))
            .bind(log.task())
            .bind(rows::signed(chunk.start))
            .bind(rows::signed(chunk.length))
            .bind(i64::from(chunk.mid_line))
            .execute(&mut **tx)
            .await?;
            if grown.rows_affected() == 0 {
                return Ok(Added::Elsewhere(end(tx, log).await?));
            }
            insert(tx, log, chunk).await?;
            Added::Stored(chunk.start + chunk.length)
        })
    }

    /// Begins a log with text of the server's own, under a lease, if nothing is in it. Gives
    /// where it ends then.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], also when the log is another job's;
    /// [`StoreError::Conflict`] when the text can't be stored.
    pub async fn begin_log(
        &self,
        lease: LeaseKey<'_>,
        log: &LogName,
        text: &str,
    ) -> Result<u64, StoreError> {
        write!(self, write_beside, |tx| {
            hold(tx, lease, log).await?;
            let texts = [(log.clone(), text.to_owned())];
            add_texts(tx, &texts, When::Empty).await?;
            end(tx, log).await?
        })
    }
}

/// In which logs something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// In all.
    Always,
    /// In those in which nothing is.
    Empty,
    /// In those in which something is.
    Begun,
}

/// Adds texts of the server's own at the ends of logs, wherever these are, each as lines of
/// its own: by one statement for each table, however many there are. Each text ends with a
/// line's end, and no log is here twice. What was packed stays as it is.
pub(crate) async fn add_texts(
    tx: &mut Tx,
    texts: &[(LogName, String)],
    when: When,
) -> Result<(), StoreError> {
    if texts.is_empty() {
        return Ok(());
    }
    if when != When::Begun {
        make(tx, texts).await?;
    }
    let ends = ends(tx, texts).await?;
    let mut values = Vec::new();
    for (log, text) in texts {
        let of = (i64::from(log.job().0), log.task());
        let Some(end) = ends.get(&(of.0, of.1.to_owned())) else {
            continue;
        };
        let wanted = match when {
            When::Always => true,
            When::Empty => end.stored == 0,
            When::Begun => end.stored > 0,
        };
        if !wanted || end.packed {
            continue;
        }
        let text = match end.mid_line {
            true => format!("\n{text}"),
            false => text.clone(),
        };
        let length = text.len() as u64;
        values.push(json!([of.0, of.1, text, end.stored, length]));
    }
    write_texts(tx, &values).await
}

/// Makes the rows of these logs, where there are none.
async fn make(tx: &mut Tx, texts: &[(LogName, String)]) -> Result<(), StoreError> {
    sqlx::query(each!(tx.engine,
        "INSERT INTO logs (job_id, task, stored, mid_line)
         SELECT CAST(e.value->>0 AS BIGINT), e.value->>1, 0, 0 FROM" EACH
        "WHERE true ON CONFLICT (job_id, task) DO NOTHING"
    ))
    .bind(names(texts)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn names(texts: &[(LogName, String)]) -> Result<String, StoreError> {
    let names = texts.iter().map(|(log, _)| (log.job().0, log.task()));
    rows::to_json(&names.collect::<Vec<_>>())
}

/// Where a log ends.
struct End {
    stored: u64,
    mid_line: bool,
    packed: bool,
}

/// Where these logs end, of those that there are. It stays so until the transaction has
/// ended.
async fn ends(
    tx: &mut Tx,
    texts: &[(LogName, String)],
) -> Result<BTreeMap<(i64, String), End>, StoreError> {
    let found = each!(tx.engine,
        "SELECT l.job_id, l.task, l.stored, l.mid_line, l.packed FROM" EACH
        "JOIN logs l ON l.job_id = CAST(e.value->>0 AS BIGINT) AND l.task = e.value->>1"
    );
    // Words of this crate alone.
    let text = AssertSqlSafe(format!("{found}{}", tx.engine.alone()));
    let rows = sqlx::query(text)
        .bind(names(texts)?)
        .fetch_all(&mut **tx)
        .await?;
    rows.iter()
        .map(|row| {
            let packed: Option<String> = row.try_get("packed")?;
            let end = End {
                stored: rows::number(row, "stored")?,
                mid_line: rows::truth(row, "mid_line")?,
                packed: packed.is_some(),
            };
            Ok(((row.try_get("job_id")?, row.try_get("task")?), end))
        })
        .collect()
}

/// Writes pieces that are text: job, task, text, where it begins, its length.
async fn write_texts(tx: &mut Tx, values: &[Value]) -> Result<(), StoreError> {
    if values.is_empty() {
        return Ok(());
    }
    let values = rows::to_json(&values)?;
    sqlx::query(each!(tx.engine,
        "UPDATE logs SET stored = CAST(e.value->>3 AS BIGINT) + CAST(e.value->>4 AS BIGINT),
            mid_line = 0
         FROM" EACH
        "WHERE logs.job_id = CAST(e.value->>0 AS BIGINT) AND logs.task = e.value->>1"
    ))
    .bind(&values)
    .execute(&mut **tx)
    .await?;
    sqlx::query(each!(tx.engine,
        "INSERT INTO chunks (job_id, task, start, length, created, line)
         SELECT CAST(e.value->>0 AS BIGINT), e.value->>1, CAST(e.value->>3 AS BIGINT),
            CAST(e.value->>4 AS BIGINT), $2, e.value->>2
         FROM" EACH
    ))
    .bind(&values)
    .bind(tx.now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Makes an object a piece.
async fn insert(tx: &mut Tx, log: &LogName, chunk: &NewChunk) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO chunks (job_id, task, start, length, created, sha256, object)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(i64::from(log.job().0))
    .bind(log.task())
    .bind(rows::signed(chunk.start))
    .bind(rows::signed(chunk.length))
    .bind(tx.now.0)
    .bind(&chunk.sha256)
    .bind(&chunk.object)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Makes sure that a lease is this job's, and stays so until the transaction has ended.
async fn hold(tx: &mut Tx, lease: LeaseKey<'_>, log: &LogName) -> Result<(), StoreError> {
    // Words of this crate alone.
    let text = AssertSqlSafe(format!(
        "SELECT id FROM attempts
         WHERE id = $1 AND session_id = $2 AND worker_id = $3 AND job_id = $4 AND ended IS NULL{}",
        tx.engine.keep()
    ));
    sqlx::query(text)
        .bind(lease.fence.0)
        .bind(lease.session.as_str())
        .bind(i64::from(lease.worker.0))
        .bind(i64::from(log.job().0))
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::LeaseLost)?;
    Ok(())
}

/// Where a log ends. It stays so until the transaction has ended.
pub(crate) async fn end(tx: &mut Tx, log: &LogName) -> Result<u64, StoreError> {
    // Words of this crate alone.
    let text = AssertSqlSafe(format!(
        "SELECT stored FROM logs WHERE job_id = $1 AND task = $2{}",
        tx.engine.alone()
    ));
    let row = sqlx::query(text)
        .bind(i64::from(log.job().0))
        .bind(log.task())
        .fetch_optional(&mut **tx)
        .await?;
    row.map_or(Ok(0), |row| rows::number(&row, "stored"))
}

fn chunk(row: &AnyRow) -> Result<Chunk, StoreError> {
    let object: Option<String> = row.try_get("object")?;
    let held = match object {
        Some(key) => Held::Object {
            key,
            sha256: row.try_get("sha256")?,
        },
        None => Held::Line(row.try_get("line")?),
    };
    Ok(Chunk {
        start: rows::number(row, "start")?,
        length: rows::number(row, "length")?,
        created: rows::moment(row, "created")?,
        held,
    })
}
