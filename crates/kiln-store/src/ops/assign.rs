//! Giving queued jobs to free slots.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use futures_util::future::join_all;
use kiln_core::{
    farm::{
        JobId, Labels, LogName, Requirements, SessionId, ShareId,
        schedule::{self, Assignment, Head, Lane, Share, Slots},
    },
    job::JobStatus,
};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::{
    chunks::{self, When},
    counts::Counts,
    sessions::{LEASE, SILENT},
};
use crate::{
    Store, StoreError,
    dialect::each,
    model::{Changed, Given},
    rows,
    tx::{Tx, write},
};

/// Jobs that one pass gives away.
const GIVEN_AT_ONCE: usize = 50;
/// Slots, lanes and jobs that a pass looks at, of each kind: one more than it gives tells
/// whether another pass is wanted.
const LOOKED_AT: i64 = GIVEN_AT_ONCE as i64 + 1;

/// The first jobs of a lane: by the index `jobs_runnable`, whose words these are.
pub(crate) const HEADS: &str = "SELECT id, priority, since FROM jobs
     WHERE class_id = $1 AND share_id = $2 AND status = 'queued' AND needs_left = 0
     ORDER BY priority DESC, since, id LIMIT $3";

/// A lane that waits, without its jobs.
struct Open {
    class: i64,
    share: Share,
    queued: i64,
}

/// Free slots, and whose they are.
struct Free {
    slots: Vec<Slots>,
    /// Each session's worker: its number and name.
    workers: BTreeMap<SessionId, (i64, String)>,
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
            let free = free_slots(tx).await?;
            let (shares, lanes, more) = waiting(tx, &free.slots).await?;
            let mut all = schedule::assign(&free.slots, &shares, &lanes);
            let mut changed = Changed {
                // Of the rest the next pass takes care: others wait while this one writes.
                assign: all.len() > GIVEN_AT_ONCE || is_short(&all, &free.slots, &more),
                ..Changed::default()
            };
            all.truncate(GIVEN_AT_ONCE);
            let given = grant(tx, &free, &all, &mut changed).await?;
            let jobs: Vec<JobId> = given.iter().map(|given| given.job).collect();
            let texts = join_all(given.into_iter().map(&before)).await;
            let mut lines = Vec::new();
            for (job, text) in jobs.into_iter().zip(texts) {
                lines.extend(text?.map(|text| (LogName::Job(job), text)));
            }
            chunks::add_texts(tx, &lines, When::Always).await?;
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

/// Sessions that were heard of lately, are ready, and have fewer leases than they have room
/// for. Of those that are alike the first few, with the most room.
async fn free_slots(tx: &mut Tx) -> Result<Free, StoreError> {
    // A sum, and no join with the leases; `revoked < 1`, for there is an index of those that
    // are `= 0`: PostgreSQL may take sessions for few, and would read all of it for each.
    let rows = sqlx::query(
        "SELECT id, labels, free, worker_id, name FROM (
            SELECT q.*, ROW_NUMBER() OVER (PARTITION BY labels ORDER BY free DESC, id) AS place
            FROM (SELECT id, MAX(labels) AS labels, CAST(SUM(free) AS BIGINT) AS free,
                    MAX(worker_id) AS worker_id, MAX(name) AS name
                FROM (SELECT s.id, s.labels, w.id AS worker_id, w.name,
                        CASE WHEN s.capacity < s.slots THEN s.capacity ELSE s.slots END AS free
                    FROM sessions s JOIN workers w ON w.id = s.worker_id
                    WHERE s.ended IS NULL AND s.seen > $1 AND s.seen <= $3 AND s.mood = 'ready'
                      AND w.revoked < 1 AND w.paused IS NULL
                    UNION ALL SELECT session_id, NULL, NULL, NULL, -1
                    FROM attempts WHERE ended IS NULL) parts
                GROUP BY id HAVING MAX(labels) IS NOT NULL AND SUM(free) > 0) q) p
         WHERE place <= $2 ORDER BY id",
    )
    .bind(tx.now.0 - SILENT)
    .bind(LOOKED_AT)
    // Who was seen in the future was so before the clock was put back, and not since.
    .bind(tx.now.0)
    .fetch_all(&mut **tx)
    .await?;
    let mut all = Free {
        slots: Vec::new(),
        workers: BTreeMap::new(),
    };
    // Workers that are alike say the same.
    let mut kinds: BTreeMap<String, Labels> = BTreeMap::new();
    for row in &rows {
        let session = rows::session_id(row, "id")?;
        let text: String = row.try_get("labels")?;
        let labels = match kinds.get(&text) {
            Some(labels) => labels.clone(),
            None => {
                let labels = rows::labels(row)?;
                kinds.insert(text, labels.clone());
                labels
            }
        };
        let worker = (row.try_get("worker_id")?, row.try_get("name")?);
        all.workers.insert(session.clone(), worker);
        all.slots.push(Slots {
            session,
            free: rows::number(row, "free")?,
            labels,
        });
    }
    Ok(all)
}

/// The lanes that these slots serve, as far as they may get some of them, and whose they
/// are; and once more those that have more jobs than that.
async fn waiting(
    tx: &mut Tx,
    slots: &[Slots],
) -> Result<(Vec<Share>, Vec<Lane>, Vec<Lane>), StoreError> {
    let mut shares = BTreeMap::new();
    let (mut lanes, mut more) = (Vec::new(), Vec::new());
    for (requirements, open) in open_lanes(tx, slots).await? {
        let serving = slots
            .iter()
            .filter(|slots| slots.labels.serves(&requirements).is_some());
        let free: i64 = serving.map(|slots| i64::from(slots.free)).sum();
        let most = at_most(&open, free.min(LOOKED_AT));
        for (lane, most) in open.into_iter().zip(most) {
            let some = Lane {
                heads: match most {
                    0 => Vec::new(),
                    most => heads(tx, &lane, most).await?,
                },
                share: lane.share.id,
                requirements: requirements.clone(),
            };
            if most < lane.queued {
                more.push(some.clone());
            }
            if most > 0 {
                lanes.push(some);
                shares.insert(lane.share.id, lane.share);
            }
        }
    }
    Ok((shares.into_values().collect(), lanes, more))
}

/// Whether slots are left that serve a lane that has more, and of which all was given away
/// that was read. See [`at_most`].
fn is_short(all: &[Assignment], slots: &[Slots], more: &[Lane]) -> bool {
    if all.is_empty() {
        return false;
    }
    let given: BTreeSet<JobId> = all.iter().map(|one| one.job).collect();
    let left = |slots: &&Slots| {
        let taken = all.iter().filter(|one| one.session == slots.session);
        taken.count() < slots.free as usize
    };
    let left: Vec<&Slots> = slots.iter().filter(left).collect();
    more.iter().any(|lane| {
        lane.heads.iter().all(|head| given.contains(&head.job))
            && left
                .iter()
                .any(|slots| slots.labels.serves(&lane.requirements).is_some())
    })
}

/// How many jobs of each of these lanes, which are all of one class that anybody has a
/// turn in now, can be given away with so many slots: as many as if the class had all of
/// them, and no share had its turn, or came to its cap, in another class. Where one does,
/// others may get more than was read of them: the next pass gives it, see [`is_short`].
fn at_most(lanes: &[Open], slots: i64) -> Vec<i64> {
    let mut given = vec![0; lanes.len()];
    let mut turns: BinaryHeap<_> = lanes
        .iter()
        .enumerate()
        .map(|(place, lane)| Reverse((lane.share.running, lane.share.turn, place)))
        .collect();
    for turn in 0..slots {
        let Some(Reverse((running, _, place))) = turns.pop() else {
            break;
        };
        let lane = &lanes[place];
        given[place] += 1;
        let more = given[place] < lane.queued;
        if more && lane.share.cap.is_none_or(|cap| running + 1 < cap) {
            // Among equals who had a turn waits for those who had one before.
            turns.push(Reverse((running + 1, i64::MAX - slots + turn, place)));
        }
    }
    given
}

/// Lanes in which something waits for an image that a free slot has, by class: of each
/// class those whose shares have the next turns.
async fn open_lanes(
    tx: &mut Tx,
    slots: &[Slots],
) -> Result<Vec<(Requirements, Vec<Open>)>, StoreError> {
    let images: BTreeSet<[&str; 1]> = slots
        .iter()
        .flat_map(|slots| &slots.labels.images)
        .map(|image| [image.name.as_str()])
        .collect();
    let mut classes: Vec<(Requirements, Vec<Open>)> = Vec::new();
    if images.is_empty() {
        return Ok(classes);
    }
    let rows = sqlx::query(each!(tx.engine,
        "SELECT class_id, share_id, requirements, running, turn, cap, queued FROM (
            SELECT q.*, ROW_NUMBER() OVER
                (PARTITION BY class_id ORDER BY running, turn, share_id) AS place
            FROM (SELECT l.class_id, l.share_id, l.queued, c.requirements, s.running, s.turn,
                    COALESCE(s.cap, f.share_cap) AS cap
                FROM" EACH
                "JOIN classes c ON c.image = e.value->>0
                JOIN lanes l ON l.class_id = c.id AND l.queued > 0
                JOIN shares s ON s.id = l.share_id
                JOIN farm f ON f.id = 1) q
            WHERE cap IS NULL OR running < cap) p
         WHERE place <= $2 ORDER BY class_id, place"
    ))
    .bind(rows::to_json(&images)?)
    .bind(LOOKED_AT)
    .fetch_all(&mut **tx)
    .await?;
    let mut last = None;
    for row in &rows {
        let class: i64 = row.try_get("class_id")?;
        if last.replace(class) != Some(class) {
            classes.push((rows::requirements(row)?, Vec::new()));
        }
        let cap: Option<i64> = row.try_get("cap")?;
        let lane = Open {
            class,
            share: Share {
                id: ShareId(row.try_get("share_id")?),
                running: rows::number(row, "running")?,
                cap: cap.and_then(|cap| u32::try_from(cap).ok()),
                turn: row.try_get("turn")?,
            },
            queued: row.try_get("queued")?,
        };
        if let Some((_, lanes)) = classes.last_mut() {
            lanes.push(lane);
        }
    }
    Ok(classes)
}

/// The first jobs of a lane.
async fn heads(tx: &mut Tx, lane: &Open, limit: i64) -> Result<Vec<Head>, StoreError> {
    let rows = sqlx::query(HEADS)
        .bind(lane.class)
        .bind(lane.share.id.0)
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

/// What is known of a job that is given away.
struct Taken {
    class: i64,
    share: i64,
    attempt: i64,
    manifest: String,
}

/// Gives jobs to sessions, in this order; says what attempts there are now.
async fn grant(
    tx: &mut Tx,
    free: &Free,
    all: &[Assignment],
    changed: &mut Changed,
) -> Result<Vec<Given>, StoreError> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let taken = taken(tx, all).await?;
    let mut values = Vec::with_capacity(all.len());
    let mut given = Vec::with_capacity(all.len());
    for (number, one) in all.iter().enumerate() {
        let job = taken.get(&one.job).ok_or(StoreError::NotFound("job"))?;
        let (worker, name) = free
            .workers
            .get(&one.session)
            .ok_or(StoreError::NotFound("session"))?;
        values.push(json!([
            number,
            one.job.0,
            job.attempt,
            one.session.as_str(),
            worker
        ]));
        given.push(Given {
            job: one.job,
            attempt: u32::try_from(job.attempt).map_err(|_| rows::strange("attempts"))?,
            worker: name.clone(),
            manifest: job.manifest.clone(),
        });
        changed.jobs.push(one.job);
        changed.sessions.push(one.session.clone());
    }
    let fences = write_attempts(tx, &values).await?;
    let mut counts = Counts::default();
    for (one, fence) in all.iter().zip(fences) {
        let job = &taken[&one.job];
        counts.queued(job.class, job.share, -1);
        counts.running(job.share, 1);
        counts.turn(job.share, fence);
    }
    counts.write(tx).await?;
    Ok(given)
}

/// Moves these jobs and writes their attempts; gives the fences.
async fn write_attempts(tx: &mut Tx, values: &[Value]) -> Result<Vec<i64>, StoreError> {
    let count = values.len() as u64;
    let values = rows::to_json(&values)?;
    let moved = sqlx::query(each!(tx.engine,
        "UPDATE jobs SET status = 'running', reason = NULL, updated = $2, started = $2,
            ended = NULL, attempts = attempts + 1, tries = tries + 1, image_digest = NULL,
            worker_id = CAST(e.value->>4 AS BIGINT)
         FROM" EACH
        "WHERE jobs.id = CAST(e.value->>1 AS BIGINT)"
    ))
    .bind(&values)
    .bind(tx.now.0)
    .execute(&mut **tx)
    .await?;
    if moved.rows_affected() != count {
        return Err(StoreError::Conflict("the job has changed meanwhile".into()));
    }
    let mut fences: Vec<i64> = sqlx::query_scalar(each!(tx.engine,
        "INSERT INTO attempts (job_id, number, session_id, worker_id, granted, expires)
         SELECT CAST(e.value->>1 AS BIGINT), CAST(e.value->>2 AS BIGINT), e.value->>3,
            CAST(e.value->>4 AS BIGINT), $2, $3
         FROM" EACH
        "ORDER BY CAST(e.value->>0 AS BIGINT) RETURNING id"
    ))
    .bind(&values)
    .bind(tx.now.0)
    .bind(tx.now.0 + LEASE)
    .fetch_all(&mut **tx)
    .await?;
    // Numbers are given in the order of the rows, and grow.
    fences.sort_unstable();
    Ok(fences)
}

/// The jobs that are given away.
async fn taken(tx: &mut Tx, all: &[Assignment]) -> Result<BTreeMap<JobId, Taken>, StoreError> {
    let jobs: Vec<i32> = all.iter().map(|one| one.job.0).collect();
    let rows = sqlx::query(each!(tx.engine,
        "SELECT j.id, j.status, j.class_id, j.share_id, j.attempts, j.recipe FROM" EACH
        "JOIN jobs j ON j.id = CAST(e.value AS BIGINT)"
    ))
    .bind(rows::to_json(&jobs)?)
    .fetch_all(&mut **tx)
    .await?;
    let mut taken = BTreeMap::new();
    for row in &rows {
        rows::job_status(row)?.transition(JobStatus::Running)?;
        let attempts: i64 = row.try_get("attempts")?;
        let job = Taken {
            class: row.try_get("class_id")?,
            share: row.try_get("share_id")?,
            attempt: attempts + 1,
            manifest: row.try_get("recipe")?,
        };
        taken.insert(JobId(rows::number(row, "id")?), job);
    }
    Ok(taken)
}
