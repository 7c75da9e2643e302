//! The server's side of the opening handshake, rule by rule (RFC 6455 §4.2.1).

use super::*;
use crate::proto::handshake::target::TargetFault;

type OwnedFields = Vec<(&'static str, &'static [u8])>;

fn good() -> OwnedFields {
    vec![
        ("host", b"Chat.Example.com:8443"),
        ("upgrade", b"websocket"),
        ("connection", b"Upgrade"),
        ("sec-websocket-version", b"13"),
        ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ]
}

fn check_fields(fields: &[(&str, &[u8])]) -> Result<Opening, Reject> {
    check(&Head {
        method: "GET",
        version: Version::Http11,
        target: "/chat?x=1",
        fields,
    })
}

fn with(name: &'static str, value: &'static [u8]) -> Result<Opening, Reject> {
    let mut fields = good();
    fields.push((name, value));
    check_fields(&fields)
}

fn replaced(name: &'static str, value: &'static [u8]) -> Result<Opening, Reject> {
    let mut fields = good();
    fields.retain(|(n, _)| *n != name);
    fields.push((name, value));
    check_fields(&fields)
}

fn without(name: &str) -> Result<Opening, Reject> {
    let mut fields = good();
    fields.retain(|(n, _)| *n != name);
    check_fields(&fields)
}

#[test]
fn an_ordinary_opening_is_accepted_and_taken_apart() {
    let opening = with("Sec-WebSocket-Protocol", b"chat.v2, chat.v1").expect("good");
    assert_eq!(opening.host(), "chat.example.com");
    assert_eq!(opening.authority(), "Chat.Example.com:8443");
    assert_eq!(opening.path(), "/chat");
    assert_eq!(opening.path_and_query(), "/chat?x=1");
    assert_eq!(opening.key(), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(opening.subprotocols(), ["chat.v2", "chat.v1"]);
}

#[test]
fn what_browsers_and_libraries_vary_is_accepted() {
    let cases: [(&str, &[u8]); 9] = [
        ("connection", b"keep-alive, Upgrade"),
        ("connection", b"upgrade"),
        ("connection", b" , UPGRADE ,"),
        ("upgrade", b"WebSocket"),
        ("upgrade", b"\twebsocket "),
        ("host", b"[::1]:443"),
        ("sec-websocket-extensions", b"permessage-deflate"),
        ("te", b"trailers"),
        ("origin", b"https://example.com"),
    ];
    for (name, value) in cases {
        assert!(replaced(name, value).is_ok(), "{name}: {value:?}");
    }
    let mut two_connections = good();
    two_connections.push(("Connection", b"keep-alive"));
    assert!(check_fields(&two_connections).is_ok());
}

#[test]
fn only_get_over_http_1_1_is_accepted() {
    let fields = good();
    let mut head = Head {
        method: "GET",
        version: Version::Http11,
        target: "/",
        fields: &fields,
    };
    assert!(check(&head).is_ok());
    for method in ["POST", "HEAD", "get", "CONNECT", "OPTIONS", "PRI", ""] {
        head.method = method;
        assert_eq!(check(&head), Err(Reject::Method), "{method}");
    }
    head.method = "GET";
    head.version = Version::Http10;
    assert_eq!(check(&head), Err(Reject::HttpVersion));
    head.version = Version::Http11;
    head.target = "/a/../b";
    let fault = Reject::Target(TargetFault::DotSegment);
    assert_eq!(check(&head), Err(fault));
}

#[test]
fn each_field_must_be_there() {
    let cases = [
        ("host", Reject::Host),
        ("upgrade", Reject::NoUpgrade),
        ("connection", Reject::Connection),
        ("sec-websocket-version", Reject::VersionField),
        ("sec-websocket-key", Reject::Key),
    ];
    for (name, reject) in cases {
        assert_eq!(without(name), Err(reject), "{name}");
    }
}

#[test]
fn each_field_may_be_there_once() {
    let cases: [(&str, &[u8], Reject); 6] = [
        ("host", b"chat.example.com:8443", Reject::Host),
        ("HOST", b"Chat.Example.com:8443", Reject::Host),
        ("upgrade", b"websocket", Reject::OtherUpgrade),
        ("upgrade", b"h2c", Reject::OtherUpgrade),
        ("sec-websocket-version", b"13", Reject::VersionField),
        (
            "Sec-WebSocket-Key",
            b"dGhlIHNhbXBsZSBub25jZQ==",
            Reject::Key,
        ),
    ];
    for (name, value, reject) in cases {
        assert_eq!(with(name, value), Err(reject), "{name}: {value:?}");
    }
}

#[test]
fn values_are_judged_exactly() {
    let cases: [(&str, &[u8], Reject); 22] = [
        ("host", b"", Reject::Host),
        ("host", b"u@example.com", Reject::Host),
        ("host", b"a, b", Reject::Host),
        ("upgrade", b"", Reject::OtherUpgrade),
        ("upgrade", b"h2c", Reject::OtherUpgrade),
        ("upgrade", b"websocket, h2c", Reject::OtherUpgrade),
        ("upgrade", b"websocket,", Reject::OtherUpgrade),
        ("upgrade", b"websocket/13", Reject::OtherUpgrade),
        ("upgrade", b"\x0bwebsocket", Reject::OtherUpgrade),
        ("connection", b"keep-alive", Reject::Connection),
        ("connection", b"upgraded", Reject::Connection),
        ("connection", b"\"upgrade\"", Reject::Connection),
        ("sec-websocket-version", b"8", Reject::Version),
        ("sec-websocket-version", b"13, 8", Reject::Version),
        ("sec-websocket-version", b"013", Reject::Version),
        ("sec-websocket-key", b"", Reject::Key),
        ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ", Reject::Key),
        (
            "sec-websocket-key",
            b"dGhlIHNhbXBsZSBub25jZR==",
            Reject::Key,
        ),
        (
            "sec-websocket-key",
            b"dGhlIHNhbXBsZSBub25jZQ==,",
            Reject::Key,
        ),
        ("sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAA", Reject::Key),
        (
            "sec-websocket-key",
            b"AAAAAAAAAAAAAAAAAAAAAAA=",
            Reject::Key,
        ),
        (
            "sec-websocket-key",
            b"____________________-Q==",
            Reject::Key,
        ),
    ];
    for (name, value, reject) in cases {
        assert_eq!(replaced(name, value), Err(reject), "{name}: {value:?}");
    }
}

#[test]
fn nothing_may_announce_a_body() {
    let cases: [(&str, &[u8]); 4] = [
        ("content-length", b"0"),
        ("Content-Length", b"5"),
        ("transfer-encoding", b"chunked"),
        ("expect", b"100-continue"),
    ];
    for (name, value) in cases {
        assert_eq!(with(name, value), Err(Reject::Body), "{name}");
    }
}

#[test]
fn subprotocol_fields_are_joined() {
    let mut fields = good();
    fields.push(("sec-websocket-protocol", b"a,b"));
    fields.push(("Sec-WebSocket-Protocol", b" c "));
    let opening = check_fields(&fields).expect("good");
    assert_eq!(opening.subprotocols(), ["a", "b", "c"]);
}

#[test]
fn malformed_subprotocol_lists_are_refused() {
    let cases: [&[u8]; 7] = [b"", b",", b"a,", b"a, a", b"a b", b"a/b", b"\xc3\xa4"];
    for value in cases {
        let checked = with("sec-websocket-protocol", value);
        assert_eq!(checked, Err(Reject::Subprotocols), "{value:?}");
    }
    assert!(with("sec-websocket-protocol", b"a, A").is_ok());
}

#[test]
fn one_subprotocol_over_the_bound_is_refused() {
    let list = |n: usize| {
        (0..n)
            .map(|i| format!("p{i}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let checked = |value: String| {
        let mut fields: Vec<(&str, &[u8])> = good();
        fields.push(("sec-websocket-protocol", value.as_bytes()));
        check_fields(&fields).map(|opening| opening.subprotocols().len())
    };
    assert_eq!(checked(list(32)), Ok(32));
    assert_eq!(checked(list(33)), Err(Reject::Subprotocols));
}

#[test]
fn the_clients_order_decides_among_the_listed() {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let offered = list(&["x", "b", "a"]);
    assert_eq!(choose_subprotocol(&offered, &list(&["a", "b"])), Some("b"));
    assert_eq!(choose_subprotocol(&offered, &list(&["B"])), None);
    assert_eq!(choose_subprotocol(&offered, &[]), None);
    assert_eq!(choose_subprotocol(&[], &list(&["a"])), None);
}

#[test]
fn debug_of_an_opening_hides_query_and_subprotocols() {
    let opening = with("sec-websocket-protocol", b"secret-token").expect("good");
    let text = format!("{opening:?}");
    assert!(text.contains("/chat"));
    assert!(!text.contains("x=1") && !text.contains("secret-token"));
}
