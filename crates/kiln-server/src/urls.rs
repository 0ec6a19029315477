//! Where people find things.

use std::fmt::Write as _;

use kiln_core::farm::{ArtifactId, JobId};

/// A user of this farm, and of no other.
pub(crate) fn user(origin: &str, name: &str) -> String {
    format!("{origin}/~{}", escaped(name))
}

/// A job's page, by which people and guests name it.
pub(crate) fn job(origin: &str, owner: &str, job: JobId) -> String {
    format!("{}/job/{job}", user(origin, owner))
}

/// A job's own log.
pub(crate) fn job_log(origin: &str, job: JobId) -> String {
    format!("{origin}/query/log/{job}/log")
}

/// A task's log.
pub(crate) fn task_log(origin: &str, job: JobId, task: &str) -> String {
    format!("{origin}/query/log/{job}/{}/log", escaped(task))
}

/// An artifact's download.
pub(crate) fn artifact(origin: &str, id: ArtifactId, name: &str) -> String {
    format!("{origin}/artifacts/{id}/{}", escaped(name))
}

/// One segment of a path: all but RFC 3986's unreserved characters in per cent.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
