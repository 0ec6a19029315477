//! The images that are here, found by looking.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use kiln_core::{arch, farm::OfferedImage};
use kiln_vm::{
    image::{Image, Listed, Store},
    machine::Login,
    qemu::QemuMachine,
};

use crate::{
    exit::Failure,
    host::{machine::find_image, paths},
};

/// The images directory, and what was found out about what is in it.
pub struct Images {
    machine: QemuMachine,
    base: PathBuf,
    known: Mutex<HashMap<String, Known>>,
}

/// An image that was looked at.
#[derive(Clone)]
struct Known {
    /// The version that was looked at.
    digest: String,
    /// One for each architecture.
    offered: Vec<OfferedImage>,
    /// What it says that its guests need.
    memory_mib: Option<u32>,
}

impl Images {
    /// Those in this directory.
    pub fn new(machine: QemuMachine, base: PathBuf) -> Self {
        Self {
            machine,
            base,
            known: Mutex::default(),
        }
    }

    /// All that can be used now. One that has not changed is not asked again.
    pub async fn offered(&self) -> Vec<OfferedImage> {
        let base = self.base.clone();
        let listed = tokio::task::spawn_blocking(move || Store::new(base).list()).await;
        let mut offered = Vec::new();
        let mut known = HashMap::new();
        for image in listed.unwrap_or_default() {
            match self.look(&image).await {
                Ok(found) => {
                    offered.extend(found.offered.clone());
                    known.insert(image.name, found);
                }
                // It may be in the making.
                Err(reason) => tracing::warn!("the image {} is not offered: {reason}", image.name),
            }
        }
        *self.lock() = known;
        offered
    }

    /// The largest memory that an image here asks for, if any does.
    pub fn largest_memory_mib(&self) -> Option<u32> {
        self.lock()
            .values()
            .filter_map(|known| known.memory_mib)
            .max()
    }

    /// One of them, with its version.
    ///
    /// # Errors
    /// When it is not here any more.
    pub async fn find(&self, name: &str, arch: Option<&str>) -> Result<(Image, String), Failure> {
        let image = find_image(&self.machine, &self.base, name, arch).await?;
        let digest = digest(image.clone()).await.map_err(Failure::host)?;
        Ok((image, digest))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, listed: &Listed) -> Result<Known, String> {
        let store = Store::new(self.base.clone());
        let dir = store
            .directory(&listed.name)
            .map_err(|error| error.to_string())?;
        let digest = digest(Image {
            name: listed.name.clone(),
            arch: String::new(),
            base: self.base.clone(),
            dir: dir.clone(),
            login: Login::default(),
        })
        .await?;
        let known = self.lock().get(&listed.name).cloned();
        if let Some(known) = known.filter(|known| known.digest == digest) {
            return Ok(known);
        }
        let functions = self.machine.functions(&self.base, &dir);
        let variables = functions
            .variables()
            .await
            .map_err(|error| error.to_string())?;
        let usual = store.find(&listed.name, None, &variables).ok();
        let offer = |(own, ..): &(String, u64, std::time::SystemTime)| OfferedImage {
            name: listed.name.clone(),
            arch: arch::canonical(own).to_owned(),
            digest: digest.clone(),
            default: usual.as_ref().is_some_and(|usual| usual.arch == *own),
        };
        Ok(Known {
            offered: listed.disks.iter().map(offer).collect(),
            memory_mib: variables.memory,
            digest,
        })
    }
}

/// Remembered as long as no file of it changes.
async fn digest(image: Image) -> Result<String, String> {
    let found = tokio::task::spawn_blocking(move || match paths::cache() {
        Some(cache) => image.digest_remembered(&cache.join("digests")),
        None => image.digest(),
    });
    let found = found.await.map_err(|error| error.to_string())?;
    found.map_err(|error| error.to_string())
}
