//! `kiln admin backup` and `restore`: the database. Logs and artifacts are
//! files that never change once written; any program may copy them.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use kiln_store::{Restored, Store};

use super::failed;
use crate::{
    config::{Place, sqlite},
    exit::{Exit, Failure},
    host::data_dir::DataDir,
    ui,
};

/// Copies the database, while others use it.
pub async fn backup(store: &Store, file: &Path) -> Result<Exit, Failure> {
    let file = std::path::absolute(file).map_err(Failure::usage)?;
    store.backup(&file).await.map_err(failed)?;
    ui::note(&format!(
        "the database is in {}; logs and artifacts are in `objects` of the data directory",
        file.display()
    ));
    Ok(Exit::Success)
}

/// Puts a copy in its place.
pub async fn restore(place: &Place, copy: &Path) -> Result<Exit, Failure> {
    let Some(database) = place.file() else {
        return Err(Failure::usage(
            "this database is PostgreSQL's: `pg_restore` is what brings it back, and `kiln admin restored` comes after it",
        ));
    };
    let _held = DataDir::take(&place.data)?;
    let new = beside(&database, ".restoring");
    let here = |error: io::Error| Failure::host(format!("{}: {error}", new.display()));
    let copied = std::fs::copy(copy, &new);
    copied.map_err(|error| Failure::usage(format!("{}: {error}", copy.display())))?;
    let ended = match made_ours(&new).await {
        Ok(ended) => ended,
        Err(error) => {
            remove(&new).map_err(here)?;
            return Err(Failure::usage(format!("{}: {error}", copy.display())));
        }
    };
    File::open(&new)
        .and_then(|file| file.sync_all())
        .map_err(here)?;
    let old = put(&new, &database).map_err(here)?;
    let kept = old.map(|old| format!("; what was there is {}", old.display()));
    ui::note(&format!(
        "{} is the database now{}; {}",
        copy.display(),
        kept.unwrap_or_default(),
        said(ended)
    ));
    Ok(Exit::Success)
}

/// Makes a database that `pg_restore` brought back the farm's.
pub async fn restored(place: &Place) -> Result<Exit, Failure> {
    if place.owners_file().is_some() {
        return Err(Failure::usage(
            "this database is SQLite's: `kiln admin restore FILE` puts a copy in its place",
        ));
    }
    let config = kiln_store::Config {
        url: place.owners.clone(),
        migrate: false,
    };
    let store = Store::open(&config).await.map_err(Failure::host)?;
    let ended = store.restored().await.map_err(failed)?;
    ui::note(&format!("servers may start now; {}", said(ended)));
    Ok(Exit::Success)
}

fn said(ended: Restored) -> String {
    let Restored { failed, queued } = ended;
    format!("of the jobs that ran then, {failed} failed and {queued} wait again")
}

/// Whether this kiln can use it, and what becomes of what ran.
async fn made_ours(file: &Path) -> Result<Restored, String> {
    let config = kiln_store::Config {
        url: sqlite(file),
        migrate: false,
    };
    let store = Store::open(&config)
        .await
        .map_err(|error| error.to_string())?;
    let restored = store.restored().await;
    // Its log (`-wal`) is left behind.
    store.close().await;
    restored.map_err(|error| error.to_string())
}

/// The old database, its log included, is moved aside and kept.
fn put(new: &Path, database: &Path) -> io::Result<Option<PathBuf>> {
    let mut kept = None;
    if database.exists() {
        let seconds = jiff::Timestamp::now().as_second();
        let old = beside(database, &format!(".before-restore-{seconds}"));
        for suffix in ["-wal", "-shm"] {
            let file = beside(database, suffix);
            if file.exists() {
                std::fs::rename(&file, beside(&old, suffix))?;
            }
        }
        std::fs::rename(database, &old)?;
        kept = Some(old);
    }
    for suffix in ["-wal", "-shm"] {
        remove(&beside(new, suffix))?;
    }
    std::fs::rename(new, database)?;
    File::open(database.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(kept)
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
