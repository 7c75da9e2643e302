//! The token in the first message: who hears of it, what a refusal tells, and that it is
//! written down nowhere.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::proto::cause::{Cause, Misbehaviour};
use tidegate::proto::side::Side;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::support::assert_took;
use crate::support::raw::{
    close, fragment, masked, ping, plain, read_frame, read_to_end, text, write,
};
use crate::support::settings::proxy;
use crate::support::token::{SECRET, good, good_claims, message, seconds_from_now, signed};
use crate::support::upstream::{echo, upstream};

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = good_claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = good_claims();
    let removed = claims.as_object_mut().expect("an object").remove(name);
    assert!(removed.is_some());
    claims
}

/// First messages that hold no good token, for as many reasons as there are.
fn refused() -> Vec<(&'static str, String)> {
    let carrying = |claims: &Value| message(&signed(claims, SECRET));
    let token = good();
    let (head_and_claims, signature) = token.rsplit_once('.').expect("a signature");
    // {"alg":"none"}
    let unsigned = format!(
        "eyJhbGciOiJub25lIn0.{}.",
        head_and_claims.split_once('.').expect("claims").1
    );
    vec![
        ("empty message", String::new()),
        ("not JSON", "hello".to_owned()),
        ("broken JSON", "{\"token\":\"".to_owned()),
        ("deep JSON", "[".repeat(8000)),
        ("no token in it", "{\"tokens\":1}".to_owned()),
        ("token is a number", "{\"token\":7}".to_owned()),
        ("token is empty", message("")),
        (
            "token twice",
            format!("{{\"token\":\"x\",\"token\":\"{token}\"}}"),
        ),
        ("bare token", token.clone()),
        ("not a JWT", message("a.b")),
        (
            "another signature",
            message(&format!("{head_and_claims}.AAAA{}", &signature[4..])),
        ),
        ("no signature", message(&format!("{head_and_claims}."))),
        ("alg none", message(&unsigned)),
        (
            "another secret",
            message(&signed(
                &good_claims(),
                "some other secret of forty-one bytes.....",
            )),
        ),
        (
            "expired",
            carrying(&claims_with("exp", seconds_from_now(-3600).into())),
        ),
        ("without expiry", carrying(&claims_without("exp"))),
        (
            "expiry is text",
            carrying(&claims_with("exp", json!("never"))),
        ),
        (
            "not yet valid",
            carrying(&claims_with("nbf", seconds_from_now(3600).into())),
        ),
        (
            "another audience",
            carrying(&claims_with("aud", json!("mail"))),
        ),
        ("without audience", carrying(&claims_without("aud"))),
        (
            "another issuer",
            carrying(&claims_with("iss", json!("https://evil.com"))),
        ),
        ("without issuer", carrying(&claims_without("iss"))),
    ]
}

#[tokio::test]
async fn every_refused_token_looks_the_same_and_never_reaches_the_upstream() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let cases = refused();
    assert!(cases.len() > 20);
    let mut details = Vec::new();
    for (name, first) in cases {
        let mut client = proxy.entrance.raw_open().await;
        write(&mut client, &masked(text(&first))).await;
        let closed = read_frame(&mut client).await;
        let closed = closed.unwrap_or_else(|| panic!("no Close: {name}"));
        assert_eq!(closed.close(), (3000, "unauthorized".to_owned()), "{name}");
        write(&mut client, &masked(close(3000, ""))).await;
        assert_eq!(read_to_end(&mut client).await, b"", "{name}");
        let record = proxy.record().await;
        assert_eq!(record.summary.cause, Cause::TokenRefused, "{name}");
        assert_eq!(record.endpoint, None, "{name}");
        details.push(record.detail.unwrap_or_else(|| panic!("no reason: {name}")));
    }
    // The operator is told what the client is not.
    details.sort();
    details.dedup();
    assert!(details.len() > 10, "{details:#?}");
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_binary_first_message_is_refused() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.open().await;
    client.send(message(&good()).into_bytes()).await;
    assert_eq!(client.closed().await, (3000, "unauthorized".to_owned()));
    assert_eq!(proxy.record().await.summary.cause, Cause::TokenRefused);
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn no_token_in_time_is_closed_with_3008() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .auth_also("timeout = \"1s\"")
        .start();
    let started = Instant::now();
    let mut client = proxy.entrance.open().await;
    // A sign of life is not a token.
    client.send(Message::Ping("here".into())).await;
    assert_eq!(client.next().await, Message::Pong("here".into()));
    assert_eq!(client.closed().await, (3008, "no token in time".to_owned()));
    assert_took(started, Duration::from_secs(1), Duration::from_secs(10));
    assert_eq!(proxy.record().await.summary.cause, Cause::TokenTimeout);
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_first_message_that_never_ends_is_closed_in_time() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .auth_also("timeout = \"300ms\"")
        .start();
    let mut client = proxy.entrance.raw_open().await;
    let first = masked(text(&message(&good())));
    write(&mut client, &first[..first.len() - 1]).await;
    let closed = read_frame(&mut client).await.expect("a Close");
    assert_eq!(closed.close().0, 3008);
    drop(client);
    assert_eq!(proxy.record().await.summary.cause, Cause::TokenTimeout);
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_first_message_one_byte_too_large_is_closed_with_1009() {
    let upstream = echo().await;
    let mut proxy = proxy(upstream.address)
        .auth_also("max_size = \"1KiB\"")
        .start();
    let token = good();
    let padded = |size: usize| {
        let bare = format!("{{\"token\":\"{token}\",\"pad\":\"\"}}").len();
        format!(
            "{{\"token\":\"{token}\",\"pad\":\"{}\"}}",
            "x".repeat(size - bare)
        )
    };
    let mut client = proxy.entrance.open().await;
    client.send(padded(1024)).await;
    client.echoes("admitted").await;
    client.close(1000, "").await;
    client.closed().await;
    proxy.record().await;

    let mut client = proxy.entrance.open().await;
    client.send(padded(1025)).await;
    assert_eq!(client.closed().await.0, 1009);
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::FrameTooBig(Side::Downstream));

    // In fragments each of which is small.
    let mut client = proxy.entrance.raw_open().await;
    let whole = padded(1025).into_bytes();
    let mut sent = masked(fragment(Data::Text, &whole[..1000], false));
    sent.extend(masked(fragment(Data::Continue, &whole[1000..], true)));
    write(&mut client, &sent).await;
    assert_eq!(
        read_frame(&mut client).await.expect("a Close").close().0,
        1009
    );
    drop(client);
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::MessageTooBig(Side::Downstream));
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_in_fragments_with_pings_in_between_is_admitted() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.raw_open().await;
    let first = message(&good());
    let (begin, end) = first.as_bytes().split_at(20);
    let sent = [
        masked(fragment(Data::Text, begin, false)),
        masked(ping("one")),
        masked(fragment(Data::Continue, "", false)),
        masked(fragment(Data::Continue, end, true)),
        masked(text("admitted")),
    ]
    .concat();
    // In single bytes: every slicing is the same to the edge.
    for byte in sent {
        write(&mut client, &[byte]).await;
    }
    let pong = read_frame(&mut client).await.expect("a pong");
    assert_eq!((pong.opcode, pong.payload), (10, b"one".to_vec()));
    let echoed = read_frame(&mut client).await.expect("an echo");
    assert_eq!(echoed.payload, b"admitted");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_bearer_prefix_is_tolerated() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.open().await;
    client.send(message(&format!("Bearer {}", good()))).await;
    client.echoes("admitted").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn close_and_misbehaviour_before_the_token_are_answered_by_the_edge() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.open().await;
    client.close(4000, "changed my mind").await;
    assert_eq!(client.closed().await.0, 4000);
    let cause = proxy.record().await.summary.cause;
    assert!(matches!(
        cause,
        Cause::Closed {
            by: Side::Downstream,
            ..
        }
    ));

    let mut client = proxy.entrance.raw_open().await;
    write(&mut client, &plain(text("unmasked"))).await;
    assert_eq!(
        read_frame(&mut client).await.expect("a Close").close().0,
        1002
    );
    drop(client);
    let cause = proxy.record().await.summary.cause;
    let expected = Misbehaviour::UnmaskedFromClient;
    assert_eq!(cause, Cause::Misbehaved(Side::Downstream, expected));
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_its_token_costs_the_upstream_nothing() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    drop(proxy.entrance.open().await);
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::Vanished(Side::Downstream));
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn claims_fill_headers_that_a_client_cannot_forge() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .section(
            "headers",
            "\"X-User-Id\" = \"sub\"\n\"X-Role\" = \"/realm/role\"\n\
             \"X-Realm\" = { claim = \"realm\", format = \"json\" }\n\"X-Plan\" = \"plan\"",
        )
        .start();
    let request = proxy.entrance.request("/chat?room=7&x=%20");
    let request = request
        .with_header("X-User-Id", "root")
        .with_header("X_User_Id", "root")
        .with_header("X-Role", "admin")
        .with_header("X.Realm", "{}")
        .with_header("X-Plan", "gold")
        .with_header("X-Custom", "kept");
    let (mut client, _) = proxy.entrance.ask(request).await.expect("a 101");
    let claims = claims_with("realm", json!({ "role": "guest", "name": "zoë" }));
    client.send(message(&signed(&claims, SECRET))).await;
    let (server, head) = upstream.asked().await;
    assert_eq!(head.first_line, "GET /chat?room=7&x=%20 HTTP/1.1");
    assert_eq!(head.field("x-user-id"), Some("alice"));
    assert_eq!(head.field("x_user_id"), None);
    assert_eq!(head.field("x-role"), Some("guest"));
    let realm = r#"{"name":"zo\u00eb","role":"guest"}"#;
    assert_eq!(head.field("x-realm"), Some(realm));
    assert_eq!(head.field("x.realm"), None);
    // The token says nothing of a plan, so nobody does.
    assert_eq!(head.field("x-plan"), None);
    assert_eq!(head.field("x-custom"), Some("kept"));
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_claim_that_cannot_be_a_header_opens_no_second_one() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section("headers", "\"X-User-Id\" = \"sub\"")
        .start();
    let mut client = proxy.entrance.open().await;
    let claims = claims_with("sub", json!("alice\r\nX-Role: admin"));
    client.send(message(&signed(&claims, SECRET))).await;
    let (code, _) = client.closed().await;
    assert!([3000, 1014].contains(&code), "{code}");
    let record = proxy.record().await;
    assert!(
        record.endpoint.is_none() && record.detail.is_some(),
        "{record:?}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn neither_tokens_nor_secrets_are_ever_logged() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address).spawn().await;
    let mut cases = refused();
    cases.push(("good", message(&good())));
    for (name, first) in &cases {
        let mut client = program.entrance.open().await;
        client.send(first.as_str()).await;
        if *name == "good" {
            client.echoes("payload-not-to-be-logged").await;
            client.close(1000, "").await;
        }
        client.closed().await;
    }
    program.signal("TERM");
    program.exited().await;
    let log = program.log().join("\n");
    assert!(log.contains("\"alice\""), "the log is the one meant");
    let mut parts = vec![SECRET.to_owned(), "payload-not-to-be-logged".to_owned()];
    for (_, first) in &cases {
        // Headers are the same for all and say nothing; claims and signatures do.
        let token = serde_json::from_str::<Value>(first).ok();
        let token = token.and_then(|json| json["token"].as_str().map(str::to_owned));
        let token = token.unwrap_or_default();
        parts.extend(token.split('.').skip(1).map(str::to_owned));
    }
    let parts: Vec<_> = parts.iter().filter(|part| part.len() > 8).collect();
    assert!(parts.len() > 20);
    for part in parts {
        assert!(!log.contains(part.as_str()), "{part} in {log}");
    }
}
