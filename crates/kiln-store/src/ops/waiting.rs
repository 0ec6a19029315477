//! What waits, and why.

use std::collections::BTreeMap;

use kiln_core::farm::{
    JobId, Requirements, ShareId, UserId, WorkerId,
    schedule::Share,
    wait::{self, Here, Queue},
};
use sqlx::{Row as _, any::AnyRow};

use crate::{
    Store, StoreError,
    model::{Mood, Session, WaitReason, Waiting, Worker},
    rows::{self, job_tables, listed_columns},
};

/// A queued job's place.
struct Place {
    class: i64,
    share: ShareId,
    /// How many of its share and class come before it.
    before: u32,
    requirements: Requirements,
}

/// What all jobs that wait are compared with.
struct Farm {
    here: Vec<Here>,
    /// The shares that wait for each class, and how many of their jobs do.
    lanes: BTreeMap<i64, Vec<(Share, u32)>>,
}

impl Store {
    /// Queued jobs and why they wait, in the order of their numbers; those of one
    /// user if named.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn waiting(
        &self,
        owner: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Waiting>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            listed_columns!(),
            ", j.class_id, j.share_id, u.username AS owner_name, q.before FROM ",
            job_tables!(),
            " JOIN users u ON u.id = j.owner_id
              JOIN (SELECT id, ROW_NUMBER() OVER (PARTITION BY class_id, share_id
                    ORDER BY priority DESC, since, id) - 1 AS before
                FROM jobs WHERE status = 'queued' AND needs_left = 0) q ON q.id = j.id
              WHERE $1 = 0 OR j.owner_id = $1
              ORDER BY j.id LIMIT $2"
        ))
        .bind(owner.map_or(0, |id| i64::from(id.0)))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let farm = self.farm().await?;
        rows.iter()
            .map(|row| {
                Ok(Waiting {
                    job: rows::listed_job(row)?,
                    owner_name: row.try_get("owner_name")?,
                    reason: farm.reason(&place(row)?),
                })
            })
            .collect()
    }

    /// Why a queued job waits; none when it is not queued.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn wait_reason(&self, job: JobId) -> Result<Option<WaitReason>, StoreError> {
        let row = sqlx::query(
            "SELECT j.class_id, j.share_id, c.requirements,
             (SELECT COUNT(*) FROM jobs o WHERE o.class_id = j.class_id
                AND o.share_id = j.share_id AND o.status = 'queued' AND o.needs_left = 0
                AND (o.priority > j.priority OR (o.priority = j.priority
                    AND (o.since < j.since OR (o.since = j.since AND o.id < j.id))))) AS before
             FROM jobs j JOIN classes c ON c.id = j.class_id
             WHERE j.id = $1 AND j.status = 'queued'",
        )
        .bind(i64::from(job.0))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        Ok(Some(self.farm().await?.reason(&place(&row)?)))
    }

    async fn farm(&self) -> Result<Farm, StoreError> {
        let workers: BTreeMap<WorkerId, Worker> = self
            .workers()
            .await?
            .into_iter()
            .map(|worker| (worker.id, worker))
            .collect();
        let sessions = self.sessions().await?;
        let here = sessions
            .into_iter()
            .filter_map(|session| here(session, &workers))
            .collect();
        let rows = sqlx::query(
            "SELECT l.class_id, l.queued, s.id, s.running, s.turn,
                COALESCE(s.cap, (SELECT share_cap FROM farm WHERE id = 1)) AS cap
             FROM lanes l JOIN shares s ON s.id = l.share_id WHERE l.queued > 0",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut lanes: BTreeMap<i64, Vec<(Share, u32)>> = BTreeMap::new();
        for row in &rows {
            let cap: Option<i64> = row.try_get("cap")?;
            let share = Share {
                id: ShareId(row.try_get("id")?),
                running: rows::number(row, "running")?,
                cap: cap.and_then(|cap| u32::try_from(cap).ok()),
                turn: row.try_get("turn")?,
            };
            let queued = rows::number(row, "queued")?;
            lanes
                .entry(row.try_get("class_id")?)
                .or_default()
                .push((share, queued));
        }
        Ok(Farm { here, lanes })
    }
}

impl Farm {
    fn reason(&self, place: &Place) -> WaitReason {
        let (own, others): (Vec<_>, Vec<_>) = self
            .lanes
            .get(&place.class)
            .into_iter()
            .flatten()
            .cloned()
            .partition(|(share, _)| share.id == place.share);
        let Some((share, _)) = own.first() else {
            // It was given to a worker while this looked.
            return WaitReason::Next;
        };
        let queue = Queue {
            share,
            before: place.before,
            others: &others,
        };
        wait::reason(&place.requirements, &self.here, &queue)
    }
}

fn place(row: &AnyRow) -> Result<Place, StoreError> {
    Ok(Place {
        class: row.try_get("class_id")?,
        share: ShareId(row.try_get("share_id")?),
        before: rows::number(row, "before")?,
        requirements: rows::requirements(row)?,
    })
}

/// A session as those who wait see it; none of a worker that was taken back.
fn here(session: Session, workers: &BTreeMap<WorkerId, Worker>) -> Option<Here> {
    let worker = workers
        .get(&session.worker)
        .filter(|worker| !worker.revoked)?;
    let stopped = match (&worker.paused, session.mood) {
        (Some(why), _) => Some(format!("is paused: {why}")),
        (None, Mood::Draining) => Some("is draining".into()),
        (None, Mood::Unwell(why)) => Some(format!("is unwell: {why}")),
        (None, Mood::Ready) => None,
    };
    Some(Here {
        name: worker.name.clone(),
        labels: session.labels,
        slots: session.slots,
        capacity: session.capacity,
        held: u32::try_from(session.leases.len()).unwrap_or(u32::MAX),
        stopped,
        short_of: session.short_of.map(|what| format!("is short of {what}")),
    })
}
