//! Upstreams: a third-party WebSocket server that echoes, and one that the test plays.

use std::io;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::raw::{self, Head};
use super::socket::{Socket, unlimited};
use super::within;

/// Echoes data messages on every connection. Stops when dropped.
pub struct Echo {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

pub async fn echo() -> Echo {
    let listener = listen().await;
    let address = listener.local_addr().expect("it is bound");
    let accepting = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            tokio::spawn(echo_on(tcp));
        }
    });
    Echo { address, accepting }
}

/// Until either side has enough, which is no failure of this server.
async fn echo_on(tcp: TcpStream) -> Option<()> {
    tcp.set_nodelay(true).ok()?;
    let opened = tokio_tungstenite::accept_async_with_config(tcp, Some(unlimited()));
    let mut socket = opened.await.ok()?;
    loop {
        let message = socket.next().await?.ok()?;
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).await.ok()?;
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An upstream whose part the test plays.
pub struct Upstream {
    pub address: SocketAddr,
    listener: TcpListener,
}

/// The upstream's end of a WebSocket.
pub type Server = Socket<TcpStream>;

pub async fn upstream() -> Upstream {
    let listener = listen().await;
    let address = listener.local_addr().expect("it is bound");
    Upstream { address, listener }
}

impl Upstream {
    /// The next connection, on which nothing was said.
    pub async fn tcp(&self) -> TcpStream {
        let accepted = within("the proxy dials", self.listener.accept()).await;
        let (tcp, _) = accepted.expect("a connection");
        tcp.set_nodelay(true).expect("an option is set");
        tcp
    }

    /// The next connection, opened.
    pub async fn accept(&self) -> Server {
        self.accept_with_request().await.0
    }

    /// The next connection, opened, and the request that it came with.
    // The third party's callback returns its whole response as an error.
    #[allow(clippy::result_large_err)]
    pub async fn accept_with_request(&self) -> (Server, Request) {
        let tcp = self.tcp().await;
        let mut seen = None;
        let look = |request: &Request, response: Response| {
            seen = Some(request.clone());
            Ok(response)
        };
        let opened = accept_hdr_async_with_config(tcp, look, Some(unlimited()));
        let socket = within("the proxy asks for a WebSocket", opened).await;
        let socket = socket.expect("an opening handshake");
        (Socket(socket), seen.expect("a request"))
    }

    /// The next connection with its request head read, to be answered.
    pub async fn asked(&self) -> (TcpStream, Head) {
        let mut tcp = self.tcp().await;
        let head = raw::read_head(&mut tcp).await;
        (tcp, head)
    }

    /// The next connection, opened; frames are the test's own.
    pub async fn accept_raw(&self) -> TcpStream {
        let (mut tcp, head) = self.asked().await;
        raw::write(&mut tcp, switching(&head, "").as_bytes()).await;
        tcp
    }

    /// Asserts that nobody ever connected. Whoever had would wait to be accepted: a
    /// connection on the loopback is complete when the dialling call returns.
    pub fn assert_untouched(self) {
        let listener = self.listener.into_std().expect("a socket");
        let accepted = listener.accept().expect_err("the upstream was dialled");
        assert_eq!(accepted.kind(), io::ErrorKind::WouldBlock);
    }

    /// The same address, where nobody listens.
    pub fn into_dead(self) -> SocketAddr {
        self.address
    }
}

/// A 101 to `head`, with more fields, each with its line end.
pub fn switching(head: &Head, fields: &str) -> String {
    let key = head.field("sec-websocket-key").expect("a key");
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    )
}

async fn listen() -> TcpListener {
    let bound = TcpListener::bind("127.0.0.1:0").await;
    bound.expect("a free port")
}
