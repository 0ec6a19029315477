//! "Look again at X": told after each commit. Nothing is ever only here;
//! whoever listens looks at the truth each second as well.
#![allow(unused, missing_docs)]

use kiln_core::farm::{JobId, SessionId};
use kiln_store::model::Changed;
use tokio::sync::{broadcast, watch};

/// The hints of one server.
#[derive(Debug, Default)]
pub(crate) struct Hints {}

impl Hints {
    /// Tells what a commit changed.
    pub(crate) fn changed(&self, changed: &Changed) {}
}
