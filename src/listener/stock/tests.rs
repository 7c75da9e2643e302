//! Sockets that come from elsewhere, matched to the addresses of a configuration.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::*;
use crate::listener::Listener;

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn stock(sockets: Vec<StdListener>) -> (Stock, SocketAddr) {
    let real = sockets[0].local_addr().expect("bound");
    let named = |socket| Named { bind: real, socket };
    let stock = Stock::inherit(sockets.into_iter().map(named).collect());
    (stock.expect("they listen"), real)
}

fn sizes(parts: &[Sockets]) -> Vec<usize> {
    parts.iter().map(|part| part.0.len()).collect()
}

#[test]
fn fewer_workers_accept_at_all_the_sockets_there_are() {
    let (stock, addr) = stock(bind(ANY_PORT.into(), 5).expect("bound"));
    let parts = stock.bind(addr, 2).expect("inherited");
    assert_eq!(sizes(&parts), [3, 2]);
    assert_eq!(stock.forget_inherited(), []);
    assert_eq!(stock.lend().expect("descriptors").len(), 5);
}

#[test]
fn more_workers_bind_more_sockets_to_the_port() {
    let (stock, addr) = stock(bind(ANY_PORT.into(), 2).expect("bound"));
    let parts = stock.bind(addr, 4).expect("inherited");
    assert_eq!(sizes(&parts), [1, 1, 1, 1]);
    for part in &parts {
        assert_eq!(part.local_addr().expect("bound"), addr);
    }
    assert_eq!(stock.lend().expect("descriptors").len(), 4);
}

#[test]
fn a_socket_that_does_not_share_its_port_is_shared() {
    let alone = StdListener::bind(ANY_PORT).expect("bound");
    let (stock, addr) = stock(vec![alone]);
    let parts = stock.bind(addr, 3).expect("inherited");
    assert_eq!(sizes(&parts), [1, 1, 1]);
    assert_eq!(stock.lend().expect("descriptors").len(), 1);
}

#[tokio::test]
async fn nobody_who_waits_in_a_queue_is_lost_whoever_accepts() {
    let sockets = bind(ANY_PORT.into(), 4).expect("bound");
    let (stock, addr) = stock(sockets);
    let mut clients: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(addr).expect("queued"))
        .collect();
    let part = stock.bind(addr, 1).expect("inherited").pop();
    let mut listener = Listener::new(part.expect("one"), 16_384).expect("watched");
    for _ in 0..clients.len() {
        let accepted = listener.accept().await.expect("accepted");
        let mut tcp = accepted.tcp.into_std().expect("a socket");
        tcp.set_nonblocking(false).expect("an option");
        tcp.write_all(b"x").expect("written");
    }
    for client in &mut clients {
        client.read_exact(&mut [0]).expect("served");
    }
}

#[test]
fn what_nobody_asks_for_is_said_and_closed() {
    let (stock, addr) = stock(bind(ANY_PORT.into(), 2).expect("bound"));
    assert_eq!(stock.forget_inherited(), [addr]);
    assert_eq!(stock.forget_inherited(), []);
    TcpStream::connect(addr).expect_err("nobody listens");
}

#[test]
fn only_the_addresses_that_are_kept_can_be_handed_over() {
    let stock = Stock::default();
    let any = ANY_PORT.into();
    let parts = [
        stock.bind(any, 2).expect("bound"),
        stock.bind(any, 2).expect("bound"),
    ];
    assert_eq!(stock.lend().expect("descriptors").len(), 4);
    stock.keep(&[any]);
    let lent = stock.lend().expect("descriptors");
    assert_eq!(lent.len(), 2);
    assert!(lent.iter().all(|(bind, _)| *bind == any));
    drop((lent, parts));
    stock.let_go();
    assert_eq!(stock.lend().expect("descriptors").len(), 0);
}

#[test]
fn several_listeners_with_port_0_find_each_their_own() {
    let any: SocketAddr = ANY_PORT.into();
    let old = Stock::default();
    let first = old.bind(any, 2).expect("bound")[0].local_addr();
    let second = old.bind(any, 2).expect("bound")[0].local_addr();
    let lent = old.lend().expect("descriptors").into_iter();
    let named = lent.map(|(bind, socket)| Named {
        bind,
        socket: socket.into(),
    });
    let new = Stock::inherit(named.collect()).expect("they listen");
    for real in [first, second] {
        let parts = new.bind(any, 2).expect("inherited");
        assert_eq!(sizes(&parts), [1, 1]);
        assert_eq!(parts[0].local_addr().ok(), real.ok());
    }
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let bound = socket(ANY_PORT.into()).expect("a socket");
    bound
        .bind(&SocketAddr::from(ANY_PORT).into())
        .expect("bound");
    let named = Named {
        bind: ANY_PORT.into(),
        socket: bound.into(),
    };
    let error = Stock::inherit(vec![named]).expect_err("it does not listen");
    assert!(error.to_string().contains("no listening socket"), "{error}");
}
