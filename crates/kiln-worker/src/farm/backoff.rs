//! Waiting before something is tried again.

pub(super) use kiln_core::farm::Backoff;
use rustix::rand::{GetRandomFlags, getrandom};

/// Waits as long as it is this turn.
pub(super) async fn wait(backoff: &mut Backoff) {
    let mut random = [0xff; 4];
    // Without random numbers all wait the longest, that's all.
    let _ = getrandom(&mut random, GetRandomFlags::NONBLOCK);
    tokio::time::sleep(backoff.next(u32::from_ne_bytes(random))).await;
}
