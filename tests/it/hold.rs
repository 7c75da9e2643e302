//! Clients that stay while their upstream restarts.

use std::time::{Duration, Instant};

use tidegate::proto::cause::{Cause, Lost};
use tidegate::proto::side::Side;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::support::raw::{self, binary, masked, opening, plain, read_frame, read_head, write};
use crate::support::settings::{Settings, proxy};
use crate::support::upstream::{Server, switching, upstream};
use crate::support::{assert_took, token, within};

const FAST: &str = "backoff = { first = \"20ms\", max = \"200ms\" }";

fn holding(settings: Settings, keys: &str) -> Settings {
    settings.section("hold", &format!("{FAST}\n{keys}"))
}

/// The next upstream leg, whose first text is what waited.
async fn expects(server: &mut Server, text: &str) {
    assert_eq!(server.text().await, text);
}

#[tokio::test]
async fn a_client_outlives_an_upstream_that_breaks_off() {
    let upstream = upstream().await;
    let notices = "hold_notice = \"held\"\nresume_notice = \"resumed\"";
    let mut proxy = holding(proxy(upstream.address), notices).start();
    let mut client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;
    client.send("before").await;
    expects(&mut server, "before").await;
    server.send("hello").await;
    assert_eq!(client.text().await, "hello");
    // Without a Close.
    drop(server);
    assert_eq!(client.text().await, "held");
    client.send("meanwhile").await;
    let mut server = upstream.accept().await;
    assert_eq!(client.text().await, "resumed");
    expects(&mut server, "meanwhile").await;
    server.send("again").await;
    assert_eq!(client.text().await, "again");
    client.close(1000, "").await;
    assert_eq!(server.closed().await.0, 1000);
    client.closed().await;
    let record = proxy.record().await;
    assert_eq!(record.summary.holds.times, 1);
    assert_eq!(record.endpoint, Some(upstream.address.to_string()));
    assert_eq!(record.detail, None);
    proxy.counted("held", 1, |c| c.held.get()).await;
    proxy.counted("resumed", 1, |c| c.resumed.get()).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_close_with_1012_is_answered_and_kept_from_the_client() {
    let upstream = upstream().await;
    let proxy = holding(proxy(upstream.address), "").start();
    let mut client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;
    server.close(1012, "deploy").await;
    assert_eq!(server.closed().await.0, 1012);
    let mut server = upstream.accept().await;
    client.send("to the next").await;
    expects(&mut server, "to the next").await;
    // Any other is the client's.
    server.close(1011, "bug").await;
    assert_eq!(client.closed().await, (1011, "bug".to_owned()));
    proxy.stop().await;
}

#[tokio::test]
async fn another_endpoint_is_tried_first() {
    let (one, two) = (upstream().await, upstream().await);
    let settings = proxy(one.address).endpoints(&[one.address, two.address]);
    let mut proxy = holding(settings, "").start();
    let mut client = proxy.entrance.admitted().await;
    drop(one.accept().await);
    let server = two.accept().await;
    drop(server);
    let mut server = one.accept().await;
    client.send("hello").await;
    expects(&mut server, "hello").await;
    client.close(1000, "").await;
    drop(server);
    client.closed().await;
    let record = proxy.record().await;
    assert_eq!(record.endpoint, Some(one.address.to_string()));
    assert_eq!(record.summary.holds.times, 2);
    proxy.stop().await;
}

#[tokio::test]
async fn the_next_upstream_hears_what_the_last_one_did() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address)
        .auth_also("forward = true\nidentity = {}")
        .section("headers", "\"X-User\" = \"sub\"");
    let proxy = holding(settings, "replay_messages = 1").start();
    let mut client = proxy.entrance.admitted().await;
    let (mut server, first) = upstream.accept_with_request().await;
    client.send("join").await;
    client.send("chat").await;
    for text in [&token::message(&token::good()), "join", "chat"] {
        // The good token is made anew each time, in the same second or not.
        let heard = server.text().await;
        assert_eq!(heard.len(), text.len());
    }
    drop(server);
    let (mut server, second) = upstream.accept_with_request().await;
    assert!(server.text().await.contains("token"));
    expects(&mut server, "join").await;
    client.send("next").await;
    expects(&mut server, "next").await;
    let same = |name: &str| assert_eq!(first.headers()[name], second.headers()[name], "{name}");
    same("x-user");
    same("x-request-id");
    same("origin");
    let other = |name: &str| assert_ne!(first.headers()[name], second.headers()[name], "{name}");
    other("sec-websocket-key");
    other("x-tidegate-identity");
    drop(client);
    server.ended().await;
    proxy.stop().await;
}

#[tokio::test]
async fn half_a_message_ends_the_session_as_ever() {
    let upstream = upstream().await;
    let mut proxy = holding(proxy(upstream.address), "").start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let half = raw::fragment(Data::Text, "half", false);
    write(&mut server, &plain(half)).await;
    assert_eq!(
        read_frame(&mut client).await.expect("a part").payload,
        b"half"
    );
    drop(server);
    let closed = read_frame(&mut client).await.expect("a Close");
    assert_eq!(closed.close().0, 1014);
    drop(client);
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::Vanished(Side::Upstream));
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_hold_that_is_over_is_closed_with_1013() {
    let upstream = upstream().await;
    let mut proxy = holding(proxy(upstream.address), "max_hold = \"1s\"").start();
    let client = proxy.entrance.admitted().await;
    let server = upstream.accept().await;
    let began = Instant::now();
    drop(upstream);
    drop(server);
    assert_eq!(
        client.closed().await,
        (1013, "upstream unavailable".to_owned())
    );
    assert_took(began, Duration::from_secs(1), Duration::from_secs(20));
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::HoldOver(Lost::Vanished));
    assert!(record.detail.is_some(), "why the last dial failed");
    proxy
        .counted("failed", 1, |c| c.sessions_failed.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_held_client_that_leaves_is_noticed_at_once_and_so_is_a_drain() {
    let upstream = upstream().await;
    let mut proxy = holding(proxy(upstream.address), "max_hold = \"10m\"").start();
    let mut client = proxy.entrance.admitted().await;
    let server = upstream.accept().await;
    let other = proxy.entrance.admitted().await;
    let second = upstream.accept().await;
    drop((upstream, server, second));
    proxy.counted("held", 2, |c| c.held.get()).await;
    client.send(Message::Ping("are you there".into())).await;
    assert_eq!(client.next().await, Message::Pong("are you there".into()));
    client.close(1000, "bye").await;
    assert_eq!(client.closed().await.0, 1000);
    let cause = proxy.record().await.summary.cause;
    assert!(matches!(
        cause,
        Cause::Closed {
            by: Side::Downstream,
            ..
        }
    ));
    proxy.drain();
    assert_eq!(other.closed().await.0, 1012);
    assert_eq!(proxy.record().await.summary.cause, Cause::Drained);
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_held_client_says_is_bounded() {
    let upstream = upstream().await;
    let keys = "hold_buffer = \"4KiB\"\nmax_hold = \"1s\"";
    let mut proxy = holding(proxy(upstream.address), keys).start();
    let mut client = proxy.entrance.raw_admitted().await;
    let server = upstream.accept_raw().await;
    drop((upstream, server));
    proxy.counted("held", 1, |c| c.held.get()).await;
    // The kernel takes what the edge does not.
    let message = masked(binary(vec![7; 1000]));
    for _ in 0..50 {
        write(&mut client, &message).await;
    }
    let closed = read_frame(&mut client).await.expect("a Close");
    assert_eq!(closed.close().0, 1013);
    drop(client);
    let summary = proxy.record().await.summary;
    assert_eq!(summary.peaks.downstream, 4 << 10);
    assert_eq!(summary.tallies.downstream.messages, 4);
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_that_decides_keeps_its_subprotocol() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address)
        .without_token()
        .route_also("subprotocols = [\"chat.v1\", \"chat.v2\"]");
    let mut proxy = holding(settings, "max_hold = \"1s\"").start();
    let request = proxy.entrance.request("/chat");
    let request = request
        .with_sub_protocol("chat.v1")
        .with_sub_protocol("chat.v2");
    let asked = proxy.entrance.ask(request);
    let serve = async {
        let (mut tcp, head) = upstream.asked().await;
        assert_eq!(
            head.field("sec-websocket-protocol"),
            Some("chat.v1, chat.v2")
        );
        let chosen = switching(&head, "Sec-WebSocket-Protocol: chat.v2\r\n");
        write(&mut tcp, chosen.as_bytes()).await;
        tcp
    };
    let (asked, tcp) = tokio::join!(asked, serve);
    let (client, _) = asked.expect("a 101");
    drop(tcp);
    // One that does not agree any more is no upstream for this client.
    let (mut tcp, head) = upstream.asked().await;
    assert_eq!(head.field("sec-websocket-protocol"), Some("chat.v2"));
    write(&mut tcp, switching(&head, "").as_bytes()).await;
    let (mut tcp, head) = upstream.asked().await;
    write(
        &mut tcp,
        switching(&head, "Sec-WebSocket-Protocol: chat.v2\r\n").as_bytes(),
    )
    .await;
    write(&mut tcp, &plain(raw::close(4000, "done"))).await;
    assert_eq!(client.closed().await.0, 4000);
    let detail = proxy.record().await.detail;
    assert_eq!(detail, None);
    proxy.stop().await;
}

/// Sessions of the test of the storm.
const SESSIONS: usize = 2_000;

#[tokio::test]
async fn thousands_of_held_sessions_come_back_in_turn_over_all_workers() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address)
        .workers(2)
        .process_limits("max_connections_per_ip = 10000")
        .without_token()
        .section("keepalive", "ping_interval = \"off\"")
        // However slow this machine is with its part: nobody gives up.
        .upstream(
            "dials = { rate = \"500/s\", burst = 100 }\n\
             dial_timeout = \"60s\"\nhandshake_timeout = \"60s\"",
        )
        .more("[[listener]]\nbind = \"127.0.0.1:0\"\nplaintext = true\n");
    let mut program = holding(settings, "max_hold = \"2m\"").spawn_quiet().await;
    let address = program.listener(1).await;
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..SESSIONS {
        let tcp = within("a connection", TcpStream::connect(address)).await;
        let mut tcp = tcp.expect("it listens");
        write(&mut tcp, opening("/chat").text().as_bytes()).await;
        servers.push(upstream.accept_raw().await);
        assert_eq!(read_head(&mut tcp).await.status(), 101);
        clients.push(tcp);
    }
    // The upstream restarts.
    let began = Instant::now();
    servers.clear();
    let back = plain(raw::text("back"));
    for _ in 0..SESSIONS {
        let mut server = upstream.accept_raw().await;
        write(&mut server, &back).await;
        servers.push(server);
    }
    // At the soonest; how much later is the machine's affair.
    let pace = Duration::from_millis(2) * u32::try_from(SESSIONS - 100).expect("few");
    assert_took(began, pace * 99 / 100, 30 * Duration::from_secs(1));
    for client in &mut clients {
        assert_eq!(read_frame(client).await.expect("a text").payload, b"back");
    }
    drop(clients);
    drop(servers);
    program.signal("INT");
    assert_eq!(program.exited().await.code(), Some(0));
    let counts = program.said("counts since the start").await;
    assert_eq!(counts["held"], SESSIONS);
    assert_eq!(counts["resumed"], SESSIONS);
}
