//! What holds for every job.

use kiln_core::job::JobStatus;
use kiln_vm::dummy::{Call, Dummy, Start};
use kiln_worker::Body;
use proptest::prelude::*;

use crate::harness::{Build, Ran};

fn script() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "echo hello",
        "echo hello",
        "touch out",
        "fail 3",
        "exit 255",
        "complete-build",
        "(complete-build) || true",
        "vanish",
        "cut",
        "flood 5000 long",
        "garbage",
        "kill -9 $$",
    ])
}

fn manifest() -> impl Strategy<Value = String> {
    let package = prop::sample::select(vec!["", "packages: [jq]\n", "packages: [no-such]\n"]);
    let artifact = prop::sample::select(vec!["", "artifacts: [out]\n"]);
    let tasks = prop::collection::vec(script(), 1..5);
    (package, artifact, tasks).prop_map(|(package, artifact, tasks)| {
        let tasks = tasks.iter().enumerate();
        let tasks: String = tasks
            .map(|(n, script)| format!("- t{n}: {script}\n"))
            .collect();
        format!("{package}{artifact}tasks:\n{tasks}")
    })
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![9 => Just(Start::Ready), 1 => Just(Start::NeverAnswers)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_task_and_the_job_end_in_exactly_one_terminal_status(
        manifest in manifest(),
        start in start(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ran = runtime.block_on(Build::of(&manifest).on(Dummy::new(start)).run());
        check(&ran, start == Start::Ready);
    }
}

fn check(ran: &Ran, started_well: bool) {
    for (name, status) in &ran.outcome.tasks {
        let told = ran.told(name);
        let terminal = told.iter().filter(|status| status.is_terminal()).count();
        assert_eq!(terminal, 1, "{name}: {told:?}");
        assert_eq!(told.last(), Some(status));
    }
    assert!(ran.outcome.status.is_terminal());
    let ends = ran
        .state
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::JobEnded { status, .. } => Some(*status),
            _ => None,
        });
    assert_eq!(ends.collect::<Vec<_>>(), [ran.outcome.status]);
    let failed = ran.tasks().contains("failed");
    assert!(!(failed && ran.outcome.status == JobStatus::Success));
    let started = ran
        .json()
        .iter()
        .filter(|e| e["event"] == "step-started")
        .count();
    let ended = ran
        .json()
        .iter()
        .filter(|e| e["event"] == "step-ended")
        .count();
    assert_eq!(started, ended);
    let stops = ran.calls.iter().filter(|call| **call == Call::Stop).count();
    assert_eq!(stops, usize::from(started_well));
}
