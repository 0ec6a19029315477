//! The keys of objects. Each says whose it is.

use std::io;

use kiln_core::farm::{JobId, LogName};
use object_store::path::Path;

use crate::{is_name, no_name};

/// Written to see whether one can.
pub(crate) const READY: &str = "ready";

/// Below which the pieces of a log are.
pub(crate) fn of_log(log: &LogName) -> io::Result<Path> {
    let LogName::Task(job, task) = log else {
        return Ok(of_job("logs", log.job()).join("log"));
    };
    match is_name(task) {
        true => Ok(of_job("logs", *job).join("tasks").join(task.as_str())),
        false => Err(no_name()),
    }
}

/// A new piece's: no other one ever has it.
pub(crate) fn of_piece(log: &LogName, start: u64) -> io::Result<String> {
    Ok(of_log(log)?
        .join(format!("{start:020}-{}", random()?))
        .into())
}

/// A packed log's: no other one ever has it.
pub(crate) fn of_packed(log: &LogName) -> io::Result<String> {
    Ok(of_log(log)?.join(format!("packed-{}", random()?)).into())
}

/// What nobody else has.
fn random() -> io::Result<String> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// An artifact's.
pub(crate) fn of_artifact(job: JobId, index: u32) -> String {
    of_job("artifacts", job).join(index.to_string()).into()
}

fn of_job(kind: &str, job: JobId) -> Path {
    Path::from_iter([kind, &(job.0 / 1000).to_string(), &job.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whose_it_is_and_is_never_another_ones() {
        let task = LogName::Task(JobId(1234), "build".to_owned());
        let key = of_piece(&task, 7).unwrap();
        assert!(
            key.starts_with("logs/1/1234/tasks/build/00000000000000000007-"),
            "{key}"
        );
        assert_ne!(key, of_piece(&task, 7).unwrap());
        let job = LogName::Job(JobId(5));
        assert_eq!(of_log(&job).unwrap().as_ref(), "logs/0/5/log");
        assert_eq!(of_artifact(JobId(1234), 2), "artifacts/1/1234/2");
    }

    #[test]
    fn a_strange_name_stays_one_part_of_its_key() {
        for name in ["a%2Fb", "ä b", "*", "%"] {
            let key = of_log(&LogName::Task(JobId(1), name.to_owned())).unwrap();
            assert_eq!(key.parts().count(), 5, "{key}");
            assert_eq!(Path::parse(key.as_ref()).unwrap(), key);
        }
        assert!(of_log(&LogName::Task(JobId(1), "..".to_owned())).is_err());
    }
}
