//! Guests that were started beforehand and stand still until a job takes one.
//!
//! ```text
//!  template ─► restore ─► warm ─► stop ─► [ready, ready, …] ─► continue ─► identity ─► job
//!                          ▲                                │
//!                          └────────── refill ◄─────────────┘
//! ```
//!
//! A guest that waits takes some tens of megabytes and no processor time. It
//! has run what every job begins with once, because an emulated processor
//! translates each program when it first meets it. What a job then waits for is
//! one round trip to the helper in the guest.
//!
//! A pool is for one image and one shape of guest; whatever it has no guest
//! for is started as without it. Only guests from templates are kept like this:
//! those can be given their own clock, randomness and names again when they are
//! taken.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{QemuGuest, QemuMachine, command, start, template::RemovedOnDrop};
use crate::{
    machine::{Guest, GuestSpec, Machine, StartError},
    network::{self, Farm},
    session::Session,
};

/// How long after a guest was taken its place is filled again: the job that
/// took it begins first.
const REFILL_AFTER: Duration = Duration::from_millis(500);
/// How long after a guest could not be started the next one is tried.
const PAUSE: Duration = Duration::from_secs(60);
/// How long one that is taken may need to go on: whoever takes it would have
/// booted another one by then.
const WAKE_DEADLINE: Duration = Duration::from_secs(20);

/// Guests of one image and shape.
pub struct Pool {
    inner: Arc<Inner>,
    /// None when it has ended.
    filler: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    machine: QemuMachine,
    /// What all of them are like; its directory is nobody's.
    shape: GuestSpec,
    /// Where each has a directory of its own.
    dir: PathBuf,
    size: usize,
    ready: Mutex<VecDeque<Ready>>,
    /// How many there are, for whoever waits for them.
    count: watch::Sender<usize>,
    taken: Notify,
    number: AtomicU64,
}

/// One that waits.
struct Ready {
    guest: Arc<QemuGuest>,
    farm: Arc<Later>,
    /// The image's version that it was started from.
    version: String,
}

/// The farm of whichever job takes the guest: until then nobody answers.
#[derive(Debug, Default)]
struct Later(OnceLock<Arc<dyn Farm>>);

#[async_trait]
impl Farm for Later {
    async fn serve(&self, connection: TcpStream) {
        if let Some(farm) = self.0.get() {
            farm.serve(connection).await;
        }
    }
}

impl Pool {
    /// A pool that keeps so many guests ready in private directories below
    /// `dir`, which exists. `shape` says what they are like.
    #[must_use]
    pub fn new(machine: QemuMachine, shape: GuestSpec, dir: PathBuf, size: usize) -> Self {
        let inner = Arc::new(Inner {
            machine,
            shape,
            dir,
            size,
            ready: Mutex::default(),
            count: watch::channel(0).0,
            taken: Notify::new(),
            number: AtomicU64::new(0),
        });
        let filler = tokio::spawn(fill(Arc::clone(&inner)));
        Self {
            inner,
            filler: Mutex::new(Some(filler)),
        }
    }

    /// How many guests are ready.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.inner.lock().len()
    }

    /// Waits until all are ready. Never returns for an image whose guests can't
    /// be kept waiting.
    pub async fn filled(&self) {
        let mut count = self.inner.count.subscribe();
        // The sender lives as long as we do.
        let _ = count.wait_for(|count| *count >= self.inner.size).await;
    }

    /// A guest that was ready. None when there is none like this.
    pub async fn take(&self, spec: &GuestSpec) -> Option<Arc<QemuGuest>> {
        if !self.inner.fits(spec) {
            return None;
        }
        let version = self.inner.version().await?;
        while let Some(ready) = self.inner.pop() {
            if ready.version != version {
                ready.guest.stop().await;
                continue;
            }
            if let Some(farm) = &spec.farm {
                // Nobody took it before.
                let _ = ready.farm.0.set(Arc::clone(farm));
            }
            let woken = timeout(WAKE_DEADLINE, wake(&ready.guest)).await;
            match woken.unwrap_or_else(|_| Err("it does not go on".into())) {
                Ok(()) => return Some(ready.guest),
                Err(reason) => {
                    tracing::warn!("a guest that was ready is of no use: {reason}");
                    ready.guest.stop().await;
                }
            }
        }
        None
    }

    /// Ends all guests that wait, and starts no more.
    pub async fn drain(&self) {
        if let Some(filler) = self.end_filler() {
            // One that it was starting goes with it, and none is added later.
            let _ = filler.await;
        }
        while let Some(ready) = self.inner.pop() {
            ready.guest.stop().await;
        }
    }

    fn end_filler(&self) -> Option<JoinHandle<()>> {
        let mut filler = self.filler.lock().unwrap_or_else(PoisonError::into_inner);
        filler.take().inspect(JoinHandle::abort)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end_filler();
    }
}

/// Takes a guest of the pool, or starts one.
#[async_trait]
impl Machine for Pool {
    async fn start(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, StartError> {
        match self.take(spec).await {
            Some(guest) => Ok(Box::new(guest)),
            None => self.inner.machine.start(spec).await,
        }
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Ready> {
        let mut all = self.lock();
        let ready = all.pop_front();
        self.count.send_replace(all.len());
        drop(all);
        if ready.is_some() {
            self.taken.notify_one();
        }
        ready
    }

    fn push(&self, ready: Ready) {
        let mut all = self.lock();
        all.push_back(ready);
        self.count.send_replace(all.len());
    }

    /// What a job installs is not in these guests.
    fn fits(&self, spec: &GuestSpec) -> bool {
        let shape = &self.shape;
        spec.preparation.is_none()
            && spec.image == shape.image
            && spec.memory_mib == shape.memory_mib
            && spec.cpus == shape.cpus
            && spec.disk_mib == shape.disk_mib
            && spec.network == shape.network
    }

    /// The image's version as it is now.
    async fn version(&self) -> Option<String> {
        let templates = self.machine.templates.as_ref()?;
        templates.version(&self.shape.image).await
    }

    /// What each of them is given.
    async fn memory_mib(&self) -> u32 {
        let spec = GuestSpec {
            dir: self.dir.clone(),
            ..self.shape.clone()
        };
        let asked = self.machine.memory_mib(&spec).await;
        asked.unwrap_or(command::DEFAULT_MEMORY_MIB)
    }

    /// Whether the host has memory for one more, should all of them run.
    fn has_room(&self, waiting: usize, memory_mib: u32) -> bool {
        let promised = u64::from(memory_mib).saturating_mul(waiting as u64 + 1);
        start::available_memory_mib().is_none_or(|available| available >= promised)
    }

    async fn one(&self) -> Result<Ready, String> {
        let version = self.version().await.ok_or("the image can't be read")?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let dir = self
            .dir
            .join(format!("ready-{}-{number}", std::process::id()));
        make(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let farm = Arc::new(Later::default());
        let spec = GuestSpec {
            dir: dir.clone(),
            farm: Some(farm.clone()),
            ..self.shape.clone()
        };
        // Also when no guest comes of it.
        let dir = RemovedOnDrop(dir);
        let guest = self.machine.start_guest(&spec).await;
        let guest = guest.map_err(|error| error.to_string())?;
        guest.remove_at_end(dir);
        if let Err(reason) = settle(&guest).await {
            guest.stop().await;
            return Err(reason);
        }
        Ok(Ready {
            guest,
            farm,
            version,
        })
    }
}

fn make(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Keeps the pool filled.
async fn fill(pool: Arc<Inner>) {
    let memory_mib = pool.memory_mib().await;
    loop {
        let waiting = pool.lock().len();
        if waiting >= pool.size || !pool.has_room(waiting, memory_mib) {
            tokio::select! {
                () = pool.taken.notified() => sleep(REFILL_AFTER).await,
                // There may be room now.
                () = sleep(PAUSE) => {}
            }
            continue;
        }
        // A template may have to be made first.
        let one = timeout(pool.machine.boot_deadline * 2, pool.one()).await;
        match one.unwrap_or_else(|_| Err("it takes too long".into())) {
            Ok(ready) => pool.push(ready),
            Err(reason) => {
                tracing::warn!(
                    "no guest of {} is kept ready: {reason}",
                    pool.shape.image.name
                );
                sleep(PAUSE).await;
            }
        }
    }
}

/// Runs what every job begins with, then stands still.
async fn settle(guest: &QemuGuest) -> Result<(), String> {
    if !guest.is_clone() {
        return Err("guests of this image can't be given a clock of their own".into());
    }
    if let Session::Agent(agent) = &*guest.session() {
        super::template::rehearse(agent).await?;
    }
    if guest.has_network() {
        network::name(guest).await;
    }
    let stopped = guest.running().qmp.execute("stop", json!({})).await;
    stopped.map(drop).map_err(|error| error.to_string())
}

/// Lets it go on, as a machine of its own.
async fn wake(guest: &QemuGuest) -> Result<(), String> {
    let running = guest.running();
    let continued = running.qmp.execute("cont", json!({})).await;
    continued.map_err(|error| error.to_string())?;
    super::template::renew(&guest.session(), &running.image.arch).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        image::Image,
        machine::{Login, Preparation},
        namespace::Isolation,
        network::Network,
        qemu::Templates,
    };

    /// A pool on a host where no guest can be started.
    fn inner(dir: &Path) -> Inner {
        let image = Image {
            name: "debian/bookworm".into(),
            arch: "amd64".into(),
            base: dir.join("images"),
            dir: dir.join("images/debian/bookworm"),
            login: Login::default(),
        };
        Inner {
            machine: QemuMachine {
                helper: dir.join("no-helper"),
                isolation: Isolation::Namespaces,
                kvm: false,
                boot_deadline: Duration::from_secs(1),
                templates: Some(Templates::new(dir.join("templates"))),
                cgroups: None,
            },
            shape: GuestSpec {
                image,
                memory_mib: None,
                cpus: 2,
                network: Network::None,
                disk_mib: None,
                farm: None,
                preparation: None,
                dir: PathBuf::new(),
            },
            dir: dir.join("pool"),
            size: 1,
            ready: Mutex::default(),
            count: watch::channel(0).0,
            taken: Notify::new(),
            number: AtomicU64::new(0),
        }
    }

    #[test]
    fn a_job_that_needs_another_guest_is_given_none() {
        let dir = tempfile::tempdir().unwrap();
        let pool = inner(dir.path());
        let wanted = GuestSpec {
            dir: dir.path().to_owned(),
            ..pool.shape.clone()
        };
        assert!(pool.fits(&wanted));
        let others: [fn(&mut GuestSpec); 5] = [
            |spec| spec.cpus = 1,
            |spec| spec.memory_mib = Some(512),
            |spec| spec.network = Network::Public { allow: Vec::new() },
            |spec| spec.image.name = "debian/trixie".into(),
            |spec| {
                spec.preparation = Some(Preparation {
                    owner: "1000".into(),
                    repositories: Vec::new(),
                    packages: vec!["jq".into()],
                    max_age: Duration::from_secs(1),
                    fresh: false,
                });
            },
        ];
        for change in others {
            let mut other = wanted.clone();
            change(&mut other);
            assert!(!pool.fits(&other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_guest_that_could_not_be_started_leaves_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let pool = inner(dir.path());
        for made in [
            &pool.dir,
            &pool.shape.image.dir,
            &dir.path().join("templates"),
        ] {
            std::fs::create_dir_all(made).unwrap();
        }
        assert!(pool.one().await.is_err());
        // It came as far as that.
        assert_eq!(pool.number.load(Ordering::Relaxed), 1);
        assert_eq!(std::fs::read_dir(&pool.dir).unwrap().count(), 0);
    }
}
