//! A server: requests, each in some steps with time between them, and the passes.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Broken, MILLISECOND, SECOND, Sim,
    client::Ask,
    database::{Deed, NoLog, There},
    socket::{Seat, Up},
    worker::{self, Slot},
    world::{Due, Process, What as Comes, Who},
};
use crate::{
    farm::{Fence, JobId, SessionId, attempt::Refused, reception::Reception},
    job::JobStatus,
    testing::{
        history::{Event, Text},
        random::Random,
    },
};

pub(super) struct Server {
    pub process: Process,
    pub seats: BTreeMap<u64, Seat>,
    pub reception: Reception,
    /// What its host's clock said when all began, in microseconds.
    booted: u64,
    /// Whether it does not reach the database.
    pub is_cut_off: bool,
}

/// What is asked. The session is the worker's who asks.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Submit(usize),
    Cancel(JobId),
    See(JobId),
    Read(JobId, String, u64),
    Report(SessionId, Fence, Deed),
    Log(SessionId, Fence, Piece),
}

/// What becomes of something that a server asks of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Yes,
    No,
    /// It is done, and the server does not hear so.
    Unheard,
}

impl Reach {
    /// Of a database that errs.
    const ERRS: [Self; 4] = [Self::Yes, Self::Yes, Self::No, Self::Unheard];
}

/// Bytes of a log.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Empty for the job's own log.
    pub task: String,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// What is answered; nothing when the server can't now, or is not heard.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Job(JobId),
    Status(Option<JobStatus>),
    Done,
    Conflict,
    Text(Option<Text>),
    /// The log ends there.
    Stored(u64),
    Lost,
}

/// Who asks, and which of the questions this is.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub id: u64,
    pub from: From,
}

#[derive(Debug, Clone)]
pub(super) enum From {
    Client(usize, Ask),
    Report(usize, u32, Fence, Slot),
}

#[derive(Debug, Clone)]
pub(super) enum What {
    /// A request has come.
    Arrives(Call, Request),
    /// What it asks is decided; it came then.
    Decides(Call, Request, u64),
    /// Bytes are objects now, and get their row.
    Adds(Add),
    /// A worker's word has come.
    Up(u64, Up),
    Does(u64, Up),
    Assigns,
    Looks,
    Reaps(i64),
    Tells,
}

#[derive(Debug, Clone)]
pub(super) struct Add {
    /// None when it was answered before.
    call: Option<Call>,
    session: SessionId,
    fence: Fence,
    piece: Piece,
    there: usize,
    stored: u64,
    asked: u64,
}

impl What {
    /// Who waits for an answer.
    pub fn call(self) -> Option<Call> {
        match self {
            Self::Arrives(call, _) | Self::Decides(call, ..) => Some(call),
            Self::Adds(add) => add.call,
            _ => None,
        }
    }
}

impl Server {
    pub fn new(random: &mut Random) -> Self {
        Self {
            process: Process::default(),
            seats: BTreeMap::new(),
            reception: Reception::default(),
            booted: random.within(0, 1000 * SECOND),
            is_cut_off: false,
        }
    }

    pub fn kill(&mut self) {
        self.process.kill();
        self.seats.clear();
    }
}

impl Sim {
    pub fn start_server(&mut self, place: usize) {
        self.servers[place].process.start();
        self.servers[place].reception = Reception::default();
        for what in [What::Assigns, What::Looks, What::Tells] {
            let wait = self.world.random.within(0, SECOND);
            self.tell_server(place, wait, what);
        }
    }

    pub fn tell_server(&mut self, place: usize, wait: u64, what: What) {
        let life = Some(self.servers[place].process.life);
        let (to, what) = (Who::Server(place), Comes::Server(what));
        self.world.after(wait, Due { to, life, what });
    }

    /// What becomes of what a server asks of the database now.
    fn reach(&mut self, place: usize) -> Reach {
        let now = self.world.now;
        if self.world.away > now || self.servers[place].is_cut_off {
            return Reach::No;
        }
        match self.world.errs > now {
            true => *self.world.random.one_of(&Reach::ERRS),
            false => Reach::Yes,
        }
    }

    /// Whether it is done, and the server hears so.
    pub fn reaches(&mut self, place: usize) -> bool {
        self.reach(place) == Reach::Yes
    }

    pub fn server(&mut self, place: usize, what: What) {
        match what {
            What::Arrives(call, request) => {
                let (asked, wait) = (self.world.now, self.world.soon());
                self.tell_server(place, wait, What::Decides(call, request, asked));
            }
            What::Decides(call, request, asked) => self.decides(place, call, request, asked),
            What::Adds(add) => self.adds(place, add),
            What::Up(id, message) => self.heard_up(place, id, message),
            What::Does(id, message) => self.does(place, id, &message),
            What::Assigns => {
                if self.reach(place) != Reach::No {
                    let now = self.world.database_now();
                    self.database.assign(now);
                }
                self.tell_server(place, SECOND, What::Assigns);
            }
            What::Looks => self.looks(place),
            What::Reaps(heard) => self.reaps(place, heard),
            What::Tells => {
                self.tell(place);
                self.tell_server(place, SECOND, What::Tells);
            }
        }
    }

    /// The reaper reads the clock, and decides by it whether leases may end.
    fn looks(&mut self, place: usize) {
        if !self.reaches(place) {
            self.servers[place].reception.broke_off();
            return self.tell_server(place, SECOND, What::Looks);
        }
        let clock = self.world.database_now();
        let server = &mut self.servers[place];
        let now = Duration::from_micros(server.booted + self.world.now);
        let whole = server.reception.is_whole(now, clock);
        if let Some((before, by)) = server.reception.put_forward() {
            server.reception.moved();
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            self.database.put_forward(before, by, clock);
        }
        if !whole && !self.is(Broken::ReapedEarly) {
            return self.tell_server(place, SECOND, What::Looks);
        }
        // Others write first.
        let waits = self.world.random.one_in(8);
        let wait = match waits {
            true => self.world.random.within(0, 2 * SECOND),
            false => self.world.soon(),
        };
        self.tell_server(place, wait, What::Reaps(clock));
    }

    fn reaps(&mut self, place: usize, heard: i64) {
        let reach = self.reach(place);
        if reach != Reach::No {
            let now = self.world.database_now();
            let believed = self.is(Broken::LookBelieved);
            let heard = if believed { now } else { heard };
            self.database.reap(heard, now);
        }
        if reach != Reach::Yes {
            self.servers[place].reception.broke_off();
        }
        self.tell_server(place, SECOND, What::Looks);
    }

    /// Asks whatever server the proxy chooses. The answer is heard once, or that there is none.
    pub fn asks(&mut self, from: From, request: Request) -> u64 {
        let id = self.world.unique();
        let worker = match from {
            From::Client(..) => None,
            From::Report(worker, ..) => Some(worker),
        };
        let call = Call { id, from };
        self.hears(call.clone(), 30 * SECOND, None);
        let Some(server) = self.proxied() else {
            self.hears(call, MILLISECOND, None);
            return id;
        };
        if let Some(wait) = self.world.travel(worker, server) {
            let to = Who::Server(server);
            let arrives = Due::new(to, Comes::Server(What::Arrives(call, request)));
            if self.world.random.one_in(50) {
                let again = wait + self.world.random.within(0, 45 * SECOND);
                self.world.after(again, arrives.clone());
            }
            self.world.after(wait, arrives);
        }
        id
    }

    /// Somebody hears an answer, or that there is none.
    pub fn hears(&mut self, call: Call, wait: u64, answer: Option<Answer>) {
        let id = call.id;
        match call.from {
            From::Client(place, ask) => {
                let what = Comes::Client(super::client::What::Hears(id, ask, answer));
                self.world.after(wait, Due::new(Who::Client(place), what));
            }
            From::Report(place, life, fence, slot) => {
                let what = Comes::Worker(worker::What::Hears(id, fence, slot, answer));
                let (to, life) = (Who::Worker(place), Some(life));
                self.world.after(wait, Due { to, life, what });
            }
        }
    }

    fn answers(&mut self, place: usize, call: Call, answer: Option<Answer>) {
        let worker = match call.from {
            From::Client(..) => None,
            From::Report(worker, ..) => Some(worker),
        };
        if let Some(wait) = self.world.travel(worker, place) {
            self.hears(call, wait, answer);
        }
    }

    fn decides(&mut self, place: usize, call: Call, request: Request, asked: u64) {
        let reach = self.reach(place);
        let reaches = reach == Reach::Yes;
        if reach == Reach::No {
            return self.answers(place, call, None);
        }
        let now = self.world.database_now();
        let answer = match request {
            Request::Submit(planned) => {
                Answer::Job(self.database.submit(&self.planned[planned], now))
            }
            Request::Cancel(job) if self.database.cancel(job, now) => Answer::Done,
            Request::Cancel(_) => Answer::Conflict,
            Request::See(job) => Answer::Status(self.database.see(job, now)),
            Request::Read(job, task, offset) => {
                Answer::Text(self.database.read(job, &task, offset))
            }
            Request::Report(session, fence, deed) => {
                match self.database.report(&session, fence, &deed, now) {
                    Ok(()) => {
                        if reaches {
                            self.saw_report(fence, &deed, asked);
                        }
                        Answer::Done
                    }
                    Err(Refused::Lost) => Answer::Lost,
                    Err(_) => Answer::Conflict,
                }
            }
            Request::Log(..) if !reaches => Answer::Conflict,
            Request::Log(session, fence, piece) => {
                return self.appends(place, call, (session, fence), piece, asked);
            }
        };
        self.note();
        self.answers(place, call, Some(answer).filter(|_| reaches));
    }

    fn saw_report(&mut self, fence: Fence, deed: &Deed, asked: u64) {
        let Some((job, _)) = self.database.attempt(fence) else {
            return;
        };
        match deed {
            Deed::Begun => self.world.say(Event::Begun { job, fence, asked }),
            Deed::End(status, _) => self.world.say(Event::Ended {
                job,
                fence,
                status: *status,
                asked,
            }),
            _ => {}
        }
    }

    /// Finds where bytes of a log go. What is new becomes an object first, which takes time.
    fn appends(
        &mut self,
        place: usize,
        call: Call,
        (session, fence): (SessionId, Fence),
        piece: Piece,
        asked: u64,
    ) {
        let Piece {
            task,
            offset,
            bytes,
        } = &piece;
        let found = self.database.place((&session, fence), task, *offset, bytes);
        let (there, stored) = match found {
            Ok((There::Behind(there), stored)) => (there, stored),
            Ok((There::Elsewhere(end), _)) => {
                return self.answers(place, call, Some(Answer::Stored(end)));
            }
            Err(why) => return self.answers(place, call, Some(no_log(&why))),
        };
        let mut add = Add {
            call: Some(call.clone()),
            session,
            fence,
            there,
            stored,
            asked,
            piece,
        };
        let end = stored + (add.piece.bytes.len() - there) as u64;
        if there == add.piece.bytes.len() {
            self.saw_stored(&add);
            return self.answers(place, call, Some(Answer::Stored(end)));
        }
        let mut wait = self.world.random.within(MILLISECOND, 200 * MILLISECOND);
        if self.is(Broken::StoredLate) {
            self.saw_stored(&add);
            self.answers(place, call, Some(Answer::Stored(end)));
            add.call = None;
            wait *= 10;
        }
        self.tell_server(place, wait, What::Adds(add));
    }

    fn adds(&mut self, place: usize, add: Add) {
        let answer = if self.reaches(place) {
            let new = &add.piece.bytes[add.there..];
            let who = (&add.session, add.fence);
            match self.database.add(who, &add.piece.task, add.stored, new) {
                Ok(Ok(end)) => {
                    if add.call.is_some() {
                        self.saw_stored(&add);
                    }
                    Some(Answer::Stored(end))
                }
                Ok(Err(end)) => Some(Answer::Stored(end)),
                Err(why) => Some(no_log(&why)),
            }
        } else {
            None
        };
        if let Some(call) = add.call {
            self.answers(place, call, answer);
        }
    }

    fn saw_stored(&mut self, add: &Add) {
        let known = self.database.attempt(add.fence);
        if let Some((job, _)) = known.filter(|_| !add.piece.bytes.is_empty()) {
            self.world.say(Event::Stored {
                job,
                fence: add.fence,
                task: add.piece.task.clone(),
                offset: add.piece.offset,
                bytes: Text(add.piece.bytes.clone()),
                asked: add.asked,
            });
        }
    }
}

fn no_log(why: &NoLog) -> Answer {
    match why {
        NoLog::Lost => Answer::Lost,
        NoLog::NotBegun => Answer::Conflict,
    }
}
