//! The database of a server: it is waited for, and what this server's own worker is
//! called in it.

use std::time::{Duration, Instant};

use kiln_store::{OpenError, Store};
use rustix::system::uname;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{config::ServeConfig, exit::Failure, host::signals};

/// How long a database that is away is waited for. After that whoever starts servers
/// starts another one, or somebody looks.
const WAIT: Duration = Duration::from_mins(5);
/// How soon it is tried again, at first and at the most.
const SOON: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(5);

/// Opens it; none when this process is asked to end before it is there.
///
/// # Errors
/// When it can't be used, or stays away.
pub async fn open(
    config: &ServeConfig,
    signals: &mut watch::Receiver<u32>,
) -> Result<Option<Store>, Failure> {
    let of_store = kiln_store::Config {
        url: config.database.clone(),
        migrate: config.migrate,
    };
    let began = Instant::now();
    let mut pause = SOON;
    loop {
        let away = match Store::open_with(&of_store, config.connections).await {
            Ok(store) => return Ok(Some(store)),
            Err(OpenError::Away(why)) if began.elapsed() < WAIT => why,
            Err(error) => return Err(Failure::host(error)),
        };
        tracing::warn!("{away}; it is tried again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals::asked(signals, 1) => return Ok(None),
        }
        pause = LATE.min(pause * 2);
    }
}

/// What the worker inside is called. Each of several servers on one database has its
/// own: a name that stays from start to start, and tells strangers nothing of the host.
pub fn inside(config: &ServeConfig) -> String {
    const NAME: &str = "local";
    if !config.database.starts_with("postgres:") {
        return NAME.to_owned();
    }
    let mut host = Sha256::new();
    host.update(uname().nodename().to_bytes());
    host.update([0]);
    host.update(config.data.as_os_str().as_encoded_bytes());
    let digest: String = host
        .finalize()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{NAME}-{digest}")
}
