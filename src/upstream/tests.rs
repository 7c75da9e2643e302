//! Dials to upstreams made by hand, right and wrong ones.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::proto::handshake::accept_key;

/// Long enough never to be reached by what works, also on a busy machine.
const AMPLE: Duration = Duration::from_secs(30);
/// Short, for what must run into it.
const SHORT: Duration = Duration::from_millis(100);

fn request() -> DialRequest {
    DialRequest {
        path_and_query: "/chat?room=1".into(),
        host: "chat.example.com:8443".into(),
        origin: Some("https://app.example.com".into()),
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        scheme: Scheme::Https,
        request_id: "r-1".into(),
        subprotocols: vec!["chat.v1".into(), "chat.v2".into()],
        passed: vec![field("cookie", "a=1"), field("cookie", "b=2")],
        mapped: vec![field("x-user-id", "alice")],
        key: *b"the sample nonce",
    }
}

fn field(name: &str, value: &str) -> Field {
    Field {
        name: name.into(),
        value: value.into(),
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        host: address.ip().to_string(),
        port: address.port(),
        authority: address.to_string(),
        path_and_query: None,
    }
}

fn upstream(endpoints: Vec<Endpoint>, handshake_timeout: Duration) -> Upstream {
    let config = config::Upstream {
        name: "chat".into(),
        endpoints,
        dial_timeout: AMPLE,
        handshake_timeout,
        dials: None,
        tcp: config::TcpPatience {
            keepalive: None,
            user_timeout: None,
        },
    };
    Upstream::new(Arc::new(config), Pace::new(None, Instant::now()))
}

async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let endpoint = endpoint(listener.local_addr().expect("address"));
    (listener, endpoint)
}

/// An endpoint that nothing listens on.
async fn closed() -> Endpoint {
    listen().await.1
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("head"));
    }
    String::from_utf8(head).expect("text")
}

fn right_answer(more: &str) -> String {
    let accept = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// Dials an upstream that answers with these bytes; gives what it was asked, too.
async fn dial_to(request: &DialRequest, answer: &[u8]) -> (Result<Connected, DialFailed>, String) {
    let (listener, endpoint) = listen().await;
    let upstream = upstream(vec![endpoint], AMPLE);
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let head = read_head(&mut stream).await;
        // A client that has heard enough closes while more is written.
        let _ = stream.write_all(answer).await;
        head
    };
    tokio::join!(upstream.dial(request), serve)
}

async fn failure(answer: &str) -> DialFailed {
    let (dialed, _) = dial_to(&request(), answer.as_bytes()).await;
    dialed.expect_err("failure")
}

async fn refused(answer: &str) -> Refusal {
    match failure(answer).await {
        DialFailed::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn lines(head: &str) -> Vec<&str> {
    let mut lines: Vec<_> = head.trim_end().lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn the_upstream_hears_who_its_client_is() {
    let (dialed, head) = dial_to(&request(), right_answer("").as_bytes()).await;
    let endpoint = dialed.expect("connected").endpoint;
    assert_eq!(
        lines(&head),
        [
            "GET /chat?room=1 HTTP/1.1",
            "connection: Upgrade",
            "cookie: a=1",
            "cookie: b=2",
            &format!("host: {endpoint}"),
            "origin: https://app.example.com",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-protocol: chat.v1, chat.v2",
            "sec-websocket-version: 13",
            "upgrade: websocket",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: chat.example.com:8443",
            "x-forwarded-proto: https",
            "x-request-id: r-1",
            "x-user-id: alice",
        ]
    );
}

#[tokio::test]
async fn frames_behind_the_101_are_not_lost() {
    let answer = right_answer("Sec-WebSocket-Protocol: chat.v2\r\nSet-Cookie: a=1\r\n");
    let raw = [answer.as_bytes(), b"\x81\x05hello"].concat();
    let (dialed, _) = dial_to(&request(), &raw).await;
    let mut connected = dialed.expect("connected");
    assert_eq!(connected.subprotocol.as_deref(), Some("chat.v2"));
    assert_eq!(connected.set_cookies, [field("set-cookie", "a=1")]);
    let mut received = connected.early.to_vec();
    assert!(
        !received.is_empty(),
        "one write arrives as one read on loopback"
    );
    connected
        .stream
        .read_to_end(&mut received)
        .await
        .expect("rest");
    assert_eq!(received, b"\x81\x05hello");
}

#[tokio::test]
async fn a_flood_behind_the_101_stays_in_the_socket() {
    let flood = vec![7; 1024 * 1024];
    let raw = [right_answer("").as_bytes(), &flood].concat();
    let (listener, endpoint) = listen().await;
    let upstream = upstream(vec![endpoint], AMPLE);
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        read_head(&mut stream).await;
        stream.write_all(&raw).await.expect("write");
    };
    let receive = async {
        let mut connected = upstream.dial(&request()).await.expect("connected");
        assert!(connected.early.len() < 32 * 1024);
        let mut received = connected.early.to_vec();
        connected
            .stream
            .read_to_end(&mut received)
            .await
            .expect("rest");
        received
    };
    let ((), received) = tokio::join!(serve, receive);
    assert!(received == flood);
}

#[tokio::test]
async fn a_wrong_101_fails_the_dial() {
    use WrongAnswer::*;
    let right = right_answer("");
    let cases = [
        (right.replace("Accept: s3", "Accept: S3"), Accept),
        (right.replace("Sec-WebSocket-Accept", "X"), Accept),
        (right.replace("Upgrade: websocket\r\n", ""), Upgrade),
        (
            right.replace("Connection: Upgrade", "Connection: close"),
            Connection,
        ),
        (
            right_answer("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            Extension,
        ),
        (
            right_answer("Sec-WebSocket-Protocol: other\r\n"),
            Subprotocol,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".into(),
            Status(200),
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n".into(), Status(204)),
        ("HTTP/1.1 999 Odd\r\n\r\n".into(), Status(999)),
    ];
    for (answer, wrong) in cases {
        let failed = failure(&answer).await;
        assert!(
            matches!(&failed, DialFailed::WrongAnswer(found) if *found == wrong),
            "{answer}: {failed:?}"
        );
        assert_eq!(failed.reject(), Reject::BadGateway);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_or_too_large_fails_the_dial() {
    let pad = |n: usize| "a".repeat(n);
    let cases = [
        String::new(),
        "HTTP/1.1 101".into(),
        "220 smtp.example.com\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".into(),
        right_answer(&"X: a\r\n".repeat(98)),
        right_answer(&format!("X: {}\r\n", pad(33 * 1024))),
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nX: {}",
            pad(1024 * 1024)
        ),
    ];
    for answer in cases {
        let failed = failure(&answer).await;
        assert!(matches!(failed, DialFailed::Broken(_)), "{failed:?}");
        assert_eq!(failed.reject(), Reject::BadGateway);
    }
    let most = right_answer(&"X: a\r\n".repeat(97));
    assert!(dial_to(&request(), most.as_bytes()).await.0.is_ok());
}

#[tokio::test]
async fn informational_answers_before_the_101_are_skipped() {
    let answer = format!("HTTP/1.1 103 Early Hints\r\n\r\n{}", right_answer(""));
    assert!(dial_to(&request(), answer.as_bytes()).await.0.is_ok());
}

#[tokio::test]
async fn a_refusal_comes_back_with_cookies_and_body_and_without_its_hop() {
    let refusal = refused(
        "HTTP/1.1 401 Unauthorized\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
         Connection: close, X-Hop\r\nX-Hop: 1\r\nSec-WebSocket-Version: 13\r\n\
         Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nno!",
    )
    .await;
    assert_eq!(refusal.status, 401);
    assert_eq!(&refusal.body[..], b"no!");
    let mut fields = refusal.fields;
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(
        fields,
        [
            field("content-type", "text/plain"),
            field("set-cookie", "a=1"),
            field("set-cookie", "b=2"),
        ]
    );
}

#[tokio::test]
async fn refusals_are_read_in_every_framing() {
    let cases = [
        "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n",
        "HTTP/1.1 503 Busy\r\n\r\nno!",
        "HTTP/1.0 503 Busy\r\n\r\nno!",
    ];
    for answer in cases {
        let refusal = refused(answer).await;
        assert_eq!(&refusal.body[..], b"no!", "{answer}");
        assert_eq!(refusal.fields, []);
    }
}

#[tokio::test]
async fn one_byte_over_the_largest_body_leaves_the_body_out() {
    let answer = |size: usize| {
        let body = "a".repeat(size);
        format!(
            "HTTP/1.1 404 No\r\nContent-Type: text/html\r\nX: y\r\nContent-Length: {size}\r\n\r\n{body}"
        )
    };
    let largest = refused(&answer(64 * 1024)).await;
    assert_eq!(largest.body.len(), 64 * 1024);
    let larger = refused(&answer(64 * 1024 + 1)).await;
    assert_eq!(larger.status, 404);
    assert!(larger.body.is_empty());
    assert_eq!(larger.fields, [field("x", "y")]);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_left_out() {
    let refusal = refused("HTTP/1.1 404 No\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(refusal.status, 404);
    assert!(refusal.body.is_empty());
}

/// Dials an upstream that writes this much and then falls silent.
async fn dial_silent(answer: &[u8]) -> DialFailed {
    let (listener, endpoint) = listen().await;
    let upstream = upstream(vec![endpoint], SHORT);
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        read_head(&mut stream).await;
        stream.write_all(answer).await.expect("write");
        stream
    };
    let request = request();
    let (dialed, _stream) = tokio::join!(upstream.dial(&request), serve);
    dialed.expect_err("silent")
}

#[tokio::test]
async fn an_answer_that_comes_too_late_fails_the_dial() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 101 Switching Proto",
        b"HTTP/1.1 103 x\r\n\r\n",
    ] {
        let failed = dial_silent(answer).await;
        assert!(
            matches!(failed, DialFailed::TimedOut(Step::Answer)),
            "{failed:?}"
        );
        assert_eq!(failed.reject(), Reject::GatewayTimeout);
    }
}

#[tokio::test]
async fn a_refusal_whose_body_comes_too_late_is_still_a_refusal() {
    let failed = dial_silent(b"HTTP/1.1 404 No\r\nContent-Length: 10\r\n\r\nhalf").await;
    let DialFailed::Refused(refusal) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!((refusal.status, refusal.body.len()), (404, 0));
}

#[tokio::test]
async fn a_closed_port_is_retried_on_the_next_endpoint() {
    let (listener, open) = listen().await;
    let authority = open.authority.clone();
    let upstream = upstream(vec![closed().await, open], AMPLE);
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let head = read_head(&mut stream).await;
        stream
            .write_all(right_answer("").as_bytes())
            .await
            .expect("write");
        head
    };
    let request = request();
    let (dialed, head) = tokio::join!(upstream.dial(&request), serve);
    assert_eq!(dialed.expect("connected").endpoint, authority);
    assert!(head.contains(&format!("\r\nhost: {authority}\r\n")));
}

#[tokio::test]
async fn only_one_other_endpoint_is_tried() {
    let (_listener, open) = listen().await;
    let endpoints = vec![closed().await, closed().await, open];
    let failed = upstream(endpoints, AMPLE)
        .dial(&request())
        .await
        .expect_err("closed");
    assert!(matches!(failed, DialFailed::Unreachable(_)), "{failed:?}");
    assert_eq!(failed.reject(), Reject::Unavailable);
    let failed = upstream(vec![closed().await], AMPLE).dial(&request()).await;
    assert!(matches!(failed, Err(DialFailed::Unreachable(_))));
}

#[tokio::test]
async fn nothing_is_tried_again_once_the_request_was_sent() {
    let (first, first_endpoint) = listen().await;
    let (second, second_endpoint) = listen().await;
    let upstream = upstream(vec![first_endpoint, second_endpoint], AMPLE);
    let serve = async {
        let (mut stream, _) = first.accept().await.expect("accept");
        read_head(&mut stream).await;
    };
    let request = request();
    let (dialed, ()) = tokio::join!(upstream.dial(&request), serve);
    assert!(matches!(dialed, Err(DialFailed::Broken(_))), "{dialed:?}");
    let other =
        std::future::poll_fn(|cx| std::task::Poll::Ready(second.poll_accept(cx).is_ready()));
    assert!(!other.await);
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (first, first_endpoint) = listen().await;
    let (second, second_endpoint) = listen().await;
    let order = [&first_endpoint, &second_endpoint, &first_endpoint].map(|e| e.authority.clone());
    let upstream = upstream(vec![first_endpoint, second_endpoint], AMPLE);
    let request = request();
    for (listener, expected) in [&first, &second, &first].into_iter().zip(order) {
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("accept");
            read_head(&mut stream).await;
            stream
                .write_all(right_answer("").as_bytes())
                .await
                .expect("write");
        };
        let (dialed, ()) = tokio::join!(upstream.dial(&request), serve);
        assert_eq!(dialed.expect("connected").endpoint, expected);
    }
}

#[tokio::test]
async fn the_endpoints_path_replaces_the_clients_and_the_query_stays() {
    let cases = [
        (None, "/chat?room=1", "/chat?room=1"),
        (None, "/chat", "/chat"),
        (Some("/ws"), "/chat", "/ws"),
        (Some("/ws"), "/chat?room=1?2", "/ws?room=1?2"),
        (Some("/ws?v=2"), "/chat?room=1", "/ws?v=2&room=1"),
        (Some("/ws?v=2"), "/chat", "/ws?v=2"),
    ];
    for (own, client, expected) in cases {
        let (listener, mut endpoint) = listen().await;
        endpoint.path_and_query = own.map(str::to_owned);
        let upstream = upstream(vec![endpoint], AMPLE);
        let request = DialRequest {
            path_and_query: client.into(),
            ..request()
        };
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("accept");
            read_head(&mut stream).await
        };
        let (_, head) = tokio::join!(upstream.dial(&request), serve);
        assert!(
            head.starts_with(&format!("GET {expected} HTTP/1.1\r\n")),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_value_with_a_line_break_is_not_sent() {
    let (listener, endpoint) = listen().await;
    let upstream = upstream(vec![endpoint], AMPLE);
    let request = DialRequest {
        mapped: vec![field("x-user-id", "alice\r\nx-admin: yes")],
        ..request()
    };
    let failed = upstream.dial(&request).await.expect_err("unsendable");
    assert!(matches!(&failed, DialFailed::Unsendable(name) if name == "x-user-id"));
    assert_eq!(failed.reject(), Reject::Unsendable);
    let (mut stream, _) = listener.accept().await.expect("accept");
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).await.expect("closed");
    assert!(sent.is_empty());
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_unreachable() {
    let endpoint = Endpoint {
        // No resolver is asked for a name like this.
        host: "a\0b".into(),
        port: 80,
        authority: "a".into(),
        path_and_query: None,
    };
    let failed = upstream(vec![endpoint], AMPLE).dial(&request()).await;
    assert!(
        matches!(failed, Err(DialFailed::Unreachable(_))),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_third_party_server_is_understood() {
    let (listener, endpoint) = listen().await;
    let upstream = upstream(vec![endpoint], AMPLE);
    let serve = async {
        let (stream, _) = listener.accept().await.expect("accept");
        tokio_tungstenite::accept_async(stream).await
    };
    let request = request();
    let (dialed, served) = tokio::join!(upstream.dial(&request), serve);
    assert!(served.is_ok());
    assert_eq!(dialed.expect("connected").subprotocol, None);
}

#[test]
fn the_future_of_a_dial_is_small() {
    let upstream = upstream(Vec::new(), AMPLE);
    let request = request();
    assert!(size_of_val(&upstream.dial(&request)) <= 64);
}
