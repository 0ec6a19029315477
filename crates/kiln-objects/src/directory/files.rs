//! Files below a directory, by the names that they would have as objects.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::disk;
use crate::Found;

/// The shards of which something is there.
pub(crate) fn shards(root: &Path) -> io::Result<BTreeSet<i32>> {
    let mut shards = BTreeSet::new();
    for kind in [disk::LOGS, disk::ARTIFACTS] {
        for entry in fs::read_dir(root.join(kind))? {
            let name = entry?.file_name();
            shards.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
        }
    }
    Ok(shards)
}

/// All files of a shard. What goes meanwhile may be missing.
pub(crate) fn list(root: &Path, shard: i32) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for kind in [disk::LOGS, disk::ARTIFACTS] {
        walk(root, &format!("{kind}/{shard}"), &mut found)?;
    }
    Ok(found)
}

fn walk(root: &Path, below: &str, found: &mut Vec<Found>) -> io::Result<()> {
    let Some(entries) = there(fs::read_dir(root.join(below)))? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        // All names below are ours or were checked: they are texts.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let key = format!("{below}/{name}");
        let Some(about) = there(entry.metadata())? else {
            continue;
        };
        if about.is_dir() {
            walk(root, &key, found)?;
        } else {
            found.push(Found {
                key,
                size: about.len(),
                modified: about.modified()?,
            });
        }
    }
    Ok(())
}

/// Removes a file, or all below a directory that is named with a slash at its end. What is
/// gone already is gone.
pub(crate) fn remove(root: &Path, key: &str) -> io::Result<()> {
    let path = Path::new(key);
    let removed = match key.ends_with('/') {
        true => fs::remove_dir_all(root.join(path)),
        false => fs::remove_file(root.join(path)),
    };
    there(removed)?;
    Ok(())
}

/// The name that is written there as whose all this is; written now, if there is none.
pub(crate) fn mark(root: &Path, name: &str) -> io::Result<String> {
    let path = root.join("farm");
    if let Some(found) = there(fs::read_to_string(&path))? {
        return Ok(found);
    }
    let aside = root.join(disk::INCOMING).join("farm");
    fs::write(&aside, name)?;
    fs::File::open(&aside)?.sync_all()?;
    fs::rename(&aside, &path)?;
    disk::sync_entries(root, &path)?;
    Ok(name.to_owned())
}

/// What is there, if it is.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
