//! What happens in which order when all goes well.

use kiln_core::job::JobStatus;
use kiln_vm::dummy::Call;
use kiln_worker::{Body, Cause};

use crate::harness::Build;

#[tokio::test]
async fn packages_come_before_anything_of_the_job_and_then_the_order_of_builds_sr_ht() {
    let ran = Build::of(
        "packages: [jq, git]\nrepositories: {extra: https://example.org/apt}\n\
         sources: [https://example.org/thing]\nartifacts: [out]\n\
         tasks:\n- one: echo 1 >out\n- two: echo 2\n",
    )
    .with_word(
        "git",
        "echo $* >>~/git; [ $1 = clone ] && mkdir thing; true",
    )
    .run()
    .await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.log());
    let seen: Vec<String> = ran
        .calls
        .iter()
        .map(|call| match call {
            Call::Exec(command) if command.contains("eval") => "settings".into(),
            Call::Exec(command) if command.contains("clone") => "clone".into(),
            Call::Exec(command) if command.contains("/one") => "one".into(),
            Call::Exec(command) if command.contains("/two") => "two".into(),
            Call::Exec(command) if command.contains("cat --") => "read".into(),
            Call::Exec(_) => "look".into(),
            Call::AddRepository(name, source) => format!("repository {name} {source}"),
            Call::Install(packages) => format!("install {packages:?}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            "Start",
            "repository extra https://example.org/apt",
            r#"install ["jq", "git"]"#,
            "settings",
            "clone",
            // Packages may have changed what a login gives.
            "FreshLogin",
            "one",
            "FreshLogin",
            "two",
            // And the last task may have broken the connection.
            "FreshLogin",
            "look",
            "read",
            "Stop",
        ]
    );
}

#[tokio::test]
async fn begun_is_told_before_the_first_task_and_the_end_before_the_hold() {
    let ran = Build::of("tasks:\n- one: echo\n- two: echo\n").run().await;
    assert_eq!(
        ran.state.journal,
        [
            "begun",
            "one running",
            "one success",
            "two running",
            "two success",
            "held success"
        ]
    );
    assert!(matches!(
        ran.state.events.first().unwrap().body,
        Body::JobStarted { .. }
    ));
    assert!(matches!(
        ran.state.events.last().unwrap().body,
        Body::JobEnded { .. }
    ));
}

#[tokio::test]
async fn no_task_runs_when_begun_is_refused() {
    let ran = Build::script("touch ran").refused_at_begun().run().await;
    assert_eq!(ran.outcome.cause, Cause::LogLost);
    assert_eq!(ran.tasks(), "build=skipped");
    assert!(!ran.build.home().join("ran").exists());
}

#[tokio::test]
async fn a_job_without_tasks_is_held_for_its_shell() {
    let ran = Build::of("shell: true\n").run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
    assert_eq!(ran.state.journal, ["begun", "held success"]);
}

#[tokio::test]
async fn a_hold_ends_when_its_guest_goes() {
    let ran = Build::script("(while [ ! -e held ]; do sleep 0.01; done; vanish) &")
        .held_for_ever()
        .run()
        .await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
    assert_eq!(ran.state.journal.last().unwrap(), "held success");
    assert_eq!(ran.calls.last(), Some(&Call::Stop));
}

#[tokio::test]
async fn complete_build_ends_it_well_and_skips_the_rest() {
    let ran = Build::of(
        "artifacts: [out]\ntasks:\n- one: touch out\n- two: |\n    complete-build\n    fail 1\n- three: fail 1\n",
    )
    .run()
    .await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
    assert_eq!(ran.tasks(), "one=success two=success three=skipped");
    assert_eq!(ran.reason(), "task two completed the build");
    assert_eq!(ran.kept(), ["out"]);
}

#[tokio::test]
async fn status_255_alone_completes_nothing() {
    let ran = Build::of("tasks:\n- one: exit 255\n- two: echo\n")
        .run()
        .await;
    assert_eq!(ran.tasks(), "one=failed two=skipped");
    assert_eq!(ran.reason(), "task one failed with exit status 255");
}

#[tokio::test]
async fn the_environment_reaches_the_tasks_and_what_one_adds_the_next_sees() {
    let ran = Build::of(
        "environment: {a: 1, b: [x, y z], c: [was, a list], d: \"it's\"}\ntasks:\n\
         - one: echo 'export e=5' >>~/.buildenv\n\
         - two: |\n    { set +x; } 2>/dev/null\n    \
             echo \"$a|${b[1]}|$c|${#c[@]}|$d|$e|$CI_NAME|$JOB_ID|$JOB_URL|$PWD|$(cat)\"\n",
    )
    .with_env("c", "from outside")
    .with_env("a", "2")
    .run()
    .await;
    let home = ran.build.home();
    let home = home.canonicalize().unwrap();
    let url = "https://kiln.example/jobs/7";
    let expected = format!(
        "2|y z|from outside|1|it's|5|sourcehut|7|{url}|{}|\n",
        home.display()
    );
    assert_eq!(ran.text("two"), expected);
}

#[tokio::test]
async fn what_only_a_farm_can_do_is_warned_of() {
    let ran = Build::of(
        "oauth: builds.sr.ht/JOBS:RO\ntriggers:\n- {action: email, condition: always, to: a@example.org}\n\
         tasks:\n- build: echo\n",
    )
    .run()
    .await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
    assert!(ran.log().contains("[kiln] warning: oauth: only a farm"));
    assert!(ran.log().contains("[kiln] warning: triggers: only a farm"));
    let warnings = ran.json().into_iter().filter(|e| e["event"] == "warning");
    assert_eq!(warnings.count(), 2);
}

#[tokio::test]
async fn an_image_may_replace_the_preamble() {
    let mut build = Build::script("echo $greeting; false; echo on");
    build.job.guest.image.login.preamble =
        Some("#!/usr/bin/env bash\n. ~/.buildenv\ngreeting=hello".into());
    assert_eq!(build.run().await.text("build"), "hello\non\n");
}

#[tokio::test]
async fn what_a_task_leaves_in_the_background_lives_on_and_holds_nothing_up() {
    let ran = Build::of(
        "tasks:\n- one: |\n    sleep 600 &\n    echo $! >pid\n- two: kill -0 $(cat pid)\n",
    )
    .run()
    .await;
    assert_eq!(ran.tasks(), "one=success two=success");
    let pid = std::fs::read_to_string(ran.build.home().join("pid")).unwrap();
    let environ = std::fs::read(format!("/proc/{}/environ", pid.trim())).unwrap_or_default();
    assert!(
        environ.is_empty(),
        "the guest is stopped and its processes live"
    );
}

#[tokio::test]
async fn more_packages_than_fit_are_installed_one_portion_after_the_other() {
    let names: Vec<String> = (0..5000).map(|n| format!("package-{n:05}")).collect();
    let manifest = format!("packages: [{}]\ntasks:\n- one: echo\n", names.join(", "));
    let ran = Build::of(&manifest).run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.log());
    let portions: Vec<&Vec<String>> = ran
        .calls
        .iter()
        .filter_map(|call| match call {
            Call::Install(packages) => Some(packages),
            _ => None,
        })
        .collect();
    assert_eq!(portions.len(), 2);
    let installed: Vec<String> = portions.into_iter().flatten().cloned().collect();
    assert_eq!(installed, names);
}
