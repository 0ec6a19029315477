//! For tests, with the feature `testing` alone: a PostgreSQL of their own, time that
//! passes at once, and whether what is stored agrees with itself.

mod postgres;

pub use postgres::Postgres;

use sqlx::Row as _;

use crate::{Store, StoreError, dialect::Engine, tx::write};

/// Every column with a moment, by table.
const MOMENTS: &[(&str, &[&str])] = &[
    ("farm", &["looked"]),
    ("users", &["created", "updated"]),
    ("tokens", &["created", "expires"]),
    ("workers", &["created"]),
    ("sessions", &["started", "seen", "ended"]),
    ("images", &["first_offered"]),
    ("job_groups", &["created"]),
    (
        "jobs",
        &[
            "created",
            "updated",
            "since",
            "queued",
            "started",
            "ended",
            "logs_removed",
        ],
    ),
    ("tasks", &["created", "updated"]),
    ("attempts", &["granted", "expires", "begun", "ended"]),
    ("artifacts", &["created"]),
    ("outbox", &["created"]),
    ("kept", &["ended"]),
    ("garbage", &["due"]),
    ("duties", &["until"]),
];

/// What must be true of every farm at every moment: each statement finds what breaks
/// its rule.
const RULES: &[(&str, &str)] = &[
    (
        "a lane counts the jobs that could run",
        "SELECT l.class_id AS what FROM lanes l WHERE l.queued <>
            (SELECT COUNT(*) FROM jobs j WHERE j.class_id = l.class_id AND j.share_id = l.share_id
             AND j.status = 'queued' AND j.needs_left = 0)",
    ),
    (
        "what could run is in a lane",
        "SELECT j.id AS what FROM jobs j WHERE j.status = 'queued' AND j.needs_left = 0
            AND NOT EXISTS (SELECT 1 FROM lanes l WHERE l.class_id = j.class_id
                AND l.share_id = j.share_id)",
    ),
    (
        "a share counts its jobs that run",
        "SELECT s.id AS what FROM shares s WHERE s.running <>
            (SELECT COUNT(*) FROM jobs j WHERE j.share_id = s.id AND j.status = 'running')",
    ),
    (
        "a job has a lease while it runs, and only then",
        "SELECT j.id AS what FROM jobs j WHERE
            (SELECT COUNT(*) FROM attempts a WHERE a.job_id = j.id AND a.ended IS NULL) <>
            CASE WHEN j.status = 'running' THEN 1 ELSE 0 END",
    ),
    (
        "a job's attempts are counted",
        "SELECT j.id AS what FROM jobs j WHERE j.attempts <>
            (SELECT COUNT(*) FROM attempts a WHERE a.job_id = j.id)",
    ),
    (
        "a job that has ended ended once, and its tasks have too",
        "SELECT j.id AS what FROM jobs j WHERE
            (SELECT COUNT(*) FROM outbox o WHERE o.job_id = j.id AND o.kind = 'job-ended') NOT IN
            -- Old events are removed.
            (CASE WHEN j.status IN ('pending', 'queued', 'running') THEN 0 ELSE 1 END,
             CASE WHEN j.ended < COALESCE((SELECT MIN(created) FROM outbox), j.ended + 1)
                THEN 0 ELSE 1 END)
            OR (j.ended IS NULL) <> (j.status IN ('pending', 'queued', 'running'))
            OR (j.ended IS NOT NULL AND EXISTS (SELECT 1 FROM tasks t WHERE t.job_id = j.id
                AND t.status IN ('pending', 'running')))",
    ),
    (
        "a job that has begun is not tried again",
        "SELECT a.id AS what FROM attempts a WHERE a.begun IS NOT NULL AND EXISTS
            (SELECT 1 FROM attempts b WHERE b.job_id = a.job_id AND b.number > a.number)",
    ),
    (
        "an owner keeps what ended jobs keep",
        "SELECT u.id AS what FROM users u WHERE u.kept <>
            (SELECT COALESCE(SUM(k.logs + k.artifacts), 0) FROM kept k WHERE k.owner_id = u.id)",
    ),
    (
        "a job keeps the artifacts that are not removed",
        "SELECT k.job_id AS what FROM kept k WHERE k.artifacts <>
            (SELECT COALESCE(SUM(a.size), 0) FROM artifacts a
             WHERE a.job_id = k.job_id AND a.pruned = 0)",
    ),
    (
        "a job whose logs were removed keeps none",
        "SELECT j.id AS what FROM jobs j WHERE j.logs_removed IS NOT NULL AND
            (EXISTS (SELECT 1 FROM kept k WHERE k.job_id = j.id AND k.logs > 0)
             OR EXISTS (SELECT 1 FROM logs l WHERE l.job_id = j.id))",
    ),
    (
        "no session has more leases than slots",
        "SELECT s.worker_id AS what FROM sessions s WHERE s.slots <
            (SELECT COUNT(*) FROM attempts a WHERE a.session_id = s.id AND a.ended IS NULL)",
    ),
];

/// Lets time pass at once: whatever happened, happened so much longer ago. Less than
/// nothing puts the clock back.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn pass(store: &Store, seconds: i64) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    for (table, columns) in MOMENTS {
        let sets: Vec<String> = columns
            .iter()
            .map(|column| format!("{column} = {column} - $1"))
            .collect();
        // Words of this file.
        let text = format!("UPDATE {table} SET {}", sets.join(", "));
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(seconds * 1_000_000)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await
}

/// What is not as it must be: empty, unless the store is wrong.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn broken_rules(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut tx = store.write().await?;
    let mut broken = Vec::new();
    for (rule, finds) in RULES {
        for row in sqlx::query(*finds).fetch_all(&mut *tx).await? {
            let what: i64 = row.try_get("what")?;
            broken.push(format!("{rule}: not {what}"));
        }
    }
    Ok(broken)
}

/// What the outbox is to tell, in order: what happened, and the job's or group's
/// number.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn outbox(store: &Store) -> Result<Vec<(String, i64)>, StoreError> {
    let rows =
        sqlx::query("SELECT kind, COALESCE(job_id, group_id) AS what FROM outbox ORDER BY id")
            .fetch_all(&store.pool)
            .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("kind")?, row.try_get("what")?)))
        .collect()
}

/// How the database would find what the passes read: the lines of its plan.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn plan_of_heads(store: &Store) -> Result<Vec<String>, StoreError> {
    let explain = match store.engine {
        Engine::Sqlite => "EXPLAIN QUERY PLAN",
        Engine::Postgres => "EXPLAIN",
    };
    let text = format!("{explain} {}", crate::ops::HEADS);
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(1i64)
        .bind(1i64)
        .bind(1i64)
        .fetch_all(&store.pool)
        .await?;
    let column = match store.engine {
        Engine::Sqlite => "detail",
        Engine::Postgres => "QUERY PLAN",
    };
    rows.iter().map(|row| Ok(row.try_get(column)?)).collect()
}

/// Applies the migrations and then these, and gives the version after that.
///
/// # Errors
/// [`crate::OpenError`], as [`Store::open`].
pub async fn migrate(store: &Store, further: &[&str]) -> Result<usize, crate::OpenError> {
    let all = [crate::migrate::MIGRATIONS, further].concat();
    crate::migrate::run(store, &all, true).await?;
    Ok(all.len())
}

/// Registers so many workers in one transaction; gives their tokens.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn add_workers(store: &Store, count: usize) -> Result<Vec<String>, StoreError> {
    let mut tx = store.write().await?;
    let mut tokens = Vec::with_capacity(count);
    for number in 0..count {
        let made = crate::token::make(crate::token::Kind::Worker);
        let (token, hash) = made.map_err(|error| StoreError::Unavailable(error.into()))?;
        sqlx::query("INSERT INTO workers (name, hash, created) VALUES ($1, $2, $3)")
            .bind(format!("simulated-{number}"))
            .bind(crate::rows::hex(hash))
            .bind(tx.now.0)
            .execute(&mut *tx)
            .await?;
        tokens.push(token);
    }
    tx.commit().await?;
    Ok(tokens)
}

/// Says of every class that no worker served it for so long.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn unserved(store: &Store, seconds: i64) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    sqlx::query("UPDATE classes SET unserved = $1")
        .bind(seconds * 1_000_000)
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// Does a transaction that PostgreSQL undoes so often as if it were another's victim,
/// and gives how often it was done.
///
/// # Errors
/// What PostgreSQL said last, when the store gave up.
pub async fn fall_victim(store: &Store, times: u32) -> Result<u32, StoreError> {
    let mut done = 0;
    write!(store, |tx| {
        done += 1;
        if done <= times {
            sqlx::query("DO $$ BEGIN RAISE EXCEPTION 'victim' USING ERRCODE = '40001'; END $$")
                .execute(&mut **tx)
                .await?;
        }
    })?;
    Ok(done)
}

/// A transaction that the database undoes by itself, as SQLite does when the disk is full.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn undone_by_the_database(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.write().await?;
    sqlx::query("ROLLBACK").execute(&mut *tx).await?;
    Ok(())
}

/// What a connection of the store's is set to.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn setting(store: &Store, name: &str) -> Result<String, StoreError> {
    let show = match store.engine {
        Engine::Sqlite => "PRAGMA",
        Engine::Postgres => "SHOW",
    };
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{show} {name}")))
        .fetch_one(&store.pool)
        .await?;
    let number: Result<i64, _> = row.try_get(0);
    match number {
        Ok(number) => Ok(number.to_string()),
        Err(_) => Ok(row.try_get(0)?),
    }
}
