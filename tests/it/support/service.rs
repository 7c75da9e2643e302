//! A web service that the proxy asks, whose part the test plays.

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::raw::{Head, read_head, read_to_end, write};
use super::within;

/// In clear, on this machine.
pub struct Service {
    pub url: String,
    listener: TcpListener,
}

/// A question that waits for its answer.
pub struct Asked {
    pub head: Head,
    pub body: Value,
    tcp: TcpStream,
}

pub async fn service() -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    Service {
        url: format!("http://{address}/admit"),
        listener,
    }
}

impl Service {
    /// The next question.
    pub async fn asked(&self) -> Asked {
        let accepted = within("the proxy asks", self.listener.accept()).await;
        let (mut tcp, _) = accepted.expect("a connection");
        let head = read_head(&mut tcp).await;
        let length = head.field("content-length").expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        let read = within("a body arrives", tcp.read_exact(&mut body)).await;
        read.expect("a whole body");
        Asked {
            head,
            body: serde_json::from_slice(&body).expect("JSON"),
            tcp,
        }
    }

    /// Asserts that nothing is asked that was not read. Whoever asks waits to be accepted.
    pub fn assert_unasked(self) {
        let listener = self.listener.into_std().expect("a socket");
        let accepted = listener.accept().expect_err("the service was asked");
        assert_eq!(accepted.kind(), std::io::ErrorKind::WouldBlock);
    }
}

impl Asked {
    /// Answers with this text and closes.
    pub async fn answer(mut self, text: &str) {
        write(&mut self.tcp, text.as_bytes()).await;
    }

    /// Answers with a status and fields, each with its line end.
    pub async fn status(self, status: u16, fields: &str) {
        let text = format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: 0\r\n\r\n");
        self.answer(&text).await;
    }

    /// Waits until the proxy gives up.
    pub async fn given_up(mut self) {
        read_to_end(&mut self.tcp).await;
    }
}
