//! A small farm that does everything right, for histories in which no rule is broken.

use std::collections::BTreeMap;

use super::{Entry, Event, History};
use crate::{
    farm::{
        Fence, JobId, Labels, OfferedImage, Requirements, SessionId, ShareId, lease,
        schedule::{self, Head, Lane, Share, Slots},
    },
    job::JobStatus,
    testing::history::Text,
};

/// Workers, each with this many slots.
const WORKERS: usize = 3;
const SLOTS: u32 = 2;
const SHARES: usize = 5;

#[derive(Default)]
struct Job {
    share: usize,
    status: Option<JobStatus>,
    tries: u32,
    /// Fence, worker, whether it has begun, the running task.
    lease: Option<(Fence, usize, bool, Option<usize>)>,
    /// How many of its tasks have ended.
    done: usize,
    logs: BTreeMap<String, Vec<u8>>,
}

const TASKS: [&str; 2] = ["build", "check"];

pub(super) struct Farm {
    now: u64,
    entries: Vec<Entry>,
    jobs: Vec<Job>,
    turns: [i64; SHARES],
    fence: i64,
    lines: u32,
}

/// What happens when somebody decides so.
pub(super) fn history(choices: &[u8]) -> History {
    let mut farm = Farm {
        now: 0,
        entries: Vec::new(),
        jobs: Vec::new(),
        turns: [0; SHARES],
        fence: 0,
        lines: 0,
    };
    for choice in choices {
        farm.step(choice % 16, usize::from(choice / 16));
    }
    farm.finish();
    History::new(farm.entries)
}

impl Farm {
    fn say(&mut self, event: Event) -> u64 {
        self.now += 1000;
        self.entries.push(Entry {
            at: self.now,
            event,
        });
        self.now
    }

    fn step(&mut self, what: u8, which: usize) {
        let place = which % self.jobs.len().max(1);
        match what {
            0..5 => self.submit(which % SHARES),
            5..8 => self.assign(),
            _ if self.jobs.is_empty() => {}
            8..12 => self.work(place),
            12 => self.lose(place),
            13 => self.cancel(place),
            14 => self.seen(place),
            _ => self.read(place),
        }
    }

    fn id(place: usize) -> JobId {
        JobId(i32::try_from(place).unwrap())
    }

    fn submit(&mut self, share: usize) {
        let place = self.jobs.len();
        let key = format!("key-{place}");
        self.jobs.push(Job {
            share,
            status: Some(JobStatus::Queued),
            ..Job::default()
        });
        let asked = self.say(Event::Submitted {
            key: key.clone(),
            share: format!("share-{share}"),
            kind: "any".to_owned(),
            tasks: TASKS.map(str::to_owned).to_vec(),
            expected: JobStatus::Success,
        });
        for _ in 0..=place % 2 {
            let job = Self::id(place);
            let key = key.clone();
            self.say(Event::Acknowledged { key, job, asked });
        }
    }

    fn assign(&mut self) {
        let image = OfferedImage {
            name: "dummy".to_owned(),
            arch: "x86_64".to_owned(),
            digest: "d".to_owned(),
            default: true,
        };
        let labels = Labels {
            images: vec![image],
            ..Labels::default()
        };
        let held = |worker| {
            let its = |job: &&Job| job.lease.is_some_and(|(_, its, ..)| its == worker);
            u32::try_from(self.jobs.iter().filter(its).count()).unwrap()
        };
        let slots: Vec<Slots> = (0..WORKERS)
            .map(|worker| Slots {
                session: SessionId::new([u8::try_from(worker).unwrap(); 16]),
                free: SLOTS - held(worker),
                labels: labels.clone(),
            })
            .collect();
        let (shares, lanes) = self.waiting();
        for given in schedule::assign(&slots, &shares, &lanes) {
            let worker = slots
                .iter()
                .position(|slots| slots.session == given.session);
            let place = usize::try_from(given.job.0).unwrap();
            self.fence += 1;
            let job = &mut self.jobs[place];
            job.tries += 1;
            job.status = Some(JobStatus::Running);
            job.lease = Some((Fence(self.fence), worker.unwrap(), false, None));
            self.turns[job.share] = self.fence;
            let (attempt, fence) = (job.tries, Fence(self.fence));
            self.say(Event::Claimed {
                job: given.job,
                fence,
                attempt,
                worker: format!("worker-{}", worker.unwrap()),
            });
        }
    }

    fn waiting(&self) -> (Vec<Share>, Vec<Lane>) {
        let of = |share: usize, status: JobStatus| {
            let its =
                move |job: &&(usize, &Job)| job.1.share == share && job.1.status == Some(status);
            let all: Vec<(usize, &Job)> = self.jobs.iter().enumerate().collect();
            all.iter()
                .filter(its)
                .map(|(place, _)| *place)
                .collect::<Vec<_>>()
        };
        let id = |share: usize| ShareId(i64::try_from(share).unwrap());
        let shares = (0..SHARES).map(|share| Share {
            id: id(share),
            running: u32::try_from(of(share, JobStatus::Running).len()).unwrap(),
            cap: None,
            turn: self.turns[share],
        });
        let lanes = (0..SHARES).map(|share| Lane {
            share: id(share),
            requirements: Requirements {
                image: "dummy".to_owned(),
                arch: None,
                labels: BTreeMap::new(),
            },
            heads: of(share, JobStatus::Queued)
                .into_iter()
                .map(|place| Head {
                    job: Self::id(place),
                    priority: 0,
                    since: i64::try_from(place).unwrap(),
                })
                .collect(),
        });
        (shares.collect(), lanes.collect())
    }

    /// The next thing that a worker does in a job.
    fn work(&mut self, place: usize) {
        let Some((fence, worker, begun, task)) = self.jobs[place].lease else {
            return;
        };
        let (id, done) = (Self::id(place), self.jobs[place].done);
        let asked = self.now;
        self.append(place, fence, "");
        match (begun, task) {
            (false, _) => {
                self.say(Event::Begun {
                    job: id,
                    fence,
                    asked,
                });
                self.jobs[place].lease = Some((fence, worker, true, None));
            }
            (true, None) if done == TASKS.len() => {
                let status = JobStatus::Success;
                self.say(Event::Ended {
                    job: id,
                    fence,
                    status,
                    asked,
                });
                self.release(place, status);
            }
            (true, None) => {
                let task = TASKS[done].to_owned();
                self.say(Event::TaskStarted {
                    job: id,
                    fence,
                    task,
                });
                self.jobs[place].lease = Some((fence, worker, true, Some(done)));
            }
            (true, Some(running)) => {
                let task = TASKS[running];
                let line = self.append(place, fence, task);
                let task = task.to_owned();
                self.say(Event::Produced {
                    job: id,
                    fence,
                    task: task.clone(),
                    bytes: line,
                });
                self.say(Event::TaskEnded {
                    job: id,
                    fence,
                    task,
                });
                self.jobs[place].done += 1;
                self.jobs[place].lease = Some((fence, worker, true, None));
            }
        }
    }

    /// A line that is no other's.
    fn append(&mut self, place: usize, fence: Fence, task: &str) -> Text {
        self.lines += 1;
        let bytes = Text(format!("line {}\n", self.lines).into_bytes());
        let log = self.jobs[place].logs.entry(task.to_owned()).or_default();
        let offset = log.len() as u64;
        log.extend_from_slice(&bytes.0);
        let asked = self.now;
        self.say(Event::Stored {
            job: Self::id(place),
            fence,
            task: task.to_owned(),
            offset,
            bytes: bytes.clone(),
            asked,
        });
        bytes
    }

    fn release(&mut self, place: usize, status: JobStatus) {
        let job = &mut self.jobs[place];
        job.status = Some(status);
        if let Some((fence, ..)) = job.lease.take() {
            let job = Self::id(place);
            self.say(Event::Released { job, fence });
        }
    }

    fn lose(&mut self, place: usize) {
        let Some((_, worker, begun, _)) = self.jobs[place].lease else {
            return;
        };
        let fault = u32::try_from(self.now).unwrap();
        self.say(Event::FaultBegan {
            fault,
            what: "kill".to_owned(),
            touches: vec![format!("worker-{worker}")],
        });
        self.say(Event::FaultEnded { fault });
        let next = lease::lost(begun, self.jobs[place].tries);
        self.release(place, next.status);
    }

    fn cancel(&mut self, place: usize) {
        if self.jobs[place].status.is_some_and(JobStatus::is_terminal) {
            return;
        }
        let job = Self::id(place);
        self.say(Event::CancelAsked { job });
        self.release(place, JobStatus::Cancelled);
        self.say(Event::Cancelled { job });
    }

    fn seen(&mut self, place: usize) {
        let (job, status, asked) = (Self::id(place), self.jobs[place].status, self.now);
        self.say(Event::Seen { job, status, asked });
    }

    fn read(&mut self, place: usize) {
        for (task, text) in self.jobs[place].logs.clone() {
            let from = text.len() / 3;
            self.say(Event::Read {
                job: Self::id(place),
                task,
                offset: from as u64,
                bytes: Text(text[from..].to_vec()),
            });
        }
    }

    fn finish(&mut self) {
        self.say(Event::FaultsOver);
        let is_over = |job: &Job| job.status.is_some_and(JobStatus::is_terminal);
        while !self.jobs.iter().all(is_over) {
            self.assign();
            for place in 0..self.jobs.len() {
                self.work(place);
            }
        }
        for place in 0..self.jobs.len() {
            self.seen(place);
            let job = Self::id(place);
            let key = format!("key-{place}");
            self.say(Event::Listed { key, job });
            for (task, text) in self.jobs[place].logs.clone() {
                let bytes = Text(text);
                self.say(Event::ReadWhole { job, task, bytes });
            }
        }
    }
}
