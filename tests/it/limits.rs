//! Sizes, quotas and the caps on connections: each with the one that goes over it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate::proto::cause::{Cause, Misbehaviour, QuotaKind};
use tidegate::proto::side::Side;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::raw::{
    binary, close, fragment, masked, ping, plain, read_frame, read_to_end, text, write,
};
use crate::support::settings::proxy;
use crate::support::upstream::{Upstream, echo, upstream};
use crate::support::within;

/// A quota that gives nothing back while a test lasts.
const ONCE: &str = "rate = \"1/h\"";

/// Admits a client, lets it send `bytes`, and asserts what both ends hear and what is
/// recorded.
async fn assert_fails(
    proxy: &mut Proxy,
    upstream: &Upstream,
    bytes: &[u8],
    expected: (u16, u16, Cause),
) {
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    write(&mut client, bytes).await;
    let (to_client, to_upstream, cause) = expected;
    let closed = loop {
        let frame = read_frame(&mut client).await.expect("a Close");
        if frame.opcode == 8 {
            break frame.close();
        }
    };
    assert_eq!(closed.0, to_client, "{cause:?}");
    let heard = loop {
        let frame = read_frame(&mut server).await.expect("a Close");
        if frame.opcode == 8 {
            break frame.close();
        }
    };
    assert_eq!(heard.0, to_upstream, "{cause:?}");
    write(&mut client, &masked(close(to_client, ""))).await;
    write(&mut server, &plain(close(to_upstream, ""))).await;
    drop((client, server));
    assert_eq!(proxy.record().await.summary.cause, cause);
}

#[tokio::test]
async fn a_frame_or_message_one_byte_too_large_is_closed_with_1009() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "limits",
            "max_frame_size = \"1KiB\"\nmax_message_size = \"2KiB\"",
        )
        .start();
    let too_big = |cause: fn(Side) -> Cause| (1009, 1001, cause(Side::Downstream));
    // The limit is judged by the header: the payload never comes.
    let header = masked(binary(vec![0; 1025]));
    let frame = too_big(Cause::FrameTooBig);
    assert_fails(&mut proxy, &upstream, &header[..8], frame).await;
    // The largest length there is reserves no memory.
    let huge = [
        0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
    ];
    assert_fails(&mut proxy, &upstream, &huge, frame).await;
    let fragments = [
        masked(fragment(Data::Binary, vec![0; 1024], false)),
        masked(fragment(Data::Continue, vec![0; 1024], false)),
        masked(fragment(Data::Continue, vec![0; 1], true)),
    ]
    .concat();
    let message = too_big(Cause::MessageTooBig);
    assert_fails(&mut proxy, &upstream, &fragments, message).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_frame_and_a_message_of_exactly_the_limit_pass() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address)
        .section(
            "limits",
            "max_frame_size = \"1KiB\"\nmax_message_size = \"2KiB\"",
        )
        .start();
    let mut client = proxy.entrance.admitted().await;
    client.echoes(&"x".repeat(1024)).await;
    let half = || vec![b'x'; 1024];
    client
        .send(Message::Frame(fragment(Data::Binary, half(), false)))
        .await;
    client
        .send(Message::Frame(fragment(Data::Continue, half(), true)))
        .await;
    assert_eq!(client.next().await, Message::binary(vec![b'x'; 2048]));
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstreams_frame_above_its_limit_is_the_upstreams_fault() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "limits",
            "max_upstream_frame_size = \"1KiB\"\nmax_upstream_message_size = \"2KiB\"",
        )
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    write(&mut server, &plain(binary(vec![0; 1024]))).await;
    write(&mut server, &plain(binary(vec![0; 1025]))).await;
    let first = read_frame(&mut client).await.expect("the first");
    assert_eq!(first.payload.len(), 1024);
    assert_eq!(
        read_frame(&mut client).await.expect("a Close").close().0,
        1014
    );
    assert_eq!(
        read_frame(&mut server).await.expect("a Close").close().0,
        1009
    );
    drop((client, server));
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::FrameTooBig(Side::Upstream));
    proxy.stop().await;
}

#[tokio::test]
async fn breaking_rfc_6455_is_closed_with_its_code() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let good = masked(text("hi"));
    let with_first = |first: u8| {
        let mut frame = good.clone();
        frame[0] = first;
        frame
    };
    let long_ping = masked(ping(&"x".repeat(126)));
    let masked_close = |payload: &[u8]| {
        let mut frame = masked(binary(payload.to_vec()));
        frame[0] = 0x88;
        frame
    };
    use Misbehaviour as M;
    let cases: Vec<(Vec<u8>, u16, M)> = vec![
        (plain(text("unmasked")), 1002, M::UnmaskedFromClient),
        (with_first(0xc1), 1002, M::ReservedBits),
        (with_first(0xa1), 1002, M::ReservedBits),
        (with_first(0x91), 1002, M::ReservedBits),
        (with_first(0x83), 1002, M::ReservedOpcode(3)),
        (with_first(0x8f), 1002, M::ReservedOpcode(15)),
        (with_first(0x09), 1002, M::FragmentedControl),
        (long_ping, 1002, M::ControlTooLong),
        (with_first(0x80), 1002, M::ContinuationWithoutMessage),
        (
            [with_first(0x01), good.clone()].concat(),
            1002,
            M::MessageInterrupted,
        ),
        (
            vec![0x81, 0xfe, 0x00, 0x02, 0, 0, 0, 0, b'h', b'i'],
            1002,
            M::NonMinimalLength,
        ),
        (
            vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            1002,
            M::LengthOverflow,
        ),
        (masked_close(b"x"), 1002, M::ClosePayloadLength),
        (
            masked_close(&1005_u16.to_be_bytes()),
            1002,
            M::CloseCode(1005),
        ),
        (
            masked_close(&999_u16.to_be_bytes()),
            1002,
            M::CloseCode(999),
        ),
        (masked_close(b"\x03\xe8\xff"), 1007, M::CloseReasonNotUtf8),
        (
            masked(fragment(Data::Text, b"\xc3(".to_vec(), true)),
            1007,
            M::TextNotUtf8,
        ),
        (
            // A character that the message ends in the middle of.
            masked(fragment(Data::Text, b"caf\xc3".to_vec(), true)),
            1007,
            M::TextNotUtf8,
        ),
    ];
    for (bytes, code, rule) in cases {
        let cause = Cause::Misbehaved(Side::Downstream, rule);
        assert_fails(&mut proxy, &upstream, &bytes, (code, 1001, cause)).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn nothing_of_a_frame_that_breaks_a_rule_reaches_the_upstream() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let bad = masked(fragment(Data::Text, b"bad \xff".to_vec(), true));
    let bytes = [masked(text("good")), bad, masked(text("later"))].concat();
    write(&mut client, &bytes).await;
    let first = read_frame(&mut server).await.expect("the good one");
    assert_eq!(first.payload, b"good");
    assert_eq!(
        read_frame(&mut server).await.expect("a Close").close().0,
        1001
    );
    drop((client, server));
    let record = proxy.record().await;
    assert_eq!(record.summary.tallies.downstream.messages, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn messages_beyond_the_rate_wait() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "limits",
            "messages = { rate = \"100/s\", burst = 10, on_excess = \"throttle\" }",
        )
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let started = Instant::now();
    let mut server = upstream.accept().await;
    let all: Vec<u8> = (0..60).flat_map(|n| masked(text(&n.to_string()))).collect();
    write(&mut client, &all).await;
    for n in 0..60_u32 {
        assert_eq!(server.text().await, n.to_string());
        // In any span at most the burst and what the rate gives, and one unit for rounding.
        let allowed = 10.0 + 100.0 * started.elapsed().as_secs_f64() + 1.0;
        assert!(f64::from(n + 1) <= allowed, "message {n} of {allowed}");
    }
    drop((client, server));
    let tally = proxy.record().await.summary.tallies.downstream;
    assert_eq!((tally.messages, tally.dropped), (60, 0));
    assert!(tally.throttled >= Duration::from_millis(300), "{tally:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn bytes_beyond_the_rate_wait_within_a_frame_too() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "limits",
            "bytes = { rate = \"64KiB/s\", burst = \"16KiB\", on_excess = \"throttle\" }",
        )
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let started = Instant::now();
    let mut server = upstream.accept_raw().await;
    // One frame of four times the burst: it passes, at the rate.
    let frame = masked(binary(vec![1; 64 << 10]));
    write(&mut client, &frame).await;
    let (mut seen, mut buffer) = (0, vec![0; 64 << 10]);
    while seen < frame.len() {
        let read = within("more of the frame", server.read(&mut buffer)).await;
        seen += read.expect("the connection is open");
        let allowed = 16384.0 + 65536.0 * started.elapsed().as_secs_f64() + 64.0;
        assert!(seen as f64 <= allowed, "{seen} of {allowed}");
    }
    assert!(started.elapsed() >= Duration::from_millis(700));
    drop((client, server));
    let record = proxy.record().await;
    assert!(record.summary.tallies.downstream.throttled >= Duration::from_millis(500));
    proxy.stop().await;
}

#[tokio::test]
async fn messages_beyond_the_quota_are_dropped_whole_and_counted() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "limits",
            &format!("messages = {{ {ONCE}, burst = 3, on_excess = \"drop\" }}"),
        )
        .start();
    let mut client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;
    for n in 0..2 {
        client.send(n.to_string()).await;
    }
    // The third, in fragments, passes to its end; the fourth is dropped with all of its own.
    for n in ["third", "fourth"] {
        client
            .send(Message::Frame(fragment(Data::Text, n, false)))
            .await;
        client
            .send(Message::Frame(fragment(Data::Continue, "", false)))
            .await;
        client
            .send(Message::Frame(fragment(Data::Continue, " in parts", true)))
            .await;
    }
    for n in 4..20 {
        client.send(n.to_string()).await;
    }
    client.close(1000, "").await;
    for expected in ["0", "1", "third in parts"] {
        assert_eq!(server.text().await, expected);
    }
    // Control frames have a quota of their own.
    assert!(server.next().await.is_close());
    server.ended().await;
    client.closed().await;
    let tally = proxy.record().await.summary.tallies.downstream;
    assert_eq!((tally.messages, tally.dropped), (3, 17));
    proxy.stop().await;
}

#[tokio::test]
async fn quotas_with_close_are_closed_with_1008() {
    let upstream = upstream().await;
    let limits = format!(
        "max_frame_size = \"1KiB\"\n\
         messages = {{ {ONCE}, burst = 5, on_excess = \"close\" }}\n\
         bytes = {{ rate = \"1KiB/h\", burst = \"4KiB\", on_excess = \"close\" }}\n\
         control = {{ {ONCE}, burst = 5, on_excess = \"close\" }}"
    );
    let mut proxy = proxy(upstream.address).section("limits", &limits).start();
    let exceeded = |kind| (1008, 1001, Cause::QuotaExceeded(kind));
    let messages: Vec<u8> = (0..6).flat_map(|_| masked(text("x"))).collect();
    let expected = exceeded(QuotaKind::Messages);
    assert_fails(&mut proxy, &upstream, &messages, expected).await;
    let bytes: Vec<u8> = (0..5).flat_map(|_| masked(binary(vec![0; 1000]))).collect();
    assert_fails(&mut proxy, &upstream, &bytes, exceeded(QuotaKind::Bytes)).await;
    let pings: Vec<u8> = (0..6).flat_map(|_| masked(ping("x"))).collect();
    assert_fails(&mut proxy, &upstream, &pings, exceeded(QuotaKind::Control)).await;
    // Empty fragments are as cheap to send as pings.
    let mut empty = masked(fragment(Data::Text, "", false));
    for _ in 0..5 {
        empty.extend(masked(fragment(Data::Continue, "", false)));
    }
    assert_fails(&mut proxy, &upstream, &empty, exceeded(QuotaKind::Control)).await;
    proxy.stop().await;
}

#[tokio::test]
async fn pings_before_the_token_count_as_well() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section(
            "limits",
            &format!("control = {{ {ONCE}, burst = 5, on_excess = \"close\" }}"),
        )
        .start();
    let mut client = proxy.entrance.raw_open().await;
    let pings: Vec<u8> = (0..6).flat_map(|_| masked(ping("x"))).collect();
    write(&mut client, &pings).await;
    let mut closed = read_frame(&mut client).await.expect("a frame");
    while closed.opcode == 10 {
        closed = read_frame(&mut client).await.expect("a frame");
    }
    assert_eq!(closed.close().0, 1008);
    drop(client);
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::QuotaExceeded(QuotaKind::Control));
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_above_the_cap_is_closed_and_counted_and_a_freed_place_is_taken() {
    let upstream = echo().await;
    let mut proxy = proxy(upstream.address)
        .workers(2)
        .process_limits("max_connections = 2")
        .start();
    let mut first = proxy.entrance.admitted().await;
    let mut second = proxy.entrance.admitted().await;
    first.echoes("one").await;
    second.echoes("two").await;
    let mut third = proxy.entrance.tcp().await;
    assert_eq!(read_to_end(&mut third).await, b"");
    proxy
        .counted("refused connections", 1, |c| c.over_process_cap.get())
        .await;
    first.close(1000, "").await;
    first.closed().await;
    proxy.record().await;
    let mut third = place(&proxy).await;
    third.echoes("three").await;
    second.echoes("still here").await;
    drop((second, third));
    proxy.stop().await;
}

#[tokio::test]
async fn one_address_cannot_take_every_place() {
    let upstream = echo().await;
    let mut proxy = proxy(upstream.address)
        .process_limits("max_connections_per_ip = 1")
        .start();
    let mut first = proxy.entrance.admitted().await;
    first.echoes("one").await;
    let mut second = proxy.entrance.tcp().await;
    assert_eq!(read_to_end(&mut second).await, b"");
    proxy
        .counted("refused connections", 1, |c| c.over_address_cap.get())
        .await;
    // Another address has a place of its own.
    let socket = TcpSocket::new_v4().expect("a socket");
    let other: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    socket.bind(other).expect("all of 127/8 is the loopback");
    let tcp = socket.connect(proxy.entrance.address).await;
    let tls = proxy.entrance.tls_over(tcp.expect("it listens")).await;
    drop(tls.expect("a TLS connection"));
    first.close(1000, "").await;
    first.closed().await;
    proxy.record().await;
    place(&proxy).await.echoes("again").await;
    proxy.stop().await;
}

/// A session as soon as there is a place. It is given back a moment after the record.
async fn place(proxy: &Proxy) -> Client {
    let tls = within("a place", async {
        loop {
            let tcp = proxy.entrance.tcp().await;
            if let Ok(tls) = proxy.entrance.tls_over(tcp).await {
                return tls;
            }
        }
    });
    proxy.entrance.admitted_over(tls.await).await
}
