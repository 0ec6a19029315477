//! What runs in a guest, and what of it the server does not have yet.

use std::collections::VecDeque;

use super::{
    Broken, MILLISECOND, Sim,
    database::Deed,
    worker::{Slot, What},
};
use crate::{
    farm::{Fence, JobId},
    job::{JobStatus, TaskStatus},
    testing::history::{Event, Text},
};

/// A guest, and its worker's word of it.
pub(super) struct Guest {
    job: JobId,
    pub planned: usize,
    pub tasks: Vec<TaskStatus>,
    /// The task that runs, and how many lines of it have been written.
    at: Option<(usize, u64)>,
    /// The last word, once all is over.
    pub last: Option<Last>,
    pub spool: VecDeque<Item>,
}

/// What is said last.
#[derive(Debug, Clone, Copy)]
pub(super) enum Last {
    End(JobStatus),
    Return { counts: bool },
}

/// What the server is to have, in this order.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Bytes of a log; of the job's own when the name is empty.
    Log(String, Vec<u8>),
    Event(String, TaskStatus),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The guest is there.
    Starts,
    /// The task's script writes its next line, or ends.
    Goes,
    Deadline,
}

impl Guest {
    pub fn new(job: JobId, planned: usize, tasks: usize) -> Self {
        Self {
            job,
            planned,
            tasks: vec![TaskStatus::Pending; tasks],
            at: None,
            last: None,
            spool: VecDeque::new(),
        }
    }

    /// What comes first: neighbours of one log together.
    pub fn front(&mut self) -> Option<Item> {
        while let (Some(Item::Log(first, _)), Some(Item::Log(second, _))) =
            (self.spool.front(), self.spool.get(1))
        {
            if first != second {
                break;
            }
            if let Some(Item::Log(_, more)) = self.spool.remove(1)
                && let Some(Item::Log(_, bytes)) = self.spool.front_mut()
            {
                bytes.extend_from_slice(&more);
            }
        }
        self.spool.front().cloned()
    }

    /// The server has so many bytes of what comes first.
    pub fn taken(&mut self, count: usize) {
        if let Some(Item::Log(_, bytes)) = self.spool.front_mut() {
            bytes.drain(..count.min(bytes.len()));
            if bytes.is_empty() {
                self.spool.pop_front();
            }
        }
    }
}

impl Sim {
    pub fn guest(&mut self, place: usize, fence: Fence, step: Step) {
        if self.run_of(place, fence).is_none_or(|run| run.is_over()) {
            return;
        }
        match step {
            Step::Starts => self.starts(place, fence),
            Step::Goes => self.goes(place, fence),
            Step::Deadline => self.over(place, fence, JobStatus::Timeout),
        }
    }

    fn starts(&mut self, place: usize, fence: Fence) {
        let bad = self
            .world
            .random
            .one_in(40)
            .then(|| self.world.random.one_in(4));
        let line = self.line();
        let Some(run) = self.run_of(place, fence) else {
            return;
        };
        run.guest.spool.push_back(Item::Log(String::new(), line));
        // Some hosts can't start a guest, and that counts or does not.
        run.guest.last = bad.map(|counts| Last::Return { counts });
        self.uploads(place, fence);
        if bad.is_some() {
            return;
        }
        self.reports(place, fence, Slot::Begun, Deed::Begun);
        if self.is(Broken::StartedEarly) {
            self.task_starts(place, fence, 0);
        }
    }

    /// The server has said that the job has begun.
    pub fn begins(&mut self, place: usize, fence: Fence) {
        if self.run_of(place, fence).is_some_and(|run| !run.is_over())
            && !self.is(Broken::StartedEarly)
        {
            self.task_starts(place, fence, 0);
        }
    }

    fn task_starts(&mut self, place: usize, fence: Fence, task: usize) {
        let Some((job, name)) = self.names(place, fence, task) else {
            return;
        };
        if let Some(run) = self.run_of(place, fence) {
            run.guest.at = Some((task, 0));
        }
        self.world.say(Event::TaskStarted {
            job,
            fence,
            task: name,
        });
        self.moves(place, fence, task, TaskStatus::Running);
        let wait = self.world.random.within(0, 50 * MILLISECOND);
        self.tell_worker(place, wait, What::Guest(fence, Step::Goes));
    }

    /// The job of a lease, and the name of a task of it.
    fn names(&mut self, place: usize, fence: Fence, task: usize) -> Option<(JobId, String)> {
        let guest = &self.run_of(place, fence)?.guest;
        let (job, planned) = (guest.job, guest.planned);
        let script = self.planned[planned].tasks.get(task)?;
        Some((job, script.name.to_owned()))
    }

    fn moves(&mut self, place: usize, fence: Fence, task: usize, to: TaskStatus) {
        let Some((_, name)) = self.names(place, fence, task) else {
            return;
        };
        if let Some(run) = self.run_of(place, fence) {
            run.guest.tasks[task] = to;
            run.guest.spool.push_back(Item::Event(name, to));
        }
        self.uploads(place, fence);
    }

    fn goes(&mut self, place: usize, fence: Fence) {
        let Some(guest) = self.run_of(place, fence).map(|run| &run.guest) else {
            return;
        };
        let (Some((task, lines)), planned) = (guest.at, guest.planned) else {
            return;
        };
        let script = self.planned[planned].tasks[task].clone();
        let Some((job, name)) = self.names(place, fence, task) else {
            return;
        };
        if lines < script.lines {
            let line = self.line();
            self.world.say(Event::Produced {
                job,
                fence,
                task: name.clone(),
                bytes: Text(line.clone()),
            });
            if let Some(run) = self.run_of(place, fence) {
                run.guest.at = Some((task, lines + 1));
                run.guest.spool.push_back(Item::Log(name, line));
            }
            self.uploads(place, fence);
            return self.tell_worker(place, script.pause, What::Guest(fence, Step::Goes));
        }
        self.world.say(Event::TaskEnded {
            job,
            fence,
            task: name,
        });
        if script.fails {
            self.moves(place, fence, task, TaskStatus::Failed);
            return self.over(place, fence, JobStatus::Failed);
        }
        self.moves(place, fence, task, TaskStatus::Success);
        if task + 1 < self.planned[planned].tasks.len() {
            self.task_starts(place, fence, task + 1);
        } else {
            self.over(place, fence, JobStatus::Success);
        }
    }

    /// The guest goes; what it wrote is told, and then the end.
    fn over(&mut self, place: usize, fence: Fence, status: JobStatus) {
        let line = self.line();
        if let Some(run) = self.run_of(place, fence) {
            let guest = &mut run.guest;
            guest.at = None;
            guest.last = Some(Last::End(status));
            guest.spool.push_back(Item::Log(String::new(), line));
            for task in &mut guest.tasks {
                *task = task.at_end(None);
            }
        }
        self.uploads(place, fence);
    }

    /// A line that no other is like.
    fn line(&mut self) -> Vec<u8> {
        format!("line {}\n", self.world.unique()).into_bytes()
    }
}
