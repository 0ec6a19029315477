//! What a worker needs of the host that it runs on.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use kiln_core::{farm::OfferedImage, manifest::Manifest};
use kiln_vm::{
    machine::{GuestSpec, Machine},
    network::Farm,
};

/// The host of a worker. The binary's has QEMU and a pool, that of tests the
/// dummy machine.
#[async_trait]
pub trait Host: Send + Sync {
    /// The images that are here now. Asked every half a minute: digests are
    /// remembered by the host.
    async fn images(&self) -> Vec<OfferedImage>;

    /// How many more guests memory and disk allow now, when this many are about
    /// to start that can't be seen there yet. Asked every two seconds.
    async fn room(&self, coming: u32) -> Room;

    /// Whether guests could be started at all: asked after a failure, again and
    /// again until it is so.
    ///
    /// # Errors
    /// A sentence for operators about what is wrong, shown by the server: it names
    /// nothing else of the host.
    async fn check(&self) -> Result<(), String>;

    /// What to run a job in. No guest is started yet.
    ///
    /// # Errors
    /// [`Unfit`]: the job is given back.
    async fn place(&self, request: Request<'_>) -> Result<Place, Unfit>;
}

/// How many more guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Room {
    /// So many; more than there are slots means no limit.
    pub more: u32,
    /// What there is too little of for more: `memory`, `disk space`.
    pub short_of: Option<String>,
}

/// A job that wants a guest.
pub struct Request<'a> {
    /// What it asks for.
    pub manifest: &'a Manifest,
    /// Whose it is: guests with packages in them are kept apart by it.
    pub owner: &'a str,
    /// A private directory that exists and is removed after the job, for
    /// [`GuestSpec::dir`].
    pub dir: &'a Path,
    /// What answers at `farm.internal`, for [`GuestSpec::farm`].
    pub farm: Arc<dyn Farm>,
}

/// What to run a job in.
pub struct Place {
    /// The machine.
    pub machine: Arc<dyn Machine>,
    /// What it is to start.
    pub spec: GuestSpec,
    /// The image's version, as in [`OfferedImage::digest`].
    pub digest: String,
}

/// Why a host can't run a job, for its operator. The owner reads only that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);
