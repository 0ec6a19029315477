//! The clock, what is on its way to whom, and how long that takes.

use std::collections::BTreeMap;

use super::{MILLISECOND, SECOND, Sim, client, server, worker};
use crate::testing::{history::Entry, random::Random};

/// To whom something comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Server(usize),
    Worker(usize),
    Client(usize),
    World,
}

/// What comes.
#[derive(Debug, Clone)]
pub(super) enum What {
    Server(server::What),
    Worker(worker::What),
    Client(client::What),
    /// A fault begins.
    Fault(usize),
    /// It ends.
    FaultEnds(usize),
    /// The proxy asks who is ready.
    Proxy,
    /// Somebody that had ended starts again.
    Starts,
}

/// Something that happens at its moment.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub to: Who,
    /// Which start of it is meant; none when any will do.
    pub life: Option<u32>,
    pub what: What,
}

impl Due {
    pub fn new(to: Who, what: What) -> Self {
        let life = None;
        Self { to, life, what }
    }
}

/// A process, as far as faults go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Process {
    pub up: bool,
    /// New at each start.
    pub life: u32,
    /// It stands still until then.
    pub frozen: u64,
}

impl Process {
    pub fn start(&mut self) {
        self.up = true;
        self.life += 1;
    }

    pub fn kill(&mut self) {
        self.up = false;
        self.frozen = 0;
    }
}

/// What is between a worker and a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// What is sent comes when that is over.
    Hole(u64),
    /// It never comes.
    Cut,
}

pub(super) struct World {
    pub now: u64,
    queue: BTreeMap<(u64, u64), Due>,
    number: u64,
    pub random: Random,
    pub entries: Vec<Entry>,
    /// By worker and server.
    pub weather: BTreeMap<(usize, usize), Weather>,
    /// When the last fault was over.
    pub over: Option<u64>,
    /// Nobody reaches the database until then.
    pub away: u64,
    /// It errs until then.
    pub errs: u64,
    /// By how much its clock is off.
    pub clock: i64,
}

impl World {
    pub fn new(random: Random) -> Self {
        Self {
            now: 0,
            queue: BTreeMap::new(),
            number: 0,
            random,
            entries: Vec::new(),
            weather: BTreeMap::new(),
            over: None,
            away: 0,
            errs: 0,
            clock: 0,
        }
    }

    /// A number that nothing else has.
    pub fn unique(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub fn put(&mut self, at: u64, due: Due) {
        let number = self.unique();
        self.queue.insert((at.max(self.now), number), due);
    }

    /// The same, from now on.
    pub fn after(&mut self, wait: u64, due: Due) {
        self.put(self.now + wait, due);
    }

    fn next(&mut self) -> Option<Due> {
        let ((at, _), due) = self.queue.pop_first()?;
        self.now = at;
        Some(due)
    }

    /// What the database's clock says.
    pub fn database_now(&self) -> i64 {
        // The farm was made in 1970, and not at its first moment.
        i64::try_from(self.now + 1000 * SECOND).unwrap_or(i64::MAX) + self.clock
    }

    /// A short while.
    pub fn soon(&mut self) -> u64 {
        self.random.within(MILLISECOND / 5, 20 * MILLISECOND)
    }

    /// How long bytes of a connection take; none when they never come.
    pub fn pipe(&mut self, worker: usize, server: usize) -> Option<u64> {
        let mut wait = self.soon();
        if self.random.one_in(40) {
            wait += self.random.within(0, 3 * SECOND);
        }
        match self.weather.get(&(worker, server)) {
            None => Some(wait),
            Some(Weather::Hole(until)) => Some(wait + until.saturating_sub(self.now)),
            Some(Weather::Cut) => None,
        }
    }

    /// How long a request or an answer takes that has a connection of its own; none when it
    /// never comes: that some don't is a fault too, and ends with the others.
    pub fn travel(&mut self, worker: Option<usize>, server: usize) -> Option<u64> {
        let wait = match worker {
            Some(worker) => self.pipe(worker, server)?,
            None => self.soon(),
        };
        if self.over.is_some() {
            return Some(wait);
        }
        match self.random.within(0, 300) {
            0..2 => None,
            2..4 => Some(wait + self.random.within(SECOND, 50 * SECOND)),
            _ => Some(wait),
        }
    }
}

impl Sim {
    /// The next thing happens; false when there is none.
    pub fn step(&mut self) -> bool {
        let Some(due) = self.world.next() else {
            return false;
        };
        let process = match due.to {
            Who::Server(place) => self.servers[place].process,
            Who::Worker(place) => self.workers[place].process,
            Who::Client(_) | Who::World => {
                self.happens(due);
                return true;
            }
        };
        if matches!(due.what, What::Starts) {
            self.happens(due);
        } else if !process.up || due.life.is_some_and(|life| life != process.life) {
            self.is_lost(due);
        } else if process.frozen > self.world.now {
            self.world.put(process.frozen, due);
        } else {
            self.happens(due);
            self.note();
        }
        true
    }

    fn happens(&mut self, due: Due) {
        match (due.to, due.what) {
            (Who::Server(place), What::Server(what)) => self.server(place, what),
            (Who::Worker(place), What::Worker(what)) => self.worker(place, what),
            (Who::Client(place), What::Client(what)) => self.client(place, what),
            (Who::Server(place), What::Starts) => self.start_server(place),
            (Who::Worker(place), What::Starts) => self.start_worker(place),
            (_, What::Fault(place)) => self.fault(place),
            (_, What::FaultEnds(place)) => self.fault_ends(place),
            (_, What::Proxy) => self.proxy(),
            _ => {}
        }
    }

    /// It came to somebody who is not there any more: whoever waits for an answer hears so.
    fn is_lost(&mut self, due: Due) {
        if let What::Server(what) = due.what
            && let Some(call) = what.call()
        {
            let wait = self.world.soon();
            self.hears(call, wait, None);
        }
    }

    /// Asks each server whether it is ready, every two seconds.
    fn proxy(&mut self) {
        for place in 0..self.servers.len() {
            let server = &self.servers[place];
            let runs = server.process.up && server.process.frozen <= self.world.now;
            self.ready[place] = runs && self.world.away <= self.world.now && !server.is_cut_off;
        }
        self.world
            .after(2 * SECOND, Due::new(Who::World, What::Proxy));
    }

    /// A server for somebody who comes to the proxy.
    pub fn proxied(&mut self) -> Option<usize> {
        let ready = |place: &usize| self.ready[*place];
        let ready: Vec<usize> = (0..self.servers.len()).filter(ready).collect();
        (!ready.is_empty()).then(|| *self.world.random.one_of(&ready))
    }
}
