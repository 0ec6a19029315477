//! What goes wrong, as the plan says.

use super::{
    SECOND, SERVERS, Sim,
    plan::{Fault, Kind},
    socket,
    world::{Due, Weather, What, Who},
};
use crate::testing::history::Event;

impl Sim {
    pub fn fault(&mut self, place: usize) {
        let fault = self.faults[place].clone();
        self.world.say(Event::FaultBegan {
            fault: fault.number,
            what: format!("{:?}", fault.kind),
            touches: fault.touches(),
        });
        let until = fault.until;
        match fault.kind {
            Kind::KillServer => {
                self.kill_server(fault.server);
                self.world
                    .put(until, Due::new(Who::Server(fault.server), What::Starts));
            }
            Kind::FreezeServer => self.servers[fault.server].process.frozen = until,
            Kind::KillWorker => {
                self.kill_worker(fault.worker);
                self.world
                    .put(until, Due::new(Who::Worker(fault.worker), What::Starts));
            }
            Kind::FreezeWorker => self.workers[fault.worker].process.frozen = until,
            Kind::DrainWorker => self.drain(fault.worker),
            Kind::DatabaseAway => self.world.away = until,
            Kind::DatabaseErrs => self.world.errs = until,
            Kind::NoDatabase => self.servers[fault.server].is_cut_off = true,
            Kind::ClockAhead => self.world.clock = fault.amount,
            Kind::ClockBehind => self.world.clock = -fault.amount,
            Kind::Hole | Kind::Cut | Kind::CutWorker => self.weather(&fault),
        }
        let ends = Due::new(Who::World, What::FaultEnds(place));
        self.world.put(until, ends);
    }

    fn weather(&mut self, fault: &Fault) {
        let servers = match fault.kind {
            Kind::CutWorker => 0..SERVERS,
            _ => fault.server..fault.server + 1,
        };
        let weather = match fault.kind {
            Kind::Hole => Weather::Hole(fault.until),
            _ => Weather::Cut,
        };
        for server in servers {
            self.world.weather.insert((fault.worker, server), weather);
            if weather == Weather::Cut {
                self.break_sockets(|socket| socket.is_between(fault.worker, server));
            }
        }
    }

    pub fn fault_ends(&mut self, place: usize) {
        let fault = self.faults[place].clone();
        match fault.kind {
            Kind::NoDatabase => self.servers[fault.server].is_cut_off = false,
            Kind::ClockAhead | Kind::ClockBehind => self.world.clock = 0,
            Kind::Hole | Kind::Cut | Kind::CutWorker => {
                self.world
                    .weather
                    .retain(|(worker, _), _| *worker != fault.worker);
            }
            _ => {}
        }
        let fault = fault.number;
        self.world.say(Event::FaultEnded { fault });
        self.going.remove(&fault);
        if self.going.is_empty() {
            self.world.say(Event::FaultsOver);
            self.world.over = Some(self.world.now);
        }
    }

    fn kill_server(&mut self, place: usize) {
        self.servers[place].kill();
        self.break_sockets(|socket| socket.server == place);
    }

    /// Ends these connections; each end notices soon.
    fn break_sockets(&mut self, which: impl Fn(&socket::Socket) -> bool) {
        for place in 0..self.workers.len() {
            let socket = self.workers[place].socket.as_ref();
            if let Some(socket) = socket.filter(|socket| which(socket)) {
                let (id, server) = (socket.id, socket.server);
                self.servers[server].seats.remove(&id);
                self.tell_worker(place, SECOND / 100, super::worker::What::Breaks(id));
            }
        }
    }
}
