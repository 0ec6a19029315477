//! The machine that boots images in QEMU.
//!
//! ```text
//!  find the image ─► functions: boot ─► check, complete ─► namespace, rules,
//!  uplink ─► exec QEMU ─► control socket ─► first login ─► guest
//! ```
//!
//! * `functions` only says what it would start; kiln executes QEMU itself, in
//!   namespaces of its own ([`crate::namespace`]).
//! * The image's disk is read-only; a guest writes to a layer of its own that
//!   goes with it.
//! * No port of the host is used where the host allows namespaces.

pub mod accelerator;
pub(crate) mod arguments;
mod command;
pub mod control;
mod guest;
mod limits;
pub mod pool;
pub mod qmp;
pub(crate) mod ready;
mod start;
mod template;
pub mod version;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    cgroup::Cgroups,
    image::{
        Image,
        functions::{BootRequest, Functions},
    },
    machine::{Guest, GuestSpec, Machine, StartError},
    namespace::Isolation,
    network::{self, Network},
    session::Session,
};
pub use command::binary;
pub use guest::QemuGuest;
use start::{Origin, Stopwatch};
pub use template::Templates;

/// Free space that a guest's disk needs at the least, in bytes.
pub const MIN_DISK_SPACE: u64 = 256 << 20;

/// Boots images.
#[derive(Debug, Clone)]
pub struct QemuMachine {
    /// The kiln binary.
    pub helper: PathBuf,
    /// How much apart from the host guests run.
    pub isolation: Isolation,
    /// Whether guests of the host's architecture run under KVM.
    pub kvm: bool,
    /// How long a guest may take until it lets us in.
    pub boot_deadline: Duration,
    /// Where frozen guests are kept to start others from; none are when absent.
    pub templates: Option<Templates>,
    /// Where guests have cgroups; resource limits alone hold them when absent.
    pub cgroups: Option<Cgroups>,
}

#[async_trait]
impl Machine for QemuMachine {
    async fn start(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, StartError> {
        let guest = self.start_guest(spec).await?;
        if spec.farm.is_some() && spec.network != Network::None {
            network::name(&*guest).await;
        }
        Ok(Box::new(guest))
    }
}

impl QemuMachine {
    /// The runner of an image's functions.
    #[must_use]
    pub fn functions(&self, base: &Path, dir: &Path) -> Functions {
        Functions {
            helper: self.helper.clone(),
            isolation: self.isolation,
            base: base.to_owned(),
            dir: dir.to_owned(),
            kvm: self.kvm,
            cgroups: self.cgroups.clone(),
        }
    }

    /// As [`Machine::start`], for callers that need a guest of this kind.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_guest(&self, spec: &GuestSpec) -> Result<Arc<QemuGuest>, StartError> {
        let mut watch = Stopwatch::start();
        let (functions, request, size) = self.ask(spec).await?;
        watch.lap("functions");
        if let Some(templates) = &self.templates {
            let boot = self.boot(templates, &functions, &request, size, spec);
            match templates.start(&boot).await {
                Ok(Some(guest)) => return Ok(guest),
                Ok(None) => {}
                Err(template::Failed::Start(error)) => return Err(error),
                Err(template::Failed::Template(reason)) => {
                    tracing::warn!("{reason}; the guest is booted instead");
                }
            }
        }
        let origin = Origin::cold(&spec.image, size);
        let started = self.launch(&functions, &request, spec, origin).await?;
        watch.lap("namespace, uplink, QEMU");
        match self.first_login(&started, ready::Guest::Boots).await {
            Ok(session) => {
                watch.lap("boot and login");
                Ok(QemuGuest::new(
                    started.running,
                    Session::Ssh(session),
                    guest::StartedFrom::Boot,
                ))
            }
            Err(error) => {
                started.running.stop().await;
                Err(error)
            }
        }
    }

    /// Makes the template that a guest like this would be started from, if
    /// there can be one.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn prepare_template(&self, spec: &GuestSpec) -> Result<(), String> {
        let Some(templates) = &self.templates else {
            return Ok(());
        };
        let (functions, request, size) = self.ask(spec).await.map_err(|error| error.to_string())?;
        let boot = self.boot(templates, &functions, &request, size, spec);
        match templates.prepare(&boot).await {
            Ok(()) => Ok(()),
            Err(template::Failed::Start(error)) => Err(error.to_string()),
            Err(template::Failed::Template(reason)) => Err(reason),
        }
    }

    /// The memory that a guest like this is given, in MiB.
    async fn memory_mib(&self, spec: &GuestSpec) -> Result<u32, StartError> {
        let (_, request, _) = self.ask(spec).await?;
        let line = self.command_line(&request, spec, None, false)?;
        Ok(line.memory_mib)
    }

    /// What the image wants to be booted with, and its disk's size.
    async fn ask(&self, spec: &GuestSpec) -> Result<(Functions, BootRequest, u64), StartError> {
        let functions = Functions {
            kvm: self.kvm_for(&spec.image),
            ..self.functions(&spec.image.base, &spec.image.dir)
        };
        let request = functions.boot(&spec.image.arch).await;
        let request = request.map_err(|error| StartError::Image(error.to_string()))?;
        // After the script, which may change it.
        let size = start::check_disk(&spec.image, &spec.dir)?;
        Ok((functions, request, size))
    }

    fn boot<'a>(
        &'a self,
        templates: &'a Templates,
        functions: &'a Functions,
        request: &'a BootRequest,
        size: u64,
        spec: &'a GuestSpec,
    ) -> template::Boot<'a> {
        template::Boot {
            templates,
            machine: self,
            functions,
            request,
            size,
            spec,
        }
    }

    fn kvm_for(&self, image: &Image) -> bool {
        self.kvm && kiln_core::arch::same(&image.arch, std::env::consts::ARCH)
    }
}
