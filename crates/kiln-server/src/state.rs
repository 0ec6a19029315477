//! What all requests share.

use std::sync::Arc;

use kiln_objects::Objects;
use kiln_store::Store;

use crate::{Config, hints::Hints, metrics::Metrics};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) objects: Objects,
    pub(crate) hints: Hints,
    pub(crate) metrics: Metrics,
}

/// As handlers get it.
pub(crate) type Shared = Arc<State>;
