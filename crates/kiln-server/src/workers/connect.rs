//! A worker's WebSocket: see `kiln_wire::message`.
//!
//! Nothing is lost with it: leases stay, and what was to be told is told on the next one.
//! What there is to tell is found by looking at the session's leases: when hinted, and when the
//! look at all sessions' leases, each second, found that the session was told otherwise.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{
        State,
        ws::{
            CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use kiln_core::farm::{LogName, SessionId, limits};
use kiln_store::{StoreError, model::Renewed};
use kiln_wire::{
    live,
    message::{FromServer, FromWorker, Gather, MAX_MESSAGE, Mood, PROTOCOL},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{caller::Caller, hello, refusal::Refused};
use crate::{
    app::{
        leases::ReportError,
        renewals::Pending,
        sessions::{self, Told},
    },
    state::{Shared, stopped},
};

/// How long a worker may take for its hello, and for taking a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to agree that the socket ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long it may say nothing at all.
const SILENCE: Duration = Duration::from_secs(limits::LEASE_SECONDS);
/// How long a log is gathered where each append costs a request to an object store.
const GATHER_MS: u64 = 1000;

pub(super) async fn connect(
    State(state): State<Shared>,
    caller: Caller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(wrong) => return Refused::invalid(wrong.body_text()).into_response(),
    };
    // Counted before the request ends, so that a server that ends knows of it.
    let Some(counted) = state.sockets.add(caller.worker.id) else {
        let name = &caller.worker.name;
        let why = anyhow::anyhow!("worker {name} has too many connections");
        return Refused::from(ReportError::Unavailable(why)).into_response();
    };
    upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(async move |socket| {
            serve(Socket { socket }, &state, &caller).await;
            drop(counted);
        })
}

/// Why a socket ends.
enum End {
    /// The worker is gone, or went.
    Gone,
    /// The worker is on another socket now.
    Elsewhere,
    /// The server goes; the worker is to come again.
    Stopping,
    /// The worker can't be served.
    Refused { reason: String, again: bool },
}

fn refused(reason: impl Into<String>) -> End {
    End::Refused {
        reason: reason.into(),
        again: false,
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Refused {
                reason: "the server's database does not answer".to_owned(),
                again: true,
            },
            error => refused(error.to_string()),
        }
    }
}

/// What a worker says.
enum Said {
    /// A message.
    Text(String),
    /// Bytes of a log that are not stored yet.
    Live(Bytes),
}

/// Messages instead of frames.
struct Socket {
    socket: WebSocket,
}

impl Socket {
    /// The first text.
    async fn first(&mut self) -> Result<String, End> {
        match self.next().await? {
            Said::Text(text) => Ok(text),
            Said::Live(_) => Err(refused(
                "the first message is a hello, and hellos are texts",
            )),
        }
    }

    /// What is said next. Safe to be dropped while it waits.
    async fn next(&mut self) -> Result<Said, End> {
        loop {
            match self.socket.recv().await {
                Some(Ok(Message::Text(text))) => return Ok(Said::Text(text.as_str().to_owned())),
                Some(Ok(Message::Binary(bytes))) => return Ok(Said::Live(bytes)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Err(End::Gone),
                Some(Err(error)) => {
                    tracing::debug!("a worker's socket failed: {error}");
                    // Too long a message is one of these; of any other nobody is left to be
                    // told so.
                    let limit = MAX_MESSAGE;
                    return Err(refused(format!(
                        "a message that can't be read; one has at most {limit} bytes"
                    )));
                }
            }
        }
    }

    async fn say(&mut self, message: &FromServer) -> Result<(), End> {
        // It can't fail: all of it is plain data.
        let text = serde_json::to_string(message).unwrap_or_default();
        let sent = timeout(PATIENCE, self.socket.send(Message::text(text)));
        match sent.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    /// Ends it with a word. Whether there was somebody to hear it.
    async fn end(mut self, end: End) -> bool {
        let (code, reason) = match end {
            End::Gone => return false,
            End::Elsewhere => (close_code::POLICY, "this session has another socket"),
            End::Stopping => (close_code::RESTART, "the server ends"),
            End::Refused { reason, again } => {
                let why = format!("a worker is refused: {reason}");
                let said = self.say(&FromServer::Refused { reason, again }).await;
                match (said, again) {
                    (Err(_), _) => return false,
                    // What is missing then is told elsewhere, and once.
                    (Ok(()), true) => tracing::debug!("{why}"),
                    (Ok(()), false) => tracing::warn!("{why}"),
                }
                (close_code::POLICY, "refused")
            }
        };
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        let closed = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            // Its answer: what it had sent before is not read any more.
            while let Some(Ok(_)) = self.socket.recv().await {}
            Ok::<_, axum::Error>(())
        };
        // A worker that does not answer is cut.
        let _ = timeout(FAREWELL, closed).await;
        true
    }
}

/// What is known of a worker whose hello was taken.
struct Session {
    id: SessionId,
    labels: BTreeMap<String, String>,
    draining: bool,
    told: Told,
}

async fn serve(mut socket: Socket, state: &Shared, caller: &Caller) {
    let mut session = match greet(&mut socket, state, caller).await {
        Ok(session) => session,
        Err(end) => {
            socket.end(end).await;
            return;
        }
    };
    let (name, id) = (&caller.worker.name, session.id.clone());
    tracing::info!(worker = %name, session = %id, "worker {name} is here");
    let end = talk(&mut socket, state, caller, &mut session).await;
    tracing::info!(worker = %name, session = %id, "worker {name} is not here any more");
    if !socket.end(end).await && session.draining {
        session.told.end(state).await;
    }
}

async fn greet(socket: &mut Socket, state: &Shared, caller: &Caller) -> Result<Session, End> {
    let first = timeout(PATIENCE, socket.first()).await;
    let first = first.map_err(|_| refused("there was no hello"))??;
    let hello = hello::read(&first).map_err(refused)?;
    let labels = hello.labels.clone();
    let draining = hello.state.mood == Mood::Draining;
    let hello = hello::checked(hello).map_err(refused)?;
    let id = hello.session.clone();
    // A worker that gave up waiting says hello elsewhere: done late, this one would take the
    // session away from that.
    let (told, lost) = tokio::select! {
        done = sessions::hello(state, &caller.worker, &hello) => done?,
        said = socket.next() => {
            return Err(said.err().unwrap_or_else(|| refused("there was no welcome yet")));
        }
    };
    let welcome = FromServer::Welcome {
        protocol: PROTOCOL,
        name: caller.worker.name.clone(),
        renew_seconds: limits::RENEW_SECONDS,
        gather: gather(state),
        lost,
    };
    socket.say(&welcome).await?;
    Ok(Session {
        id,
        labels,
        draining,
        told,
    })
}

/// How long workers gather a log before the next append. In a directory an append costs
/// little, and is seen at once.
fn gather(state: &Shared) -> Option<Gather> {
    state.objects.gathers().then_some(Gather {
        milliseconds: GATHER_MS,
        bytes: limits::APPEND as u64,
    })
}

async fn talk(socket: &mut Socket, state: &Shared, caller: &Caller, session: &mut Session) -> End {
    let mut hint = state.hints.session(&session.id);
    let mut elsewhere = state.hints.hellos(&session.id);
    let mut stopping = state.stopping.clone();
    let mut renewing: Option<Pending> = None;
    let mut silent_at = Instant::now() + SILENCE;
    loop {
        let done = tokio::select! {
            () = stopped(&mut stopping) => return End::Stopping,
            () = session.told.is_replaced() => return End::Elsewhere,
            () = sleep_until(silent_at) => return End::Gone,
            said = socket.next() => {
                silent_at = Instant::now() + SILENCE;
                match said {
                    Ok(Said::Text(text)) => {
                        heard(socket, state, caller, session, &mut renewing, &text).await
                    }
                    Ok(Said::Live(bytes)) => pass_on(socket, state, session, bytes).await,
                    Err(end) => return end,
                }
            }
            // The sender stays as long as somebody listens.
            _ = hint.changed() => tell(socket, state, session).await,
            _ = elsewhere.changed() => still_here(state, session).await,
            () = session.told.is_behind() => tell(socket, state, session).await,
            renewed = answer(&mut renewing) => tell_renewed(socket, session, renewed).await,
        };
        if let Err(end) = done {
            return end;
        }
    }
}

/// The session may have said hello on another server.
async fn still_here(state: &Shared, session: &Session) -> Result<(), End> {
    match session.told.speaks(state).await {
        Ok(false) => Err(End::Elsewhere),
        // Without a database nothing is told anyway.
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Passes on bytes of a log that are not stored yet, if they are of a lease of this session.
async fn pass_on(
    socket: &mut Socket,
    state: &Shared,
    session: &Session,
    bytes: Bytes,
) -> Result<(), End> {
    let piece = live::read(bytes).map_err(refused)?;
    if let Some(job) = session.told.job(piece.fence) {
        let log = LogName::of(job, &piece.task);
        state.hints.came(log, piece.offset, piece.bytes);
    }
    socket.say(&FromServer::Passed).await
}

/// Tells what is new about the session's leases.
async fn tell(socket: &mut Socket, state: &Shared, session: &mut Session) -> Result<(), End> {
    let news = match session.told.news(state).await {
        Ok(news) => news,
        // Another has spoken for the session since.
        Err(StoreError::Conflict(_)) => return Err(End::Elsewhere),
        Err(error) => {
            tracing::debug!("a worker's leases can't be looked at: {error}");
            return Ok(());
        }
    };
    for message in &news {
        socket.say(message).await?;
    }
    Ok(())
}

async fn heard(
    socket: &mut Socket,
    state: &Shared,
    caller: &Caller,
    session: &mut Session,
    renewing: &mut Option<Pending>,
    text: &str,
) -> Result<(), End> {
    let message = serde_json::from_str(text);
    let message = message.map_err(|error| refused(format!("no message: {error}")))?;
    match message {
        FromWorker::Hello(_) => Err(refused("there was a hello already")),
        FromWorker::State(now) => {
            session.draining = now.mood == Mood::Draining;
            let now = hello::state(now, &session.labels).map_err(refused)?;
            // What lay in a connection that was given up may be older than what is known.
            still_here(state, session).await?;
            Ok(session.told.set_state(state, &now).await?)
        }
        FromWorker::Renew { leases } => {
            hello::leases(leases.len()).map_err(refused)?;
            // Each is answered, whatever its worker's haste.
            if renewing.is_some() {
                let before = answer(renewing).await;
                tell_renewed(socket, session, before).await?;
            }
            *renewing = Some(session.told.renew(state, caller.token, leases));
            Ok(())
        }
    }
}

/// Waits for the answer to a renewal; for ever when there was none.
async fn answer(renewing: &mut Option<Pending>) -> Option<Renewed> {
    let Some(pending) = renewing else {
        return std::future::pending().await;
    };
    let renewed = pending.await;
    *renewing = None;
    // Where nobody answers, the database didn't.
    renewed.ok()
}

/// Tells what became of a renewal. Where the database failed nothing is told, and no lease is
/// lost by it: the worker renews again, and the reaper waits.
async fn tell_renewed(
    socket: &mut Socket,
    session: &mut Session,
    renewed: Option<Renewed>,
) -> Result<(), End> {
    match renewed {
        None => Ok(()),
        Some(Renewed::Lost(lost)) => {
            session.told.forget(&lost);
            socket.say(&FromServer::Renewed { lost }).await
        }
        Some(Renewed::TakenBack) => Err(refused("this worker's token was taken back")),
        Some(Renewed::Gone) => Err(refused("this session has ended")),
    }
}
