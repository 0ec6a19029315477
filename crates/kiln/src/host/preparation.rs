//! What of a job a guest may be kept with.

use std::time::Duration;

use kiln_core::manifest::Manifest;
use kiln_vm::machine::Preparation;

/// A manifest's repositories and packages, of guests that are this owner's alone. None
/// where there is nothing to install, or a kept guest is not to get any age.
pub fn of(
    manifest: &Manifest,
    owner: String,
    max_age: Duration,
    fresh: bool,
) -> Option<Preparation> {
    let repositories = manifest.repositories().iter();
    let repositories: Vec<(String, String)> = repositories
        .map(|repository| (repository.name.clone(), repository.source.clone()))
        .collect();
    let packages = manifest.packages().to_vec();
    if (repositories.is_empty() && packages.is_empty()) || max_age.is_zero() {
        return None;
    }
    Some(Preparation {
        owner,
        repositories,
        packages,
        max_age,
        fresh,
    })
}
