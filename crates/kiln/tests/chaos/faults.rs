//! The faults: what they are, where they may be, and how they are made.

use std::{sync::Arc, time::Duration};

use kiln_core::testing::history::Event;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use super::{farm::Farm, link::Weather, plan::Size, random::Random};

/// Between two faults at one place.
const BETWEEN: Duration = Duration::from_secs(3);

/// What a farm has that can go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub servers: usize,
    pub workers: usize,
    /// Whether clocks can be put elsewhere.
    pub clocks: bool,
    /// Whether disks can be filled.
    pub disks: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillWorker,
    KillServer,
    FreezeWorker,
    FreezeServer,
    ClockOfWorker,
    ClockOfServer,
    DiskOfWorker,
    /// A worker from all servers.
    CutWorker,
    HoleWorker,
    SlowWorker,
    /// A worker from one server.
    CutOneWay,
    HoleOneWay,
    CutClients,
    SlowClients,
    /// A server from the database.
    CutDatabase,
    HoleDatabase,
    SlowDatabase,
    StopPostgres,
    KillPostgres,
    StopBus,
    CutBus,
    /// The bus takes all and passes nothing on.
    HoleBus,
    StopS3,
    CutS3,
    HoleS3,
    SlowS3,
    /// S3 answers errors.
    ErrorsOfS3,
    RollServers,
    RollWorker,
}

/// A fault of a schedule.
#[derive(Debug, Clone)]
pub struct Fault {
    pub number: u32,
    pub kind: Kind,
    /// When it begins, after the beginning.
    pub at: Duration,
    pub length: Duration,
    /// Which of the parts of that kind.
    pub place: usize,
    /// How much, where that is a question.
    pub amount: u64,
}

impl Kind {
    /// All that can go wrong there, the likely ones more than once.
    pub fn of(shape: &Shape) -> Vec<Self> {
        use Kind::{
            ClockOfServer, ClockOfWorker, CutBus, CutClients, CutDatabase, CutOneWay, CutS3,
            CutWorker, DiskOfWorker, ErrorsOfS3, FreezeServer, FreezeWorker, HoleBus, HoleDatabase,
            HoleOneWay, HoleS3, HoleWorker, KillPostgres, KillServer, KillWorker, RollServers,
            RollWorker, SlowClients, SlowDatabase, SlowS3, SlowWorker, StopBus, StopPostgres,
            StopS3,
        };
        let mut all = vec![
            FreezeWorker,
            KillServer,
            StopPostgres,
            HoleBus,
            KillWorker,
            StopS3,
            CutWorker,
            FreezeServer,
            HoleWorker,
            ErrorsOfS3,
            CutDatabase,
            StopBus,
            KillPostgres,
            RollServers,
            CutClients,
            HoleDatabase,
            SlowWorker,
            RollWorker,
            SlowS3,
            SlowDatabase,
            CutOneWay,
            HoleS3,
            HoleOneWay,
            CutBus,
            CutS3,
            SlowClients,
        ];
        if shape.disks {
            all.push(DiskOfWorker);
        }
        if shape.clocks {
            all.extend([ClockOfWorker, ClockOfServer]);
        }
        all
    }

    /// How long it is: a lease is 30 s, so some are well below and some above.
    pub fn length(self, random: &mut Random, size: &Size) -> Duration {
        let (short, long) = match self {
            Self::KillWorker | Self::KillServer => ((0, 6000), (6000, 12_000)),
            Self::StopPostgres
            | Self::KillPostgres
            | Self::StopBus
            | Self::StopS3
            | Self::HoleBus => ((1000, 15_000), (60_000, 60_001)),
            Self::ClockOfWorker | Self::ClockOfServer => ((4000, 20_000), (20_000, 60_000)),
            Self::RollServers | Self::RollWorker => ((0, 1), (0, 1)),
            _ => ((1000, 12_000), (32_000, 45_000)),
        };
        let is_long = match self {
            Self::StopPostgres | Self::KillPostgres => random.one_in(4),
            _ => random.one_in(3),
        };
        let (from, to) = if is_long { long } else { short };
        let millis = random.within(from, to);
        Duration::from_millis(match self {
            _ if !size.is_short() => millis,
            // Longer than a lease, and until somebody has seen what came of it.
            Self::FreezeWorker => 40_000,
            _ => millis.min(size.seconds * 1000 / 2),
        })
    }
}

impl Fault {
    /// What it occupies while it lasts.
    fn places(&self, shape: &Shape) -> Vec<String> {
        use Kind::{
            ClockOfServer, ClockOfWorker, CutBus, CutClients, CutDatabase, CutOneWay, CutS3,
            CutWorker, DiskOfWorker, ErrorsOfS3, FreezeServer, FreezeWorker, HoleBus, HoleDatabase,
            HoleOneWay, HoleS3, HoleWorker, KillPostgres, KillServer, KillWorker, RollServers,
            RollWorker, SlowClients, SlowDatabase, SlowS3, SlowWorker, StopBus, StopPostgres,
            StopS3,
        };
        let worker = self.place % shape.workers;
        let server = self.place % shape.servers;
        match self.kind {
            KillWorker | FreezeWorker | RollWorker => vec![format!("worker {worker}")],
            KillServer | FreezeServer => vec![format!("server {server}")],
            RollServers => (0..shape.servers)
                .map(|one| format!("server {one}"))
                .collect(),
            ClockOfWorker => vec![format!("clock of worker {worker}")],
            ClockOfServer => vec![format!("clock of server {server}")],
            DiskOfWorker => vec![format!("disk of worker {worker}")],
            CutWorker | HoleWorker | SlowWorker | CutOneWay | HoleOneWay => {
                vec![format!("way of worker {worker}")]
            }
            CutClients | SlowClients => vec![format!("way of clients {server}")],
            CutDatabase | HoleDatabase | SlowDatabase => {
                vec![format!("way to the database {server}")]
            }
            StopPostgres | KillPostgres => vec!["postgres".to_owned()],
            StopBus => vec!["redis".to_owned()],
            CutBus | HoleBus => vec![format!("way to the bus {server}")],
            StopS3 => vec!["s3".to_owned()],
            CutS3 | HoleS3 | SlowS3 | ErrorsOfS3 => vec![format!("way to s3 {server}")],
        }
    }

    /// Whether both would be at one place at one time.
    pub fn meets(&self, other: &Self, shape: &Shape) -> bool {
        let (mine, its) = (self.places(shape), other.places(shape));
        // How long a worker takes to leave depends on its jobs.
        let over = |fault: &Self| {
            let leaving = matches!(fault.kind, Kind::RollServers | Kind::RollWorker);
            let extra = if leaving {
                Duration::from_secs(30)
            } else {
                Duration::ZERO
            };
            fault.at + fault.length + extra + BETWEEN
        };
        mine.iter().any(|place| its.contains(place))
            && self.at < over(other)
            && other.at < over(self)
    }

    /// The workers whose jobs it may cost.
    fn touches(&self, shape: &Shape) -> Vec<String> {
        use Kind::{
            CutOneWay, CutWorker, DiskOfWorker, FreezeWorker, HoleOneWay, HoleWorker, KillWorker,
            SlowWorker,
        };
        let of_worker = matches!(
            self.kind,
            KillWorker
                | FreezeWorker
                | DiskOfWorker
                | CutWorker
                | HoleWorker
                | SlowWorker
                | CutOneWay
                | HoleOneWay
        );
        let name = super::farm::worker_name(self.place % shape.workers);
        of_worker.then_some(name).into_iter().collect()
    }
}

/// Makes a fault when its time has come, and takes it away again.
pub async fn make(farm: Arc<Farm>, fault: Fault, begin: Instant) {
    sleep_until(begin + fault.at).await;
    let number = fault.number;
    let what = format!("{:?} {} for {:?}", fault.kind, fault.place, fault.length);
    farm.record.say(Event::FaultBegan {
        fault: number,
        what,
        touches: fault.touches(&farm.shape),
    });
    inflict(&farm, &fault).await;
    farm.record.say(Event::FaultEnded { fault: number });
}

async fn inflict(farm: &Arc<Farm>, fault: &Fault) {
    let length = fault.length;
    let worker = &farm.workers[fault.place % farm.workers.len()];
    let server = &farm.servers[fault.place % farm.servers.len()];
    let slow = Weather::Slow(Duration::from_millis(50 + fault.amount % 1500));
    match fault.kind {
        Kind::KillWorker => kill(&worker.process, length).await,
        Kind::KillServer => kill(&server.process, length).await,
        Kind::FreezeWorker => freeze(&worker.process, length).await,
        Kind::FreezeServer => freeze(&server.process, length).await,
        Kind::ClockOfWorker => clock(&worker.process, fault).await,
        Kind::ClockOfServer => clock(&server.process, fault).await,
        Kind::DiskOfWorker => fill(worker.disk.as_ref(), length).await,
        Kind::CutWorker => on_all(&worker.link.ways, Weather::Cut, length).await,
        Kind::HoleWorker => on_all(&worker.link.ways, Weather::Hole, length).await,
        Kind::SlowWorker => on_all(&worker.link.ways, slow, length).await,
        Kind::CutOneWay | Kind::HoleOneWay => {
            let one = usize::try_from(fault.amount % farm.servers.len() as u64).expect("few");
            let weather = match fault.kind {
                Kind::CutOneWay => Weather::Cut,
                _ => Weather::Hole,
            };
            on_all(&worker.link.ways[one..=one], weather, length).await;
        }
        Kind::CutClients => on_all(&farm.clients.ways[server.ways()], Weather::Cut, length).await,
        Kind::SlowClients => on_all(&farm.clients.ways[server.ways()], slow, length).await,
        Kind::CutDatabase => on_all(&server.database.ways, Weather::Cut, length).await,
        Kind::HoleDatabase => on_all(&server.database.ways, Weather::Hole, length).await,
        // Each transaction is some round trips, and nobody else writes meanwhile.
        Kind::SlowDatabase => {
            let slow = Weather::Slow(Duration::from_millis(1 + fault.amount % 40));
            on_all(&server.database.ways, slow, length).await;
        }
        Kind::StopPostgres | Kind::KillPostgres => {
            farm.engines
                .postgres_away(fault.kind == Kind::KillPostgres, length)
                .await;
        }
        Kind::RollServers => {
            for server in &farm.servers {
                roll(farm, &server.process).await;
            }
        }
        Kind::RollWorker => roll(farm, &worker.process).await,
        Kind::StopBus => farm.engines.redis_away(length).await,
        Kind::CutBus => on_all(&server.bus.ways, Weather::Cut, length).await,
        Kind::HoleBus => on_all(&server.bus.ways, Weather::Hole, length).await,
        Kind::StopS3 => farm.engines.s3_away(length).await,
        Kind::CutS3 => on_all(&server.s3.ways, Weather::Cut, length).await,
        Kind::HoleS3 => on_all(&server.s3.ways, Weather::Hole, length).await,
        Kind::SlowS3 => on_all(&server.s3.ways, slow, length).await,
        Kind::ErrorsOfS3 => on_all(&server.s3.ways, Weather::Errors, length).await,
    }
}

async fn kill(process: &super::process::Process, length: Duration) {
    process.kill();
    sleep(length).await;
    process.up();
}

async fn freeze(process: &super::process::Process, length: Duration) {
    process.signal(Signal::STOP);
    sleep(length).await;
    process.signal(Signal::CONT);
}

/// Up to three days forward or back.
async fn clock(process: &super::process::Process, fault: &Fault) {
    let seconds = i64::try_from(10 + fault.amount % (3 * 24 * 3600)).expect("few");
    let back = fault.amount.is_multiple_of(2);
    process.put_clock(if back { -seconds } else { seconds });
    sleep(fault.length).await;
    process.put_clock(0);
}

async fn fill(disk: Option<&super::disk::Disk>, length: Duration) {
    if let Some(disk) = disk {
        disk.fill();
        sleep(length).await;
        disk.free();
    }
}

async fn on_all(ways: &[super::link::Way], weather: Weather, length: Duration) {
    for way in ways {
        way.set(weather);
    }
    sleep(length).await;
    for way in ways {
        way.set(Weather::Clear);
    }
}

/// A new version is started, as far as anybody else can see.
async fn roll(farm: &Farm, process: &super::process::Process) {
    if !process.leave().await {
        farm.record.say(Event::Left {
            what: format!("{} does not leave when asked to; it", process.name),
        });
    }
    process.up();
}
