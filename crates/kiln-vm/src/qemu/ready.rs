//! Waits until the guest lets us in.
//!
//! QEMU accepts a connection at once and only then asks the guest. While the
//! guest has no network yet, that attempt hangs and would be noticed seconds
//! late; while its SSH server works on an answer, giving up would make it
//! start over. QEMU tells the two apart (`info usernet`): an attempt that a
//! booting guest has not accepted is replaced within 100 ms, one that it has
//! accepted is waited for.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::qmp::Qmp;
use crate::ssh::{Dial, LoginError, Session};

/// How often an attempt is looked at, and the pause between two.
const LOOK: Duration = Duration::from_millis(20);
/// How long an attempt may hang in a guest that boots: it may have been made
/// before the guest had a network, and is lost then.
const BOOTING: Duration = Duration::from_millis(60);
/// On a host so busy that a guest takes this long to boot, it may also take
/// longer than that to accept.
const SLOW_BOOT: Duration = Duration::from_secs(15);
/// How long an attempt may hang in a guest that is up, or slow.
const UP: Duration = Duration::from_secs(1);
/// How long an accepted one may be silent. On a busy host an emulated SSH
/// server takes seconds for its first word.
const SILENT: Duration = Duration::from_mins(1);

/// What is known of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    /// It boots.
    Boots,
    /// It has a network.
    IsUp,
}

/// Logs in as soon as the guest lets us; for ever, until it does. The last
/// reason why not is left in `reason`.
pub(super) async fn first_login(
    guest: &dyn Dial,
    qmp: &Qmp,
    guest_port: u16,
    state: Guest,
    reason: &mut &'static str,
) -> Session {
    let started = Instant::now();
    loop {
        let patience = match state {
            Guest::Boots if started.elapsed() < SLOW_BOOT => BOOTING,
            _ => UP,
        };
        // An older session of ours looks the same in QEMU's table.
        let before = accepted_by_guest(qmp, guest_port).await;
        if let Some(stream) = guest.dial().await {
            match answer(&stream, qmp, guest_port, (before, patience)).await {
                Answer::Spoke => match Session::login(stream).await {
                    Ok(session) => return session,
                    Err(error) => *reason = words(error),
                },
                Answer::Closed => *reason = "its SSH server closes the connection",
                Answer::Silent => *reason = "its SSH server accepts and says nothing",
                Answer::Unheard => {}
            }
        }
        sleep(LOOK).await;
    }
}

fn words(error: LoginError) -> &'static str {
    match error {
        LoginError::Handshake => {
            "its SSH server closes the connection or never finishes the handshake"
        }
        LoginError::Protocol => "its SSH server speaks no sense",
        LoginError::Refused => "its user `build` may not log in with an empty password",
    }
}

/// What became of an attempt.
enum Answer {
    /// The guest's server said something.
    Spoke,
    /// It closed the connection, or nobody listens yet.
    Closed,
    /// It accepted and said nothing for too long.
    Silent,
    /// The guest has not even accepted it.
    Unheard,
}

/// Waits for the guest's server on this attempt; `before` connections were
/// accepted before it.
async fn answer(
    stream: &TcpStream,
    qmp: &Qmp,
    guest_port: u16,
    (before, patience): (usize, Duration),
) -> Answer {
    let started = Instant::now();
    let mut first = [0];
    loop {
        tokio::select! {
            peeked = stream.peek(&mut first) => return match peeked {
                Ok(1..) => Answer::Spoke,
                _ => Answer::Closed,
            },
            () = sleep(LOOK) => {}
        }
        if started.elapsed() < patience {
            continue;
        }
        if accepted_by_guest(qmp, guest_port).await <= before {
            return Answer::Unheard;
        }
        if started.elapsed() > SILENT {
            return Answer::Silent;
        }
    }
}

async fn accepted_by_guest(qmp: &Qmp, guest_port: u16) -> usize {
    let table = qmp.monitor("info usernet").await;
    table.map_or(0, |table| accepted(&table, guest_port))
}

/// How many connections to this port the guest has accepted.
///
/// Rows of `info usernet`: protocol and state, descriptor, source address and
/// port, destination address and port, two queues.
pub(crate) fn accepted(table: &str, guest_port: u16) -> usize {
    let port = guest_port.to_string();
    let is_accepted = |row: &&str| {
        let words: Vec<&str> = row.split_whitespace().collect();
        words.first() == Some(&"TCP[ESTABLISHED]")
            && words
                .get(4)
                .is_some_and(|address| address.starts_with("10.0.2."))
            && words.get(5) == Some(&port.as_str())
    };
    table.lines().filter(is_accepted).count()
}

/// The port that the kernel chose for the guest's SSH, where QEMU has no
/// namespace of its own.
pub(crate) fn forwarded_port(table: &str) -> Option<u16> {
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
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_table_makes_it_panic(table in "(TCP\\[(ESTABLISHED|HOST_FORWARD)\\]|[ \n]|10\\.0\\.2\\.[0-9]{1,4}|[0-9]{1,7}|.){0,60}") {
            prop_assert!(accepted(&table, 22) <= table.len());
            let _ = forwarded_port(&table);
        }
    }

    const TABLE: &str = "Hub -1 (network):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
         TCP[SYN_SENT]  14       127.0.0.1 40000       10.0.2.15    22     0     0\n  \
         TCP[HOST_FORWARD]  12       127.0.0.1 35353       10.0.2.15    22     0     0\n";

    #[test]
    fn an_attempt_counts_once_the_guest_has_accepted_it() {
        assert_eq!(accepted(TABLE, 22), 0);
        let established = TABLE.replace("SYN_SENT", "ESTABLISHED");
        assert_eq!(accepted(&established, 22), 1);
        assert_eq!(accepted(&established, 2022), 0);
    }

    #[test]
    fn the_kernels_port_is_in_the_forwards_row() {
        assert_eq!(forwarded_port(TABLE), Some(35353));
        assert_eq!(forwarded_port("garbage"), None);
    }
}
