//! Rules for messages, and tokens that are renewed: over TLS, with real tokens.

use serde_json::{Value, json};
use tidegate::proto::cause::Cause;
use tidegate::proto::rule::Objection;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Client;
use crate::support::settings::{Settings, proxy};
use crate::support::token::{SECRET, good_claims, message, seconds_from_now, signed};
use crate::support::upstream::echo;

const RULES: &str = r#"
[[route.rule]]
when = { pointer = "/type", equals = "publish" }
require = { pointer = "/channel", claim = "/realm/channels", patterns = true }

[[route.rule]]
when = { pointer = "/type", equals = "typing" }
action = "drop"
"#;

const REFRESH: &str = r#"refresh = { field = "/type", equals = "refresh", token_field = "/token", reply = '{"type":"refreshed"}' }"#;

/// The leeway that routes have by default, in seconds.
const LEEWAY: i64 = 30;

fn claims(channels: &[&str], lifetime: i64) -> Value {
    let mut claims = good_claims();
    claims["realm"] = json!({ "channels": channels });
    claims["exp"] = seconds_from_now(lifetime).into();
    claims
}

fn publish(channel: &str) -> String {
    json!({ "type": "publish", "channel": channel }).to_string()
}

fn refresh(token: &str) -> String {
    json!({ "type": "refresh", "token": token }).to_string()
}

fn ruled(settings: Settings) -> Settings {
    settings.auth_also(REFRESH).section("rules", RULES)
}

async fn admitted(proxy: &crate::support::proxy::Proxy, claims: &Value) -> Client {
    let mut client = proxy.entrance.open().await;
    client.send(message(&signed(claims, SECRET))).await;
    client
}

#[tokio::test]
async fn a_client_says_what_its_token_grants_and_no_more() {
    let upstream = echo().await;
    let mut proxy = ruled(proxy(upstream.address)).start();
    let claims = claims(&["news", "room:*"], 60);
    let mut client = admitted(&proxy, &claims).await;
    client.echoes(&publish("news")).await;
    client.send(r#"{"type":"typing"}"#.to_owned()).await;
    client.echoes(&publish("room:7")).await;
    client.send(publish("secret")).await;
    assert_eq!(client.closed().await, (3003, "forbidden".to_owned()));
    let record = proxy.record().await;
    let cause = Cause::MessageRefused(Objection::NotGranted(1));
    assert_eq!(record.summary.cause, cause);
    let tally = record.summary.tallies.downstream;
    assert_eq!((tally.messages, tally.dropped), (2, 1));

    let mut client = admitted(&proxy, &claims).await;
    let twice = r#"{"type":"typing","type":"publish","channel":"secret"}"#;
    client.send(twice.to_owned()).await;
    assert_eq!(
        client.closed().await,
        (1007, "malformed message".to_owned())
    );
    proxy.record().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_message_far_above_the_watermark_passes_whole() {
    let upstream = echo().await;
    let proxy = ruled(proxy(upstream.address))
        .section("limits", "max_frame_size = \"1MiB\"")
        .start();
    let mut client = admitted(&proxy, &claims(&["news"], 60)).await;
    let large = json!({ "type": "publish", "channel": "news", "text": "x".repeat(900_000) });
    client.echoes(&large.to_string()).await;
    client.close(1000, "").await;
    client.closed().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_newer_token_prolongs_the_session_and_changes_what_it_grants() {
    let upstream = echo().await;
    let mut proxy = ruled(proxy(upstream.address)).start();
    let mut client = admitted(&proxy, &claims(&["news"], 60)).await;
    client.echoes(&publish("news")).await;
    let newer = signed(&claims(&["sports"], 2 - LEEWAY), SECRET);
    client.send(refresh(&newer)).await;
    client.send(publish("sports")).await;
    // The upstream has seen nothing of it, or would have echoed it.
    let replied = Message::text(r#"{"type":"refreshed"}"#);
    assert_eq!(client.next().await, replied);
    assert_eq!(client.next().await, Message::text(publish("sports")));
    assert_eq!(client.closed().await, (3000, "unauthorized".to_owned()));
    assert_eq!(proxy.record().await.summary.cause, Cause::TokenExpired);
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_that_is_no_successor_closes_with_3000() {
    let upstream = echo().await;
    let mut proxy = ruled(proxy(upstream.address)).start();
    let changed = |name: &str, value: Value| {
        let mut claims = claims(&["news"], 60);
        claims[name] = value;
        signed(&claims, SECRET)
    };
    let nobody = |mut claims: Value| {
        claims.as_object_mut().expect("an object").remove("sub");
        signed(&claims, SECRET)
    };
    let good = signed(&claims(&["news"], 60), SECRET);
    for (name, message) in [
        (
            "another subject",
            refresh(&changed("sub", "mallory".into())),
        ),
        ("no subject", refresh(&nobody(claims(&["news"], 60)))),
        (
            "another issuer",
            refresh(&changed("iss", "https://evil.example.com".into())),
        ),
        (
            "expired",
            refresh(&changed("exp", seconds_from_now(-3600).into())),
        ),
        (
            "another key",
            refresh(&signed(
                &claims(&["news"], 60),
                "some other secret of forty-one bytes.....",
            )),
        ),
        ("no token", r#"{"type":"refresh"}"#.to_owned()),
        ("not a token", refresh("a.b.c")),
        ("empty", refresh("")),
        (
            "too long",
            refresh(&format!("{good}{}", "A".repeat(20_000))),
        ),
    ] {
        let mut client = admitted(&proxy, &claims(&["news"], 60)).await;
        client.echoes(&publish("news")).await;
        client.send(message).await;
        client.send(publish("news")).await;
        let closed = client.closed().await;
        assert_eq!(closed, (3000, "unauthorized".to_owned()), "{name}");
        let record = proxy.record().await;
        assert_eq!(record.summary.cause, Cause::TokenRefused, "{name}");
        assert_eq!(record.summary.tallies.downstream.messages, 1, "{name}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn two_nobodies_are_not_the_same() {
    let upstream = echo().await;
    let proxy = ruled(proxy(upstream.address)).start();
    let mut claims = claims(&["news"], 60);
    claims.as_object_mut().expect("an object").remove("sub");
    let mut client = admitted(&proxy, &claims).await;
    client.send(refresh(&signed(&claims, SECRET))).await;
    assert_eq!(client.closed().await, (3000, "unauthorized".to_owned()));
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_in_the_request_head_is_renewed_as_well() {
    let upstream = echo().await;
    let proxy = ruled(proxy(upstream.address).auth("method = \"header\"")).start();
    let token = signed(&claims(&["news"], 60), SECRET);
    let request = proxy.entrance.request("/chat");
    let request = request.with_header("authorization", format!("Bearer {token}"));
    let (mut client, _) = proxy.entrance.ask(request).await.expect("admitted");
    client.echoes(&publish("news")).await;
    let newer = signed(&claims(&["sports"], 60), SECRET);
    client.send(refresh(&newer)).await;
    assert_eq!(
        client.next().await,
        Message::text(r#"{"type":"refreshed"}"#)
    );
    client.echoes(&publish("sports")).await;
    client.close(1000, "").await;
    client.closed().await;
    proxy.stop().await;
}
