//! A WebSocket of the third party, client's or server's, with every wait bounded.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::within;

/// One end of a WebSocket connection.
pub struct Socket<S>(pub WebSocketStream<S>);

/// A Close as it was heard: the code (1005: none) and the reason.
pub type Heard = (u16, String);

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub async fn send(&mut self, message: impl Into<Message>) {
        let sent = within("a message is sent", self.0.send(message.into())).await;
        sent.expect("the connection is open");
    }

    /// The next message, control messages included.
    pub async fn next(&mut self) -> Message {
        let heard = self.try_next().await;
        heard.expect("the connection is open")
    }

    /// The next message, or how the connection ended instead.
    pub async fn try_next(&mut self) -> Result<Message, Error> {
        let heard = within("a message arrives", self.0.next()).await;
        heard.unwrap_or(Err(Error::ConnectionClosed))
    }

    /// The next message, which must be text.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("text was expected: {other:?}"),
        }
    }

    /// Sends text and expects the same back.
    pub async fn echoes(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.text().await, text);
    }

    /// Sends a Close.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: Utf8Bytes::from(reason),
        };
        let sent = within("a Close is sent", self.0.send(Message::Close(Some(frame)))).await;
        sent.expect("the connection is open");
    }

    /// Reads up to the peer's Close, answers it, waits for the end of the connection and
    /// lets go of it. Messages before the Close are thrown away.
    pub async fn closed(mut self) -> Heard {
        loop {
            if let Message::Close(frame) = self.next().await {
                self.ended().await;
                return match frame {
                    Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned()),
                    None => (1005, String::new()),
                };
            }
        }
    }

    /// Waits for the end of the connection, whichever way.
    pub async fn ended(&mut self) {
        while self.try_next().await.is_ok() {}
    }
}

/// Messages and frames of any size.
pub fn unlimited() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None)
}
