//! Packages by the image's `install`: all at once, or in portions when they are
//! more than the way to it can take.

use kiln_vm::machine::Guest;

use super::first_few;
use crate::{Job, LogId, Step, outcome::Failure, progress::Progress};

/// Bytes of names. `guest_ssh` takes 64 KiB, quotes and the image's own script
/// included.
const PORTION: usize = 48 << 10;

pub(super) async fn run(
    job: &Job,
    guest: &dyn Guest,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let packages = job.manifest.packages();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    progress.step_begins(Step::Packages, &names).await?;
    let mut log = progress.logs.sink(&LogId::Job);
    for portion in portions(packages) {
        let code = guest
            .install(portion, &mut log)
            .await
            .map_err(|error| Failure::guest(Step::Packages, error))?;
        if !code.success() {
            let names = first_few(portion);
            let reason = format!("the image could not install {names} (exit {})", code.0);
            return Err(Failure::step(Step::Packages, reason));
        }
    }
    progress.step_ends().await
}

/// Parts of the list, in its order. A name that is longer than a portion was
/// refused before there was a guest.
fn portions(packages: &[String]) -> impl Iterator<Item = &[String]> {
    let mut size = 0;
    packages.chunk_by(move |name, next| {
        // Each with a space.
        size += name.len() + 1;
        let fits = size + next.len() < PORTION;
        if !fits {
            size = 0;
        }
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_installed_in_portions_that_miss_nothing() {
        let list = |count: usize| -> Vec<String> {
            (0..count).map(|n| format!("package-{n:05}")).collect()
        };
        assert_eq!(portions(&list(3)).count(), 1);
        let long = list(20_000);
        let parts: Vec<&[String]> = portions(&long).collect();
        assert!(parts.iter().all(|part| part.join(" ").len() <= PORTION));
        assert_eq!(parts.len(), (20_000 * 14_usize).div_ceil(PORTION));
        assert_eq!(parts.concat(), long);
    }
}
