//! Who comes in, how many at once and how fast: each cap, rate and list with the one that goes
//! over it, and what a client hears of it where it can be told.

mod addresses;

use std::net::SocketAddr;

use serde_json::json;
use tidegate::proto::cause::Cause;
use tidegate::server::Outcome;
use tidegate::telemetry::Counters;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Error;

use crate::support::client::{Client, Entrance};
use crate::support::proxy::Proxy;
use crate::support::raw::{Head, opening, raw_open_on, read_head, read_to_end, write};
use crate::support::service::service;
use crate::support::settings::proxy;
use crate::support::token::{SECRET, good_claims, message, signed};
use crate::support::upstream::{echo, switching, upstream};
use crate::support::within;

/// A quota that gives nothing back while a test lasts.
const ONCE: &str = "rate = \"1/h\"";

/// A second listener, in clear.
const IN_CLEAR: &str = "[[listener]]\nbind = \"127.0.0.1:0\"\nplaintext = true\n";

/// A connection to `address` from another address of the loopback.
pub async fn tcp_from(from: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = format!("{from}:0").parse().expect("an address");
    socket.bind(from).expect("all of 127/8 is the loopback");
    let connected = within("a connection", socket.connect(address)).await;
    connected.expect("the proxy listens")
}

async fn tcp(address: SocketAddr) -> TcpStream {
    tcp_from("127.0.0.1", address).await
}

/// Asserts that a connection is closed without a word.
async fn assert_closed(mut tcp: TcpStream) {
    assert_eq!(read_to_end(&mut tcp).await, b"");
}

/// What an opening handshake with these fields hears.
pub async fn asks(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    fields: &[(&str, &str)],
) -> Head {
    let opening = fields
        .iter()
        .fold(opening("/chat"), |opening, (name, value)| {
            opening.with(name, value)
        });
    write(stream, opening.text().as_bytes()).await;
    read_head(stream).await
}

/// Asserts that a client is told to come back, and when.
fn assert_told_to_retry(head: &Head, status: u16) {
    assert_eq!(head.status(), status, "{head:?}");
    let seconds = head.field("retry-after").expect("Retry-After");
    let seconds: u32 = seconds.parse().expect("a number");
    assert!((5..=15).contains(&seconds), "{seconds}");
}

/// A WebSocket at `/chat` with the token of `subject` in the first message.
async fn admitted_as(entrance: &Entrance, subject: &str) -> Client {
    let mut client = entrance.open().await;
    client.send(message(&token_of(subject))).await;
    client
}

fn token_of(subject: &str) -> String {
    let mut claims = good_claims();
    claims["sub"] = json!(subject);
    signed(&claims, SECRET)
}

#[tokio::test]
async fn strangers_over_their_cap_are_refused_while_users_stay() {
    let upstream = echo().await;
    let limits = "max_connections = 50\nmax_unauthenticated = 1";
    let mut proxy = proxy(upstream.address).process_limits(limits).start();
    let mut users = Vec::new();
    for _ in 0..3 {
        let mut user = proxy.entrance.admitted().await;
        user.echoes("here").await;
        users.push(user);
    }
    // One that says nothing, and one that was answered and has shown no token.
    let silent = proxy.entrance.tcp().await;
    let over = |n| proxy.counted("strangers refused", n, |c| c.over_unauthenticated_cap.get());
    assert_closed(proxy.entrance.tcp().await).await;
    over(1).await;
    drop(silent);
    let stranger = waits_for_a_place(&proxy).await;
    for user in &mut users {
        user.echoes("still here").await;
    }
    drop(stranger);
    let cause = proxy.record().await.summary.cause;
    assert!(matches!(cause, Cause::Vanished(_)), "{cause:?}");
    drop(users);
    proxy.stop().await;
}

#[tokio::test]
async fn strangers_of_one_address_leave_room_for_those_of_others() {
    let upstream = echo().await;
    // A tenth of it, but ten, may come from one address.
    let proxy = proxy(upstream.address)
        .process_limits("max_unauthenticated = 20")
        .start();
    let mut user = proxy.entrance.admitted().await;
    user.echoes("here").await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(tcp(proxy.entrance.address).await);
    }
    assert_closed(tcp(proxy.entrance.address).await).await;
    let over = |c: &Counters| c.over_address_unauthenticated_cap.get();
    proxy.counted("refused", 1, over).await;
    let other = tcp_from("127.0.0.2", proxy.entrance.address).await;
    let tls = proxy.entrance.tls_over(other).await.expect("TLS");
    let mut other = proxy.entrance.admitted_over(tls).await;
    other.echoes("another address").await;
    user.echoes("still here").await;
    silent.pop();
    let mut again = within("a place", async {
        loop {
            let tcp = tcp(proxy.entrance.address).await;
            if let Ok(tls) = proxy.entrance.tls_over(tcp).await {
                return proxy.entrance.admitted_over(tls).await;
            }
        }
    })
    .await;
    again.echoes("a place").await;
    drop((silent, user, other, again));
    proxy.stop().await;
}

/// A WebSocket without token, as soon as there is a place for a stranger.
async fn waits_for_a_place(proxy: &Proxy) -> impl Sized {
    within("a place", async {
        loop {
            let tcp = proxy.entrance.tcp().await;
            if let Ok(mut tls) = proxy.entrance.tls_over(tcp).await {
                raw_open_on(&mut tls).await;
                return tls;
            }
        }
    })
    .await
}

#[tokio::test]
async fn one_handshake_over_the_rate_is_refused() {
    let upstream = echo().await;
    let limits = format!("handshakes = {{ {ONCE}, burst = 2 }}");
    let proxy = proxy(upstream.address)
        .workers(2)
        .process_limits(&limits)
        .start();
    for _ in 0..2 {
        proxy.entrance.admitted().await.echoes("in time").await;
    }
    assert_closed(tcp(proxy.entrance.address).await).await;
    assert_closed(tcp_from("127.0.0.2", proxy.entrance.address).await).await;
    proxy.counted("refused", 2, |c| c.over_rate.get()).await;
    proxy.stop().await;
}

#[tokio::test]
async fn one_handshake_over_the_rate_of_its_address_is_refused_and_others_are_not() {
    let upstream = echo().await;
    let limits = format!("handshakes_per_ip = {{ {ONCE}, burst = 2 }}");
    let proxy = proxy(upstream.address).process_limits(&limits).start();
    for _ in 0..2 {
        proxy.entrance.admitted().await.echoes("in time").await;
    }
    assert_closed(tcp(proxy.entrance.address).await).await;
    proxy
        .counted("refused", 1, |c| c.over_address_rate.get())
        .await;
    let other = tcp_from("127.0.0.2", proxy.entrance.address).await;
    let tls = proxy.entrance.tls_over(other).await;
    let mut other = proxy.entrance.admitted_over(tls.expect("TLS")).await;
    other.echoes("another address").await;
    drop(other);
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_in_clear_hears_when_to_come_back() {
    let upstream = echo().await;
    let cases = [
        ("max_connections = 1".to_owned(), 503),
        ("max_unauthenticated = 1".to_owned(), 503),
        (format!("handshakes = {{ {ONCE}, burst = 1 }}"), 503),
        ("max_connections_per_ip = 1".to_owned(), 429),
        ("max_unauthenticated_per_ip = 1".to_owned(), 429),
        (format!("handshakes_per_ip = {{ {ONCE}, burst = 1 }}"), 429),
    ];
    for (limits, status) in cases {
        let proxy = proxy(upstream.address)
            .process_limits(&limits)
            .more(IN_CLEAR)
            .start();
        let address = proxy.addresses[1];
        let mut first = tcp(address).await;
        raw_open_on(&mut first).await;
        let mut second = tcp(address).await;
        let head = asks(&mut second, &[]).await;
        assert_told_to_retry(&head, status);
        assert_eq!(head.field("connection"), Some("close"));
        let body = read_to_end(&mut second).await;
        let length = head.field("content-length").expect("a length");
        assert_eq!(length, body.len().to_string(), "{limits}");
        drop((first, second));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_crowd_of_refused_connections_is_told_or_closed() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address)
        .process_limits("max_connections = 1")
        .more(IN_CLEAR)
        .start();
    let address = proxy.addresses[1];
    let mut first = tcp(address).await;
    raw_open_on(&mut first).await;
    let mut refused = Vec::new();
    for _ in 0..80 {
        refused.push(tcp(address).await);
    }
    proxy
        .counted("refused", 80, |c| c.over_process_cap.get())
        .await;
    let mut told = 0;
    for mut tcp in refused {
        let heard = read_to_end(&mut tcp).await;
        told += usize::from(heard.starts_with(b"HTTP/1.1 503 "));
        assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 503 "));
    }
    // All at once not more than 64; those whose telling was over made room for others.
    assert!(told >= 64, "{told}");
    drop(first);
    proxy.stop().await;
}

#[tokio::test]
async fn who_is_denied_is_closed_without_a_word() {
    let upstream = echo().await;
    let limits = "allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.2\", \"127.0.1.0/24\"]";
    let proxy = proxy(upstream.address)
        .process_limits(limits)
        .more(IN_CLEAR)
        .start();
    for address in &proxy.addresses {
        for denied in ["127.0.0.2", "127.0.1.9"] {
            assert_closed(tcp_from(denied, *address).await).await;
        }
    }
    proxy.counted("denied", 4, |c| c.denied.get()).await;
    proxy.entrance.admitted().await.echoes("allowed").await;
    proxy.stop().await;
}

#[tokio::test]
async fn who_is_denied_or_not_trusted_hears_nothing_of_a_full_process_either() {
    let upstream = echo().await;
    let behind = "proxy_protocol = \"require\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let proxy = proxy(upstream.address)
        .process_limits("max_connections = 1\ndeny = [\"127.0.0.2\"]")
        .more(&format!("{IN_CLEAR}{IN_CLEAR}{behind}"))
        .start();
    let mut first = tcp(proxy.addresses[1]).await;
    raw_open_on(&mut first).await;
    assert_closed(tcp_from("127.0.0.2", proxy.addresses[1]).await).await;
    assert_closed(tcp_from("127.0.0.3", proxy.addresses[2]).await).await;
    proxy.counted("denied", 1, |c| c.denied.get()).await;
    proxy
        .counted("not trusted", 1, |c| c.no_proxy_header.get())
        .await;
    proxy
        .counted("over the cap", 0, |c| c.over_process_cap.get())
        .await;
    let mut other = tcp_from("127.0.0.4", proxy.addresses[1]).await;
    assert_told_to_retry(&asks(&mut other, &[]).await, 503);
    drop(first);
    proxy.stop().await;
}

#[tokio::test]
async fn who_is_not_allowed_is_closed_without_a_word() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .process_limits("allow = [\"127.0.0.2\", \"::1\"]")
        .start();
    assert_closed(tcp(proxy.entrance.address).await).await;
    proxy.counted("denied", 1, |c| c.denied.get()).await;
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_route_has_lists_of_its_own() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .section("limits", "deny = [\"127.0.0.2\"]")
        .start();
    let tcp = tcp_from("127.0.0.2", proxy.entrance.address).await;
    let mut tls = proxy.entrance.tls_over(tcp).await.expect("TLS");
    let head = asks(&mut tls, &[]).await;
    assert_eq!((head.status(), head.field("retry-after")), (403, None));
    drop(tls);
    drop(proxy.entrance.open().await);
    proxy.counted("denied", 1, |c| c.denied.get()).await;
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn one_session_more_than_a_route_may_have_is_closed_with_1013() {
    let upstream = echo().await;
    let mut proxy = proxy(upstream.address)
        .workers(2)
        .section("limits", "max_sessions = 1")
        .start();
    let mut first = proxy.entrance.admitted().await;
    first.echoes("one").await;
    let second = admitted_as(&proxy.entrance, "bob").await;
    assert_eq!(second.closed().await.0, 1013);
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::RouteFull);
    assert_eq!(record.endpoint, None, "the upstream heard of it");
    proxy
        .counted("refused", 1, |c| c.over_route_cap.get())
        .await;
    first.echoes("still here").await;
    first.close(1000, "").await;
    first.closed().await;
    proxy.record().await;
    // The place is given back a moment after the record.
    let again = within("a place", async {
        loop {
            let mut client = proxy.entrance.admitted().await;
            client.send("again").await;
            if client.try_next().await.is_ok_and(|heard| heard.is_text()) {
                return client;
            }
        }
    });
    drop(again.await);
    proxy.stop().await;
}

#[tokio::test]
async fn a_subject_has_a_cap_of_its_own() {
    let upstream = echo().await;
    let mut proxy = proxy(upstream.address)
        .workers(2)
        .section("limits", "max_sessions_per_subject = 2")
        .start();
    let mut held = Vec::new();
    for subject in ["alice", "alice", "bob"] {
        let mut client = admitted_as(&proxy.entrance, subject).await;
        client.echoes(subject).await;
        held.push(client);
    }
    let third = admitted_as(&proxy.entrance, "alice").await;
    assert_eq!(third.closed().await.0, 1013);
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::SubjectFull);
    assert_eq!(record.subject.as_deref(), Some("alice"));
    proxy
        .counted("refused", 1, |c| c.over_subject_cap.get())
        .await;
    drop(held);
    proxy.stop().await;
}

#[tokio::test]
async fn before_the_101_full_routes_and_subjects_are_said_in_http() {
    let upstream = echo().await;
    let limits = "max_sessions = 2\nmax_sessions_per_subject = 1";
    let proxy = proxy(upstream.address)
        .auth("method = \"header\"")
        .section("limits", limits)
        .start();
    let ask = |subject: &'static str| {
        let credentials = format!("Bearer {}", token_of(subject));
        let request = proxy.entrance.request("/chat");
        proxy
            .entrance
            .ask(request.with_header("Authorization", credentials))
    };
    let (mut alice, _) = ask("alice").await.expect("a 101");
    assert_refused_with_retry(ask("alice").await, 429);
    let (bob, _) = ask("bob").await.expect("a 101");
    assert_refused_with_retry(ask("carol").await, 503);
    alice.echoes("still here").await;
    drop((alice, bob));
    proxy.stop().await;
}

fn assert_refused_with_retry(asked: Result<impl Sized, Error>, status: u16) {
    let Err(Error::Http(response)) = asked else {
        panic!("it was not refused");
    };
    assert_eq!(response.status().as_u16(), status);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn those_who_are_refused_do_not_hold_a_place_of_the_route() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address)
        .section("limits", "max_sessions = 1")
        .start();
    for _ in 0..3 {
        let mut client = proxy.entrance.open().await;
        client.send(message("no token")).await;
        assert_eq!(client.closed().await.0, 3000);
    }
    proxy.entrance.admitted().await.echoes("a place").await;
    proxy.stop().await;
}

#[tokio::test]
async fn other_caps_and_lists_count_for_the_next_and_leave_those_who_are_here() {
    let upstream = echo().await;
    let edge = |process: &str, route: &str| {
        proxy(upstream.address)
            .process_limits(process)
            .section("limits", route)
    };
    let mut proxy = edge("", "max_sessions = 3").start();
    let from_other = tcp_from("127.0.0.2", proxy.entrance.address).await;
    let tls = proxy.entrance.tls_over(from_other).await.expect("TLS");
    let mut other = proxy.entrance.admitted_over(tls).await;
    other.echoes("before").await;
    let mut here = proxy.entrance.admitted().await;
    here.echoes("before").await;
    let denying = edge("deny = [\"127.0.0.2\"]", "max_sessions = 2");
    let outcome = proxy.reload(&denying, None).await;
    assert!(matches!(outcome, Outcome::Reloaded(_)), "{outcome:?}");
    assert_closed(tcp_from("127.0.0.2", proxy.entrance.address).await).await;
    // Those from before are counted under the new cap.
    let third = proxy.entrance.admitted().await;
    assert_eq!(third.closed().await.0, 1013);
    assert_eq!(proxy.record().await.summary.cause, Cause::RouteFull);
    other.echoes("still here").await;
    here.echoes("still here").await;
    let wider = edge("max_connections_per_ip = 2", "max_sessions = \"off\"");
    let outcome = proxy.reload(&wider, None).await;
    assert!(matches!(outcome, Outcome::Reloaded(_)), "{outcome:?}");
    let mut second = proxy.entrance.admitted().await;
    second.echoes("a place").await;
    assert_closed(tcp(proxy.entrance.address).await).await;
    drop((other, here, second));
    proxy.stop().await;
}

#[tokio::test]
async fn whom_the_service_refuses_holds_no_place_while_it_lingers() {
    let (upstream, service) = (echo().await, service().await);
    let keys = format!("url = \"{}\"\ntimeout = \"30s\"", service.url);
    let proxy = proxy(upstream.address)
        .section("auth.authorize", &keys)
        .section("limits", "max_sessions = 1")
        .start();
    let deciding = proxy.entrance.admitted().await;
    let asked = service.asked().await;
    // It says nothing to its Close, so its session waits for that.
    let forbidden = proxy.entrance.admitted().await;
    service.asked().await.status(403, "").await;
    let mut third = proxy.entrance.admitted().await;
    service.asked().await.status(204, "").await;
    third.echoes("a place").await;
    // And that is taken now.
    asked.status(204, "").await;
    assert_eq!(deciding.closed().await.0, 1013);
    drop((forbidden, third));
    proxy.stop().await;
}

#[tokio::test]
async fn before_the_101_neither_a_refusal_nor_a_failed_dial_holds_a_place() {
    let (upstream, service) = (upstream().await, service().await);
    let keys = format!("url = \"{}\"\ntimeout = \"30s\"", service.url);
    let proxy = proxy(upstream.address)
        .auth("method = \"header\"")
        .section("auth.authorize", &keys)
        .section("limits", "max_sessions = 1")
        .start();
    let credentials = format!("Bearer {}", token_of("alice"));
    let fields = [("Authorization", credentials.as_str())];
    let mut lingering = Vec::new();
    for (decision, answer, status) in [
        (403, "", 403),
        (204, "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 410),
        (204, "", 101),
    ] {
        let mut tls = proxy.entrance.tls().await;
        let others = async {
            service.asked().await.status(decision, "").await;
            if decision != 204 {
                return None;
            }
            let (mut tcp, head) = upstream.asked().await;
            let answer = match answer {
                "" => switching(&head, ""),
                answer => answer.to_owned(),
            };
            write(&mut tcp, answer.as_bytes()).await;
            Some(tcp)
        };
        let (head, tcp) = tokio::join!(asks(&mut tls, &fields), others);
        assert_eq!(head.status(), status, "{head:?}");
        lingering.push((tls, tcp));
    }
    drop(lingering);
    proxy.stop().await;
}
