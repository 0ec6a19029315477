//! Images: directories in builds.sr.ht's layout, and the `functions` file
//! that drives each.

mod digest;
pub mod functions;
pub mod qcow2;
mod store;

use std::path::PathBuf;

use crate::machine::Login;

pub(crate) use digest::hex;
pub use store::{FindError, Listed, Store};

/// An image for one architecture, found; its parts are checked when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As the manifest has it: `debian/bookworm`.
    pub name: String,
    /// The architecture's directory: `amd64`.
    pub arch: String,
    /// The images directory that it is in.
    pub base: PathBuf,
    /// The image's directory: `…/debian/bookworm`.
    pub dir: PathBuf,
    /// How commands are run in it.
    pub login: Login,
}

impl Image {
    /// The disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join(&self.arch).join("root.img.qcow2")
    }

    /// All that a machine reads of it: the images, and what links lead to.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = files_of(&self.base, &self.dir);
        let disk = self.disk();
        files.extend(disk.canonicalize().ok().filter(|real| *real != disk));
        files
    }

    /// The kernel, where the image has one beside its disk.
    #[must_use]
    pub fn kernel(&self) -> Option<PathBuf> {
        let kernel = self.dir.join(&self.arch).join("vmlinuz");
        kernel.is_file().then_some(kernel)
    }

    /// The same, remembered in a directory as long as no file changes.
    ///
    /// # Errors
    /// When a file of it can't be read.
    pub fn digest_remembered(&self, cache: &std::path::Path) -> std::io::Result<String> {
        digest::remembered(&self.dir, cache)
    }

    /// The version: a digest of the image's directory.
    ///
    /// # Errors
    /// When a file of it can't be read.
    pub fn digest(&self) -> std::io::Result<String> {
        digest::of_directory(&self.dir)
    }
}

/// The directories of an image, whatever links lead there.
fn files_of(base: &std::path::Path, dir: &std::path::Path) -> Vec<PathBuf> {
    // A distribution or a release in it may be a link to elsewhere.
    let inside = dir.ancestors().take_while(|path| path.starts_with(base));
    let real = inside.filter_map(|path| path.canonicalize().ok());
    let mut files: Vec<PathBuf> = real.chain([base.to_owned()]).collect();
    files.sort();
    files.dedup();
    files
}
