//! What is kept of a run: logs, events, artifacts.

use serde_json::Value;

use crate::{
    harness::{Ended, Kiln},
    servers::sh,
};

/// Not UTF-8, a zero, a colour, no newline at the end.
const BYTES: &[u8] = b"\xff\xfe \0 \x1b[31mred\x1b[0m end";

#[test]
fn logs_events_and_artifacts_are_exact_and_complete() {
    let kiln = Kiln::new();
    let out = kiln.dir().join("out");
    let ended = kiln
        .run(
            r"
tasks:
- bytes: |
    { set +x; } 2>/dev/null
    printf '\377\376 \0 \033[31mred\033[0m end'
- make: |
    mkdir -p dist
    head -c 3000000 /dev/urandom >dist/blob
    : >empty
    sha256sum dist/blob
artifacts:
- dist/blob
- empty
",
        )
        .args(["--json", "--artifacts", "out"])
        .expect_success();

    assert!(ended.task_log_bytes("bytes").ends_with(BYTES), "{ended}");
    events_are_complete(&ended);

    let sum = sh(ended.folder(), "sha256sum <artifacts/blob | cut -d' ' -f1");
    ended.expect_line("make", &format!("{sum}  dist/blob"));
    assert_eq!(ended.artifact("blob").len(), 3_000_000);
    assert_eq!(ended.artifact("empty"), b"");
    assert_eq!(
        std::fs::read(out.join("blob")).expect("--artifacts"),
        ended.artifact("blob")
    );
    assert!(out.join("empty").is_file());
    let events = ended.events();
    let blob = events
        .iter()
        .find(|event| event["file"] == "blob")
        .expect("an artifact's event");
    assert_eq!(blob["sha256"], sum);
    assert_eq!(blob["path"], "dist/blob");
    assert_eq!(blob["size"], 3_000_000);
}

/// Whoever reads the events alone knows all that happened.
fn events_are_complete(ended: &Ended) {
    let events = ended.events();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().expect("a name"))
        .collect();
    assert!(
        events
            .iter()
            .all(|event| event["v"] == 1 && event["at"].is_u64())
    );
    assert_eq!(names.first(), Some(&"log"), "{names:?}");
    assert!(names.contains(&"job-started"));
    let last = events.last().expect("events");
    assert_eq!(
        (&last["event"], &last["status"]),
        (&"job-ended".into(), &"success".into())
    );
    for step in ["start", "settings", "artifacts"] {
        let of_step: Vec<&Value> = events
            .iter()
            .filter(|event| event["step"] == step)
            .collect();
        assert_eq!(of_step.len(), 2, "{step}");
        assert_eq!(
            (&of_step[0]["event"], &of_step[1]["ok"]),
            (&"step-started".into(), &true.into())
        );
    }
    for task in ["bytes", "make"] {
        let told = events
            .iter()
            .filter(|event| event["event"] == "task" && event["task"] == task);
        let told: Vec<&str> = told
            .map(|event| event["status"].as_str().expect("a status"))
            .collect();
        assert_eq!(told, ["running", "success"]);
        let log = log_of(&events, &task.into());
        assert_eq!(
            log,
            ended.task_log_bytes(task),
            "the log of {task} by its events"
        );
    }
    assert_eq!(
        String::from_utf8_lossy(&log_of(&events, &Value::Null)),
        ended.log()
    );
}

fn log_of(events: &[Value], task: &Value) -> Vec<u8> {
    let logs = events
        .iter()
        .filter(|event| event["event"] == "log" && event["task"] == *task);
    let bytes = logs.flat_map(|event| match event["bytes"].as_str() {
        Some(base64) => decode(base64),
        None => event["text"].as_str().expect("a text").as_bytes().to_vec(),
    });
    bytes.collect()
}

/// Base64, as RFC 4648 has it.
fn decode(text: &str) -> Vec<u8> {
    let alphabet: Vec<u8> = (b'A'..=b'Z')
        .chain(b'a'..=b'z')
        .chain(b'0'..=b'9')
        .chain(*b"+/")
        .collect();
    let value = |byte: u8| alphabet.iter().position(|&letter| letter == byte);
    let mut bytes = Vec::new();
    let (mut bits, mut length) = (0, 0);
    for value in text.bytes().map_while(value) {
        bits = (bits << 6 | value) & 0xfff;
        length += 6;
        if length >= 8 {
            length -= 8;
            bytes.push(u8::try_from(bits >> length & 0xff).expect("eight bits"));
        }
    }
    bytes
}
