//! A WebSocket client over TLS, as small as the tour needs it. RFC 6455, the client's side.
//!
//! Owns one connection. What is queued is written while it listens, so a client that says
//! much and hears much never waits for itself. Knows nothing of tokens or limits.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::{error::Elapsed, timeout};

use crate::config::TlsVersion;
use crate::demo::frames::Frames;
use crate::demo::random;
use crate::proto::close::{self, CloseCode};
use crate::proto::frame::{Fin, Header, OpCode, encode_frame};
use crate::proto::handshake::client::{ClientKey, WrongAnswer, check_answer, request_fields};
use crate::proto::side::Side;
use crate::tls::{ClientStream, Connector};

/// How long anything may take that takes no time: connecting, writing, an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Where the edge is, and how one asks there.
#[derive(Clone, Debug)]
pub(super) struct Door {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Whom to trust.
    pub(super) connector: Connector,
    /// The path.
    pub(super) path: String,
    /// What is offered.
    pub(super) subprotocols: Vec<String>,
}

impl Door {
    /// What another client would be told.
    pub(super) fn url(&self) -> String {
        format!("wss://{}{}", self.authority(), self.path)
    }

    /// Host and port: by the name that the development certificate is for, where that leads
    /// here.
    pub(super) fn authority(&self) -> String {
        match self.address.ip().is_loopback() {
            true => format!("{HOST}:{}", self.address.port()),
            false => self.address.to_string(),
        }
    }
}

/// The name that the development certificate is for.
pub(super) const HOST: &str = "localhost";

/// A session as a client sees it.
#[derive(Debug)]
pub(super) struct Client {
    /// Its own address: the edge's records name it.
    pub(super) address: SocketAddr,
    /// What is spoken.
    pub(super) tls: TlsVersion,
    /// What was agreed on.
    pub(super) subprotocol: Option<String>,
    frames: Frames<ReadHalf<ClientStream>>,
    writer: WriteHalf<ClientStream>,
    queued: BytesMut,
    unwritten: bool,
    message: BytesMut,
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A whole data message.
    Message(Bytes),
    /// The answer to a ping.
    Pong,
    /// The end, with the code of the Close if it has one.
    Closed(Option<u16>, String),
    /// The end, without a Close.
    Gone,
}

/// Why there is nothing to hear.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The edge refused with an HTTP status.
    #[error("refused with HTTP {0}")]
    Refused(u16),
    /// The connection, TLS or the framing.
    #[error("the connection failed")]
    Broken(#[from] io::Error),
    /// The answer to the opening handshake is no right one.
    #[error("the answer to the opening handshake is wrong")]
    Answer(#[from] WrongAnswer),
    /// Nothing came.
    #[error("nothing came in time")]
    TooLate(#[from] Elapsed),
}

impl Client {
    /// Connects, and opens a WebSocket with this `Origin`.
    pub(super) async fn open(door: &Door, origin: Option<&str>) -> Result<Self, ClientError> {
        timeout(PATIENCE, Self::opened(door, origin)).await?
    }

    async fn opened(door: &Door, origin: Option<&str>) -> Result<Self, ClientError> {
        let tcp = TcpStream::connect(door.address).await?;
        tcp.set_nodelay(true)?;
        let address = tcp.local_addr()?;
        let (mut stream, tls) = door.connector.connect(tcp, HOST).await?;
        let key = ClientKey::new(random()?);
        let head = request_head(door, origin, &key);
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        let (head, early) = read_head(&mut stream).await?;
        let (status, fields) = parse_head(&head)?;
        if status != 101 {
            return Err(ClientError::Refused(status));
        }
        let agreed = check_answer(status, &fields, &key, &door.subprotocols)?;
        let (reader, writer) = split(stream);
        Ok(Self {
            address,
            tls,
            subprotocol: agreed.subprotocol,
            frames: Frames::new(reader, &early, Side::Upstream),
            writer,
            queued: BytesMut::new(),
            unwritten: false,
            message: BytesMut::new(),
        })
    }

    /// Puts a frame into the queue.
    pub(super) fn queue(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), ClientError> {
        let frame = encode_frame(opcode, Some(random()?), payload);
        self.queued.extend_from_slice(&frame);
        self.unwritten = true;
        Ok(())
    }

    /// Puts the header of a frame into the queue whose payload never comes.
    pub(super) fn queue_header(&mut self, opcode: OpCode, len: u64) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        let header = Header {
            fin: Fin::Final,
            opcode,
            mask: Some(random()?),
            len,
        };
        header.encode(&mut frame);
        self.queued.extend_from_slice(&frame);
        self.unwritten = true;
        Ok(())
    }

    /// Sends a text, with what is queued before it, and hears nothing meanwhile.
    pub(super) async fn say(&mut self, text: &str) -> Result<(), ClientError> {
        self.queue(OpCode::Text, text.as_bytes())?;
        let write = write(&mut self.writer, &mut self.queued);
        Ok(timeout(PATIENCE, write).await??)
    }

    /// The next thing that comes `within` this time; what is queued is written meanwhile,
    /// and pings are answered.
    pub(super) async fn hear_within(&mut self, within: Duration) -> Result<Heard, ClientError> {
        timeout(within, self.heard()).await?
    }

    /// The same, for what takes no time.
    pub(super) async fn hear(&mut self) -> Result<Heard, ClientError> {
        self.hear_within(PATIENCE).await
    }

    /// Ends the session properly: a Close of 1000, and its answer.
    pub(super) async fn close(mut self) -> Result<(), ClientError> {
        let payload = CloseCode::from_wire(1000).map(|code| close::payload(code, ""));
        self.queue(OpCode::Close, &payload.unwrap_or_default())?;
        while !matches!(self.hear().await?, Heard::Closed(..) | Heard::Gone) {}
        Ok(())
    }

    async fn heard(&mut self) -> Result<Heard, ClientError> {
        loop {
            tokio::select! {
                written = write(&mut self.writer, &mut self.queued), if self.unwritten => {
                    self.unwritten = false;
                    if written.is_err() {
                        // A server that has closed takes nothing more, but what it said
                        // before is still to be read.
                        self.queued.clear();
                    }
                }
                frame = self.frames.whole(LARGEST_FRAME) => {
                    let Some((header, payload)) = frame? else {
                        return Ok(Heard::Gone);
                    };
                    if let Some(heard) = self.understood(&header, payload)? {
                        return Ok(heard);
                    }
                }
            }
        }
    }

    fn understood(
        &mut self,
        header: &Header,
        payload: BytesMut,
    ) -> Result<Option<Heard>, ClientError> {
        Ok(match header.opcode {
            OpCode::Ping => {
                self.queue(OpCode::Pong, &payload)?;
                None
            }
            OpCode::Pong => Some(Heard::Pong),
            OpCode::Close => {
                self.queue(OpCode::Close, &payload)?;
                let parsed = close::parse(&payload)
                    .map_err(|rule| io::Error::new(io::ErrorKind::InvalidData, rule.to_string()))?;
                let code = parsed.map(|(code, _)| code.get());
                let reason = parsed.map_or("", |(_, reason)| reason);
                Some(Heard::Closed(code, reason.to_owned()))
            }
            OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                self.message.unsplit(payload);
                match header.fin {
                    Fin::Final => Some(Heard::Message(self.message.split().freeze())),
                    Fin::More => None,
                }
            }
        })
    }
}

/// Writes what is queued, down to the socket. Dropping the future loses nothing.
async fn write(writer: &mut WriteHalf<ClientStream>, queued: &mut BytesMut) -> io::Result<()> {
    writer.write_all_buf(queued).await?;
    writer.flush().await
}

fn request_head(door: &Door, origin: Option<&str>, key: &ClientKey) -> String {
    let mut fields = request_fields(key, &door.subprotocols);
    fields.push(("host", format!("{HOST}:{}", door.address.port())));
    fields.extend(origin.map(|origin| ("origin", origin.to_owned())));
    let mut head = format!("GET {} HTTP/1.1\r\n", door.path);
    for (name, value) in fields {
        head.extend([name, ": ", &value, "\r\n"]);
    }
    head + "\r\n"
}

/// The head of an answer, and the bytes that came behind it.
async fn read_head(stream: &mut ClientStream) -> io::Result<(BytesMut, BytesMut)> {
    let mut received = BytesMut::new();
    loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let early = received.split_off(at + 4);
            return Ok((received, early));
        }
        if received.len() > LARGEST_HEAD || stream.read_buf(&mut received).await? == 0 {
            return Err(no_http());
        }
    }
}

type Fields<'a> = Vec<(&'a str, &'a [u8])>;

/// Status and fields of an answer (RFC 9112 §4, §5).
fn parse_head(head: &[u8]) -> io::Result<(u16, Fields<'_>)> {
    let head = std::str::from_utf8(head).map_err(|_| no_http())?;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name, value.trim().as_bytes()))
    });
    let fields: Option<Vec<_>> = fields.collect();
    status.zip(fields).ok_or_else(no_http)
}

fn no_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no answer in HTTP/1.1")
}

/// The edge's answers are far smaller.
const LARGEST_HEAD: usize = 16 * 1024;

/// What the echo server sends comes in frames no larger than what the tour said.
const LARGEST_FRAME: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_apart() {
        let head = b"HTTP/1.1 403 Forbidden\r\nA: b\r\nc:d:e \r\n\r\n";
        let (status, fields) = parse_head(head).expect("an answer");
        assert_eq!(status, 403);
        assert_eq!(fields, [("A", &b"b"[..]), ("c", b"d:e")]);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let cases: [&[u8]; 5] = [
            b"\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nnothing\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \xff\r\n\r\n",
        ];
        for head in cases {
            assert!(parse_head(head).is_err(), "{head:?}");
        }
    }
}
