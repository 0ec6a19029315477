//! Ctrl-C and the signals that ask to end.

use tokio::sync::watch;

use crate::{
    exit::{Exit, Failure},
    host::signals,
    ui,
};

/// Becomes true with the first signal. The second one ends kiln at once: the
/// guest dies with it, and the next run clears what is left.
pub fn cancel() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    signals::each(move || {
        if sender.send_replace(true) {
            std::process::exit(Exit::Interrupted.status().into());
        }
        ui::note("stopping the guest; once more to leave at once");
    });
    receiver
}

/// Does something until a signal asks to end; it is dropped then.
///
/// # Errors
/// Its own, or that it was interrupted.
pub async fn unless<T>(
    mut cancel: watch::Receiver<bool>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = asked(&mut cancel) => Err(Failure::interrupted()),
    }
}

/// Waits for the first signal.
pub async fn asked(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        // Nobody could catch one.
        std::future::pending::<()>().await;
    }
}
