//! Several listeners, routes and upstreams in one process.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::support::raw::{
    Opening, masked, opening, raw_open_on, read_frame, read_head, text, write,
};
use crate::support::settings::{ORIGIN, proxy};
use crate::support::token;
use crate::support::upstream::{Upstream, echo, switching, upstream};

fn route(name: &str, keys: &str, upstream: SocketAddr) -> String {
    format!(
        "[[upstream]]\nname = \"{name}\"\nendpoints = [\"ws://{upstream}\"]\n\
         [[route]]\nname = \"{name}\"\nupstream = \"{name}\"\norigins = [\"{ORIGIN}\"]\n\
         {keys}\nauth = {{ method = \"none\" }}\n"
    )
}

#[tokio::test]
async fn the_most_specific_route_decides_where_a_client_gets_to() {
    let (any, host, wild, deep) = (
        upstream().await,
        upstream().await,
        upstream().await,
        upstream().await,
    );
    let proxy = proxy(any.address)
        .without_token()
        .route(&format!("path = \"/chat/*\"\norigins = [\"{ORIGIN}\"]"))
        .more(&route(
            "host",
            "host = \"a.example.com\"\npath = \"/chat/*\"",
            host.address,
        ))
        .more(&route(
            "wild",
            "host = \"*.example.com\"\npath = \"/chat/*\"",
            wild.address,
        ))
        .more(&route("deep", "path = \"/chat/deep\"", deep.address))
        .start();
    let to =
        |host: &str, path: &str| -> Opening { opening(path).without("Host").with("Host", host) };
    let cases: [(&str, &str, &Upstream); 7] = [
        ("localhost", "/chat/x", &any),
        ("localhost", "/chat/deep", &deep),
        ("localhost", "/chat/deeper", &any),
        ("A.example.com:8443", "/chat/x", &host),
        ("b.example.com", "/chat/x", &wild),
        ("c.b.example.com.", "/chat/x?q=/chat/deep", &wild),
        ("example.com", "/chat/x", &any),
    ];
    for (host, path, expected) in cases {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, to(host, path).text().as_bytes()).await;
        // Whoever else is dialled leaves this one waiting.
        let (mut server, head) = expected.asked().await;
        assert_eq!(head.first_line, format!("GET {path} HTTP/1.1"));
        assert_eq!(head.field("x-forwarded-host"), Some(host));
        write(&mut server, switching(&head, "").as_bytes()).await;
        assert_eq!(read_head(&mut tls).await.status(), 101, "{host} {path}");
    }
    let mut tls = proxy.entrance.tls().await;
    write(&mut tls, to("localhost", "/other").text().as_bytes()).await;
    assert_eq!(read_head(&mut tls).await.status(), 404);
    drop(tls);
    proxy.stop().await;
}

#[tokio::test]
async fn every_listener_serves_every_route_on_every_worker() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address)
        .workers(2)
        .more("[[listener]]\nbind = \"127.0.0.2:0\"\nplaintext = true\n")
        .start();
    let [secure, clear] = proxy.addresses[..] else {
        panic!("two listeners: {:?}", proxy.addresses);
    };
    assert_eq!(secure, proxy.entrance.address);
    let mut client = proxy.entrance.admitted().await;
    client.echoes("over TLS").await;
    let tcp = TcpStream::connect(clear).await;
    let mut tcp = tcp.expect("it listens");
    raw_open_on(&mut tcp).await;
    write(&mut tcp, &masked(text(&token::message(&token::good())))).await;
    write(&mut tcp, &masked(text("in clear"))).await;
    assert_eq!(
        read_frame(&mut tcp).await.expect("an echo").payload,
        b"in clear"
    );
    client.echoes("still there").await;
    drop((client, tcp));
    proxy.stop().await;
}
