//! `kiln admin check`: whether the logs and artifacts that the database knows of are there.

use kiln_server::Findings;
use kiln_store::Store;

use crate::{
    config::Objects,
    exit::{Exit, Failure},
    ui,
};

/// Looks at everything, and changes nothing.
pub async fn check(store: &Store, objects: &Objects) -> Result<Exit, Failure> {
    let found = kiln_server::check(store, objects.with_secret()?).await;
    tell(&found.map_err(|error| Failure::host(format!("{error:#}")))?)
}

fn tell(found: &Findings) -> Result<Exit, Failure> {
    for missing in &found.missing {
        ui::line(&ui::clean(missing));
    }
    let (objects, orphans) = (found.objects, found.orphans.len());
    ui::note(&format!(
        "{objects} objects, of which {orphans} are nobody's any more; `kiln serve` removes those"
    ));
    match found.missing.len() {
        0 => Ok(Exit::Success),
        missing => Err(Failure {
            exit: Exit::Failed,
            message: format!("{missing} are missing or not as they should be"),
        }),
    }
}
