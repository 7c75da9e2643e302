//! The upstream every proxy stands in front of: a WebSocket echo server over plain TCP.
//!
//! Owns the server side of RFC 6455 as far as an echo needs it: the opening handshake (§4.2.2)
//! and frames turned around in place, as their bytes come in (§5.2); and sending unasked, when the
//! load orders it ([`crate::control`]). It trusts its peer: what it costs is not measured, but a
//! slow upstream would starve the proxy under test. It knows nothing of proxies.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::child;
use crate::control::{Board, Order};
use crate::frames::{self, CLOSE, Head, PING, PONG, TEXT};

/// The child process: binds two free ports, prints them (WebSocket, orders), and serves until its
/// standard input ends.
pub fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (listener, control) = (listen()?, listen()?);
        let mut parent = child::orders();
        let ports = (listener.local_addr()?.port(), control.local_addr()?.port());
        println!("{}", serde_json::to_string(&ports)?);
        let board = Arc::new(Board::new());
        loop {
            // A connection that fails ends alone; the load sees it and reports it.
            tokio::select! {
                accepted = listener.accept() => {
                    tokio::spawn(serve(accepted?.0, Arc::clone(&board)));
                }
                accepted = control.accept() => {
                    tokio::spawn(Arc::clone(&board).serve(accepted?.0));
                }
                order = parent.recv() => if order.is_none() { return Ok(()) },
            }
        }
    })
}

/// With a backlog that a storm of connections does not overflow.
fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(4096)
}

/// One connection: whatever is in the buffer is turned around and written, then more is read.
async fn serve(mut stream: TcpStream, board: Arc<Board>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut orders = board.subscribe();
    let mut buffer = accept(&mut stream).await?;
    let mut filled = buffer.len();
    buffer.resize(FIRST_BUFFER.max(filled), 0);
    let mut turn = Turn::default();
    loop {
        let turned = turn.around(&mut buffer[..filled]);
        stream.write_all(&buffer[..turned.written]).await?;
        if turn.is_closed {
            return stream.shutdown().await;
        }
        buffer.copy_within(turned.taken..filled, 0);
        filled -= turned.taken;
        // Nothing is sent in between while a frame is on its way.
        let is_at_boundary = turn.left == 0 && filled == 0;
        let read = tokio::select! {
            read = stream.read(&mut buffer[filled..]) => read?,
            Ok(()) = orders.changed(), if is_at_boundary => {
                let order = orders.borrow_and_update().clone();
                obey(order, &mut stream, &board).await?;
                continue;
            }
        };
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if filled == buffer.len() && filled < LARGEST_BUFFER {
            buffer.resize(2 * filled, 0);
        }
    }
}

/// Sends what was ordered; a flood ends with the connection.
async fn obey(order: Order, stream: &mut TcpStream, board: &Board) -> io::Result<()> {
    let frame = |size| frames::bare(TEXT, &frames::text(size));
    match order {
        Order::Count | Order::Flooded => Ok(()),
        Order::Broadcast(size) => stream.write_all(&frame(size)).await,
        Order::Flood(size) => {
            let frames = frame(size).repeat(FLOOD_AT_ONCE);
            let mut position = 0;
            loop {
                let written = stream.write(&frames[position..]).await?;
                position = (position + written) % frames.len();
                board.flooded.fetch_add(written as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Answers the opening handshake, and gives back whatever followed the request head.
async fn accept(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(FIRST_BUFFER);
    let end = loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let key = key_of(&head[..end]).ok_or(io::ErrorKind::InvalidData)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_value(key)
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(head.split_off(end))
}

fn key_of(head: &[u8]) -> Option<&str> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_key = name.eq_ignore_ascii_case("sec-websocket-key");
        is_key.then(|| value.trim())
    })
}

/// RFC 6455 §4.2.2, step 5.4.
fn accept_value(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest)
}

/// Where one connection stands in the frame that is coming in.
#[derive(Default)]
struct Turn {
    /// Payload bytes of the current frame that have not come yet.
    left: u64,
    /// Payload bytes of it that were turned around.
    past: u64,
    key: [u8; 4],
    is_closing: bool,
    is_closed: bool,
}

/// What [`Turn::around`] did: `written <= taken <= bytes.len()`.
struct Turned {
    /// Bytes of input that are done with; the rest is an unfinished head.
    taken: usize,
    /// Bytes at the front of the buffer to send back.
    written: usize,
}

impl Turn {
    /// Rewrites client frames as server frames in place: the head loses its key, so that the
    /// output never overtakes the input.
    fn around(&mut self, bytes: &mut [u8]) -> Turned {
        let mut turned = Turned {
            taken: 0,
            written: 0,
        };
        while turned.taken < bytes.len() && !self.is_closed {
            if self.left == 0 {
                let Some(head) = Head::decode(&bytes[turned.taken..]) else {
                    break;
                };
                self.begin(head, bytes, &mut turned);
            }
            self.pass_payload(bytes, &mut turned);
            self.is_closed = self.is_closing && self.left == 0;
        }
        turned
    }

    fn begin(&mut self, head: Head, bytes: &mut [u8], turned: &mut Turned) {
        self.left = head.length;
        self.past = 0;
        self.key = head.key.unwrap_or_default();
        self.is_closing = head.first == CLOSE;
        // Without its key the head is the same, but for the mask bit.
        let bare = head.size - if head.key.is_some() { 4 } else { 0 };
        bytes.copy_within(turned.taken..turned.taken + bare, turned.written);
        bytes[turned.written + 1] &= 0x7F;
        if head.first == PING {
            bytes[turned.written] = PONG;
        }
        turned.taken += head.size;
        turned.written += bare;
    }

    fn pass_payload(&mut self, bytes: &mut [u8], turned: &mut Turned) {
        let here = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len() - turned.taken);
        bytes.copy_within(turned.taken..turned.taken + here, turned.written);
        let payload = &mut bytes[turned.written..turned.written + here];
        frames::mask(payload, self.key, self.past);
        self.past += here as u64;
        self.left -= here as u64;
        turned.taken += here;
        turned.written += here;
    }
}

/// First size of a connection's buffer; it doubles while reads fill it.
const FIRST_BUFFER: usize = 4 * 1024;

/// Large enough that a 64 KiB frame costs few reads.
const LARGEST_BUFFER: usize = 256 * 1024;

/// Messages of a flood handed to the kernel at a time.
const FLOOD_AT_ONCE: usize = 32;
