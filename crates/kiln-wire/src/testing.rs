//! A server for tests of workers: it has no database, remembers everything, and
//! can be told to misbehave.
//!
//! It holds a worker to the protocol: a log that goes on elsewhere, a report in
//! the wrong order or under a lease that has ended is refused, and what was
//! refused is [`Server::said`] too.

mod http;
mod socket;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kiln_core::farm::{Fence, JobId};
use tokio::{io::DuplexStream, sync::mpsc, sync::watch, task::JoinSet};

use crate::{
    client::Target,
    live::Live,
    message::{FromServer, Gather, Hello, Offer, Recipe, State},
    report::{End, Return},
};

/// With what each job's log begins.
const FIRST: &[u8] = b"[farm] first line of the job\n";

/// What the server has seen and what it is told to do.
#[derive(Default)]
pub struct Seen {
    /// Every report that was taken or refused, a line each.
    pub said: Vec<String>,
    /// Every hello.
    pub hellos: Vec<Hello>,
    /// Every state.
    pub states: Vec<State>,
    /// The leases of the last renewal.
    pub renewed: Vec<Fence>,
    /// How many workers have said goodbye.
    pub goodbyes: usize,
    /// Requests that are not a worker's: method, path and `Authorization`.
    pub requests: Vec<String>,
    /// Bytes of logs that came before they were appended.
    pub live: Vec<Live>,
    /// Artifacts, by fence and path.
    pub artifacts: HashMap<(Fence, String), Bytes>,
    /// How jobs ended.
    pub ends: BTreeMap<Fence, End>,
    /// Which were given back.
    pub returns: BTreeMap<Fence, Return>,
    leases: BTreeMap<Fence, Lease>,
    logs: HashMap<(Fence, Option<String>), Vec<u8>>,
    faults: Faults,
    away: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Live bytes are not answered: the socket is slow.
    pub slow_socket: bool,
    /// Renewals are not answered: the server's database is away.
    pub no_renewals: bool,
    /// Logs are to be gathered.
    pub gather: Option<Gather>,
    /// So many of the next reports are stored and answered with 503.
    pub lose_answers: usize,
    /// The server goes away when it has taken this report.
    pub away_after: Option<String>,
    /// It ends the lease then, as if it had run out.
    pub lose_after: Option<String>,
    /// It cancels the job then.
    pub cancel_after: Option<String>,
    /// Before so many of the next appends the server says something itself in that log.
    pub say_between: usize,
    /// Appends are answered with 507.
    pub no_space_for_logs: bool,
    /// Artifacts are refused with these words.
    pub refuse_artifacts: Option<String>,
    /// Hellos are refused with these words.
    pub refuse_hello: Option<String>,
}

struct Lease {
    offer: Offer,
    alive: bool,
    cancelled: bool,
    begun: bool,
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<u64>,
    streams: mpsc::Sender<DuplexStream>,
    serving: Arc<Mutex<JoinSet<()>>>,
}

impl Server {
    /// One that knows of nothing yet.
    #[must_use]
    pub fn start() -> Self {
        let (streams, mut accepted) = mpsc::channel(16);
        let server = Self {
            seen: Arc::default(),
            changed: watch::Sender::new(0),
            streams,
            serving: Arc::default(),
        };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Some(stream) = accepted.recv().await {
                if !accepting.seen().away {
                    let served = http::serve(accepting.clone(), stream);
                    accepting.serving().spawn(served);
                }
            }
        });
        server
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::Memory(self.streams.clone())
    }

    /// A lease for a job of this manifest, whose number is its fence's.
    pub fn offer(&self, fence: i64, manifest: &str) -> Fence {
        self.offer_with(fence, manifest, |_| {})
    }

    /// The same with a change.
    pub fn offer_with(&self, fence: i64, manifest: &str, change: impl FnOnce(&mut Offer)) -> Fence {
        let mut offer = Offer {
            fence: Fence(fence),
            attempt: 1,
            job: JobId(i32::try_from(fence).unwrap_or_default()),
            owner: "alice".to_owned(),
            recipe: Recipe::Manifest {
                text: manifest.to_owned(),
            },
            url: format!("https://farm.test/~alice/job/{fence}"),
            deadline_seconds: 600,
            artifact_limit: 1 << 30,
            token: "kiln_j_token".to_owned(),
            secrets: true,
            log: Some(FIRST.len() as u64),
        };
        change(&mut offer);
        let fence = offer.fence;
        let mut seen = self.seen();
        let first = FIRST.to_vec();
        seen.logs.insert((fence, None), first);
        let lease = Lease {
            offer,
            alive: true,
            cancelled: false,
            begun: false,
        };
        seen.leases.insert(fence, lease);
        drop(seen);
        self.tell();
        fence
    }

    /// Somebody cancels the job.
    pub fn cancel(&self, fence: Fence) {
        self.change(|seen| seen.cancel(fence));
    }

    /// Changes what goes wrong.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        self.change(|seen| change(&mut seen.faults));
    }

    /// All connections break, and no new one is made.
    pub fn go_away(&self) {
        self.change(|seen| seen.away = true);
    }

    /// It can be reached again.
    pub fn come_back(&self) {
        self.change(|seen| seen.away = false);
    }

    /// What has been said so far under this lease, a line each.
    #[must_use]
    pub fn said(&self, fence: Fence) -> Vec<String> {
        let prefix = format!("{fence} ");
        let said = &self.seen().said;
        said.iter()
            .filter_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
            .collect()
    }

    /// A log; the job's own without a task.
    #[must_use]
    pub fn log(&self, fence: Fence, task: Option<&str>) -> String {
        let seen = self.seen();
        let log = seen.logs.get(&(fence, task.map(str::to_owned)));
        String::from_utf8_lossy(log.map_or(&[], Vec::as_slice)).into_owned()
    }

    /// Waits until what was seen is so.
    pub async fn until<T>(&self, mut so: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = so(&self.seen()) {
                return found;
            }
            // The sender lives as long as this does.
            let _ = changed.changed().await;
        }
    }

    /// Waits until this report was taken.
    pub async fn heard(&self, fence: Fence, what: &str) {
        let line = format!("{fence} {what}");
        self.until(|seen| seen.said.contains(&line).then_some(()))
            .await;
    }

    /// Waits until the job has ended, and gives how.
    pub async fn end(&self, fence: Fence) -> End {
        self.until(|seen| seen.ends.get(&fence).cloned()).await
    }

    /// Waits until the job was given back.
    pub async fn returned(&self, fence: Fence) -> Return {
        self.until(|seen| seen.returns.get(&fence).cloned()).await
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serving(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen();
        change(&mut seen);
        let away = seen.away;
        drop(seen);
        if away {
            self.serving().abort_all();
        }
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Seen {
    fn cancel(&mut self, fence: Fence) {
        if let Some(lease) = self.leases.get_mut(&fence) {
            lease.alive = false;
            lease.cancelled = true;
        }
    }

    fn is_alive(&self, fence: Fence) -> bool {
        self.leases.get(&fence).is_some_and(|lease| lease.alive)
    }

    /// Those of these that are not alive.
    fn lost(&self, fences: &[Fence]) -> Vec<Fence> {
        let lost = fences.iter().filter(|fence| !self.is_alive(**fence));
        lost.copied().collect()
    }

    /// What is to be told of these leases on one connection; `told` grows by it.
    fn news(&self, told: &mut BTreeMap<Fence, bool>) -> Vec<FromServer> {
        let mut news = Vec::new();
        for (fence, lease) in &self.leases {
            match told.get(fence) {
                None if lease.alive => {
                    news.push(FromServer::Offer(Box::new(lease.offer.clone())));
                    told.insert(*fence, true);
                }
                Some(true) if lease.cancelled => {
                    news.push(FromServer::Cancel { fence: *fence });
                    told.insert(*fence, false);
                }
                _ => {}
            }
        }
        news
    }

    /// Notes a report, after which things may go wrong.
    fn note(&mut self, fence: Fence, what: &str) {
        let after = |fault: &mut Option<String>| {
            let now = fault.as_deref() == Some(what);
            if now {
                *fault = None;
            }
            now
        };
        if after(&mut self.faults.away_after) {
            self.away = true;
        }
        if after(&mut self.faults.cancel_after) {
            self.cancel(fence);
        }
        if after(&mut self.faults.lose_after)
            && let Some(lease) = self.leases.get_mut(&fence)
        {
            lease.alive = false;
        }
        self.said.push(format!("{fence} {what}"));
    }
}
