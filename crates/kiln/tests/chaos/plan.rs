//! What a seed decides: the jobs and the faults.

use std::{fmt::Write as _, time::Duration};

use kiln_core::{job::JobStatus, testing::random::Random};

use super::kinds::{Fault, Kind, Shape};

/// How long a run is, and of how much.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub seed: u64,
    pub jobs: usize,
    pub faults: usize,
    /// For so long jobs are submitted and faults begin.
    pub seconds: u64,
    /// Who submits jobs.
    pub owners: usize,
}

impl Size {
    /// Whether there is no time for more than one lease.
    pub fn is_short(&self) -> bool {
        self.seconds < 60
    }
}

/// A job to be.
#[derive(Debug, Clone)]
pub struct Planned {
    pub number: usize,
    /// When it is submitted, after the beginning.
    pub at: Duration,
    /// Its owner, from 0.
    pub owner: usize,
    pub tasks: Vec<Script>,
    /// How long after its acknowledgement it is cancelled, if it is.
    pub cancel: Option<Duration>,
    /// Whether somebody follows its logs.
    pub followed: bool,
}

/// A task's script.
#[derive(Debug, Clone)]
pub struct Script {
    pub name: &'static str,
    /// Lines, and the time between them in milliseconds.
    pub lines: u64,
    pub pause: u64,
    /// Lines that it writes at once then.
    pub bulk: u64,
    pub fails: bool,
    /// It goes on until it is cancelled.
    pub stays: bool,
}

impl Planned {
    pub fn key(&self, seed: u64) -> String {
        format!("chaos-{seed}-{}", self.number)
    }

    pub fn owner_name(&self) -> String {
        owner(self.owner)
    }

    /// How it ends when nothing comes between.
    pub fn expected(&self) -> JobStatus {
        if self.tasks.iter().any(|task| task.stays) {
            JobStatus::Cancelled
        } else if self.tasks.iter().any(|task| task.fails) {
            JobStatus::Failed
        } else {
            JobStatus::Success
        }
    }

    /// The tasks that run: those behind one that fails don't.
    pub fn task_names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.to_owned()).collect()
    }

    /// Its manifest. The scripts use words of the file [`super::witness::WORDS`].
    pub fn manifest(&self, words: &str) -> String {
        let mut text = "image: debian/bookworm\n".to_owned();
        // The same workers can do these, and they wait in another lane.
        if self.number.is_multiple_of(3) {
            let _ = writeln!(text, "arch: {}", std::env::consts::ARCH);
        }
        text += "tasks:\n";
        for task in &self.tasks {
            let Script {
                name,
                lines,
                pause,
                bulk,
                fails,
                stays,
            } = task;
            // Writing to a text never fails.
            let _ = write!(text, "- {name}: |\n    . {words}\n    begin {name}\n");
            let _ = writeln!(text, "    say {lines} {pause}");
            if *bulk > 0 {
                let _ = writeln!(text, "    much {bulk}");
            }
            if *stays {
                text += "    stay\n";
            }
            let _ = writeln!(text, "    finish {}", u8::from(*fails));
        }
        text
    }
}

/// An owner's name.
pub fn owner(place: usize) -> String {
    format!("owner{place}")
}

/// The jobs of a run.
pub fn jobs(size: &Size) -> Vec<Planned> {
    let mut random = Random::new(size.seed);
    let millis = size.seconds * 1000;
    let mut jobs: Vec<Planned> = (0..size.jobs)
        .map(|number| {
            // A few owners want much, most a little.
            let owners = size.owners as u64;
            let most = if random.one_in(3) {
                3.min(owners)
            } else {
                owners
            };
            let owner = usize::try_from(random.within(0, most)).expect("small");
            let followed = random.one_in(8);
            let tasks = scripts(&mut random, size);
            let stays = tasks.iter().any(|task| task.stays);
            let cancelled = random.one_in(12) || stays;
            Planned {
                number,
                at: Duration::from_millis(random.within(0, millis)),
                owner,
                tasks,
                cancel: cancelled.then(|| Duration::from_millis(random.within(0, 12_000))),
                followed,
            }
        })
        .collect();
    jobs.sort_by_key(|job| job.at);
    jobs
}

fn scripts(random: &mut Random, size: &Size) -> Vec<Script> {
    let plain = |name| Script {
        name,
        lines: 2,
        pause: 0,
        bulk: 0,
        fails: false,
        stays: false,
    };
    let mut all = vec![plain("one")];
    if random.one_in(100) {
        all[0].stays = true;
        return all;
    }
    match random.within(0, 20) {
        0..12 => {}
        12..14 => all.push(plain("two")),
        14 => all[0].fails = true,
        15 => {
            all.push(plain("two"));
            all[1].fails = true;
            all.push(plain("three"));
        }
        16 => all[0].bulk = random.within(1000, 6000),
        17 => {
            all[0].lines = random.within(5, 30);
            all[0].pause = 200;
        }
        18 => {
            all[0].lines = random.within(5, 12);
            all[0].pause = 1000;
            all.push(plain("two"));
        }
        _ => {
            all[0].lines = random.within(10, 41.min(size.seconds / 2));
            all[0].pause = 1000;
        }
    }
    all
}

/// The faults of a run. At one place there is one at a time; a run in which not all find
/// a place fails for that.
pub fn faults(size: &Size, shape: &Shape) -> Vec<Fault> {
    let mut random = Random::new(size.seed ^ 0xfa17);
    let millis = size.seconds * 1000;
    // Where time is short they begin soon: a lease has to run out before the end.
    let last = if size.is_short() { millis / 2 } else { millis };
    let mut faults: Vec<Fault> = Vec::new();
    let kinds = Kind::of(shape);
    // Of few faults each is of another kind, of many each kind is there; what needs much room
    // has its place first.
    let first = match size.faults < kinds.len() {
        true => usize::try_from(size.seed % kinds.len() as u64).expect("small"),
        false => 0,
    };
    for number in 0..size.faults {
        for attempt in 0..500 {
            let kind = match kinds.get(number) {
                Some(_) if attempt < 100 => kinds[(first + number) % kinds.len()],
                _ => *random.one_of(&kinds),
            };
            let fault = Fault {
                number: u32::try_from(number).expect("few"),
                kind,
                at: Duration::from_millis(random.within(millis / 50, last)),
                length: kind.length(&mut random, size),
                place: usize::try_from(random.within(0, 1 << 16)).expect("small"),
                amount: random.next(),
            };
            if faults.iter().all(|other| !fault.meets(other, shape)) {
                faults.push(fault);
                break;
            }
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}
