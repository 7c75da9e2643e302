//! The opening handshake with the client: what is refused and how, what may arrive with it,
//! and how long and how large it may be.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Error;

use crate::support::raw::{
    Head, Opening, masked, opening, plain, read_frame, read_head, read_to_end, text, write,
};
use crate::support::settings::proxy;
use crate::support::upstream::{switching, upstream};
use crate::support::{assert_took, token, within};

/// Fields that a status demands.
type Demanded = &'static [(&'static str, &'static str)];

/// Each is one request, the status it gets and the fields that the status demands.
fn refusals() -> Vec<(Opening, u16, Demanded)> {
    let good = || opening("/chat");
    vec![
        (good().line("POST /chat HTTP/1.1"), 405, &[("allow", "GET")]),
        (
            good().line("GET /chat HTTP/1.0"),
            426,
            &[("upgrade", "websocket")],
        ),
        (good().line("GET /elsewhere HTTP/1.1"), 404, &[]),
        (good().line("GET /chat/more HTTP/1.1"), 404, &[]),
        (good().line("GET /x/../chat HTTP/1.1"), 400, &[]),
        (good().line("GET //chat HTTP/1.1"), 400, &[]),
        (good().line("GET /%63hat HTTP/1.1"), 400, &[]),
        (good().line("GET http://localhost/chat HTTP/1.1"), 400, &[]),
        (good().line("GET * HTTP/1.1"), 400, &[]),
        (
            good().line(&format!("GET /{} HTTP/1.1", "x".repeat(9000))),
            414,
            &[],
        ),
        (good().without("Host"), 400, &[]),
        (good().with("Host", "other.example.com"), 400, &[]),
        (good().with("Content-Length", "0"), 400, &[]),
        (good().with("Transfer-Encoding", "chunked"), 400, &[]),
        (good().with("Expect", "100-continue"), 400, &[]),
        (good().without("Upgrade"), 426, &[("upgrade", "websocket")]),
        (
            good().without("Upgrade").with("Upgrade", "h2c"),
            426,
            &[("upgrade", "websocket")],
        ),
        (
            good().without("Upgrade").with("Upgrade", "h2c, websocket"),
            426,
            &[("upgrade", "websocket")],
        ),
        (
            good().with("Upgrade", "websocket"),
            426,
            &[("upgrade", "websocket")],
        ),
        (good().without("Connection"), 400, &[]),
        (
            good()
                .without("Connection")
                .with("Connection", "keep-alive"),
            400,
            &[],
        ),
        (good().without("Sec-WebSocket-Version"), 400, &[]),
        (
            good()
                .without("Sec-WebSocket-Version")
                .with("Sec-WebSocket-Version", "8"),
            426,
            &[("upgrade", "websocket"), ("sec-websocket-version", "13")],
        ),
        (good().without("Sec-WebSocket-Key"), 400, &[]),
        (
            good()
                .without("Sec-WebSocket-Key")
                .with("Sec-WebSocket-Key", "dG9vIHNob3J0"),
            400,
            &[],
        ),
        (
            good().with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            400,
            &[],
        ),
        (good().with("Sec-WebSocket-Protocol", "a,,b"), 400, &[]),
    ]
}

#[tokio::test]
async fn a_refusal_has_its_status_and_fields_and_closes_the_connection() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let cases = refusals();
    assert!(cases.len() > 20);
    let count = cases.len() as u64;
    for (request, status, fields) in cases {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, request.text().as_bytes()).await;
        let head = read_head(&mut tls).await;
        assert_eq!(head.status(), status, "{request:?}");
        for (name, value) in fields {
            assert_eq!(head.field(name), Some(*value), "{request:?}");
        }
        assert_eq!(head.field("connection"), Some("close"), "{request:?}");
        let body = read_to_end(&mut tls).await;
        assert_eq!(body.len(), content_length(&head), "{request:?}");
    }
    proxy.counted("refusals", count, |c| c.rejected.get()).await;
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_browser_that_opens_the_address_reads_what_it_is() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut tls = proxy.entrance.tls().await;
    let request = "GET /chat HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n";
    write(&mut tls, request.as_bytes()).await;
    let head = read_head(&mut tls).await;
    assert_eq!(head.status(), 426);
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert!(
        head.field("content-type")
            .is_some_and(|t| t.starts_with("text/plain"))
    );
    let body = String::from_utf8(read_to_end(&mut tls).await).expect("text");
    assert!(body.contains("WebSocket"), "{body}");
    drop(tls);
    proxy.stop().await;
}

#[tokio::test]
async fn bytes_that_are_not_http_get_no_session() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    // HTTP/2 without asking, a frame before the opening, noise.
    let frame = masked(text("hello"));
    let cases: [&[u8]; 4] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &frame,
        b"\x16\x03\x01\x00\x05hello",
        b"GET /chat\r\n\r\n",
    ];
    for bytes in cases {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, bytes).await;
        // Some of it could still be the beginning of a line.
        tls.shutdown().await.expect("the end can be sent");
        let answer = String::from_utf8(read_to_end(&mut tls).await).expect("text");
        assert!(!answer.contains(" 101 "), "{bytes:?}: {answer}");
    }
    proxy
        .counted("connections without request", 4, |c| c.no_request.get())
        .await;
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_above_its_limits_gets_431() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .process_limits("max_request_head = \"8KiB\"\nmax_headers = 20")
        .start();
    let mut many = opening("/chat");
    for n in 0..15 {
        many = many.with(&format!("X-{n}"), "y");
    }
    let large = opening("/chat").with("X-Large", &"y".repeat(9000));
    for request in [many, large] {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, request.text().as_bytes()).await;
        assert_eq!(read_head(&mut tls).await.status(), 431);
        read_to_end(&mut tls).await;
    }
    proxy
        .counted("refused heads", 2, |c| c.no_request.get())
        .await;
    // One field fewer passes: six of the opening's own and fourteen more.
    let mut just = opening("/chat");
    for n in 0..14 {
        just = just.with(&format!("X-{n}"), "y");
    }
    let mut tls = proxy.entrance.tls().await;
    write(&mut tls, just.text().as_bytes()).await;
    assert_eq!(read_head(&mut tls).await.status(), 101);
    drop(tls);
    proxy.stop().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off_in_time() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .process_limits("request_head_timeout = \"300ms\"")
        .start();
    let started = Instant::now();
    let tls = proxy.entrance.tls().await;
    let (mut reading, mut writing) = tokio::io::split(tls);
    let head = opening("/chat")
        .with("X-Endless", &"y".repeat(100_000))
        .text();
    let trickle = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        for byte in head.bytes() {
            ticks.tick().await;
            // Each byte is a sign of life, and none moves the deadline.
            if writing.write_all(&[byte]).await.is_err() || writing.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = read_to_end(&mut reading) => assert_eq!(answer, b""),
        () = trickle => {}
    }
    assert_took(started, Duration::from_millis(250), Duration::from_secs(10));
    proxy
        .counted("heads that came too late", 1, |c| c.no_request.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn the_head_and_the_first_message_may_come_in_one_packet() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.tls().await;
    let first = masked(text(&token::message(&token::good())));
    let next = masked(text("right behind it"));
    let all = [opening("/chat").text().as_bytes(), &first, &next].concat();
    write(&mut client, &all).await;
    assert_eq!(read_head(&mut client).await.status(), 101);
    let mut server = upstream.accept().await;
    assert_eq!(server.text().await, "right behind it");
    server.send("heard").await;
    let answer = read_frame(&mut client).await.expect("a frame");
    assert_eq!(answer.payload, b"heard");
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn the_first_message_and_the_next_may_come_in_one_packet() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.raw_open().await;
    let first = masked(text(&token::message(&token::good())));
    let all: Vec<u8> = [
        first,
        masked(text("one")),
        masked(text("two")),
        masked(text("three")),
    ]
    .concat();
    write(&mut client, &all).await;
    let mut server = upstream.accept().await;
    for expected in ["one", "two", "three"] {
        assert_eq!(server.text().await, expected);
    }
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn frames_that_come_with_the_upstreams_101_reach_the_client() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.admitted().await;
    let (mut server, head) = upstream.asked().await;
    let mut answer = switching(&head, "").into_bytes();
    answer.extend(plain(text("early")));
    answer.extend(plain(text("bird")));
    write(&mut server, &answer).await;
    assert_eq!(client.text().await, "early");
    assert_eq!(client.text().await, "bird");
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn the_first_of_the_clients_subprotocols_that_the_route_lists_is_chosen() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .route_also("subprotocols = [\"chat.v1\", \"chat.v2\"]")
        .start();
    let entrance = &proxy.entrance;
    let offers = |names: &[&str]| {
        names
            .iter()
            .fold(entrance.request("/chat"), |request, name| {
                request.with_sub_protocol(*name)
            })
    };
    let asked = entrance.ask(offers(&["soap", "chat.v2", "chat.v1"])).await;
    let (mut client, response) = asked.expect("a 101");
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat.v2");
    client.send(token::message(&token::good())).await;
    // The upstream is offered what was agreed, and nothing else.
    let (server, head) = upstream.asked().await;
    assert_eq!(head.field("sec-websocket-protocol"), Some("chat.v2"));
    drop((client, server));
    // None in common is none at all, which the third party's client refuses to accept.
    let refused = entrance.ask(offers(&["soap"])).await;
    assert!(matches!(refused, Err(Error::Protocol(_))));
    proxy.stop().await;
}

#[tokio::test]
async fn a_route_may_require_a_subprotocol() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .route_also("subprotocols = [\"chat.v1\"]\nsubprotocols_required = true")
        .start();
    for request in [
        opening("/chat"),
        opening("/chat").with("Sec-WebSocket-Protocol", "soap"),
    ] {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, request.text().as_bytes()).await;
        assert_eq!(read_head(&mut tls).await.status(), 400);
    }
    let good = opening("/chat").with("Sec-WebSocket-Protocol", "soap, chat.v1");
    let mut tls = proxy.entrance.tls().await;
    write(&mut tls, good.text().as_bytes()).await;
    let head = read_head(&mut tls).await;
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("sec-websocket-protocol"), Some("chat.v1"));
    drop(tls);
    proxy.stop().await;
}

#[tokio::test]
async fn extensions_are_declined() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut tls = proxy.entrance.tls().await;
    let offer = opening("/chat").with("Sec-WebSocket-Extensions", "permessage-deflate");
    write(&mut tls, offer.text().as_bytes()).await;
    let head = read_head(&mut tls).await;
    assert_eq!(head.status(), 101);
    assert_eq!(head.field("sec-websocket-extensions"), None);
    write(&mut tls, &masked(text(&token::message(&token::good())))).await;
    let (server, head) = upstream.asked().await;
    assert_eq!(head.field("sec-websocket-extensions"), None);
    drop((tls, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_no_refusal_holds_its_place_for_a_bounded_time() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut tls = proxy.entrance.tls().await;
    write(&mut tls, opening("/elsewhere").text().as_bytes()).await;
    let started = Instant::now();
    // The answer is there, but the client neither closes nor stops sending.
    assert_eq!(read_head(&mut tls).await.status(), 404);
    let (mut reading, mut writing) = tokio::io::split(tls);
    let flood = async { while writing.write_all(&[b'x'; 4096]).await.is_ok() {} };
    let rest = async {
        let mut rest = Vec::new();
        let _how_it_ended = reading.read_to_end(&mut rest).await;
    };
    within("the connection is closed", async {
        tokio::join!(flood, rest)
    })
    .await;
    assert_took(started, Duration::ZERO, Duration::from_secs(10));
    proxy.stop().await;
}

fn content_length(head: &Head) -> usize {
    let length = head.field("content-length").expect("a length");
    length.parse().expect("a number")
}
