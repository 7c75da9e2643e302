//! The life of a token as the peers see it: the notice, the end, and sessions that outlive it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::proto::cause::Cause;

use crate::support::assert_took;
use crate::support::settings::proxy;
use crate::support::token::{SECRET, good_claims, message, seconds_from_now, signed};
use crate::support::upstream::{echo, upstream};

/// The leeway that routes have by default.
const LEEWAY: i64 = 30;

/// A first message whose token is refused from `seconds` from now on, leeway included.
fn expiring_in(seconds: i64) -> String {
    let mut claims = good_claims();
    claims["exp"] = Value::from(seconds_from_now(seconds - LEEWAY));
    message(&signed(&claims, SECRET))
}

#[tokio::test]
async fn a_session_ends_at_the_expiry_of_its_token_plus_leeway() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .auth_also("expiry_notice = \"1s\"")
        .start();
    let mut client = proxy.entrance.open().await;
    let began = Instant::now();
    // Times in tokens are whole seconds: the next but two is two to three seconds away.
    client.send(expiring_in(3)).await;
    let server = upstream.accept().await;
    assert_eq!(client.text().await, r#"{"type":"token_expiring"}"#);
    assert_took(began, Duration::from_secs(1), Duration::from_secs(10));
    let heard = client.closed().await;
    assert_eq!(heard, (3000, "unauthorized".to_owned()));
    assert_took(began, Duration::from_secs(2), Duration::from_secs(10));
    assert_eq!(server.closed().await.0, 1001);
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::TokenExpired);
    assert_eq!(record.subject.as_deref(), Some("alice"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_short_token_is_announced_at_once_in_the_operators_words() {
    let echo = echo().await;
    let notice = "expiry_notice = { before = \"1d\", message = \"hurry\" }";
    let proxy = proxy(echo.address).auth_also(notice).start();
    let mut client = proxy.entrance.admitted().await;
    assert_eq!(client.text().await, "hurry");
    client.echoes("still here").await;
    client.close(1000, "").await;
    client.closed().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_session_outlives_a_token_that_counts_at_admission_only() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth_also("on_expiry = \"ignore\"")
        .start();
    let mut short = proxy.entrance.open().await;
    short.send(expiring_in(2)).await;
    let mut server = upstream.accept().await;
    // Another token of the same life is refused by now: so this one's has ended.
    let began = Instant::now();
    let token = expiring_in(2);
    loop {
        let mut other = proxy.entrance.open().await;
        other.send(token.as_str()).await;
        let admitted = tokio::select! {
            heard = other.try_next() => { drop(heard); false }
            other_server = upstream.accept() => { drop(other_server); true }
        };
        if !admitted {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it never expires"
        );
    }
    short.send("late").await;
    assert_eq!(server.text().await, "late");
    drop((short, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_of_the_last_year_is_no_trouble() {
    let echo = echo().await;
    let proxy = proxy(echo.address).start();
    let mut claims = good_claims();
    // The end of 9999, beyond what a timer's wheel holds.
    claims["exp"] = json!(253_402_300_799_u64);
    let mut client = proxy.entrance.open().await;
    client.send(message(&signed(&claims, SECRET))).await;
    client.echoes("now").await;
    client.close(1000, "").await;
    client.closed().await;
    proxy.stop().await;
}
