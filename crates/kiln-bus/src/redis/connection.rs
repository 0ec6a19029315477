//! One connection, from its making to its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, ErrorKind, PushInfo, PushKind, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Address, Shared,
    flood::{Flood, WINDOW},
};
use crate::{
    Heard, decode, encode,
    hint::{MAX_MESSAGE, speaker},
};

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is asked whether it is there.
const PING: Duration = Duration::from_secs(5);
/// Between two messages of ours: what happens meanwhile goes in one.
const PAUSE: Duration = Duration::from_millis(2);
/// Messages that wait to be looked at.
const WAITING: usize = 128;

/// Why a connection ended.
pub(super) struct Left {
    /// A sentence for the operator.
    pub(super) why: String,
    /// Whether it was one at all.
    pub(super) well: bool,
    /// Whether to stay away for long.
    pub(super) long: bool,
}

impl From<RedisError> for Left {
    fn from(error: RedisError) -> Self {
        Self {
            why: sentence(&error),
            well: false,
            long: false,
        }
    }
}

/// What has gone wrong, for the operator.
fn sentence(error: &RedisError) -> String {
    match (error.kind(), error.code()) {
        (_, Some("NOAUTH")) => "it wants a password, and none is given".to_owned(),
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            "it refuses this user or password".to_owned()
        }
        (_, Some("NOPERM")) => format!("its user may not do what a bus does: {error}"),
        (ErrorKind::RESP3NotSupported, _) => {
            "it is older than version 6 of the Redis protocol".to_owned()
        }
        _ if error.is_timeout() => "it does not answer".to_owned(),
        _ => error.to_string(),
    }
}

/// What comes in, on its way from the connection.
#[derive(Debug)]
struct Incoming {
    messages: mpsc::Sender<Vec<u8>>,
    /// There was no room for one.
    missed: AtomicBool,
    flood: Flood,
    /// The connection has ended.
    gone: Notify,
}

impl Incoming {
    /// Called by the connection's own task: never waits.
    fn push(&self, info: PushInfo) {
        match info.kind {
            PushKind::Message => {}
            PushKind::Disconnection => return self.gone.notify_one(),
            _ => return,
        }
        let Some(Value::BulkString(message)) = info.data.into_iter().nth(1) else {
            return;
        };
        self.flood.came(message.len());
        if message.len() <= MAX_MESSAGE && self.messages.try_send(message).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

/// Connects, and stays as long as that goes.
pub(super) async fn run(shared: &Shared, address: &Address) -> Left {
    let (messages, waiting) = mpsc::channel(WAITING);
    let incoming = Arc::new(Incoming {
        messages,
        missed: AtomicBool::new(false),
        flood: Flood::new(Instant::now()),
        gone: Notify::new(),
    });
    let pushed = Arc::clone(&incoming);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER))
        .set_response_timeout(Some(ANSWER))
        .set_push_sender(move |info| {
            pushed.push(info);
            Ok::<_, ()>(())
        });
    let connect = async {
        let client = &address.client;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        connection.subscribe(&address.channel).await?;
        Ok::<_, RedisError>(connection)
    };
    let connection = match connect.await {
        Ok(connection) => connection,
        Err(error) => return error.into(),
    };
    shared.connected(address);
    let left = tokio::select! {
        left = speak(shared, address, connection.clone()) => left,
        left = ping(connection) => left,
        left = guard(&incoming) => left,
        () = incoming.gone.notified() => Left {
            why: "it closed the connection".to_owned(),
            well: true,
            long: false,
        },
        never = listen(shared, &incoming, waiting) => match never {},
    };
    Left { well: true, ..left }
}

/// Sends what is to be sent.
async fn speak(shared: &Shared, address: &Address, mut connection: MultiplexedConnection) -> Left {
    loop {
        let hints = shared.outbox.take().await;
        for message in encode(&shared.key, shared.member, &hints) {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&address.channel).arg(message);
            if let Err(error) = publish.exec_async(&mut connection).await {
                return error.into();
            }
        }
        sleep(PAUSE).await;
    }
}

/// A connection that is cut without a word shows by an answer that does not come.
async fn ping(mut connection: MultiplexedConnection) -> Left {
    loop {
        sleep(PING).await;
        if let Err(error) = redis::cmd("PING").exec_async(&mut connection).await {
            return error.into();
        }
    }
}

/// Until there is a flood.
async fn guard(incoming: &Incoming) -> Left {
    let mut window = interval(WINDOW);
    window.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        window.tick().await;
        if let Some(why) = incoming.flood.look(Instant::now()) {
            return Left {
                why,
                well: true,
                long: true,
            };
        }
    }
}

async fn listen(
    shared: &Shared,
    incoming: &Incoming,
    mut waiting: mpsc::Receiver<Vec<u8>>,
) -> std::convert::Infallible {
    loop {
        let Some(message) = waiting.recv().await else {
            // The connection has gone; the others say why.
            return std::future::pending().await;
        };
        if incoming.missed.swap(false, Ordering::Relaxed) {
            shared.tell(Heard::Missed);
        }
        if speaker(&message) == Some(shared.member) {
            // Its own words, or somebody's who is not listened to by that.
            incoming.flood.known(shared.member, message.len());
            continue;
        }
        match decode(&shared.key, &message) {
            Ok((member, hints)) => {
                incoming.flood.known(member, message.len());
                for hint in hints {
                    shared.tell(Heard::Hint(hint));
                }
            }
            Err(why) => tracing::debug!("the bus says what is no hint: {why}"),
        }
    }
}
