//! "Look again at X": told after each commit, here and on the other servers of the farm.
//! Nothing is ever only here; whoever listens looks at the truth each second as well.
//!
//! That there may be something to assign is told here alone: the pass of this server sees what
//! it would see on any other, and what it gives away is told everywhere.

mod budget;
mod live;
mod wanted;

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use kiln_bus::{Bus, Heard, Hint};
use kiln_core::farm::{JobId, LogName, SessionId};
use kiln_store::model::Changed;
use tokio::sync::{Notify, broadcast, watch};

pub(crate) use self::live::{Early, Otherwise, Piece};
use self::{budget::Budget, live::Live, wanted::Wanted};

const _: () = assert!(
    kiln_wire::live::BYTES <= kiln_bus::LIVE_BYTES,
    "what a worker sends in one piece, one hint holds"
);

/// After how many names the first look for those to whom nobody listens any more.
const SWEEP: usize = 64;
/// How many looks at jobs and sessions other servers may cause here in a second, and how many
/// at logs. Whoever they could not wake looks by itself within the second.
const LOOKS: u64 = 4000;
/// How often in a second all may be told to look.
const LOOKS_AT_ALL: u64 = 1;
/// How many live bytes go to the other servers in a second.
const LIVE: u64 = 8 << 20;

/// The hints of one server. Many at once are one: who listens looks once.
#[derive(Debug)]
pub(crate) struct Hints {
    bus: Bus,
    jobs: Topic<JobId>,
    sessions: Topic<SessionId>,
    greeted: Topic<SessionId>,
    logs: Topic<LogName>,
    live: Live,
    wanted: Wanted,
    assign: Notify,
    looks: Budget,
    looks_at_logs: Budget,
    looks_at_all: Budget,
    spread: Budget,
}

impl Hints {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            jobs: Topic::default(),
            sessions: Topic::default(),
            greeted: Topic::default(),
            logs: Topic::default(),
            live: Live::default(),
            wanted: Wanted::default(),
            assign: Notify::new(),
            looks: Budget::new(LOOKS),
            looks_at_logs: Budget::new(LOOKS),
            looks_at_all: Budget::new(LOOKS_AT_ALL),
            spread: Budget::new(LIVE),
        }
    }

    /// The way to the other servers.
    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Tells what a commit changed.
    pub(crate) fn changed(&self, changed: &Changed) {
        for job in changed.jobs.iter().chain(&changed.ended) {
            self.jobs.tell(job);
            self.bus.publish(Hint::Job(*job));
        }
        for session in &changed.sessions {
            self.sessions.tell(session);
            self.bus.publish(Hint::Session(session.clone()));
        }
        if changed.assign {
            self.assign.notify_one();
        }
    }

    /// Tells the other servers that a session has said hello here.
    pub(crate) fn greeted(&self, session: &SessionId) {
        self.bus.publish(Hint::Greeted(session.clone()));
    }

    /// Tells the other servers that more of a log is stored; here the objects tell.
    pub(crate) fn grown(&self, log: LogName) {
        self.bus.publish(Hint::Grown(log));
    }

    /// Tells the other servers that somebody here wants a log's bytes before they are stored.
    /// It is to be said again each second: see [`Wanted`].
    pub(crate) fn want(&self, log: &LogName) {
        self.bus.publish(Hint::Wanted(log.clone()));
    }

    /// Passes on bytes of a log that are not stored yet: here, and to the other servers if
    /// somebody there wants them.
    pub(crate) fn came(&self, log: LogName, offset: u64, bytes: Bytes) {
        self.live.tell(&log, offset, &bytes);
        if self.wanted.is(&log, Instant::now()) && self.spread.spend(bytes.len() as u64) {
            self.bus.publish(Hint::Live { log, offset, bytes });
        }
    }

    /// Tells those who listen here what another server said.
    pub(crate) fn heard(&self, heard: Heard) {
        match heard {
            Heard::Hint(Hint::Job(job)) => self.jobs.tell_within(&self.looks, &job),
            Heard::Hint(Hint::Session(session)) => {
                self.sessions.tell_within(&self.looks, &session);
            }
            Heard::Hint(Hint::Greeted(session)) => {
                self.greeted.tell_within(&self.looks, &session);
            }
            Heard::Hint(Hint::Grown(log)) => self.logs.tell_within(&self.looks_at_logs, &log),
            Heard::Hint(Hint::Wanted(log)) => self.wanted.add(log, Instant::now()),
            Heard::Hint(Hint::Live { log, offset, bytes }) => {
                self.live.tell(&log, offset, &bytes);
            }
            Heard::Missed => {
                if self.looks_at_all.spend(1) {
                    // Sessions are looked at together each second: one by one they would be
                    // many questions at once.
                    self.jobs.tell_all();
                    self.logs.tell_all();
                }
            }
        }
    }

    /// Listens to a log that grows on another server.
    pub(crate) fn log(&self, log: &LogName) -> watch::Receiver<()> {
        self.logs.listen(log.clone())
    }

    /// Listens to a log's bytes before they are stored.
    pub(crate) fn live(&self, log: &LogName) -> broadcast::Receiver<Piece> {
        self.live.listen(log)
    }

    /// Listens to what changes about a job.
    pub(crate) fn job(&self, job: JobId) -> watch::Receiver<()> {
        self.jobs.listen(job)
    }

    /// Listens to what changes about a session's leases.
    pub(crate) fn session(&self, session: &SessionId) -> watch::Receiver<()> {
        self.sessions.listen(session.clone())
    }

    /// Listens to hellos of a session on other servers.
    pub(crate) fn hellos(&self, session: &SessionId) -> watch::Receiver<()> {
        self.greeted.listen(session.clone())
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
        let mut listeners = self.lock();
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
        let mut listeners = self.lock();
        if let Some(sender) = listeners.by_name.get(name)
            && sender.send(()).is_err()
        {
            listeners.by_name.remove(name);
        }
    }

    /// Tells it if somebody listens and the budget allows one more look.
    fn tell_within(&self, budget: &Budget, name: &K) {
        let listens = self.lock().by_name.contains_key(name);
        if listens && budget.spend(1) {
            self.tell(name);
        }
    }

    fn tell_all(&self) {
        self.lock()
            .by_name
            .retain(|_, sender| sender.send(()).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, Listeners<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let hints = Hints::new(Bus::in_process());
        let (one, mut two) = (hints.job(JobId(1)), hints.job(JobId(2)));
        hints.changed(&of(&[2, 2, 3]));
        assert!(!one.has_changed().unwrap());
        assert!(two.has_changed().unwrap());
        two.mark_unchanged();
        assert!(!two.has_changed().unwrap());
    }

    #[test]
    fn nothing_is_kept_of_listeners_that_went_away() {
        let hints = Hints::new(Bus::in_process());
        let stays = hints.job(JobId(0));
        for job in 1..10_000 {
            hints.job(JobId(job));
        }
        assert!(hints.jobs.0.lock().unwrap().by_name.len() <= 2 * SWEEP);
        hints.changed(&of(&[0]));
        assert!(stays.has_changed().unwrap());
    }

    #[test]
    fn other_servers_wake_who_listens_and_only_so_often() {
        let hints = Hints::new(Bus::in_process());
        let mut job = hints.job(JobId(1));
        let said = Heard::Hint(Hint::Job(JobId(1)));
        let looks = (0..3 * LOOKS).filter(|_| {
            hints.heard(said.clone());
            let told = job.has_changed().unwrap();
            job.mark_unchanged();
            told
        });
        let looks = looks.count() as u64;
        assert!((LOOKS..2 * LOOKS).contains(&looks), "{looks}");
    }

    #[test]
    fn logs_that_grow_elsewhere_take_no_look_from_jobs() {
        let hints = Hints::new(Bus::in_process());
        let log = LogName::Job(JobId(1));
        let (mut job, _log) = (hints.job(JobId(1)), hints.log(&log));
        for _ in 0..3 * LOOKS {
            hints.heard(Heard::Hint(Hint::Grown(log.clone())));
        }
        job.mark_unchanged();
        hints.heard(Heard::Hint(Hint::Job(JobId(1))));
        assert!(job.has_changed().unwrap());
    }

    #[test]
    fn all_look_when_something_was_missed_but_not_again_and_again() {
        let hints = Hints::new(Bus::in_process());
        let (mut job, mut log) = (hints.job(JobId(1)), hints.log(&LogName::Job(JobId(1))));
        hints.heard(Heard::Missed);
        assert!(job.has_changed().unwrap() && log.has_changed().unwrap());
        job.mark_unchanged();
        log.mark_unchanged();
        hints.heard(Heard::Missed);
        assert!(!job.has_changed().unwrap());
    }

    #[tokio::test]
    async fn what_one_server_says_is_told_on_the_other() {
        let hub = kiln_bus::Hub::default();
        let (one, other) = (Hints::new(hub.join()), Hints::new(hub.join()));
        let mut said = other.bus().subscribe();
        let (job, session) = (other.job(JobId(1)), SessionId::new([1; 16]));
        let told = other.session(&session);
        one.changed(&Changed {
            ended: vec![JobId(1)],
            sessions: vec![session],
            ..Changed::default()
        });
        let log = LogName::Job(JobId(1));
        let mut live = other.live(&log);
        let mut asked = one.bus().subscribe();
        one.came(log.clone(), 3, "nobody".into());
        other.want(&log);
        one.heard(asked.next().await.unwrap());
        one.came(log, 7, "early".into());
        for _ in 0..3 {
            other.heard(said.next().await.unwrap());
        }
        assert!(job.has_changed().unwrap() && told.has_changed().unwrap());
        let piece = live.recv().await.unwrap();
        assert_eq!((piece.offset, &piece.bytes[..]), (7, &b"early"[..]));
    }

    #[tokio::test]
    async fn a_hint_to_assign_that_nobody_waited_for_is_not_lost() {
        let hints = Hints::new(Bus::in_process());
        hints.changed(&Changed {
            assign: true,
            ..Changed::default()
        });
        hints.assign().await;
    }
}
