//! A WebSocket server that sends back what it gets, for trying the edge out: the demo's
//! upstream, and that of any test that wants one in its own process. RFC 6455.
//!
//! Every frame goes back as it came, unmasked, with its opcode and its FIN, piece by piece,
//! so that none has to fit into memory. Pings are answered with pongs, a Close with the same
//! Close. Of the subprotocols offered it takes the first.
//!
//! One text is a command: `flood <size>`, such as `flood 4MiB` (at most [`MAX_FLOOD`]), is
//! answered with so many bytes in binary messages of [`FLOOD_MESSAGE`] bytes each, the last
//! one with what is left, instead of being sent back. While it floods it reads nothing, so
//! what was sent behind the command is answered behind the flood.
//!
//! It serves as many connections as there come: it is for loopback, behind an edge.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::units;
use crate::demo::frames::Frames;
use crate::http::{Accept, HeadLimits, Opened, read_request};
use crate::listener::{self, Accepted, Listener};
use crate::proto::frame::{Fin, Header, OpCode, apply_mask, encode_frame};
use crate::proto::side::Side;

/// Bytes of each message of a flood.
pub const FLOOD_MESSAGE: u64 = 4 * 1024;

/// The largest flood; a larger one is a text like any other.
pub const MAX_FLOOD: u64 = 1 << 30;

/// A running echo server. Dropping it ends it, with every connection it has.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on `address`, on a thread of its own; port 0 is any free port.
    ///
    /// # Errors
    /// See [`listener::bind`]; also that there is no thread.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = listener::bind(address, 1)?.pop();
        let socket = socket.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let address = socket.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("echo".to_owned())
            .spawn(|| work(socket, stopped))?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What it listens on, with the real port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the echo server panicked");
        }
    }
}

fn work(socket: StdListener, stopped: oneshot::Receiver<()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                Err(error) = accept(socket) => tracing::error!(%error, "no echo server"),
            }
        }),
        Err(error) => tracing::error!(%error, "no echo server"),
    }
}

/// Returns only if the socket cannot be listened on.
async fn accept(socket: StdListener) -> io::Result<()> {
    let mut listener = Listener::new(socket, UNSENT)?;
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                tokio::task::spawn_local(serve(accepted));
            }
            Err(error) => tracing::debug!(%error, "accept failed"),
        }
    }
}

async fn serve(accepted: Accepted) {
    let limits = HeadLimits {
        deadline: Instant::now() + HEAD_TIMEOUT,
        max_head: 64 * 1024,
        max_headers: 512,
    };
    let served = async {
        let request = read_request(accepted.tcp, &limits).await?;
        let accept = Accept {
            subprotocol: request.opening().subprotocols().first().cloned(),
            fields: Vec::new(),
        };
        let opened = request.accept(accept).await?;
        echo(opened).await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "echo session broken");
    }
}

async fn echo(opened: Opened<TcpStream>) -> io::Result<()> {
    let mut stream = opened.stream;
    let (reader, mut writer) = stream.split();
    let mut frames = Frames::new(reader, &opened.early, Side::Downstream);
    while let Some(header) = frames.header().await? {
        match header.opcode {
            OpCode::Close => {
                send_back(&mut frames, &mut writer, &header).await?;
                return writer.shutdown().await;
            }
            OpCode::Ping => {
                let pong = Header {
                    opcode: OpCode::Pong,
                    ..header
                };
                send_back(&mut frames, &mut writer, &pong).await?;
            }
            OpCode::Pong => send_back(&mut frames, &mut tokio::io::sink(), &header).await?,
            OpCode::Text if header.fin == Fin::Final && header.len <= LONGEST_COMMAND => {
                let text = payload(&mut frames, &header).await?;
                match flood_size(&text) {
                    Some(bytes) => flood(&mut writer, bytes).await?,
                    None => {
                        let frame = encode_frame(OpCode::Text, None, &text);
                        writer.write_all(&frame).await?;
                    }
                }
            }
            _ => send_back(&mut frames, &mut writer, &header).await?,
        }
    }
    Ok(())
}

type FromClient<'a> = Frames<tokio::net::tcp::ReadHalf<'a>>;

/// Writes the frame unmasked as its payload comes in.
async fn send_back(
    frames: &mut FromClient<'_>,
    writer: &mut (impl AsyncWrite + Unpin),
    header: &Header,
) -> io::Result<()> {
    let mut out = Vec::new();
    let unmasked = Header {
        mask: None,
        ..*header
    };
    unmasked.encode(&mut out);
    let mut position = 0;
    while position < header.len {
        let mut piece = frames.piece(header.len - position).await?;
        apply_mask(&mut piece, header.mask.unwrap_or_default(), position);
        position += piece.len() as u64;
        out.extend_from_slice(&piece);
        writer.write_all(&out).await?;
        out.clear();
    }
    // The header of an empty frame.
    writer.write_all(&out).await
}

/// The payload of a short frame.
async fn payload(frames: &mut FromClient<'_>, header: &Header) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    while (payload.len() as u64) < header.len {
        let left = header.len - payload.len() as u64;
        payload.extend_from_slice(&frames.piece(left).await?);
    }
    apply_mask(&mut payload, header.mask.unwrap_or_default(), 0);
    Ok(payload)
}

/// The bytes that a command asks for; `None`: it is no command.
fn flood_size(text: &[u8]) -> Option<u64> {
    let size = std::str::from_utf8(text).ok()?.strip_prefix("flood ")?;
    units::size(size).ok().filter(|bytes| *bytes <= MAX_FLOOD)
}

async fn flood(writer: &mut (impl AsyncWrite + Unpin), bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let len = left.min(FLOOD_MESSAGE);
        let payload = [b'~'; FLOOD_MESSAGE as usize];
        let payload = payload.get(..len as usize).unwrap_or_default();
        let frame = encode_frame(OpCode::Binary, None, payload);
        writer.write_all(&frame).await?;
        left -= len;
    }
    Ok(())
}

/// Longer texts are not looked at.
const LONGEST_COMMAND: u64 = 32;

/// An edge sends its head at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that wait in the kernel towards the edge: few, so that an edge that does not read is
/// felt soon.
const UNSENT: u32 = 16 * 1024;

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    use super::*;

    type Client = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

    async fn connected(echo: &Echo) -> Client {
        let url = format!("ws://{}/any", echo.address());
        let (client, _) = tokio_tungstenite::connect_async(url).await.expect("opened");
        client
    }

    fn listening() -> Echo {
        Echo::listen(([127, 0, 0, 1], 0).into()).expect("listening")
    }

    #[tokio::test]
    async fn messages_of_every_size_come_back() {
        let echo = listening();
        let mut client = connected(&echo).await;
        for len in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let (text, binary) = (
                Message::text("x".repeat(len)),
                Message::binary(vec![1; len]),
            );
            for message in [text, binary] {
                client.send(message.clone()).await.expect("sent");
                let back = client.next().await.expect("open").expect("a message");
                assert_eq!(back, message, "{len} bytes");
            }
        }
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_a_close_is_echoed() {
        let echo = listening();
        let mut client = connected(&echo).await;
        let ping = Message::Ping("marco".into());
        client.send(ping).await.expect("sent");
        let pong = client.next().await.expect("open").expect("a message");
        assert_eq!(pong, Message::Pong("marco".into()));
        client.close(None).await.expect("sent");
        let close = client.next().await.expect("open").expect("a message");
        assert_eq!(close, Message::Close(None));
        assert!(client.next().await.is_none());
    }

    #[tokio::test]
    async fn the_first_subprotocol_is_taken() {
        let echo = listening();
        let mut request = format!("ws://{}/", echo.address())
            .into_client_request()
            .expect("a request");
        let offered = "b, a".parse().expect("a value");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", offered);
        let (_, response) = tokio_tungstenite::connect_async(request)
            .await
            .expect("opened");
        assert_eq!(response.headers()["sec-websocket-protocol"], "b");
    }

    #[tokio::test]
    async fn a_flood_has_the_size_asked_for_and_the_next_message_comes_behind_it() {
        let echo = listening();
        let mut client = connected(&echo).await;
        client
            .send(Message::text("flood 10KiB"))
            .await
            .expect("sent");
        client.send(Message::text("end")).await.expect("sent");
        let mut sizes = Vec::new();
        while let Message::Binary(part) = client.next().await.expect("open").expect("a message") {
            sizes.push(part.len());
        }
        assert_eq!(sizes, [4096, 4096, 2048]);
    }

    #[test]
    fn a_flood_over_the_limit_is_no_command() {
        assert_eq!(flood_size(b"flood 1GiB"), Some(MAX_FLOOD));
        for text in [
            "flood 1073741825B",
            "flood",
            "flood 1",
            "Flood 1KiB",
            "flood -1B",
        ] {
            assert_eq!(flood_size(text.as_bytes()), None, "{text}");
        }
    }

    #[tokio::test]
    async fn dropping_it_ends_its_connections() {
        let echo = listening();
        let mut client = connected(&echo).await;
        drop(echo);
        assert!(!matches!(client.next().await, Some(Ok(_))));
    }
}
