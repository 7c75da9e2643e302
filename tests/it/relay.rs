//! What passes through an admitted session: messages, control frames, and the bytes as
//! they were sent.

use tidegate::proto::cause::Cause;
use tidegate::proto::close::CloseCode;
use tidegate::proto::side::Side;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::support::raw::{self, fragment, masked, plain};
use crate::support::settings::proxy;
use crate::support::upstream::{echo, upstream};
use crate::support::{token, within};

const NO_LIMITS: &str = "max_frame_size = \"2MiB\"\nmax_message_size = \"2MiB\"\n\
                         messages = \"off\"\nbytes = \"off\"";

#[tokio::test]
async fn messages_of_every_size_come_back_unchanged() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address).section("limits", NO_LIMITS).start();
    let mut client = proxy.entrance.admitted().await;
    // Around each form of the length (RFC 6455 §5.2), the watermark, and far beyond it.
    for size in [
        0,
        1,
        125,
        126,
        127,
        16_384,
        65_535,
        65_536,
        65_537,
        131_073,
        1 << 20,
    ] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        client.send(bytes.clone()).await;
        assert_eq!(client.next().await, Message::binary(bytes), "{size} bytes");
        let text = "é".repeat(size / 2);
        client.echoes(&text).await;
    }
    client.close(1000, "").await;
    client.closed().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_fragmented_message_comes_back_whole() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.admitted().await;
    // The cut goes through a character: UTF-8 is checked over the whole message.
    for frame in [
        fragment(Data::Text, "caf\u{e9}".as_bytes()[..4].to_vec(), false),
        fragment(Data::Continue, "", false),
        fragment(Data::Continue, "caf\u{e9}".as_bytes()[4..].to_vec(), true),
    ] {
        client.send(Message::Frame(frame)).await;
    }
    assert_eq!(client.text().await, "café");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn the_clients_bytes_reach_the_upstream_as_they_were_sent() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let sent = [
        masked(raw::text("one")),
        masked(fragment(Data::Binary, vec![7; 300], false)),
        masked(raw::ping("between")),
        masked(fragment(Data::Continue, vec![8; 60_000], true)),
        masked(raw::pong("unasked")),
        masked(raw::close(4321, "enough")),
    ]
    .concat();
    raw::write(&mut client, &sent).await;
    let mut seen = vec![0; sent.len()];
    let read = within("all of it", server.read_exact(&mut seen)).await;
    read.expect("all of it");
    assert!(seen == sent, "the bytes differ");
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn the_upstreams_bytes_reach_the_client_as_they_were_sent() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let sent = [
        plain(raw::text("one")),
        plain(fragment(Data::Text, "half a ", false)),
        plain(raw::ping("between")),
        plain(fragment(Data::Continue, "message", true)),
        plain(raw::binary(vec![9; 200_000])),
        plain(raw::close(4322, "enough")),
    ]
    .concat();
    let mut seen = vec![0; sent.len()];
    tokio::join!(raw::write(&mut server, &sent), async {
        let read = within("all of it", client.read_exact(&mut seen)).await;
        read.expect("all of it");
    });
    assert!(seen == sent, "the bytes differ");
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn pings_are_answered_by_the_other_end() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;

    client.send(Message::Ping("to the upstream".into())).await;
    assert_eq!(server.next().await, Message::Ping("to the upstream".into()));
    // The third party sends its pong behind the message that it is given next.
    server.send("then the pong").await;
    assert_eq!(client.text().await, "then the pong");
    assert_eq!(client.next().await, Message::Pong("to the upstream".into()));

    server.send(Message::Ping("to the client".into())).await;
    assert_eq!(client.next().await, Message::Ping("to the client".into()));
    client.send("then the pong").await;
    assert_eq!(server.text().await, "then the pong");
    assert_eq!(server.next().await, Message::Pong("to the client".into()));
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_record_counts_what_passed_and_says_who_closed() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;
    client.send("12345").await;
    client.send(vec![0; 200]).await;
    assert_eq!(server.text().await, "12345");
    assert_eq!(server.next().await, Message::binary(vec![0; 200]));
    server.send("abc").await;
    assert_eq!(client.text().await, "abc");
    client.close(4001, "bye").await;
    assert_eq!(server.closed().await, (4001, "bye".to_owned()));
    assert_eq!(client.closed().await, (4001, "bye".to_owned()));

    let record = proxy.record().await;
    let summary = &record.summary;
    let code = CloseCode::from_wire(4001);
    assert_eq!(
        summary.cause,
        Cause::Closed {
            by: Side::Downstream,
            code
        }
    );
    assert_eq!(record.route, "chat");
    assert_eq!(record.subject.as_deref(), Some("alice"));
    assert_eq!(record.endpoint, Some(upstream.address.to_string()));
    assert_eq!(record.client.ip(), proxy.entrance.address.ip());
    assert_eq!(summary.close_codes.downstream, code);
    assert_eq!(summary.close_codes.upstream, code);
    let (from_client, from_upstream) = (summary.tallies.downstream, summary.tallies.upstream);
    assert_eq!((from_client.messages, from_upstream.messages), (2, 1));
    // Headers with a mask, and the Close; headers without, and the Close.
    assert_eq!(from_client.bytes, (6 + 5) + (8 + 200) + (6 + 2 + 3));
    assert_eq!(from_upstream.bytes, (2 + 3) + (2 + 2 + 3));
    assert_eq!((from_client.dropped, from_upstream.dropped), (0, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn every_worker_serves() {
    let upstream = echo().await;
    let mut proxy = proxy(upstream.address).workers(2).start();
    let mut clients = Vec::new();
    // The kernel spreads connections by a hash of their ports: the odds that one of two
    // workers gets none of thirty-two are below one in two thousand million.
    for n in 0..32 {
        let mut client = proxy.entrance.admitted().await;
        client.echoes(&format!("client {n}")).await;
        clients.push(client);
    }
    for (n, mut client) in clients.into_iter().enumerate() {
        client.echoes(&format!("client {n} again")).await;
        client.close(1000, "").await;
        client.closed().await;
    }
    for _ in 0..32 {
        assert_eq!(proxy.record().await.summary.tallies.downstream.messages, 2);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_first_message_is_forwarded_and_answered_where_the_route_says_so() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth_also("forward = true\nreply = '{\"type\":\"ready\"}'")
        .start();
    let mut client = proxy.entrance.open().await;
    let first = token::message(&token::good());
    client.send(first.as_str()).await;
    let mut server = upstream.accept().await;
    assert_eq!(server.text().await, first);
    assert_eq!(client.text().await, "{\"type\":\"ready\"}");
    drop((client, server));
    proxy.stop().await;
}
