//! Real sockets on loopback.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn addr_of(socket: &StdListener) -> SocketAddr {
    socket.local_addr().expect("bound")
}

#[tokio::test]
async fn every_worker_has_a_socket_on_the_one_port_and_all_get_connections() {
    let sockets = bind(LOOPBACK.into(), 3).expect("bound");
    let addr = addr_of(&sockets[0]);
    assert_ne!(addr.port(), 0);
    assert!(sockets.iter().all(|socket| addr_of(socket) == addr));
    let mut listeners: Vec<_> = sockets
        .into_iter()
        .map(|socket| Listener::new(socket, 16_384).expect("watched"))
        .collect();
    let [a, b, c] = listeners.as_mut_slice() else {
        panic!("three sockets expected");
    };
    let mut seen = [0_usize; 3];
    // The kernel chooses by a hash of the client's port: 200 connections that all miss one of
    // three sockets would be a fault of ours.
    for _ in 0..200 {
        let client = TcpStream::connect(addr).await.expect("connected");
        let (i, accepted) = tokio::select! {
            accepted = a.accept() => (0, accepted),
            accepted = b.accept() => (1, accepted),
            accepted = c.accept() => (2, accepted),
        };
        let accepted = accepted.expect("accepted");
        assert_eq!(accepted.peer, client.local_addr().expect("connected"));
        seen[i] += 1;
    }
    assert!(seen.iter().all(|&n| n > 0), "{seen:?}");
}

/// Nothing is awaited between: the runtime does not know of them.
#[tokio::test]
async fn those_who_wait_are_let_in_at_once_also_after_a_failed_accept() {
    let mut sockets = bind(LOOPBACK.into(), 1).expect("bound");
    let socket = sockets.pop().expect("one");
    let addr = addr_of(&socket);
    let mut listener = Listener::new(socket, 16_384).expect("watched");
    listener.failed(io::Error::other("out of descriptors"));
    assert!(listener.paused_until.is_some());
    let connect = || std::net::TcpStream::connect(addr).expect("it listens");
    let clients = [connect(), connect(), connect()];
    let accepted: Vec<_> = listener
        .accept_waiting()
        .into_iter()
        .map(|accepted| accepted.expect("accepted"))
        .collect();
    let from: Vec<_> = accepted.iter().map(|accepted| accepted.peer).collect();
    let wanted = clients.map(|client| client.local_addr().expect("connected"));
    assert_eq!(from, wanted);
    assert!(
        accepted
            .iter()
            .all(|accepted| accepted.tcp.nodelay().expect("a socket"))
    );
    assert!(listener.accept_waiting().is_empty());
}

#[test]
fn an_address_in_use_is_refused_with_the_address_and_the_remedy() {
    // By one that shares its port, like another Tidegate, and by one that does not.
    for workers in [1, 2] {
        let taken = bind(LOOPBACK.into(), workers).expect("bound");
        let addr = addr_of(&taken[0]);
        let error = bind(addr, 2).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()), "{text}");
        assert!(
            text.contains(&format!("sport = :{}", addr.port())),
            "{text}"
        );
        assert!(error.source().is_some());
    }
}

#[test]
fn an_address_that_is_not_ours_is_refused_with_the_remedy() {
    // TEST-NET-1, which no interface has.
    let addr = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = bind(addr, 1).expect_err("not ours");
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
}

/// Others may take a free port at any moment, so what must work is tried a few times.
fn works_soon(attempt: impl Fn() -> io::Result<bool>) -> bool {
    (0..20).any(|_| attempt().is_ok_and(|works| works))
}

#[test]
fn a_port_is_free_again_as_soon_as_its_sockets_are_closed() {
    assert!(works_soon(|| {
        let sockets = bind(LOOPBACK.into(), 2)?;
        let addr = addr_of(&sockets[0]);
        drop(sockets);
        Ok(addr_of(&bind(addr, 2)?[1]) == addr)
    }));
}

#[test]
fn both_families_can_listen_on_one_port() {
    assert!(works_soon(|| {
        let v6 = bind((Ipv6Addr::UNSPECIFIED, 0).into(), 2)?;
        let port = addr_of(&v6[0]).port();
        let v4 = bind((Ipv4Addr::UNSPECIFIED, port).into(), 2)?;
        let is_v6_alone = SockRef::from(&v6[1]).only_v6()?;
        Ok(is_v6_alone && addr_of(&v4[1]).port() == port)
    }));
}

#[tokio::test]
async fn an_accepted_connection_has_its_options_set() {
    let sockets = bind(LOOPBACK.into(), 1).expect("bound");
    let addr = addr_of(&sockets[0]);
    let mut listeners = sockets.into_iter();
    let socket = listeners.next().expect("one socket");
    let mut listener = Listener::new(socket, 12_345).expect("watched");
    assert_eq!(listener.local_addr().expect("bound"), addr);
    let _client = TcpStream::connect(addr).await.expect("connected");
    let Accepted { tcp, .. } = listener.accept().await.expect("accepted");
    assert!(tcp.nodelay().expect("asked"));
    let lowat = SockRef::from(&tcp).tcp_notsent_lowat().expect("asked");
    assert_eq!(lowat, 12_345);
}

/// A listener that never had a failure.
fn listener() -> (Listener, SocketAddr) {
    let mut sockets = bind(LOOPBACK.into(), 1).expect("bound");
    let socket = sockets.pop().expect("one socket");
    let addr = addr_of(&socket);
    (Listener::new(socket, 16_384).expect("watched"), addr)
}

#[tokio::test(start_paused = true)]
async fn running_out_of_something_pauses_the_next_accept_longer_each_time() {
    let (mut listener, addr) = listener();
    let _client = std::net::TcpStream::connect(addr).expect("connected");
    // EMFILE, ENFILE, ENOBUFS, ENOMEM, and one that means nothing here.
    for (errno, pause) in [(24, 5), (23, 10), (105, 20), (12, 40), (9999, 80)] {
        let error = listener.failed(io::Error::from_raw_os_error(errno));
        assert_eq!(error.raw_os_error(), Some(errno));
        let paused = listener.paused_until.expect("a pause");
        assert_eq!(paused - Instant::now(), Duration::from_millis(pause));
    }
    let before = Instant::now();
    listener.accept().await.expect("accepted after the pause");
    assert!(before.elapsed() >= Duration::from_millis(80));
    assert!(listener.paused_until.is_none());
    listener.failed(io::Error::from_raw_os_error(24));
    let paused = listener.paused_until.expect("a pause");
    assert_eq!(paused - Instant::now(), Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_failed_alone_pauses_nothing() {
    let (mut listener, _addr) = listener();
    // ECONNABORTED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT.
    for errno in [103, 104, 113, 101, 110] {
        listener.failed(io::Error::from_raw_os_error(errno));
        assert!(listener.paused_until.is_none(), "{errno}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_a_dropped_accept() {
    let (mut listener, addr) = listener();
    let _client = std::net::TcpStream::connect(addr).expect("connected");
    listener.failed(io::Error::from_raw_os_error(24));
    let before = Instant::now();
    let early = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(early.is_err());
    listener.accept().await.expect("accepted");
    assert!(before.elapsed() >= Duration::from_millis(5));
}
