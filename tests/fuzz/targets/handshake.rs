//! The opening handshake in both roles, over heads made of fields and over raw bytes: no
//! panic, and what is accepted passes the checks of RFC 6455 §4 done again, naively.

#![no_main]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arbitrary::Arbitrary;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use tidegate::http::{self, Accept, HeadLimits};
use tidegate::proto::handshake::client::{ClientKey, check_answer};
use tidegate::proto::handshake::server::{Head, Opening, Version, check};
use tidegate::proto::handshake::{Fields, accept_key};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A good head with some fields left out and others added, as a parsed head.
    Fields(Request<'a>),
    /// The same as bytes, with bytes behind it.
    Written(Request<'a>, &'a [u8], u8),
    /// Any bytes.
    Raw(&'a [u8], u8),
    /// An upstream's answer.
    Answer {
        status: Option<u16>,
        without: u8,
        added: Vec<Added<'a>>,
        offered: Vec<String>,
    },
}

#[derive(Arbitrary, Debug)]
struct Request<'a> {
    method: Option<&'a str>,
    old: bool,
    target: &'a str,
    without: u8,
    added: Vec<Added<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Added<'a> {
    Known(u8, &'a [u8]),
    Other(&'a str, &'a [u8]),
}

const GOOD: [(&str, &[u8]); 6] = [
    ("Host", b"chat.example.com"),
    ("Upgrade", b"websocket"),
    ("Connection", b"keep-alive, Upgrade"),
    ("Sec-WebSocket-Version", b"13"),
    ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", b"chat.v1, chat.v2"),
];

const KNOWN: [&str; 12] = [
    "host",
    "upgrade",
    "connection",
    "sec-websocket-version",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
    "content-length",
    "transfer-encoding",
    "expect",
    "origin",
];

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Fields(request) => judge_fields(&request),
        Input::Written(request, behind, chunk) => {
            let mut bytes = request.write();
            let head = bytes.len();
            bytes.extend_from_slice(behind);
            let is_plain = !request.target.contains(['\r', '\n']) && request.added.is_empty();
            read(bytes, chunk, is_plain.then_some(head));
        }
        Input::Raw(bytes, chunk) => read(bytes.to_vec(), chunk, None),
        Input::Answer {
            status,
            without,
            added,
            offered,
        } => judge_answer(status.unwrap_or(101), without, &added, &offered),
    }
});

impl<'a> Request<'a> {
    fn fields(&self) -> Vec<(&'a str, &'a [u8])> {
        let good = GOOD.into_iter().enumerate();
        good.filter(|(bit, _)| self.without & (1 << bit) == 0)
            .map(|(_, field)| field)
            .chain(self.added.iter().map(Added::field))
            .collect()
    }

    fn target(&self) -> String {
        format!("/{}", self.target)
    }

    fn write(&self) -> Vec<u8> {
        let version = if self.old { "1.0" } else { "1.1" };
        let method = self.method.unwrap_or("GET");
        let mut bytes = format!("{method} {} HTTP/{version}\r\n", self.target()).into_bytes();
        for (name, value) in self.fields() {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

impl<'a> Added<'a> {
    fn field(&self) -> (&'a str, &'a [u8]) {
        match self {
            Self::Known(index, value) => (KNOWN[usize::from(*index) % KNOWN.len()], value),
            Self::Other(name, value) => (name, value),
        }
    }
}

fn judge_fields(request: &Request<'_>) {
    let (target, fields) = (request.target(), request.fields());
    let head = Head {
        method: request.method.unwrap_or("GET"),
        version: if request.old {
            Version::Http10
        } else {
            Version::Http11
        },
        target: &target,
        fields: &fields,
    };
    if let Ok(opening) = check(&head) {
        assert_eq!((head.method, request.old), ("GET", false));
        assert_eq!(opening.path_and_query(), target);
        check_again(&opening, &fields);
    }
}

/// RFC 6455 §4.2.1, and what the edge adds to it.
fn check_again(opening: &Opening, fields: Fields<'_>) {
    let all = |name: &str| -> Vec<String> {
        fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| String::from_utf8_lossy(value).trim().to_owned())
            .collect()
    };
    assert_eq!(all("host"), [opening.authority()]);
    let host = opening.host();
    assert!(opening.authority().to_ascii_lowercase().starts_with(host) || host.starts_with('['));
    assert!(!host.is_empty() && !host.ends_with('.') && !host.contains(['@', '/', ',', ' ', '%']));
    assert!(host.starts_with('[') || !host.contains(':'));
    let upgrade = all("upgrade");
    assert!(upgrade.len() == 1 && upgrade[0].eq_ignore_ascii_case("websocket"));
    let connection = all("connection").join(",");
    assert!(
        connection
            .split(',')
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
    );
    assert_eq!(all("sec-websocket-version"), ["13"]);
    assert_eq!(all("sec-websocket-key"), [opening.key()]);
    assert_eq!(STANDARD.decode(opening.key()).map(|key| key.len()), Ok(16));
    for body in ["content-length", "transfer-encoding", "expect"] {
        assert!(all(body).is_empty());
    }
    let offered = all("sec-websocket-protocol").join(",");
    let offered: Vec<&str> = offered.split(',').map(str::trim).collect();
    assert!(opening.subprotocols().is_empty() || opening.subprotocols() == offered);
    check_target(opening);
}

/// No server may read another path out of it.
fn check_target(opening: &Opening) {
    let target = opening.path_and_query();
    let (path, _) = target.split_once('?').unwrap_or((target, ""));
    assert_eq!(path, opening.path());
    assert!(path.starts_with('/') && !path.contains("//"));
    assert!(
        target
            .bytes()
            .all(|b| (b'!'..=b'~').contains(&b) && b != b'#')
    );
    let decoded = percent_decode(path);
    assert!(!decoded.iter().any(|b| b.is_ascii_control() || *b == b'\\'));
    let slashes = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'/').count();
    assert_eq!(slashes(&decoded), slashes(path.as_bytes()));
    for segment in decoded.split(|b| *b == b'/') {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        assert!(name != b"." && name != b"..");
    }
}

fn percent_decode(path: &str) -> Vec<u8> {
    let mut pieces = path.split('%');
    let mut decoded = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).expect("two digits");
        decoded.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
        decoded.extend_from_slice(rest.as_bytes());
    }
    decoded
}

fn judge_answer(status: u16, without: u8, added: &[Added<'_>], offered: &[String]) {
    let key = ClientKey::new(*b"the sample nonce");
    let accept = accept_key(key.as_str());
    let good: [(&str, &[u8]); 3] = [
        ("upgrade", b"websocket"),
        ("connection", b"upgrade"),
        ("sec-websocket-accept", accept.as_bytes()),
    ];
    let fields: Vec<(&str, &[u8])> = good
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| without & (1 << bit) == 0)
        .map(|(_, field)| field)
        .chain(added.iter().map(Added::field))
        .collect();
    let Ok(agreed) = check_answer(status, &fields, &key, offered) else {
        return;
    };
    let count = |name: &str| {
        fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .count()
    };
    assert_eq!(status, 101);
    assert_eq!((count("upgrade"), count("sec-websocket-accept")), (1, 1));
    assert!(count("connection") > 0 && count("sec-websocket-extensions") == 0);
    match agreed.subprotocol {
        Some(chosen) => assert!(offered.contains(&chosen)),
        None => assert_eq!(count("sec-websocket-protocol"), 0),
    }
}

/// Reads one request from bytes that come in chunks, and opens it when it is good. `head`:
/// where the head ends, when that is known.
fn read(bytes: Vec<u8>, chunk: u8, head: Option<usize>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(async {
            let stream = Client {
                bytes: bytes.clone(),
                at: 0,
                chunk: usize::from(chunk).saturating_mul(16).max(1),
                answer: Vec::new(),
            };
            let limits = HeadLimits {
                deadline: tokio::time::Instant::now() + Duration::from_secs(10),
                max_head: 4096,
                max_headers: 32,
            };
            let Ok(request) = http::read_request(stream, &limits).await else {
                return;
            };
            check_again(request.opening(), &request.fields());
            let Ok(opened) = request.accept(Accept::default()).await else {
                return;
            };
            let stream = opened.stream;
            assert!(stream.answer.starts_with(b"HTTP/1.1 101 "));
            let behind = [&opened.early[..], &stream.bytes[stream.at..]].concat();
            assert!(bytes.ends_with(&behind));
            if let Some(head) = head {
                assert_eq!(behind, bytes[head..], "bytes behind the head are lost");
            }
        });
}

/// A client that sends its bytes, then waits for ever.
struct Client {
    bytes: Vec<u8>,
    at: usize,
    chunk: usize,
    answer: Vec<u8>,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let rest = &self.bytes[self.at..];
        let n = rest.len().min(self.chunk).min(buf.remaining());
        if n == 0 {
            return Poll::Pending;
        }
        buf.put_slice(&rest[..n]);
        self.at += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.answer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
