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
                Err(No::Refused(code, _)) if code == "CONFLICT" => return,
                Err(No::Refused(code, why)) => {
                    let what = format!("cancel of job {job}, refused by {code}: {why},");
                    return self.record.say(Event::Left { what });
                }
            }
        }
    }

    /// Follows a log until it is over. What a stream told that did not end well may have
    /// been more than is stored, and is not held against the farm.
    async fn follow(&self, planned: &Planned, job: JobId, task: &str) {
        let mut at = 0;
        loop {
            let mut pieces = Vec::new();
            let stream = self.owner(planned).follow((job, task), at, |place, bytes| {
                pieces.push((place, Text(bytes.to_vec())));
            });
            let ended = timeout(STREAM, stream).await;
            if matches!(ended, Ok(Ok(()))) {
                for (offset, bytes) in pieces {
                    at = offset + bytes.0.len() as u64;
                    let task = task.to_owned();
                    self.record.say(Event::Read {
                        job,
                        task,
                        offset,
                        bytes,
                    });
                }
                // A stream ends when the log is over, or its server leaves.
                if let Some(Some(status)) = self.look(planned, job).await
                    && status.is_terminal()
                {
                    return;
                }
            } else if let Ok(Some(text)) = self.owner(planned).log(job, task).await {
                // What is stored is told of whatever comes.
                at = text.len() as u64;
                self.record.say(Event::Read {
                    job,
                    task: task.to_owned(),
                    offset: 0,
                    bytes: Text(text),
                });
            }
            sleep(AGAIN).await;
        }
    }

    /// All is over: reads all that there is, again and again until there is an answer.
    pub async fn read_all(self: &Arc<Self>) {
        for (place, owner) in self.owners.iter().enumerate() {
            let all = loop {
                match owner.jobs().await {
                    Ok(all) => break all,
                    Err(No::Away) => sleep(AGAIN).await,
                    Err(No::Refused(code, why)) => panic!("jobs of owner {place}: {code} {why}"),
                }
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
        let status = loop {
            match self.look(planned, job).await {
                Some(status) => break status,
                None => sleep(AGAIN).await,
            }
        };
        // What has not ended is found by that, and its logs may grow.
        if !status.is_some_and(JobStatus::is_terminal) {
            return;
        }
        for task in std::iter::once(String::new()).chain(planned.task_names()) {
            let text = loop {
                match self.owner(planned).log(job, &task).await {
                    Ok(text) => break text,
                    Err(No::Away) => sleep(AGAIN).await,
                    Err(No::Refused(code, _)) => panic!("log of job {job}: {code}"),
                }
            };
            if let Some(text) = text {
                let bytes = Text(text);
                self.record.say(Event::ReadWhole { job, task, bytes });
            }
        }
    }
}
