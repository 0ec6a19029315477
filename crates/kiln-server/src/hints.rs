//! "Look again at X": told after each commit. Nothing is ever only here;
//! whoever listens looks at the truth each second as well.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use kiln_core::farm::{JobId, SessionId};
use kiln_store::model::Changed;
use tokio::sync::{Notify, watch};

/// After how many names the first look for those to whom nobody listens any more.
const SWEEP: usize = 64;

/// The hints of one server. Many at once are one: who listens looks once.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    jobs: Topic<JobId>,
    sessions: Topic<SessionId>,
    assign: Notify,
}

impl Hints {
    /// Tells what a commit changed.
    pub(crate) fn changed(&self, changed: &Changed) {
        for job in changed.jobs.iter().chain(&changed.ended) {
            self.jobs.tell(job);
        }
        for session in &changed.sessions {
            self.sessions.tell(session);
        }
        if changed.assign {
            self.assign.notify_one();
        }
    }

    /// Listens to what changes about a job.
    pub(crate) fn job(&self, job: JobId) -> watch::Receiver<()> {
        self.jobs.listen(job)
    }

    /// Listens to what changes about a session's leases.
    pub(crate) fn session(&self, session: &SessionId) -> watch::Receiver<()> {
        self.sessions.listen(session.clone())
    }

    /// Waits until there may be something to assign. One listener is told.
    pub(crate) async fn assign(&self) {
        self.assign.notified().await;
    }
}

/// Those who listen, by what they listen to: as many as there are listeners.
#[derive(Debug)]
struct Topic<K>(Mutex<Listeners<K>>);

#[derive(Debug)]
struct Listeners<K> {
    by_name: HashMap<K, watch::Sender<()>>,
    sweep_at: usize,
}

impl<K> Default for Topic<K> {
    fn default() -> Self {
        Self(Mutex::new(Listeners {
            by_name: HashMap::new(),
            sweep_at: SWEEP,
        }))
    }
}

impl<K: Hash + Eq> Topic<K> {
    fn listen(&self, name: K) -> watch::Receiver<()> {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.by_name.len() >= listeners.sweep_at {
            listeners
                .by_name
                .retain(|_, sender| sender.receiver_count() > 0);
            listeners.sweep_at = SWEEP.max(2 * listeners.by_name.len());
        }
        let sender = listeners.by_name.entry(name);
        sender.or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    fn tell(&self, name: &K) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = listeners.by_name.get(name)
            && sender.send(()).is_err()
        {
            listeners.by_name.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(jobs: &[i32]) -> Changed {
        Changed {
            jobs: jobs.iter().copied().map(JobId).collect(),
            ..Changed::default()
        }
    }

    #[test]
    fn who_listens_to_a_job_is_told_of_it_and_of_no_other() {
        let hints = Hints::default();
        let (one, mut two) = (hints.job(JobId(1)), hints.job(JobId(2)));
        hints.changed(&of(&[2, 2, 3]));
        assert!(!one.has_changed().unwrap());
        assert!(two.has_changed().unwrap());
        two.mark_unchanged();
        assert!(!two.has_changed().unwrap());
    }

    #[test]
    fn nothing_is_kept_of_listeners_that_went_away() {
        let hints = Hints::default();
        let stays = hints.job(JobId(0));
        for job in 1..10_000 {
            hints.job(JobId(job));
        }
        assert!(hints.jobs.0.lock().unwrap().by_name.len() <= 2 * SWEEP);
        hints.changed(&of(&[0]));
        assert!(stays.has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_hint_to_assign_that_nobody_waited_for_is_not_lost() {
        let hints = Hints::default();
        hints.changed(&Changed {
            assign: true,
            ..Changed::default()
        });
        hints.assign().await;
    }
}
