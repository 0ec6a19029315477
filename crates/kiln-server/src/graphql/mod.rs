//! The builds.sr.ht API, and ours beside it.
