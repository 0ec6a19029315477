//! A worker's WebSocket: messages in, messages out.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::frame::Utf8Bytes},
};

use super::ClientError;
use crate::{
    live::Live,
    message::{FromServer, FromWorker},
};

/// How long a server may take to take a message.
const SEND: Duration = Duration::from_secs(10);
/// How long it may take to say goodbye too.
const CLOSE: Duration = Duration::from_secs(1);

/// A connection to a server that takes workers. Dropping it closes it.
pub struct Socket(pub(super) WebSocketStream<TokioIo<Upgraded>>);

impl Socket {
    /// Says something.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the connection is lost.
    pub async fn send(&mut self, message: &FromWorker) -> Result<(), ClientError> {
        let text = serde_json::to_string(message)
            .map_err(|error| ClientError::Wrong(format!("a message can't be written: {error}")))?;
        self.send_frame(Message::text(text)).await
    }

    /// Sends bytes of a log early.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the connection is lost.
    pub async fn send_live(&mut self, live: &Live) -> Result<(), ClientError> {
        self.send_frame(Message::binary(live.message())).await
    }

    async fn send_frame(&mut self, message: Message) -> Result<(), ClientError> {
        match timeout(SEND, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(&error.to_string())),
            Err(_) => Err(lost("the server takes no more")),
        }
    }

    /// Waits for what the server says next. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when the connection is lost, or what is said is
    /// no message of this protocol.
    pub async fn next(&mut self) -> Result<FromServer, ClientError> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return understood(&text),
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map(|frame| frame.reason);
                    let why = why.filter(|why| !why.is_empty());
                    let why = why.unwrap_or(Utf8Bytes::from_static("the server closed it"));
                    return Err(lost(&why));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(&error.to_string())),
                None => return Err(lost("it ended")),
            }
        }
    }

    /// Says goodbye, so that the server does not take it for a failure.
    pub async fn close(mut self) {
        let closed = async {
            self.0.close(None).await?;
            // What it still says is not read any more, its goodbye is waited for.
            while self.0.next().await.is_some_and(|message| message.is_ok()) {}
            Ok::<_, tokio_tungstenite::tungstenite::Error>(())
        };
        // A server that is gone needs no goodbye.
        let _ = timeout(CLOSE, closed).await;
    }
}

fn lost(why: &str) -> ClientError {
    ClientError::Unreachable(format!("the connection to the server was lost: {why}"))
}

fn understood(text: &str) -> Result<FromServer, ClientError> {
    serde_json::from_str(text).map_err(|error| {
        ClientError::Unreachable(format!("the server says what is no message: {error}"))
    })
}
