//! Tokens that are revoked: sessions that end, clients that stay out, and who is spared.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tidegate::proto::cause::Cause;

use crate::admin::ADMIN;
use crate::support::admin::{revoke, revoke_with};
use crate::support::client::Client;
use crate::support::folder::Folder;
use crate::support::program::tidegate;
use crate::support::proxy::Proxy;
use crate::support::raw::{opening, read_frame, read_head, read_to_end, write};
use crate::support::settings::{Settings, proxy};
use crate::support::token::{SECRET, good_claims, message, seconds_from_now, signed};
use crate::support::upstream::{Server, Upstream, switching, upstream};
use crate::support::within;

/// Good claims with others in their place.
fn token(changes: Value) -> String {
    let mut claims = good_claims();
    claims["iat"] = seconds_from_now(-5).into();
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    signed(&claims, SECRET)
}

/// A session for this token, and its upstream's end.
async fn session(proxy: &Proxy, upstream: &Upstream, token: &str) -> (Client, Server) {
    let mut client = proxy.entrance.open().await;
    client.send(message(token)).await;
    let server = upstream.accept().await;
    (client, server)
}

/// Asserts that a session is closed as one whose token was revoked.
async fn assert_revoked(proxy: &mut Proxy, (client, server): (Client, Server)) {
    let heard = client.closed().await;
    assert_eq!(heard, (3000, "unauthorized".to_owned()));
    assert_eq!(server.closed().await.0, 1001);
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::TokenRevoked);
}

/// Asserts that a session lives.
async fn assert_lives((client, server): &mut (Client, Server)) {
    client.send("still here").await;
    assert_eq!(server.text().await, "still here");
}

/// Asserts that a token is refused in the first message, with the reason in the record only.
async fn assert_refused(proxy: &mut Proxy, token: &str) {
    let mut client = proxy.entrance.open().await;
    client.send(message(token)).await;
    assert_eq!(client.closed().await, (3000, "unauthorized".to_owned()));
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::TokenRefused);
    assert_eq!(record.detail.as_deref(), Some("the token is revoked"));
}

async fn started(settings: impl FnOnce(Settings) -> Settings) -> (Proxy, Upstream) {
    let upstream = upstream().await;
    let settings = settings(proxy(upstream.address).more(ADMIN));
    (settings.start(), upstream)
}

#[tokio::test]
async fn a_token_is_revoked_by_its_id() {
    let (mut proxy, upstream) = started(|settings| settings).await;
    let admin = proxy.admin.expect("an admin address");
    let [one, other] = ["one", "other"].map(|jti| token(json!({ "jti": jti })));
    let first = session(&proxy, &upstream, &one).await;
    let mut second = session(&proxy, &upstream, &other).await;
    let mut nameless = session(&proxy, &upstream, &token(json!({}))).await;
    revoke(admin, r#"{"jti":"one"}"#).await;
    assert_revoked(&mut proxy, first).await;
    assert_refused(&mut proxy, &one).await;
    // Saying it again, when nobody is left, is no mistake.
    revoke(admin, r#"{"jti":"one"}"#).await;
    assert_lives(&mut second).await;
    assert_lives(&mut nameless).await;
    drop((second, nameless));
    proxy.stop().await;
}

#[tokio::test]
async fn a_subject_is_revoked_with_all_its_tokens_up_to_now() {
    let (mut proxy, upstream) = started(|settings| settings.workers(2)).await;
    let admin = proxy.admin.expect("an admin address");
    let mut alices = Vec::new();
    for n in 0..4 {
        // Two workers: the kernel spreads the connections.
        alices.push(session(&proxy, &upstream, &token(json!({ "jti": n.to_string() }))).await);
    }
    let mut bob = session(&proxy, &upstream, &token(json!({ "sub": "bob" }))).await;
    revoke(admin, r#"{"sub":"alice"}"#).await;
    for alice in alices {
        assert_revoked(&mut proxy, alice).await;
    }
    assert_lives(&mut bob).await;
    assert_refused(&mut proxy, &token(json!({}))).await;
    // Nothing shows that it is newer.
    let mut claims = good_claims();
    claims.as_object_mut().expect("an object").remove("iat");
    assert_refused(&mut proxy, &signed(&claims, SECRET)).await;
    // One that was issued afterwards is good: its holder has logged in again.
    let newer = token(json!({ "iat": seconds_from_now(5) }));
    let mut again = session(&proxy, &upstream, &newer).await;
    assert_lives(&mut again).await;
    drop((bob, again));
    proxy.stop().await;
}

#[tokio::test]
async fn a_route_is_revoked_and_the_others_are_not() {
    let upstream = upstream().await;
    let other = r#"
[[route]]
name = "feed"
path = "/feed"
origins = ["https://app.example.com"]
upstream = "server"
auth.method = "none"
"#;
    let mut proxy = proxy(upstream.address).more(other).more(ADMIN).start();
    let admin = proxy.admin.expect("an admin address");
    let alice = session(&proxy, &upstream, &token(json!({}))).await;
    let feed = proxy.entrance.request("/feed");
    let (asked, server) = tokio::join!(proxy.entrance.ask(feed), upstream.accept());
    let mut feed = (asked.expect("a 101").0, server);
    revoke(admin, r#"{"route":"chat"}"#).await;
    assert_revoked(&mut proxy, alice).await;
    assert_refused(&mut proxy, &token(json!({ "sub": "bob" }))).await;
    assert_lives(&mut feed).await;
    drop(feed);
    proxy.stop().await;
}

#[tokio::test]
async fn a_revoked_token_in_the_request_head_gets_401_and_the_upstream_hears_nothing() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address).auth("method = \"header\"");
    let mut proxy = settings.more(ADMIN).start();
    let admin = proxy.admin.expect("an admin address");
    let token = token(json!({ "jti": "one" }));
    let request = opening("/chat").with("Authorization", &format!("Bearer {token}"));
    // One is dialling when its token is revoked.
    let mut dialling = proxy.entrance.tls().await;
    write(&mut dialling, request.text().as_bytes()).await;
    let (mut server, head) = upstream.asked().await;
    revoke(admin, r#"{"jti":"one"}"#).await;
    write(&mut server, switching(&head, "").as_bytes()).await;
    assert_eq!(read_head(&mut dialling).await.status(), 101);
    let close = read_frame(&mut dialling).await.expect("a Close");
    assert_eq!(close.payload[..2], 3000_u16.to_be_bytes());
    drop((dialling, server));
    assert_eq!(proxy.record().await.summary.cause, Cause::TokenRevoked);
    let mut late = proxy.entrance.tls().await;
    write(&mut late, request.text().as_bytes()).await;
    assert_eq!(read_head(&mut late).await.status(), 401);
    assert_eq!(read_to_end(&mut late).await, b"Unauthorized\n");
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_that_is_revoked_while_the_upstream_is_dialled_opens_nothing() {
    let (mut proxy, upstream) = started(|settings| settings.auth_also("forward = true")).await;
    let admin = proxy.admin.expect("an admin address");
    let mut client = proxy.entrance.open().await;
    client.send(message(&token(json!({ "jti": "one" })))).await;
    // It thinks, for as long as it likes.
    let (mut server, _) = upstream.asked().await;
    revoke(admin, r#"{"jti":"one"}"#).await;
    assert_eq!(client.closed().await, (3000, "unauthorized".to_owned()));
    assert_eq!(read_to_end(&mut server).await, b"");
    assert_eq!(proxy.record().await.summary.cause, Cause::TokenRevoked);
    proxy.stop().await;
}

#[tokio::test]
async fn a_file_revokes_when_it_is_written_and_still_after_a_restart() {
    let upstream = upstream().await;
    let settings = |text: &str| {
        let keys = "[revocation]\nfile = \"revoked.jsonl\"\n";
        proxy(upstream.address)
            .file("revoked.jsonl", text)
            .more(keys)
    };
    let mut proxy = settings("").start();
    let alice = session(&proxy, &upstream, &token(json!({}))).await;
    let mut bob = session(&proxy, &upstream, &token(json!({ "sub": "bob" }))).await;
    let path = proxy.path("revoked.jsonl");
    fs::write(&path, "{\"sub\":\"alice\"}\n").expect("written");
    assert_revoked(&mut proxy, alice).await;
    assert_lives(&mut bob).await;
    // The time that was meant is written down a moment later.
    let text = crate::support::until("the time is written", || {
        let text = fs::read_to_string(&path).expect("a file");
        text.contains("before").then_some(text)
    })
    .await;
    drop(bob);
    proxy.stop().await;

    let mut again = settings(&text).start();
    assert_refused(&mut again, &token(json!({}))).await;
    let mut bob = session(&again, &upstream, &token(json!({ "sub": "bob" }))).await;
    assert_lives(&mut bob).await;
    drop(bob);
    again.stop().await;
}

#[tokio::test]
async fn what_cannot_be_revoked_is_told_with_the_reason() {
    let keys = "[revocation]\nmax_entries = 1\n";
    let (proxy, _upstream) = started(|settings| settings.more(keys)).await;
    let admin = proxy.admin.expect("an admin address");
    for (body, status, error) in [
        (
            r#"{"subject":"alice"}"#,
            400,
            "the unknown member `subject`; there are jti, sub, route, iss, before, exp",
        ),
        (
            "",
            400,
            "it is not a JSON object: EOF while parsing a value",
        ),
        (r#"{"route":"chta"}"#, 400, "there is no route `chta`"),
        (
            r#"{"sub":"alice","exp":5}"#,
            400,
            "`exp` has passed by 5 minutes or more: such an entry revokes nobody (it is in \
             seconds since 1970)",
        ),
    ] {
        let answered = revoke_with(admin, "", body).await;
        assert_eq!(answered.status(), status, "{body}");
        let told: Value = serde_json::from_str(&answered.body).expect("JSON");
        assert_eq!(told, json!({ "error": error }));
    }
    let body = r#"{"sub":"alice","before":1,"exp":4102444800}"#;
    let answered = revoke_with(admin, "", body).await;
    let told: Value = serde_json::from_str(&answered.body).expect("JSON");
    let entry = json!({ "sub": "alice", "before": 1, "exp": 4_102_444_800_u64 });
    assert_eq!(told, json!({ "revoked": entry }));
    let full = revoke_with(admin, "", r#"{"sub":"bob"}"#).await;
    assert_eq!(full.status(), 507);
    assert!(full.body.contains("max_entries"), "{}", full.body);
    proxy.stop().await;
}

#[test]
fn a_broken_file_keeps_the_program_from_starting_and_is_named_with_its_line() {
    let folder = Folder::new();
    folder.certificate("localhost", &["localhost"]);
    folder.write("revoked.jsonl", "{\"sub\":\"alice\"}\n{\"sub\":\n");
    let settings = proxy("127.0.0.1:1".parse().expect("an address"));
    let settings = settings.more("[revocation]\nfile = \"revoked.jsonl\"\n");
    folder.write("proxy.toml", &settings.toml());
    let output = tidegate(&["run", "--config", "proxy.toml"], folder.root());
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(told.contains("revocation.file"), "{told}");
    assert!(
        told.contains("revoked.jsonl: line 2: it is not a JSON object"),
        "{told}"
    );
    assert!(Path::new(&folder.path("revoked.jsonl")).exists());
}

#[tokio::test]
async fn the_real_program_keeps_what_was_revoked() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address).more(ADMIN);
    let settings = settings.more("[revocation]\nfile = \"revoked.jsonl\"\n");
    let program = settings.spawn().await;
    let admin = program.said("admin address").await;
    let admin = admin["address"].as_str().expect("an address");
    let admin = admin.parse().expect("an address");
    let mut client = program.entrance.open().await;
    client.send(message(&token(json!({ "jti": "one" })))).await;
    let mut server = upstream.accept().await;
    // Before the client has heard it, the upstream may be cut off in its opening handshake.
    server.send("here").await;
    assert_eq!(client.text().await, "here");
    revoke(admin, r#"{"jti":"one"}"#).await;
    assert_eq!(client.closed().await.0, 3000);
    assert_eq!(server.closed().await.0, 1001);
    let record = program.record(0).await;
    assert_eq!(record["cause"], "token_revoked");
    assert_eq!(record["subject"], "alice");
    let _ = within("the entry is logged", program.said("revoked")).await;
    program.stop().await;
}

#[tokio::test]
async fn a_renewed_session_is_held_to_its_newer_token() {
    let refresh = "refresh = { field = \"/type\", equals = \"refresh\", token_field = \"/token\", \
                   reply = \"renewed\" }";
    let (mut proxy, upstream) = started(|settings| settings.auth_also(refresh)).await;
    let admin = proxy.admin.expect("an admin address");
    let renewal = |jti: &str| {
        let token = token(json!({ "jti": jti }));
        json!({ "type": "refresh", "token": token }).to_string()
    };
    let one = token(json!({ "jti": "one" }));
    let not_renewed = session(&proxy, &upstream, &one).await;
    let (mut client, server) = session(&proxy, &upstream, &one).await;
    client.send(renewal("two")).await;
    assert_eq!(client.text().await, "renewed");
    let mut session = (client, server);
    revoke(admin, r#"{"jti":"one"}"#).await;
    assert_revoked(&mut proxy, not_renewed).await;
    assert_lives(&mut session).await;
    revoke(admin, r#"{"jti":"two"}"#).await;
    assert_revoked(&mut proxy, session).await;

    let other = token(json!({ "jti": "three" }));
    let (mut client, server) = self::session(&proxy, &upstream, &other).await;
    client.send(renewal("two")).await;
    assert_eq!(client.closed().await, (3000, "unauthorized".to_owned()));
    assert_eq!(server.closed().await.0, 1001);
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::TokenRefused);
    assert_eq!(
        record.detail.as_deref(),
        Some("refresh: the token is revoked")
    );
    assert_eq!(record.subject.as_deref(), Some("alice"));
    proxy.stop().await;
}
