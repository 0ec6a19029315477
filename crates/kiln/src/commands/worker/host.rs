//! A host whose guests are QEMU's.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use kiln_core::farm::OfferedImage;
use kiln_vm::{
    machine::GuestSpec,
    namespace::Isolation,
    network::Network,
    qemu::{
        MIN_DISK_SPACE, QemuMachine,
        accelerator::{Accelerator, TCG_WARNING},
    },
};
use kiln_worker::farm::{Host, Place, Request, Room, Unfit};
use tokio::sync::Mutex;

use super::{images::Images, pools::Pools, room};
use crate::{
    commands::{doctor, run::allow},
    config::GuestConfig,
    exit::Failure,
    host::{self, preparation},
};

/// What a guest is given when neither its image nor the operator says.
const MEMORY_MIB: u32 = 4096;
/// What a guest whose disk has no limit is taken to write, in bytes.
const DISK: u64 = 1 << 30;

/// This host.
pub struct QemuHost {
    machine: QemuMachine,
    guests: GuestConfig,
    images: Images,
    pools: Pools,
    /// Where jobs' files are.
    data: PathBuf,
    /// What guests may reach, by whether their image installs with apt.
    networks: Mutex<HashMap<bool, Network>>,
}

impl QemuHost {
    /// Looks at this host.
    ///
    /// # Errors
    /// When it can't run guests at all, or an address of `--allow` makes no sense.
    pub async fn look(guests: &GuestConfig, data: &Path) -> Result<Self, Failure> {
        let found = host::machine::look(&guests.images, guests.boot_timeout).await?;
        if let Accelerator::Tcg { reason } = &found.accelerator {
            tracing::warn!("{reason}; {TCG_WARNING}");
        }
        let machine = found.machine;
        if machine.isolation == Isolation::None && guests.network {
            let (cause, _) = host::namespaces::Settings::read().cause(&machine.helper);
            tracing::warn!(
                "this host forbids user namespaces, so guests have no network: {cause}; see `kiln doctor`"
            );
        }
        let looked = Self {
            images: Images::new(machine.clone(), guests.images.clone()),
            pools: Pools::new(machine.clone(), data, guests.pool)?,
            machine,
            guests: guests.clone(),
            data: data.to_owned(),
            networks: Mutex::default(),
        };
        looked.network(true).await?;
        if looked.images().await.is_empty() {
            tracing::warn!(
                "there are no images in {}: this worker can run no job. `kiln image build debian/bookworm` makes one, \
                 and it is found by itself then",
                guests.images.display()
            );
        }
        Ok(looked)
    }

    /// Ends the guests that nobody took.
    pub async fn end(&self) {
        self.pools.end().await;
    }

    /// Found once: names are not asked for again with each job.
    async fn network(&self, apt: bool) -> Result<Network, Failure> {
        if !self.guests.network {
            return Ok(Network::None);
        }
        let mut known = self.networks.lock().await;
        if let Some(network) = known.get(&apt) {
            return Ok(network.clone());
        }
        let network = allow::public(&self.guests.allow, apt, &allow::TO_THE_LOG).await?;
        known.insert(apt, network.clone());
        Ok(network)
    }

    async fn placed(&self, request: &Request<'_>) -> Result<Place, Failure> {
        let manifest = request.manifest;
        let name = manifest.image.to_string();
        let arch = manifest
            .arch
            .as_ref()
            .map(kiln_core::manifest::Arch::as_str);
        let (image, digest) = self.images.find(&name, arch).await?;
        let spec = GuestSpec {
            network: self
                .network(allow::installs_with_apt(manifest.image.distro()))
                .await?,
            image,
            memory_mib: self.guests.memory_mib,
            cpus: self.guests.cpus,
            disk_mib: self.guests.disk_mib,
            preparation: preparation::of(
                manifest,
                request.owner.to_owned(),
                self.guests.derived_ttl,
                false,
            ),
            farm: Some(Arc::clone(&request.farm)),
            dir: request.dir.to_owned(),
        };
        Ok(Place {
            machine: self.pools.of(&spec),
            spec,
            digest,
        })
    }
}

#[async_trait]
impl Host for QemuHost {
    async fn images(&self) -> Vec<OfferedImage> {
        self.images.offered().await
    }

    async fn room(&self, coming: u32) -> Room {
        let largest = self.images.largest_memory_mib().unwrap_or(MEMORY_MIB);
        let memory = u64::from(self.guests.memory_mib.unwrap_or(largest)) << 20;
        let disk = self
            .guests
            .disk_mib
            .map_or(DISK, |mib| u64::from(mib) << 20);
        let free = room::look(&self.data);
        free.room(memory, disk.max(MIN_DISK_SPACE), coming)
    }

    async fn check(&self) -> Result<(), String> {
        if self.images.offered().await.is_empty() {
            return Err("it has no image".to_owned());
        }
        if room::look(&self.data)
            .disk
            .is_some_and(|free| free < MIN_DISK_SPACE)
        {
            return Err("its disk is full".to_owned());
        }
        if !self.machine.helper.exists() {
            return Err("the kiln binary that it was started from is gone".to_owned());
        }
        if !doctor::has_qemu() {
            return Err("it has no QEMU".to_owned());
        }
        Ok(())
    }

    async fn place(&self, request: Request<'_>) -> Result<Place, Unfit> {
        let placed = self.placed(&request).await;
        placed.map_err(|failure| Unfit(failure.message))
    }
}
