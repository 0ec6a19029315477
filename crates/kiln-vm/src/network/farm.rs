//! `farm.internal`: the one way inwards that a guest with a network may have.
//! It is port 80 of the gateway's address 10.0.2.2, where otherwise only what
//! the operator opened listens.
//!
//! ```text
//!  guest ─► QEMU ─► 127.0.0.1:80 of the namespace ─► kiln: Farm::serve
//! ```
//!
//! The connection ends in kiln itself, so that the guest reaches what the
//! service answers and nothing behind it.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::{net::TcpStream, time::timeout};

use crate::machine::{Bounded, Exec, Guest};

/// The port: plain HTTP's, which needs no number in a URL.
pub const FARM_PORT: u16 = 80;

/// What a guest finds at `farm.internal`.
#[async_trait]
pub trait Farm: fmt::Debug + Send + Sync {
    /// Serves one connection to its end. It is dropped when the guest goes.
    ///
    /// All that is read from it is hostile. Of one guest 64 are served at once,
    /// further ones wait.
    async fn serve(&self, connection: TcpStream);
}

/// Long for a busy host.
const DEADLINE: Duration = Duration::from_secs(20);
/// What is kept of a complaint, in bytes.
const MAX_SAID: usize = 1024;

/// Our own images know the name. Others do after this, if `build` may become
/// root in them and their hosts file can be written; DNS can't say it, as
/// images may ask a resolver of their own choice.
const NAME: &str = r"grep -qs '[[:space:]]farm\.internal' /etc/hosts || printf '10.0.2.2 farm.internal\n' | sudo -n tee -a /etc/hosts >/dev/null";

/// Tells the guest the name. One that can't be told finds the farm by its
/// address all the same.
pub(crate) async fn name(guest: &dyn Guest) {
    let mut said = Bounded::new(MAX_SAID);
    let named = timeout(DEADLINE, guest.exec(Exec::new(NAME), &mut said)).await;
    if !matches!(named, Ok(Ok(code)) if code.success()) {
        let said = String::from_utf8_lossy(&said.bytes).into_owned();
        tracing::warn!(said, "the guest does not know farm.internal, only 10.0.2.2");
    }
}
