//! The opening handshake of RFC 6455 §4, both roles, as rules over a parsed head.
//!
//! Owns what makes a request an acceptable opening, what makes an answer a right one,
//! which header fields travel between the legs, and how a refusal is worded. It knows
//! neither sockets nor an HTTP library: a head is a method, a target and a slice of
//! fields, as whoever parsed it saw them.

pub mod client;
pub mod forward;
pub mod reject;
pub mod server;
pub mod target;

mod host;

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The header fields of a head in the order received, looked at but not owned: name
/// (any case) and value.
pub type Fields<'a> = &'a [(&'a str, &'a [u8])];

/// One header field that travels from one leg to the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    /// Field name; compared without case.
    pub name: String,
    /// Field value, as received.
    pub value: Vec<u8>,
}

impl fmt::Debug for Field {
    /// Cookies and authorization travel in fields, so the value is masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}

/// An upstream's own refusal of an opening handshake, fit to be relayed to the client:
/// neither hop-by-hop nor `Sec-WebSocket-*` fields are among its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 300 to 599.
    pub status: u16,
    /// What [`forward::response_fields`] let through.
    pub fields: Vec<Field>,
    /// The whole body, or nothing when it did not fit or did not arrive in time.
    pub body: Bytes,
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(GUID);
    STANDARD.encode(sha1.finish())
}

/// The values of every field of this name, without surrounding blanks.
fn values<'a>(fields: Fields<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| trim(value))
}

/// What stands in a field that may stand there once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Single<'a> {
    Missing,
    One(&'a [u8]),
    Several,
}

/// The value of a field that may stand there once.
fn single<'a>(fields: Fields<'a>, name: &str) -> Single<'a> {
    let mut found = values(fields, name);
    match (found.next(), found.next()) {
        (None, _) => Single::Missing,
        (Some(value), None) => Single::One(value),
        (Some(_), Some(_)) => Single::Several,
    }
}

/// The elements of a comma-separated list over all fields of this name (RFC 9110 §5.6.1);
/// empty elements are kept, for the caller to judge.
fn elements<'a>(fields: Fields<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    values(fields, name).flat_map(|value| value.split(|b| *b == b',').map(trim))
}

/// Whether `Connection` names this token (RFC 9110 §7.6.1).
fn connection_names(fields: Fields<'_>, token: &[u8]) -> bool {
    elements(fields, "connection").any(|element| element.eq_ignore_ascii_case(token))
}

/// A token of RFC 9110 §5.6.2: what a subprotocol's name must be.
fn token(bytes: &[u8]) -> Option<&str> {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if bytes.is_empty() || !bytes.iter().all(is_token) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Without the optional whitespace of RFC 9110 §5.6.3, which is narrower than ASCII's.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_is_that_of_the_rfc() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn debug_of_a_field_hides_its_value() {
        let field = Field {
            name: "cookie".into(),
            value: b"session=secret".to_vec(),
        };
        assert!(!format!("{field:?}").contains("secret"));
    }

    #[test]
    fn list_elements_join_over_fields_and_lose_their_blanks() {
        let fields: Fields<'_> = &[("A", b" x ,\ty"), ("b", b"no"), ("a", b"z")];
        let found: Vec<_> = elements(fields, "a").collect();
        assert_eq!(found, [&b"x"[..], b"y", b"z"]);
    }

    #[test]
    fn tokens_exclude_separators_blanks_and_nothing() {
        assert_eq!(token(b"chat.v1"), Some("chat.v1"));
        for bad in [
            &b""[..],
            b"a b",
            b"a/b",
            b"a,b",
            b"\"a\"",
            b"a\x00",
            b"\xc3\xa4",
        ] {
            assert_eq!(token(bad), None, "{bad:?}");
        }
    }
}
