//! The first message of a worker's socket, and what is taken of what workers say about
//! themselves.

use std::collections::BTreeMap;

use kiln_core::farm::{Labels, OfferedImage, limits};
use kiln_store::model::{Hello, Mood, SessionState};
use kiln_wire::message::{self, FromWorker, PROTOCOL, State};
use serde::Deserialize;

/// Slots of one worker.
const SLOTS: u32 = 4096;
/// A version, in bytes.
const VERSION: usize = 64;
/// An image's name or digest, in bytes.
const NAME: usize = 256;
/// A sentence for the operator, in bytes; what is over is cut.
const SENTENCE: usize = 512;

/// What every version of a hello has.
#[derive(Debug, Deserialize)]
struct AnyHello {
    #[serde(rename = "type")]
    kind: String,
    protocol: u32,
    version: Option<String>,
}

/// A hello, or a sentence that says why it is none.
pub(super) fn read(text: &str) -> Result<message::Hello, String> {
    let any: Result<AnyHello, _> = serde_json::from_str(text);
    let any = any.map_err(|error| format!("the first message is no hello: {error}"))?;
    if any.kind != "hello" {
        let kind: String = any.kind.chars().take(32).collect();
        return Err(format!("the first message is a hello, not `{kind}`"));
    }
    if any.protocol != PROTOCOL {
        let version: String = any.version.unwrap_or_default().chars().take(32).collect();
        return Err(format!(
            "this server (kiln {}) speaks version {PROTOCOL} of the workers' protocol, and this \
             worker (kiln {version}) version {}: run the same kiln on both",
            env!("CARGO_PKG_VERSION"),
            any.protocol
        ));
    }
    match serde_json::from_str(text) {
        Ok(FromWorker::Hello(hello)) => Ok(hello),
        Ok(_) => Err("the first message is a hello".to_owned()),
        Err(error) => Err(format!("this hello can't be read: {error}")),
    }
}

/// What the store keeps of a hello, or a sentence that says what is over its limit.
pub(super) fn checked(hello: message::Hello) -> Result<Hello, String> {
    if hello.version.len() > VERSION {
        return Err(format!("a version has at most {VERSION} bytes"));
    }
    if hello.slots > SLOTS {
        return Err(format!("a worker has at most {SLOTS} slots"));
    }
    leases(hello.leases.len())?;
    check_labels(&hello.labels)?;
    Ok(Hello {
        session: hello.session,
        version: hello.version,
        slots: hello.slots,
        state: state(hello.state, &hello.labels)?,
        leases: hello.leases,
    })
}

/// Whether so many leases can be one worker's.
pub(super) fn leases(count: usize) -> Result<(), String> {
    if count > SLOTS as usize {
        return Err(format!("a worker has at most {SLOTS} leases"));
    }
    Ok(())
}

/// A worker's state with the labels of its hello.
pub(super) fn state(
    state: State,
    labels: &BTreeMap<String, String>,
) -> Result<SessionState, String> {
    if state.images.len() > limits::IMAGES {
        return Err(format!("a worker offers at most {} images", limits::IMAGES));
    }
    for image in &state.images {
        check_image(image)?;
    }
    let mood = match state.mood {
        message::Mood::Ready => Mood::Ready,
        message::Mood::Draining => Mood::Draining,
        message::Mood::Unwell { reason } => Mood::Unwell(cut(reason)),
    };
    Ok(SessionState {
        capacity: state.capacity.min(SLOTS),
        labels: Labels {
            images: state.images,
            labels: labels.clone(),
        },
        mood,
        short_of: state.short_of.map(cut),
    })
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    if labels.len() > limits::LABELS {
        return Err(format!("a worker has at most {} labels", limits::LABELS));
    }
    for (key, value) in labels {
        let long = key.len() > limits::LABEL || value.len() > limits::LABEL;
        if key.is_empty() || long {
            let limit = limits::LABEL;
            return Err(format!("a label's key and value have 1 to {limit} bytes"));
        }
    }
    Ok(())
}

fn check_image(image: &OfferedImage) -> Result<(), String> {
    let name = kiln_core::manifest::ImageName::parse(&image.name);
    if name.is_err() || image.name.len() > NAME {
        return Err("a worker offers an image whose name no manifest can have".to_owned());
    }
    let known = |arch: &str| !arch.is_empty() && arch.len() <= NAME;
    if !known(&image.arch) || image.digest.len() > NAME {
        return Err(format!(
            "the image {} has no architecture, or its digest is too long",
            image.name
        ));
    }
    Ok(())
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SENTENCE));
    text.retain(|character| !character.is_control());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_another_version_is_told_both_versions_whatever_else_it_says() {
        let text = r#"{"type":"hello","protocol":7,"version":"9.1","new":[1]}"#;
        let refused = read(text).unwrap_err();
        assert!(refused.contains("version 1 "), "{refused}");
        assert!(refused.contains("(kiln 9.1) version 7"), "{refused}");
    }

    #[test]
    fn what_is_no_hello_is_told_so() {
        for text in [
            "",
            "{}",
            "null",
            r#"{"type":"renew","protocol":1}"#,
            "\u{1f980}",
        ] {
            assert!(read(text).unwrap_err().contains("hello"), "{text}");
        }
    }
}
