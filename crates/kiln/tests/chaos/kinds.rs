//! What can go wrong: which kinds of faults there are, where, and for how long.

use std::time::Duration;

use kiln_core::testing::random::Random;

use super::{farm::worker_name, plan::Size};

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
    DiskOfPostgres,
    DiskOfS3,
    /// A worker from all servers.
    CutWorker,
    HoleWorker,
    SlowWorker,
    /// A worker from one server.
    CutOneWay,
    HoleOneWay,
    SlowOneWay,
    /// Clients from one server.
    CutClients,
    HoleClients,
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
    SlowBus,
    /// The bus says that it is well, and what a server publishes reaches nobody.
    DeafBus,
    StopS3,
    CutS3,
    HoleS3,
    SlowS3,
    /// S3 answers errors.
    ErrorsOfS3,
    /// All servers from all engines, workers and clients.
    CutAll,
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
    /// All that can go wrong there: first what needs much room in a schedule.
    pub fn of(shape: &Shape) -> Vec<Self> {
        let mut all = vec![
            Self::CutAll,
            Self::FreezeWorker,
            Self::KillServer,
            Self::StopPostgres,
            Self::DeafBus,
            Self::KillWorker,
            Self::StopS3,
            Self::CutWorker,
            Self::FreezeServer,
            Self::HoleWorker,
            Self::ErrorsOfS3,
            Self::CutDatabase,
            Self::StopBus,
            Self::KillPostgres,
            Self::RollServers,
            Self::CutClients,
            Self::HoleDatabase,
            Self::SlowWorker,
            Self::RollWorker,
            Self::SlowS3,
            Self::SlowDatabase,
            Self::CutOneWay,
            Self::HoleS3,
            Self::HoleOneWay,
            Self::CutBus,
            Self::CutS3,
            Self::SlowClients,
            Self::HoleBus,
            Self::SlowBus,
            Self::SlowOneWay,
            Self::HoleClients,
        ];
        if shape.disks {
            all.extend([Self::DiskOfPostgres, Self::DiskOfS3, Self::DiskOfWorker]);
        }
        if shape.clocks {
            all.extend([Self::ClockOfWorker, Self::ClockOfServer]);
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
            | Self::HoleBus
            | Self::DeafBus => ((1000, 15_000), (60_000, 60_001)),
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
        let worker = self.place % shape.workers;
        let server = self.place % shape.servers;
        let one = |part: &str, number: usize| vec![format!("{part} {number}")];
        let each = |part: &str, count: usize| -> Vec<String> {
            (0..count)
                .map(|number| format!("{part} {number}"))
                .collect()
        };
        match self.kind {
            Kind::KillWorker | Kind::FreezeWorker | Kind::RollWorker => one("worker", worker),
            Kind::KillServer | Kind::FreezeServer => one("server", server),
            Kind::RollServers => each("server", shape.servers),
            Kind::ClockOfWorker => one("clock of worker", worker),
            Kind::ClockOfServer => one("clock of server", server),
            Kind::DiskOfWorker => one("disk of worker", worker),
            Kind::CutWorker
            | Kind::HoleWorker
            | Kind::SlowWorker
            | Kind::CutOneWay
            | Kind::HoleOneWay
            | Kind::SlowOneWay => one("way of worker", worker),
            Kind::CutClients | Kind::HoleClients | Kind::SlowClients => one("clients to", server),
            Kind::CutDatabase | Kind::HoleDatabase | Kind::SlowDatabase => one("database", server),
            Kind::CutBus | Kind::HoleBus | Kind::SlowBus | Kind::DeafBus => one("bus", server),
            Kind::CutS3 | Kind::HoleS3 | Kind::SlowS3 | Kind::ErrorsOfS3 => one("s3", server),
            Kind::StopPostgres | Kind::KillPostgres | Kind::DiskOfPostgres => {
                vec!["postgres".to_owned()]
            }
            Kind::StopBus => vec!["redis".to_owned()],
            Kind::StopS3 | Kind::DiskOfS3 => vec!["s3".to_owned()],
            Kind::CutAll => {
                let ways = ["clients to", "database", "bus", "s3"];
                let ways = ways.iter().flat_map(|way| each(way, shape.servers));
                ways.chain(each("way of worker", shape.workers)).collect()
            }
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

    /// The workers whose jobs it may cost. What is slow costs none, nor does the loss of one
    /// way of two that is noticed at once.
    pub fn touches(&self, shape: &Shape) -> Vec<String> {
        let of_worker = matches!(
            self.kind,
            Kind::KillWorker
                | Kind::FreezeWorker
                | Kind::DiskOfWorker
                | Kind::CutWorker
                | Kind::HoleWorker
                | Kind::HoleOneWay
        );
        let name = worker_name(self.place % shape.workers);
        of_worker.then_some(name).into_iter().collect()
    }
}
