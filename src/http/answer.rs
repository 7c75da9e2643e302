//! The answers to a request head, as hyper writes them.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use crate::http::Accept;
use crate::proto::handshake::reject::Reject;
use crate::proto::handshake::server::Opening;
use crate::proto::handshake::{Refusal, accept_key};

/// A response with its whole body.
pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn switching_protocols(opening: &Opening, accept: Accept) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    append(headers, "upgrade", b"websocket");
    append(headers, "connection", b"Upgrade");
    let key = accept_key(opening.key());
    append(headers, "sec-websocket-accept", key.as_bytes());
    if let Some(subprotocol) = accept.subprotocol {
        append(headers, "sec-websocket-protocol", subprotocol.as_bytes());
    }
    for field in accept.fields {
        append(headers, &field.name, &field.value);
    }
    response
}

pub(super) fn rejection(reject: Reject) -> Answer {
    let mut response = Response::new(Full::from(reject.text()));
    *response.status_mut() = status(reject.status());
    let headers = response.headers_mut();
    headers.insert(CONNECTION, CLOSE);
    headers.insert(CONTENT_TYPE, PLAIN_TEXT);
    for (name, value) in reject.fields() {
        append(headers, name, value.as_bytes());
    }
    if let Some(seconds) = reject.retry_after(random()) {
        headers.insert(RETRY_AFTER, u16::from(seconds).into());
    }
    response
}

/// The same on a connection from which nothing was read, as bytes.
pub(super) fn rejection_bytes(reject: Reject) -> Vec<u8> {
    let response = rejection(reject);
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let text = reject.text();
    bytes.extend(format!("content-length: {}\r\n\r\n{text}", text.len()).into_bytes());
    bytes
}

/// Without randomness all who are refused come back at once; that is no reason to fail.
fn random() -> u8 {
    let mut byte = [0];
    let filled = aws_lc_rs::rand::fill(&mut byte);
    filled.map_or(0, |()| u8::from_be_bytes(byte))
}

pub(super) fn relayed(refusal: Refusal) -> Answer {
    let mut response = Response::new(Full::from(refusal.body));
    *response.status_mut() = status(refusal.status);
    let headers = response.headers_mut();
    for field in refusal.fields {
        append(headers, &field.name, &field.value);
    }
    headers.insert(CONNECTION, CLOSE);
    response
}

/// A status that cannot end a request would leave the client waiting: it becomes 502.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::BAD_GATEWAY)
}

/// Leaves out what HTTP cannot carry: every field here was either written by us or parsed
/// from a head, so only a bug could bring one, and a line break must not follow from it.
fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    let name = HeaderName::from_bytes(name.as_bytes());
    let value = HeaderValue::from_bytes(value);
    if let (Ok(name), Ok(value)) = (name, value) {
        headers.append(name, value);
    } else {
        tracing::error!("a header field of an answer cannot be sent");
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
