//! Guests that an image's own scripts boot, by `sanity_check`'s `cmd_boot` or
//! `kiln image control`. Each is known by the port that the script gave it.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use kiln_vm::{
    image::Image,
    machine::{Guest, GuestSpec},
    network::Network,
    qemu::{QemuGuest, QemuMachine, control::Host},
    ssh::{Dial, Session},
};
use tokio::{
    net::TcpStream,
    sync::{Mutex, watch},
};

use crate::{cli::DEFAULT_CPUS, commands::run::allow};

/// The guests of one image.
pub struct Hosted {
    machine: QemuMachine,
    image: Image,
    network: Network,
    guests: Mutex<HashMap<u16, watch::Receiver<State>>>,
    stopped: watch::Sender<Option<u16>>,
}

/// How far a guest is.
#[derive(Clone)]
enum State {
    Booting,
    Ready(Arc<QemuGuest>),
    Failed(String),
}

impl Hosted {
    /// None yet. Guests reach the public internet and the host's mirror.
    pub async fn new(machine: QemuMachine, image: Image) -> Arc<Self> {
        let allow = allow::mirror().await;
        Arc::new(Self {
            machine,
            image,
            network: Network::Public { allow },
            guests: Mutex::default(),
            stopped: watch::Sender::new(None),
        })
    }

    /// The guest with this port, as soon as it lets us in.
    pub async fn guest(&self, port: u16) -> Result<Arc<QemuGuest>, String> {
        let state = self.guests.lock().await.get(&port).cloned();
        let mut state = state.ok_or_else(|| format!("no guest has the port {port}"))?;
        let settled = state
            .wait_for(|state| !matches!(state, State::Booting))
            .await;
        match settled.map(|state| state.clone()) {
            Ok(State::Ready(guest)) => Ok(guest),
            Ok(State::Failed(reason)) => Err(reason),
            _ => Err("the guest is gone".into()),
        }
    }

    async fn register(&self, port: u16) -> Result<watch::Sender<State>, String> {
        let (sender, receiver) = watch::channel(State::Booting);
        let mut guests = self.guests.lock().await;
        if guests
            .get(&port)
            .is_some_and(|state| state.has_changed().is_ok())
        {
            return Err(format!("a guest has the port {port} already"));
        }
        guests.insert(port, receiver);
        Ok(sender)
    }

    /// Boots a guest and stays until it has ended. `ready` is told once.
    pub async fn boot_until_end(
        &self,
        arch: &str,
        port: u16,
        ready: impl FnOnce(Arc<QemuGuest>) + Send,
    ) -> Result<(), String> {
        if !kiln_core::arch::same(arch, &self.image.arch) {
            return Err(format!(
                "the image's disk is for {}, not for {arch}",
                self.image.arch
            ));
        }
        let sender = self.register(port).await?;
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let spec = GuestSpec {
            image: self.image.clone(),
            memory_mib: None,
            cpus: DEFAULT_CPUS,
            network: self.network.clone(),
            dir: dir.path().to_owned(),
        };
        let mut stopped = self.stopped.subscribe();
        let stop = stopped.wait_for(|stopped| *stopped == Some(port));
        let guest = tokio::select! {
            started = self.machine.start_guest(&spec) => started.map_err(|error| error.to_string()),
            _ = stop => Err("the guest was stopped".to_owned()),
        };
        let guest = match guest {
            Ok(guest) => guest,
            Err(reason) => {
                sender.send_replace(State::Failed(reason.clone()));
                return Err(reason);
            }
        };
        sender.send_replace(State::Ready(Arc::clone(&guest)));
        ready(Arc::clone(&guest));
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            _ = guest.gone() => {}
            _ = stopped.wait_for(|stopped| *stopped == Some(port)) => {}
        }
        guest.stop().await;
        Ok(())
    }
}

#[async_trait]
impl Host for Hosted {
    async fn session(&self, port: u16) -> Result<Arc<Session>, String> {
        let guest = self.guest(port).await?;
        guest
            .session_for_command()
            .await
            .map_err(|error| error.to_string())
    }

    async fn boot(&self, arch: &str, port: u16) -> Result<(), String> {
        self.boot_until_end(arch, port, |_| {}).await
    }

    async fn wait(&self, port: u16) -> Result<(), String> {
        // `cmd_boot … &` may not have come yet.
        let registered = async {
            while !self.guests.lock().await.contains_key(&port) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let limit = self.machine.boot_deadline;
        if tokio::time::timeout(limit, registered).await.is_err() {
            return Err(format!("no guest has the port {port}"));
        }
        self.guest(port).await.map(drop)
    }

    async fn cleanup(&self, port: u16) -> Result<(), String> {
        if !self.guests.lock().await.contains_key(&port) {
            return Err(format!("no guest has the port {port}"));
        }
        self.stopped.send_replace(Some(port));
        Ok(())
    }
}

/// The way to the guest with `functions`' usual port, for a plain `ssh -p`.
#[async_trait]
impl Dial for Hosted {
    async fn dial(&self) -> Option<TcpStream> {
        let port = kiln_vm::image::functions::GUEST_PORT;
        self.guest(port).await.ok()?.dial().await.ok()
    }
}
