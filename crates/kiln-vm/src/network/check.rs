//! Whether this host can give guests their network: by making one, with the
//! rules and the uplink that a guest gets, and taking it down again.

use std::path::Path;

use super::{filter, uplink::Uplink};
use crate::namespace::{self, Isolation, Namespace};

/// What of a guest's network this host can't give it.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The namespace, or the rules in it.
    #[error("{0}")]
    Rules(String),
    /// The way from there to the outside.
    #[error("{0}")]
    Uplink(String),
}

/// Makes a guest's network without a guest. Whoever drops this half-way leaves
/// nothing behind.
///
/// # Errors
/// [`CheckError`], with what the host's programs said.
pub async fn check(helper: &Path) -> Result<(), CheckError> {
    let rules = |error: String| CheckError::Rules(error);
    let dir = tempfile::tempdir().map_err(|error| rules(error.to_string()))?;
    let resolv_conf = dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, filter::resolv_conf())
        .map_err(|error| rules(error.to_string()))?;
    let ruleset = filter::ruleset(&[])
        .map_err(|error| rules(format!("the host's routes can't be read: {error}")))?;
    let namespace = Namespace::create(&namespace::Config {
        helper: helper.to_owned(),
        isolation: Isolation::Namespaces,
        ruleset: Some(ruleset),
        resolv_conf: Some(resolv_conf),
    })
    .await
    .map_err(|error| rules(error.to_string()))?;
    let uplink = Uplink::start(namespace.init_pid()).await;
    let result = match uplink {
        Ok(mut uplink) => {
            uplink.stop().await;
            Ok(())
        }
        Err(error) => Err(CheckError::Uplink(error)),
    };
    namespace.destroy().await;
    result
}
