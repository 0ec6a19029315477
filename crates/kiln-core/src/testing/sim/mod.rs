//! A farm under a simulated clock: two servers with one database, four workers, clients of
//! eight owners, and faults. One seed decides all of it, so what happens happens again, bit
//! for bit.
//!
//! | module | what |
//! |---|---|
//! | `plan` | jobs and faults |
//! | `world` | the clock, and what is on its way |
//! | `database` | the truth, each operation in one moment |
//! | `server`, `socket` | a server: requests and passes; the other end of a worker's socket |
//! | `worker`, `guest` | a worker: its socket, its reports; what runs in its guests |
//! | `client` | who submits, cancels, looks, reads |
//! | `faults` | what goes wrong |
//!
//! What decides is [`crate::farm`], as in a real farm: schedule, leases, reports, reception.
//! Around it is what moves messages, in as few words as it takes. The real farm has more: an
//! object store, a bus, artifacts, the two engines. `crates/kiln/tests/chaos` runs that.
//!
//! Who sees what happens is in one place with it, so all moments of the history are exact.

mod client;
mod database;
mod faults;
mod guest;
mod plan;
mod server;
mod socket;
mod worker;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    checker::Promises,
    history::{Entry, Event, History},
    random::Random,
};
use client::Client;
use database::Database;
use plan::{Fault, Planned};
use server::Server;
use worker::Worker;
use world::{Due, Who, World};

/// Microseconds.
const SECOND: u64 = 1_000_000;
const MILLISECOND: u64 = 1000;
const SERVERS: usize = 2;
const WORKERS: usize = 4;
/// Of a worker.
const SLOTS: u32 = 2;

/// What this farm promises.
pub const PROMISES: Promises = Promises {
    // All that happens in one transaction has its order here.
    turns: 1,
    settle: 180 * SECOND,
    aftermath: 35 * SECOND,
};

/// A farm that does something wrong, to see that the checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// A submission that is repeated makes another job.
    KeysForgotten,
    /// For some seconds a server answers what was true before.
    AnswersStale,
    /// The cancel of a running job is acknowledged, and no more.
    CancelsForgotten,
    /// A lease that has ended is taken for one that has not.
    FencesForgotten,
    /// A job that had begun goes back to the queue.
    BegunForgotten,
    /// The oldest job is next, whosever it is.
    SharesForgotten,
    /// An append goes to a log's end, wherever it belongs.
    OffsetsForgotten,
    /// A piece of a log is acknowledged, and stored afterwards.
    StoredLate,
    /// Leases end although renewals could not be received.
    ReapedEarly,
    /// What the reaper saw when it looked is believed of the moment in which it reaps.
    LookBelieved,
    /// The first task starts without waiting for `begun`.
    StartedEarly,
    /// A worker does not hear that a lease has ended.
    LeaseBelieved,
}

/// What a seed made.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What happened.
    pub history: History,
    /// How many jobs were submitted.
    pub jobs: usize,
    /// The faults, by kind.
    pub faults: BTreeMap<String, u32>,
}

/// The farm, and all around it.
struct Sim {
    world: World,
    broken: Option<Broken>,
    planned: Vec<Planned>,
    faults: Vec<Fault>,
    /// Those that have not ended.
    going: BTreeSet<u32>,
    database: Database,
    servers: Vec<Server>,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    /// Which servers the proxy takes for ready.
    ready: Vec<bool>,
}

/// Runs a farm, one that does something wrong if told so.
#[must_use]
pub fn run(seed: u64, broken: Option<Broken>) -> Ran {
    let mut random = Random::new(seed);
    let planned = plan::jobs(&mut random);
    let faults = plan::faults(&mut random);
    let cap = random.one_in(3).then_some(2);
    let mut sim = Sim {
        broken,
        database: Database::new(cap, broken),
        servers: (0..SERVERS).map(|_| Server::new(&mut random)).collect(),
        workers: (0..WORKERS).map(Worker::new).collect(),
        clients: planned.iter().map(|_| Client::default()).collect(),
        world: World::new(random),
        going: faults.iter().map(|fault| fault.number).collect(),
        ready: vec![true; SERVERS],
        planned,
        faults,
    };
    sim.begin();
    sim.go_on();
    sim.look_at_the_end();
    sim.ran()
}

impl Sim {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn begin(&mut self) {
        for (place, fault) in self.faults.clone().into_iter().enumerate() {
            let due = |what| Due::new(Who::World, what);
            self.world.put(fault.at, due(world::What::Fault(place)));
        }
        for server in 0..SERVERS {
            self.start_server(server);
        }
        for worker in 0..WORKERS {
            self.start_worker(worker);
        }
        for (place, planned) in self.planned.iter().enumerate() {
            let what = world::What::Client(client::What::Submits);
            self.world
                .put(planned.at, Due::new(Who::Client(place), what));
        }
        self.world.put(0, Due::new(Who::World, world::What::Proxy));
    }

    /// Until nobody waits for anything, or for too long.
    fn go_on(&mut self) {
        let mut limit = u64::MAX;
        while self.world.now < limit && self.step() {
            if limit == u64::MAX
                && self.going.is_empty()
                && self.clients.iter().all(Client::is_done)
            {
                // Guests and answers on their way have so long to come to their ends.
                limit = self.world.now + 60 * SECOND;
            }
            let over = self.world.over.filter(|_| limit == u64::MAX);
            let last = self.planned.iter().map(|planned| planned.at).max();
            if over.max(last).is_some_and(|at| {
                over.is_some() && self.world.now > at + PROMISES.settle + 60 * SECOND
            }) {
                limit = self.world.now;
            }
        }
    }

    /// What there is when all is over.
    fn look_at_the_end(&mut self) {
        let listed: Vec<_> = self.database.listed().collect();
        for (job, planned) in listed {
            let key = self.planned[planned].key.clone();
            self.world.say(Event::Listed { key, job });
            let asked = self.world.now;
            let status = self.database.see(job, i64::MAX);
            self.world.say(Event::Seen { job, status, asked });
        }
        for ((job, task), log) in self.database.logs.clone() {
            let bytes = super::history::Text(log);
            self.world.say(Event::ReadWhole { job, task, bytes });
        }
        for (place, worker) in self.workers.iter().enumerate() {
            for fence in worker.guests() {
                let what = format!("a guest of fence {fence} at worker-{place}");
                self.world.say(Event::Left { what });
            }
        }
        let mut told = self.database.outbox.clone();
        told.sort_unstable();
        let ended = |job: &database::Job| job.status.is_terminal();
        let ended = self.database.jobs.iter().filter(|(_, job)| ended(job));
        if self.broken.is_none() && !ended.map(|(id, _)| id).eq(&told) {
            let what = "an outbox that does not tell of each end once".to_owned();
            self.world.say(Event::Left { what });
        }
    }

    fn ran(self) -> Ran {
        let mut faults = BTreeMap::new();
        for fault in &self.faults {
            *faults.entry(format!("{:?}", fault.kind)).or_default() += 1;
        }
        Ran {
            jobs: self.planned.len(),
            faults,
            history: History::new(self.world.entries),
        }
    }

    /// What the database saw.
    fn note(&mut self) {
        for event in std::mem::take(&mut self.database.saw) {
            self.world.say(event);
        }
    }
}

impl World {
    fn say(&mut self, event: Event) {
        let at = self.now;
        self.entries.push(Entry { at, event });
    }
}
