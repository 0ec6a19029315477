//! Logs are bytes, and no more of them than there may be.

use kiln_core::job::JobStatus;
use kiln_worker::{Body, LogId};

use crate::harness::Build;

const SILENT: &str = "{ set +x; } 2>/dev/null\n";

fn silent(script: &str) -> Build {
    Build::script(&format!("{SILENT}{script}"))
}

#[tokio::test]
async fn bytes_arrive_as_they_were_written() {
    let ran = silent(r"printf '\377\000\r\n\033[31m\303'; printf 'no newline' >&2")
        .run()
        .await;
    let mut expected = b"\xff\0\r\n\x1b[31m\xc3no newline".to_vec();
    assert_eq!(ran.output("build"), expected);
    let ran = silent("garbage").run().await;
    expected = b"\xff\xfe\0garbage\r\x1b[31m\n".to_vec();
    assert_eq!(ran.output("build"), expected);
}

#[tokio::test]
async fn output_and_errors_keep_their_order() {
    let ran = silent("for i in 1 2 3; do echo out $i; echo err $i >&2; done")
        .run()
        .await;
    assert_eq!(
        ran.text("build"),
        "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    );
}

#[tokio::test]
async fn a_log_is_cut_at_its_limit_with_one_line_and_the_job_goes_on() {
    let ran = Build::of(&format!(
        "tasks:\n- one: |\n    {{ set +x; }} 2>/dev/null\n    flood 5000000 long\n    touch done\n- two: |\n    {}echo two\n",
        SILENT.replace('\n', "\n    ")
    ))
    .limited(|limits| limits.log = 1 << 20)
    .run()
    .await;
    assert_eq!(ran.outcome.status, JobStatus::Success, "{}", ran.all_text());
    let output = ran.output("one");
    let notice = "\n[kiln] the limit of 1 MiB for this log is reached: no more is kept\n";
    assert_eq!(output.len(), (1 << 20) + notice.len());
    assert!(output[..1 << 20].iter().all(|byte| *byte == b'.'));
    assert!(output.ends_with(notice.as_bytes()));
    assert!(ran.build.home().join("done").exists());
    assert_eq!(ran.text("two"), "two\n");
}

#[tokio::test]
async fn all_logs_together_have_a_limit_too() {
    let flood = "|\n    { set +x; } 2>/dev/null\n    flood 1000\n";
    let ran = Build::of(&format!(
        "tasks:\n- one: {flood}\n- two: {flood}\n- three: {flood}\n"
    ))
    .limited(|limits| limits.logs = 1500)
    .run()
    .await;
    let notice = "[kiln] the limit of 1.4 KiB for all logs of this job together is reached: \
                  no more is kept\n";
    assert_eq!(ran.output("one").len(), 1000);
    assert!(
        ran.text("two").ends_with(&format!(".\n{notice}")) || ran.text("two").ends_with(notice)
    );
    assert_eq!(ran.text("three"), notice);
    assert_eq!(ran.tasks(), "one=success two=success three=success");
}

#[tokio::test]
async fn a_line_of_100_mb_takes_no_memory() {
    let before = resident();
    let ran = silent("flood 100000000 long").only_counting().run().await;
    assert_eq!(ran.outcome.status, JobStatus::Success);
    let length = ran.state.lengths[&LogId::Task("build".into())];
    assert!(length >= 100_000_000, "{length}");
    assert!(ran.state.longest <= 64 * 1024, "{}", ran.state.longest);
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn the_jobs_log_tells_its_steps() {
    let ran = Build::of("packages: [jq]\ntasks:\n- build: echo\n")
        .run()
        .await;
    let log = ran.log();
    let mut lines = log.lines();
    for begin in [
        "[kiln] job 7 on dummy",
        "[kiln] start: dummy",
        "[kiln] start: done in ",
        "[kiln] packages: jq",
        "installed jq",
        "[kiln] packages: done in ",
        "[kiln] settings: tasks, environment, secrets",
        "[kiln] settings: done in ",
        "[kiln] task build",
        "[kiln] task build: success (exit 0) after ",
        "[kiln] success after ",
    ] {
        let line = lines.next().unwrap_or_default();
        assert!(line.starts_with(begin), "{line:?} is not {begin:?}");
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn an_event_has_the_bytes_only_where_the_text_is_not_enough() {
    let task = LogId::Task("build".into());
    let json = |bytes: &[u8]| serde_json::to_value(Body::log(&task, bytes)).unwrap();
    assert_eq!(
        json(b"hello\n"),
        serde_json::json!({"event": "log", "task": "build", "text": "hello\n"})
    );
    let lossy = json(b"a\xff");
    assert_eq!(lossy["text"], "a\u{fffd}");
    assert_eq!(lossy["bytes"], "Yf8=");
    // A replacement character that the guest wrote is text.
    assert_eq!(json("\u{fffd}".as_bytes()).get("bytes"), None);
    let job = serde_json::to_value(Body::log(&LogId::Job, b"x")).unwrap();
    assert_eq!(job.get("task"), None);
}

#[tokio::test]
async fn every_event_is_one_line_with_the_common_fields() {
    let ran = Build::of("tasks:\n- build: fail 4\n").run().await;
    let events = ran.json();
    for event in &events {
        assert_eq!(event["v"], 1);
        assert!(
            event["at"].is_u64() && event["event"].is_string(),
            "{event}"
        );
        assert!(!event.to_string().contains('\n'));
    }
    let end = events.last().unwrap();
    assert_eq!(end["event"], "job-ended");
    assert_eq!(end["status"], "failed");
    assert_eq!(end["cause"], "task-failed");
    assert_eq!(end["task"], "build");
    assert_eq!(end["exit"], 4);
    assert!(end["duration_ms"].is_u64());
}
