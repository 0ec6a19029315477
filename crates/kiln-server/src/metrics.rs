//! What `/metrics` shows.

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {}
