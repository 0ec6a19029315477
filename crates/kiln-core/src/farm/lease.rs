//! What happens to a job whose attempt has ended otherwise than by its end.
//!
//! ```text
//! before it has begun    back to the queue, at most limits::ATTEMPTS attempts; then failed
//! after                  failed: no task may run twice
//! a minute overdue       timeout, whatever its worker says
//! ```

use super::limits;
use crate::job::JobStatus;

/// How long after its deadline a job is ended by the farm, in seconds. Its worker
/// ends it at the deadline.
pub const GRACE_SECONDS: u64 = 60;

/// How the reason of a job begins that a worker's operator stopped.
pub const STOPPED: &str = "the worker was stopped while the job ran";
/// How that of a job begins whose worker was lost.
const LOST: &str = "worker lost";
/// How that of a job goes on which no worker could run.
const NOT_RUN: &str = " workers could not run this job";

/// Whether the reason of a job that failed is one of the farm's own, and not the
/// job's.
#[must_use]
pub fn is_the_farms(reason: &str) -> bool {
    let digits = reason.trim_start_matches(|c: char| c.is_ascii_digit());
    reason.starts_with(LOST) || reason.starts_with(STOPPED) || digits.starts_with(NOT_RUN)
}

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// There.
    pub status: JobStatus,
    /// Why, for the owner.
    pub reason: String,
}

impl Next {
    fn new(status: JobStatus, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }
}

/// A lease that ran out. `tries` are the attempts that count, with this one.
#[must_use]
pub fn lost(begun: bool, tries: u32) -> Next {
    if begun {
        Next::new(
            JobStatus::Failed,
            format!("{LOST}: the worker that ran this job was not heard of any more"),
        )
    } else if tries < limits::ATTEMPTS {
        Next::new(
            JobStatus::Queued,
            format!("{LOST} before the first task; the job waits for another worker"),
        )
    } else {
        Next::new(
            JobStatus::Failed,
            format!("{LOST}: {tries} workers were lost before the first task"),
        )
    }
}

/// A job that its worker gave back before it had begun, with the worker's reason.
/// `tries` are the attempts that count, with this one if it does.
#[must_use]
pub fn given_back(tries: u32, counts: bool, reason: &str) -> Next {
    if !counts || tries < limits::ATTEMPTS {
        Next::new(JobStatus::Queued, reason)
    } else {
        Next::new(
            JobStatus::Failed,
            format!("{tries}{NOT_RUN}; the last one: {reason}"),
        )
    }
}

/// A lease that has not ended, as the farm looks at it. Moments are microseconds of the
/// database's clock.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// When it was given.
    pub granted: i64,
    /// Until when it was renewed.
    pub expires: i64,
    /// For how long the job may run.
    pub deadline_seconds: u64,
    /// Whether a task may have started.
    pub begun: bool,
    /// The attempts that count, with this one.
    pub tries: u32,
}

/// Where a job goes whose lease is over; none when it is not.
///
/// `heard` is when renewals had been received for one whole lease: what ran out by then has.
/// Whoever found that out may have stood still since, and then it says nothing of `now`.
#[must_use]
pub fn over(lease: &Running, heard: i64, now: i64) -> Option<Next> {
    let known = heard.min(now);
    if is_overdue(lease.granted, lease.deadline_seconds, known) {
        return Some(overdue());
    }
    (lease.expires < known).then(|| lost(lease.begun, lease.tries))
}

/// Whether a job that was given to a worker at `started` is so late that the farm
/// ends it. Moments are microseconds of one clock.
#[must_use]
pub fn is_overdue(started: i64, deadline_seconds: u64, now: i64) -> bool {
    let seconds = deadline_seconds.saturating_add(GRACE_SECONDS);
    let micros = i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    now > started.saturating_add(micros)
}

/// Where a job goes that [is overdue](is_overdue).
#[must_use]
pub fn overdue() -> Next {
    Next::new(
        JobStatus::Timeout,
        "the job took longer than it may, and its worker did not end it",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_farm_did_to_a_job_is_told_from_what_the_job_did() {
        let farms = [
            lost(true, 1).reason,
            lost(false, limits::ATTEMPTS).reason,
            given_back(limits::ATTEMPTS, true, "no disk").reason,
            STOPPED.to_owned(),
        ];
        for reason in farms {
            assert!(is_the_farms(&reason), "{reason}");
        }
        for reason in ["task worker lost failed: exit status 1", "", "3"] {
            assert!(!is_the_farms(reason), "{reason}");
        }
    }

    #[test]
    fn a_lease_that_ran_out_since_renewals_were_heard_of_is_not_over() {
        let lease = Running {
            granted: 0,
            expires: 100,
            deadline_seconds: 60,
            begun: true,
            tries: 1,
        };
        assert_eq!(over(&lease, 100, 200), None);
        assert_eq!(over(&lease, 101, 200), Some(lost(true, 1)));
        assert_eq!(over(&lease, 200, 100), None);
        assert_eq!(over(&lease, 121_000_000, 121_000_000), Some(overdue()));
        assert_eq!(over(&lease, 100, 121_000_000), None);
    }

    proptest! {
        #[test]
        fn a_job_that_has_begun_never_goes_back_to_the_queue(tries in 0u32..10) {
            prop_assert_eq!(lost(true, tries).status, JobStatus::Failed);
        }

        #[test]
        fn a_job_is_lost_at_most_so_often_as_the_limit_says(tries in 1u32..10) {
            let again = lost(false, tries).status == JobStatus::Queued;
            prop_assert_eq!(again, tries < limits::ATTEMPTS);
            let again = given_back(tries, true, "x").status == JobStatus::Queued;
            prop_assert_eq!(again, tries < limits::ATTEMPTS);
        }

        #[test]
        fn what_does_not_count_always_goes_back(tries in 0u32..10) {
            prop_assert_eq!(given_back(tries, false, "x").status, JobStatus::Queued);
        }

        #[test]
        fn wherever_it_goes_a_running_job_may_go_there_and_its_owner_reads_why(
            begun in any::<bool>(), counts in any::<bool>(), tries in 0u32..10
        ) {
            for next in [lost(begun, tries), given_back(tries, counts, "full"), overdue()] {
                prop_assert!(JobStatus::Running.transition(next.status).is_ok());
                prop_assert!(!next.reason.is_empty());
            }
        }

        #[test]
        fn a_job_is_overdue_from_a_minute_past_its_deadline_on(
            started in 0i64..1 << 52, deadline in 0u64..1 << 20, past in -100_000_000i64..100_000_000
        ) {
            let last = started + i64::try_from((deadline + 60) * 1_000_000).unwrap();
            prop_assert_eq!(is_overdue(started, deadline, last + past), past > 0);
        }

        #[test]
        fn no_numbers_are_too_large(started: i64, deadline: u64, now: i64) {
            let _ = is_overdue(started, deadline, now);
        }
    }
}
