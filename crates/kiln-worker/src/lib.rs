//! The order of the steps of a job, in any machine.
//!
//! [`run`] is the one supervisor of one job: it prepares what the guest is
//! given, has a [`Machine`](kiln_vm::machine::Machine) start the guest, drives
//! the steps in builds.sr.ht's order, collects the artifacts, reports how all
//! that ends and stops the guest, on every path.
//!
//! ```text
//! prepare ─ start ─ settings ─ repositories ─ packages ─ sources ─ begun ─ tasks ─ artifacts ─ report ─ hold ─ stop
//!    └────────┴─ one deadline, one cancel, the guest may go at any time ──────┴────────┘
//! ```
//!
//! Invariants:
//! * This crate knows no QEMU and no SSH: a guest is a
//!   [`Guest`](kiln_vm::machine::Guest), whoever listens is a [`Reporter`]. Only
//!   [`farm`] knows of a farm: it takes jobs from a server and runs them by the same
//!   [`run`].
//! * No task starts before [`Reporter::begun`] has returned.
//! * Every task and the job end in exactly one terminal status, and only
//!   `kiln_core`'s transitions move them.
//! * Words of a manifest never become part of a script's text: they are
//!   arguments; secrets never are arguments.
//! * No log, event or [`Outcome::reason`] names anything of the host; what the
//!   operator needs is in [`Outcome::operator`].

mod event;
pub mod farm;
mod job;
mod log;
mod outcome;
mod progress;
mod reporter;
mod script;
mod steps;
mod supervisor;

pub use event::{Artifact, Body, Event, Step, VERSION};
pub use job::{Job, Limits, Overlay, Secret, SecretKind};
pub use outcome::{Cause, Outcome};
pub use reporter::{LogId, ReportError, Reporter};
pub use supervisor::{Hold, NoHold, run};
