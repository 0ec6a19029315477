//! The side that workers talk to.
