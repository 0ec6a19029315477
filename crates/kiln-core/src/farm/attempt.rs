//! The life of an attempt, and what a report under it does.
//!
//! ```text
//! given ──► begun ──► ended
//!   └────────┴──────► ended, cancelled, reaped
//!   └───────────────► returned
//! ```
//!
//! Whoever ends it first has ended it. Each report may be repeated: one that was taken before
//! is taken again and changes nothing; one under an attempt that ended otherwise is refused.

use crate::job::{IllegalTransition, JobStatus, TaskStatus};

/// Which operation ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its worker ended the job.
    Ended,
    /// Its worker gave the job back.
    Returned,
    /// Somebody cancelled the job.
    Cancelled,
    /// The farm did: see [`super::lease`].
    Reaped,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ended, Self::Returned, Self::Cancelled, Self::Reaped];

    /// The name in databases, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Returned => "returned",
            Self::Cancelled => "cancelled",
            Self::Reaped => "reaped",
        }
    }
}

/// An attempt, as far as its reports go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempt {
    /// Whether a task may have started.
    pub begun: bool,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
}

/// A report that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It changes something.
    New,
    /// It was taken before.
    Again,
}

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The lease has ended.
    #[error("this lease has ended")]
    Lost,
    /// What has begun goes nowhere else.
    #[error("a job that has begun can't be given back")]
    HasBegun,
    /// A task runs only after that.
    #[error("no task may run before `begun` was said")]
    NotBegun,
    /// That is no end.
    #[error("a job does not end as {0}")]
    NoEnd(JobStatus),
    /// The job or task does not go there.
    #[error(transparent)]
    NoWay(#[from] IllegalTransition),
}

impl Attempt {
    /// Whether anything may still be reported.
    ///
    /// # Errors
    /// [`Refused::Lost`].
    pub fn alive(&self) -> Result<(), Refused> {
        match self.outcome {
            None => Ok(()),
            Some(_) => Err(Refused::Lost),
        }
    }

    /// A task may start from now on.
    ///
    /// # Errors
    /// [`Refused::Lost`].
    pub fn begin(&mut self) -> Result<Taken, Refused> {
        self.alive()?;
        if std::mem::replace(&mut self.begun, true) {
            return Ok(Taken::Again);
        }
        Ok(Taken::New)
    }

    /// A task that is `now` goes on.
    ///
    /// # Errors
    /// [`Refused::Lost`], [`Refused::NotBegun`], [`Refused::NoWay`].
    pub fn task(&self, now: TaskStatus, to: TaskStatus) -> Result<Taken, Refused> {
        self.alive()?;
        if now == to {
            return Ok(Taken::Again);
        }
        if to == TaskStatus::Running && !self.begun {
            return Err(Refused::NotBegun);
        }
        now.transition(to)?;
        Ok(Taken::New)
    }

    /// Its worker says that the job, which is `now`, ends as `said`.
    ///
    /// # Errors
    /// [`Refused::Lost`], also where it ended as something else; [`Refused::NoEnd`],
    /// [`Refused::NoWay`].
    pub fn end(&mut self, now: JobStatus, said: JobStatus) -> Result<Taken, Refused> {
        if !said.is_terminal() {
            return Err(Refused::NoEnd(said));
        }
        match self.outcome {
            None => {}
            // Said before, and the answer was lost.
            Some(Outcome::Ended) if now == said => return Ok(Taken::Again),
            Some(_) => return Err(Refused::Lost),
        }
        now.transition(said)?;
        self.outcome = Some(Outcome::Ended);
        Ok(Taken::New)
    }

    /// Its worker gives the job back: see [`super::lease::given_back`].
    ///
    /// # Errors
    /// [`Refused::Lost`], [`Refused::HasBegun`].
    pub fn give_back(&mut self) -> Result<Taken, Refused> {
        match self.outcome {
            None if self.begun => Err(Refused::HasBegun),
            None => {
                self.outcome = Some(Outcome::Returned);
                Ok(Taken::New)
            }
            Some(Outcome::Returned) => Ok(Taken::Again),
            Some(_) => Err(Refused::Lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Does what a number stands for; whether it was taken.
    fn report(attempt: &mut Attempt, job: &mut JobStatus, what: u8) -> bool {
        match what {
            0 => attempt.begin().is_ok(),
            1 => attempt.give_back().is_ok_and(|_| {
                *job = JobStatus::Queued;
                true
            }),
            2 => attempt
                .task(TaskStatus::Pending, TaskStatus::Running)
                .is_ok(),
            _ => {
                let said = JobStatus::ALL[usize::from(what) % JobStatus::ALL.len()];
                attempt.end(*job, said).is_ok_and(|_| {
                    *job = said;
                    true
                })
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_reported_an_attempt_ends_once_and_stays_so(
            reports in prop::collection::vec(0u8..10, 0..20)
        ) {
            let (mut attempt, mut job) = (Attempt::default(), JobStatus::Running);
            let mut ended = None;
            for what in reports {
                report(&mut attempt, &mut job, what);
                if let Some((outcome, status)) = ended {
                    prop_assert_eq!((attempt.outcome, job), (outcome, status));
                } else if attempt.outcome.is_some() {
                    ended = Some((attempt.outcome, job));
                }
            }
        }

        #[test]
        fn what_was_taken_is_taken_again_and_changes_nothing(
            before in prop::collection::vec(0u8..10, 0..5), what in 0u8..10
        ) {
            let (mut attempt, mut job) = (Attempt::default(), JobStatus::Running);
            for what in before {
                report(&mut attempt, &mut job, what);
            }
            if report(&mut attempt, &mut job, what) {
                let after = (attempt, job);
                prop_assert!(report(&mut attempt, &mut job, what));
                prop_assert_eq!((attempt, job), after);
            }
        }

        #[test]
        fn after_its_end_by_somebody_else_nothing_is_taken(what in 0u8..10, who in 2usize..4) {
            let outcome = Some(Outcome::ALL[who]);
            let mut attempt = Attempt { begun: true, outcome };
            prop_assert!(!report(&mut attempt, &mut JobStatus::Cancelled.clone(), what));
        }
    }

    #[test]
    fn no_task_runs_before_begun_and_nothing_is_given_back_after() {
        let mut attempt = Attempt::default();
        let (pending, running) = (TaskStatus::Pending, TaskStatus::Running);
        assert_eq!(attempt.task(pending, running), Err(Refused::NotBegun));
        assert_eq!(attempt.begin(), Ok(Taken::New));
        assert_eq!(attempt.task(pending, running), Ok(Taken::New));
        assert_eq!(attempt.give_back(), Err(Refused::HasBegun));
    }
}
