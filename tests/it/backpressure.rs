//! What a reader that does not read costs: no more than the high watermark, and nobody
//! else's time.

use std::time::Duration;

use tidegate::proto::cause::Cause;
use tidegate::proto::side::Side;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::support::client::Tls;
use crate::support::raw::{
    binary, close, fragment, masked, ping, plain, read_frame, read_to_end, write,
};
use crate::support::settings::proxy;
use crate::support::upstream::upstream;
use crate::support::within;

const HIGH: usize = 64 << 10;

/// More than every kernel keeps for one connection whose reader does not read.
const KERNEL: usize = 24 << 20;

const UNLIMITED: &str = "max_frame_size = \"1GiB\"\nmax_message_size = \"1GiB\"\n\
                         messages = \"off\"\nbytes = \"off\"";

/// A binary message of `len` bytes that begins with its number.
fn numbered(n: u32, len: usize) -> Vec<u8> {
    let mut payload = n.to_be_bytes().to_vec();
    payload.resize(len, 0x55);
    payload
}

fn number(payload: &[u8]) -> u32 {
    let (number, _) = payload.split_first_chunk().expect("a number");
    u32::from_be_bytes(*number)
}

/// Sends numbered messages until nothing has been taken for a while; returns the rest of the
/// message that was cut off, and the number of the next. Being too impatient on a busy
/// machine does no harm: less is sent then.
async fn send_until_blocked(server: &mut TcpStream) -> (Vec<u8>, u32) {
    let mut sent = 0;
    for n in 0.. {
        let frame = plain(binary(numbered(n, 10_000)));
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match timeout(Duration::from_millis(500), server.write(rest)).await {
                Ok(written) => rest = &rest[written.expect("the connection is open")..],
                Err(_) => return (rest.to_vec(), n + 1),
            }
        }
        sent += frame.len();
        assert!(
            sent < KERNEL,
            "{sent} bytes were taken for a client that reads nothing"
        );
    }
    unreachable!("the assertion comes first");
}

#[tokio::test]
async fn an_upstream_waits_for_a_client_that_does_not_read_and_nothing_is_lost() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let (mut rest, count) = send_until_blocked(&mut server).await;
    rest.extend(plain(close(1000, "done")));
    let reading = async {
        for n in 0..count {
            let frame = read_frame(&mut client).await.expect("a message");
            assert_eq!(number(&frame.payload), n);
            assert_eq!(frame.payload.len(), 10_000);
        }
        assert_eq!(
            read_frame(&mut client).await.expect("a Close").close().0,
            1000
        );
    };
    tokio::join!(reading, write(&mut server, &rest));
    drop((client, server));
    let summary = proxy.record().await.summary;
    assert_eq!(summary.tallies.upstream.messages, u64::from(count));
    assert_eq!(summary.tallies.upstream.dropped, 0);
    let peak = summary.peaks.upstream;
    assert!((HIGH / 2..=HIGH).contains(&peak), "{peak}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_never_reads_again_is_cut_off() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .route_also("close_timeout = \"300ms\"")
        .section("backpressure", "stall_timeout = \"1s\"")
        .start();
    let client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    // What is sent while the session ends is thrown away, so this never blocks for long.
    let flood = async {
        let frame = plain(binary(vec![0; 32 << 10]));
        while server.write_all(&frame).await.is_ok() {}
    };
    within("the session is ended", flood).await;
    let summary = proxy.record().await.summary;
    assert_eq!(summary.cause, Cause::Stalled(Side::Downstream));
    assert!(summary.peaks.upstream <= HIGH, "{summary:?}");
    // Nothing was read beyond what the client's kernel and the pipe could hold.
    let passed = summary.tallies.upstream.bytes;
    assert!(passed < KERNEL as u64, "{passed}");
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_never_reads_is_cut_off() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .route_also("close_timeout = \"300ms\"")
        .section("limits", UNLIMITED)
        .section("backpressure", "stall_timeout = \"1s\"")
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let server = upstream.accept_raw().await;
    let flood = async {
        let frame = masked(binary(vec![0; 32 << 10]));
        while client.write_all(&frame).await.is_ok() {}
    };
    within("the session is ended", flood).await;
    let summary = proxy.record().await.summary;
    assert_eq!(summary.cause, Cause::Stalled(Side::Upstream));
    assert!(summary.peaks.downstream <= HIGH, "{summary:?}");
    assert!(
        summary.tallies.downstream.bytes < KERNEL as u64,
        "{summary:?}"
    );
    drop(server);
    proxy.stop().await;
}

#[tokio::test]
async fn a_reader_that_takes_a_little_now_and_then_is_not_stalled() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .route_also("close_timeout = \"300ms\"")
        .section("backpressure", "stall_timeout = \"2s\"")
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let flood = async {
        let frame = plain(binary(vec![0; 32 << 10]));
        while server.write_all(&frame).await.is_ok() {}
    };
    let sips = async {
        // Twice the stall timeout, a sip at each eighth of it: enough to open the window.
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        let mut sip = vec![0; 128 << 10];
        for _ in 0..16 {
            ticks.tick().await;
            let read = within("more of the flood", client.read_exact(&mut sip)).await;
            read.expect("the session goes on");
        }
        drop(client);
    };
    tokio::join!(flood, sips);
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::Vanished(Side::Downstream));
    proxy.stop().await;
}

/// What a slow client heard of numbered messages, up to the Close.
struct Heard {
    messages: u64,
    pings: u64,
}

/// Reads whole messages of 4 KiB, each with a higher number than the one before.
async fn hear_numbered(client: &mut Tls) -> Heard {
    let mut heard = Heard {
        messages: 0,
        pings: 0,
    };
    let (mut message, mut last) = (Vec::new(), None);
    loop {
        let frame = read_frame(client).await.expect("a frame");
        match frame.opcode {
            8 => break,
            9 => heard.pings += 1,
            _ => message.extend(frame.payload),
        }
        if frame.is_final && frame.opcode < 8 {
            assert_eq!(message.len(), 4096);
            let n = number(&message);
            assert!(last < Some(n), "{n} after {last:?}");
            last = Some(n);
            heard.messages += 1;
            message.clear();
        }
    }
    write(client, &masked(close(1000, ""))).await;
    read_to_end(client).await;
    heard
}

#[tokio::test]
async fn under_drop_a_slow_client_loses_whole_messages_and_the_upstream_never_waits() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section("backpressure", "on_slow_consumer = \"drop\"")
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let (mut sent, mut pings) = (0, 0);
    while (sent as usize) * 4096 < KERNEL {
        let mut bytes = plain(binary(numbered(sent, 4096)));
        sent += 1;
        if sent % 1000 == 0 {
            pings += 1;
            bytes.extend(plain(ping("still there?")));
        }
        write(&mut server, &bytes).await;
    }
    write(&mut server, &plain(close(1000, "done"))).await;
    let heard = hear_numbered(&mut client).await;
    drop((client, server));
    let summary = proxy.record().await.summary;
    // Control frames are never dropped, and what is dropped is counted.
    assert_eq!(heard.pings, pings);
    assert_eq!(summary.tallies.upstream.messages, heard.messages);
    let dropped = summary.tallies.upstream.dropped;
    assert_eq!(dropped, u64::from(sent) - heard.messages);
    assert!(dropped > 0);
    assert!(summary.peaks.upstream <= HIGH, "{summary:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn under_drop_a_message_in_fragments_is_lost_whole_or_not_at_all() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .section("backpressure", "on_slow_consumer = \"drop\"")
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    let sent = 2000;
    let mut bytes = Vec::new();
    for n in 0..sent {
        let whole = numbered(n, 4096);
        bytes.extend(plain(fragment(Data::Binary, &whole[..1000], false)));
        bytes.extend(plain(fragment(Data::Continue, &whole[1000..4000], false)));
        bytes.extend(plain(fragment(Data::Continue, &whole[4000..], true)));
    }
    bytes.extend(plain(close(1000, "done")));
    // The client begins to read when nothing goes on without it. A message that has begun
    // must be finished, so this may be before everything is sent.
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match timeout(Duration::from_millis(500), server.write(rest)).await {
            Ok(written) => rest = &rest[written.expect("the connection is open")..],
            Err(_) => break,
        }
    }
    let (heard, ()) = tokio::join!(hear_numbered(&mut client), write(&mut server, rest));
    drop((client, server));
    let tally = proxy.record().await.summary.tallies.upstream;
    assert_eq!(tally.messages, heard.messages);
    assert_eq!(tally.dropped, u64::from(sent) - heard.messages);
    assert!(tally.dropped > 0);
    proxy.stop().await;
}

#[tokio::test]
async fn under_close_a_slow_client_is_closed_with_1013() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .route_also("close_timeout = \"30s\"")
        .section(
            "backpressure",
            // What is left above the low watermark takes three times the timeout; what is
            // sealed at a time takes a fifth of it, so this is slow and not stalled.
            "on_slow_consumer = \"close\"\nstall_timeout = \"2s\"\n\
             high_watermark = \"1MiB\"\nlow_watermark = \"1KiB\"",
        )
        .start();
    let mut client = proxy.entrance.narrow_admitted().await;
    let server = upstream.accept_raw().await;
    let (mut hearing, mut flooding) = server.into_split();
    let flood = async {
        let frame = plain(binary(vec![0; 32 << 10]));
        while flooding.write_all(&frame).await.is_ok() {}
    };
    let client_closed = async {
        tokio::select! {
            closed = read_frame(&mut hearing) => assert_eq!(closed.expect("a Close").close().0, 1001),
            () = sip(&mut client) => unreachable!("it never ends"),
        }
        // What the edge still has ends at a boundary, and behind it comes the Close.
        let last_words = plain(close(1013, "reading too slowly"));
        let (mut end, mut more) = (Vec::new(), vec![0; 64 << 10]);
        while !end.ends_with(&last_words) {
            let read = within("the Close", client.read(&mut more)).await;
            let read = read.expect("the connection is open");
            assert_ne!(read, 0, "no Close");
            end.extend(&more[..read]);
        }
    };
    tokio::select! {
        () = flood => unreachable!("the edge does not break off"),
        () = client_closed => {}
    }
    drop((client, hearing, flooding));
    let summary = proxy.record().await.summary;
    assert_eq!(summary.cause, Cause::SlowConsumer);
    assert!(summary.peaks.upstream <= 1 << 20, "{summary:?}");
    proxy.stop().await;
}

/// Makes some progress all the time: 160 KiB in a second.
async fn sip(client: &mut Tls) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut sip = vec![0; 8 << 10];
    loop {
        ticks.tick().await;
        client
            .read_exact(&mut sip)
            .await
            .expect("the session goes on");
    }
}
