//! Logs whose pieces are objects: which pieces there are, and where each log ends.
//!
//! These transactions go on beside those of the one writer, for there are many of them and
//! they decide nothing of jobs. So each locks what it decides by, always in this order:
//!
//! 1. the attempt, for sharing: who ends it waits, and then what it says last comes last;
//! 2. the log's row: of two that append, one comes after the other, and sees that it does.

use kiln_core::farm::LogName;
use sqlx::{AssertSqlSafe, Row as _, any::AnyRow};

use crate::{
    Store, StoreError,
    model::{Added, Chunk, Held, LeaseKey, NewChunk, When},
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
                let (stored, _) = end(tx, log).await?;
                return Ok(Added::Elsewhere(stored));
            }
            let start = rows::signed(chunk.start);
            let held = New::Object(&chunk.object, &chunk.sha256);
            insert(tx, log, start, rows::signed(chunk.length), &held).await?;
            Added::Stored(chunk.start + chunk.length)
        })
    }

    /// Adds text of the server's own at the end of a log, wherever that is, as lines of
    /// their own. Gives where the log ends then.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the text can't be stored, or the log was packed; else
    /// [`StoreError::Unavailable`].
    pub async fn add_text(&self, log: &LogName, text: &str, when: When) -> Result<u64, StoreError> {
        write!(self, write_beside, |tx| {
            add_text(tx, log, text, when).await?
        })
    }
}

/// The same within a transaction. The text ends with a line's end.
pub(crate) async fn add_text(
    tx: &mut Tx,
    log: &LogName,
    text: &str,
    when: When,
) -> Result<u64, StoreError> {
    if when != When::Begun {
        sqlx::query(
            "INSERT INTO logs (job_id, task, stored, mid_line) VALUES ($1, $2, 0, 0)
             ON CONFLICT (job_id, task) DO NOTHING",
        )
        .bind(i64::from(log.job().0))
        .bind(log.task())
        .execute(&mut **tx)
        .await?;
    }
    let (stored, mid_line) = end(tx, log).await?;
    let wanted = match when {
        When::Always => true,
        When::Empty => stored == 0,
        When::Begun => stored > 0,
    };
    if !wanted {
        return Ok(stored);
    }
    super::pack::is_open(tx, log).await?;
    let text = match mid_line {
        true => format!("\n{text}"),
        false => text.to_owned(),
    };
    let length = text.len() as u64;
    sqlx::query(
        "UPDATE logs SET stored = stored + $3, mid_line = 0 WHERE job_id = $1 AND task = $2",
    )
    .bind(i64::from(log.job().0))
    .bind(log.task())
    .bind(rows::signed(length))
    .execute(&mut **tx)
    .await?;
    let start = rows::signed(stored);
    insert(tx, log, start, rows::signed(length), &New::Line(&text)).await?;
    Ok(stored + length)
}

/// Makes sure that a lease is this job's, and stays so until the transaction has ended.
async fn hold(tx: &mut Tx, lease: LeaseKey<'_>, log: &LogName) -> Result<(), StoreError> {
    // Words of this crate alone.
    let text = AssertSqlSafe(format!(
        "SELECT id FROM attempts
         WHERE id = $1 AND session_id = $2 AND worker_id = $3 AND job_id = $4 AND ended IS NULL{}",
        tx.engine.share()
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

/// Where a log ends, and whether in the middle of a line. It stays so until the transaction
/// has ended.
pub(crate) async fn end(tx: &mut Tx, log: &LogName) -> Result<(u64, bool), StoreError> {
    // Words of this crate alone.
    let text = AssertSqlSafe(format!(
        "SELECT stored, mid_line FROM logs WHERE job_id = $1 AND task = $2{}",
        tx.engine.update()
    ));
    let row = sqlx::query(text)
        .bind(i64::from(log.job().0))
        .bind(log.task())
        .fetch_optional(&mut **tx)
        .await?;
    match row {
        Some(row) => Ok((
            rows::number(&row, "stored")?,
            rows::truth(&row, "mid_line")?,
        )),
        None => Ok((0, false)),
    }
}

/// What a new piece is.
enum New<'a> {
    /// In an object: its key, and SHA-256.
    Object(&'a str, &'a str),
    /// Here.
    Line(&'a str),
}

async fn insert(
    tx: &mut Tx,
    log: &LogName,
    start: i64,
    length: i64,
    held: &New<'_>,
) -> Result<(), StoreError> {
    let (object, sha256, line) = match *held {
        New::Object(key, sha256) => (Some(key), Some(sha256), None),
        New::Line(line) => (None, None, Some(line)),
    };
    sqlx::query(
        "INSERT INTO chunks (job_id, task, start, length, created, sha256, object, line)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(i64::from(log.job().0))
    .bind(log.task())
    .bind(start)
    .bind(length)
    .bind(tx.now.0)
    .bind(sha256)
    .bind(object)
    .bind(line)
    .execute(&mut **tx)
    .await?;
    Ok(())
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
