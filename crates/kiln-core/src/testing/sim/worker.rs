//! A worker: its socket, its leases, and what it reports until that is answered.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Broken, MILLISECOND, SECOND, Sim,
    database::Deed,
    guest::{Guest, Item, Last, Step},
    server::{Answer, From, Piece, Request},
    socket::{Down, SILENCE, Socket, Up},
    world::{Due, Process, What as Comes, Who},
};
use crate::{
    farm::{Fence, JobId, SessionId, limits},
    job::JobStatus,
};

/// How long a server may take to answer a hello.
const WELCOME: u64 = 5 * SECOND;
/// The waits before something is tried again: they double.
const LEAST: u64 = 200 * MILLISECOND;
const MOST: u64 = 10 * SECOND;

pub(super) struct Worker {
    pub process: Process,
    session: SessionId,
    pub socket: Option<Socket>,
    runs: BTreeMap<Fence, Run>,
    /// Leases that have ended, lest one is taken twice.
    ended: BTreeSet<Fence>,
    backoff: u64,
    draining: bool,
}

/// One lease.
pub(super) struct Run {
    pub guest: Guest,
    /// Where each log ends at the server, as far as that was told.
    ends: BTreeMap<String, u64>,
    open: BTreeMap<Slot, Open>,
}

/// What is asked side by side under a lease: one question of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Begun,
    /// What the spool has.
    Upload,
    Last,
}

/// A question that waits for its answer.
struct Open {
    call: u64,
    request: Request,
    backoff: u64,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Connects,
    Renews(u64),
    /// A hello had time enough.
    Welcomed(u64),
    Down(u64, Down),
    Breaks(u64),
    Guest(Fence, Step),
    /// A question is put again.
    Again(Fence, Slot),
    Hears(u64, Fence, Slot, Option<Answer>),
}

impl Worker {
    pub fn new(place: usize) -> Self {
        Self {
            process: Process::default(),
            session: SessionId::new([u8::try_from(place).unwrap_or_default(); 16]),
            socket: None,
            runs: BTreeMap::new(),
            ended: BTreeSet::new(),
            backoff: LEAST,
            draining: false,
        }
    }

    /// The leases that it believes to have.
    pub fn guests(&self) -> Vec<Fence> {
        self.runs.keys().copied().collect()
    }
}

impl Sim {
    pub fn start_worker(&mut self, place: usize) {
        let worker = &mut self.workers[place];
        worker.process.start();
        let mut random = [u8::try_from(place).unwrap_or_default(); 16];
        random[..4].copy_from_slice(&worker.process.life.to_le_bytes());
        worker.session = SessionId::new(random);
        worker.backoff = LEAST;
        worker.draining = false;
        worker.ended.clear();
        self.tell_worker(place, 0, What::Connects);
    }

    pub fn kill_worker(&mut self, place: usize) {
        self.say_up(place, Up::End);
        let worker = &mut self.workers[place];
        worker.process.kill();
        worker.runs.clear();
        worker.socket = None;
    }

    /// It takes no more jobs, and starts anew when it has none.
    pub fn drain(&mut self, place: usize) {
        if self.workers[place].process.up {
            self.workers[place].draining = true;
            self.say_up(place, Up::Ready(false));
            self.leaves(place);
        }
    }

    fn leaves(&mut self, place: usize) {
        let worker = &self.workers[place];
        if worker.draining && worker.runs.is_empty() {
            self.kill_worker(place);
            let wait = self.world.random.within(SECOND, 3 * SECOND);
            self.world
                .after(wait, Due::new(Who::Worker(place), Comes::Starts));
        }
    }

    pub fn tell_worker(&mut self, place: usize, wait: u64, what: What) {
        let life = Some(self.workers[place].process.life);
        let (to, what) = (Who::Worker(place), Comes::Worker(what));
        self.world.after(wait, Due { to, life, what });
    }

    pub fn worker(&mut self, place: usize, what: What) {
        let is_ours = |id: u64| {
            let socket = self.workers[place].socket.as_ref();
            socket.is_some_and(|socket| socket.id == id)
        };
        match what {
            What::Connects => self.connects(place),
            What::Renews(id) if is_ours(id) => self.renews(place),
            What::Welcomed(id) if is_ours(id) => {
                let socket = self.workers[place].socket.as_ref();
                if socket.is_some_and(|socket| !socket.welcome) {
                    self.disconnects(place);
                }
            }
            What::Breaks(id) if is_ours(id) => self.disconnects(place),
            What::Down(id, message) if is_ours(id) => self.heeds(place, message),
            What::Guest(fence, step) => self.guest(place, fence, step),
            What::Again(fence, slot) => self.again(place, fence, slot),
            What::Hears(call, fence, slot, answer) => {
                self.worker_hears(place, call, fence, slot, answer);
            }
            _ => {}
        }
    }

    fn connects(&mut self, place: usize) {
        if self.workers[place].socket.is_some() {
            return;
        }
        let server = self.proxied();
        let now = self.world.now;
        let server = server.filter(|server| {
            let cut = self.world.weather.get(&(place, *server));
            self.servers[*server].process.up && cut != Some(&super::world::Weather::Cut)
        });
        let Some(server) = server else {
            return self.connects_later(place);
        };
        let id = self.world.unique();
        let socket = Socket::new(id, place, server, now);
        let seat = super::socket::Seat::new(place, self.workers[place].session.clone(), now);
        self.servers[server].seats.insert(id, seat);
        self.workers[place].socket = Some(socket);
        self.say_up(place, Up::Hello(self.workers[place].guests()));
        self.tell_worker(place, WELCOME, What::Welcomed(id));
    }

    fn connects_later(&mut self, place: usize) {
        let backoff = &mut self.workers[place].backoff;
        let wait = waits(backoff, &mut self.world);
        self.tell_worker(place, wait, What::Connects);
    }

    fn disconnects(&mut self, place: usize) {
        // The server is not told: it hears nothing more.
        self.workers[place].socket = None;
        self.connects_later(place);
    }

    fn renews(&mut self, place: usize) {
        let Some(socket) = &self.workers[place].socket else {
            return;
        };
        let id = socket.id;
        if self.world.now - socket.heard > SILENCE {
            return self.disconnects(place);
        }
        self.say_up(place, Up::Renew(self.workers[place].guests()));
        let every = limits::RENEW_SECONDS * SECOND;
        self.tell_worker(place, every, What::Renews(id));
    }

    /// Does what the server says.
    fn heeds(&mut self, place: usize, message: Down) {
        let prolongs = matches!(message, Down::Welcome(_) | Down::Renewed(_));
        if let Some(socket) = &mut self.workers[place].socket
            && prolongs
        {
            socket.heard = self.world.now;
        }
        match message {
            Down::Welcome(lost) => {
                let worker = &mut self.workers[place];
                worker.backoff = LEAST;
                let ready = !worker.draining;
                if let Some(socket) = &mut worker.socket {
                    socket.welcome = true;
                    let id = socket.id;
                    self.tell_worker(place, 0, What::Renews(id));
                }
                self.say_up(place, Up::Ready(ready));
                self.loses(place, &lost);
            }
            Down::Renewed(lost) => self.loses(place, &lost),
            Down::Cancel(fence) => self.loses(place, &[fence]),
            Down::Offer(fence, job, planned) => self.takes(place, fence, job, planned),
            Down::Close => self.disconnects(place),
        }
    }

    fn takes(&mut self, place: usize, fence: Fence, job: JobId, planned: usize) {
        let worker = &mut self.workers[place];
        if worker.runs.contains_key(&fence) || worker.ended.contains(&fence) {
            return;
        }
        let tasks = self.planned[planned].tasks.len();
        let mut guest = Guest::new(job, planned, tasks);
        if worker.draining {
            guest.last = Some(Last::Return { counts: false });
        }
        let run = Run {
            guest,
            ends: BTreeMap::new(),
            open: BTreeMap::new(),
        };
        worker.runs.insert(fence, run);
        if self.workers[place].draining {
            return self.uploads(place, fence);
        }
        let wait = self.world.random.within(300 * MILLISECOND, 6 * SECOND);
        self.tell_worker(place, wait, What::Guest(fence, Step::Starts));
        let deadline = self.planned[planned].deadline * SECOND;
        self.tell_worker(place, deadline, What::Guest(fence, Step::Deadline));
    }

    /// These leases are not its own any more: their guests go, and nothing more is said.
    fn loses(&mut self, place: usize, lost: &[Fence]) {
        if self.is(Broken::LeaseBelieved) {
            return;
        }
        for fence in lost {
            self.ends(place, *fence);
        }
    }

    fn ends(&mut self, place: usize, fence: Fence) {
        let worker = &mut self.workers[place];
        if worker.runs.remove(&fence).is_some() {
            worker.ended.insert(fence);
        }
        self.leaves(place);
    }

    pub fn run_of(&mut self, place: usize, fence: Fence) -> Option<&mut Run> {
        self.workers[place].runs.get_mut(&fence)
    }

    /// Asks under a lease until there is an answer.
    pub fn reports(&mut self, place: usize, fence: Fence, slot: Slot, deed: Deed) {
        let session = self.workers[place].session.clone();
        self.puts(place, fence, slot, Request::Report(session, fence, deed));
    }

    fn puts(&mut self, place: usize, fence: Fence, slot: Slot, request: Request) {
        let life = self.workers[place].process.life;
        let from = From::Report(place, life, fence, slot);
        let call = self.asks(from, request.clone());
        if let Some(run) = self.run_of(place, fence) {
            let backoff = LEAST;
            let open = Open {
                call,
                request,
                backoff,
            };
            run.open.insert(slot, open);
        }
    }

    fn again(&mut self, place: usize, fence: Fence, slot: Slot) {
        let life = self.workers[place].process.life;
        let open = self
            .run_of(place, fence)
            .and_then(|run| run.open.get(&slot));
        let Some(request) = open.map(|open| open.request.clone()) else {
            return;
        };
        let call = self.asks(From::Report(place, life, fence, slot), request);
        let run = self.run_of(place, fence);
        if let Some(open) = run.and_then(|run| run.open.get_mut(&slot)) {
            open.call = call;
        }
    }

    fn worker_hears(
        &mut self,
        place: usize,
        call: u64,
        fence: Fence,
        slot: Slot,
        answer: Option<Answer>,
    ) {
        let worker = &mut self.workers[place];
        let Some(run) = worker.runs.get_mut(&fence) else {
            return;
        };
        let Some(open) = run.open.get_mut(&slot).filter(|open| open.call == call) else {
            return;
        };
        let Some(answer) = answer else {
            // Whatever is still heard of this question is too late.
            open.call = 0;
            let wait = waits(&mut open.backoff, &mut self.world);
            return self.tell_worker(place, wait, What::Again(fence, slot));
        };
        let request = run.open.remove(&slot).map(|open| open.request);
        match (slot, answer) {
            (_, Answer::Lost) => self.loses(place, &[fence]),
            (Slot::Begun, Answer::Done) => self.begins(place, fence),
            (Slot::Last, _) => self.ends(place, fence),
            (Slot::Upload, Answer::Stored(end)) => {
                if let Some(Request::Log(_, _, piece)) = request {
                    self.stored(place, fence, &piece, end);
                }
            }
            (Slot::Upload, Answer::Done) => {
                run.guest.spool.pop_front();
                self.uploads(place, fence);
            }
            (Slot::Upload, _) if matches!(request, Some(Request::Report(..))) => {
                // The job's end says all that matters once more.
                run.guest.spool.pop_front();
                self.uploads(place, fence);
            }
            _ => self.fails(place, fence),
        }
    }

    /// Some of its log can't be stored.
    fn fails(&mut self, place: usize, fence: Fence) {
        if let Some(run) = self.run_of(place, fence) {
            run.guest.fails();
            self.uploads(place, fence);
        }
    }

    /// The server has so much of a log.
    fn stored(&mut self, place: usize, fence: Fence, piece: &Piece, end: u64) {
        let Some(run) = self.run_of(place, fence) else {
            return;
        };
        if !piece.bytes.is_empty() {
            let Some(taken) = end.checked_sub(piece.offset) else {
                return self.fails(place, fence);
            };
            let taken = usize::try_from(taken).unwrap_or(usize::MAX);
            run.guest.taken(taken.min(piece.bytes.len()));
        }
        run.ends.insert(piece.task.clone(), end);
        self.uploads(place, fence);
    }

    /// Sends what comes first, if nothing is on its way; after all of it the last word.
    pub fn uploads(&mut self, place: usize, fence: Fence) {
        let session = self.workers[place].session.clone();
        let Some(run) = self.run_of(place, fence) else {
            return;
        };
        if run.open.contains_key(&Slot::Upload) {
            return;
        }
        let Some(front) = run.guest.front() else {
            return self.says_last(place, fence);
        };
        let request = match front {
            Item::Event(task, status) => Request::Report(session, fence, Deed::Task(task, status)),
            Item::Log(task, bytes) => {
                let known = run.ends.get(&task).copied();
                // No bytes at all ask where it ends.
                let bytes = if known.is_some() { bytes } else { Vec::new() };
                let piece = Piece {
                    offset: known.unwrap_or_default(),
                    task,
                    bytes,
                };
                Request::Log(session, fence, piece)
            }
        };
        self.puts(place, fence, Slot::Upload, request);
    }

    fn says_last(&mut self, place: usize, fence: Fence) {
        let Some(run) = self.run_of(place, fence) else {
            return;
        };
        let Some(last) = run
            .guest
            .last
            .filter(|_| !run.open.contains_key(&Slot::Last))
        else {
            return;
        };
        let (planned, statuses) = (run.guest.planned, run.guest.tasks.clone());
        let names = self.planned[planned].tasks.iter();
        let names = names.map(|task| task.name.to_owned());
        let deed = match last {
            Last::End(status) => Deed::End(status, names.zip(statuses).collect()),
            Last::Return { counts } => Deed::Return { counts },
        };
        self.reports(place, fence, Slot::Last, deed);
    }
}

impl Run {
    /// Whether the guest has come to an end that is told.
    pub fn is_over(&self) -> bool {
        self.guest.last.is_some()
    }
}

impl Guest {
    fn fails(&mut self) {
        self.last = Some(Last::End(JobStatus::Failed));
        self.spool.clear();
    }
}

/// The next wait.
fn waits(backoff: &mut u64, world: &mut super::World) -> u64 {
    let wait = *backoff;
    *backoff = (wait * 2).min(MOST);
    world.random.within(wait / 2, wait)
}
