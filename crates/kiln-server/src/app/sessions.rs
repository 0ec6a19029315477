//! Workers' sessions: hello, what they are, what they have leases for.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use kiln_core::farm::{Fence, JobId, LogName, SessionId, WorkerId};
use kiln_store::{
    StoreError,
    model::{Hello, Renewal, SessionState, TokenHash, Voice, Worker},
};
use kiln_wire::message::{FromServer, Offer, Recipe};

use super::{board::Seat, failed, renewals::Pending, token};
use crate::{state::State, urls};

/// What there is to tell a session, now and from then on.
#[derive(Debug)]
pub(crate) struct Told {
    worker: WorkerId,
    session: SessionId,
    /// By which it is told.
    voice: Voice,
    /// The leases of which it knows.
    seat: Arc<Seat>,
    /// The jobs of its leases, as they were at the last look.
    jobs: HashMap<Fence, JobId>,
}

/// Whose token that is; none when it is no worker's, or was taken back.
///
/// # Errors
/// When the database fails.
pub(crate) async fn worker(state: &State, token: TokenHash) -> Result<Option<Worker>, StoreError> {
    state.store.worker(token).await
}

/// A session says hello. Gives those of its leases that are lost.
///
/// # Errors
/// As [`kiln_store::Store::hello`].
pub(crate) async fn hello(
    state: &State,
    worker: &Worker,
    hello: &Hello,
) -> Result<(Told, Vec<Fence>), StoreError> {
    // All workers of a server that ended say hello in one moment. What else is written, renewals
    // above all, goes between them.
    let turn = state.hellos.acquire().await;
    let (lost, voice) = state.store.hello(worker.id, hello).await?;
    drop(turn);
    state.hints.greeted(&hello.session);
    let known = hello.leases.iter().copied();
    let known = known.filter(|fence| !lost.contains(fence)).collect();
    let told = Told {
        worker: worker.id,
        session: hello.session.clone(),
        voice,
        seat: state.board.take(&hello.session, known),
        jobs: HashMap::new(),
    };
    look_at_slots(state);
    Ok((told, lost))
}

/// Looks at the leases of all sessions at once. Those that were told otherwise look for
/// themselves.
///
/// # Errors
/// When the database fails.
pub(crate) async fn look(state: &State) -> Result<(), StoreError> {
    if !state.board.is_empty() {
        state.board.compare(state.store.leases_of_sessions().await?);
    }
    Ok(())
}

fn look_at_slots(state: &State) {
    state.hints.changed(&kiln_store::model::Changed {
        assign: true,
        ..Default::default()
    });
}

impl Told {
    /// Whether this socket speaks for the session: the last that said hello, on whatever
    /// server.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn speaks(&self, state: &State) -> Result<bool, StoreError> {
        state.store.speaks(&self.session, self.voice).await
    }

    /// The session is otherwise than it was.
    ///
    /// # Errors
    /// As [`kiln_store::Store::set_state`].
    pub(crate) async fn set_state(
        &self,
        state: &State,
        now: &SessionState,
    ) -> Result<(), StoreError> {
        let changed = state.store.set_state(&self.session, now).await?;
        state.hints.changed(&changed);
        Ok(())
    }

    /// The worker went away in peace. One that has leases stays, until they end, and one
    /// that is at another socket did not go.
    pub(crate) async fn end(&self, state: &State) {
        let session = &self.session;
        let ended = async {
            if self.speaks(state).await? {
                state.store.end_session(session).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = ended.await {
            tracing::debug!(%session, "session {session} does not end: {error}");
        }
    }

    /// The job of a lease that this session had at the last look, a second ago at the most.
    pub(crate) fn job(&self, fence: Fence) -> Option<JobId> {
        self.jobs.get(&fence).copied()
    }

    /// Begins to renew leases, with those of other sessions.
    pub(crate) fn renew(&self, state: &State, token: TokenHash, leases: Vec<Fence>) -> Pending {
        state.renewals.add(Renewal {
            session: self.session.clone(),
            token: Some(token),
            leases,
        })
    }

    /// These leases are lost, and its worker is told so.
    pub(crate) fn forget(&mut self, lost: &[Fence]) {
        self.jobs.retain(|fence, _| !lost.contains(fence));
        self.seat
            .known(|known| known.retain(|fence| !lost.contains(fence)));
    }

    /// Waits until another socket of this server speaks for the session.
    pub(crate) async fn is_replaced(&self) {
        self.seat.is_replaced().await;
    }

    /// Waits until there may be news: at once when that was never asked, else once what
    /// the database has is not what the session was told.
    pub(crate) async fn is_behind(&self) {
        self.seat.is_behind().await;
    }

    /// Looks at the session's leases: what to tell of them. What is given is taken for told.
    ///
    /// # Errors
    /// When the database fails; then there is more to tell the next time.
    /// [`StoreError::Conflict`] when another voice tells the session, here or at another server.
    pub(crate) async fn news(&mut self, state: &State) -> Result<Vec<FromServer>, StoreError> {
        let leases = state.store.leases(&self.session).await?;
        let mut news = Vec::new();
        self.jobs = leases.iter().copied().collect();
        let there = &self.jobs;
        self.seat.known(|known| {
            known.retain(|fence| {
                let stays = there.contains_key(fence);
                if !stays {
                    news.push(FromServer::Cancel { fence: *fence });
                }
                stays
            });
        });
        let mut fresh: Vec<Fence> = leases.into_iter().map(|(fence, _)| fence).collect();
        self.seat
            .known(|known| fresh.retain(|fence| !known.contains(fence)));
        let offers = fresh
            .into_iter()
            .map(async |fence| (fence, self.offer(state, fence).await));
        // Side by side: each waits for a commit, which may be the same.
        for (fence, offered) in join_all(offers).await {
            match offered {
                Ok(offer) => news.push(FromServer::Offer(Box::new(offer))),
                // It ended meanwhile.
                Err(StoreError::LeaseLost) => continue,
                Err(elsewhere @ StoreError::Conflict(_)) => return Err(elsewhere),
                Err(error) => {
                    failed!(&error, %fence, "no offer of lease {fence} yet: {error}");
                    continue;
                }
            }
            self.seat.known(|known| known.insert(fence));
        }
        Ok(news)
    }

    /// What a worker needs for a job. Each offer of a lease has a new token; the one
    /// before it is worth nothing any more, for its worker never got it or lost it.
    async fn offer(&self, state: &State, fence: Fence) -> Result<Offer, StoreError> {
        let unavailable = |error: std::io::Error| StoreError::Unavailable(error.into());
        let (token, hash) = token::make(token::Kind::Job).map_err(unavailable)?;
        let kept = state.store.set_offers_token(fence, hash, self.voice);
        kept.await?;
        let lease = state.store.lease(self.worker, &self.session, fence);
        let lease = lease.await?.ok_or(StoreError::LeaseLost)?;
        let job = lease.job;
        let log = LogName::Job(job.id);
        let origin = &state.config.origin;
        Ok(Offer {
            fence,
            attempt: lease.attempt,
            job: job.id,
            url: urls::job(origin, &lease.owner_name, job.id),
            owner: urls::user(origin, &lease.owner_name),
            recipe: Recipe::Manifest {
                text: job.manifest.unwrap_or_default(),
            },
            deadline_seconds: job.deadline_seconds,
            artifact_limit: state.config.artifact_limit,
            token,
            secrets: job.secrets,
            // Whoever is not told asks.
            log: state.objects.stored(&log).await.ok(),
        })
    }
}
