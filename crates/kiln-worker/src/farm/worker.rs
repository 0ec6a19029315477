//! What a worker has: its leases, what its host has room for, whether it takes
//! jobs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kiln_core::farm::{Fence, OfferedImage, SessionId};
use kiln_wire::message::{Hello, Mood, Offer, PROTOCOL, State};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use super::{
    Config, Host, Room, directory::Directory, health::Health, job, lease::Lease, live::Lives,
};

/// How often images are looked for.
const IMAGES: Duration = Duration::from_secs(30);
/// How many ended leases are remembered, lest one is taken twice.
const ENDED: usize = 256;
/// How often the host is looked at.
const LOOK: Duration = Duration::from_secs(2);

pub(super) struct Worker {
    pub config: Config,
    pub host: Arc<dyn Host>,
    pub session: SessionId,
    pub directory: Directory,
    pub health: Health,
    pub live: Lives,
    draining: AtomicBool,
    leaving: watch::Sender<bool>,
    leases: Mutex<Leases>,
    count: watch::Sender<usize>,
    around: Mutex<Around>,
    changed: Notify,
    looks: Notify,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Leases {
    held: BTreeMap<Fence, Arc<Lease>>,
    ended: VecDeque<Fence>,
}

/// What was seen of the host last.
#[derive(Default)]
struct Around {
    images: Vec<OfferedImage>,
    images_at: Option<Instant>,
    room: Room,
    /// How many guests were about to start then.
    coming: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    pub fn new(
        config: Config,
        host: Arc<dyn Host>,
        session: SessionId,
        directory: Directory,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            host,
            session,
            directory,
            health: Health::new(),
            live: Lives::new(),
            draining: AtomicBool::new(false),
            leaving: watch::Sender::new(false),
            leases: Mutex::default(),
            count: watch::Sender::new(0),
            around: Mutex::default(),
            changed: Notify::new(),
            looks: Notify::new(),
            tasks: Mutex::default(),
        })
    }

    /// What it says first.
    pub fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            session: self.session.clone(),
            slots: self.config.slots,
            labels: self.config.labels.clone(),
            state: self.state(),
            leases: self.leases(),
        }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        let held = u32::try_from(self.leases().len()).unwrap_or(u32::MAX);
        let mood = self.mood();
        let coming = self.coming();
        let around = lock(&self.around);
        let free = self.config.slots.saturating_sub(held);
        // What has been taken since the last look is not in its answer.
        let unseen = coming.saturating_sub(around.coming);
        let room = around.room.more.saturating_sub(unseen);
        let more = match mood {
            Mood::Ready => free.min(room),
            Mood::Draining | Mood::Unwell { .. } => 0,
        };
        let short_of = around.room.short_of.clone();
        State {
            capacity: held + more,
            images: around.images.clone(),
            short_of: short_of.filter(|_| room < free),
            mood,
        }
    }

    fn mood(&self) -> Mood {
        if self.draining.load(Ordering::Acquire) {
            return Mood::Draining;
        }
        match self.health.unwell() {
            Some(reason) => Mood::Unwell { reason },
            None => Mood::Ready,
        }
    }

    /// Guests that are about to start.
    fn coming(&self) -> u32 {
        let leases = lock(&self.leases);
        let coming = leases.held.values().filter(|lease| !lease.has_started());
        u32::try_from(coming.count()).unwrap_or(u32::MAX)
    }

    /// Looks at the host every two seconds, and when a job has ended.
    pub async fn keep_looking(&self) {
        loop {
            // Whether it was woken or not.
            let _ = tokio::time::timeout(LOOK, self.looks.notified()).await;
            self.look().await;
            self.tell();
        }
    }

    /// Looks at the host.
    pub async fn look(&self) {
        let stale = lock(&self.around)
            .images_at
            .is_none_or(|at| at.elapsed() >= IMAGES);
        if stale {
            let images = self.host.images().await;
            let mut around = lock(&self.around);
            around.images = images;
            around.images_at = Some(Instant::now());
        }
        let coming = self.coming();
        let room = self.host.room(coming).await;
        let mut around = lock(&self.around);
        around.room = room;
        around.coming = coming;
    }

    /// Something has changed that the server is to know.
    pub fn tell(&self) {
        self.changed.notify_one();
    }

    /// Waits for [`Self::tell`].
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn leases(&self) -> Vec<Fence> {
        lock(&self.leases).held.keys().copied().collect()
    }

    /// Takes a job, unless it has it, or has had it. One that it takes no more is
    /// given back.
    pub fn take(self: &Arc<Self>, offer: Offer) {
        let lease = {
            let mut leases = lock(&self.leases);
            let fence = offer.fence;
            if leases.held.contains_key(&fence) || leases.ended.contains(&fence) {
                return;
            }
            let client = self.config.client.clone();
            let lease = Lease::new(client, self.session.clone(), fence, offer.job);
            let lease = Arc::new(lease);
            leases.held.insert(fence, Arc::clone(&lease));
            self.count.send_replace(leases.held.len());
            lease
        };
        let unwanted = match self.mood() {
            Mood::Ready => None,
            Mood::Draining => Some("the worker takes no more jobs"),
            Mood::Unwell { .. } => Some("the worker is not well"),
        };
        let worker = Arc::clone(self);
        let mut tasks = lock(&self.tasks);
        // Those that have ended are forgotten.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            match unwanted {
                Some(why) => job::give_back(&lease, why, false).await,
                None => job::supervise(&worker, &lease, offer).await,
            }
            worker.ended(lease.fence);
        });
        self.tell();
    }

    /// Nothing more is said under this lease.
    fn ended(&self, fence: Fence) {
        let mut leases = lock(&self.leases);
        leases.held.remove(&fence);
        leases.ended.push_back(fence);
        if leases.ended.len() > ENDED {
            leases.ended.pop_front();
        }
        self.count.send_replace(leases.held.len());
        drop(leases);
        self.tell();
        self.looks.notify_one();
    }

    /// These leases are not its own any more.
    pub fn lose(&self, fences: &[Fence], why: &str) {
        let leases = lock(&self.leases);
        for lease in fences.iter().filter_map(|fence| leases.held.get(fence)) {
            lease.lose(why);
        }
    }

    /// No more jobs are taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        tracing::info!("this worker takes no more jobs and ends when it has none");
        self.tell();
    }

    /// The connection is to be ended.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Waits until it is to be ended.
    pub async fn leaving(&self) {
        let mut leaving = self.leaving.subscribe();
        // The sender lives as long as this does.
        let _ = leaving.wait_for(|leaving| *leaving).await;
    }

    /// All guests go.
    pub fn stop(&self) {
        tracing::info!("this worker stops its jobs");
        for lease in lock(&self.leases).held.values() {
            lease.stop();
        }
    }

    /// Waits until it has no lease.
    pub async fn idle(&self) {
        let mut count = self.count.subscribe();
        // The sender lives as long as this does.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Ends all jobs that there still are without a word, and their guests.
    pub async fn abandon(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
    }
}
