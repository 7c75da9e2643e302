//! Pings of the edge's own, silence, and the longest session.

use std::time::{Duration, Instant};

use tidegate::proto::cause::Cause;
use tokio_tungstenite::tungstenite::Message;

use crate::support::assert_took;
use crate::support::raw::{masked, read_frame, text, write};
use crate::support::settings::proxy;
use crate::support::upstream::upstream;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_with_3008() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "keepalive",
            "ping_interval = \"1s\"\npong_timeout = \"200ms\"",
        )
        .start();
    let started = Instant::now();
    let mut client = proxy.entrance.raw_admitted().await;
    let server = upstream.accept().await;
    let ping = read_frame(&mut client).await.expect("a ping");
    assert_eq!(ping.opcode, 9);
    let closed = read_frame(&mut client).await.expect("a Close");
    assert_eq!(closed.close(), (3008, "no pong in time".to_owned()));
    assert_took(started, SECOND * 12 / 10, 10 * SECOND);
    assert_eq!(server.closed().await.0, 1001);
    drop(client);
    assert_eq!(proxy.record().await.summary.cause, Cause::PongMissing);
    proxy.stop().await;
}

#[tokio::test]
async fn pings_of_the_edge_are_answered_by_the_client_and_unknown_to_the_upstream() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "keepalive",
            "ping_interval = \"2s\"\npong_timeout = \"1900ms\"\nmax_lifetime = \"5s\"",
        )
        .start();
    let started = Instant::now();
    let mut client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;
    let mut pings = 0;
    // The third party answers while it reads.
    let closed = loop {
        match client.next().await {
            Message::Ping(_) => pings += 1,
            Message::Close(frame) => break frame.expect("a code"),
            other => panic!("{other:?}"),
        }
    };
    client.ended().await;
    assert_eq!(u16::from(closed.code), 1001);
    assert!(pings >= 2, "{pings} pings");
    assert_took(started, 5 * SECOND, 20 * SECOND);
    // Nothing but the Close.
    assert!(server.next().await.is_close());
    server.ended().await;
    assert_eq!(proxy.record().await.summary.cause, Cause::LifetimeOver);
    proxy.stop().await;
}

#[tokio::test]
async fn silence_is_closed_with_3008_although_pings_are_answered() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section("keepalive", "idle_timeout = \"2s\"")
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept().await;
    let started = Instant::now();
    write(&mut client, &masked(text("a sign of life"))).await;
    assert_eq!(server.text().await, "a sign of life");
    server.send(Message::Ping("not one".into())).await;
    assert_eq!(read_frame(&mut client).await.expect("a ping").opcode, 9);
    let closed = read_frame(&mut client).await.expect("a Close");
    assert_eq!(closed.close(), (3008, "idle".to_owned()));
    assert_took(started, 2 * SECOND, 20 * SECOND);
    assert_eq!(server.closed().await.0, 1001);
    drop(client);
    assert_eq!(proxy.record().await.summary.cause, Cause::Idle);
    proxy.stop().await;
}
