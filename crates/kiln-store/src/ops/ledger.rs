//! Leases, with their jobs and tasks, as many reports find and leave them: read at once,
//! looked at report by report, and written at once.

use std::collections::BTreeMap;

use kiln_core::{
    farm::{
        Fence, GroupId, JobId, SessionId, WorkerId,
        attempt::{Attempt, Outcome, Taken},
    },
    job::{JobStatus, TaskStatus},
};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::{
    counts::{self, Counts, Told},
    moves,
    reports::{Act, Report},
};
use crate::{
    StoreError,
    dialect::each,
    model::{Changed, Deed, Moment, Reported},
    rows,
    tx::Tx,
};

/// A lease.
struct Lease {
    worker: i64,
    session: SessionId,
    voice: i64,
    job: i64,
    attempt: Attempt,
    begun: Option<Moment>,
    reason: Option<String>,
    token: Option<String>,
    changed: bool,
}

/// The job of one.
struct Job {
    id: JobId,
    status: JobStatus,
    started: Option<Moment>,
    share: i64,
    group: Option<GroupId>,
    /// How it ended now, and why.
    end: Option<(JobStatus, Option<String>)>,
    digest: Option<String>,
    tasks: Vec<Task>,
}

struct Task {
    id: i64,
    name: String,
    status: TaskStatus,
    changed: bool,
}

/// What reports find and leave.
pub(crate) struct Ledger {
    now: Moment,
    leases: BTreeMap<i64, Lease>,
    jobs: BTreeMap<i64, Job>,
    sources: BTreeMap<(i64, u32), String>,
}

impl Ledger {
    /// Reads these leases and all that belongs to them.
    pub(crate) async fn open(
        tx: &mut Tx,
        fences: impl Iterator<Item = Fence>,
    ) -> Result<Self, StoreError> {
        let mut fences: Vec<i64> = fences.map(|fence| fence.0).collect();
        fences.sort_unstable();
        fences.dedup();
        let mut ledger = Self {
            now: tx.now,
            leases: BTreeMap::new(),
            jobs: BTreeMap::new(),
            sources: BTreeMap::new(),
        };
        let found = sqlx::query(each!(tx.engine,
            "SELECT a.id AS fence, a.session_id, a.worker_id, a.job_id, a.begun, a.outcome,
                j.status, j.started, j.share_id, j.group_id, s.voice
             FROM" EACH
            "JOIN attempts a ON a.id = CAST(e.value AS BIGINT) JOIN jobs j ON j.id = a.job_id
             JOIN sessions s ON s.id = a.session_id"
        ))
        .bind(rows::to_json(&fences)?)
        .fetch_all(&mut **tx)
        .await?;
        for row in &found {
            let id: i64 = row.try_get("job_id")?;
            let group: Option<i64> = row.try_get("group_id")?;
            ledger.leases.insert(
                row.try_get("fence")?,
                Lease {
                    worker: row.try_get("worker_id")?,
                    session: rows::session_id(row, "session_id")?,
                    voice: row.try_get("voice")?,
                    job: id,
                    attempt: rows::life(row)?,
                    begun: rows::optional_moment(row, "begun")?,
                    reason: None,
                    token: None,
                    changed: false,
                },
            );
            ledger.jobs.insert(
                id,
                Job {
                    id: JobId(rows::number(row, "job_id")?),
                    status: rows::job_status(row)?,
                    started: rows::optional_moment(row, "started")?,
                    share: row.try_get("share_id")?,
                    group: group.and_then(|id| i32::try_from(id).ok()).map(GroupId),
                    end: None,
                    digest: None,
                    tasks: Vec::new(),
                },
            );
        }
        ledger.read_tasks(tx).await?;
        Ok(ledger)
    }

    async fn read_tasks(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        let jobs: Vec<&i64> = self.jobs.keys().collect();
        let found = sqlx::query(each!(tx.engine,
            "SELECT t.id, t.job_id, t.name, t.status FROM" EACH
            "JOIN tasks t ON t.job_id = CAST(e.value AS BIGINT) ORDER BY t.job_id, t.place"
        ))
        .bind(rows::to_json(&jobs)?)
        .fetch_all(&mut **tx)
        .await?;
        for row in &found {
            let job: i64 = row.try_get("job_id")?;
            if let Some(job) = self.jobs.get_mut(&job) {
                job.tasks.push(Task {
                    id: row.try_get("id")?,
                    name: row.try_get("name")?,
                    status: rows::task_status(row)?,
                    changed: false,
                });
            }
        }
        Ok(())
    }

    /// Does what one report says, or refuses it and changes nothing.
    pub(crate) fn take(&mut self, report: &Report) -> Result<Reported, StoreError> {
        let lease = self.leases.get_mut(&report.fence.0);
        let lease = lease.ok_or(StoreError::LeaseLost)?;
        let job = self.jobs.get_mut(&lease.job);
        let job = job.ok_or(StoreError::NotFound("job"))?;
        let deed = match &report.act {
            Act::Deed(worker, session, deed) => {
                if !lease.is_of(*worker, session) {
                    return Err(StoreError::LeaseLost);
                }
                deed
            }
            Act::Token(hash, voice) => {
                lease.attempt.alive()?;
                if voice.0 != lease.voice {
                    return Err(StoreError::Conflict(
                        "this session has another socket".into(),
                    ));
                }
                lease.token = Some(rows::hex(*hash));
                lease.changed = true;
                return Ok(Reported::default());
            }
        };
        let mut reported = Reported::default();
        match deed {
            Deed::End {
                status,
                reason,
                tasks,
            } => {
                end(
                    lease,
                    job,
                    self.now,
                    (*status, reason, tasks),
                    &mut reported,
                )?;
            }
            deed => {
                lease.attempt.alive()?;
                match deed {
                    Deed::Begun => {
                        if lease.attempt.begin()? == Taken::New {
                            lease.begun = Some(self.now);
                            lease.changed = true;
                            reported.changed.jobs.push(job.id);
                        }
                    }
                    Deed::End { .. } => {}
                    Deed::Task(name, status) => {
                        set_task(lease, job, name, *status, &mut reported.changed)?;
                    }
                    Deed::Source(index, commit) => {
                        self.sources.insert((lease.job, *index), commit.clone());
                    }
                    Deed::Digest(digest) => job.digest = Some(digest.clone()),
                }
            }
        }
        Ok(reported)
    }

    /// Writes what has changed.
    pub(crate) async fn write(&self, tx: &mut Tx) -> Result<(), StoreError> {
        self.write_leases(tx).await?;
        self.write_tasks(tx).await?;
        self.write_sources(tx).await?;
        self.write_digests(tx).await?;
        self.write_ends(tx).await
    }

    async fn write_leases(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let changed = self.leases.iter().filter(|(_, lease)| lease.changed);
        let values: Vec<Value> = changed
            .map(|(fence, lease)| {
                let ended = lease.attempt.outcome.map(|_| self.now.0);
                json!([
                    fence,
                    lease.begun.map(|begun| begun.0),
                    ended,
                    lease.attempt.outcome.map(Outcome::as_str),
                    lease.reason,
                    lease.token
                ])
            })
            .collect();
        if values.is_empty() {
            return Ok(());
        }
        let ended = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.changed && lease.attempt.outcome.is_some());
        let ended: Vec<i64> = ended.map(|(fence, _)| *fence).collect();
        if !ended.is_empty() {
            moves::alone(tx, &ended).await?;
        }
        sqlx::query(each!(tx.engine,
            "UPDATE attempts SET begun = CAST(e.value->>1 AS BIGINT),
                ended = CAST(e.value->>2 AS BIGINT), outcome = e.value->>3,
                reason = e.value->>4, token = COALESCE(e.value->>5, token)
             FROM" EACH
            "WHERE attempts.id = CAST(e.value->>0 AS BIGINT) AND attempts.outcome IS NULL"
        ))
        .bind(rows::to_json(&values)?)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    async fn write_tasks(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let tasks = self.jobs.values().flat_map(|job| &job.tasks);
        let values: Vec<(i64, &str)> = tasks
            .filter(|task| task.changed)
            .map(|task| (task.id, task.status.as_str()))
            .collect();
        if values.is_empty() {
            return Ok(());
        }
        sqlx::query(each!(tx.engine,
            "UPDATE tasks SET status = e.value->>1, updated = $2 FROM" EACH
            "WHERE tasks.id = CAST(e.value->>0 AS BIGINT)"
        ))
        .bind(rows::to_json(&values)?)
        .bind(self.now.0)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    async fn write_sources(&self, tx: &mut Tx) -> Result<(), StoreError> {
        for ((job, index), commit) in &self.sources {
            sqlx::query(
                "INSERT INTO sources (job_id, place, revision) VALUES ($1, $2, $3)
                 ON CONFLICT (job_id, place) DO UPDATE SET revision = $3",
            )
            .bind(job)
            .bind(i64::from(*index))
            .bind(commit)
            .execute(&mut **tx)
            .await?;
        }
        Ok(())
    }

    /// Of jobs that have not ended too: those get theirs with the end.
    async fn write_digests(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let jobs = self.jobs.iter().filter(|(_, job)| job.end.is_none());
        let values: Vec<(&i64, &str)> = jobs
            .filter_map(|(id, job)| Some((id, job.digest.as_deref()?)))
            .collect();
        if values.is_empty() {
            return Ok(());
        }
        sqlx::query(each!(tx.engine,
            "UPDATE jobs SET image_digest = e.value->>1 FROM" EACH
            "WHERE jobs.id = CAST(e.value->>0 AS BIGINT)"
        ))
        .bind(rows::to_json(&values)?)
        .execute(&mut **tx)
        .await?;
        Ok(())
    }

    async fn write_ends(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let mut values = Vec::new();
        let mut told: Vec<Told> = Vec::new();
        let mut counts = Counts::default();
        let mut groups = Vec::new();
        for (id, job) in &self.jobs {
            let Some((status, reason)) = &job.end else {
                continue;
            };
            values.push(json!([id, status.as_str(), reason, job.digest]));
            told.push(("job-ended", Some(job.id), None));
            counts.running(job.share, -1);
            groups.extend(job.group.map(|group| group.0));
        }
        if values.is_empty() {
            return Ok(());
        }
        let written = sqlx::query(each!(tx.engine,
            "UPDATE jobs SET status = e.value->>1, reason = e.value->>2, updated = $2, ended = $2,
                image_digest = COALESCE(e.value->>3, image_digest)
             FROM" EACH
            "WHERE jobs.id = CAST(e.value->>0 AS BIGINT) AND jobs.status = 'running'"
        ))
        .bind(rows::to_json(&values)?)
        .bind(self.now.0)
        .execute(&mut **tx)
        .await?;
        if written.rows_affected() != values.len() as u64 {
            return Err(rows::strange("status"));
        }
        counts.write(tx).await?;
        groups.sort_unstable();
        groups.dedup();
        told.extend(ended_groups(tx, &groups).await?);
        counts::tell(tx, &told).await
    }
}

/// Those of these groups in which no job is left.
async fn ended_groups(tx: &mut Tx, groups: &[i32]) -> Result<Vec<Told>, StoreError> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let ended = sqlx::query(each!(tx.engine,
        "SELECT g.id FROM" EACH
        "JOIN job_groups g ON g.id = CAST(e.value AS BIGINT)
         WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.group_id = g.id
            AND j.status IN ('pending', 'queued', 'running'))
         ORDER BY g.id"
    ))
    .bind(rows::to_json(&groups)?)
    .fetch_all(&mut **tx)
    .await?;
    let told = ended.iter().map(|row| {
        let group = GroupId(rows::number(row, "id")?);
        Ok(("group-ended", None, Some(group)))
    });
    told.collect()
}

impl Lease {
    fn is_of(&self, worker: WorkerId, session: &SessionId) -> bool {
        self.worker == i64::from(worker.0) && self.session == *session
    }
}

fn set_task(
    lease: &Lease,
    job: &mut Job,
    name: &str,
    status: TaskStatus,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let task = job.tasks.iter_mut().find(|task| task.name == name);
    let task = task.ok_or(StoreError::NotFound("task"))?;
    if lease.attempt.task(task.status, status)? == Taken::New {
        task.status = status;
        task.changed = true;
        changed.jobs.push(job.id);
    }
    Ok(())
}

/// How a worker says that a job ended.
type Said<'a> = (JobStatus, &'a Option<String>, &'a [(String, TaskStatus)]);

fn end(
    lease: &mut Lease,
    job: &mut Job,
    now: Moment,
    (status, reason, tasks): Said<'_>,
    reported: &mut Reported,
) -> Result<(), StoreError> {
    if lease.attempt.end(job.status, status)? == Taken::Again {
        return Ok(());
    }
    for task in &mut job.tasks {
        let said = tasks.iter().find(|(name, _)| *name == task.name);
        let before = task.status;
        task.status = before.at_end(said.map(|(_, status)| *status));
        task.changed |= task.status != before;
    }
    lease.reason.clone_from(reason);
    lease.changed = true;
    job.status = status;
    job.end = Some((status, reason.clone()));
    let changed = &mut reported.changed;
    changed.jobs.push(job.id);
    changed.ended.push(job.id);
    changed.sessions.push(lease.session.clone());
    changed.assign = true;
    reported.ran = job.started.map(|started| (started, now));
    Ok(())
}
