//! What a server needs and is away when it starts is waited for, and its log says so.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::{exit::Failure, host::signals};

/// How long. After that whoever starts servers starts another one, or somebody looks.
const WAIT: Duration = Duration::from_mins(5);
/// How soon it is tried again, at first and at the most.
const SOON: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(5);

/// Why something can't be used.
pub enum Why {
    /// It does not answer: that may pass.
    Away(String),
    /// There is no use in trying again.
    Wrong(String),
}

/// Tries until it is there; none when this process is asked to end before.
///
/// # Errors
/// When it can't be used, or stays away.
pub async fn until_there<T>(
    signals: &mut watch::Receiver<u32>,
    attempt: impl AsyncFn() -> Result<T, Why>,
) -> Result<Option<T>, Failure> {
    let began = Instant::now();
    let mut pause = SOON;
    loop {
        let away = match attempt().await {
            Ok(there) => return Ok(Some(there)),
            Err(Why::Away(why)) if began.elapsed() < WAIT => why,
            Err(Why::Away(why) | Why::Wrong(why)) => return Err(Failure::host(why)),
        };
        tracing::warn!("{away}; it is tried again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals::asked(signals, 1) => return Ok(None),
        }
        pause = LATE.min(pause * 2);
    }
}
