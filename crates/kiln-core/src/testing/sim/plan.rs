//! What a seed decides before anything happens: jobs and faults.

use crate::{farm::Requirements, job::JobStatus, testing::random::Random};

use super::{SECOND, SERVERS, WORKERS};

/// For how long jobs are submitted and faults begin.
const BUSY: u64 = 150 * SECOND;
const JOBS: usize = 40;
const FAULTS: u32 = 10;
const OWNERS: u64 = 8;

/// A task's script.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub name: &'static str,
    pub lines: u64,
    /// Between two of them, in microseconds.
    pub pause: u64,
    pub fails: bool,
}

/// A job to be.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub place: usize,
    pub key: String,
    pub at: u64,
    pub owner: u32,
    pub wanted: Requirements,
    pub tasks: Vec<Script>,
    /// In seconds.
    pub deadline: u64,
    /// How long after its acknowledgement it is cancelled, if it is.
    pub cancel: Option<u64>,
}

impl Planned {
    /// How it ends when nothing comes between.
    pub fn expected(&self) -> JobStatus {
        let fails = self.tasks.iter().any(|task| task.fails);
        let length: u64 = self.tasks.iter().map(|task| task.lines * task.pause).sum();
        match (length > self.deadline * SECOND, fails) {
            (true, _) => JobStatus::Timeout,
            (false, true) => JobStatus::Failed,
            (false, false) => JobStatus::Success,
        }
    }

    pub fn share(&self) -> String {
        format!("owner-{}", self.owner)
    }

    /// Each share asks for one kind of worker alone: fairness is judged by kind.
    pub fn kind(&self) -> String {
        self.wanted.to_string()
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It ends without a word and starts again.
    KillServer,
    /// It stands still.
    FreezeServer,
    KillWorker,
    FreezeWorker,
    /// It takes no more jobs, and starts anew when it has none.
    DrainWorker,
    /// Nobody reaches it.
    DatabaseAway,
    /// Some of what is asked fails, and some is done without an answer.
    DatabaseErrs,
    /// One server does not reach it.
    NoDatabase,
    /// The database's clock is ahead.
    ClockAhead,
    /// It is behind.
    ClockBehind,
    /// What goes between a worker and a server comes when that is over.
    Hole,
    /// It never comes.
    Cut,
    /// A worker reaches nobody.
    CutWorker,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::KillServer,
        Self::FreezeServer,
        Self::KillWorker,
        Self::FreezeWorker,
        Self::DrainWorker,
        Self::DatabaseAway,
        Self::DatabaseErrs,
        Self::NoDatabase,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::Hole,
        Self::Cut,
        Self::CutWorker,
    ];

    /// How long it is: some are longer than a lease.
    fn length(self, random: &mut Random) -> u64 {
        let long = random.one_in(3);
        match self {
            Self::KillServer | Self::KillWorker => random.within(SECOND / 10, 12 * SECOND),
            Self::DrainWorker => 0,
            Self::DatabaseErrs => random.within(SECOND, 20 * SECOND),
            _ if long => random.within(31 * SECOND, 60 * SECOND),
            _ => random.within(SECOND / 2, 15 * SECOND),
        }
    }
}

/// A fault to be.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub number: u32,
    pub kind: Kind,
    pub at: u64,
    pub until: u64,
    pub server: usize,
    pub worker: usize,
    /// By how much a clock is off.
    pub amount: i64,
}

impl Fault {
    /// The parts that may not do what they should.
    pub fn touches(&self) -> Vec<String> {
        let (server, worker) = (
            format!("server-{}", self.server),
            format!("worker-{}", self.worker),
        );
        match self.kind {
            Kind::KillServer | Kind::FreezeServer | Kind::NoDatabase => vec![server],
            Kind::KillWorker | Kind::FreezeWorker | Kind::CutWorker => vec![worker],
            Kind::Hole | Kind::Cut => vec![worker, server],
            // Its jobs run to their ends.
            Kind::DrainWorker => Vec::new(),
            Kind::DatabaseAway | Kind::DatabaseErrs | Kind::ClockAhead | Kind::ClockBehind => {
                vec!["database".to_owned()]
            }
        }
    }

    /// Whether both are at one place at one time.
    fn meets(&self, other: &Self) -> bool {
        let together = self.at <= other.until && other.at <= self.until;
        let place = |fault: &Self| match fault.kind {
            Kind::KillServer | Kind::FreezeServer | Kind::NoDatabase => (0, fault.server),
            Kind::KillWorker | Kind::FreezeWorker | Kind::DrainWorker => (1, fault.worker),
            Kind::DatabaseAway | Kind::DatabaseErrs => (2, 0),
            Kind::ClockAhead | Kind::ClockBehind => (3, 0),
            Kind::Hole | Kind::Cut | Kind::CutWorker => (4, fault.worker),
        };
        together && place(self) == place(other)
    }
}

/// The jobs.
pub(super) fn jobs(random: &mut Random) -> Vec<Planned> {
    let job = |place: usize| {
        let owner = u32::try_from(random.within(0, OWNERS)).unwrap_or_default();
        let wanted = Requirements {
            image: "dummy".to_owned(),
            arch: None,
            labels: match owner % 4 {
                3 => [("gpu".to_owned(), "yes".to_owned())].into(),
                _ => [].into(),
            },
        };
        let tasks = scripts(random);
        // A script that has no end meets its job's deadline.
        let endless = tasks.iter().any(|task| task.pause > 60 * SECOND);
        Planned {
            place,
            key: format!("key-{place}"),
            at: random.within(0, BUSY),
            owner,
            wanted,
            deadline: if endless { 30 } else { 900 },
            tasks,
            cancel: random.one_in(8).then(|| random.within(0, 30 * SECOND)),
        }
    };
    (0..JOBS).map(job).collect()
}

fn scripts(random: &mut Random) -> Vec<Script> {
    let mut all: Vec<Script> = ["one", "two", "three"]
        .into_iter()
        .take(1 + random.place(3))
        .map(|name| Script {
            name,
            lines: random.within(1, 6),
            pause: random.within(0, SECOND),
            fails: false,
        })
        .collect();
    match random.within(0, 20) {
        0..3 => {
            let last = all.len() - 1;
            all[last].fails = true;
            // What is behind it never runs.
        }
        3..8 => {
            all[0].lines = random.within(5, 40);
            all[0].pause = SECOND;
        }
        8 => all[0].pause = 1000 * SECOND,
        _ => {}
    }
    all
}

/// The faults, by their beginning.
pub(super) fn faults(random: &mut Random) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for number in 0..FAULTS {
        let kind = *random.one_of(&Kind::ALL);
        let at = random.within(SECOND, BUSY);
        let amount = random.within(1, 60);
        let fault = Fault {
            number,
            kind,
            at,
            until: at + kind.length(random),
            server: random.place(SERVERS),
            worker: random.place(WORKERS),
            amount: i64::try_from(amount * SECOND).unwrap_or_default(),
        };
        // Where another one is it is left out.
        if faults.iter().all(|other| !fault.meets(other)) {
            faults.push(fault);
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}
