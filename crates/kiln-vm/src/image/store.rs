//! Where images are, and finding one.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use kiln_core::{arch, suggest::nearest};

use super::{Image, functions::Variables};
use crate::machine::Login;

/// A `config.yml` is a handful of lines.
const MAX_CONFIG: u64 = 64 * 1024;

/// A directory of images.
#[derive(Debug, Clone)]
pub struct Store {
    base: PathBuf,
}

/// How many images an error names.
const MAX_NAMED: usize = 10;

/// One row of a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    /// `debian/bookworm`.
    pub name: String,
    /// What the name is a link to, where it is one.
    pub link: Option<PathBuf>,
    /// The architectures that have a disk, with the disk's size in bytes and
    /// the time it was written.
    pub disks: Vec<(String, u64, SystemTime)>,
}

/// Why an image can't be had.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is none of that name.
    #[error("no image `{name}` in {}{}", base.display(), suggestion(.name, .known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where.
        base: PathBuf,
        /// What there is.
        known: Vec<String>,
    },
    /// There is, but not for this architecture.
    #[error("image `{name}` has no disk for {arch}; there is {}", had(.known))]
    Arch {
        /// The image.
        name: String,
        /// The architecture.
        arch: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Its `config.yml` makes no sense.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

fn suggestion(name: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("; the directory has no images. Make one with `kiln image build {name}`");
    }
    let words: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(meant) = nearest(name, &words) {
        return format!("; did you mean {meant}?");
    }
    let shown = words.get(..MAX_NAMED).unwrap_or(&words).join(", ");
    let more = match words.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; there is {shown}{more}. `kiln image build` makes others")
}

fn had(known: &[String]) -> String {
    if known.is_empty() {
        "none at all".into()
    } else {
        known.join(", ")
    }
}

impl Store {
    /// The images in this directory, which need not exist.
    #[must_use]
    pub fn new(base: PathBuf) -> Self {
        Self { base }
    }

    /// The directory.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The directory of an image that has a `functions` file.
    ///
    /// # Errors
    /// [`FindError::Unknown`].
    pub fn directory(&self, name: &str) -> Result<PathBuf, FindError> {
        let dir = self.base.join(name);
        // The manifest's parser knows what an image may be called; a name from
        // the command line was not there.
        let plain = name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.'));
        if plain && dir.join("functions").is_file() {
            return Ok(dir);
        }
        Err(FindError::Unknown {
            name: name.to_owned(),
            base: self.base.clone(),
            known: self.list().into_iter().map(|image| image.name).collect(),
        })
    }

    /// An image for an architecture: the one asked for, else the image's own
    /// default, else this host's.
    ///
    /// # Errors
    /// [`FindError`].
    pub fn find(
        &self,
        name: &str,
        arch: Option<&str>,
        variables: &Variables,
    ) -> Result<Image, FindError> {
        let dir = self.directory(name)?;
        let wanted = arch
            .or(variables.default_arch.as_deref())
            .unwrap_or(std::env::consts::ARCH);
        let disks = disks(&dir);
        let Some((arch, ..)) = disks.iter().find(|(have, ..)| arch::same(have, wanted)) else {
            return Err(FindError::Arch {
                name: name.to_owned(),
                arch: wanted.to_owned(),
                known: disks.into_iter().map(|(arch, ..)| arch).collect(),
            });
        };
        Ok(Image {
            name: name.to_owned(),
            arch: arch.clone(),
            base: self.base.clone(),
            login: login(&self.base, name)?,
            dir,
        })
    }

    /// All images, by name. What can't be read is left out.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let mut listed = Vec::new();
        for distro in names(&self.base) {
            // Most distributions have releases; `archlinux` has none.
            for name in std::iter::once(distro.clone()).chain(
                names(&self.base.join(&distro))
                    .into_iter()
                    .map(|release| format!("{distro}/{release}")),
            ) {
                let dir = self.base.join(&name);
                let disks = disks(&dir);
                if dir.join("functions").is_file() && !disks.is_empty() {
                    let link = std::fs::read_link(&dir).ok();
                    listed.push(Listed { name, link, disks });
                }
            }
        }
        listed
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn disks(dir: &Path) -> Vec<(String, u64, SystemTime)> {
    let disk = |arch: String| {
        let disk = std::fs::metadata(dir.join(&arch).join("root.img.qcow2")).ok()?;
        Some((arch, disk.len(), disk.modified().ok()?))
    };
    names(dir).into_iter().filter_map(disk).collect()
}

/// An image's `config.yml` is the distribution's, or the release's own.
fn login(base: &Path, name: &str) -> Result<Login, FindError> {
    let mut login = Login::default();
    let distro = name.split('/').next().unwrap_or(name);
    let mut dirs = vec![distro];
    if distro != name {
        dirs.push(name);
    }
    for dir in dirs {
        let path = base.join(dir).join("config.yml");
        match read_config(&path) {
            Ok(text) => {
                for (key, value) in
                    kiln_core::image_config::parse(&text).map_err(|reason| FindError::Config {
                        path: path.clone(),
                        reason,
                    })?
                {
                    apply(&mut login, &key, value);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let reason = error.to_string();
                return Err(FindError::Config { path, reason });
            }
        }
    }
    Ok(login)
}

/// `logincmd` is upstream's name for the client that kiln brings itself.
fn apply(login: &mut Login, key: &str, value: String) {
    match key {
        "homedir" => login.home = value,
        "git_variant" => login.git = value,
        "preamble" => login.preamble = Some(value),
        _ => {}
    }
}

fn read_config(path: &Path) -> io::Result<String> {
    use io::Read as _;
    // Opening a pipe would wait for somebody to write into it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_CONFIG)
        .read_to_string(&mut text)?;
    Ok(text)
}
