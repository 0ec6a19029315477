//! The database of a server: it is waited for, and what this server's own worker is
//! called in it.

use kiln_store::{OpenError, Store};
use rustix::system::uname;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::wait::{Why, until_there};
use crate::{config::ServeConfig, exit::Failure};

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
    let open = async || {
        let opened = Store::open_with(&of_store, config.connections).await;
        opened.map_err(|error| match error {
            OpenError::Away(why) => Why::Away(why),
            error => Why::Wrong(error.to_string()),
        })
    };
    until_there(signals, open).await
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
