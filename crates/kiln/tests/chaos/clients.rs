//! Those who submit jobs, look at them, follow and cancel them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kiln_core::{
    farm::JobId,
    job::JobStatus,
    testing::history::{Event, Text},
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    api::{No, Owner},
    plan::Planned,
    record::{Record, now},
};

/// How soon a client asks again that was told nothing.
const AGAIN: Duration = Duration::from_millis(1500);
/// Jobs that are with the farm at once: more would only make clients ask more.
const OPEN: usize = 80;
/// How long a follower takes what comes before it looks whether it is still wanted.
const STREAM: Duration = Duration::from_secs(20);
/// How long one is asked who does not answer when all is over; and after how many such
/// questions no other is put twice.
const INSIST: Duration = Duration::from_secs(60);
const HOPELESS: usize = 20;

pub struct Clients {
    pub record: Record,
    pub seed: u64,
    /// What tasks' scripts read.
    pub words: String,
    owners: Vec<Owner>,
    jobs: Mutex<Vec<(JobId, Planned)>>,
    /// Jobs that have not ended, as far as clients know, and those to come.
    pub open: AtomicUsize,
    room: Semaphore,
    /// What could not be read when all was over.
    unread: AtomicUsize,
}

impl Clients {
    pub fn new(
        record: Record,
        seed: u64,
        words: String,
        farm: SocketAddr,
        tokens: &[String],
        jobs: usize,
    ) -> Self {
        let owner = |token: &String| Owner::new(farm, token);
        Self {
            record,
            seed,
            words,
            owners: tokens.iter().map(owner).collect(),
            jobs: Mutex::default(),
            open: AtomicUsize::new(jobs),
            room: Semaphore::new(OPEN),
            unread: AtomicUsize::new(0),
        }
    }

    fn owner(&self, planned: &Planned) -> &Owner {
        &self.owners[planned.owner]
    }

    /// A job from its submission until it was seen to have ended.
    pub async fn live(self: Arc<Self>, planned: Planned, begin: Instant) {
        sleep_until(begin + planned.at).await;
        let _room = self.room.acquire().await;
        if let Some(job) = self.submit(&planned).await {
            let known = (job, planned.clone());
            self.jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(known);
            let mut beside = JoinSet::new();
            if planned.followed {
                for task in std::iter::once(String::new()).chain(planned.task_names()) {
                    let (clients, planned) = (Arc::clone(&self), planned.clone());
                    beside.spawn(async move { clients.follow(&planned, job, &task).await });
                }
            }
            if let Some(after) = planned.cancel {
                let (clients, planned) = (Arc::clone(&self), planned.clone());
                beside.spawn(async move {
                    sleep(after).await;
                    clients.cancel(&planned, job).await;
                });
            }
            self.watch(&planned, job).await;
            // Followers see that it is over, and cancels are answered.
            let _ = timeout(STREAM, beside.join_all()).await;
        }
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    async fn submit(&self, planned: &Planned) -> Option<JobId> {
        let key = planned.key(self.seed);
        self.record.say(Event::Submitted {
            key: key.clone(),
            share: planned.owner_name(),
            kind: "any".to_owned(),
            tasks: planned.task_names(),
            expected: planned.expected(),
        });
        let manifest = planned.manifest(&self.words);
        loop {
            let asked = now();
            match self.owner(planned).submit(&manifest, &key).await {
                Ok(job) => {
                    self.record.say(Event::Acknowledged { key, job, asked });
                    return Some(job);
                }
                Err(No::Away) => sleep(AGAIN).await,
                Err(No::Refused(code, why)) => {
                    let what = format!("submission {key}, refused by {code}: {why},");
                    self.record.say(Event::Left { what });
                    return None;
                }
            }
        }
    }

    /// Looks at it until it has ended.
    async fn watch(&self, planned: &Planned, job: JobId) {
        let mut pause = Duration::from_millis(1500);
        loop {
            sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_secs(8));
            let status = self.look(planned, job).await;
            if status.is_some_and(|status| status.is_some_and(JobStatus::is_terminal)) {
                return;
            }
        }
    }

    /// Looks at it once, if somebody answers.
    async fn look(&self, planned: &Planned, job: JobId) -> Option<Option<JobStatus>> {
        let asked = now();
        let status = self.owner(planned).status(job).await.ok()?;
        self.record.say(Event::Seen { job, status, asked });
        Some(status)
    }

    async fn cancel(&self, planned: &Planned, job: JobId) {
        self.record.say(Event::CancelAsked { job });
        loop {
            match self.owner(planned).cancel(job).await {
                Ok(()) => return self.record.say(Event::Cancelled { job }),
                Err(No::Away) => sleep(AGAIN).await,
                // It has ended, by this cancel perhaps, or by itself.
                Err(No::Refused(code, _)) if code == "CONFLICT" => {
                    return self.has_ended(planned, job).await;
                }
                Err(No::Refused(code, why)) => {
                    let what = format!("cancel of job {job}, refused by {code}: {why},");
                    return self.record.say(Event::Left { what });
                }
            }
        }
    }

    /// The farm said that there is nothing to cancel any more: it says the same to who looks.
    async fn has_ended(&self, planned: &Planned, job: JobId) {
        let status = loop {
            match self.look(planned, job).await {
                Some(status) => break status,
                None => sleep(AGAIN).await,
            }
        };
        if !status.is_some_and(JobStatus::is_terminal) {
            let what = format!("job {job}, which could not be cancelled as it had ended,");
            self.record.say(Event::Left { what });
        }
    }

    /// Follows a log until it is over. What was told early by a stream that did not end well
    /// may have been more than is stored, and is not held against the farm.
    async fn follow(&self, planned: &Planned, job: JobId, task: &str) {
        let early = planned.number.is_multiple_of(2);
        let read = |offset, bytes| {
            let task = task.to_owned();
            self.record.say(Event::Read {
                job,
                task,
                offset,
                bytes: Text(bytes),
            });
        };
        let mut at = 0;
        loop {
            let mut pieces = Vec::new();
            let from = (at, early);
            let stream = self
                .owner(planned)
                .follow((job, task), from, |place, bytes| {
                    pieces.push((place, bytes.to_vec()));
                });
            let ended = matches!(timeout(STREAM, stream).await, Ok(Ok(())));
            if ended || !early {
                for (offset, bytes) in pieces {
                    at = offset + bytes.len() as u64;
                    read(offset, bytes);
                }
            } else if let Ok(Some(text)) = self.owner(planned).log(job, task).await {
                // What is stored is told of whatever comes.
                at = text.len() as u64;
                read(0, text);
            }
            // A stream ends when the log is over, or its server leaves.
            if ended
                && let Some(Some(status)) = self.look(planned, job).await
                && status.is_terminal()
            {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// All is over: reads all that there is. What has no answer for a minute is left.
    pub async fn read_all(self: &Arc<Self>) {
        for (place, owner) in self.owners.iter().enumerate() {
            let all = self.insist(|| async { owner.jobs().await.ok() });
            let Some(all) = all.await else {
                self.unread(&format!("the list of owner {place}"));
                continue;
            };
            for (job, key) in all {
                self.record.say(Event::Listed { key, job });
            }
        }
        let jobs = std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner));
        let at_once = Arc::new(Semaphore::new(16));
        let mut readers = JoinSet::new();
        for (job, planned) in jobs {
            let (clients, at_once) = (Arc::clone(self), Arc::clone(&at_once));
            readers.spawn(async move {
                let _turn = at_once.acquire().await;
                clients.read_whole(&planned, job).await;
            });
        }
        readers.join_all().await;
    }

    async fn read_whole(&self, planned: &Planned, job: JobId) {
        let Some(status) = self.insist(|| self.look(planned, job)).await else {
            return self.unread(&format!("job {job}"));
        };
        // What has not ended is found by that, and its logs may grow.
        if !status.is_some_and(JobStatus::is_terminal) {
            return;
        }
        for task in std::iter::once(String::new()).chain(planned.task_names()) {
            let log = self.insist(|| async { self.owner(planned).log(job, &task).await.ok() });
            let Some(text) = log.await else {
                self.unread(&format!("the log `{task}` of job {job}"));
                continue;
            };
            // None is one without a byte.
            let bytes = Text(text.unwrap_or_default());
            self.record.say(Event::ReadWhole { job, task, bytes });
        }
    }

    /// Asks until there is an answer: for a minute, and only once where much had none.
    async fn insist<T, F: Future<Output = Option<T>>>(&self, ask: impl Fn() -> F) -> Option<T> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return Some(answer);
            }
            let hopeless = self.unread.load(Ordering::Relaxed) >= HOPELESS;
            if hopeless || begun.elapsed() > INSIST {
                return None;
            }
            sleep(AGAIN).await;
        }
    }

    fn unread(&self, what: &str) {
        self.unread.fetch_add(1, Ordering::Relaxed);
        let what = format!("{what}, which nobody can read,");
        self.record.say(Event::Left { what });
    }
}
