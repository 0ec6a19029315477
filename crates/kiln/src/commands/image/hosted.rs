//! Guests that an image's own scripts boot, by `sanity_check`'s `cmd_boot` or
//! `kiln image control`. Each is known by the port that the script gave it.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use kiln_vm::{
    image::Image,
    machine::{Guest, GuestSpec},
    network::Network,
    qemu::{QemuGuest, QemuMachine, control::Host},
    session::Session,
    ssh::Dial,
};
use tokio::{
    net::TcpStream,
    sync::{Mutex, watch},
};

use crate::{cli::DEFAULT_CPUS, host::scratch::Scratch};

/// The guests of one image.
pub struct Hosted {
    machine: QemuMachine,
    image: Image,
    network: Network,
    guests: Mutex<Guests>,
}

#[derive(Default)]
struct Guests {
    by_port: HashMap<u16, Entry>,
    /// Whether all of them are being stopped, and none may come any more.
    closed: bool,
}

/// How others see a guest.
#[derive(Clone)]
struct Entry {
    /// Closed once nothing of the guest is left.
    state: watch::Receiver<State>,
    stop: watch::Sender<bool>,
}

/// What the one has who boots a guest.
struct Registered {
    state: watch::Sender<State>,
    stop: watch::Receiver<bool>,
}

/// How far a guest is.
#[derive(Clone)]
enum State {
    Booting,
    Ready(Arc<QemuGuest>),
    Failed(String),
    Ended,
}

impl Entry {
    fn lives(&self) -> bool {
        self.state.has_changed().is_ok()
    }

    /// Ends the guest and waits until nothing of it is left.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.state.changed().await.is_ok() {}
    }
}

impl Hosted {
    /// None yet.
    pub fn new(machine: QemuMachine, image: Image, network: Network) -> Arc<Self> {
        Arc::new(Self {
            machine,
            image,
            network,
            guests: Mutex::default(),
        })
    }

    /// The guest with this port, as soon as it lets us in.
    pub async fn guest(&self, port: u16) -> Result<Arc<QemuGuest>, String> {
        let entry = self.guests.lock().await.by_port.get(&port).cloned();
        let mut state = entry.ok_or_else(|| no_guest(port))?.state;
        let settled = state
            .wait_for(|state| !matches!(state, State::Booting))
            .await;
        match settled.map(|state| state.clone()) {
            Ok(State::Ready(guest)) => Ok(guest),
            Ok(State::Failed(reason)) => Err(reason),
            _ => Err("the guest is gone".into()),
        }
    }

    async fn register(&self, port: u16) -> Result<Registered, String> {
        let mut guests = self.guests.lock().await;
        if guests.closed {
            return Err("no guest is booted any more".into());
        }
        if guests.by_port.get(&port).is_some_and(Entry::lives) {
            return Err(format!("a guest has the port {port} already"));
        }
        let (state, seen) = watch::channel(State::Booting);
        let (asked, stop) = watch::channel(false);
        let entry = Entry {
            state: seen,
            stop: asked,
        };
        guests.by_port.insert(port, entry);
        Ok(Registered { state, stop })
    }

    /// Boots a guest and stays until it has ended. `ready` is told once.
    pub async fn boot_until_end(
        &self,
        arch: &str,
        port: u16,
        ready: impl FnOnce(Arc<QemuGuest>) + Send,
    ) -> Result<(), String> {
        // The first to be made and so the last to be dropped: when others see
        // it go, all of the guest has gone.
        let Registered { state, mut stop } = self.register(port).await?;
        let disk = &self.image.arch;
        // Registered all the same: somebody may be waiting for this guest.
        let ended = if kiln_core::arch::same(arch, disk) {
            self.live(&state, &mut stop, ready).await
        } else {
            Err(format!("the image's disk is for {disk}, not for {arch}"))
        };
        state.send_replace(match &ended {
            Ok(()) => State::Ended,
            Err(reason) => State::Failed(reason.clone()),
        });
        ended
    }

    async fn live(
        &self,
        state: &watch::Sender<State>,
        stop: &mut watch::Receiver<bool>,
        ready: impl FnOnce(Arc<QemuGuest>) + Send,
    ) -> Result<(), String> {
        let scratch = Scratch::create().map_err(|failure| failure.message)?;
        let spec = GuestSpec {
            preparation: None,
            image: self.image.clone(),
            memory_mib: None,
            cpus: DEFAULT_CPUS,
            disk_mib: None,
            network: self.network.clone(),
            farm: None,
            dir: scratch.path(),
        };
        let guest = tokio::select! {
            started = self.machine.start_guest(&spec) => started.map_err(|error| error.to_string())?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        state.send_replace(State::Ready(Arc::clone(&guest)));
        ready(Arc::clone(&guest));
        tokio::select! {
            _ = guest.gone() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        guest.stop().await;
        Ok(())
    }

    /// Stops all guests and waits until nothing of them is left.
    pub async fn stop_all(&self) {
        let entries: Vec<Entry> = {
            let mut guests = self.guests.lock().await;
            guests.closed = true;
            guests.by_port.drain().map(|(_, entry)| entry).collect()
        };
        for entry in &entries {
            entry.stop.send_replace(true);
        }
        for entry in entries {
            entry.stop().await;
        }
    }
}

fn no_guest(port: u16) -> String {
    format!("no guest has the port {port}")
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
            while !self.guests.lock().await.by_port.contains_key(&port) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let limit = self.machine.boot_deadline;
        if tokio::time::timeout(limit, registered).await.is_err() {
            return Err(no_guest(port));
        }
        self.guest(port).await.map(drop)
    }

    /// The port is free when this has returned.
    async fn cleanup(&self, port: u16) -> Result<(), String> {
        let entry = self.guests.lock().await.by_port.get(&port).cloned();
        entry.ok_or_else(|| no_guest(port))?.stop().await;
        let mut guests = self.guests.lock().await;
        // Somebody may have booted another one by now.
        if !guests.by_port.get(&port).is_some_and(Entry::lives) {
            guests.by_port.remove(&port);
        }
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
