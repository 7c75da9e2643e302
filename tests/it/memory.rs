//! What the real program's memory does: flat below a message of any size, and bounded by
//! the watermark for each client that does not read.

use std::fs;
use std::net::SocketAddr;
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::client::{Client, Tls};
use crate::support::program::Program;
use crate::support::raw::{self, binary, masked, plain, read_frame, read_head, text, write};
use crate::support::settings::proxy;
use crate::support::upstream::{switching, upstream};
use crate::support::{token, until, within};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_message_of_one_gibibyte_passes_with_flat_memory() {
    const LEN: u64 = 1 << 30;
    let upstream = upstream().await;
    let program = proxy(upstream.address)
        .section(
            "limits",
            "max_frame_size = \"1GiB\"\nmax_message_size = \"1GiB\"\n\
             messages = \"off\"\nbytes = \"off\"",
        )
        // It may take longer on a busy machine than a client may leave a ping unanswered.
        .section("keepalive", "ping_interval = \"off\"")
        .spawn_quiet()
        .await;
    let mut client = program.entrance.raw_admitted().await;
    let mut server = upstream.accept_raw().await;
    // Both directions have been used once, so that what stays is there.
    let first = vec![1; 64 << 10];
    write(&mut client, &masked(binary(first.clone()))).await;
    assert_eq!(read_frame(&mut server).await.expect("it").payload, first);
    write(&mut server, &plain(binary(first.clone()))).await;
    assert_eq!(read_frame(&mut client).await.expect("it").payload, first);
    let before = program.memory("VmRSS:");

    let sending = async {
        // One frame, with a mask of zeros so that the test has nothing to compute.
        let mut header = vec![0x82, 0xff];
        header.extend(LEN.to_be_bytes());
        header.extend([0; 4]);
        write(&mut client, &header).await;
        let chunk = vec![0; 256 << 10];
        for _ in 0..LEN / chunk.len() as u64 {
            write(&mut client, &chunk).await;
        }
    };
    let receiving = async {
        let mut chunk = vec![0; 256 << 10];
        let mut left = 14 + LEN;
        while left > 0 {
            let read = within("more of the message", server.read(&mut chunk)).await;
            let read = read.expect("the connection is open");
            assert_ne!(read, 0, "{left} bytes are missing");
            left -= read as u64;
        }
        write(&mut server, &plain(text("all of it"))).await;
    };
    tokio::join!(sending, receiving);
    let answer = read_frame(&mut client).await.expect("the answer");
    assert_eq!(answer.payload, b"all of it");
    let growth = program.memory("VmHWM:").saturating_sub(before);
    assert!(growth < 4 * MIB, "grew by {growth} bytes");
    drop((client, server));
    let record = program.record(0).await;
    assert_eq!(record["messages_from_client"], 2);
    program.stop().await;
}

const STALLED: u64 = 1000;

#[tokio::test]
async fn a_thousand_stalled_clients_cost_at_most_their_watermarks_and_nobody_elses_time() {
    allow_descriptors(2 * STALLED + 200);
    for high in [32 << 10, 64 << 10] {
        stall_a_thousand(high).await;
    }
}

async fn stall_a_thousand(high: u64) {
    let upstream = flooding_upstream().await;
    let program = proxy(upstream.address)
        .workers(1)
        .process_limits("max_connections_per_ip = 2000")
        .route_also("close_timeout = \"300ms\"")
        .section(
            "backpressure",
            &format!("high_watermark = \"{high}B\"\nstall_timeout = \"10m\""),
        )
        .section("limits", "messages = \"off\"")
        .section("keepalive", "ping_interval = \"off\"")
        .spawn_quiet()
        .await;
    let mut other = program.entrance.admitted().await;
    other.echoes("hello").await;
    let before = program.memory("VmRSS:");

    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(stalled_client(&program).await);
        if stalled.len() % 100 == 0 {
            assert_echoes_at_once(&mut other).await;
        }
    }
    // Everything that anybody takes has been taken when the flood stands still.
    let mut last = (0, Instant::now());
    until("the flood stands still", || {
        let flooded = upstream.flooded.load(Ordering::Relaxed);
        if flooded != last.0 {
            last = (flooded, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(1)).then_some(())
    })
    .await;
    // It is a flood: far more came than the edge may hold.
    assert!(last.0 > STALLED * 2 * high, "{} bytes", last.0);
    for _ in 0..100 {
        assert_echoes_at_once(&mut other).await;
    }
    let growth = program.memory("VmHWM:").saturating_sub(before);
    let bound = STALLED * (high + (16 << 10));
    assert!(growth < bound, "{growth} bytes, {bound} are allowed");
    drop((stalled, other));
    program.stop().await;
}

/// A client that asks for the flood and reads nothing of it.
async fn stalled_client(program: &Program) -> Tls {
    let tcp = program.entrance.narrow_tcp().await;
    let tls = program.entrance.tls_over(tcp).await;
    let mut tls = tls.expect("a TLS connection");
    let opening = raw::opening("/chat?flood");
    write(&mut tls, opening.text().as_bytes()).await;
    assert_eq!(read_head(&mut tls).await.status(), 101);
    write(&mut tls, &masked(text(&token::message(&token::good())))).await;
    tls
}

/// Far longer than an echo takes, far less than anything waits for a stalled client.
async fn assert_echoes_at_once(client: &mut Client) {
    let asked = Instant::now();
    client.echoes("still there?").await;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}

/// Floods whoever asks for it, and echoes text to everybody else.
struct Flooding {
    address: SocketAddr,
    flooded: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Drop for Flooding {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn flooding_upstream() -> Flooding {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let flooded = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&flooded);
    let accepting = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            // A thousand of the largest would be a load for the test's machine.
            let small = socket2::SockRef::from(&tcp).set_send_buffer_size(64 << 10);
            small.expect("an option is set");
            tokio::spawn(flood_or_echo(tcp, Arc::clone(&count)));
        }
    });
    Flooding {
        address,
        flooded,
        accepting,
    }
}

async fn flood_or_echo(mut tcp: TcpStream, flooded: Arc<AtomicU64>) {
    let head = read_head(&mut tcp).await;
    write(&mut tcp, switching(&head, "").as_bytes()).await;
    if head.first_line.contains("flood") {
        let frame = plain(binary(vec![0; 8 << 10]));
        // Until the session ends.
        while tcp.write_all(&frame).await.is_ok() {
            flooded.fetch_add(frame.len() as u64, Ordering::Relaxed);
        }
        return;
    }
    while let Some(frame) = echo_frame(&mut tcp).await {
        write(&mut tcp, &frame).await;
    }
}

/// The next text as it goes back; `None` at the end of the session. Unbounded in time.
async fn echo_frame(tcp: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 6];
    tcp.read_exact(&mut head).await.ok()?;
    let [first, len, key @ ..] = head;
    assert!(len & 0x7f < 126, "the test says little");
    let mut payload = vec![0; usize::from(len & 0x7f)];
    tcp.read_exact(&mut payload).await.ok()?;
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    let header = vec![first, u8::try_from(payload.len()).ok()?];
    Some([header, payload].concat())
}

/// Raises this process's own limit on open files, which its children inherit.
pub fn allow_descriptors(needed: u64) {
    let id = process::id().to_string();
    let raise = format!("--nofile={needed}:");
    let enough = || {
        let limits = fs::read_to_string("/proc/self/limits").expect("Linux");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let soft = line.and_then(|line| line.split_whitespace().nth(3));
        let soft = soft.expect("a limit");
        soft == "unlimited" || soft.parse::<u64>().expect("a number") >= needed
    };
    if !enough() {
        let raised = Command::new("prlimit")
            .args(["--pid", &id, &raise])
            .status();
        assert!(
            raised.is_ok_and(|status| status.success()) && enough(),
            "this test needs {needed} open files: raise the hard limit (`ulimit -Hn`)"
        );
    }
}
