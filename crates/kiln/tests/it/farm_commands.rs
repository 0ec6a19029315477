//! What operators and users of a farm type, and what they are told.
//!
//! Jobs run on the dummy machine, so all of this takes seconds.

mod admin;
mod client;
mod queue;
mod settings;

use crate::harness::Farm;

/// A farm whose server runs jobs itself, on the dummy machine.
fn farm() -> Farm {
    Farm::new()
        .words(["--no-worker=false", "--dummy"])
        .started()
}

/// Manifests have at least one task.
const HELLO: &str = "tasks:\n- hello: echo hi\n";
