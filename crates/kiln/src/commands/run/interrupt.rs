//! Ctrl-C and the signals that ask to end.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{exit::Exit, ui};

/// Becomes true with the first signal. The second one ends kiln at once: the
/// guest dies with it, and the next run clears what is left.
pub fn cancel() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let sender = sender.clone();
        let Ok(mut signals) = signal(kind) else {
            ui::warning("a signal can't be caught: it will end kiln at once");
            continue;
        };
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send_replace(true) {
                    std::process::exit(Exit::Interrupted.status().into());
                }
                ui::note("stopping the guest; once more to leave at once");
            }
        });
    }
    receiver
}
