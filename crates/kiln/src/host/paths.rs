//! Where files are: the XDG base directories, and images.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{cli::ImagesArgs, exit::Failure};

/// Where images are when nobody has any of their own.
const SYSTEM_IMAGES: &str = "/var/lib/kiln/images";

/// The images directory: as asked for, else the user's where it exists, else
/// the system's where that exists, else the user's.
pub fn images(args: &ImagesArgs) -> Result<PathBuf, Failure> {
    images_at(args.images.as_deref())
}

/// The same, for one that need not have been asked for.
pub fn images_at(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(asked) = asked {
        return absolute(asked);
    }
    let own = data()?.join("images");
    let system = Path::new(SYSTEM_IMAGES);
    if !own.is_dir() && system.is_dir() {
        return Ok(system.to_owned());
    }
    Ok(own)
}

/// Where runs are kept.
pub fn runs() -> Result<PathBuf, Failure> {
    Ok(xdg("XDG_STATE_HOME", ".local/state")?.join("kiln/runs"))
}

/// Where files are of guests that belong to no run.
pub fn scratch() -> Result<PathBuf, Failure> {
    Ok(xdg("XDG_STATE_HOME", ".local/state")?.join("kiln/scratch"))
}

/// Where answers are remembered that can be had again, if anywhere.
pub fn cache() -> Option<PathBuf> {
    Some(xdg("XDG_CACHE_HOME", ".cache").ok()?.join("kiln"))
}

/// Where sockets for `kiln image control` are: private to the user.
pub fn control() -> Result<PathBuf, Failure> {
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_absolute() => Ok(Path::new(&dir).join("kiln")),
        _ => Ok(xdg("XDG_STATE_HOME", ".local/state")?.join("kiln/control")),
    }
}

/// Where the user's own settings are.
pub fn settings() -> Result<PathBuf, Failure> {
    Ok(xdg("XDG_CONFIG_HOME", ".config")?.join("kiln"))
}

/// This program, for the helper inside namespaces.
pub fn this_program() -> Result<PathBuf, Failure> {
    env::current_exe()
        .map_err(|error| Failure::host(format!("the kiln binary can't be found: {error}")))
}

/// A path that does not depend on the working directory.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Where what kiln keeps is.
pub fn data() -> Result<PathBuf, Failure> {
    Ok(xdg("XDG_DATA_HOME", ".local/share")?.join("kiln"))
}

/// Relative values are to be ignored (XDG Base Directory Specification).
fn xdg(variable: &str, default: &str) -> Result<PathBuf, Failure> {
    if let Some(dir) = env::var_os(variable).map(PathBuf::from)
        && dir.is_absolute()
    {
        return Ok(dir);
    }
    match env::var_os("HOME").map(PathBuf::from) {
        Some(home) if home.is_absolute() => Ok(home.join(default)),
        _ => Err(Failure::host(format!(
            "neither {variable} nor HOME is set to a directory"
        ))),
    }
}
