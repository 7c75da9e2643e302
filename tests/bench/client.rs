//! One client connection of the load: opening handshake, token, then messages.
//!
//! Owns the client side of RFC 6455 as the load needs it, over any [`Stream`]. It knows nothing of
//! workloads, nor which proxy it talks to.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::exchange::{Batch, Exchange, nanoseconds};
use crate::frames::{self, CLOSE, Incoming, TEXT};
use crate::load::Route;
use crate::stream::{Opener, Stream};

/// Where connections are opened to, and what is asked for there.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Entrance {
    /// On 127.0.0.1.
    pub port: u16,
    /// PEM file of the certificate it must show; absent: TCP in clear.
    pub certificate: Option<PathBuf>,
    /// Message with the token, where one is asked for. It is answered by one message before the
    /// connection counts as open.
    pub first_message: Option<String>,
}

/// Opens connections to one entrance.
pub struct Dialer {
    opener: Opener,
    request: Vec<u8>,
    /// The masked frame with the token; absent where none is asked for.
    first_frame: Option<Vec<u8>>,
}

impl Dialer {
    /// `read_size`: bytes of ciphertext taken from the socket per system call.
    pub fn new(entrance: &Entrance, route: Route, read_size: usize) -> io::Result<Self> {
        let (port, certificate) = (entrance.port, entrance.certificate.as_deref());
        let path = route.path();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nOrigin: https://app.example.com\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let first_message = entrance.first_message.as_deref();
        Ok(Self {
            opener: Opener::new(port, certificate, read_size)?,
            request: request.into_bytes(),
            first_frame: first_message.map(|text| frames::masked(TEXT, text.as_bytes())),
        })
    }

    /// TCP, TLS, 101, and where a token is asked for: token sent, reply received.
    pub async fn connect(&self) -> io::Result<Client> {
        let mut stream = self.opener.open().await?;
        stream.write_all(&self.request).await?;
        stream.flush().await?;
        let early = response_101(&mut stream).await?;
        let mut client = Client {
            stream,
            incoming: Incoming::default(),
        };
        client.incoming.feed(&early, None)?;
        if let Some(frame) = &self.first_frame {
            client.write(frame).await?;
            client.wait_for(|incoming| incoming.messages > 0).await?;
        }
        client.incoming.messages = 0;
        Ok(client)
    }
}

/// Reads the response head; the answer is what followed it.
async fn response_101(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            let seen = String::from_utf8_lossy(&head).into_owned();
            return Err(io::Error::other(format!("closed before 101: {seen:?}")));
        }
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            if !head.starts_with(b"HTTP/1.1 101 ") {
                let line = String::from_utf8_lossy(&head)
                    .lines()
                    .next()
                    .map(str::to_owned);
                return Err(io::Error::other(format!("answered {line:?}")));
            }
            return Ok(head.split_off(end + 4));
        }
    }
}

/// An open connection.
pub struct Client {
    /// For [`Exchange`], as is `incoming`.
    pub(super) stream: Stream,
    pub(super) incoming: Incoming,
}

impl Client {
    /// Keeps `batch.in_flight` messages under way until `until`, then waits for the last of them.
    /// The answer is one round trip time in nanoseconds per message. `scratch` is read into.
    pub async fn echo(
        &mut self,
        batch: &Batch,
        until: Instant,
        scratch: &mut [u8],
    ) -> io::Result<Vec<u32>> {
        let mut exchange = Exchange::new(batch, until);
        std::future::poll_fn(|cx| exchange.poll(self, scratch, cx)).await?;
        Ok(exchange.into_round_trips())
    }

    /// Sends a message for each moment that comes in, however many are still under way, and waits
    /// for the last echo. The answer is nanoseconds from each moment to its echo.
    pub async fn paced(
        &mut self,
        batch: &Batch,
        mut moments: mpsc::UnboundedReceiver<Instant>,
    ) -> io::Result<Vec<u32>> {
        let mut sent = std::collections::VecDeque::new();
        let mut times = Vec::new();
        let mut scratch = [0; 2048];
        let mut is_open = true;
        while is_open || !sent.is_empty() {
            tokio::select! {
                moment = moments.recv(), if is_open => match moment {
                    Some(moment) => {
                        sent.push_back(moment);
                        self.write(batch.frame()).await?;
                    }
                    None => is_open = false,
                },
                read = self.stream.read(&mut scratch) => {
                    self.take(&scratch[..read?], Some(batch.payload())).await?;
                    let now = Instant::now();
                    for _ in 0..std::mem::take(&mut self.incoming.messages) {
                        let moment = sent.pop_front();
                        let moment = moment.ok_or_else(|| io::Error::other("an echo of nothing"))?;
                        times.push(nanoseconds(now - moment));
                    }
                }
            }
        }
        Ok(times)
    }

    /// Reads messages, each of which must be `expected`, and says when each came, until the
    /// proxy ends the connection, which is an error.
    pub async fn listen(
        mut self,
        expected: &[u8],
        arrivals: &mpsc::UnboundedSender<Instant>,
    ) -> io::Result<()> {
        let mut scratch = [0; 512];
        while !self.incoming.is_closed {
            let read = self.stream.read(&mut scratch).await?;
            self.take(&scratch[..read], Some(expected)).await?;
            let now = Instant::now();
            for _ in 0..std::mem::take(&mut self.incoming.messages) {
                // Nobody counts them any more when the run is over.
                let _ = arrivals.send(now);
            }
        }
        Err(io::Error::other("the proxy closed the connection"))
    }

    /// Answers pings until it is called back. That the proxy ends the connection is an error.
    pub async fn rest(mut self, mut called: watch::Receiver<()>) -> io::Result<Self> {
        tokio::select! {
            // Its sender going away is a call, too.
            _ = called.changed() => return Ok(self),
            result = self.wait_for(|incoming| incoming.is_closed) => result?,
        }
        Err(io::Error::other("the proxy closed an idle connection"))
    }

    /// The closing handshake, then the end of TLS and TCP. The client does not wait for the proxy
    /// to go first (RFC 6455 §7.1.1 lets it): one of them would keep it waiting for a second.
    pub async fn close(mut self) -> io::Result<()> {
        self.write(&frames::masked(CLOSE, &1000_u16.to_be_bytes()))
            .await?;
        self.wait_for(|incoming| incoming.is_closed).await?;
        // The proxy may be gone already, which is as good.
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// Reads, and answers pings, until `is_reached`.
    async fn wait_for(&mut self, is_reached: impl Fn(&Incoming) -> bool) -> io::Result<()> {
        // Small: thousands of idle connections each hold one.
        let mut scratch = [0; 512];
        while !is_reached(&self.incoming) {
            let read = self.stream.read(&mut scratch).await?;
            self.take(&scratch[..read], None).await?;
        }
        Ok(())
    }

    /// Looks at what was read, and answers pings; nothing is the end of the stream, an error.
    async fn take(&mut self, bytes: &[u8], expected: Option<&[u8]>) -> io::Result<()> {
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.incoming.feed(bytes, expected)?;
        let pongs = std::mem::take(&mut self.incoming.pongs);
        match pongs.is_empty() {
            true => Ok(()),
            false => self.write(&pongs).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}
