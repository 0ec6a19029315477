//! Submitting jobs: many in one transaction, by one statement for each table.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{
    farm::{JobId, limits},
    job::{JobStatus, TaskStatus},
};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::counts;
use crate::{
    Store, StoreError,
    dialect::each,
    group::{Answer, Operation},
    model::{Job, NewJob},
    rows::{self, job_columns, job_tables},
    tx::Tx,
};

/// A job, and whether it is new.
type Verdict = Result<(Job, bool), StoreError>;

/// A client's name for a submission, within its owner.
type Key<'a> = (i64, &'a str);

impl Store {
    /// Writes job, tasks and what the outbox tells of it; or finds the job that the
    /// same key made. The flag says whether it is new.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the same key made a job of something else, and when
    /// jobs of too many kinds wait in this share.
    pub async fn submit(&self, job: &NewJob) -> Result<(Job, bool), StoreError> {
        let operation = Operation::Submit(Box::new(job.clone()));
        match self.grouped(operation).await? {
            Answer::Submitted(job, new) => Ok((*job, new)),
            Answer::Reported(_) => Err(rows::strange("answer")),
        }
    }
}

/// A job that will be written.
struct Fresh<'a> {
    place: usize,
    job: &'a NewJob,
    share: i64,
    class: i64,
}

/// What is found of a submission's key.
enum Known {
    /// The job that it made.
    Job(JobId),
    /// The submission before in this group.
    Before(usize),
}

/// Submits jobs, each with its place among others.
pub(crate) async fn all(
    tx: &mut Tx,
    jobs: &[(usize, &NewJob)],
) -> Result<Vec<(usize, Verdict)>, StoreError> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut verdicts = Vec::with_capacity(jobs.len());
    let mut keys = keys(tx, jobs).await?;
    let shares = shares(tx, jobs).await?;
    let classes = classes(tx, jobs).await?;
    let mut open = open_lanes(tx, shares.values()).await?;
    let mut fresh = Vec::new();
    let mut repeated = Vec::new();
    for &(place, job) in jobs {
        let share = shares[&share_of(job)];
        let class = classes[&job.requirements.to_string()];
        let key = key_of(job);
        match key.and_then(|key| keys.get(&key)) {
            Some((hash, known)) => match job.idempotency.as_ref() {
                Some((_, own)) if *hash == rows::digits(own) => match known {
                    Known::Job(id) => repeated.push((place, Ok(*id))),
                    Known::Before(before) => repeated.push((place, Err(*before))),
                },
                _ => verdicts.push((place, Err(used_otherwise()))),
            },
            None if job.execute && !has_room(&mut open, share, class) => {
                verdicts.push((place, Err(too_many_kinds())));
            }
            None => {
                if let (Some(key), Some((_, hash))) = (key, &job.idempotency) {
                    keys.insert(key, (rows::digits(hash), Known::Before(place)));
                }
                fresh.push(Fresh {
                    place,
                    job,
                    share,
                    class,
                });
            }
        }
    }
    let ids = write(tx, &fresh).await?;
    for (place, known) in repeated {
        let id = match known {
            Ok(id) => Some(id),
            Err(before) => fresh
                .iter()
                .position(|fresh| fresh.place == before)
                .map(|index| ids[index]),
        };
        let id = id.ok_or_else(|| rows::strange("key"))?;
        verdicts.push((place, read(tx, id).await.map(|job| (job, false))));
    }
    for (fresh, id) in fresh.iter().zip(ids) {
        verdicts.push((fresh.place, Ok((written(tx, fresh.job, id), true))));
    }
    Ok(verdicts)
}

fn used_otherwise() -> StoreError {
    StoreError::Conflict("another job was submitted with this Idempotency-Key".into())
}

fn too_many_kinds() -> StoreError {
    StoreError::Conflict(format!(
        "jobs of {} kinds wait already, by image, architecture and labels; wait until some have ended",
        limits::KINDS
    ))
}

fn key_of(job: &NewJob) -> Option<Key<'_>> {
    let (key, _) = job.idempotency.as_ref()?;
    Some((i64::from(job.owner.0), key))
}

/// What the submissions' keys made before, with the hash of what that was.
async fn keys<'a>(
    tx: &mut Tx,
    jobs: &[(usize, &'a NewJob)],
) -> Result<BTreeMap<Key<'a>, (String, Known)>, StoreError> {
    let wanted: BTreeSet<Key<'a>> = jobs.iter().filter_map(|(_, job)| key_of(job)).collect();
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let found_rows = sqlx::query(each!(tx.engine,
        "SELECT j.id, j.owner_id, j.idempotency, j.idempotency_hash FROM" EACH
        "JOIN jobs j ON j.owner_id = CAST(e.value->>0 AS BIGINT) AND j.idempotency = e.value->>1"
    ))
    .bind(rows::to_json(&wanted)?)
    .fetch_all(&mut **tx)
    .await?;
    for row in &found_rows {
        let key: (i64, String) = (row.try_get("owner_id")?, row.try_get("idempotency")?);
        let same = |own: &&Key<'a>| (own.0, own.1) == (key.0, key.1.as_str());
        let Some(own) = wanted.iter().find(same) else {
            continue;
        };
        let id = JobId(rows::number(row, "id")?);
        found.insert(*own, (row.try_get("idempotency_hash")?, Known::Job(id)));
    }
    Ok(found)
}

fn share_of(job: &NewJob) -> (i64, &str) {
    let name = job.share.as_deref().unwrap_or_default();
    (i64::from(job.owner.0), name)
}

/// The numbers of the jobs' shares, which are made where they are missing.
async fn shares<'a>(
    tx: &mut Tx,
    jobs: &[(usize, &'a NewJob)],
) -> Result<BTreeMap<(i64, &'a str), i64>, StoreError> {
    let wanted: BTreeSet<(i64, &str)> = jobs.iter().map(|(_, job)| share_of(job)).collect();
    let found_rows = sqlx::query(each!(tx.engine,
        "SELECT s.id, s.owner_id, s.name FROM" EACH
        "JOIN shares s ON s.owner_id = CAST(e.value->>0 AS BIGINT) AND s.name = e.value->>1"
    ))
    .bind(rows::to_json(&wanted)?)
    .fetch_all(&mut **tx)
    .await?;
    let mut found = BTreeMap::new();
    for row in &found_rows {
        let share: (i64, String) = (row.try_get("owner_id")?, row.try_get("name")?);
        let same = |own: &&(i64, &str)| (own.0, own.1) == (share.0, share.1.as_str());
        if let Some(own) = wanted.iter().find(same) {
            found.insert(*own, row.try_get("id")?);
        }
    }
    for missing in wanted {
        if found.contains_key(&missing) {
            continue;
        }
        let id =
            sqlx::query_scalar("INSERT INTO shares (owner_id, name) VALUES ($1, $2) RETURNING id")
                .bind(missing.0)
                .bind(missing.1)
                .fetch_one(&mut **tx)
                .await?;
        found.insert(missing, id);
    }
    Ok(found)
}

/// The numbers of the jobs' classes, which are made where they are missing.
async fn classes(
    tx: &mut Tx,
    jobs: &[(usize, &NewJob)],
) -> Result<BTreeMap<String, i64>, StoreError> {
    let wanted: BTreeMap<String, &str> = jobs
        .iter()
        .map(|(_, job)| {
            (
                job.requirements.to_string(),
                job.requirements.image.as_str(),
            )
        })
        .collect();
    let texts: Vec<&String> = wanted.keys().collect();
    let found_rows = sqlx::query(each!(tx.engine,
        "SELECT c.id, c.requirements FROM" EACH
        "JOIN classes c ON c.requirements = e.value->>0"
    ))
    .bind(rows::to_json(
        &texts.iter().map(|text| [text]).collect::<Vec<_>>(),
    )?)
    .fetch_all(&mut **tx)
    .await?;
    let mut found = BTreeMap::new();
    for row in &found_rows {
        found.insert(row.try_get("requirements")?, row.try_get("id")?);
    }
    for (text, image) in wanted {
        if found.contains_key(&text) {
            continue;
        }
        let id = sqlx::query_scalar(
            "INSERT INTO classes (requirements, image) VALUES ($1, $2) RETURNING id",
        )
        .bind(&text)
        .bind(image)
        .fetch_one(&mut **tx)
        .await?;
        found.insert(text, id);
    }
    Ok(found)
}

/// The classes in which these shares have jobs that wait.
async fn open_lanes(
    tx: &mut Tx,
    shares: impl Iterator<Item = &i64>,
) -> Result<BTreeMap<i64, BTreeSet<i64>>, StoreError> {
    let shares: Vec<i64> = shares.copied().collect();
    let found = sqlx::query(each!(tx.engine,
        "SELECT l.share_id, l.class_id FROM" EACH
        "JOIN lanes l ON l.share_id = CAST(e.value AS BIGINT) AND l.queued > 0"
    ))
    .bind(rows::to_json(&shares)?)
    .fetch_all(&mut **tx)
    .await?;
    let mut open: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for row in &found {
        let share = open.entry(row.try_get("share_id")?).or_default();
        share.insert(row.try_get("class_id")?);
    }
    Ok(open)
}

/// A pass looks at each lane that waits: nobody may make it look at any number of them.
fn has_room(open: &mut BTreeMap<i64, BTreeSet<i64>>, share: i64, class: i64) -> bool {
    let classes = open.entry(share).or_default();
    let room = classes.contains(&class) || classes.len() < limits::KINDS as usize;
    if room {
        classes.insert(class);
    }
    room
}

/// Writes jobs and all that belongs to them; gives their numbers.
async fn write(tx: &mut Tx, all: &[Fresh<'_>]) -> Result<Vec<JobId>, StoreError> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let mut values = Vec::with_capacity(all.len());
    for (number, fresh) in all.iter().enumerate() {
        values.push(columns(number, fresh)?);
    }
    let ids = sqlx::query_scalar(each!(tx.engine,
        "INSERT INTO jobs (owner_id, share_id, class_id, status, priority, recipe_kind, recipe,
            visibility, tags, note, secrets, deadline_seconds, idempotency, idempotency_hash,
            created, updated, since, queued)
         SELECT CAST(e.value->>1 AS BIGINT), CAST(e.value->>2 AS BIGINT),
            CAST(e.value->>3 AS BIGINT), e.value->>4, CAST(e.value->>5 AS BIGINT), 'manifest',
            e.value->>6, e.value->>7, e.value->>8, e.value->>9, CAST(e.value->>10 AS BIGINT),
            CAST(e.value->>11 AS BIGINT), e.value->>12, e.value->>13, $2, $2,
            CASE WHEN e.value->>4 = 'queued' THEN $2 END,
            CASE WHEN e.value->>4 = 'queued' THEN $2 END
         FROM" EACH
        "ORDER BY CAST(e.value->>0 AS BIGINT) RETURNING id"
    ))
    .bind(rows::to_json(&values)?)
    .bind(tx.now.0)
    .fetch_all(&mut **tx)
    .await?;
    // Numbers are given in the order of the rows, and grow.
    let mut ids: Vec<i64> = ids;
    ids.sort_unstable();
    let ids: Vec<JobId> = ids
        .into_iter()
        .map(|id| i32::try_from(id).map(JobId))
        .collect::<Result<_, _>>()
        .map_err(|_| rows::strange("id"))?;
    if ids.len() != all.len() {
        return Err(rows::strange("count of jobs"));
    }
    write_tasks(tx, all, &ids).await?;
    let told: Vec<counts::Told> = ids
        .iter()
        .map(|id| ("job-submitted", Some(*id), None))
        .collect();
    counts::tell(tx, &told).await?;
    let mut counts = counts::Counts::default();
    for fresh in all.iter().filter(|fresh| fresh.job.execute) {
        counts.queued(fresh.class, fresh.share, 1);
    }
    counts.write(tx).await?;
    Ok(ids)
}

fn status_of(job: &NewJob) -> JobStatus {
    if job.execute {
        JobStatus::Queued
    } else {
        JobStatus::Pending
    }
}

fn columns(number: usize, fresh: &Fresh<'_>) -> Result<Value, StoreError> {
    let job = fresh.job;
    let (key, hash) = match &job.idempotency {
        Some((key, hash)) => (Some(key), Some(rows::digits(hash))),
        None => (None, None),
    };
    Ok(json!([
        number,
        job.owner.0,
        fresh.share,
        fresh.class,
        status_of(job).as_str(),
        job.priority,
        job.manifest,
        job.visibility.as_str(),
        rows::to_json(&job.tags)?,
        job.note,
        i64::from(job.secrets),
        rows::signed(job.deadline_seconds),
        key,
        hash,
    ]))
}

async fn write_tasks(tx: &mut Tx, all: &[Fresh<'_>], ids: &[JobId]) -> Result<(), StoreError> {
    let mut values = Vec::new();
    for (fresh, id) in all.iter().zip(ids) {
        for (place, name) in fresh.job.tasks.iter().enumerate() {
            values.push(json!([values.len(), id.0, place, name]));
        }
    }
    if values.is_empty() {
        return Ok(());
    }
    sqlx::query(each!(tx.engine,
        "INSERT INTO tasks (job_id, place, name, status, created, updated)
         SELECT CAST(e.value->>1 AS BIGINT), CAST(e.value->>2 AS BIGINT), e.value->>3, $3, $2, $2
         FROM" EACH
        "ORDER BY CAST(e.value->>0 AS BIGINT)"
    ))
    .bind(rows::to_json(&values)?)
    .bind(tx.now.0)
    .bind(TaskStatus::Pending.as_str())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What `write` has written.
fn written(tx: &Tx, job: &NewJob, id: JobId) -> Job {
    Job {
        id,
        owner: job.owner,
        status: status_of(job),
        manifest: Some(job.manifest.clone()),
        requirements: job.requirements.clone(),
        priority: job.priority,
        note: job.note.clone(),
        tags: job.tags.clone(),
        visibility: job.visibility,
        secrets: job.secrets,
        group: None,
        deadline_seconds: job.deadline_seconds,
        created: tx.now,
        updated: tx.now,
        queued: job.execute.then_some(tx.now),
        started: None,
        ended: None,
        reason: None,
        attempts: 0,
        worker: None,
        image_digest: None,
        logs_removed: None,
    }
}

async fn read(tx: &mut Tx, id: JobId) -> Result<Job, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT ",
        job_columns!(),
        " FROM ",
        job_tables!(),
        " WHERE j.id = $1"
    ))
    .bind(i64::from(id.0))
    .fetch_one(&mut **tx)
    .await?;
    rows::job(&row)
}
