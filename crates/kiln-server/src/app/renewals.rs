//! Renewals of many sessions, written together.
//!
//! A renewal has five seconds, and a lease thirty. So each waits a little for others, and
//! what ten thousand workers renew is five transactions in a second and not two thousand.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use kiln_store::{
    StoreError,
    model::{Renewal, Renewed},
};
use tokio::sync::{Notify, oneshot};

use super::failed;
use crate::state::{Shared, State, stopped};

/// How long one waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// Renewals in one transaction at most: others want to write too.
const MOST: usize = 1000;

/// What becomes of a renewal. Without an answer it was not written.
pub(crate) type Pending = oneshot::Receiver<Renewed>;

/// Renewals that wait.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    waiting: Mutex<Vec<Waiting>>,
    some: Notify,
}

#[derive(Debug)]
struct Waiting {
    renewal: Renewal,
    answer: oneshot::Sender<Renewed>,
}

impl Renewals {
    /// One more.
    pub(crate) fn add(&self, renewal: Renewal) -> Pending {
        let (answer, pending) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(Waiting { renewal, answer });
        drop(waiting);
        self.some.notify_one();
        pending
    }

    /// Those for one transaction: each session once, its first.
    fn next(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sessions = HashSet::new();
        let (now, later) = std::mem::take(&mut *waiting)
            .into_iter()
            .filter(|waiting| !waiting.answer.is_closed())
            .partition(|waiting| {
                sessions.len() < MOST && sessions.insert(waiting.renewal.session.clone())
            });
        *waiting = later;
        now
    }
}

/// Writes what waits, until the server ends.
pub(crate) async fn keep(state: Shared) {
    let mut stopping = state.stopping.clone();
    loop {
        let some = async {
            state.renewals.some.notified().await;
            tokio::time::sleep(GATHER).await;
        };
        tokio::select! {
            () = stopped(&mut stopping) => return,
            () = some => {}
        }
        // Those who waited hear that there is no answer, and the next are served.
        if AssertUnwindSafe(write(&state))
            .catch_unwind()
            .await
            .is_err()
        {
            tracing::error!("renewing leases panicked");
        }
    }
}

async fn write(state: &State) {
    loop {
        let waiting = state.renewals.next();
        if waiting.is_empty() {
            return;
        }
        let (renewals, answers): (Vec<Renewal>, Vec<_>) = waiting
            .into_iter()
            .map(|waiting| (waiting.renewal, waiting.answer))
            .unzip();
        match state.store.renew_many(&renewals).await {
            Ok(renewed) => {
                for (answer, renewed) in answers.into_iter().zip(renewed) {
                    // Whoever went away meanwhile has its leases renewed all the same.
                    drop(answer.send(renewed));
                }
            }
            Err(error) => {
                if matches!(error, StoreError::Unavailable(_)) {
                    state.reception.broke_off();
                }
                let count = renewals.len();
                failed!(
                    &error,
                    "the leases of {count} workers can't be renewed: {error}"
                );
            }
        }
    }
}
