//! Waits until the guest lets us in.
//!
//! QEMU accepts a connection at once and only then asks the guest. While the
//! guest has no network yet, that attempt hangs and would be noticed seconds
//! late; while its SSH server works on an answer, giving up would make it
//! start over. QEMU tells the two apart (`info usernet`): an attempt that the
//! guest has not accepted is replaced every 100 ms, one that it has accepted
//! is waited for.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::qmp::Qmp;
use crate::ssh::{Dial, LoginError, Session};

/// How often an attempt is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long an attempt may hang that the guest has not accepted.
const UNANSWERED: Duration = Duration::from_millis(100);
/// How long an accepted one may be silent. On a busy host an emulated SSH
/// server takes seconds for its first word.
const SILENT: Duration = Duration::from_mins(1);

/// Logs in as soon as the guest lets us; for ever, until it does. The last
/// reason why not is left in `reason`.
pub(super) async fn first_login(
    guest: &dyn Dial,
    qmp: &Qmp,
    guest_port: u16,
    reason: &mut &'static str,
) -> Session {
    loop {
        let Some(stream) = guest.dial().await else {
            sleep(LOOK).await;
            continue;
        };
        if !answered(&stream, qmp, guest_port).await {
            sleep(LOOK).await;
            continue;
        }
        match Session::login(stream).await {
            Ok(session) => return session,
            Err(error) => {
                *reason = match error {
                    LoginError::Handshake => {
                        "its SSH server closes the connection or never finishes the handshake"
                    }
                    LoginError::Protocol => "its SSH server speaks no sense",
                    LoginError::Refused => "its user `build` may not log in with an empty password",
                };
                tracing::debug!(%error, "login");
                sleep(LOOK).await;
            }
        }
    }
}

/// Whether the guest's SSH server said something on this attempt.
async fn answered(stream: &TcpStream, qmp: &Qmp, guest_port: u16) -> bool {
    let started = Instant::now();
    let mut first = [0];
    loop {
        tokio::select! {
            peeked = stream.peek(&mut first) => return matches!(peeked, Ok(1..)),
            () = sleep(LOOK) => {}
        }
        if started.elapsed() < UNANSWERED {
            continue;
        }
        let accepted = match qmp.monitor("info usernet").await {
            Ok(table) => accepted(&table, guest_port),
            Err(_) => return false,
        };
        if !accepted || started.elapsed() > SILENT {
            return false;
        }
    }
}

/// Whether the guest has accepted a connection to this port.
///
/// Rows of `info usernet`: protocol and state, descriptor, source address and
/// port, destination address and port, two queues.
fn accepted(table: &str, guest_port: u16) -> bool {
    let port = guest_port.to_string();
    table.lines().any(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        words.first() == Some(&"TCP[ESTABLISHED]")
            && words
                .get(4)
                .is_some_and(|address| address.starts_with("10.0.2."))
            && words.get(5) == Some(&port.as_str())
    })
}

/// The port that the kernel chose for the guest's SSH, where QEMU has no
/// namespace of its own.
pub(super) fn forwarded_port(table: &str) -> Option<u16> {
    table.lines().find_map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        if words.first() == Some(&"TCP[HOST_FORWARD]") {
            words.get(3)?.parse().ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Hub -1 (network):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
         TCP[SYN_SENT]  14       127.0.0.1 40000       10.0.2.15    22     0     0\n  \
         TCP[HOST_FORWARD]  12       127.0.0.1 35353       10.0.2.15    22     0     0\n";

    #[test]
    fn an_attempt_counts_once_the_guest_has_accepted_it() {
        assert!(!accepted(TABLE, 22));
        let established = TABLE.replace("SYN_SENT", "ESTABLISHED");
        assert!(accepted(&established, 22));
        assert!(!accepted(&established, 2022));
    }

    #[test]
    fn the_kernels_port_is_in_the_forwards_row() {
        assert_eq!(forwarded_port(TABLE), Some(35353));
        assert_eq!(forwarded_port("garbage"), None);
    }
}
