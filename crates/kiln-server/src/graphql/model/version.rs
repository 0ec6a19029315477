//! What this server is.

use async_graphql::SimpleObject;

use super::scalars::Time;
use crate::{app::time, state::State};

/// The version of the API: see <https://semver.org>.
#[derive(Debug, SimpleObject)]
pub(in super::super) struct Version {
    major: i32,
    minor: i32,
    patch: i32,
    /// If this API version is scheduled for deprecation, this is the date on which
    /// it will stop working; or null if this API version is not scheduled for
    /// deprecation.
    deprecation_date: Option<Time>,
    /// Config settings
    settings: Settings,
}

/// Instance specific settings
#[derive(Debug, SimpleObject)]
pub(in super::super) struct Settings {
    ssh_user: String,
    build_timeout: String,
}

impl Version {
    /// The version of builds.sr.ht's API that this is.
    pub(in super::super) fn of(state: &State) -> Self {
        Self {
            major: 0,
            minor: 0,
            patch: 0,
            deprecation_date: None,
            settings: Settings {
                ssh_user: state.config.ssh_user.clone(),
                build_timeout: time::go_duration(state.config.job_timeout.as_secs()),
            },
        }
    }
}
