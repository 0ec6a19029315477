//! Each rule is broken by a history of a few lines, and by no good one.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Event, History, Promises, Rule, check, good};
use crate::{
    farm::{Fence, JobId},
    job::JobStatus::{self, Cancelled, Failed, Running, Success},
    testing::history::{Entry, Text},
};

const PROMISES: Promises = Promises {
    turns: 1,
    settle: u64::MAX,
    aftermath: 0,
};

const JOB: JobId = JobId(7);
const ONE: Fence = Fence(1);
const TWO: Fence = Fence(2);

/// Each a millisecond after the other.
fn broken(events: impl IntoIterator<Item = Event>) -> BTreeSet<Rule> {
    broken_within(&PROMISES, events)
}

fn broken_within(promises: &Promises, events: impl IntoIterator<Item = Event>) -> BTreeSet<Rule> {
    let entries = (1..).zip(events);
    let entries = entries.map(|(at, event)| Entry {
        at: at * 1000,
        event,
    });
    check(&History::new(entries.collect()), promises).broken_rules()
}

fn only(rule: Rule) -> BTreeSet<Rule> {
    [rule].into()
}

fn submitted(job: JobId, share: &str) -> [Event; 2] {
    let key = format!("key-{job}");
    let submitted = Event::Submitted {
        key: key.clone(),
        share: share.to_owned(),
        kind: "any".to_owned(),
        tasks: vec!["build".to_owned()],
        expected: Success,
    };
    [submitted, Event::Acknowledged { key, job, asked: 0 }]
}

fn claimed(job: JobId, fence: Fence) -> Event {
    Event::Claimed {
        job,
        fence,
        attempt: 1,
        worker: "one".to_owned(),
    }
}

fn begun(fence: Fence, asked: u64) -> Event {
    Event::Begun {
        job: JOB,
        fence,
        asked,
    }
}

fn started(fence: Fence) -> Event {
    Event::TaskStarted {
        job: JOB,
        fence,
        task: "build".to_owned(),
    }
}

fn task_ended(fence: Fence) -> Event {
    Event::TaskEnded {
        job: JOB,
        fence,
        task: "build".to_owned(),
    }
}

fn ended(fence: Fence, status: JobStatus, asked: u64) -> Event {
    Event::Ended {
        job: JOB,
        fence,
        status,
        asked,
    }
}

fn seen(status: Option<JobStatus>, asked: u64) -> Event {
    Event::Seen {
        job: JOB,
        status,
        asked,
    }
}

fn stored(fence: Fence, task: &str, offset: u64, bytes: &str, asked: u64) -> Event {
    Event::Stored {
        job: JOB,
        fence,
        task: task.to_owned(),
        offset,
        bytes: bytes.into(),
        asked,
    }
}

fn read(offset: u64, bytes: &str) -> Event {
    Event::Read {
        job: JOB,
        task: "build".to_owned(),
        offset,
        bytes: bytes.into(),
    }
}

fn whole(bytes: &str) -> Event {
    Event::ReadWhole {
        job: JOB,
        task: "build".to_owned(),
        bytes: bytes.into(),
    }
}

fn produced(bytes: &str) -> Event {
    Event::Produced {
        job: JOB,
        fence: ONE,
        task: "build".to_owned(),
        bytes: bytes.into(),
    }
}

fn acknowledged(key: &str, job: JobId) -> Event {
    let key = key.to_owned();
    Event::Acknowledged { key, job, asked: 0 }
}

#[test]
fn a_submission_that_made_two_jobs_is_found() {
    let events = [acknowledged("k", JobId(1)), acknowledged("k", JobId(2))];
    assert!(broken(events).contains(&Rule::OneJob));
    let listed = |job| Event::Listed {
        key: "k".to_owned(),
        job,
    };
    let unacknowledged = [listed(JobId(1)), listed(JobId(2))];
    assert_eq!(broken(unacknowledged), only(Rule::OneJob));
}

#[test]
fn an_acknowledged_job_that_is_not_there_is_found() {
    let events = [
        acknowledged("k", JOB),
        seen(None, 1500),
        seen(Some(Failed), 2500),
    ];
    assert_eq!(broken(events), only(Rule::Kept));
    let asked_before = [
        acknowledged("k", JOB),
        seen(None, 500),
        seen(Some(Failed), 2500),
    ];
    assert_eq!(broken(asked_before), BTreeSet::new());
}

#[test]
fn two_ends_are_found() {
    let events = [seen(Some(Failed), 500), seen(Some(Success), 700)];
    assert_eq!(broken(events), only(Rule::OneEnd));
    let told = [ended(ONE, Success, 500), seen(Some(Failed), 1500)];
    assert_eq!(broken(told), only(Rule::OneEnd));
}

#[test]
fn an_end_that_does_not_stay_is_found() {
    let events = [seen(Some(Failed), 500), seen(Some(Running), 1500)];
    assert_eq!(broken(events), only(Rule::EndsStay));
    let asked_before = [seen(Some(Failed), 500), seen(Some(Running), 700)];
    assert_eq!(broken(asked_before), BTreeSet::new());
}

#[test]
fn a_lost_cancel_is_found() {
    let cancel = [
        Event::CancelAsked { job: JOB },
        Event::Cancelled { job: JOB },
    ];
    let lost = cancel
        .clone()
        .into_iter()
        .chain([seen(Some(Success), 2500)]);
    assert_eq!(broken(lost), only(Rule::Cancels));
    let kept = cancel.into_iter().chain([seen(Some(Cancelled), 2500)]);
    assert_eq!(broken(kept), BTreeSet::new());
}

#[test]
fn results_under_two_fences_are_found() {
    let begins = [begun(ONE, 500), begun(TWO, 1500)];
    assert_eq!(broken(begins), only(Rule::OneFence));
    let logs = [
        stored(ONE, "build", 0, "a", 1),
        stored(TWO, "build", 1, "b", 2),
    ];
    assert_eq!(broken(logs), only(Rule::OneFence));
    let own_log = [stored(ONE, "", 0, "a", 1), stored(TWO, "", 1, "b", 2)];
    assert_eq!(broken(own_log), BTreeSet::new());
}

#[test]
fn what_an_old_fence_writes_is_found() {
    let after_the_end = [seen(Some(Failed), 500), stored(ONE, "", 0, "a", 1500)];
    assert_eq!(broken(after_the_end), only(Rule::OneFence));
    let asked_before = [seen(Some(Failed), 500), stored(ONE, "", 0, "a", 900)];
    assert_eq!(broken(asked_before), BTreeSet::new());
    let beside_another = [begun(TWO, 500), stored(ONE, "", 0, "a", 1500)];
    assert_eq!(broken(beside_another), only(Rule::OneFence));
    let said_again = [ended(ONE, Success, 500), ended(ONE, Success, 1500)];
    assert_eq!(broken(said_again), BTreeSet::new());
}

#[test]
fn a_task_that_ran_twice_is_found() {
    let events = [begun(ONE, 500), started(ONE), started(ONE)];
    assert_eq!(broken(events), only(Rule::TasksOnce));
}

#[test]
fn a_success_nobody_worked_for_is_found() {
    let [submitted, acknowledged] = submitted(JOB, "ada");
    let events = [
        submitted,
        acknowledged,
        begun(ONE, 500),
        ended(ONE, Success, 600),
    ];
    assert_eq!(broken(events.clone()), only(Rule::TasksOnce));
    let [submitted, acknowledged, begun, ended] = events;
    let worked = [
        submitted,
        acknowledged,
        begun,
        started(ONE),
        task_ended(ONE),
        ended,
    ];
    assert_eq!(broken(worked), BTreeSet::new());
}

#[test]
fn a_task_that_starts_before_begun_is_found() {
    assert_eq!(
        broken([started(ONE), begun(ONE, 500)]),
        only(Rule::BegunFirst)
    );
    assert_eq!(
        broken([begun(TWO, 500), started(ONE)]),
        only(Rule::BegunFirst)
    );
    assert_eq!(broken([begun(ONE, 500), started(ONE)]), BTreeSet::new());
}

#[test]
fn an_acknowledged_byte_that_is_missing_or_altered_is_found() {
    let missing = [stored(ONE, "build", 2, "cd", 500), whole("abc")];
    assert_eq!(broken(missing), only(Rule::LogsKept));
    let altered = [stored(ONE, "build", 0, "ab", 500), whole("aXc")];
    assert_eq!(broken(altered), only(Rule::LogsKept));
    let no_log = [stored(ONE, "check", 0, "ab", 500), whole("abc")];
    assert_eq!(broken(no_log), only(Rule::LogsKept));
    let all_gone = [stored(ONE, "build", 0, "ab", 500), whole("")];
    assert_eq!(broken(all_gone), only(Rule::LogsKept));
    let kept = [stored(ONE, "build", 2, "cd", 500), whole("abcde")];
    assert_eq!(broken(kept), BTreeSet::new());
}

#[test]
fn a_served_byte_that_changes_is_found() {
    assert_eq!(broken([read(1, "b"), whole("aXc")]), only(Rule::LogsStay));
    assert_eq!(broken([read(2, "cd"), whole("abc")]), only(Rule::LogsStay));
    assert_eq!(broken([whole("abc"), whole("abd")]), only(Rule::LogsStay));
    assert_eq!(broken([read(1, "bc"), whole("abc")]), BTreeSet::new());
}

#[test]
fn a_log_with_a_gap_or_a_repetition_is_found() {
    let log = |text| {
        let made = [produced("one\ntwo\n"), task_ended(ONE)];
        let end = [ended(ONE, Failed, 2500), whole(text)];
        broken(made.into_iter().chain(end))
    };
    assert_eq!(
        log("[kiln] here\none\ntwo\n[kiln] there\n"),
        BTreeSet::new()
    );
    assert_eq!(log("[kiln] here\none\n"), only(Rule::LogsWhole));
    assert_eq!(log("one\n[kiln] between\ntwo\n"), only(Rule::LogsWhole));
    assert_eq!(log("one\ntwo\none\n"), only(Rule::LogsWhole));
    let cut_off = [produced("one\ntwo\n"), whole("one\n")];
    assert_eq!(broken(cut_off), BTreeSet::new());
}

/// Two shares; the second one waits while the first one has `given` jobs after another.
fn passed_over(given: i64) -> Vec<Event> {
    let mut events: Vec<Event> = submitted(JobId(100), "hungry").into();
    for count in 1..=given {
        let job = JobId(i32::try_from(count).unwrap());
        events.extend(submitted(job, "greedy"));
        events.push(claimed(job, Fence(count)));
        events.push(Event::Released {
            job,
            fence: Fence(count),
        });
    }
    events
}

#[test]
fn a_starved_share_is_found() {
    let starved = |given| {
        let broken = broken(passed_over(given));
        broken.contains(&Rule::Fair)
    };
    assert!(!starved(1));
    assert!(starved(2));
}

#[test]
fn a_share_that_has_something_running_is_not_hungry() {
    let mut events = submitted(JobId(101), "hungry").to_vec();
    events.push(claimed(JobId(101), Fence(101)));
    events.extend(passed_over(5));
    assert!(!broken(events).contains(&Rule::Fair));
}

#[test]
fn what_was_given_in_one_moment_was_given_in_the_order_of_the_fences() {
    let job = |number| JobId(number);
    let mut events: Vec<Event> = Vec::new();
    for (number, share) in [(1, "z"), (2, "a"), (3, "a"), (4, "a")] {
        events.extend(submitted(job(number), share));
    }
    let entry = |at, event| Entry { at, event };
    let before = (1..).zip(events).map(|(at, event)| entry(at, event));
    let given = (1..=4).map(|number| entry(100, claimed(job(number), Fence(number.into()))));
    let history = History::new(before.chain(given).collect());
    let broken = check(&history, &PROMISES).broken_rules();
    assert!(!broken.contains(&Rule::Fair));
}

/// A fault's beginning and end.
fn fault(touches: &str) -> [Event; 2] {
    let touches = vec![touches.to_owned()];
    let began = Event::FaultBegan {
        fault: 1,
        what: "kill".to_owned(),
        touches,
    };
    [began, Event::FaultEnded { fault: 1 }]
}

/// A job that ended so, and what came between its submission and that.
fn ends_as(status: JobStatus, between: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let mut events = submitted(JOB, "ada").to_vec();
    events.extend(between);
    events.push(seen(Some(status), 0));
    events
}

#[test]
fn a_job_that_fails_for_no_reason_is_found() {
    let meets = |part| [vec![claimed(JOB, ONE)], fault(part).to_vec()].concat();
    assert_eq!(broken(ends_as(Failed, meets("one"))), BTreeSet::new());
    assert_eq!(broken(ends_as(Failed, meets("two"))), only(Rule::Blame));
    assert_eq!(broken(ends_as(Failed, [])), only(Rule::Blame));
    assert_eq!(broken(ends_as(Cancelled, [])), only(Rule::Blame));
}

#[test]
fn a_fault_explains_no_other_end_than_a_failure() {
    let meets = [vec![claimed(JOB, ONE)], fault("one").to_vec()].concat();
    let lies = |expected, status| {
        let mut events = ends_as(status, meets.clone());
        if let Event::Submitted { expected: was, .. } = &mut events[0] {
            *was = expected;
        }
        broken(events)
    };
    assert_eq!(lies(Failed, Success), [Rule::Blame, Rule::TasksOnce].into());
    assert_eq!(lies(Success, Cancelled), only(Rule::Blame));
    assert_eq!(lies(Success, Failed), BTreeSet::new());
}

#[test]
fn a_fault_before_an_attempt_explains_only_that_it_never_began() {
    let promises = Promises {
        aftermath: 5000,
        ..PROMISES
    };
    let after = |more: &[Event]| {
        let between = [
            fault("one").to_vec(),
            vec![claimed(JOB, ONE)],
            more.to_vec(),
        ]
        .concat();
        broken_within(&promises, ends_as(Failed, between))
    };
    assert_eq!(after(&[]), BTreeSet::new());
    assert_eq!(after(&[begun(ONE, 0)]), only(Rule::Blame));
}

#[test]
fn a_fault_of_an_earlier_attempt_explains_only_that_there_were_too_few() {
    let released = Event::Released {
        job: JOB,
        fence: ONE,
    };
    let other = Event::Claimed {
        job: JOB,
        fence: TWO,
        attempt: 2,
        worker: "two".to_owned(),
    };
    let [began, over] = fault("one");
    let between = [claimed(JOB, ONE), began, over, released, other].to_vec();
    let runs = [between.clone(), vec![begun(TWO, 0)]].concat();
    assert_eq!(broken(ends_as(Failed, runs)), only(Rule::Blame));
    assert_eq!(broken(ends_as(Failed, between)), BTreeSet::new());
}

#[test]
fn failures_that_a_fault_explains_are_counted() {
    let meets = [vec![claimed(JOB, ONE)], fault("one").to_vec()].concat();
    let entries = (1..).zip(ends_as(Failed, meets));
    let entries = entries.map(|(at, event)| Entry { at, event });
    let report = check(&History::new(entries.collect()), &PROMISES);
    assert_eq!(report.excused, 1);
}

#[test]
fn work_on_a_cancelled_job_that_goes_on_is_found() {
    let promises = Promises {
        aftermath: 1500,
        ..PROMISES
    };
    let cancel = [
        claimed(JOB, ONE),
        begun(ONE, 0),
        Event::CancelAsked { job: JOB },
        Event::Cancelled { job: JOB },
    ];
    let then = |more: Vec<Event>| {
        let events = cancel.clone().into_iter().chain(more);
        broken_within(&promises, events)
    };
    let seen = seen(Some(Cancelled), 0);
    assert_eq!(then(vec![started(ONE), seen.clone()]), BTreeSet::new());
    let late = vec![seen.clone(), started(ONE)];
    assert_eq!(then(late.clone()), only(Rule::Cancels));
    let elsewhere = [fault("two").to_vec(), late.clone()].concat();
    assert_eq!(then(elsewhere), only(Rule::Cancels));
    let out_of_reach = [fault("one").to_vec(), late].concat();
    assert_eq!(then(out_of_reach), BTreeSet::new());
}

#[test]
fn a_submission_that_is_never_answered_is_found() {
    let [submitted, acknowledged] = submitted(JOB, "ada");
    let listed = Event::Listed {
        key: format!("key-{JOB}"),
        job: JOB,
    };
    let end = [Event::FaultsOver, seen(Some(Cancelled), 0)];
    let asked = Event::CancelAsked { job: JOB };
    let with = |answer| {
        let events = [submitted.clone(), answer, asked.clone()];
        broken(events.into_iter().chain(end.clone()))
    };
    assert_eq!(with(acknowledged), BTreeSet::new());
    assert_eq!(with(listed), only(Rule::Finishes));
}

#[test]
fn work_that_does_not_end_is_found() {
    let begin = submitted(JOB, "ada");
    assert_eq!(broken(begin.clone()), only(Rule::Finishes));
    let runs = begin.clone().into_iter().chain([seen(Some(Running), 2500)]);
    assert_eq!(broken(runs), only(Rule::Finishes));
    let promises = Promises {
        settle: 1000,
        ..PROMISES
    };
    let late = |between| {
        let events = begin.clone().into_iter().chain([
            begun(ONE, 2500),
            started(ONE),
            task_ended(ONE),
            Event::FaultsOver,
        ]);
        let waits = std::iter::repeat_n(seen(Some(Running), 0), between);
        let end = ended(ONE, Success, 0);
        broken_within(&promises, events.chain(waits).chain([end]))
    };
    assert_eq!(late(0), BTreeSet::new());
    assert_eq!(late(1), only(Rule::Finishes));
    let what = "a guest".to_owned();
    assert_eq!(broken([Event::Left { what }]), only(Rule::Finishes));
}

proptest! {
    // A history has some thousand entries.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_farm_that_does_everything_right_breaks_no_rule(
        choices in prop::collection::vec(any::<u8>(), 0..400)
    ) {
        let report = check(&good::history(&choices), &PROMISES);
        prop_assert_eq!(&report.violations, &[]);
    }

    #[test]
    fn an_altered_byte_of_any_log_is_found(
        choices in prop::collection::vec(any::<u8>(), 100..400), which: prop::sample::Index
    ) {
        let mut entries = good::history(&choices).entries().to_vec();
        let logs = entries.iter_mut().filter_map(|entry| match &mut entry.event {
            Event::ReadWhole { bytes: Text(bytes), .. } => Some(bytes),
            _ => None,
        });
        let mut bytes: Vec<&mut u8> = logs.flatten().collect();
        prop_assume!(!bytes.is_empty());
        let byte = which.index(bytes.len());
        *bytes[byte] ^= 1;
        let broken = check(&History::new(entries), &PROMISES).broken_rules();
        prop_assert!(broken.contains(&Rule::LogsKept), "{:?}", broken);
    }

    #[test]
    fn a_line_left_out_of_what_guests_did_is_found_or_does_not_matter(
        choices in prop::collection::vec(any::<u8>(), 100..400), which: prop::sample::Index
    ) {
        let mut entries = good::history(&choices).entries().to_vec();
        let begun: Vec<usize> = (0..entries.len())
            .filter(|place| matches!(entries[*place].event, Event::Begun { .. }))
            .collect();
        prop_assume!(!begun.is_empty());
        let removed = entries.remove(begun[which.index(begun.len())]);
        let started = entries.iter().any(|entry| {
            matches!(entry.event, Event::TaskStarted { .. }) && entry.event.job() == removed.event.job()
        });
        let broken = check(&History::new(entries), &PROMISES).broken_rules();
        prop_assert_eq!(broken.contains(&Rule::BegunFirst), started);
    }
}
