//! Which pages may connect.

use crate::support::raw::{Opening, opening, read_head, write};
use crate::support::settings::{ORIGIN, Settings, proxy};
use crate::support::upstream::upstream;

/// The status each request gets.
async fn statuses(settings: Settings, requests: Vec<Opening>) -> Vec<u16> {
    let proxy = settings.start();
    let mut statuses = Vec::new();
    for request in requests {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, request.text().as_bytes()).await;
        statuses.push(read_head(&mut tls).await.status());
    }
    proxy.stop().await;
    statuses
}

fn from(origin: &str) -> Opening {
    opening("/chat").without("Origin").with("Origin", origin)
}

#[tokio::test]
async fn only_listed_origins_pass() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address).route(
        "path = \"/chat\"\norigins = [\"https://app.example.com\", \"https://*.example.org\"]",
    );
    let (good, bad) = (
        [
            "https://app.example.com",
            "https://APP.example.com",
            "https://app.example.com:443",
            "https://a.example.org",
            "https://a.b.example.org",
        ],
        [
            "https://example.com",
            "https://evil.com",
            "https://app.example.com.evil.com",
            "https://app.example.com:8443",
            "http://app.example.com",
            "https://evilexample.org",
            "https://example.org",
            "https://app.example.com/",
            "https://app.example.com@evil.com",
            "null",
            "*",
            "",
        ],
    );
    let requests = good.iter().chain(&bad).map(|origin| from(origin)).collect();
    let expected = [vec![101; good.len()], vec![403; bad.len()]].concat();
    assert_eq!(statuses(settings, requests).await, expected);
    upstream.assert_untouched();
}

#[tokio::test]
async fn two_origins_are_refused_even_when_each_would_pass() {
    let upstream = upstream().await;
    let requests = vec![
        opening("/chat").with("Origin", ORIGIN),
        opening("/chat").with("origin", "https://evil.com"),
        from(&format!("{ORIGIN}, {ORIGIN}")),
        from(&format!("{ORIGIN} {ORIGIN}")),
    ];
    assert_eq!(statuses(proxy(upstream.address), requests).await, [403; 4]);
}

#[tokio::test]
async fn a_missing_origin_is_refused_unless_it_is_allowed() {
    let upstream = upstream().await;
    let request = || vec![opening("/chat").without("Origin"), from("https://evil.com")];
    let strict = proxy(upstream.address);
    assert_eq!(statuses(strict, request()).await, [403, 403]);
    let native = proxy(upstream.address).route_also("allow_missing_origin = true");
    assert_eq!(statuses(native, request()).await, [101, 403]);
}
