//! Who submits a job, perhaps cancels it, looks how it is, and reads its logs.

use super::{
    MILLISECOND, SECOND, Sim,
    server::{Answer, From, Request},
    world::{Due, What as Comes, Who},
};
use crate::{farm::JobId, job::JobStatus, testing::history::Event};

/// What becomes of a submission, as its client knows.
#[derive(Debug, Default)]
pub(super) struct Client {
    job: Option<JobId>,
    /// How often it was told of the end.
    ends: u32,
    /// When each question was put that has no answer yet.
    open: Vec<(u64, u64)>,
    failures: u32,
    cancels: bool,
}

impl Client {
    /// Whether it waits for nothing.
    pub fn is_done(&self) -> bool {
        self.ends > 0 && !self.cancels
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Submit,
    Cancel,
    See,
    Read(String, u64),
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Submits,
    Cancels,
    Looks,
    Reads,
    Hears(u64, Ask, Option<Answer>),
}

impl Sim {
    fn tell_client(&mut self, place: usize, wait: u64, what: What) {
        let due = Due::new(Who::Client(place), Comes::Client(what));
        self.world.after(wait, due);
    }

    fn put(&mut self, place: usize, ask: Ask) {
        let Some(request) = self.request(place, &ask) else {
            return;
        };
        let asked = self.world.now;
        let call = self.asks(From::Client(place, ask), request);
        self.clients[place].open.push((call, asked));
    }

    fn request(&self, place: usize, ask: &Ask) -> Option<Request> {
        let job = self.clients[place].job;
        Some(match ask {
            Ask::Submit => Request::Submit(place),
            Ask::Cancel => Request::Cancel(job?),
            Ask::See => Request::See(job?),
            Ask::Read(task, offset) => Request::Read(job?, task.clone(), *offset),
        })
    }

    pub fn client(&mut self, place: usize, what: What) {
        match what {
            What::Submits => {
                let planned = &self.planned[place];
                let tasks = planned.tasks.iter().map(|task| task.name.to_owned());
                let submitted = Event::Submitted {
                    key: planned.key.clone(),
                    share: planned.share(),
                    kind: planned.kind(),
                    tasks: tasks.collect(),
                    expected: planned.expected(),
                };
                if self.clients[place].failures == 0 {
                    self.world.say(submitted);
                }
                self.put(place, Ask::Submit);
            }
            What::Cancels => {
                if let Some(job) = self.clients[place].job {
                    self.world.say(Event::CancelAsked { job });
                    self.put(place, Ask::Cancel);
                }
            }
            What::Looks => self.put(place, Ask::See),
            What::Reads => {
                let tasks = &self.planned[place].tasks;
                let which = self.world.random.place(tasks.len() + 1);
                let task = tasks.get(which).map_or("", |task| task.name);
                let offset = self.world.random.within(0, 60);
                self.put(place, Ask::Read(task.to_owned(), offset));
            }
            What::Hears(call, ask, answer) => self.client_hears(place, call, ask, answer),
        }
    }

    fn client_hears(&mut self, place: usize, call: u64, ask: Ask, answer: Option<Answer>) {
        let open = &mut self.clients[place].open;
        let Some(known) = open.iter().position(|(known, _)| *known == call) else {
            return;
        };
        let (_, asked) = open.swap_remove(known);
        match (ask, answer) {
            (Ask::Submit, Some(Answer::Job(job))) => self.acknowledged(place, job, asked),
            (Ask::See, Some(Answer::Status(status))) => self.seen(place, status, asked),
            (Ask::Cancel, Some(answer)) => {
                self.clients[place].cancels = false;
                let job = self.clients[place].job;
                if let Some(job) = job.filter(|_| matches!(answer, Answer::Done)) {
                    self.world.say(Event::Cancelled { job });
                }
            }
            (Ask::Read(task, offset), Some(Answer::Text(Some(bytes)))) => {
                if let Some(job) = self.clients[place].job {
                    self.world.say(Event::Read {
                        job,
                        task,
                        offset,
                        bytes,
                    });
                }
            }
            (ask, _) => self.asks_again(place, &ask),
        }
    }

    fn asks_again(&mut self, place: usize, ask: &Ask) {
        self.clients[place].failures += 1;
        let wait = self.world.random.within(200 * MILLISECOND, 3 * SECOND);
        let what = match ask {
            Ask::Submit => What::Submits,
            Ask::Cancel => What::Cancels,
            Ask::See => What::Looks,
            Ask::Read(..) => return,
        };
        self.tell_client(place, wait, what);
    }

    fn acknowledged(&mut self, place: usize, job: JobId, asked: u64) {
        let key = self.planned[place].key.clone();
        self.world.say(Event::Acknowledged { key, job, asked });
        self.clients[place].job = Some(job);
        self.tell_client(place, 0, What::Looks);
        let read = self.world.random.within(0, 60 * SECOND);
        self.tell_client(place, read, What::Reads);
        if let Some(wait) = self.planned[place].cancel {
            self.clients[place].cancels = true;
            self.tell_client(place, wait, What::Cancels);
        }
    }

    fn seen(&mut self, place: usize, status: Option<JobStatus>, asked: u64) {
        if let Some(job) = self.clients[place].job {
            self.world.say(Event::Seen { job, status, asked });
        }
        if status.is_some_and(JobStatus::is_terminal) {
            self.clients[place].ends += 1;
            self.tell_client(place, 0, What::Reads);
        }
        // Some looks more, for an end stays.
        if self.clients[place].ends < 4 {
            let wait = self.world.random.within(200 * MILLISECOND, 5 * SECOND);
            self.tell_client(place, wait, What::Looks);
        }
    }
}
