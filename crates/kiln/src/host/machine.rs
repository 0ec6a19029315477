//! The QEMU machine of this host, and finding an image for it.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use kiln_vm::{
    cgroup::Cgroups,
    image::{Image, Store},
    namespace::{self, Isolation, Namespace},
    qemu::{
        QemuMachine, Templates,
        accelerator::{Accelerator, Probe},
    },
};

use super::{namespaces::Settings, paths};
use crate::exit::Failure;

/// What was found out about KVM, in the cache.
const ACCELERATOR: &str = "accelerator.json";
/// Frozen guests, in the cache.
const TEMPLATES: &str = "templates";

/// What this host can do.
pub struct Host {
    /// Boots images here.
    pub machine: QemuMachine,
    /// How fast, and why not faster.
    pub accelerator: Accelerator,
}

/// Looks at this host. `images` may have a kernel to try KVM with.
pub async fn look(images: &Path, boot_deadline: Duration) -> Result<Host, Failure> {
    let helper = paths::this_program()?;
    let cgroups = cgroups()
        .inspect_err(|reason| tracing::info!("guests have no cgroups: {reason}"))
        .ok();
    let isolation = isolation(&helper).await?;
    let cache = paths::cache();
    let accelerator = accelerator(images, &helper, isolation, cache.as_deref()).await?;
    Ok(Host {
        machine: QemuMachine {
            helper,
            isolation,
            kvm: accelerator == Accelerator::Kvm,
            boot_deadline,
            templates: cache.map(|cache| Templates::new(cache.join(TEMPLATES))),
            cgroups,
        },
        accelerator,
    })
}

/// Where guests have cgroups, or why not: found once, because kiln itself may
/// move for it.
pub fn cgroups() -> Result<Cgroups, String> {
    static FOUND: OnceLock<Result<Cgroups, String>> = OnceLock::new();
    FOUND.get_or_init(Cgroups::find).clone()
}

/// Without a cache KVM is tried each time.
async fn accelerator(
    images: &Path,
    helper: &Path,
    isolation: Isolation,
    cache: Option<&Path>,
) -> Result<Accelerator, Failure> {
    let (unkept, cache) = match cache {
        Some(cache) => (None, cache.to_owned()),
        None => {
            let unkept = tempfile::tempdir().map_err(Failure::host)?;
            let path = unkept.path().to_owned();
            (Some(unkept), path)
        }
    };
    let probe = Probe {
        helper: helper.to_owned(),
        isolation,
        kernel: any_kernel(images),
        cache: cache.join(ACCELERATOR),
    };
    let accelerator = Accelerator::of_this_host(&probe).await;
    drop(unkept);
    Ok(accelerator)
}

/// The next look tries KVM again.
pub fn forget_accelerator() {
    if let Some(cache) = paths::cache() {
        // Mostly it is not there.
        let _ = std::fs::remove_file(cache.join(ACCELERATOR));
    }
}

/// Whether this host lets us have namespaces, by making some.
async fn isolation(helper: &Path) -> Result<Isolation, Failure> {
    let config = namespace::Config::new(helper.to_owned(), Isolation::Namespaces);
    match Namespace::create(&config).await {
        Ok(namespace) => {
            namespace.destroy().await;
            Ok(Isolation::Namespaces)
        }
        Err(namespace::Error::Forbidden(reason)) => {
            tracing::info!(reason, "no namespaces");
            Ok(Isolation::None)
        }
        Err(error) => {
            let (cause, remedy) = Settings::read().cause(helper);
            Err(Failure::host(format!(
                "namespaces can be made here and not used: {error}; {cause}: {remedy}"
            )))
        }
    }
}

/// A kernel of any image for this host's architecture.
fn any_kernel(images: &Path) -> Option<PathBuf> {
    Store::new(images.to_owned())
        .list()
        .into_iter()
        .find_map(|image| {
            let mut archs = image.disks.iter().map(|(arch, ..)| arch);
            let arch = archs.find(|arch| kiln_core::arch::same(arch, std::env::consts::ARCH))?;
            let kernel = images.join(&image.name).join(arch).join("vmlinuz");
            kernel.is_file().then_some(kernel)
        })
}

/// Finds an image, which says itself what its usual architecture is.
pub async fn find_image(
    machine: &QemuMachine,
    images: &Path,
    name: &str,
    arch: Option<&str>,
) -> Result<Image, Failure> {
    let store = Store::new(images.to_owned());
    let dir = store.directory(name).map_err(Failure::host)?;
    let functions = machine.functions(images, &dir);
    let variables = functions.variables().await.map_err(Failure::host)?;
    store.find(name, arch, &variables).map_err(Failure::host)
}
