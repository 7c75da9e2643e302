//! The admin address: what it answers, to whom, and that it cannot be led astray.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::support::admin::{Answered, get, revoke_with, send};
use crate::support::proxy::Proxy;
use crate::support::raw::{read_to_end, write};
use crate::support::settings::{Settings, proxy};
use crate::support::upstream::upstream;
use crate::support::within;

/// On a free port of this machine.
pub const ADMIN: &str = "[admin]\nbind = \"127.0.0.1:0\"\n";

async fn started(more: &str) -> (Proxy, SocketAddr) {
    let upstream = upstream().await;
    let settings: Settings = proxy(upstream.address).more(more);
    let proxy = settings.start();
    let admin = proxy.admin.expect("an admin address");
    (proxy, admin)
}

/// A request line and fields, with the Host that the address asks for.
async fn ask(admin: SocketAddr, first_line: &str, fields: &str) -> Answered {
    let request = format!("{first_line} HTTP/1.1\r\nHost: {admin}\r\n{fields}\r\n");
    send(admin, &request).await
}

#[tokio::test]
async fn probes_are_answered_in_a_line() {
    let (proxy, admin) = started(ADMIN).await;
    for (path, line) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answered = get(admin, path).await;
        assert_eq!((answered.status(), answered.body.as_str()), (200, line));
        assert_eq!(answered.head.field("cache-control"), Some("no-store"));
    }
    let head = ask(admin, "HEAD /healthz", "").await;
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    proxy.stop().await;
}

#[tokio::test]
async fn a_process_that_drains_lives_but_is_not_ready() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).more(ADMIN).start();
    let admin = proxy.admin.expect("an admin address");
    let client = proxy.entrance.admitted().await;
    let server = upstream.accept().await;
    proxy.drain();
    // The session's end waits for the peers' Close: until then the process drains.
    let drained = crate::support::until("it is not ready", || None::<()>);
    let not_ready = async {
        loop {
            let answered = get(admin, "/readyz").await;
            if answered.status() == 503 {
                return answered.body;
            }
        }
    };
    let body = tokio::select! {
        body = not_ready => body,
        () = drained => unreachable!(),
    };
    assert_eq!(body, "draining\n");
    assert_eq!(get(admin, "/healthz").await.status(), 200);
    drop((client, server));
    proxy.ended().await;
    proxy.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let (proxy, admin) = started(ADMIN).await;
    let unknown = get(admin, "/").await;
    assert_eq!(unknown.status(), 404);
    assert!(unknown.body.contains("/healthz"), "{}", unknown.body);
    for (line, allow) in [
        ("POST /healthz", "GET, HEAD"),
        ("DELETE /readyz", "GET, HEAD"),
        ("GET /revoke", "POST"),
        ("PUT /revoke", "POST"),
    ] {
        let answered = ask(admin, line, "").await;
        assert_eq!(answered.status(), 405, "{line}");
        assert_eq!(answered.head.field("allow"), Some(allow), "{line}");
    }
    // Nothing is signed here, so there is no key to verify it with.
    assert_eq!(get(admin, "/.well-known/jwks.json").await.status(), 404);
    proxy.stop().await;
}

#[tokio::test]
async fn no_web_page_can_make_a_browser_ask() {
    let (proxy, admin) = started(ADMIN).await;
    let origin = "Origin: https://evil.com\r\n";
    assert_eq!(ask(admin, "GET /healthz", origin).await.status(), 403);
    let answered = revoke_with(admin, origin, r#"{"sub":"alice"}"#).await;
    assert_eq!(answered.status(), 403);
    for host in ["evil.com", "evil.com:9090", "localhost.evil.com", ""] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(send(admin, &request).await.status(), 403, "{host}");
    }
    for request in [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n\r\n",
        "GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        assert_eq!(send(admin, request).await.status(), 400, "{request}");
    }
    // What a form can send without asking the browser first.
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let request = format!(
            "POST /revoke HTTP/1.1\r\nHost: {admin}\r\nContent-Type: {kind}\r\n\
             Content-Length: 15\r\n\r\n{{\"sub\":\"alice\"}}"
        );
        assert_eq!(send(admin, &request).await.status(), 415, "{kind}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_changes_something_needs_the_token_where_there_is_one() {
    let with_token = format!("{ADMIN}token = {{ file = \"admin.token\" }}\n");
    let upstream = upstream().await;
    let token = "a token of the tests, without spaces".replace(' ', "-");
    let settings = proxy(upstream.address).more(&with_token);
    let proxy = settings.file("admin.token", &token).start();
    let admin = proxy.admin.expect("an admin address");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(admin, path).await.status(), 200, "{path}");
    }
    let good = format!("Authorization: Bearer {token}\r\n");
    for fields in [
        "",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer wrong\r\n",
        &format!("Authorization: Basic {token}\r\n"),
        &format!("{good}{good}"),
    ] {
        // Who has no token does not hear what is wrong with the body either.
        let answered = revoke_with(admin, fields, "no JSON").await;
        assert_eq!(answered.status(), 401, "{fields}");
        assert_eq!(answered.head.field("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(revoke_with(admin, &good, "no JSON").await.status(), 400);
    proxy.stop().await;
}

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let (proxy, admin) = started(ADMIN).await;
    let most = 64 * 1024;
    let fits = revoke_with(admin, "", &" ".repeat(most)).await;
    assert_eq!(fits.status(), 400, "it is read, and is no JSON");
    let over = revoke_with(admin, "", &" ".repeat(most + 1)).await;
    assert_eq!(over.status(), 413);
    assert!(over.body.contains("65536 bytes"), "{}", over.body);
    let chunked = format!(
        "POST /revoke HTTP/1.1\r\nHost: {admin}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        most + 1,
        " ".repeat(most + 1)
    );
    assert_eq!(send(admin, &chunked).await.status(), 413);
    let field = format!("X-Long: {}\r\n", "x".repeat(8 * 1024));
    assert_eq!(ask(admin, "GET /healthz", &field).await.status(), 431);
    let many = "X-Many: 1\r\n".repeat(40);
    assert_eq!(ask(admin, "GET /healthz", &many).await.status(), 431);
    proxy.stop().await;
}

#[tokio::test]
async fn who_sends_half_a_request_keeps_nobody_else_out() {
    let (proxy, admin) = started(ADMIN).await;
    let mut halves = Vec::new();
    for half in [
        "",
        "GET /healthz HTTP/1.1\r\nHost: local",
        "POST /revoke HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ] {
        let connected = within("a connection", TcpStream::connect(admin)).await;
        let mut tcp = connected.expect("it listens");
        write(&mut tcp, half.as_bytes()).await;
        halves.push(tcp);
    }
    assert_eq!(get(admin, "/healthz").await.status(), 200);
    for tcp in &mut halves {
        // Each is let go in a bounded time, without the other half.
        read_to_end(tcp).await;
    }
    proxy.stop().await;
}
