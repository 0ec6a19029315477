//! Logs, artifacts and pages.
