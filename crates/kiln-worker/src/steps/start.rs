//! The guest, with the job's repositories and packages in it.
//!
//! They come before anything of the job's own, so that a guest which has them
//! can be kept, and the next job that wants the same starts from there.

use std::time::{Duration, Instant};

use kiln_vm::machine::{Guest, GuestSpec, Kept, Machine};

use super::{packages, repositories};
use crate::{
    Job, Step,
    outcome::Failure,
    progress::{Progress, seconds},
};

/// Puts a guest into `place` and gives it. What is in there when this fails, or
/// is dropped, is the caller's to stop.
pub(crate) async fn guest_with_packages<'a>(
    machine: &dyn Machine,
    job: &Job,
    progress: &mut Progress<'_>,
    place: &'a mut Option<Box<dyn Guest>>,
) -> Result<&'a dyn Guest, Failure> {
    let guest = place.insert(started(machine, &job.guest, job, progress).await?);
    if let Some(age) = guest.prepared() {
        tell_prepared(job, age, progress).await?;
        return Ok(&**guest);
    }
    install(job, guest.as_ref(), progress).await?;
    // Nothing is kept of what nobody asks for again.
    if job.guest.preparation.is_none() {
        return Ok(&**guest);
    }
    let begun = Instant::now();
    match guest.keep().await {
        Kept::Not => {}
        Kept::As(other) => {
            *guest = other;
            let took = seconds(begun.elapsed());
            let line = format!("kept for the next job, in {took}");
            progress.say(&line).await?;
        }
        Kept::Lost => {
            let message = "the guest was lost when it was to be kept with its packages; they are installed again";
            progress.warn(message).await?;
            let spec = GuestSpec {
                preparation: None,
                ..job.guest.clone()
            };
            *guest = started(machine, &spec, job, progress).await?;
            install(job, guest.as_ref(), progress).await?;
        }
    }
    Ok(&**guest)
}

async fn install(job: &Job, guest: &dyn Guest, progress: &mut Progress<'_>) -> Result<(), Failure> {
    repositories::run(job, guest, progress).await?;
    packages::run(job, guest, progress).await
}

async fn started(
    machine: &dyn Machine,
    spec: &GuestSpec,
    job: &Job,
    progress: &mut Progress<'_>,
) -> Result<Box<dyn Guest>, Failure> {
    let image = job.manifest.image.to_string();
    progress.step_begins(Step::Start, &image).await?;
    let started = machine.start(spec).await.map_err(Failure::Start)?;
    progress.step_ends().await?;
    Ok(started)
}

async fn tell_prepared(
    job: &Job,
    age: Duration,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let what = match job.manifest.packages() {
        [] => "repositories",
        _ => "packages",
    };
    let age = words(age);
    let line = format!("{what} from a template of {age} ago");
    progress.say(&line).await
}

/// How long ago, as people say it.
fn words(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_as_people_do() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (150, "2 min"),
            (3 * 3600 + 5, "3 h"),
            (3 * 86_400, "3 days"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
