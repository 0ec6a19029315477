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
        checker::{self, Promises, Report, Rule, Violation},
        history::{Entry, Event, History},
    },
};
use kiln_store::Store;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    clients::Clients,
    evidence::{self, Guard},
    farm::Farm,
    faults,
    kinds::Fault,
    plan::{self, Size},
    record::{Record, UNKNOWN},
    total::Ran,
    witness::Witness,
};

/// What is held against the farm. A group of transactions may have one moment.
const PROMISES: Promises = Promises {
    turns: 2,
    // A lease, the time in which all must have been able to renew, and what waits besides.
    settle: 180_000_000,
    // A lease, and a pass of the reaper.
    aftermath: 35_000_000,
};

/// How many violations of a rule are printed; all are in the folder.
const TOLD: u32 = 5;

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
    let guard = Guard::new(folder, &record, &farm.engines);
    farm.is_up().await;
    let schedule = plan::faults(size, &farm.shape);
    fs::write(folder.join("schedule"), evidence::told(&schedule)).expect("a file");
    let begin = Instant::now();
    let made = live(size, &farm, &witness, schedule, begin).await;
    let patience = Duration::from_micros(PROMISES.aftermath);
    record.put(evidence::guests_left(folder, patience).await);
    record.put(evidence::disagreements(&farm.store).await);
    let mut entries = record.entries();
    entries.extend(witness.entries());
    let claims = attempts(&farm.store, &mut entries).await;
    entries.extend(claims);
    drop(guard);
    let farm = Arc::into_inner(farm).expect("nobody uses it any more");
    let (shape, starts) = (farm.shape, farm.starts());
    farm.end().await;
    entries.extend(evidence::panics(folder));
    let history = History::new(entries);
    fs::write(folder.join("history"), history.to_lines()).expect("a file");
    println!(
        "  {} entries in {} s, {starts} starts of processes",
        history.entries().len(),
        begin.elapsed().as_secs(),
    );
    let ran = Ran {
        size: *size,
        shape,
        made,
        report: checker::check(&history, &PROMISES),
    };
    conclude(&ran, folder);
    ran
}

/// Jobs and faults from their beginning until all is over and has been read; the faults that
/// were made.
async fn live(
    size: &Size,
    farm: &Arc<Farm>,
    witness: &Witness,
    schedule: Vec<Fault>,
    begin: Instant,
) -> Vec<Fault> {
    let clients = Arc::new(Clients::new(
        farm.record.clone(),
        size.seed,
        witness.words(),
        farm.clients.address,
        &farm.tokens,
        size.jobs,
    ));
    let mut living = JoinSet::new();
    for planned in plan::jobs(size) {
        living.spawn(Arc::clone(&clients).live(planned, begin));
    }
    let mut making = JoinSet::new();
    for fault in schedule {
        making.spawn(faults::make(Arc::clone(farm), fault, begin));
    }
    let mut made = Vec::new();
    for (fault, done) in making.join_all().await {
        if done {
            made.push(fault);
        } else {
            println!("  {:?} {} was not made", fault.kind, fault.place);
        }
    }
    farm.record.say(Event::FaultsOver);
    settle(&clients).await;
    living.abort_all();
    while let Some(ended) = living.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            let what = format!("a client that failed: {error}; it");
            farm.record.say(Event::Left { what });
        }
    }
    clients.read_all().await;
    made
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

/// Judges a history that was written before.
pub fn judge(file: &Path) -> bool {
    let text = fs::read_to_string(file).expect("a history");
    let history = History::from_lines(&text).expect("a history");
    let report = checker::check(&history, &PROMISES);
    tell(&report);
    for (rule, count) in &report.checked {
        println!("  {rule:<50}{count:>9}");
    }
    report.violations.is_empty()
}

/// Says how it went, and leaves the files of a run that failed.
fn conclude(ran: &Ran, folder: &Path) {
    tell(&ran.report);
    if ran.is_good() && std::env::var_os("CHAOS_KEEP").is_none() {
        let _ = fs::remove_dir_all(folder);
        return;
    }
    let lines = |broken: &Violation| format!("{broken}\n");
    let text: String = ran.report.violations.iter().map(lines).collect();
    fs::write(folder.join("violations"), text).expect("a file");
    println!("  history, schedule and logs: {}", folder.display());
}

fn tell(report: &Report) {
    match report.violations.len() {
        0 => println!("  every promise was kept"),
        count => println!("  {count} VIOLATIONS"),
    }
    let mut told: BTreeMap<Rule, u32> = BTreeMap::new();
    for violation in &report.violations {
        let count = told.entry(violation.rule).or_default();
        *count += 1;
        if *count <= TOLD {
            println!("  {violation}");
        }
    }
}
