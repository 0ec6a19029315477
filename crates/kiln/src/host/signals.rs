//! The signals that ask to end.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::exit::Exit;

/// How often we were asked to end: once is in peace, twice is now. The third time
/// this process just ends: its guests die with it, its leases are given up later.
pub fn asked_to_end() -> watch::Receiver<u32> {
    let (sender, receiver) = watch::channel(0);
    each(move || {
        let mut times = 0;
        sender.send_modify(|count| {
            *count += 1;
            times = *count;
        });
        match times {
            1 => tracing::info!("ending when what runs has ended; once more to end now"),
            2 => tracing::info!("ending now"),
            _ => std::process::exit(Exit::Interrupted.status().into()),
        }
    });
    receiver
}

/// Does something with each signal that asks to end.
pub fn each(heard: impl Fn() + Clone + Send + 'static) {
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let heard = heard.clone();
        let Ok(mut signals) = signal(kind) else {
            tracing::warn!("a signal can't be caught: it ends this process at once");
            continue;
        };
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                heard();
            }
        });
    }
}

/// Waits until we were asked so often.
pub async fn asked(signals: &mut watch::Receiver<u32>, times: u32) {
    if signals.wait_for(|count| *count >= times).await.is_err() {
        std::future::pending::<()>().await;
    }
}
