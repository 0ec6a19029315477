//! What the benchmarks and the soak run jobs with: a machine with directories
//! of its own, an image, and a reporter that looks at the clock.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use kiln_core::job::JobStatus;
use kiln_vm::{
    cgroup::Cgroups,
    image::{Image, Store},
    machine::{Guest, GuestSpec, Machine, Preparation},
    namespace::Isolation,
    network::{Allowed, Network},
    qemu::{
        QemuMachine, Templates,
        accelerator::{Accelerator, Probe},
    },
};
use kiln_worker::{Body, Event, Hold, Job, Limits, LogId, Outcome, ReportError, Reporter};
use tempfile::TempDir;
use tokio::sync::watch;

/// The image that is measured.
const IMAGE: &str = "debian/bookworm";
/// As `kiln run` has it.
pub const CPUS: u32 = 2;
/// How long a job, and a boot, may take on a busy host.
const DEADLINE: Duration = Duration::from_mins(5);

/// A place to run jobs in. What it keeps goes with it.
pub struct Farm {
    work: TempDir,
    /// Starts guests from templates.
    pub machine: QemuMachine,
    /// What guests are started of.
    pub image: Image,
    /// What guests reach besides the public internet.
    pub allow: Vec<Allowed>,
    jobs: AtomicU64,
}

/// What was seen of a job that succeeded.
pub struct Ran {
    /// When it was claimed.
    pub claimed: Instant,
    /// How long it took from there to the first byte of the first task.
    pub first: Duration,
    /// How long each step took, in their order.
    pub steps: Vec<(&'static str, Duration)>,
    /// What the guest's layer of the disk took when all tasks had ended, in
    /// bytes.
    pub disk: u64,
}

impl Farm {
    /// A farm of its own, without templates yet. The images are where
    /// `KILN_TEST_IMAGES` says.
    pub async fn open() -> Result<Self> {
        let images = std::env::var_os("KILN_TEST_IMAGES").map(PathBuf::from);
        let images = images.context(
            "KILN_TEST_IMAGES is not set: it says where the image debian/bookworm is; `make` sets it",
        )?;
        let images = std::path::absolute(images)?;
        let work = tempfile::Builder::new()
            .prefix("farm-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let helper = PathBuf::from(env!("CARGO_BIN_EXE_kiln"));
        let store = Store::new(images.clone());
        let mut machine = QemuMachine {
            helper: helper.clone(),
            isolation: Isolation::Namespaces,
            kvm: false,
            boot_deadline: DEADLINE,
            templates: Some(Templates::new(work.path().join("cache/kiln/templates"))),
            // As kiln has them; where there are none, none.
            cgroups: Cgroups::find().ok(),
        };
        let functions = machine.functions(&images, &store.directory(IMAGE)?);
        let image = store.find(IMAGE, None, &functions.variables().await?)?;
        let probe = Probe {
            helper,
            isolation: Isolation::Namespaces,
            kernel: image.kernel(),
            cache: work.path().join("accelerator"),
        };
        machine.kvm = Accelerator::of_this_host(&probe).await == Accelerator::Kvm;
        Ok(Self {
            work,
            machine,
            image,
            allow: Vec::new(),
            jobs: AtomicU64::new(0),
        })
    }

    /// Where everything is that guests and templates leave on the disk.
    pub fn dir(&self) -> &Path {
        self.work.path()
    }

    /// A new private directory.
    pub fn new_dir(&self) -> Result<PathBuf> {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir().join(format!("job-{number}"));
        std::fs::create_dir_all(dir.join("artifacts"))?;
        Ok(dir)
    }

    /// A guest as `kiln run` asks for it.
    pub fn spec(&self, dir: &Path) -> GuestSpec {
        GuestSpec {
            image: self.image.clone(),
            memory_mib: None,
            cpus: CPUS,
            network: Network::Public {
                allow: self.allow.clone(),
            },
            disk_mib: None,
            farm: None,
            preparation: None,
            dir: dir.to_owned(),
        }
    }

    /// A job with one task, that installs these.
    pub fn job(&self, dir: &Path, packages: &[&str]) -> Result<Job> {
        let text = manifest(packages);
        let parsed = kiln_core::manifest::parse(text.as_bytes());
        let parsed = parsed.map_err(|_| anyhow::anyhow!("not a manifest: {text}"))?;
        let mut guest = self.spec(dir);
        if !packages.is_empty() {
            guest.preparation = Some(preparation(packages));
        }
        Ok(Job {
            manifest: parsed.manifest,
            id: 0,
            url: String::new(),
            environment: Vec::new(),
            secrets: Vec::new(),
            overlays: Vec::new(),
            artifacts_dir: dir.join("artifacts"),
            deadline: DEADLINE,
            limits: Limits::default(),
            guest,
        })
    }

    /// Runs such a job to its end, which must be a success.
    pub async fn run(&self, machine: &dyn Machine, packages: &[&str]) -> Result<Ran> {
        let dir = self.new_dir()?;
        let job = self.job(&dir, packages)?;
        // A sender that is gone cancels nothing.
        let (_, cancel) = watch::channel(false);
        let seen = Seen::new(&dir);
        let outcome = kiln_worker::run(machine, &job, &seen, &seen, cancel).await;
        let removed = std::fs::remove_dir_all(&dir);
        ensure!(
            outcome.status == JobStatus::Success,
            "a job failed: {} {}",
            outcome.reason.unwrap_or_default(),
            outcome.operator.unwrap_or_default()
        );
        removed?;
        seen.ran()
    }
}

/// One task that says a word.
pub fn manifest(packages: &[&str]) -> String {
    let packages = match packages {
        [] => String::new(),
        names => format!("packages: [{}]\n", names.join(", ")),
    };
    format!("image: {IMAGE}\n{packages}tasks:\n- hello: echo hello\n")
}

/// What a job with these packages may be kept with.
pub fn preparation(packages: &[&str]) -> Preparation {
    Preparation {
        owner: "bench".into(),
        repositories: Vec::new(),
        packages: packages.iter().map(|&name| name.to_owned()).collect(),
        max_age: Duration::from_hours(1),
        fresh: false,
    }
}

/// What a file takes on the disk, in bytes.
pub fn taken(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// Looks at the clock when something happens.
struct Seen {
    claimed: Instant,
    first: OnceLock<Duration>,
    steps: Mutex<Vec<(&'static str, Duration)>>,
    layer: PathBuf,
    disk: AtomicU64,
}

impl Seen {
    fn new(dir: &Path) -> Self {
        Self {
            claimed: Instant::now(),
            first: OnceLock::new(),
            steps: Mutex::default(),
            layer: dir.join("machine/disk.qcow2"),
            disk: AtomicU64::new(0),
        }
    }

    fn ran(self) -> Result<Ran> {
        let steps = self.steps.into_inner();
        Ok(Ran {
            claimed: self.claimed,
            first: *self.first.get().context("the task said nothing")?,
            steps: steps.unwrap_or_else(PoisonError::into_inner),
            disk: self.disk.into_inner(),
        })
    }
}

#[async_trait]
impl Reporter for Seen {
    async fn event(&self, event: Event) -> Result<(), ReportError> {
        if let Body::StepEnded { step, duration, .. } = event.body {
            let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            steps.push((step.name(), duration));
        }
        Ok(())
    }

    async fn append(&self, log: &LogId, _bytes: &[u8]) -> Result<(), ReportError> {
        if log.task().is_some() {
            self.first.get_or_init(|| self.claimed.elapsed());
        }
        Ok(())
    }

    /// kiln's own words are no output of a task.
    async fn narrate(&self, _log: &LogId, _line: &[u8]) -> Result<(), ReportError> {
        Ok(())
    }

    async fn begun(&self) -> Result<(), ReportError> {
        Ok(())
    }
}

#[async_trait]
impl Hold for Seen {
    async fn hold(&self, _guest: &dyn Guest, _outcome: &Outcome) {
        self.disk.store(taken(&self.layer), Ordering::Relaxed);
    }
}
