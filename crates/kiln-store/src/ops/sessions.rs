//! Sessions of workers: who is here, and what each has leases for.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::farm::{Fence, JobId, Labels, SessionId, WorkerId, limits};
use sqlx::Row as _;

use super::renew;
use crate::{
    Store, StoreError,
    model::{Changed, Hello, KnownImage, Lease, LeaseKey, Moment, Session, SessionState, Voice},
    rows::{self, job_columns, job_tables},
    tx::{SECOND, Tx, write},
};

/// A lease, in microseconds. A session that said nothing for so long is not here.
pub(crate) const LEASE: i64 = limits::LEASE_SECONDS as i64 * SECOND;
/// One that said nothing for so long gets no jobs, in microseconds.
pub(crate) const SILENT: i64 = limits::SILENT_SECONDS as i64 * SECOND;

impl Store {
    /// A session says hello with the leases it believes to have. Gives those that
    /// are not its own, all others are renewed; and the voice that speaks for the session
    /// from now on, instead of any before it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the session is another worker's, or has ended.
    pub async fn hello(
        &self,
        worker: WorkerId,
        session: &Hello,
    ) -> Result<(Vec<Fence>, Voice), StoreError> {
        write!(self, |tx| {
            let before = sqlx::query("SELECT worker_id, ended FROM sessions WHERE id = $1")
                .bind(session.session.as_str())
                .fetch_optional(&mut **tx)
                .await?;
            if let Some(row) = &before {
                let owner: i64 = row.try_get("worker_id")?;
                if owner != i64::from(worker.0) || rows::optional_moment(row, "ended")?.is_some() {
                    return Err(StoreError::Conflict(
                        "this session is another worker's, or has ended".into(),
                    ));
                }
            }
            let voice = greet(tx, worker, session).await?;
            write_state(tx, &session.session, &session.state).await?;
            let lost = renew::one(tx, &session.session, &session.leases).await?;
            (lost, voice)
        })
    }

    /// A session's state has changed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_state(
        &self,
        session: &SessionId,
        state: &SessionState,
    ) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            write_state(tx, session, state).await?;
            Changed {
                assign: true,
                ..Changed::default()
            }
        })
    }

    /// A worker went away in peace: it has no leases and comes not again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has leases.
    pub async fn end_session(&self, session: &SessionId) -> Result<(), StoreError> {
        write!(self, |tx| {
            if !own(tx, session).await?.is_empty() {
                return Err(StoreError::Conflict("this session still has leases".into()));
            }
            sqlx::query("UPDATE sessions SET ended = $2 WHERE id = $1 AND ended IS NULL")
                .bind(session.as_str())
                .bind(tx.now.0)
                .execute(&mut **tx)
                .await?;
        })
    }

    /// Sessions that were seen within the last lease, with their leases, by worker
    /// and start.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn sessions(&self) -> Result<Vec<Session>, StoreError> {
        let Moment(now) = self.now().await?;
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE ended IS NULL AND seen > $1
             ORDER BY worker_id, started, id",
        )
        .bind(now - LEASE)
        .fetch_all(&self.pool)
        .await?;
        let mut sessions: Vec<Session> =
            rows.iter().map(rows::session).collect::<Result<_, _>>()?;
        let rows = sqlx::query(
            "SELECT id, job_id, session_id FROM attempts WHERE ended IS NULL ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut leases: BTreeMap<String, Vec<(Fence, JobId)>> = BTreeMap::new();
        for row in &rows {
            leases.entry(row.try_get("session_id")?).or_default().push((
                Fence(row.try_get("id")?),
                JobId(rows::number(row, "job_id")?),
            ));
        }
        for session in &mut sessions {
            session.leases = leases.remove(session.id.as_str()).unwrap_or_default();
        }
        Ok(sessions)
    }

    /// The leases of a session that have not ended, by fence, with their jobs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leases(&self, session: &SessionId) -> Result<Vec<(Fence, JobId)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, job_id FROM attempts WHERE session_id = $1 AND ended IS NULL ORDER BY id",
        )
        .bind(session.as_str())
        .fetch_all(&self.pool)
        .await?;
        let fence = |row: &sqlx::any::AnyRow| {
            let job = JobId(rows::number(row, "job_id")?);
            Ok((Fence(row.try_get("id")?), job))
        };
        rows.iter().map(fence).collect()
    }

    /// One lease that has not ended, if it is that session's and that worker's.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn lease(
        &self,
        worker: WorkerId,
        session: &SessionId,
        fence: Fence,
    ) -> Result<Option<Lease>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            job_columns!(),
            ", a.id AS fence, a.number, a.granted, a.begun, u.username AS owner_name FROM ",
            job_tables!(),
            " JOIN attempts a ON a.job_id = j.id JOIN users u ON u.id = j.owner_id
              WHERE a.id = $1 AND a.session_id = $2 AND a.worker_id = $3 AND a.ended IS NULL"
        ))
        .bind(fence.0)
        .bind(session.as_str())
        .bind(i64::from(worker.0))
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref()
            .map(|row| rows::lease(row, rows::job(row)?))
            .transpose()
    }

    /// Whether this task may run under a lease that has not ended, and whose job it is.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::NotFound`] for a task that the job has not;
    /// [`StoreError::Conflict`] before [`Store::begun`] was said.
    pub async fn may_run(&self, lease: LeaseKey<'_>, task: &str) -> Result<JobId, StoreError> {
        let row = sqlx::query(
            "SELECT a.job_id, a.begun, t.id AS task FROM attempts a
             LEFT JOIN tasks t ON t.job_id = a.job_id AND t.name = $4
             WHERE a.id = $1 AND a.session_id = $2 AND a.worker_id = $3 AND a.ended IS NULL",
        )
        .bind(lease.fence.0)
        .bind(lease.session.as_str())
        .bind(i64::from(lease.worker.0))
        .bind(task)
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::LeaseLost)?;
        if row.try_get::<Option<i64>, _>("task")?.is_none() {
            return Err(StoreError::NotFound("task"));
        }
        if row.try_get::<Option<i64>, _>("begun")?.is_none() {
            return Err(StoreError::Conflict("no task runs before `begun`".into()));
        }
        Ok(JobId(rows::number(&row, "job_id")?))
    }

    /// The job of a lease that has not ended.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn holds(&self, lease: LeaseKey<'_>) -> Result<JobId, StoreError> {
        let row = sqlx::query(
            "SELECT job_id FROM attempts
             WHERE id = $1 AND session_id = $2 AND worker_id = $3 AND ended IS NULL",
        )
        .bind(lease.fence.0)
        .bind(lease.session.as_str())
        .bind(i64::from(lease.worker.0))
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::LeaseLost)?;
        Ok(JobId(rows::number(&row, "job_id")?))
    }

    /// Every image that a worker ever offered, by name and architecture, and whether
    /// one that is here offers it now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn images(&self) -> Result<Vec<KnownImage>, StoreError> {
        let here: BTreeSet<(String, String)> = self
            .sessions()
            .await?
            .into_iter()
            .flat_map(|session| session.labels.images)
            .map(|image| (image.name, image.arch))
            .collect();
        let offered = self.offered().await?.into_iter();
        Ok(offered
            .map(|key| {
                let here = here.contains(&key);
                let (name, arch) = key;
                KnownImage { name, arch, here }
            })
            .collect())
    }

    /// Every image that a worker ever offered: name and architecture, in this order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn offered(&self) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query("SELECT name, arch FROM images ORDER BY name, arch")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("name")?, row.try_get("arch")?)))
            .collect()
    }
}

async fn greet(tx: &mut Tx, worker: WorkerId, hello: &Hello) -> Result<Voice, StoreError> {
    let voice = sqlx::query_scalar(
        "INSERT INTO sessions (id, worker_id, version, started, seen, slots, capacity, labels, mood)
         VALUES ($1, $2, $3, $4, $4, $5, 0, '', 'ready')
         ON CONFLICT (id) DO UPDATE SET version = $3, slots = $5, voice = sessions.voice + 1
         RETURNING voice",
    )
    .bind(hello.session.as_str())
    .bind(i64::from(worker.0))
    .bind(&hello.version)
    .bind(tx.now.0)
    .bind(i64::from(hello.slots))
    .fetch_one(&mut **tx)
    .await?;
    Ok(Voice(voice))
}

async fn write_state(
    tx: &mut Tx,
    session: &SessionId,
    state: &SessionState,
) -> Result<(), StoreError> {
    let before = sqlx::query("SELECT labels FROM sessions WHERE id = $1 AND ended IS NULL")
        .bind(session.as_str())
        .fetch_optional(&mut **tx)
        .await?
        .ok_or(StoreError::NotFound("session"))?;
    let before: String = before.try_get("labels")?;
    let labels = rows::to_json(&state.labels)?;
    if labels != before {
        know(tx, &state.labels).await?;
    }
    let (mood, reason) = rows::mood_columns(&state.mood);
    sqlx::query(
        "UPDATE sessions SET capacity = $2, labels = $3, mood = $4, mood_reason = $5,
            short_of = $6, seen = $7
         WHERE id = $1",
    )
    .bind(session.as_str())
    .bind(i64::from(state.capacity))
    .bind(labels)
    .bind(mood)
    .bind(reason)
    .bind(&state.short_of)
    .bind(tx.now.0)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Remembers the images that somebody offers.
async fn know(tx: &mut Tx, labels: &Labels) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT name, arch FROM images")
        .fetch_all(&mut **tx)
        .await?;
    let mut known = BTreeSet::<(String, String)>::new();
    for row in &rows {
        known.insert((row.try_get("name")?, row.try_get("arch")?));
    }
    for image in &labels.images {
        if known.insert((image.name.clone(), image.arch.clone())) {
            sqlx::query("INSERT INTO images (name, arch, first_offered) VALUES ($1, $2, $3)")
                .bind(&image.name)
                .bind(&image.arch)
                .bind(tx.now.0)
                .execute(&mut **tx)
                .await?;
        }
    }
    Ok(())
}

/// Leases of a session that have not ended.
async fn own(tx: &mut Tx, session: &SessionId) -> Result<BTreeSet<Fence>, StoreError> {
    let rows = sqlx::query("SELECT id FROM attempts WHERE session_id = $1 AND ended IS NULL")
        .bind(session.as_str())
        .fetch_all(&mut **tx)
        .await?;
    rows.iter()
        .map(|row| Ok(Fence(row.try_get("id")?)))
        .collect()
}
