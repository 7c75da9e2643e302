//! Routes that ask for no token: the upstream is dialled before the client is answered, so
//! its own refusal, subprotocol and cookies reach the client.

use std::net::SocketAddr;

use tidegate::proto::cause::Cause;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::proxy::Proxy;
use crate::support::raw::{
    Head, Opening, masked, opening, plain, read_frame, read_head, read_to_end, text, write,
};
use crate::support::settings::{ORIGIN, Settings, proxy};
use crate::support::upstream::{echo, switching, upstream};
use crate::support::within;

fn open_to_all(address: SocketAddr) -> Settings {
    proxy(address).without_token()
}

/// What a client that sends `request` hears, the body included.
async fn asks(proxy: &Proxy, request: &Opening) -> (Head, Vec<u8>) {
    let mut tls = proxy.entrance.tls().await;
    write(&mut tls, request.text().as_bytes()).await;
    let head = read_head(&mut tls).await;
    let body = read_to_end(&mut tls).await;
    (head, body)
}

#[tokio::test]
async fn messages_pass_from_the_first_one_on() {
    let upstream = echo().await;
    let mut proxy = open_to_all(upstream.address).start();
    let mut client = proxy.entrance.open().await;
    client.echoes("no token").await;
    client.close(1000, "").await;
    client.closed().await;
    let record = proxy.record().await;
    assert!(matches!(record.summary.cause, Cause::Closed { .. }));
    assert_eq!(record.subject, None);
    assert_eq!(record.endpoint, Some(upstream.address.to_string()));
    proxy.stop().await;
}

#[tokio::test]
async fn the_client_is_answered_with_what_the_upstream_chose() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address)
        .route_also("subprotocols = [\"chat.v1\"]")
        .start();
    let client = async {
        let mut tls = proxy.entrance.tls().await;
        let request = opening("/chat").with("Sec-WebSocket-Protocol", "chat.v2, chat.v1");
        write(&mut tls, request.text().as_bytes()).await;
        (read_head(&mut tls).await, tls)
    };
    let server = async {
        let (mut tcp, head) = upstream.asked().await;
        let fields = "Sec-WebSocket-Protocol: chat.v2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                      Server: inner/1.0\r\nX-Internal: 10.0.0.1\r\n";
        write(&mut tcp, switching(&head, fields).as_bytes()).await;
        (head, tcp)
    };
    let ((answer, mut client), (asked, mut server)) = tokio::join!(client, server);
    assert_eq!(
        asked.field("sec-websocket-protocol"),
        Some("chat.v2, chat.v1")
    );
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.field("sec-websocket-protocol"), Some("chat.v2"));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.field("x-internal"), None);
    // And the session is open both ways.
    write(&mut server, &plain(text("down"))).await;
    write(&mut client, &masked(text("up"))).await;
    assert_eq!(
        read_frame(&mut client).await.expect("down").payload,
        b"down"
    );
    assert_eq!(read_frame(&mut server).await.expect("up").payload, b"up");
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn the_upstreams_own_refusal_reaches_the_client() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address).start();
    let answers = [
        (
            "401 Unauthorized",
            "WWW-Authenticate: Bearer realm=\"inner\"\r\nSet-Cookie: seen=1\r\n",
            "who are you?",
        ),
        ("503 Service Unavailable", "Retry-After: 7\r\n", "later"),
        ("302 Found", "Location: https://login.example.com/\r\n", ""),
    ];
    for (status, fields, body) in answers {
        let server = async {
            let (mut tcp, _) = upstream.asked().await;
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\
                 Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n{body}"
            );
            write(&mut tcp, answer.as_bytes()).await;
            // Kept open: the length says where the body ends.
            tcp
        };
        let request = opening("/chat");
        let (tcp, (head, heard)) = tokio::join!(server, asks(&proxy, &request));
        assert_eq!(head.first_line, format!("HTTP/1.1 {status}"));
        for line in fields.lines() {
            let (name, value) = line.split_once(": ").expect("a field");
            assert_eq!(head.field(&name.to_lowercase()), Some(value), "{status}");
        }
        assert_eq!(head.field("connection"), Some("close"));
        assert_eq!(head.field("x-hop"), None);
        assert_eq!(head.field("keep-alive"), None);
        assert_eq!(heard, body.as_bytes(), "{status}");
        drop(tcp);
    }
    proxy.counted("refusals", 3, |c| c.rejected.get()).await;
    proxy.stop().await;
}

/// What an upstream says to a request.
type Answer = Box<dyn Fn(&Head) -> String>;

#[tokio::test]
async fn an_upstream_that_answers_wrongly_is_a_bad_gateway() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address).start();
    let right = |head: &Head| switching(head, "");
    let cases: Vec<(&str, Answer)> = vec![
        (
            "a page",
            Box::new(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned()),
        ),
        (
            "not HTTP",
            Box::new(|_| "SSH-2.0-OpenSSH_9.7\r\n\r\n".to_owned()),
        ),
        ("nothing", Box::new(|_| String::new())),
        ("half a head", Box::new(|_| "HTTP/1.1 101 Sw".to_owned())),
        (
            "another accept value",
            Box::new(move |head| {
                right(head).replace("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x")
            }),
        ),
        (
            "no accept value",
            Box::new(move |head| right(head).replace("Sec-WebSocket-Accept", "X-Accept")),
        ),
        (
            "another upgrade",
            Box::new(move |head| right(head).replace("Upgrade: websocket", "Upgrade: h2c")),
        ),
        (
            "no connection field",
            Box::new(move |head| right(head).replace("Connection: Upgrade\r\n", "")),
        ),
        (
            "an extension",
            Box::new(|head| switching(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n")),
        ),
        (
            "a subprotocol that was not offered",
            Box::new(|head| switching(head, "Sec-WebSocket-Protocol: soap\r\n")),
        ),
        (
            "an endless head",
            Box::new(|head| {
                let right = switching(head, "");
                let more = format!("X-More: {}\r\n", "y".repeat(1000)).repeat(100);
                right.replace("Upgrade: ", &format!("{more}Upgrade: "))
            }),
        ),
    ];
    for (name, answer) in cases {
        let server = async {
            let (mut tcp, head) = upstream.asked().await;
            // An endless head is not read to its end.
            let answer = answer(&head);
            let _cut_off = tcp.write_all(answer.as_bytes()).await;
        };
        let request = opening("/chat");
        let ((), (head, body)) = tokio::join!(server, asks(&proxy, &request));
        assert_eq!(head.status(), 502, "{name}");
        assert_eq!(body, b"Bad gateway\n", "{name}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_unavailable_and_a_silent_one_too_late() {
    let dead = upstream().await.into_dead();
    let proxy_to_dead = open_to_all(dead).start();
    let (head, body) = asks(&proxy_to_dead, &opening("/chat")).await;
    assert_eq!(
        (head.status(), &body[..]),
        (503, &b"Service unavailable\n"[..])
    );
    proxy_to_dead.stop().await;

    let silent = upstream().await;
    let proxy = open_to_all(silent.address)
        .upstream("handshake_timeout = \"200ms\"")
        .start();
    let request = opening("/chat");
    let (asked, (head, body)) = tokio::join!(silent.asked(), asks(&proxy, &request));
    assert_eq!((head.status(), &body[..]), (504, &b"Gateway timeout\n"[..]));
    drop(asked);
    proxy.stop().await;
}

#[tokio::test]
async fn the_upstream_learns_who_the_client_is_from_the_edge_alone() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address).start();
    let forged = opening("/chat?a=1&b=%2F")
        .with("X-Forwarded-For", "6.6.6.6")
        .with("X-Forwarded-Proto", "ftp")
        .with("X-Forwarded-Host", "evil.com")
        .with("X_Forwarded_For", "6.6.6.6")
        .with("X-Real-IP", "6.6.6.6")
        .with("Forwarded", "for=6.6.6.6")
        .with("X-Request-Id", "chosen-by-the-client")
        .with("X-Original-URL", "/admin")
        .with("Proxy-Authorization", "Basic eDp5")
        .with("Proxy", "http://evil.com")
        .with("Keep-Alive", "timeout=5")
        .with("TE", "trailers")
        .with("Cookie", "session=1")
        .with("Authorization", "Bearer t")
        .with("User-Agent", "test")
        .with("X-Hop", "1");
    let forged = forged
        .without("Connection")
        .with("Connection", "Upgrade, X-Hop");
    let client = async {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, forged.text().as_bytes()).await;
        let head = read_head(&mut tls).await;
        assert_eq!(head.status(), 101);
        tls
    };
    let server = async {
        let (mut tcp, head) = upstream.asked().await;
        write(&mut tcp, switching(&head, "").as_bytes()).await;
        (tcp, head)
    };
    let (client, (server, head)) = tokio::join!(client, server);
    let ours = upstream.address.to_string();
    assert_eq!(head.first_line, "GET /chat?a=1&b=%2F HTTP/1.1");
    for (name, value) in [
        ("host", Some(ours.as_str())),
        ("origin", Some(ORIGIN)),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("localhost")),
        ("x_forwarded_for", None),
        ("x-real-ip", None),
        ("forwarded", None),
        ("x-original-url", None),
        ("proxy-authorization", None),
        ("proxy", None),
        ("keep-alive", None),
        ("te", None),
        ("x-hop", None),
        ("cookie", Some("session=1")),
        ("authorization", Some("Bearer t")),
        ("user-agent", Some("test")),
        ("sec-websocket-version", Some("13")),
        ("sec-websocket-extensions", None),
    ] {
        assert_eq!(head.field(name), value, "{name}");
    }
    let id = head.field("x-request-id").expect("an id");
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    // The edge's own key: the client cannot choose what the upstream hashes.
    assert_ne!(
        head.field("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn the_id_in_the_record_is_the_one_the_upstream_was_told() {
    let upstream = upstream().await;
    let mut proxy = open_to_all(upstream.address).start();
    let (client, (server, request)) =
        tokio::join!(proxy.entrance.open(), upstream.accept_with_request());
    let told = request.headers()["x-request-id"].clone();
    drop((client, server));
    assert_eq!(proxy.record().await.id, told.to_str().expect("hex digits"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_refused_origin_never_reaches_the_upstream() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address).start();
    let evil = opening("/chat")
        .without("Origin")
        .with("Origin", "https://evil.com");
    assert_eq!(asks(&proxy, &evil).await.0.status(), 403);
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_upstream_thinks_is_let_go() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address).start();
    let mut tls = proxy.entrance.tls().await;
    write(&mut tls, opening("/chat").text().as_bytes()).await;
    let (mut server, _) = upstream.asked().await;
    drop(tls);
    let mut nothing = Vec::new();
    let ended = within("the dial is given up", server.read_to_end(&mut nothing)).await;
    ended.expect("an orderly end");
    proxy
        .counted("connections without request", 1, |c| c.no_request.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn frames_on_both_sides_of_a_late_101_arrive() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address).start();
    let mut tls = proxy.entrance.tls().await;
    // The client does not wait for its 101.
    let eager = [opening("/chat").text().as_bytes(), &masked(text("eager"))].concat();
    write(&mut tls, &eager).await;
    let (mut server, head): (TcpStream, Head) = upstream.asked().await;
    let answer = [switching(&head, "").as_bytes(), &plain(text("early"))].concat();
    write(&mut server, &answer).await;
    assert_eq!(read_head(&mut tls).await.status(), 101);
    assert_eq!(
        read_frame(&mut tls).await.expect("a frame").payload,
        b"early"
    );
    assert_eq!(
        read_frame(&mut server).await.expect("a frame").payload,
        b"eager"
    );
    drop((tls, server));
    proxy.stop().await;
}

#[tokio::test]
async fn the_routes_limits_hold_without_a_token_too() {
    let upstream = upstream().await;
    let proxy = open_to_all(upstream.address)
        .section("limits", "max_frame_size = \"1KiB\"")
        .start();
    let (mut client, server) = tokio::join!(proxy.entrance.open(), upstream.accept());
    client.send(Message::binary(vec![0; 1025])).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(server.closed().await.0, 1001);
    proxy.stop().await;
}
