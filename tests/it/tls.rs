//! TLS as clients meet it: versions, names, deadlines, and what is no TLS at all.

use std::time::{Duration, Instant};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::assert_took;
use crate::support::client::Entrance;
use crate::support::folder::Folder;
use crate::support::raw::{masked, raw_open_on, read_frame, read_to_end, text, write};
use crate::support::settings::proxy;
use crate::support::token;
use crate::support::upstream::{echo, upstream};

#[tokio::test]
async fn both_tls_versions_carry_a_session() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address).start();
    for version in [&TLS12, &TLS13] {
        let tcp = proxy.entrance.tcp().await;
        let mut tls = proxy
            .entrance
            .tls_as(tcp, "localhost", version)
            .await
            .expect("a TLS connection");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        raw_open_on(&mut tls).await;
        write(&mut tls, &masked(text(&token::message(&token::good())))).await;
        write(&mut tls, &masked(text("over TLS"))).await;
        let echoed = read_frame(&mut tls).await.expect("an echo");
        assert_eq!(echoed.payload, b"over TLS");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_old_version_is_refused_where_the_listener_says_so() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).tls("min_version = \"1.3\"").start();
    let tcp = proxy.entrance.tcp().await;
    let refused = proxy.entrance.tls_as(tcp, "localhost", &TLS12).await;
    assert!(refused.is_err());
    proxy.entrance.tls().await;
    proxy
        .counted("failed TLS handshakes", 1, |c| c.tls_failed.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn the_certificate_is_the_one_of_the_name_asked_for() {
    let upstream = upstream().await;
    let folder = Folder::new();
    let first = folder.certificate("first", &["first.example.com"]);
    let second = folder.certificate("second", &["*.example.org"]);
    let root = folder.root().to_owned();
    let proxy = proxy(upstream.address)
        .adapt(move |config| {
            let tls = config.listeners[0].tls.as_mut().expect("TLS");
            let place = tls.certificates[0].clone();
            tls.certificates = ["first", "second"]
                .map(|name| {
                    let mut files = place.clone();
                    files.cert = root.join(format!("{name}.pem"));
                    files.key = root.join(format!("{name}.key"));
                    files
                })
                .into();
        })
        .start();
    let address = proxy.entrance.address;
    let shown_for = async |name: &'static str, trusted: &CertificateDer<'static>| {
        let entrance = Entrance::new(address, trusted.clone());
        let tls = entrance.tls_as(entrance.tcp().await, name, &TLS13).await;
        // Rustls refuses a certificate that is not trusted, or not for this name.
        tls.map(drop)
    };
    shown_for("first.example.com", &first)
        .await
        .expect("the first");
    shown_for("a.example.org", &second)
        .await
        .expect("the second");
    // An unknown name gets the first, which says that it is not for that name.
    let wrong = shown_for("b.example.net", &first).await;
    let error = wrong.expect_err("a wrong name").to_string();
    assert!(error.contains("not valid for name"), "{error}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_cut_off_in_time() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .tls("handshake_timeout = \"300ms\"")
        .start();
    // Silence, and the beginning of a ClientHello.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let started = Instant::now();
        let mut tcp = proxy.entrance.tcp().await;
        write(&mut tcp, bytes).await;
        assert_eq!(read_to_end(&mut tcp).await, b"");
        assert_took(started, Duration::from_millis(250), Duration::from_secs(10));
    }
    proxy
        .counted("failed TLS handshakes", 2, |c| c.tls_failed.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_dropped() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut tcp = proxy.entrance.tcp().await;
    write(&mut tcp, b"GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = read_to_end(&mut tcp).await;
    // At most an alert: no word of HTTP.
    assert!(answer.len() <= 7, "{answer:?}");
    proxy
        .counted("failed TLS handshakes", 1, |c| c.tls_failed.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_listener_in_clear_serves_where_it_is_asked_for() {
    let upstream = echo().await;
    let proxy = proxy(upstream.address)
        .adapt(|config| config.listeners[0].tls = None)
        .start();
    let mut tcp = proxy.entrance.tcp().await;
    raw_open_on(&mut tcp).await;
    write(&mut tcp, &masked(text(&token::message(&token::good())))).await;
    write(&mut tcp, &masked(text("in clear"))).await;
    let echoed = read_frame(&mut tcp).await.expect("an echo");
    assert_eq!(echoed.payload, b"in clear");
    drop(tcp);
    proxy.stop().await;
}
