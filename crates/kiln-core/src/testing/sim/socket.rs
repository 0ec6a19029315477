//! A worker's socket, and what goes over it: both ends.

use std::collections::BTreeSet;

use super::{
    SECOND, SLOTS, Sim, server, worker,
    world::{Due, What, Who},
};
use crate::farm::{Fence, JobId, SessionId, limits};

/// After so long without a word each end leaves: three renewals.
pub(super) const SILENCE: u64 = limits::SILENT_SECONDS * SECOND;

/// What a worker says.
#[derive(Debug, Clone)]
pub(super) enum Up {
    Hello(Vec<Fence>),
    Renew(Vec<Fence>),
    Ready(bool),
    /// The process has ended: its host says so after all that it had sent.
    End,
}

/// What a server says.
#[derive(Debug, Clone)]
pub(super) enum Down {
    Welcome(Vec<Fence>),
    Renewed(Vec<Fence>),
    Cancel(Fence),
    Offer(Fence, JobId, usize),
    /// The server ends the connection.
    Close,
}

/// The worker's end.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    pub id: u64,
    worker: usize,
    pub server: usize,
    pub welcome: bool,
    /// When the server said something last.
    pub heard: u64,
    /// When what was sent last comes, each way: nothing overtakes.
    last: u64,
}

impl Socket {
    pub fn new(id: u64, worker: usize, server: usize, now: u64) -> Self {
        Self {
            id,
            worker,
            server,
            welcome: false,
            heard: now,
            last: now,
        }
    }

    pub fn is_between(&self, worker: usize, server: usize) -> bool {
        self.worker == worker && self.server == server
    }
}

/// The server's end.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub worker: usize,
    pub session: SessionId,
    /// By which it speaks for the session; none before the hello was taken.
    pub voice: Option<u64>,
    /// The leases of which the worker knows.
    known: BTreeSet<Fence>,
    heard: u64,
    last: u64,
    /// When what was heard last is done: one after the other.
    done: u64,
}

impl Seat {
    pub fn new(worker: usize, session: SessionId, now: u64) -> Self {
        Self {
            worker,
            session,
            voice: None,
            known: BTreeSet::new(),
            heard: now,
            last: now,
            done: now,
        }
    }
}

impl Sim {
    /// A worker says something over its socket.
    pub fn say_up(&mut self, place: usize, message: Up) {
        let Some(socket) = self.workers[place].socket.clone() else {
            return;
        };
        let Some(wait) = self.world.pipe(place, socket.server) else {
            return;
        };
        let at = (self.world.now + wait).max(socket.last + 1);
        if let Some(socket) = &mut self.workers[place].socket {
            socket.last = at;
        }
        let life = Some(self.servers[socket.server].process.life);
        let what = What::Server(server::What::Up(socket.id, message));
        let to = Who::Server(socket.server);
        self.world.put(at, Due { to, life, what });
    }

    /// A server says something to a worker.
    pub fn say_down(&mut self, server: usize, id: u64, message: Down) {
        let Some(seat) = self.servers[server].seats.get(&id) else {
            return;
        };
        let (worker, last) = (seat.worker, seat.last);
        let Some(wait) = self.world.pipe(worker, server) else {
            return;
        };
        let at = (self.world.now + wait).max(last + 1);
        if let Some(seat) = self.servers[server].seats.get_mut(&id) {
            seat.last = at;
        }
        let life = Some(self.workers[worker].process.life);
        let what = What::Worker(worker::What::Down(id, message));
        let to = Who::Worker(worker);
        self.world.put(at, Due { to, life, what });
    }

    /// A worker has said something: the server does it by the database a little later.
    pub fn heard_up(&mut self, place: usize, id: u64, message: Up) {
        if let Some(seat) = self.servers[place].seats.get_mut(&id) {
            let now = self.world.now;
            seat.heard = now;
            seat.done = (now + self.world.soon()).max(seat.done + 1);
            let wait = seat.done - now;
            self.tell_server(place, wait, server::What::Does(id, message));
        }
    }

    pub fn does(&mut self, place: usize, id: u64, message: &Up) {
        let Some(seat) = self.servers[place].seats.get(&id).cloned() else {
            return;
        };
        let now = self.world.database_now();
        match message {
            Up::End => {
                self.servers[place].seats.remove(&id);
            }
            _ if !self.reaches(place) => self.leaves_undone(place, id, message),
            Up::Hello(leases) => {
                let who = (seat.worker, SLOTS);
                let (lost, voice) = self.database.hello(&seat.session, who, leases, now);
                if let Some(seat) = self.servers[place].seats.get_mut(&id) {
                    seat.voice = Some(voice);
                    seat.known = leases.iter().copied().collect();
                    seat.known.retain(|fence| !lost.contains(fence));
                }
                self.say_down(place, id, Down::Welcome(lost));
            }
            Up::Renew(leases) => {
                let lost = self.database.renew(&seat.session, leases, now);
                if let Some(seat) = self.servers[place].seats.get_mut(&id) {
                    seat.known.retain(|fence| !lost.contains(fence));
                }
                self.say_down(place, id, Down::Renewed(lost));
            }
            Up::Ready(ready) => self.database.set_ready(&seat.session, *ready, now),
        }
    }

    /// A hello is refused then; whatever else is not answered comes again.
    fn leaves_undone(&mut self, place: usize, id: u64, message: &Up) {
        match message {
            Up::Hello(_) => self.close(place, id),
            Up::Renew(_) => self.servers[place].reception.broke_off(),
            Up::Ready(_) | Up::End => {}
        }
    }

    /// Tells all sessions here what is new of their leases, and leaves those that are silent.
    pub fn tell(&mut self, place: usize) {
        let seats: Vec<u64> = self.servers[place].seats.keys().copied().collect();
        for id in seats {
            let Some(seat) = self.servers[place].seats.get(&id).cloned() else {
                continue;
            };
            let Some(voice) = seat.voice else {
                continue;
            };
            if self.world.now > seat.heard + SILENCE {
                self.close(place, id);
            } else if self.reaches(place) {
                self.tell_one(place, id, &seat, voice);
            }
        }
    }

    fn tell_one(&mut self, place: usize, id: u64, seat: &Seat, voice: u64) {
        let there = self.database.leases(&seat.session);
        for fence in seat.known.difference(&there) {
            self.say_down(place, id, Down::Cancel(*fence));
        }
        let mut known: BTreeSet<Fence> = seat.known.intersection(&there).copied().collect();
        for fence in there.difference(&seat.known) {
            match self.database.offer(*fence, voice) {
                Ok(Some((job, planned))) => {
                    known.insert(*fence);
                    self.say_down(place, id, Down::Offer(*fence, job, planned));
                }
                // Another voice speaks for the session.
                Ok(None) => return self.close(place, id),
                Err(_) => {}
            }
        }
        if let Some(seat) = self.servers[place].seats.get_mut(&id) {
            seat.known = known;
        }
    }

    fn close(&mut self, place: usize, id: u64) {
        self.say_down(place, id, Down::Close);
        self.servers[place].seats.remove(&id);
    }
}
