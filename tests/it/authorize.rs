//! The external decision: what the service is asked, that only a yes is one, and that it is
//! asked in both orders before the upstream hears of the client.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::proto::cause::Cause;
use tidegate::proto::side::Side;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error};

use crate::support::assert_took;
use crate::support::client::Entrance;
use crate::support::folder::Folder;
use crate::support::key_server::{Behaviour, KeyServer};
use crate::support::service::{Service, service};
use crate::support::settings::{ORIGIN, Settings, proxy};
use crate::support::token::{SECRET, good, good_claims, message, signed};
use crate::support::upstream::{Upstream, echo, upstream};

/// A proxy that asks `service` about whoever has a good token in the first message.
fn asking(upstream: &Upstream, service: &Service, keys: &str) -> Settings {
    let keys = format!("url = \"{}\"\ntimeout = \"30s\"\n{keys}", service.url);
    proxy(upstream.address).section("auth.authorize", &keys)
}

/// The same with the token in the request head.
fn asking_first(upstream: &Upstream, service: &Service, keys: &str) -> Settings {
    asking(upstream, service, keys).auth("method = \"header\"")
}

fn with_token(entrance: &Entrance) -> ClientRequestBuilder {
    with(entrance, &good())
}

fn with(entrance: &Entrance, token: &str) -> ClientRequestBuilder {
    let credentials = format!("Bearer {token}");
    let request = entrance.request("/chat?room=1");
    request.with_header("Authorization", credentials)
}

/// The status with which an opening handshake was refused.
fn status(asked: Result<impl Sized, Error>) -> u16 {
    match asked {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[tokio::test]
async fn the_service_is_asked_with_all_that_is_known() {
    let (upstream, service) = (upstream().await, service().await);
    let folder = Folder::new();
    let token = folder.write("policy.token", "edge-1\n");
    let keys =
        format!("token = {{ file = {token:?} }}\nrequest_headers = [\"user-agent\", \"X-Device\"]");
    let proxy = asking(&upstream, &service, &keys).start();
    let request = proxy.entrance.request("/chat?room=1");
    let request = request
        .with_header("User-Agent", "test/1")
        .with_header("X-Other", "hidden");
    let (mut client, _) = proxy.entrance.ask(request).await.expect("a 101");
    client.send(message(&good())).await;
    let asked = service.asked().await;
    assert_eq!(asked.head.first_line, "POST /admit HTTP/1.1");
    assert_eq!(asked.head.field("authorization"), Some("Bearer edge-1"));
    assert_eq!(asked.head.field("content-type"), Some("application/json"));
    let mut body = asked.body.clone();
    let id = body["request_id"].take();
    assert_eq!(id.as_str().map(str::len), Some(32));
    let host = format!("localhost:{}", proxy.entrance.address.port());
    let mut claims = good_claims();
    claims["exp"] = body["claims"]["exp"].clone();
    assert_eq!(
        body,
        json!({
            "request_id": null, "route": "chat", "client_ip": "127.0.0.1", "host": host,
            "path": "/chat", "query": "room=1", "origin": ORIGIN, "claims": claims,
            "headers": {"user-agent": ["test/1"]},
        })
    );
    asked.status(204, "").await;
    let (_server, request) = upstream.accept_with_request().await;
    let told = request.headers().get("x-request-id");
    assert_eq!(told.and_then(|id| id.to_str().ok()), id.as_str());
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn what_the_service_adds_reaches_the_upstream_and_no_client_can_say_it() {
    for first in [false, true] {
        let (upstream, service) = (upstream().await, service().await);
        let keys = "response_headers = [\"X-Tenant\", \"X-Plan\"]";
        let proxy = match first {
            true => asking_first(&upstream, &service, keys).start(),
            false => asking(&upstream, &service, keys).start(),
        };
        let request = with_token(&proxy.entrance)
            .with_header("X-Tenant", "forged")
            .with_header("x_tenant", "forged")
            .with_header("X-Plan", "forged");
        let client = async {
            let (mut client, _) = proxy.entrance.ask(request).await.expect("a 101");
            if !first {
                client.send(message(&good())).await;
            }
            client
        };
        let serve = async {
            let fields = "X-Tenant: acme\r\nX-Other: 1\r\nHost: evil.example\r\n\
                          X-Forwarded-For: 192.0.2.1\r\nX-Tidegate-Identity: forged\r\n";
            service.asked().await.status(200, fields).await;
            upstream.accept_with_request().await
        };
        let (client, (server, request)) = tokio::join!(client, serve);
        let all = |name: &str| -> Vec<_> {
            let values = request.headers().get_all(name).into_iter();
            values
                .map(|v| v.to_str().expect("text").to_owned())
                .collect()
        };
        assert_eq!(all("x-tenant"), ["acme"], "in the head: {first}");
        assert_eq!(all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(all("host"), [upstream.address.to_string()]);
        for absent in ["x-plan", "x_tenant", "x-other", "x-tidegate-identity"] {
            assert_eq!(all(absent), [""; 0], "{absent}");
        }
        drop((client, server));
        proxy.stop().await;
    }
}

/// Answers that are no yes, and what the client hears: a close code, or a status.
const REFUSALS: [(&str, u16, u16); 15] = [
    ("HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n", 3003, 403),
    ("HTTP/1.1 401 X\r\nContent-Length: 2\r\n\r\nno", 3003, 403),
    ("HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", 3003, 403),
    ("HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n", 1013, 503),
    ("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 1013, 503),
    (
        "HTTP/1.1 302 X\r\nLocation: /yes\r\nContent-Length: 0\r\n\r\n",
        1013,
        503,
    ),
    (
        "HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        1013,
        503,
    ),
    ("HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nhal", 1013, 503),
    ("HTTP/1.1 200 X\r\nContent-Length: 65537\r\n\r\n", 1013, 503),
    (
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        1013,
        503,
    ),
    (
        "HTTP/1.1 200 X\r\nX-Tenant: a\r\nX-Tenant: b\r\nContent-Length: 0\r\n\r\n",
        1013,
        503,
    ),
    (
        "HTTP/1.1 200 X\r\nX-Tenant: \u{e4}\r\nContent-Length: 0\r\n\r\n",
        1013,
        503,
    ),
    ("HTTP/1.1 200", 1013, 503),
    ("yes", 1013, 503),
    ("", 1013, 503),
];

#[tokio::test]
async fn whatever_is_not_plainly_a_yes_keeps_the_client_out_after_its_first_message() {
    let (upstream, service) = (upstream().await, service().await);
    let keys = "response_headers = [\"X-Tenant\"]";
    let mut proxy = asking(&upstream, &service, keys).start();
    for (answer, code, _) in REFUSALS {
        let mut client = proxy.entrance.admitted().await;
        // What follows waits; nobody gets it.
        client.send("hello").await;
        service.asked().await.answer(answer).await;
        let (heard, reason) = client.closed().await;
        assert_eq!(heard, code, "{answer:?}");
        assert!(["forbidden", "temporarily unavailable"].contains(&&*reason));
        let record = proxy.record().await;
        let expected = match code {
            3003 => Cause::AdmissionForbidden,
            _ => Cause::AdmissionUnavailable,
        };
        assert_eq!(record.summary.cause, expected, "{answer:?}");
        assert_eq!(record.subject.as_deref(), Some("alice"));
        assert!(record.detail.is_some(), "the log knows more");
    }
    proxy.stop().await;
    service.assert_unasked();
    upstream.assert_untouched();
}

#[tokio::test]
async fn whatever_is_not_plainly_a_yes_keeps_the_client_out_before_the_101() {
    let (upstream, service) = (upstream().await, service().await);
    let keys = "response_headers = [\"X-Tenant\"]";
    let proxy = asking_first(&upstream, &service, keys).start();
    for (answer, _, expected) in REFUSALS {
        let ask = proxy.entrance.ask(with_token(&proxy.entrance));
        let serve = async { service.asked().await.answer(answer).await };
        let (asked, ()) = tokio::join!(ask, serve);
        assert_eq!(status(asked), expected, "{answer:?}");
    }
    proxy.stop().await;
    service.assert_unasked();
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_bad_token_is_nobody_the_service_is_asked_about() {
    let (upstream, service) = (upstream().await, service().await);
    let proxy = asking(&upstream, &service, "").start();
    let mut client = proxy.entrance.open().await;
    client.send(message("bad")).await;
    assert_eq!(client.closed().await.0, 3000);
    proxy.stop().await;
    service.assert_unasked();
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_silent_service_costs_its_timeout_and_admits_nobody() {
    let (upstream, service) = (upstream().await, service().await);
    let keys = format!("url = \"{}\"\ntimeout = \"200ms\"", service.url);
    let proxy = proxy(upstream.address)
        .section("auth.authorize", &keys)
        .start();
    let client = proxy.entrance.admitted().await;
    let began = Instant::now();
    let asked = service.asked().await;
    assert_eq!(client.closed().await.0, 1013);
    assert_took(began, Duration::from_millis(100), Duration::from_secs(10));
    // The edge let go of the connection, too.
    asked.given_up().await;
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_service_that_is_not_there_admits_nobody() {
    let upstream = upstream().await;
    let dead = service().await.url;
    let mut proxy = proxy(upstream.address)
        .section("auth.authorize", &format!("url = \"{dead}\""))
        .start();
    let client = proxy.entrance.admitted().await;
    assert_eq!(client.closed().await.0, 1013);
    let detail = proxy.record().await.detail.expect("a reason");
    assert!(
        detail.contains("no connection to http://127.0.0.1"),
        "{detail}"
    );
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_route_without_tokens_may_leave_it_all_to_the_service() {
    let (upstream, service) = (upstream().await, service().await);
    let keys = "request_headers = [\"Cookie\"]";
    let proxy = asking(&upstream, &service, keys).without_token().start();
    let request = proxy.entrance.request("/chat");
    let request = request.with_header("Cookie", "session=1");
    let serve = async {
        let asked = service.asked().await;
        assert_eq!(asked.body["claims"], Value::Null);
        assert_eq!(asked.body["headers"], json!({"cookie": ["session=1"]}));
        asked.status(200, "").await;
        upstream.accept().await
    };
    let (asked, server) = tokio::join!(proxy.entrance.ask(request), serve);
    drop((asked.expect("a 101"), server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_kept_decision_serves_the_same_question_and_no_other() {
    let (echo, service) = (echo().await, service().await);
    let keys = format!(
        "url = \"{}\"\ntimeout = \"30s\"\ncache = \"10m\"\nrequest_headers = [\"X-Device\"]",
        service.url
    );
    let proxy = proxy(echo.address)
        .workers(2)
        .section("auth.authorize", &keys)
        .start();
    let open = async |sub: &str, device: &str| {
        let request = proxy
            .entrance
            .request("/chat")
            .with_header("X-Device", device);
        let (mut client, _) = proxy.entrance.ask(request).await.expect("a 101");
        let mut claims = good_claims();
        claims["sub"] = sub.into();
        claims["exp"] = 9_999_999_999_u64.into();
        client.send(message(&signed(&claims, SECRET))).await;
        client
    };
    let mut alice = open("alice", "1").await;
    service.asked().await.status(200, "").await;
    alice.echoes("asked about").await;
    for _ in 0..4 {
        open("alice", "1").await.echoes("known").await;
    }
    // Another client, another device: each is a question of its own.
    let bob = open("bob", "1").await;
    let asked = service.asked().await;
    assert_eq!(asked.body["claims"]["sub"], "bob");
    asked.status(403, "").await;
    assert_eq!(bob.closed().await.0, 3003);
    assert_eq!(open("bob", "1").await.closed().await.0, 3003, "kept, too");
    let device = open("alice", "2").await;
    // What is no decision is not kept.
    service.asked().await.status(500, "").await;
    assert_eq!(device.closed().await.0, 1013);
    let mut device = open("alice", "2").await;
    service.asked().await.status(200, "").await;
    device.echoes("now").await;
    drop((alice, device));
    proxy.stop().await;
    service.assert_unasked();
}

#[tokio::test]
async fn a_client_that_goes_away_meanwhile_leaves_nothing_behind() {
    let (upstream, service) = (upstream().await, service().await);
    let proxy = asking_first(&upstream, &service, "").start();
    let request = with_token(&proxy.entrance);
    let mut ask = Box::pin(proxy.entrance.ask(request));
    let asked = tokio::select! {
        _ = &mut ask => panic!("it was answered"),
        asked = service.asked() => asked,
    };
    drop(ask);
    // The question is taken back as well.
    asked.given_up().await;
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_client_that_goes_away_after_its_first_message_ends_in_a_record() {
    let (upstream, service) = (upstream().await, service().await);
    let mut proxy = asking(&upstream, &service, "").start();
    let client = proxy.entrance.admitted().await;
    let asked = service.asked().await;
    drop(client);
    asked.status(204, "").await;
    let server = upstream.accept().await;
    assert_eq!(server.closed().await.0, 1001);
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::Vanished(Side::Downstream));
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_client_sends_meanwhile_arrives_afterwards_and_in_order() {
    let (echo, service) = (echo().await, service().await);
    let keys = format!("url = \"{}\"\ntimeout = \"30s\"", service.url);
    let proxy = proxy(echo.address)
        .section("auth.authorize", &keys)
        .section("limits", "messages = \"off\"")
        .start();
    let mut client = proxy.entrance.admitted().await;
    for n in 0..50 {
        client.send(n.to_string()).await;
    }
    service.asked().await.status(200, "").await;
    for n in 0..50 {
        assert_eq!(client.text().await, n.to_string());
    }
    drop(client);
    proxy.stop().await;
}

/// Refusals before the 101 are in the log at `debug` only, so the operator would not see why.
#[tokio::test]
async fn the_operator_hears_of_a_service_that_fails_and_no_secret() {
    let (upstream, service) = (upstream().await, service().await);
    let url = format!("{}?key=hunter2", service.url);
    let keys = format!("url = \"{url}\"\ntimeout = \"30s\"\ncache = \"1s\"");
    let program = proxy(upstream.address)
        .auth("method = \"header\"")
        .section("auth.authorize", &keys)
        .spawn()
        .await;
    let token = good();
    for _ in 0..3 {
        let ask = program.entrance.ask(with(&program.entrance, &token));
        let serve = async { service.asked().await.status(500, "").await };
        let (asked, ()) = tokio::join!(ask, serve);
        assert_eq!(status(asked), 503);
    }
    let line = program.said("no decision: clients are refused").await;
    assert_eq!(line["level"], "WARN");
    assert!(
        line["reason"].as_str().is_some_and(|r| r.contains("500")),
        "{line}"
    );
    let log = program.log();
    // The machine of the tests may not have the descriptors for all the connections allowed.
    let warnings = log
        .iter()
        .filter(|line| line.contains("\"WARN\"") && !line.contains("RLIMIT_NOFILE"));
    assert_eq!(warnings.count(), 1, "one for all of them");
    let (_, signature) = token.rsplit_once('.').expect("a signature");
    for line in &log {
        assert!(
            !line.contains("hunter2") && !line.contains(signature),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_yes_counts_only_from_whom_the_roots_vouch_for() {
    let echo = echo().await;
    let yes = || Behaviour::Says(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    let (service, other) = (KeyServer::start(yes()).await, KeyServer::start(yes()).await);
    let start = |ca: &KeyServer| {
        let keys = format!(
            "url = {:?}\nca = {:?}\ntimeout = \"30s\"",
            service.url(),
            ca.ca()
        );
        proxy(echo.address).section("auth.authorize", &keys).start()
    };
    let edge = start(&service);
    edge.entrance.admitted().await.echoes("hello").await;
    edge.stop().await;
    let mut edge = start(&other);
    let client = edge.entrance.admitted().await;
    assert_eq!(client.closed().await.0, 1013);
    let detail = edge.record().await.detail.expect("a reason");
    assert!(detail.contains("certificate"), "{detail}");
    edge.stop().await;
}
