//! Giving queued jobs to free slots.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{
    farm::{
        Fence, JobId, LogName, Requirements, SessionId, ShareId,
        schedule::{self, Head, Lane, Share, Slots},
    },
    job::JobStatus,
};
use sqlx::{AssertSqlSafe, Row as _};

use super::{chunks, jobs::places, moves, sessions::LEASE};
use crate::{
    Store, StoreError,
    model::{Changed, Given, When},
    rows,
    tx::{Tx, write},
};

/// Images that are asked about in one statement.
const AT_ONCE: usize = 500;

/// Jobs that one pass gives away.
const GIVEN_AT_ONCE: usize = 50;

/// The first jobs of a lane: by the index `jobs_runnable`, whose words these are.
pub(crate) const HEADS: &str = "SELECT id, priority, since FROM jobs
     WHERE class_id = $1 AND share_id = $2 AND status = 'queued' AND needs_left = 0
     ORDER BY priority DESC, since, id LIMIT $3";

/// A lane that waits, without its jobs.
struct Open {
    class: i64,
    share: ShareId,
    requirements: Requirements,
}

impl Store {
    /// One pass: matches free slots with the queue and writes attempts and leases, in
    /// one transaction. It reads the lanes of the images that free slots have, and
    /// of each at most as many jobs as there are free slots. A pass that leaves
    /// something for another one says so.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn assign(&self) -> Result<Changed, StoreError> {
        self.assign_after(|_| std::future::ready(Ok(None))).await
    }

    /// The same. `before` is told of each job that is given away before anybody can see
    /// that; if it fails, none is. What it gives is written into the job's log with that,
    /// where logs are rows. It must not use this store, which waits for it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], and those of `before`.
    pub async fn assign_after<F>(&self, before: impl Fn(Given) -> F) -> Result<Changed, StoreError>
    where
        F: Future<Output = Result<Option<String>, StoreError>>,
    {
        // Mostly nothing waits, and then nobody needs to wait for this. Whoever queues
        // something asks for a pass after that.
        let waits = sqlx::query("SELECT class_id FROM lanes WHERE queued > 0 LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        if waits.is_none() {
            return Ok(Changed::default());
        }
        write!(self, |tx| {
            let mut changed = Changed::default();
            let slots = free_slots(tx).await?;
            let (shares, lanes) = waiting(tx, &slots).await?;
            let all = schedule::assign(&slots, &shares, &lanes);
            // Of the rest the next pass takes care: others wait while this one writes.
            changed.assign = all.len() > GIVEN_AT_ONCE;
            for given in all.into_iter().take(GIVEN_AT_ONCE) {
                let fence = grant(tx, given.job, &given.session, &mut changed).await?;
                if let Some(text) = before(describe(tx, fence).await?).await? {
                    let log = LogName::Job(given.job);
                    chunks::add_text(tx, self.engine, &log, &text, When::Always).await?;
                }
            }
            changed
        })
    }

    /// Says how many jobs of one share may run at once, on the whole farm, where the
    /// share itself says nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_share_cap(&self, cap: Option<u32>) -> Result<(), StoreError> {
        write!(self, |tx| {
            sqlx::query("UPDATE farm SET share_cap = $1 WHERE id = 1")
                .bind(cap.map(i64::from))
                .execute(&mut **tx)
                .await?;
        })
    }
}

/// What is told of an attempt.
async fn describe(tx: &mut Tx, fence: Fence) -> Result<Given, StoreError> {
    let row = sqlx::query(
        "SELECT a.job_id, a.number, w.name, j.recipe FROM attempts a
         JOIN workers w ON w.id = a.worker_id JOIN jobs j ON j.id = a.job_id
         WHERE a.id = $1",
    )
    .bind(fence.0)
    .fetch_one(&mut **tx)
    .await?;
    Ok(Given {
        job: JobId(rows::number(&row, "job_id")?),
        attempt: rows::number(&row, "number")?,
        worker: row.try_get("name")?,
        manifest: row.try_get("recipe")?,
    })
}

/// Sessions that are here, ready, and have fewer leases than they have room for.
async fn free_slots(tx: &mut Tx) -> Result<Vec<Slots>, StoreError> {
    let rows = sqlx::query(
        "SELECT s.id, s.labels, s.slots, s.capacity,
            (SELECT COUNT(*) FROM attempts a WHERE a.session_id = s.id AND a.ended IS NULL) AS held
         FROM sessions s JOIN workers w ON w.id = s.worker_id
         WHERE s.ended IS NULL AND s.seen > $1 AND s.mood = 'ready'
           AND w.revoked = 0 AND w.paused IS NULL
         ORDER BY s.id",
    )
    .bind(tx.now.0 - LEASE)
    .fetch_all(&mut **tx)
    .await?;
    let mut all = Vec::new();
    for row in &rows {
        let slots: u32 = rows::number(row, "slots")?;
        let capacity: u32 = rows::number(row, "capacity")?;
        let held: u32 = rows::number(row, "held")?;
        let free = capacity.min(slots).saturating_sub(held);
        if free > 0 {
            all.push(Slots {
                session: rows::session_id(row, "id")?,
                free,
                labels: rows::labels(row)?,
            });
        }
    }
    Ok(all)
}

/// The lanes that these slots serve, and whose they are.
async fn waiting(tx: &mut Tx, slots: &[Slots]) -> Result<(Vec<Share>, Vec<Lane>), StoreError> {
    let mut shares = BTreeMap::new();
    let mut lanes = Vec::new();
    for lane in open_lanes(tx, slots, &mut shares).await? {
        let serving = slots
            .iter()
            .filter(|slots| slots.labels.serves(&lane.requirements).is_some());
        let free: i64 = serving.map(|slots| i64::from(slots.free)).sum();
        let share: Option<&Share> = shares.get(&lane.share);
        let below_cap = share.is_some_and(|share| share.cap.is_none_or(|cap| share.running < cap));
        if free > 0 && below_cap {
            lanes.push(Lane {
                heads: heads(tx, &lane, free).await?,
                share: lane.share,
                requirements: lane.requirements,
            });
        }
    }
    Ok((shares.into_values().collect(), lanes))
}

/// Lanes in which something waits for an image that a free slot has.
async fn open_lanes(
    tx: &mut Tx,
    slots: &[Slots],
    shares: &mut BTreeMap<ShareId, Share>,
) -> Result<Vec<Open>, StoreError> {
    let images: BTreeSet<&str> = slots
        .iter()
        .flat_map(|slots| &slots.labels.images)
        .map(|image| image.name.as_str())
        .collect();
    let images: Vec<&str> = images.into_iter().collect();
    let mut lanes = Vec::new();
    for some in images.chunks(AT_ONCE) {
        let text = format!(
            "SELECT l.class_id, l.share_id, c.requirements, s.running, s.turn,
                COALESCE(s.cap, (SELECT share_cap FROM farm WHERE id = 1)) AS cap
             FROM classes c JOIN lanes l ON l.class_id = c.id JOIN shares s ON s.id = l.share_id
             WHERE l.queued > 0 AND c.image IN ({})
             ORDER BY l.class_id, l.share_id",
            places(1, some.len())
        );
        let mut query = sqlx::query(AssertSqlSafe(text));
        for image in some {
            query = query.bind(*image);
        }
        for row in &query.fetch_all(&mut **tx).await? {
            let share = ShareId(row.try_get("share_id")?);
            let cap: Option<i64> = row.try_get("cap")?;
            shares.insert(
                share,
                Share {
                    id: share,
                    running: rows::number(row, "running")?,
                    cap: cap.and_then(|cap| u32::try_from(cap).ok()),
                    turn: row.try_get("turn")?,
                },
            );
            lanes.push(Open {
                class: row.try_get("class_id")?,
                share,
                requirements: rows::requirements(row)?,
            });
        }
    }
    Ok(lanes)
}

/// The first jobs of a lane.
async fn heads(tx: &mut Tx, lane: &Open, limit: i64) -> Result<Vec<Head>, StoreError> {
    let rows = sqlx::query(HEADS)
        .bind(lane.class)
        .bind(lane.share.0)
        .bind(limit)
        .fetch_all(&mut **tx)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Head {
                job: JobId(rows::number(row, "id")?),
                priority: rows::number(row, "priority")?,
                since: row.try_get("since")?,
            })
        })
        .collect()
}

/// Gives a job to a session.
async fn grant(
    tx: &mut Tx,
    job: JobId,
    session: &SessionId,
    changed: &mut Changed,
) -> Result<Fence, StoreError> {
    let present = moves::present(tx, job).await?;
    moves::job(tx, &present, JobStatus::Running, None, changed).await?;
    sqlx::query(
        "UPDATE jobs SET attempts = attempts + 1, tries = tries + 1, image_digest = NULL,
            worker_id = (SELECT worker_id FROM sessions WHERE id = $2)
         WHERE id = $1",
    )
    .bind(i64::from(job.0))
    .bind(session.as_str())
    .execute(&mut **tx)
    .await?;
    let fence: i64 = sqlx::query_scalar(
        "INSERT INTO attempts (job_id, number, session_id, worker_id, granted, expires)
         SELECT id, attempts, $2, worker_id, $3, $4 FROM jobs WHERE id = $1
         RETURNING id",
    )
    .bind(i64::from(job.0))
    .bind(session.as_str())
    .bind(tx.now.0)
    .bind(tx.now.0 + LEASE)
    .fetch_one(&mut **tx)
    .await?;
    sqlx::query("UPDATE shares SET turn = $2 WHERE id = (SELECT share_id FROM jobs WHERE id = $1)")
        .bind(i64::from(job.0))
        .bind(fence)
        .execute(&mut **tx)
        .await?;
    changed.sessions.push(session.clone());
    Ok(Fence(fence))
}
