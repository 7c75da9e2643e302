//! The end of the process: SIGTERM to the real program, with sessions open.

use std::io;
use std::net::TcpStream as StdStream;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::client::Tls;
use crate::support::program::Program;
use crate::support::raw::{binary, close, masked, plain, read_frame, read_to_end, write};
use crate::support::settings::{Settings, proxy};
use crate::support::upstream::{echo, upstream};
use crate::support::{assert_took, until, within};

const SECOND: Duration = Duration::from_secs(1);

/// A session with half a frame on its way to the client: at no boundary.
struct Held {
    program: Program,
    client: Tls,
    server: TcpStream,
    frame: Vec<u8>,
}

impl Held {
    async fn new(settings: impl FnOnce(Settings) -> Settings) -> Self {
        let upstream = upstream().await;
        let program = settings(proxy(upstream.address)).spawn().await;
        let mut client = program.entrance.raw_admitted().await;
        let mut server = upstream.accept_raw().await;
        let frame = plain(binary(vec![7; 1000]));
        write(&mut server, &frame[..500]).await;
        let mut half = vec![0; 500];
        let read = within("half a frame", client.read_exact(&mut half)).await;
        read.expect("half a frame");
        Self {
            program,
            client,
            server,
            frame,
        }
    }
}

#[tokio::test]
async fn sessions_are_closed_with_1012_and_the_program_ends_with_0() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address).workers(2).spawn().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = program.entrance.admitted().await;
        client.echoes("hello").await;
        clients.push(client);
    }
    program.signal("TERM");
    for client in clients {
        assert_eq!(client.closed().await, (1012, "restarting".to_owned()));
    }
    let status = program.exited().await;
    assert_eq!(status.code(), Some(0));
    for n in 0..10 {
        let record = program.record(n).await;
        assert_eq!(record["cause"], "drained");
        assert_eq!(record["code_to_client"], 1012);
        assert_eq!(record["code_to_upstream"], 1001);
    }
    let counts = program.said("counts since the start").await;
    assert_eq!(counts["sessions"], 10);
}

#[tokio::test]
async fn a_frame_under_way_is_finished_before_the_close() {
    let mut held = Held::new(|settings| settings).await;
    held.program.signal("INT");
    held.program
        .said("draining: no new connections, sessions are closed with 1012")
        .await;
    // The upstream hears of the end, and is given time to finish.
    assert_eq!(
        read_frame(&mut held.server)
            .await
            .expect("a Close")
            .close()
            .0,
        1001
    );
    write(&mut held.server, &held.frame[500..]).await;
    let mut half = vec![0; held.frame.len() - 500];
    let read = within("the rest", held.client.read_exact(&mut half)).await;
    read.expect("the rest");
    assert_eq!(half, held.frame[500..]);
    let closed = read_frame(&mut held.client).await.expect("a Close");
    assert_eq!(closed.close().0, 1012);
    write(&mut held.client, &masked(close(1012, ""))).await;
    write(&mut held.server, &plain(close(1001, ""))).await;
    assert_eq!(held.program.exited().await.code(), Some(0));
}

#[tokio::test]
async fn nobody_new_gets_in_while_it_drains() {
    let mut held = Held::new(|settings| settings).await;
    let address = held.program.entrance.address;
    held.program.signal("TERM");
    // One that is under way while the socket closes may be reset instead.
    until("connections are refused", || {
        let failed = StdStream::connect(address).err()?;
        (failed.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
    // The session that was there is still there.
    held.program.assert_running();
    write(&mut held.server, &held.frame[500..]).await;
    let mut half = vec![0; held.frame.len() - 500];
    let read = within("the rest", held.client.read_exact(&mut half)).await;
    read.expect("the rest");
    drop((held.client, held.server));
    assert_eq!(held.program.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut held = Held::new(|settings| settings).await;
    held.program.signal("TERM");
    held.program
        .said("draining: no new connections, sessions are closed with 1012")
        .await;
    held.program.signal("TERM");
    assert_eq!(held.program.exited().await.code(), Some(1));
    read_to_end(&mut held.client).await;
}

#[tokio::test]
async fn the_grace_period_cuts_off_what_does_not_end() {
    let long = |settings: Settings| settings.grace("1s").route_also("close_timeout = \"60s\"");
    let mut held = Held::new(long).await;
    let started = Instant::now();
    held.program.signal("TERM");
    let status = held.program.exited().await;
    assert_took(started, SECOND * 9 / 10, 20 * SECOND);
    assert_eq!(status.code(), Some(0));
    let line = held
        .program
        .said("grace period over: closing the connections left")
        .await;
    assert_eq!(line["left"], 1);
    // No Close inside the frame.
    assert_eq!(read_to_end(&mut held.client).await, b"");
}
