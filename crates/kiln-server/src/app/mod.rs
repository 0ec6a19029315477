//! The use cases. Permission is asked here, in one place.

pub(crate) mod leases;
pub(crate) mod narrate;
pub(crate) mod sessions;
pub(crate) mod token;
