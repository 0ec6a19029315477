//! One run: a farm, its jobs and faults, and the judgement.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kiln_core::{
    farm::{Fence, JobId},
    testing::{
        checker::{self, Promises, Report, Rule},
        history::{Entry, Event, History},
    },
};
use kiln_store::{Store, testing::broken_rules};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    clients::Clients,
    farm::Farm,
    faults::{self, Fault, Kind},
    plan::{self, Size},
    record::{Record, UNKNOWN},
    witness::Witness,
};

/// What is held against the farm. A group of transactions may have one moment.
const PROMISES: Promises = Promises {
    turns: 2,
    // A lease, the time in which all must have been able to renew, and what waits besides.
    settle: 180_000_000,
    // A lease, a pass of the reaper, and a worker that is away tries each 10 s.
    aftermath: 50_000_000,
};

/// How many violations of a rule are printed; all are in the folder.
const TOLD: u32 = 5;

/// What a run was and found.
pub struct Ran {
    jobs: usize,
    faults: BTreeMap<Kind, u32>,
    report: Report,
}

impl Ran {
    pub fn is_good(&self) -> bool {
        self.report.violations.is_empty()
    }
}

/// Does one, with its files in this folder.
pub async fn run(size: &Size, folder: &Path) -> Ran {
    fs::create_dir_all(folder).expect("a directory");
    println!(
        "\nseed {}: {} jobs of {} owners, {} faults",
        size.seed, size.jobs, size.owners, size.faults
    );
    let record = Record::default();
    let witness = Witness::new(&folder.join("guests"));
    let farm = Arc::new(Farm::start(folder, size, record.clone()).await);
    farm.is_up().await;
    let schedule = plan::faults(size, &farm.shape);
    fs::write(folder.join("schedule"), told(&schedule)).expect("a file");
    let clients = Arc::new(Clients::new(
        record.clone(),
        size.seed,
        witness.words(),
        farm.clients.address,
        &farm.tokens,
        size.jobs,
    ));
    let begin = Instant::now();
    let mut living = JoinSet::new();
    for planned in plan::jobs(size) {
        living.spawn(Arc::clone(&clients).live(planned, begin));
    }
    let mut making = JoinSet::new();
    for fault in schedule.clone() {
        making.spawn(faults::make(Arc::clone(&farm), fault, begin));
    }
    making.join_all().await;
    record.say(Event::FaultsOver);
    settle(&clients).await;
    living.abort_all();
    clients.read_all().await;
    let disagreements = disagreements(&farm.store).await;
    guests_left(folder, &record);
    let mut entries = record.entries();
    entries.extend(witness.entries());
    let claims = attempts(&farm.store, &mut entries).await;
    entries.extend(claims);
    let farm = Arc::into_inner(farm).expect("nobody uses it any more");
    let starts: u32 = farm
        .servers
        .iter()
        .map(|server| server.process.starts())
        .sum::<u32>()
        + farm
            .workers
            .iter()
            .map(|worker| worker.process.starts())
            .sum::<u32>();
    farm.end().await;
    entries.extend(disagreements);
    entries.extend(panics(folder));
    let history = History::new(entries);
    let report = checker::check(&history, &PROMISES);
    let mut kinds = BTreeMap::new();
    for fault in &schedule {
        *kinds.entry(fault.kind).or_default() += 1;
    }
    let ran = Ran {
        jobs: size.jobs,
        faults: kinds,
        report,
    };
    conclude(&ran, &history, folder, begin.elapsed(), starts);
    ran
}

/// Waits until no client waits for anything, or nothing more has ended for too long.
async fn settle(clients: &Clients) {
    let patience = Duration::from_micros(PROMISES.settle) + Duration::from_secs(15);
    let mut before = (clients.open.load(Ordering::Acquire), Instant::now());
    while before.0 > 0 && before.1.elapsed() < patience {
        sleep(Duration::from_millis(200)).await;
        let open = clients.open.load(Ordering::Acquire);
        if open != before.0 {
            before = (open, Instant::now());
        }
    }
}

fn told(schedule: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let (from, to) = (
            fault.at.as_secs_f32(),
            (fault.at + fault.length).as_secs_f32(),
        );
        format!(
            "{from:7.2} to {to:7.2}  {:?} {} {}\n",
            fault.kind, fault.place, fault.amount
        )
    };
    schedule.iter().map(line).collect()
}

/// What the database says of attempts; and whose the fences are that workers reported under.
async fn attempts(store: &Store, entries: &mut [Entry]) -> Vec<Entry> {
    let jobs: std::collections::BTreeSet<JobId> = entries
        .iter()
        .filter_map(|entry| match entry.event {
            Event::Acknowledged { job, .. } | Event::Listed { job, .. } => Some(job),
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    let mut owners: BTreeMap<Fence, JobId> = BTreeMap::new();
    for job in jobs {
        for attempt in store.attempts(job).await.expect("a database") {
            let fence = attempt.fence;
            owners.insert(fence, job);
            let at = |moment: i64| u64::try_from(moment).expect("after 1970");
            let claimed = Event::Claimed {
                job,
                fence,
                attempt: attempt.number,
                worker: attempt.worker,
            };
            found.push(Entry {
                at: at(attempt.started.0),
                event: claimed,
            });
            if let Some(ended) = attempt.ended {
                found.push(Entry {
                    at: at(ended.0),
                    event: Event::Released { job, fence },
                });
            }
        }
    }
    for entry in entries {
        if let Event::Begun { job, fence, .. }
        | Event::Stored { job, fence, .. }
        | Event::Ended { job, fence, .. } = &mut entry.event
        {
            *job = owners.get(fence).copied().unwrap_or(UNKNOWN);
        }
    }
    found
}

fn left(what: String) -> Entry {
    let event = Event::Left { what };
    Entry {
        at: super::record::now(),
        event,
    }
}

/// What in the database does not agree with itself.
async fn disagreements(store: &Store) -> Vec<Entry> {
    let broken = broken_rules(store).await.expect("a database");
    broken
        .into_iter()
        .map(|rule| left(format!("in the database: {rule}: it")))
        .collect()
}

/// Guests that run although no job does.
fn guests_left(folder: &Path, record: &Record) {
    let mark = format!("KILN_DUMMY={}", folder.display());
    for entry in fs::read_dir("/proc").expect("a directory").flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment);
        if text.split('\0').any(|variable| variable.starts_with(&mark)) {
            let what = format!("process {} of a guest", entry.file_name().display());
            record.say(Event::Left { what });
        }
    }
}

/// Processes that found themselves in a state that can't be.
fn panics(folder: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join("logs"))
        .expect("a directory")
        .flatten()
    {
        let text = fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for line in text.lines().filter(|line| line.contains("panicked at")) {
            let name = entry.file_name();
            found.push(left(format!("in {}: {line}: it", name.display())));
        }
    }
    found
}

/// Prints what was found; leaves all files of a run that failed.
fn conclude(ran: &Ran, history: &History, folder: &Path, took: Duration, starts: u32) {
    let Report {
        violations,
        checked,
    } = &ran.report;
    println!(
        "  {} entries in {} s, {starts} starts of processes: {}",
        history.entries().len(),
        took.as_secs(),
        if ran.is_good() {
            "every promise was kept".to_owned()
        } else {
            format!("{} VIOLATIONS", violations.len())
        },
    );
    let _ = checked;
    if ran.is_good() && std::env::var_os("CHAOS_KEEP").is_none() {
        let _ = fs::remove_dir_all(folder);
        return;
    }
    let mut told: BTreeMap<Rule, u32> = BTreeMap::new();
    for violation in violations {
        let count = told.entry(violation.rule).or_default();
        *count += 1;
        if *count <= TOLD {
            println!("  {violation}");
        }
    }
    let mut text = String::new();
    for violation in violations {
        text += &format!("{violation}\n");
    }
    fs::write(folder.join("violations"), text).expect("a file");
    fs::write(folder.join("history"), history.to_lines()).expect("a file");
    println!("  history, schedule and logs: {}", folder.display());
}

/// All runs.
#[derive(Default)]
pub struct Total {
    seeds: u32,
    jobs: usize,
    faults: BTreeMap<Kind, u32>,
    checked: BTreeMap<Rule, u64>,
    violations: usize,
}

impl Total {
    pub fn add(&mut self, ran: &Ran) {
        self.seeds += 1;
        self.jobs += ran.jobs;
        self.violations += ran.report.violations.len();
        for (kind, count) in &ran.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (rule, count) in &ran.report.checked {
            *self.checked.entry(*rule).or_default() += count;
        }
    }

    pub fn print(&self) {
        let faults: u32 = self.faults.values().sum();
        println!("\n{:<52}{:>9}", "seeds", self.seeds);
        println!("{:<52}{:>9}", "jobs", self.jobs);
        println!("{:<52}{faults:>9}", "faults");
        for (kind, count) in &self.faults {
            println!("  {:<50}{count:>9}", format!("{kind:?}"));
        }
        println!("{:<52}", "checked");
        for (rule, count) in &self.checked {
            println!("  {rule:<50}{count:>9}");
        }
        println!("{:<52}{:>9}", "violations", self.violations);
    }
}
