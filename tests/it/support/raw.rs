//! Bytes on a connection: heads and frames as the test wants them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::client::{Entrance, Tls};
use super::settings::ORIGIN;
use super::{token, within};

/// The head of a request or of an answer.
#[derive(Debug)]
pub struct Head {
    /// Request line or status line.
    pub first_line: String,
    /// In order; names in lower case.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The value of a field that may stand there once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} stands there {values:?}");
        values.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let found = self.fields.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).collect()
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        let status = self.first_line.split(' ').nth(1).expect("a status line");
        status.parse().expect("a number")
    }
}

/// Reads a head, and not a byte more.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Head {
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(stream.read_u8().await?);
        }
        io::Result::Ok(())
    };
    within("a head arrives", read).await.expect("a whole head");
    let text = String::from_utf8(bytes).expect("ASCII");
    let mut lines = text.trim_end().split("\r\n");
    let first_line = lines.next().expect("a first line").to_owned();
    let field = |line: &str| {
        let (name, value) = line.split_once(':').expect("a field");
        (name.to_lowercase(), value.trim().to_owned())
    };
    Head {
        first_line,
        fields: lines.map(field).collect(),
    }
}

pub async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let written = within("bytes are taken", written).await;
    written.expect("the connection is open");
}

/// Everything up to the end of the connection, however it ends.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset and a TLS connection cut off are ends as well.
    let _how_it_ended = within("the end", stream.read_to_end(&mut bytes)).await;
    bytes
}

/// An opening handshake as text, in pieces that a test replaces.
#[derive(Clone, Debug)]
pub struct Opening {
    request_line: String,
    fields: Vec<(String, String)>,
}

/// A good one for `target`.
pub fn opening(target: &str) -> Opening {
    let fields = [
        ("Host", "localhost"),
        ("Origin", ORIGIN),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    Opening {
        request_line: format!("GET {target} HTTP/1.1"),
        fields: fields.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
    }
}

impl Opening {
    pub fn line(mut self, request_line: &str) -> Self {
        self.request_line = request_line.to_owned();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        let before = self.fields.len();
        self.fields.retain(|(known, _)| known != name);
        assert!(self.fields.len() < before, "there is no {name}");
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\r\n", self.request_line);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n"
    }
}

impl Entrance {
    /// A TLS connection at `/chat` after its 101.
    pub async fn raw_open(&self) -> Tls {
        let mut tls = self.tls().await;
        raw_open_on(&mut tls).await;
        tls
    }

    /// The same on which a good token was sent.
    pub async fn raw_admitted(&self) -> Tls {
        raw_admitted_on(self.tls().await).await
    }

    /// The same on a connection whose kernel holds little.
    pub async fn narrow_admitted(&self) -> Tls {
        let tcp = self.narrow_tcp().await;
        let tls = self.tls_over(tcp).await;
        raw_admitted_on(tls.expect("a TLS connection")).await
    }
}

pub async fn raw_open_on(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    write(stream, opening("/chat").text().as_bytes()).await;
    assert_eq!(read_head(stream).await.status(), 101);
}

async fn raw_admitted_on(mut tls: Tls) -> Tls {
    raw_open_on(&mut tls).await;
    write(&mut tls, &masked(text(&token::message(&token::good())))).await;
    tls
}

pub fn text(text: &str) -> Frame {
    Frame::message(text.as_bytes().to_vec(), OpCode::Data(Data::Text), true)
}

pub fn binary(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::message(payload.into(), OpCode::Data(Data::Binary), true)
}

/// A fragment: the first of its message with an opcode, the others with `Data::Continue`.
pub fn fragment(opcode: Data, payload: impl Into<Vec<u8>>, is_final: bool) -> Frame {
    Frame::message(payload.into(), OpCode::Data(opcode), is_final)
}

pub fn ping(payload: &str) -> Frame {
    Frame::ping(payload.as_bytes().to_vec())
}

pub fn pong(payload: &str) -> Frame {
    Frame::pong(payload.as_bytes().to_vec())
}

/// A Close with a code and a reason.
pub fn close(code: u16, reason: &str) -> Frame {
    Frame::close(Some(CloseFrame {
        code: code.into(),
        reason: reason.into(),
    }))
}

/// A frame as a server sends it.
pub fn plain(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("memory takes it");
    bytes
}

/// A frame as a client sends it.
pub fn masked(mut frame: Frame) -> Vec<u8> {
    frame.header_mut().mask = Some([0x1f, 0x2e, 0x3d, 0x4c]);
    plain(frame)
}

/// One frame as it stands on the wire, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub is_final: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Seen {
    /// The code and reason of a Close.
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, 8, "{self:?}");
        let (code, reason) = self.payload.split_first_chunk().expect("a code");
        let reason = String::from_utf8(reason.to_vec()).expect("UTF-8");
        (u16::from_be_bytes(*code), reason)
    }
}

/// The next frame; `None` when the connection ended before it.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    within("a frame", read_frame_unbounded(stream)).await.ok()
}

async fn read_frame_unbounded(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Seen> {
    let [first, second] = stream.read_u16().await?.to_be_bytes();
    let len = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut key).await?;
    }
    let mut payload = vec![0; usize::try_from(len).expect("it fits in memory")];
    stream.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Seen {
        is_final: first & 0x80 != 0,
        opcode: first & 0x0f,
        payload,
    })
}
