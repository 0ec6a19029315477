//! The fake server's side of a worker's WebSocket.

use std::collections::BTreeMap;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::Server;
use crate::{
    live,
    message::{FromServer, FromWorker, PROTOCOL},
};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Speaks until the connection ends.
pub(super) async fn speak(server: Server, upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    // Whoever goes ends it.
    let _ = converse(&server, &mut socket).await;
}

async fn converse(server: &Server, socket: &mut Socket) -> Option<()> {
    let FromWorker::Hello(hello) = heard(server, socket).await? else {
        return None;
    };
    let refusal = server.seen().faults.refuse_hello.clone();
    if let Some(reason) = refusal {
        let again = false;
        return say(socket, &FromServer::Refused { reason, again }).await;
    }
    let mut told: BTreeMap<_, _> = hello.leases.iter().map(|fence| (*fence, true)).collect();
    let lost = server.seen().lost(&hello.leases);
    server.change(|seen| seen.hellos.push(hello));
    let welcome = FromServer::Welcome {
        protocol: PROTOCOL,
        name: "fake".to_owned(),
        renew_seconds: 1,
        lost,
        gather: server.seen().faults.gather,
    };
    say(socket, &welcome).await?;
    let mut changed = server.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let news = server.seen().news(&mut told);
        for message in news {
            say(socket, &message).await?;
        }
        tokio::select! {
            message = heard(server, socket) => match message? {
                FromWorker::State(state) => server.change(|seen| seen.states.push(state)),
                FromWorker::Renew { leases } => {
                    let lost = server.seen().lost(&leases);
                    server.change(|seen| seen.renewed = leases);
                    if !server.seen().faults.no_renewals {
                        say(socket, &FromServer::Renewed { lost }).await?;
                    }
                }
                FromWorker::Hello(_) => return None,
            },
            _ = changed.changed() => {}
        }
    }
}

async fn say(socket: &mut Socket, message: &FromServer) -> Option<()> {
    let text = serde_json::to_string(message).ok()?;
    socket.send(Message::text(text)).await.ok()
}

async fn heard(server: &Server, socket: &mut Socket) -> Option<FromWorker> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return serde_json::from_str(&text).ok(),
            Message::Binary(bytes) => {
                let live = live::read(bytes).ok()?;
                server.change(|seen| seen.live.push(live));
                if !server.seen().faults.slow_socket {
                    say(socket, &FromServer::Passed).await?;
                }
            }
            Message::Close(_) => server.change(|seen| seen.goodbyes += 1),
            _ => {}
        }
    }
}
