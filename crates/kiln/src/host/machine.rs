//! The QEMU machine of this host, and finding an image for it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_vm::{
    image::{Image, Store},
    namespace::{self, Isolation, Namespace},
    qemu::{
        QemuMachine,
        accelerator::{Accelerator, Probe},
    },
};

use super::paths;
use crate::exit::Failure;

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
    let isolation = isolation(&helper).await?;
    let probe = Probe {
        helper: helper.clone(),
        isolation,
        kernel: any_kernel(images),
        cache: accelerator_cache()?,
    };
    let accelerator = Accelerator::of_this_host(&probe).await;
    Ok(Host {
        machine: QemuMachine {
            helper,
            isolation,
            kvm: accelerator == Accelerator::Kvm,
            boot_deadline,
            templates: Some(kiln_vm::qemu::Templates::new(
                paths::cache()?.join("templates"),
            )),
        },
        accelerator,
    })
}

fn accelerator_cache() -> Result<PathBuf, Failure> {
    Ok(paths::cache()?.join("accelerator.json"))
}

/// The next look tries KVM again.
pub fn forget_accelerator() {
    if let Ok(cache) = accelerator_cache() {
        // Mostly it is not there.
        let _ = std::fs::remove_file(cache);
    }
}

/// Whether this host lets us have namespaces, by making some.
async fn isolation(helper: &Path) -> Result<Isolation, Failure> {
    let tried = Namespace::create(&namespace::Config {
        helper: helper.to_owned(),
        isolation: Isolation::Namespaces,
        ruleset: None,
        resolv_conf: None,
    })
    .await;
    match tried {
        Ok(namespace) => {
            namespace.destroy().await;
            Ok(Isolation::Namespaces)
        }
        Err(namespace::Error::Forbidden(reason)) => {
            tracing::info!(reason, "no namespaces");
            Ok(Isolation::None)
        }
        Err(error) => Err(Failure::host(error)),
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
