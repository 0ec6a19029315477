//! The WebSocket to the server: made again whenever it is lost, which loses
//! nothing else.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use kiln_wire::{
    client::{ClientError, Socket},
    message::{FromServer, FromWorker, PROTOCOL, State},
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::{
    backoff::{self, Backoff},
    worker::Worker,
};

/// How long a server may take to answer a hello. One that hangs is to be left for another while
/// there is something left of the leases.
const WELCOME: Duration = Duration::from_secs(5);
/// After so many renewals without an answer the server is away.
const SILENCE: u32 = 3;
/// Within what time those whose connection has ended come again: all workers of a server that
/// ends are told so in one moment, and each hello takes a turn of the farm's one writer.
const SPREAD: Duration = Duration::from_secs(3);

/// Why a connection ended.
enum Left {
    /// There is no use in another.
    ForEver(String),
    /// There is.
    For(String),
    /// The worker ended it.
    Politely,
}

impl From<ClientError> for Left {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Wrong(why) => Self::ForEver(why),
            ClientError::Unreachable(why) => Self::For(why),
        }
    }
}

/// Keeps a connection until the worker leaves.
///
/// # Errors
/// When the server won't have this worker, before it ever had. One that once had
/// it is asked again: it may be that only something between has gone wrong.
pub(super) async fn keep(worker: &Arc<Worker>) -> anyhow::Result<()> {
    let mut backoff = Backoff::of_server();
    let mut welcomed = false;
    loop {
        let attempt = tokio::select! {
            attempt = connect(worker) => attempt,
            () = worker.leaving() => return Ok(()),
        };
        let (left, well) = match attempt {
            Ok((socket, every)) => {
                welcomed = true;
                backoff.spread(SPREAD);
                (converse(worker, socket, every).await, true)
            }
            Err(left) => (left, false),
        };
        match left {
            Left::Politely => return Ok(()),
            Left::ForEver(why) if !welcomed => bail!(why),
            Left::ForEver(why) | Left::For(why) if well => tracing::warn!("{why}"),
            Left::ForEver(why) | Left::For(why) => tracing::warn!("{why}; it is tried again"),
        }
        tokio::select! {
            () = backoff::wait(&mut backoff) => {}
            () = worker.leaving() => return Ok(()),
        }
    }
}

/// A connection that is welcome, and how often to renew.
async fn connect(worker: &Worker) -> Result<(Socket, Duration), Left> {
    let mut socket = worker.config.client.connect().await?;
    socket.send(&FromWorker::Hello(worker.hello())).await?;
    let answer = timeout(WELCOME, socket.next()).await;
    let answer = answer.map_err(|_| Left::For("the server doesn't welcome anybody".to_owned()))?;
    match answer? {
        FromServer::Welcome {
            protocol,
            name,
            renew_seconds,
            lost,
            gather,
        } => {
            if protocol != PROTOCOL {
                return Err(Left::ForEver(format!(
                    "the server speaks version {protocol} of the workers' protocol, this \
                     worker {PROTOCOL}: run the server's version of kiln here"
                )));
            }
            let server = worker.config.client.server();
            tracing::info!(name, "{server} knows this worker as {name}");
            worker.lose(&lost, "its lease has ended meanwhile");
            worker.live.gather(gather);
            Ok((socket, Duration::from_secs(renew_seconds.clamp(1, 60))))
        }
        FromServer::Refused { reason, again } => Err(refused(&reason, again)),
        _ => Err(Left::For("the server welcomes nobody".to_owned())),
    }
}

async fn converse(worker: &Arc<Worker>, mut socket: Socket, every: Duration) -> Left {
    let left = conversation(worker, &mut socket, every).await;
    let left = left.unwrap_or_else(Left::from);
    if matches!(left, Left::Politely) {
        socket.close().await;
    }
    left
}

/// Until the connection is lost.
async fn conversation(
    worker: &Arc<Worker>,
    socket: &mut Socket,
    every: Duration,
) -> Result<Left, ClientError> {
    let mut renewals = interval(every);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What has changed since the hello is found out at once.
    let mut told: Option<State> = None;
    // Live bytes are passed on without the database, and a cancel needs no write: only this
    // shows that leases are prolonged.
    let mut renewed = Instant::now();
    let mut live = worker.live.outgoing().await;
    loop {
        tokio::select! {
            message = socket.next() => {
                match message? {
                    FromServer::Passed => live.passed(),
                    message => {
                        if matches!(message, FromServer::Renewed { .. }) {
                            renewed = Instant::now();
                        }
                        if let Some(left) = heed(worker, message) {
                            return Ok(left);
                        }
                    }
                }
            }
            () = sleep_until(renewed + every * SILENCE) => {
                let why = "the server renews no leases any more".to_owned();
                return Ok(Left::For(why));
            }
            piece = live.next() => socket.send_live(&piece).await?,
            _ = renewals.tick() => {
                let leases = worker.leases();
                socket.send(&FromWorker::Renew { leases }).await?;
            }
            () = worker.changed() => {}
            () = worker.leaving() => return Ok(Left::Politely),
        }
        let state = worker.state();
        if told.as_ref() != Some(&state) {
            socket.send(&FromWorker::State(state.clone())).await?;
            told = Some(state);
        }
    }
}

/// Does what the server says; what it leaves for, when it does.
fn heed(worker: &Arc<Worker>, message: FromServer) -> Option<Left> {
    match message {
        FromServer::Offer(offer) => worker.take(*offer),
        FromServer::Renewed { lost } => worker.lose(&lost, "its lease has ended"),
        FromServer::Cancel { fence } => worker.lose(&[fence], "the server has ended its lease"),
        // It was answered before.
        FromServer::Welcome { .. } | FromServer::Passed => {}
        FromServer::Refused { reason, again } => return Some(refused(&reason, again)),
    }
    None
}

fn refused(reason: &str, again: bool) -> Left {
    let why = format!("the server refuses this worker: {reason}");
    if again {
        Left::For(why)
    } else {
        Left::ForEver(why)
    }
}
