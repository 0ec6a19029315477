//! What workers report under leases: many in one transaction. Each may be repeated: the
//! second time it changes nothing.

use kiln_core::{
    farm::{
        ArtifactId, Fence, JobId, SessionId, WorkerId,
        attempt::{Attempt, Outcome, Taken},
        lease,
    },
    job::{JobStatus, TaskStatus},
};

use super::{ledger::Ledger, moves};
use crate::{
    Store, StoreError,
    group::{Answer, Operation},
    model::{Changed, Deed, LeaseKey, NewArtifact, Reported, TokenHash, Voice},
    rows,
    tx::{Tx, write},
};

/// A lease as its reports need it.
struct Held {
    job: JobId,
    attempt: Attempt,
}

/// One report.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) fence: Fence,
    pub(crate) act: Act,
}

/// What is done to a lease.
#[derive(Debug)]
pub(crate) enum Act {
    /// Its worker reports, by this session.
    Deed(WorkerId, SessionId, Deed),
    /// The server makes a token for its guest, by this voice of its session.
    Token(TokenHash, Voice),
}

impl Report {
    /// About how much there is to write.
    pub(crate) fn bytes(&self) -> usize {
        match &self.act {
            Act::Deed(_, _, Deed::End { tasks, .. }) => {
                tasks.iter().map(|(name, _)| name.len()).sum()
            }
            _ => 0,
        }
    }
}

/// Looks at all of these reports, and writes what they change at once.
pub(crate) async fn all(
    tx: &mut Tx,
    reports: &[(usize, &Report)],
) -> Result<Vec<(usize, Result<Reported, StoreError>)>, StoreError> {
    if reports.is_empty() {
        return Ok(Vec::new());
    }
    let mut ledger = Ledger::open(tx, reports.iter().map(|(_, report)| report.fence)).await?;
    let verdicts = reports
        .iter()
        .map(|(place, report)| (*place, ledger.take(report)))
        .collect();
    ledger.write(tx).await?;
    Ok(verdicts)
}

impl Store {
    /// Takes a report under a lease. Those of one lease are taken in their order.
    ///
    /// # Errors
    /// Those of what it is.
    pub async fn report(&self, lease: LeaseKey<'_>, deed: Deed) -> Result<Reported, StoreError> {
        let act = Act::Deed(lease.worker, lease.session.clone(), deed);
        let fence = lease.fence;
        let operation = Operation::Report(Box::new(Report { fence, act }));
        self.grouped(operation).await.and_then(reported)
    }

    /// Keeps the hash of the token that this lease's guest is given, as this voice of its
    /// session offers it. Another voice's offer came later, and its token stays.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] when another voice speaks now.
    pub async fn set_offers_token(
        &self,
        fence: Fence,
        hash: TokenHash,
        voice: Voice,
    ) -> Result<(), StoreError> {
        let act = Act::Token(hash, voice);
        let operation = Operation::Report(Box::new(Report { fence, act }));
        self.grouped(operation).await.and_then(reported).map(drop)
    }

    /// Says under a lease that a task may start now.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn begun(&self, lease: LeaseKey<'_>) -> Result<Changed, StoreError> {
        Ok(self.report(lease, Deed::Begun).await?.changed)
    }

    /// Moves a task.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::NotFound`] for a task that the job
    /// has not; [`StoreError::Conflict`] for a way that is not in the diagram, and
    /// for one that runs although [`Store::begun`] was not said.
    pub async fn set_task(
        &self,
        lease: LeaseKey<'_>,
        task: &str,
        status: TaskStatus,
    ) -> Result<Changed, StoreError> {
        let deed = Deed::Task(task.to_owned(), status);
        Ok(self.report(lease, deed).await?.changed)
    }

    /// Keeps what a source was cloned at.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn add_source(
        &self,
        lease: LeaseKey<'_>,
        index: u32,
        commit: &str,
    ) -> Result<(), StoreError> {
        let deed = Deed::Source(index, commit.to_owned());
        self.report(lease, deed).await.map(drop)
    }

    /// Keeps which version of the image runs.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn set_digest(&self, lease: LeaseKey<'_>, digest: &str) -> Result<(), StoreError> {
        let deed = Deed::Digest(digest.to_owned());
        self.report(lease, deed).await.map(drop)
    }

    /// Keeps an artifact whose bytes are stored. One that is there already keeps its
    /// number.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn add_artifact(
        &self,
        lease: LeaseKey<'_>,
        artifact: &NewArtifact,
    ) -> Result<ArtifactId, StoreError> {
        write!(self, |tx| {
            let held = alive(tx, lease).await?;
            let row = sqlx::query(
                "INSERT INTO artifacts (job_id, place, path, size, sha256, created)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (job_id, place) DO UPDATE SET path = $3, size = $4, sha256 = $5
                 RETURNING id",
            )
            .bind(i64::from(held.job.0))
            .bind(i64::from(artifact.index))
            .bind(&artifact.path)
            .bind(rows::signed(artifact.size))
            .bind(&artifact.sha256)
            .bind(tx.now.0)
            .fetch_one(&mut **tx)
            .await?;
            ArtifactId(rows::number(&row, "id")?)
        })
    }

    /// Ends the attempt and its job. Tasks are moved as told first; those that have
    /// no terminal status after that get one.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] when the status is no end.
    pub async fn end(
        &self,
        lease: LeaseKey<'_>,
        status: JobStatus,
        reason: Option<&str>,
        tasks: &[(String, TaskStatus)],
    ) -> Result<Changed, StoreError> {
        let deed = Deed::End {
            status,
            reason: reason.map(str::to_owned),
            tasks: tasks.to_vec(),
        };
        Ok(self.report(lease, deed).await?.changed)
    }

    /// Gives a job back that has not begun: it goes back to the queue, or ends when
    /// that happened too often. What does not count as an attempt can't happen too
    /// often.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`]; [`StoreError::Conflict`] when it has begun.
    pub async fn give_back(
        &self,
        lease: LeaseKey<'_>,
        reason: &str,
        counts: bool,
    ) -> Result<Changed, StoreError> {
        write!(self, |tx| {
            let mut held = held(tx, lease).await?;
            let mut changed = Changed::default();
            if held.attempt.give_back()? == Taken::New {
                let outcome = Outcome::Returned;
                moves::end_lease(tx, lease.fence, outcome, Some(reason), &mut changed).await?;
                let job = moves::present(tx, held.job).await?;
                let tries = if counts {
                    job.tries
                } else {
                    uncount(tx, &job).await?
                };
                let next = lease::given_back(tries, counts, reason);
                moves::job(tx, &job, next.status, Some(&next.reason), &mut changed).await?;
            }
            changed
        })
    }
}

/// Takes back that the last attempt counts.
async fn uncount(tx: &mut Tx, job: &moves::Present) -> Result<u32, StoreError> {
    sqlx::query("UPDATE jobs SET tries = tries - 1 WHERE id = $1")
        .bind(i64::from(job.id.0))
        .execute(&mut **tx)
        .await?;
    Ok(job.tries.saturating_sub(1))
}

/// A lease of just this session of just this worker, ended or not.
async fn held(tx: &mut Tx, lease: LeaseKey<'_>) -> Result<Held, StoreError> {
    let row = sqlx::query(
        "SELECT job_id, begun, outcome FROM attempts
         WHERE id = $1 AND session_id = $2 AND worker_id = $3",
    )
    .bind(lease.fence.0)
    .bind(lease.session.as_str())
    .bind(i64::from(lease.worker.0))
    .fetch_optional(&mut **tx)
    .await?
    .ok_or(StoreError::LeaseLost)?;
    Ok(Held {
        job: JobId(rows::number(&row, "job_id")?),
        attempt: rows::life(&row)?,
    })
}

/// The same, and it has not ended.
async fn alive(tx: &mut Tx, lease: LeaseKey<'_>) -> Result<Held, StoreError> {
    let held = held(tx, lease).await?;
    held.attempt.alive()?;
    Ok(held)
}

fn reported(answer: Answer) -> Result<Reported, StoreError> {
    match answer {
        Answer::Reported(reported) => Ok(reported),
        Answer::Submitted(..) => Err(rows::strange("answer")),
    }
}
