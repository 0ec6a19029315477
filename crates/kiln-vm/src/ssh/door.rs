//! A socket that leads to a guest's SSH server, for a person's own client:
//! `ssh -o ProxyCommand=…`. Each connection to it is one to the guest.

use std::{io, path::Path};

use tokio::{io::copy_bidirectional, net::UnixListener, sync::watch, task::JoinSet};

use crate::machine::Guest;

/// Between two attempts to let a visitor in when that fails.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// A listening socket, only for this user.
pub struct Door {
    listener: UnixListener,
    visitors: watch::Sender<usize>,
}

impl Door {
    /// Listens at this path.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: crate::socket::listen(path)?,
            visitors: watch::Sender::new(0),
        })
    }

    /// How many connections are open.
    #[must_use]
    pub fn visitors(&self) -> watch::Receiver<usize> {
        self.visitors.subscribe()
    }

    /// Lets visitors through, for ever. Dropping the future ends their
    /// connections.
    pub async fn serve(&self, guest: &dyn Guest) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((mut visitor, _)) = accepted else {
                        // No descriptor is left: there may be one later.
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    };
                    if let Ok(mut stream) = guest.dial().await {
                        self.visitors.send_modify(|count| *count += 1);
                        open.spawn(async move {
                            // Whoever ends it first, the other one notices.
                            let _ = copy_bidirectional(&mut visitor, &mut stream).await;
                        });
                    }
                }
                Some(_) = open.join_next() => self.visitors.send_modify(|count| *count -= 1),
            }
        }
    }
}
