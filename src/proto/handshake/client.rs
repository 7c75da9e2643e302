//! The client's side of the opening handshake, towards the upstream: what to send
//! (RFC 6455 §4.1, first half) and how to judge the answer (second half).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::proto::handshake::{
    Fields, Single, accept_key, connection_names, single, token, values,
};

/// The nonce of one opening handshake, as `Sec-WebSocket-Key` carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey(String);

impl ClientKey {
    /// From 16 random bytes of the caller's.
    pub fn new(random: [u8; 16]) -> Self {
        Self(STANDARD.encode(random))
    }

    /// The value of `Sec-WebSocket-Key`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The fields that ask for WebSocket, without `Host`: name and value. No extension is
/// offered, so none can be agreed.
pub fn request_fields(key: &ClientKey, subprotocols: &[String]) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("upgrade", "websocket".to_owned()),
        ("connection", "Upgrade".to_owned()),
        ("sec-websocket-version", "13".to_owned()),
        ("sec-websocket-key", key.as_str().to_owned()),
    ];
    if !subprotocols.is_empty() {
        fields.push(("sec-websocket-protocol", subprotocols.join(", ")));
    }
    fields
}

/// What a right answer agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// One of those offered, or none.
    pub subprotocol: Option<String>,
}

/// What makes a 101 (or what stands in its place) wrong (RFC 6455 §4.1). For the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongAnswer {
    /// Neither a 101 nor a refusal that could be relayed.
    #[error("status is {0} instead of 101")]
    Status(u16),
    /// `Upgrade` is not exactly one `websocket`.
    #[error("Upgrade is not exactly one websocket")]
    Upgrade,
    /// `upgrade` is not among the `Connection` tokens.
    #[error("Connection does not name upgrade")]
    Connection,
    /// `Sec-WebSocket-Accept` is missing, stands there more than once, or answers
    /// another key.
    #[error("Sec-WebSocket-Accept is not the right one")]
    Accept,
    /// A subprotocol that was not offered, or several.
    #[error("subprotocol was not offered")]
    Subprotocol,
    /// An extension, although none was offered.
    #[error("extension was not offered")]
    Extension,
}

/// Judges the head of an answer (RFC 6455 §4.1).
pub fn check_answer(
    status: u16,
    fields: Fields<'_>,
    key: &ClientKey,
    offered: &[String],
) -> Result<Agreed, WrongAnswer> {
    if status != 101 {
        return Err(WrongAnswer::Status(status));
    }
    match single(fields, "upgrade") {
        Single::One(value) if value.eq_ignore_ascii_case(b"websocket") => {}
        _ => return Err(WrongAnswer::Upgrade),
    }
    if !connection_names(fields, b"upgrade") {
        return Err(WrongAnswer::Connection);
    }
    if single(fields, "sec-websocket-accept") != Single::One(accept_key(key.as_str()).as_bytes()) {
        return Err(WrongAnswer::Accept);
    }
    if values(fields, "sec-websocket-extensions").next().is_some() {
        return Err(WrongAnswer::Extension);
    }
    let subprotocol = check_subprotocol(fields, offered)?;
    Ok(Agreed { subprotocol })
}

fn check_subprotocol(
    fields: Fields<'_>,
    offered: &[String],
) -> Result<Option<String>, WrongAnswer> {
    let chosen = match single(fields, "sec-websocket-protocol") {
        Single::Missing => return Ok(None),
        Single::One(value) => token(value).ok_or(WrongAnswer::Subprotocol)?,
        Single::Several => return Err(WrongAnswer::Subprotocol),
    };
    if !offered.iter().any(|name| name == chosen) {
        return Err(WrongAnswer::Subprotocol);
    }
    Ok(Some(chosen.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type OwnedFields = Vec<(&'static str, &'static [u8])>;

    fn key() -> ClientKey {
        ClientKey::new(*b"the sample nonce")
    }

    fn good() -> OwnedFields {
        vec![
            ("upgrade", b"WebSocket"),
            ("connection", b"keep-alive, upgrade"),
            ("sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ]
    }

    fn judge(fields: Fields<'_>) -> Result<Option<String>, WrongAnswer> {
        let offered = ["a".to_owned(), "b".to_owned()];
        check_answer(101, fields, &key(), &offered).map(|agreed| agreed.subprotocol)
    }

    fn replaced(name: &'static str, value: &'static [u8]) -> Result<Option<String>, WrongAnswer> {
        let mut fields = good();
        fields.retain(|(n, _)| *n != name);
        fields.push((name, value));
        judge(&fields)
    }

    #[test]
    fn the_request_asks_with_the_rfcs_key_and_no_extension() {
        let fields = request_fields(&key(), &["a".into(), "b".into()]);
        let value = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| &**v);
        assert_eq!(value("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(value("sec-websocket-protocol"), Some("a, b"));
        assert_eq!(value("sec-websocket-version"), Some("13"));
        assert_eq!(value("sec-websocket-extensions"), None);
        assert_eq!(request_fields(&key(), &[]).len(), 4);
    }

    #[test]
    fn the_rfcs_answer_is_right() {
        assert_eq!(judge(&good()), Ok(None));
        assert_eq!(
            replaced("sec-websocket-protocol", b"b"),
            Ok(Some("b".into()))
        );
    }

    #[test]
    fn only_101_is_right() {
        for status in [0, 100, 200, 204, 302, 404, 500] {
            let judged = check_answer(status, &good(), &key(), &[]);
            assert_eq!(judged, Err(WrongAnswer::Status(status)));
        }
    }

    #[test]
    fn every_other_answer_is_wrong() {
        let cases: [(&str, &[u8], WrongAnswer); 12] = [
            ("upgrade", b"h2c", WrongAnswer::Upgrade),
            ("upgrade", b"websocket, h2c", WrongAnswer::Upgrade),
            ("connection", b"close", WrongAnswer::Connection),
            ("sec-websocket-accept", b"", WrongAnswer::Accept),
            (
                "sec-websocket-accept",
                b"S3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                WrongAnswer::Accept,
            ),
            (
                "sec-websocket-accept",
                b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo",
                WrongAnswer::Accept,
            ),
            ("sec-websocket-protocol", b"c", WrongAnswer::Subprotocol),
            ("sec-websocket-protocol", b"A", WrongAnswer::Subprotocol),
            ("sec-websocket-protocol", b"a, b", WrongAnswer::Subprotocol),
            ("sec-websocket-protocol", b"", WrongAnswer::Subprotocol),
            ("sec-websocket-extensions", b"", WrongAnswer::Extension),
            (
                "sec-websocket-extensions",
                b"permessage-deflate",
                WrongAnswer::Extension,
            ),
        ];
        for (name, value, wrong) in cases {
            assert_eq!(replaced(name, value), Err(wrong), "{name}: {value:?}");
        }
    }

    #[test]
    fn missing_and_repeated_fields_are_wrong() {
        let cases = [
            ("upgrade", WrongAnswer::Upgrade),
            ("connection", WrongAnswer::Connection),
            ("sec-websocket-accept", WrongAnswer::Accept),
        ];
        for (name, wrong) in cases {
            let mut fields = good();
            fields.retain(|(n, _)| *n != name);
            assert_eq!(judge(&fields), Err(wrong), "{name}");
        }
        for (name, wrong) in [cases[0], cases[2]] {
            let mut fields = good();
            fields.extend(good().into_iter().filter(|(n, _)| *n == name));
            assert_eq!(judge(&fields), Err(wrong), "two {name}");
        }
        let mut fields = good();
        fields.push(("sec-websocket-protocol", b"a"));
        fields.push(("sec-websocket-protocol", b"a"));
        assert_eq!(judge(&fields), Err(WrongAnswer::Subprotocol));
    }
}
