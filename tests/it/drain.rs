//! The end of the process: SIGTERM to the real program, with sessions open.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream as StdStream;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::admin::{get, post, send};
use crate::support::client::Tls;
use crate::support::program::Program;
use crate::support::raw::{
    binary, close, masked, opening, plain, read_frame, read_head, read_to_end, write,
};
use crate::support::settings::{ORIGIN, Settings, proxy};
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
    let drained = program.said("drained").await;
    for (count, expected) in [
        ("sessions", 10),
        ("closed", 10),
        ("cut_off", 0),
        ("ended_by_themselves", 0),
        ("lost", 0),
    ] {
        assert_eq!(drained[count], expected, "{count}: {drained}");
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
    // No Close inside the frame, but a record all the same.
    assert_eq!(read_to_end(&mut held.client).await, b"");
    assert_eq!(held.program.record(0).await["cause"], "drained");
    let drained = held.program.said("drained").await;
    assert_eq!(
        (&drained["sessions"], &drained["cut_off"]),
        (&1.into(), &1.into())
    );
}

#[tokio::test]
async fn a_lame_duck_is_not_ready_but_lets_clients_in_until_it_is_over() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address)
        .drain("lame_duck = \"3s\", spread = \"0s\"")
        .more("[admin]\nbind = \"127.0.0.1:0\"\n")
        .spawn()
        .await;
    let admin = program.admin().await;
    assert_eq!(get(admin, "/readyz").await.status(), 200);
    let mut before = program.entrance.admitted().await;
    let started = Instant::now();
    program.signal("TERM");
    program
        .said("draining: not ready any more, clients are still let in")
        .await;
    let unready = get(admin, "/readyz").await;
    assert_eq!((unready.status(), &*unready.body), (503, "draining\n"));
    let mut during = program.entrance.admitted().await;
    during.echoes("late, and welcome").await;
    before.echoes("nobody asked me to go").await;
    for client in [before, during] {
        assert_eq!(client.closed().await.0, 1012);
    }
    assert_took(started, 3 * SECOND, 20 * SECOND);
    assert_eq!(program.exited().await.code(), Some(0));
    assert_eq!(program.said("drained").await["closed"], 2);
}

#[tokio::test]
async fn an_interrupt_at_the_terminal_waits_for_no_load_balancer() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address)
        .grace("10m")
        .drain("lame_duck = \"5m\", spread = \"0s\"")
        .spawn()
        .await;
    let mut client = program.entrance.admitted().await;
    client.echoes("hello").await;
    program.signal("INT");
    assert_eq!(client.closed().await.0, 1012);
    assert_eq!(program.exited().await.code(), Some(0));
}

#[tokio::test]
async fn who_has_not_asked_for_anything_does_not_hold_the_drain() {
    let upstream = echo().await;
    let settings = proxy(upstream.address).grace("10m");
    let mut program = settings.tls("handshake_timeout = \"5m\"").spawn().await;
    let (mut silent, mut tls) = (program.entrance.tcp().await, program.entrance.tls().await);
    program.signal("TERM");
    assert_eq!(program.exited().await.code(), Some(0));
    // Reset or ended: nobody answers them.
    let mut byte = [0];
    assert!(!matches!(
        within("an end", silent.read(&mut byte)).await,
        Ok(1)
    ));
    assert!(!matches!(
        within("an end", tls.read(&mut byte)).await,
        Ok(1)
    ));
}

/// Not even the balancer in front of it has said so.
#[tokio::test]
async fn a_hand_over_waits_for_a_client_that_has_said_nothing() {
    let upstream = echo().await;
    let mut proxy = proxy(upstream.address)
        .without_token()
        .listener("trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = \"require\"")
        .start();
    let address = proxy.entrance.address;
    let tcp = within("a connection", TcpStream::connect(address)).await;
    let mut tcp = tcp.expect("it listens");
    proxy.counted("accepted", 1, |c| c.accepted.get()).await;
    proxy.hand_over();
    until("connections are refused", || {
        StdStream::connect(address).err().map(drop)
    })
    .await;
    write(&mut tcp, b"PROXY UNKNOWN\r\n").await;
    let mut tls = proxy.entrance.tls_over(tcp).await.expect("TLS");
    write(&mut tls, opening("/chat").text().as_bytes()).await;
    assert_eq!(read_head(&mut tls).await.status(), 101);
    drop(tls);
    proxy.ended().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_request_that_comes_while_it_drains_is_sent_away() {
    let mut held = Held::new(|settings| settings.grace("10m")).await;
    let mut late = held.program.entrance.tls().await;
    held.program.signal("TERM");
    held.program
        .said("draining: no new connections, sessions are closed with 1012")
        .await;
    until("connections are refused", || {
        StdStream::connect(held.program.entrance.address).err()
    })
    .await;
    write(&mut late, opening("/chat").text().as_bytes()).await;
    assert_eq!(read_head(&mut late).await.status(), 503);
    drop((held.client, held.server));
    assert_eq!(held.program.exited().await.code(), Some(0));
}

#[tokio::test]
async fn one_route_is_drained_and_nothing_else() {
    let upstream = echo().await;
    let other = format!(
        "[[route]]\nname = \"other\"\nupstream = \"server\"\npath = \"/other\"\n\
         origins = [\"{ORIGIN}\"]\nauth.method = \"none\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n"
    );
    let settings = proxy(upstream.address).workers(2).more(&other);
    let program = settings.spawn().await;
    let admin = program.admin().await;
    let mut staying = program.entrance.admitted().await;
    staying.echoes("here").await;
    let mut leaving = Vec::new();
    for _ in 0..6 {
        let asked = program.entrance.ask(program.entrance.request("/other"));
        let (mut client, _) = asked.await.expect("a 101");
        client.echoes("here").await;
        leaving.push(client);
    }
    let answered = post(admin, "/drain?route=other").await;
    assert_eq!(answered.status(), 202, "{}", answered.body);
    for client in leaving {
        assert_eq!(client.closed().await.0, 1012);
    }
    assert_eq!(program.said("route drained").await["sessions"], 6);
    staying.echoes("still here").await;
    assert_eq!(get(admin, "/readyz").await.status(), 200);
    // It is not closed: whoever comes back comes in.
    let asked = program.entrance.ask(program.entrance.request("/other"));
    let (mut client, _) = asked.await.expect("a 101");
    client.echoes("again").await;
    for (path, status) in [
        ("/drain?route=nobody", 404),
        ("/drain?route=", 400),
        ("/drain?path=other", 400),
        ("/drain?", 400),
    ] {
        assert_eq!(post(admin, path).await.status(), status, "{path}");
    }
    drop((client, staying));
    program.stop().await;
}

#[tokio::test]
async fn a_route_is_drained_once_at_a_time_and_waits_for_no_other() {
    let upstream = echo().await;
    let other = format!(
        "[[route]]\nname = \"other\"\nupstream = \"server\"\npath = \"/other\"\n\
         origins = [\"{ORIGIN}\"]\nauth.method = \"none\"\n\
         [admin]\nbind = \"127.0.0.1:0\"\n"
    );
    let program = proxy(upstream.address)
        .grace("2h")
        .drain("lame_duck = \"0s\", spread = \"1h\"")
        .more(&other)
        .spawn()
        .await;
    let admin = program.admin().await;
    let mut leaving = Vec::new();
    for _ in 0..3 {
        let mut client = program.entrance.admitted().await;
        client.echoes("here").await;
        leaving.push(client);
    }
    let drain = async |route: &str| {
        let answered = post(admin, &format!("/drain?route={route}")).await;
        assert_eq!(answered.status(), 202, "{}", answered.body);
        answered.body
    };
    assert!(drain("chat").await.contains("\"spread\":\"1h\""));
    // Who came back meanwhile would be sent away by a second one.
    assert!(drain("chat").await.contains("\"begun\":\"before\""));
    drain("other").await;
    let drained = program.said("route drained").await;
    assert_eq!(
        (&drained["route"], &drained["sessions"]),
        (&"other".into(), &0.into())
    );
    assert_eq!(
        program.times_said("draining a route: its sessions are closed with 1012"),
        2
    );
    // What is over may be done again.
    let again = drain("other").await;
    assert!(again.contains("\"spread\""), "{again}");
    drop(leaving);
    program.stop().await;
}

#[tokio::test]
async fn an_operator_can_drain_the_whole_process_at_the_admin_address() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address)
        .drain("lame_duck = \"0s\", spread = \"0s\"")
        .more("[admin]\nbind = \"127.0.0.1:0\"\n")
        .spawn()
        .await;
    let admin = program.admin().await;
    let mut client = program.entrance.admitted().await;
    client.echoes("hello").await;
    let form = format!(
        "POST /drain HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    );
    assert_eq!(send(admin, &form).await.status(), 415);
    client.echoes("still here").await;
    assert_eq!(post(admin, "/drain").await.status(), 202);
    assert_eq!(client.closed().await.0, 1012);
    assert_eq!(program.exited().await.code(), Some(0));
}

/// Sessions of the test of the spread, and how long it takes.
const SESSIONS: usize = 5_000;
const SPREAD: Duration = Duration::from_secs(10);

#[tokio::test]
async fn five_thousand_sessions_are_closed_evenly_over_the_spread() {
    let upstream = upstream().await;
    let mut program = proxy(upstream.address)
        .workers(2)
        .grace("60s")
        .drain("spread = \"10s\"")
        .process_limits("max_connections_per_ip = 10000")
        .without_token()
        .section("keepalive", "ping_interval = \"off\"")
        .more("[[listener]]\nbind = \"127.0.0.1:0\"\nplaintext = true\n")
        .spawn_quiet()
        .await;
    let address = program.listener(1).await;
    let mut clients = JoinSet::new();
    let mut servers = Vec::new();
    let (began, when) = watch::channel(None::<Instant>);
    for _ in 0..SESSIONS {
        let tcp = within("a connection", TcpStream::connect(address)).await;
        let mut tcp = tcp.expect("it listens");
        write(&mut tcp, opening("/chat").text().as_bytes()).await;
        servers.push(upstream.accept_raw().await);
        assert_eq!(read_head(&mut tcp).await.status(), 101);
        let mut when = when.clone();
        clients.spawn(async move {
            // All of them have to be there first, which may take a while.
            let began = *when
                .wait_for(Option::is_some)
                .await
                .expect("the test goes on");
            let closed = read_frame(&mut tcp).await.expect("a Close").close();
            let at = began.expect("the signal came first").elapsed();
            write(&mut tcp, &masked(close(1012, ""))).await;
            (closed.0, at)
        });
    }
    began.send_replace(Some(Instant::now()));
    program.signal("TERM");
    let mut moments = Vec::new();
    while let Some(closed) = within("a Close", clients.join_next()).await {
        let (code, at) = closed.expect("a client");
        assert_eq!(code, 1012);
        moments.push(at);
    }
    moments.sort_unstable();
    assert_eq!(moments.len(), SESSIONS);
    let mut seconds = HashMap::new();
    for at in &moments {
        *seconds.entry(at.as_secs()).or_insert(0) += 1;
    }
    let mean = SESSIONS / usize::try_from(SPREAD.as_secs()).expect("seconds");
    assert!(seconds.values().all(|n| *n <= 2 * mean), "{seconds:?}");
    assert!(
        moments[SESSIONS - 1] >= SPREAD * 9 / 10,
        "{:?}",
        moments.last()
    );
    drop(servers);
    assert_eq!(program.exited().await.code(), Some(0));
    let drained = program.said("drained").await;
    assert_eq!(
        (&drained["closed"], &drained["lost"]),
        (&SESSIONS.into(), &0.into())
    );
}
