//! Keeps a guest connected: an uplink that ends under its guest is followed by
//! another one.
//!
//! The guest's connections are in the uplink's memory, so those that were open
//! are lost; what it opens later works. Without this a build would wait for
//! an answer until its time is over, and nobody would know why.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::uplink::Uplink;
use crate::{cgroup::Cgroup, namespace::Namespace};

/// How often one is started again. One that goes on ending does so for a
/// reason that the next one will have too.
const RESTARTS: usize = 5;

/// The uplinks of one guest, one at a time. Dropping it ends them.
pub(crate) struct Keeper {
    /// Its end is the word to stop.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// A namespace, known by its init.
struct Known {
    init: u32,
    handle: OwnedFd,
    cgroup: Option<Arc<Cgroup>>,
}

impl Keeper {
    /// Connects this namespace. The uplink counts among those inside.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn start(namespace: &Namespace) -> Result<Self, String> {
        let namespace = Known::of(namespace)
            .ok_or_else(|| "the guest's namespace ended before it had an uplink".to_owned())?;
        let first = namespace.connect().await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::pin!(stopped);
            let mut uplink = first;
            tokio::select! {
                _ = &mut stopped => {}
                () = keep(&namespace, &mut uplink) => {}
            }
            uplink.stop().await;
        });
        let stop = Some(stop);
        Ok(Self { stop, task })
    }

    /// Ends the uplink and waits.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns when there will be no more uplink.
async fn keep(namespace: &Known, uplink: &mut Uplink) {
    for _ in 0..RESTARTS {
        let status = uplink.ended().await;
        if namespace.ended() {
            return;
        }
        tracing::warn!(
            "slirp4netns, the guest's uplink, ended ({status}) and is started again; the guest's open connections are cut"
        );
        match namespace.connect().await {
            Ok(next) => *uplink = next,
            Err(error) => {
                tracing::warn!("the guest has no network any more: {error}");
                return;
            }
        }
    }
    let status = uplink.ended().await;
    if !namespace.ended() {
        tracing::warn!(
            "the guest has no network any more: slirp4netns, its uplink, ended ({status}) once too often"
        );
    }
}

impl Known {
    fn of(namespace: &Namespace) -> Option<Self> {
        let init = namespace.init_pid();
        let cgroup = namespace.cgroup();
        let pid = Pid::from_raw(i32::try_from(init).ok()?)?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Self {
            init,
            handle,
            cgroup,
        })
    }

    async fn connect(&self) -> Result<Uplink, String> {
        let uplink = Uplink::start(self.init).await?;
        if let (Some(cgroup), Some(pid)) = (&self.cgroup, uplink.pid())
            && let Err(error) = cgroup.add(pid)
        {
            tracing::warn!(%error, "the uplink is not in its guest's cgroup");
        }
        Ok(uplink)
    }

    /// Whether its init has exited; its number may be another process's then.
    fn ended(&self) -> bool {
        let handle = self.handle.as_fd();
        let mut exited = [PollFd::new(&handle, PollFlags::IN)];
        let at_once = Timespec::default();
        rustix::event::poll(&mut exited, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }
}
