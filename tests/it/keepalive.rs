//! Pings of the edge's own, silence, and the longest session.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tidegate::proto::cause::Cause;
use tidegate::proto::side::Side;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;

use crate::support::raw::{masked, plain, read_frame, text, write};
use crate::support::settings::proxy;
use crate::support::upstream::upstream;
use crate::support::{assert_took, until};

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
    assert_took(started, SECOND * 11 / 10, 10 * SECOND);
    assert_eq!(server.closed().await.0, 1001);
    drop(client);
    assert_eq!(
        proxy.record().await.summary.cause,
        Cause::PongMissing(Side::Downstream)
    );
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
    assert_took(started, SECOND * 45 / 10, 20 * SECOND);
    // Nothing but the Close.
    assert!(server.next().await.is_close());
    server.ended().await;
    let summary = proxy.record().await.summary;
    assert_eq!(summary.cause, Cause::LifetimeOver);
    let round_trip = summary.round_trips.downstream.expect("pongs came");
    assert!(round_trip.least > Duration::ZERO);
    assert!(round_trip.least <= round_trip.last && round_trip.least <= round_trip.smoothed);
    assert_eq!(summary.round_trips.upstream, None);
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

#[tokio::test]
async fn an_upstream_that_answers_no_ping_is_closed_with_3008() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "keepalive",
            "upstream_ping_interval = \"1s\"\npong_timeout = \"200ms\"",
        )
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let ping = read_frame(&mut server).await.expect("a ping");
    assert_eq!((ping.opcode, &ping.payload[..8]), (9, &b"tidegate"[..]));
    write(&mut server, &plain(Frame::pong(ping.payload))).await;
    // The one that is answered buys time until the next.
    assert_eq!(read_frame(&mut server).await.expect("a ping").opcode, 9);
    let closed = read_frame(&mut server).await.expect("a Close");
    assert_eq!(closed.close(), (3008, "no pong in time".to_owned()));
    let closed = read_frame(&mut client).await.expect("a Close");
    assert_eq!(closed.close(), (1014, "upstream failed".to_owned()));
    drop((client, server));
    let summary = proxy.record().await.summary;
    assert_eq!(summary.cause, Cause::PongMissing(Side::Upstream));
    assert!(summary.round_trips.upstream.is_some());
    assert_eq!(summary.tallies.upstream.bytes, 0, "no pong went through");
    proxy
        .counted("failed sessions", 1, |c| c.sessions_failed.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn one_edge_behind_another_gets_the_pongs_to_its_own_pings() {
    let upstream = upstream().await;
    let pings = "ping_interval = \"1s\"\npong_timeout = \"900ms\"\nmax_lifetime = \"5s\"";
    let mut inner = proxy(upstream.address)
        .without_token()
        .more("[[listener]]\nbind = \"127.0.0.1:0\"\nplaintext = true\n")
        .section("keepalive", pings)
        .start();
    let mut outer = proxy(inner.addresses[1])
        .section("keepalive", pings)
        .start();
    let mut client = outer.entrance.admitted().await;
    let _server = upstream.accept().await;
    // The third party answers both as it reads.
    loop {
        match client.next().await {
            Message::Ping(_) => {}
            Message::Close(frame) => {
                break assert_eq!(u16::from(frame.expect("a code").code), 1001);
            }
            other => panic!("{other:?}"),
        }
    }
    client.ended().await;
    for edge in [&mut inner, &mut outer] {
        let summary = edge.record().await.summary;
        assert!(summary.round_trips.downstream.is_some(), "{summary:?}");
        assert_ne!(summary.cause, Cause::PongMissing(Side::Downstream));
    }
    outer.stop().await;
    inner.stop().await;
}

#[tokio::test]
async fn a_heartbeat_is_answered_at_the_edge_and_unknown_to_the_upstream() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "keepalive",
            "heartbeat = { request = 'ping', reply = 'pong' }",
        )
        .start();
    let mut client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;
    for _ in 0..3 {
        client.send("ping").await;
        assert_eq!(client.text().await, "pong");
    }
    client.send("pings").await;
    assert_eq!(server.text().await, "pings");
    server.send("ping").await;
    assert_eq!(client.text().await, "ping");
    client.close(1000, "").await;
    server.closed().await;
    let summary = proxy.record().await.summary;
    assert_eq!(summary.heartbeats, 3);
    assert_eq!(summary.tallies.downstream.messages, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn tcp_probes_a_silent_peer_on_both_legs() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let client = proxy.entrance.raw_admitted().await;
    let server = upstream.accept_raw().await;
    let client = client.get_ref().0;
    let legs = [
        (client.peer_addr(), client.local_addr()),
        (server.peer_addr(), server.local_addr()),
    ];
    for (edge, peer) in legs {
        let (edge, peer) = (edge.expect("an address"), peer.expect("an address"));
        // Once everything is acknowledged the timer that runs is the one of keepalive.
        until("the keepalive timer runs", || {
            (timer(edge, peer)? == "02").then_some(())
        })
        .await;
    }
    drop(server);
    proxy.stop().await;
}

/// Which timer the kernel runs for a connection of this machine: proc(5), `tr`.
fn timer(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let hex = |address: SocketAddr| {
        let IpAddr::V4(ip) = address.ip() else {
            panic!("IPv4 alone is listened on");
        };
        format!(
            "{:08X}:{:04X}",
            u32::from_le_bytes(ip.octets()),
            address.port()
        )
    };
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a table of connections");
    let mut rows = table.lines().map(|line| line.split_whitespace().collect());
    let row = rows.find(|row: &Vec<&str>| {
        row.get(1..3) == Some(&[hex(local).as_str(), hex(remote).as_str()])
    })?;
    Some(row.get(5)?.split(':').next()?.to_owned())
}
