//! Where a client connects from: its connection, unless a trusted proxy says otherwise. Nobody
//! else can, in any way.

use tidegate::server::Outcome;
use tidegate::telemetry::Record;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{ONCE, asks, assert_closed, assert_told_to_retry, tcp, tcp_from};
use crate::support::client::Tls;
use crate::support::proxy::Proxy;
use crate::support::raw::{Head, read_head, read_to_end, write};
use crate::support::service::service;
use crate::support::settings::{Settings, proxy};
use crate::support::upstream::{Upstream, switching, upstream};

const BEHIND: &str = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";

fn behind(upstream: &Upstream, keys: &str) -> Settings {
    proxy(upstream.address)
        .without_token()
        .listener(&format!("{BEHIND}{keys}"))
}

/// What becomes of a client with these fields: what the upstream is told of it, and the record.
async fn seen(
    proxy: &mut Proxy,
    upstream: &Upstream,
    mut stream: Tls,
    fields: &[(&str, &str)],
) -> (Vec<String>, Record) {
    let client = async {
        let head = asks(&mut stream, fields).await;
        assert_eq!(head.status(), 101, "{head:?}");
        stream
    };
    let server = async {
        let (mut tcp, head) = upstream.asked().await;
        write(&mut tcp, switching(&head, "").as_bytes()).await;
        (tcp, head)
    };
    let (stream, (tcp, head)) = tokio::join!(client, server);
    assert!(head.all("forwarded").is_empty());
    let told = head.all("x-forwarded-for");
    let told = told.into_iter().map(str::to_owned).collect();
    drop((stream, tcp));
    (told, proxy.record().await)
}

async fn tls_from(from: &str, proxy: &Proxy) -> Tls {
    let tcp = tcp_from(from, proxy.entrance.address).await;
    proxy.entrance.tls_over(tcp).await.expect("TLS")
}

async fn tls_behind(header: &[u8], proxy: &Proxy) -> std::io::Result<Tls> {
    let mut tcp = tcp(proxy.entrance.address).await;
    tcp.write_all(header).await?;
    proxy.entrance.tls_over(tcp).await
}

#[tokio::test]
async fn nobody_is_believed_by_default() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).without_token().start();
    let fields = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("Forwarded", "for=192.0.2.7"),
        ("X-Real-IP", "192.0.2.7"),
        ("X_Forwarded_For", "192.0.2.7"),
    ];
    let tls = proxy.entrance.tls().await;
    let (told, record) = seen(&mut proxy, &upstream, tls, &fields).await;
    assert_eq!(told, ["127.0.0.1"]);
    assert_eq!(record.client.ip().to_string(), "127.0.0.1");
    assert_eq!(record.via, None);
    // Nor is a PROXY header anything but a broken TLS handshake.
    let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n";
    assert!(tls_behind(header, &proxy).await.is_err());
    proxy.stop().await;
}

#[tokio::test]
async fn a_trusted_proxy_says_who_its_client_is_and_a_stranger_does_not() {
    for (source, line) in [
        ("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.1.1.1"),
        ("forwarded", "for=6.6.6.6, for=192.0.2.7, for=10.1.1.1"),
    ] {
        let upstream = upstream().await;
        let keys = format!("client_address = \"{source}\"");
        let mut proxy = behind(&upstream, &keys).start();
        let fields = [(source, line)];
        let tls = proxy.entrance.tls().await;
        let (told, record) = seen(&mut proxy, &upstream, tls, &fields).await;
        assert_eq!(told, ["192.0.2.7"]);
        assert_eq!(record.client.to_string(), "192.0.2.7:0");
        let via = record.via.expect("a proxy said so");
        assert_eq!(via.ip().to_string(), "127.0.0.1");
        // The other field is not looked at.
        let other = match source {
            "forwarded" => [("x-forwarded-for", "192.0.2.7")],
            _ => [("forwarded", "for=192.0.2.7")],
        };
        let tls = proxy.entrance.tls().await;
        let (told, record) = seen(&mut proxy, &upstream, tls, &other).await;
        assert_eq!((told, record.via), (vec!["127.0.0.1".to_owned()], None));
        let tls = tls_from("127.0.0.2", &proxy).await;
        let (told, record) = seen(&mut proxy, &upstream, tls, &fields).await;
        assert_eq!(told, ["127.0.0.2"]);
        assert_eq!(
            (record.client.ip().to_string(), record.via),
            ("127.0.0.2".to_owned(), None)
        );
        proxy.stop().await;
    }
}

/// What a client hears whose proxy says this of it, and its connection.
async fn says(proxy: &Proxy, line: &str) -> (Head, Tls) {
    let mut tls = proxy.entrance.tls().await;
    let head = asks(&mut tls, &[("X-Forwarded-For", line)]).await;
    (head, tls)
}

#[tokio::test]
async fn caps_and_lists_count_the_client_and_not_the_proxy_in_front() {
    let upstream = upstream().await;
    let limits = "max_connections_per_ip = 1\ndeny = [\"192.0.2.0/24\", \"127.0.0.1\"]";
    let proxy = proxy(upstream.address)
        .listener(&format!("{BEHIND}client_address = \"x-forwarded-for\""))
        .process_limits(limits)
        .section("limits", "deny = [\"198.51.100.0/24\"]")
        .start();
    // Many connections of one proxy, each of another client.
    let mut open = Vec::new();
    for client in ["203.0.113.1", "203.0.113.2", "2001:db8::1"] {
        let (head, tls) = says(&proxy, client).await;
        assert_eq!(head.status(), 101, "{client}");
        open.push(tls);
    }
    assert_told_to_retry(&says(&proxy, "203.0.113.1").await.0, 429);
    assert_told_to_retry(&says(&proxy, "2001:db8::2").await.0, 429);
    let over = |n| proxy.counted("over the cap", n, |c| c.over_address_cap.get());
    over(2).await;
    for denied in ["192.0.2.7", "198.51.100.7"] {
        assert_eq!(says(&proxy, denied).await.0.status(), 403, "{denied}");
    }
    for malformed in ["localhost", "203.0.113.9, x"] {
        assert_eq!(says(&proxy, malformed).await.0.status(), 400, "{malformed}");
    }
    // A proxy that does not say stands for its client, and this one is denied.
    assert_eq!(says(&proxy, "unknown").await.0.status(), 403);
    proxy.counted("denied", 3, |c| c.denied.get()).await;
    drop(open);
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn the_rate_of_an_address_counts_the_client_and_not_the_proxy_in_front() {
    let upstream = upstream().await;
    let limits = format!("handshakes_per_ip = {{ {ONCE}, burst = 2 }}");
    let proxy = proxy(upstream.address)
        .listener(&format!("{BEHIND}client_address = \"x-forwarded-for\""))
        .process_limits(&limits)
        .start();
    for _ in 0..2 {
        for client in ["203.0.113.1", "203.0.113.2"] {
            assert_eq!(says(&proxy, client).await.0.status(), 101, "{client}");
        }
    }
    assert_told_to_retry(&says(&proxy, "203.0.113.1").await.0, 429);
    let over = |n| proxy.counted("over the rate", n, |c| c.over_address_rate.get());
    over(1).await;
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_proxy_header_says_who_the_client_is() {
    let upstream = upstream().await;
    let mut proxy = behind(&upstream, "proxy_protocol = \"require\"").start();
    let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n".to_vec();
    let v1_of_6 = b"PROXY TCP6 2001:db8::7 ::1 56789 443\r\n".to_vec();
    let v2 = v2(
        0x21,
        0x11,
        &[192, 0, 2, 7, 10, 0, 0, 1, 0xdd, 0xd5, 1, 0xbb, 4, 0, 1, 9],
    );
    let cases = [
        (v1, "192.0.2.7", "192.0.2.7:56789"),
        (v1_of_6, "2001:db8::7", "[2001:db8::7]:56789"),
        (v2, "192.0.2.7", "192.0.2.7:56789"),
    ];
    for (header, address, client) in cases {
        let tls = tls_behind(&header, &proxy).await.expect("TLS");
        let fields = [("X-Forwarded-For", "6.6.6.6")];
        let (told, record) = seen(&mut proxy, &upstream, tls, &fields).await;
        assert_eq!(told, [address]);
        assert_eq!(record.client.to_string(), client);
        assert!(record.via.is_some_and(|via| via.ip().is_loopback()));
    }
    // The balancer's own connections, as it makes them to see whether we are there.
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), self::v2(0x20, 0, &[])] {
        let tls = tls_behind(&header, &proxy).await.expect("TLS");
        let (told, record) = seen(&mut proxy, &upstream, tls, &[]).await;
        assert_eq!((told, record.via), (vec!["127.0.0.1".to_owned()], None));
    }
    proxy.stop().await;
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

#[tokio::test]
async fn a_proxy_header_is_demanded_and_believed_of_nobody_else() {
    let upstream = upstream().await;
    let proxy = behind(&upstream, "proxy_protocol = \"require\"").start();
    let address = proxy.entrance.address;
    let refused = |n| proxy.counted("no header", n, |c| c.no_proxy_header.get());
    // Without one: a client that speaks TLS at once.
    let tcp_alone = tcp(address).await;
    assert!(proxy.entrance.tls_over(tcp_alone).await.is_err());
    refused(1).await;
    // From an address that is not trusted, before anything is said.
    assert_closed(tcp_from("127.0.0.2", address).await).await;
    refused(2).await;
    for header in [
        &b"PROXY TCP4 192.0.2.7 10.0.0.1 56789\r\n"[..],
        b"GET /chat HTTP/1.1\r\n\r\n",
        &v2(0x21, 0x12, &[0; 12]),
        &v2(0x21, 0x11, &[0; 11]),
        &v2(0x21, 0x11, &[0; 5000]),
        &[b'P'; 200],
    ] {
        let mut tcp = tcp(address).await;
        // It may be closed before all of it is taken.
        let _taken = tcp.write_all(header).await;
        assert_closed_in_any_way(tcp).await;
    }
    refused(8).await;
    // Twice is once too often.
    let header = b"PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n";
    assert!(tls_behind(header, &proxy).await.is_err());
    proxy.stop().await;
    upstream.assert_untouched();
}

async fn assert_closed_in_any_way(mut tcp: TcpStream) {
    let heard = read_to_end(&mut tcp).await;
    assert!(heard.is_empty());
}

#[tokio::test]
async fn caps_and_lists_count_whom_a_proxy_header_names() {
    let upstream = upstream().await;
    let limits = "max_connections_per_ip = 1\ndeny = [\"192.0.2.0/24\", \"127.0.0.1\"]";
    let proxy = behind(&upstream, "proxy_protocol = \"require\"")
        .process_limits(limits)
        .more(&format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\nplaintext = true\n{BEHIND}\
             proxy_protocol = \"require\"\n"
        ))
        .start();
    let line = |from: &str| format!("PROXY TCP4 {from} 10.0.0.1 56789 443\r\n").into_bytes();
    assert!(tls_behind(&line("192.0.2.7"), &proxy).await.is_err());
    assert!(tls_behind(b"PROXY UNKNOWN\r\n", &proxy).await.is_err());
    proxy.counted("denied", 2, |c| c.denied.get()).await;
    let first = tls_behind(&line("203.0.113.1"), &proxy).await.expect("TLS");
    let _second = tls_behind(&line("203.0.113.2"), &proxy).await.expect("TLS");
    assert!(tls_behind(&line("203.0.113.1"), &proxy).await.is_err());
    proxy
        .counted("over the cap", 1, |c| c.over_address_cap.get())
        .await;
    let mut in_clear = tcp(proxy.addresses[1]).await;
    write(&mut in_clear, &line("203.0.113.1")).await;
    assert_told_to_retry(&read_head(&mut in_clear).await, 429);
    drop(first);
    proxy.stop().await;
}

#[tokio::test]
async fn behind_both_kinds_of_proxy_each_says_who_came_to_it() {
    let upstream = upstream().await;
    let keys = "proxy_protocol = \"require\"\nclient_address = \"x-forwarded-for\"";
    let mut proxy = behind(&upstream, keys).start();
    let fields = [("X-Forwarded-For", "6.6.6.6, 192.0.2.7")];
    // The balancer names a proxy that is trusted, and that one the client.
    let trusted = b"PROXY TCP4 10.1.1.1 10.0.0.1 56789 443\r\n";
    let tls = tls_behind(trusted, &proxy).await.expect("TLS");
    let (told, record) = seen(&mut proxy, &upstream, tls, &fields).await;
    assert_eq!(told, ["192.0.2.7"]);
    assert_eq!(
        record.via.map(|via| via.ip().to_string()).as_deref(),
        Some("127.0.0.1")
    );
    // Or a client that came to it directly, whose own word is worth nothing.
    let stranger = b"PROXY TCP4 203.0.113.9 10.0.0.1 56789 443\r\n";
    let tls = tls_behind(stranger, &proxy).await.expect("TLS");
    let (told, _) = seen(&mut proxy, &upstream, tls, &fields).await;
    assert_eq!(told, ["203.0.113.9"]);
    proxy.stop().await;
}

#[tokio::test]
async fn the_service_that_decides_hears_of_the_client_and_not_of_its_proxy() {
    let (upstream, service) = (upstream().await, service().await);
    let proxy = behind(&upstream, "client_address = \"x-forwarded-for\"")
        .section("auth.authorize", &format!("url = \"{}\"", service.url))
        .start();
    let asking = says(&proxy, "2001:db8::7, 10.1.1.1");
    let deciding = async {
        let asked = service.asked().await;
        assert_eq!(asked.body["client_ip"], "2001:db8::7");
        asked.status(403, "").await;
    };
    let ((head, _), ()) = tokio::join!(asking, deciding);
    assert_eq!(head.status(), 403);
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_reload_says_anew_who_is_believed() {
    let upstream = upstream().await;
    let believing = behind(&upstream, "client_address = \"x-forwarded-for\"");
    let mut proxy = proxy(upstream.address).without_token().start();
    let fields = [("X-Forwarded-For", "192.0.2.7")];
    let tls = proxy.entrance.tls().await;
    let (told, _) = seen(&mut proxy, &upstream, tls, &fields).await;
    assert_eq!(told, ["127.0.0.1"]);
    let outcome = proxy.reload(&believing, None).await;
    assert!(matches!(outcome, Outcome::Reloaded(_)), "{outcome:?}");
    let tls = proxy.entrance.tls().await;
    let (told, _) = seen(&mut proxy, &upstream, tls, &fields).await;
    assert_eq!(told, ["192.0.2.7"]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_proxy_header_that_names_nobody_lends_its_trust_to_no_field() {
    let fields = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("Forwarded", "for=192.0.2.7"),
    ];
    for source in ["x-forwarded-for", "forwarded"] {
        let upstream = upstream().await;
        let keys = format!("proxy_protocol = \"require\"\nclient_address = \"{source}\"");
        let mut proxy = behind(&upstream, &keys).start();
        // UNKNOWN, LOCAL, LOCAL with addresses, UNSPEC and AF_UNIX.
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN 10.1.1.1 10.0.0.1 56789 443\r\n".to_vec(),
            v2(0x20, 0x00, &[]),
            v2(0x20, 0x11, &[10, 1, 1, 1, 10, 0, 0, 1, 1, 2, 1, 187]),
            v2(0x21, 0x00, &[]),
            v2(0x21, 0x31, &[0; 216]),
        ] {
            let tls = tls_behind(&header, &proxy).await.expect("TLS");
            let (told, record) = seen(&mut proxy, &upstream, tls, &fields).await;
            assert_eq!(told, ["127.0.0.1"], "{source} behind {header:?}");
            assert_eq!(record.client.ip().to_string(), "127.0.0.1");
            assert_eq!(record.via, None);
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn one_client_behind_a_proxy_cannot_spend_what_is_for_all() {
    let upstream = upstream().await;
    let limits = format!(
        "handshakes = {{ {ONCE}, burst = 3 }}\nhandshakes_per_ip = {{ {ONCE}, burst = 1 }}"
    );
    let proxy = proxy(upstream.address)
        .listener(&format!("{BEHIND}client_address = \"x-forwarded-for\""))
        .process_limits(&limits)
        .start();
    assert_eq!(says(&proxy, "203.0.113.1").await.0.status(), 101);
    for _ in 0..5 {
        assert_told_to_retry(&says(&proxy, "203.0.113.1").await.0, 429);
    }
    // A request that is refused for something else counts for its client, too.
    let no_opening = "GET /chat HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.2\r\n\r\n";
    for status in [426, 429] {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, no_opening.as_bytes()).await;
        assert_eq!(read_head(&mut tls).await.status(), status);
    }
    assert_eq!(says(&proxy, "203.0.113.3").await.0.status(), 101);
    assert_told_to_retry(&says(&proxy, "203.0.113.4").await.0, 503);
    let of_address = proxy.counted("of one address", 6, |c| c.over_address_rate.get());
    of_address.await;
    proxy.counted("of all", 1, |c| c.over_rate.get()).await;
    proxy.stop().await;
    upstream.assert_untouched();
}
