//! The memory of the process for bytes on their way: who waits and who goes when it runs short,
//! and that the account is exact.

use std::net::SocketAddr;

use tidegate::proto::cause::Cause;
use tidegate::proto::close::CloseCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::client::Tls;
use crate::support::proxy::Proxy;
use crate::support::raw::{binary, opening, plain, read_head, write};
use crate::support::settings::{ORIGIN, proxy};
use crate::support::until;
use crate::support::upstream::{echo, switching};

const SMALL: usize = 64 << 10;
const LARGE: usize = 1 << 20;
const BUDGET: usize = 4 << 20;
const WORKERS: usize = 2;

/// Sends without end to whoever connects.
async fn flooding() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let accepting = tokio::spawn(async move {
        // Dropped with the task, and so are those that flood.
        let mut floods = JoinSet::new();
        loop {
            let (tcp, _) = listener.accept().await.expect("a connection");
            floods.spawn(flood(tcp));
        }
    });
    (address, accepting)
}

async fn flood(mut tcp: TcpStream) {
    let head = read_head(&mut tcp).await;
    write(&mut tcp, switching(&head, "").as_bytes()).await;
    let frame = plain(binary(vec![0; 8 << 10]));
    while tokio::io::AsyncWriteExt::write_all(&mut tcp, &frame)
        .await
        .is_ok()
    {}
}

fn route(name: &str, high: usize) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\norigins = [\"{ORIGIN}\"]\n\
         upstream = \"flooding\"\nauth = {{ method = \"none\" }}\n\
         close_timeout = \"300ms\"\nbackpressure = {{ high_watermark = \"{high}B\" }}\n\
         keepalive = {{ ping_interval = \"off\" }}\n"
    )
}

/// A client that never reads.
async fn stalled(proxy: &Proxy, target: &str) -> Tls {
    let tcp = proxy.entrance.narrow_tcp().await;
    let mut tls = proxy.entrance.tls_over(tcp).await.expect("TLS");
    write(&mut tls, opening(target).text().as_bytes()).await;
    assert_eq!(read_head(&mut tls).await.status(), 101);
    tls
}

#[tokio::test]
async fn beyond_the_budget_the_largest_go_first_and_the_account_returns_to_nothing() {
    let echo = echo().await;
    let (address, flooding) = flooding().await;
    let mut proxy = proxy(echo.address)
        .workers(WORKERS)
        .process_limits("max_buffered = \"4MiB\"")
        .more(&format!(
            "[[upstream]]\nname = \"flooding\"\nendpoints = [\"ws://{address}\"]\n"
        ))
        .more(&route("small", SMALL))
        .more(&route("large", LARGE))
        .start();
    let mut other = proxy.entrance.admitted().await;
    other.echoes("before").await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(stalled(&proxy, "/small").await);
    }
    // Most pipes are full, or have been: a little is taken even by those who do not read.
    until("pipes are full", || {
        Some(proxy.buffered()).filter(|total| *total >= 16 * SMALL)
    })
    .await;

    // Two of these fit beside the small ones, and no more.
    for _ in 0..8 {
        clients.push(stalled(&proxy, "/large").await);
        other.echoes("meanwhile").await;
    }
    for _ in 0..6 {
        let record = proxy.record().await;
        assert_eq!(record.route, "large");
        assert_eq!(record.summary.cause, Cause::Overloaded);
        let code = record.summary.close_codes.upstream.map(CloseCode::get);
        assert_eq!(code, Some(1001));
    }
    until("what is left fits", || {
        let total = proxy.buffered();
        (total < BUDGET).then_some(())
    })
    .await;
    assert!(proxy.buffered() >= 16 * SMALL);

    drop(clients);
    flooding.abort();
    until("nothing is owned", || (proxy.buffered() == 0).then_some(())).await;
    other.echoes("after").await;
    proxy.stop().await;
}
