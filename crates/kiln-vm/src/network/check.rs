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
    let ruleset = filter::ruleset(&[])
        .map_err(|error| rules(format!("the host's routes can't be read: {error}")))?;
    let mut config = namespace::Config::new(helper.to_owned(), Isolation::Namespaces);
    config.ruleset = Some(ruleset);
    config.files.resolv_conf = Some(filter::resolv_conf());
    let namespace = Namespace::create(&config).await;
    let namespace = namespace.map_err(|error| rules(error.to_string()))?;
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
