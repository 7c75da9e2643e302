//! Endpoints of an upstream behind a first-message route: turns, retries, and what a client
//! hears when there is none.

use std::collections::BTreeMap;

use tidegate::proto::cause::{Cause, DialFailure};

use crate::support::raw::{read_frame, write};
use crate::support::settings::proxy;
use crate::support::upstream::{echo, upstream};
use crate::support::{token, within};

#[tokio::test]
async fn no_endpoint_is_closed_with_1013() {
    let dead = upstream().await.into_dead();
    let mut proxy = proxy(dead).start();
    let client = proxy.entrance.admitted().await;
    assert_eq!(
        client.closed().await,
        (1013, "upstream unavailable".to_owned())
    );
    let record = proxy.record().await;
    assert_eq!(
        record.summary.cause,
        Cause::DialFailed(DialFailure::Unreachable)
    );
    assert_eq!(record.subject.as_deref(), Some("alice"));
    assert!(record.detail.is_some());
    proxy
        .counted("failed sessions", 1, |c| c.sessions_failed.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_refuses_or_answers_wrongly_is_closed_with_1014() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    for answer in [
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nsecret",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "220 mail.example.com ESMTP\r\n",
        "",
    ] {
        let mut client = proxy.entrance.raw_admitted().await;
        let (mut server, _) = upstream.asked().await;
        write(&mut server, answer.as_bytes()).await;
        drop(server);
        let closed = read_frame(&mut client).await.expect("a Close");
        // Nothing of what the upstream said.
        assert_eq!(
            closed.close(),
            (1014, "upstream failed".to_owned()),
            "{answer}"
        );
        drop(client);
        let cause = proxy.record().await.summary.cause;
        assert_eq!(cause, Cause::DialFailed(DialFailure::Refused), "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_answers_too_late_is_closed_with_1014() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .upstream("handshake_timeout = \"200ms\"")
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let (server, _) = upstream.asked().await;
    let closed = read_frame(&mut client).await.expect("a Close");
    assert_eq!(closed.close().0, 1014);
    drop((client, server));
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::DialFailed(DialFailure::TimedOut));
    proxy.stop().await;
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (one, two, three) = (echo().await, echo().await, echo().await);
    let addresses = [one.address, two.address, three.address];
    let mut proxy = proxy(one.address).endpoints(&addresses).start();
    let mut turns = BTreeMap::new();
    for _ in 0..9 {
        let mut client = proxy.entrance.admitted().await;
        client.echoes("hello").await;
        client.close(1000, "").await;
        client.closed().await;
        let endpoint = proxy.record().await.endpoint.expect("it was dialled");
        *turns.entry(endpoint).or_insert(0) += 1;
    }
    let expected = addresses.map(|address| (address.to_string(), 3));
    assert_eq!(turns, BTreeMap::from(expected));
    proxy.stop().await;
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_session_while_another_lives() {
    let dead = upstream().await.into_dead();
    let live = echo().await;
    let mut proxy = proxy(dead).endpoints(&[dead, live.address]).start();
    for _ in 0..4 {
        let mut client = proxy.entrance.admitted().await;
        client.echoes("hello").await;
        client.close(1000, "").await;
        client.closed().await;
        let record = proxy.record().await;
        assert_eq!(record.endpoint, Some(live.address.to_string()));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_elsewhere() {
    let (refusing, other) = (upstream().await, upstream().await);
    let proxy = proxy(refusing.address)
        .endpoints(&[refusing.address, other.address])
        .start();
    let mut client = proxy.entrance.raw_admitted().await;
    let (mut server, _) = refusing.asked().await;
    write(
        &mut server,
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(
        read_frame(&mut client).await.expect("a Close").close().0,
        1014
    );
    other.assert_untouched();
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn an_endpoints_own_path_replaces_the_clients_and_keeps_its_query() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .endpoint_path("/inner/ws?edge=1")
        .start();
    let request = proxy.entrance.request("/chat?room=7");
    let (mut client, _) = proxy.entrance.ask(request).await.expect("a 101");
    client.send(token::message(&token::good())).await;
    let (server, head) = upstream.asked().await;
    assert_eq!(head.first_line, "GET /inner/ws?edge=1&room=7 HTTP/1.1");
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_upstream_is_dialled_is_noticed() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .upstream("handshake_timeout = \"300ms\"")
        .start();
    let client = proxy.entrance.admitted().await;
    let (server, _) = upstream.asked().await;
    drop(client);
    // At the latest when the upstream has had its time.
    within("a record", proxy.record()).await;
    drop(server);
    proxy.stop().await;
}
