//! Sets of keys that are fetched over HTTPS or read from a file: when, how often, and what
//! happens to clients while the source changes, fails, or is hostile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate::config::{Auth, Config, Jwks, Keys};
use tidegate::proto::cause::Cause;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::admin::ADMIN;
use crate::support::admin::get;
use crate::support::client::{Client, Entrance};
use crate::support::folder::Folder;
use crate::support::issuer::Issuer;
use crate::support::key_server::{Behaviour, KeyServer};
use crate::support::settings::{Settings, proxy};
use crate::support::token::{AUDIENCE, ISSUER, good_claims, message, signed};
use crate::support::upstream::{Echo, echo};
use crate::support::within;

/// A rule for the tests' issuer with these keys of `jwks`.
pub fn rule(jwks: &str) -> String {
    format!(
        "[route.auth.jwt]\nalgorithms = [\"ES256\"]\njwks = {{ {jwks} }}\n\
         issuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]"
    )
}

/// A proxy before an echo that verifies with what `server` publishes.
fn edge(upstream: &Echo, server: &KeyServer) -> Settings {
    proxy(upstream.address).issuers(&rule(&server.jwks()))
}

/// Changes every source: for times too short to be allowed in a file.
fn each_source(change: impl Fn(&mut Jwks) + 'static) -> impl FnOnce(&mut Config) + 'static {
    move |config| {
        let mut seen = 0;
        for route in &mut config.routes {
            let Auth::Token(auth) = &mut Arc::make_mut(route).auth else {
                continue;
            };
            for jwt in &mut auth.jwt {
                if let Keys::Set(jwks) = &mut jwt.keys {
                    change(jwks);
                    seen += 1;
                }
            }
        }
        assert!(seen > 0, "no source to change");
    }
}

/// Read again at once for unknown keys, and otherwise seldom.
fn impatient() -> impl FnOnce(&mut Config) + 'static {
    each_source(|jwks| jwks.refetch_interval = Duration::from_millis(50))
}

async fn presents(entrance: &Entrance, token: &str) -> Client {
    let mut client = entrance.open().await;
    client.send(message(token)).await;
    client
}

async fn assert_admitted(entrance: &Entrance, token: &str) {
    let mut client = presents(entrance, token).await;
    client.echoes("admitted").await;
    client.close(1000, "").await;
    client.closed().await;
}

/// The same, once the source may be asked again.
async fn assert_admitted_in_the_end(entrance: &Entrance, token: &str) {
    let admitted = async {
        loop {
            let mut client = presents(entrance, token).await;
            // Where the token was refused, this may come too late.
            let _ = client.0.send("admitted".into()).await;
            if let Ok(Message::Text(text)) = client.try_next().await {
                return assert_eq!(text, "admitted");
            }
        }
    };
    within("the token is admitted", admitted).await;
}

/// The code with which this token is turned away.
async fn refused(entrance: &Entrance, token: &str) -> u16 {
    presents(entrance, token).await.closed().await.0
}

fn publishes(issuer: &Issuer, kids: &[&str]) -> Behaviour {
    Behaviour::Publishes(issuer.publishes(kids))
}

fn answers(status: &str, fields: &str, body: &str) -> Behaviour {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    Behaviour::Says(text.into_bytes())
}

#[tokio::test]
async fn keys_are_fetched_before_the_first_client_is_admitted() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    server.hold();
    let proxy = edge(&upstream, &server).more(ADMIN).start();
    let admin = proxy.admin.expect("an admin address");
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(presents(&proxy.entrance, &issuer.token("a")).await);
    }
    server.until_asked(1).await;
    let ready = get(admin, "/readyz").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.body, format!("no keys from {}\n", server.url()));
    server.release();
    for client in &mut clients {
        client.echoes("admitted").await;
    }
    assert_eq!(get(admin, "/readyz").await.status(), 200);
    assert_eq!(server.asked(), 1);
    drop(clients);
    proxy.stop().await;
}

#[tokio::test]
async fn a_rotation_under_load_drops_nobody_and_costs_one_request() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["old", "new"]));
    let server = KeyServer::start(publishes(&issuer, &["old"])).await;
    let proxy = edge(&upstream, &server)
        .workers(2)
        .adapt(impatient())
        .start();
    let mut before = join_all((0..20).map(|_| async {
        let mut client = presents(&proxy.entrance, &issuer.token("old")).await;
        client.echoes("before").await;
        client
    }))
    .await;
    assert_eq!(server.asked(), 1);
    server.now(publishes(&issuer, &["new", "old"]));
    let mut after = join_all((0..40).map(|n| {
        let token = issuer.token(if n % 4 == 0 { "old" } else { "new" });
        let entrance = &proxy.entrance;
        async move {
            let mut client = presents(entrance, &token).await;
            client.echoes("after").await;
            client
        }
    }))
    .await;
    assert_eq!(server.asked(), 2);
    for client in before.iter_mut().chain(&mut after) {
        client.echoes("still").await;
    }
    drop((before, after));
    proxy.stop().await;
}

#[tokio::test]
async fn tokens_with_made_up_keys_make_no_storm_of_requests() {
    let interval = Duration::from_millis(200);
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    let proxy = edge(&upstream, &server)
        .adapt(each_source(move |jwks| jwks.refetch_interval = interval))
        .start();
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    let names: Vec<String> = (0..60).map(|n| format!("made-up-{n}")).collect();
    let hostile = Issuer::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let begun = Instant::now();
    let asked = server.asked();
    for names in names.chunks(20) {
        let codes = names.iter().map(|kid| {
            let (entrance, token) = (&proxy.entrance, hostile.token(kid));
            async move { refused(entrance, &token).await }
        });
        for code in join_all(codes).await {
            assert_eq!(code, 3000);
        }
        // Nobody else notices.
        assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    }
    let intervals = begun.elapsed().as_millis() / interval.as_millis();
    let asked = server.asked() - asked;
    assert!(
        asked > 0 && asked as u128 <= intervals + 1,
        "{asked} in {intervals}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_rotation_amid_made_up_tokens_drops_nobody() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["old", "new"]));
    let server = KeyServer::start(publishes(&issuer, &["old"])).await;
    let proxy = edge(&upstream, &server)
        .adapt(each_source(|jwks| {
            jwks.refetch_interval = Duration::from_millis(200);
        }))
        .start();
    assert_admitted(&proxy.entrance, &issuer.token("old")).await;
    // The attacker has guessed the name of the next key, and spends every request there is.
    let attacker = Issuer::new(&["new", "x"]);
    let attack = async {
        loop {
            let tokens = (0..10).map(|n| attacker.token(if n % 2 == 0 { "new" } else { "x" }));
            let entrance = &proxy.entrance;
            let refusals = tokens.map(|token| async move {
                presents(entrance, &token).await.ended().await;
            });
            join_all(refusals).await;
        }
    };
    let rotation = async {
        let asked = server.asked();
        server.until_asked(asked + 2).await;
        server.now(publishes(&issuer, &["new", "old"]));
        let admitted = (0..20).map(|n| {
            let token = issuer.token(if n % 4 == 0 { "old" } else { "new" });
            let entrance = &proxy.entrance;
            async move { assert_admitted(entrance, &token).await }
        });
        join_all(admitted).await;
    };
    tokio::select! {
        () = attack => {}
        () = within("the new key is in use", rotation) => {}
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_key_that_is_withdrawn_is_out_of_use_after_the_next_refresh() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a", "b"]));
    let server = KeyServer::start(publishes(&issuer, &["a", "b"])).await;
    let proxy = edge(&upstream, &server)
        .adapt(each_source(|jwks| {
            jwks.refetch_interval = Duration::from_millis(20);
            jwks.refresh = Duration::from_millis(40);
        }))
        .start();
    let mut live = presents(&proxy.entrance, &issuer.token("a")).await;
    live.echoes("admitted").await;
    server.now(publishes(&issuer, &["b"]));
    // The second request from now on began after the change.
    server.until_asked(server.asked() + 2).await;
    assert_admitted(&proxy.entrance, &issuer.token("b")).await;
    assert_eq!(refused(&proxy.entrance, &issuer.token("a")).await, 3000);
    // Who was admitted stays: only a revocation ends sessions.
    live.echoes("still").await;
    drop(live);
    proxy.stop().await;
}

/// What a source may answer that is no set of keys to verify with.
fn bad_answers(issuer: &Issuer, elsewhere: &KeyServer) -> Vec<(&'static str, Behaviour)> {
    let set = issuer.publishes(&["b"]);
    let location = |url: &str| format!("Location: {url}\r\n");
    let with = |keys: Value| Behaviour::Publishes(json!({ "keys": keys }).to_string());
    let b = issuer.jwk("b");
    let changed = |name: &str, value: Value| {
        let mut jwk = b.clone();
        jwk[name] = value;
        jwk
    };
    let many: Vec<Value> = (0..65)
        .map(|n| changed("kid", json!(n.to_string())))
        .collect();
    vec![
        ("nothing", Behaviour::Down),
        (
            "a cut answer",
            Behaviour::Says(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        ),
        ("no HTTP", Behaviour::Says(b"\x16\x03\x01".to_vec())),
        (
            "a redirect",
            answers("302 Found", &location(&elsewhere.url()), &set),
        ),
        (
            "a redirect to http",
            answers("301 Moved", &location("http://127.0.0.1/"), &set),
        ),
        (
            "an error with a set",
            answers("500 Internal Server Error", "", &set),
        ),
        ("a part", answers("206 Partial Content", "", &set)),
        ("not found", answers("404 Not Found", "", "")),
        (
            "no content",
            Behaviour::Says(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        ),
        (
            "compressed",
            answers("200 OK", "Content-Encoding: gzip\r\n", &set),
        ),
        ("an endless body", Behaviour::Endless),
        (
            "a large body",
            Behaviour::Publishes(format!("{set}{}", " ".repeat(128 << 10))),
        ),
        (
            "a large head",
            answers("200 OK", &format!("X: {}\r\n", "x".repeat(64 << 10)), &set),
        ),
        (
            "a page",
            answers("200 OK", "Content-Type: text/html\r\n", "<html></html>"),
        ),
        (
            "half a set",
            Behaviour::Publishes(set[..set.len() / 2].to_owned()),
        ),
        ("an array", Behaviour::Publishes(json!([b]).to_string())),
        ("an empty set", with(json!([]))),
        ("too many keys", with(many.into())),
        (
            "a secret",
            with(json!([{ "kty": "oct", "kid": "b", "alg": "HS256", "k": "c2VjcmV0" }])),
        ),
        (
            "a secret on a curve",
            with(json!([changed("k", json!("c2VjcmV0"))])),
        ),
        ("a private key", with(json!([changed("d", json!("AAAA"))]))),
        (
            "another algorithm",
            with(json!([changed("alg", json!("HS256"))])),
        ),
        (
            "for encryption",
            with(json!([changed("use", json!("enc"))])),
        ),
        ("off the curve", with(json!([changed("x", b["y"].clone())]))),
        (
            "a member twice",
            Behaviour::Publishes(set.replace("\"kty\"", "\"kid\":\"x\",\"kty\"")),
        ),
    ]
}

#[tokio::test]
async fn no_answer_takes_the_last_good_set_away_or_puts_another_in_its_place() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a", "b"]));
    let elsewhere = KeyServer::start(publishes(&issuer, &["b"])).await;
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    let mut proxy = edge(&upstream, &server).adapt(impatient()).start();
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    proxy.record().await;
    let cases = bad_answers(&issuer, &elsewhere);
    assert!(cases.len() > 20);
    for (name, behaviour) in cases {
        server.now(behaviour);
        let asked = server.asked();
        // The token makes the edge ask, and would be good by the bad answer, which says nothing
        // against it. For a while after the last answer it is told so at once.
        while server.asked() == asked {
            let code = refused(&proxy.entrance, &issuer.token("b")).await;
            assert_eq!(code, 1013, "{name}");
            let cause = proxy.record().await.summary.cause;
            assert_eq!(cause, Cause::AdmissionUnavailable, "{name}");
        }
        assert_admitted(&proxy.entrance, &issuer.token("a")).await;
        proxy.record().await;
    }
    assert_eq!(elsewhere.asked(), 0);
    server.now(publishes(&issuer, &["b"]));
    assert_admitted_in_the_end(&proxy.entrance, &issuer.token("b")).await;
    proxy.stop().await;
}

#[tokio::test]
async fn an_outage_is_told_with_the_age_of_the_keys_and_then_its_end() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a", "b"]));
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    let jwks = format!("{}, refetch_interval = \"1s\"", server.jwks());
    let program = proxy(upstream.address).issuers(&rule(&jwks)).spawn().await;
    assert_admitted(&program.entrance, &issuer.token("a")).await;
    server.now(Behaviour::Down);
    assert_eq!(refused(&program.entrance, &issuer.token("b")).await, 1013);
    let said = "keys could not be read: the last good ones stay in use";
    let warning = program.said(said).await;
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["source"], server.url());
    assert!(warning["age_s"].is_u64(), "{warning}");
    assert!(
        warning["reason"]
            .as_str()
            .is_some_and(|r| r.contains("TLS")),
        "{warning}"
    );
    assert_admitted(&program.entrance, &issuer.token("a")).await;
    server.now(publishes(&issuer, &["b"]));
    assert_admitted_in_the_end(&program.entrance, &issuer.token("b")).await;
    program.said("keys can be read again").await;
    program.stop().await;
}

#[tokio::test]
async fn a_slow_source_delays_only_those_who_need_it_and_not_for_long() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a", "b"]));
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    let proxy = edge(&upstream, &server)
        .adapt(each_source(|jwks| {
            jwks.refetch_interval = Duration::from_millis(50);
            jwks.timeout = Duration::from_millis(500);
        }))
        .start();
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    server.now(Behaviour::Silent);
    let asked = server.asked();
    let waiting = presents(&proxy.entrance, &issuer.token("b")).await;
    server.until_asked(asked + 1).await;
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    let code = within("an answer", waiting.closed()).await.0;
    assert!([3000, 1013].contains(&code), "{code}");
    proxy.stop().await;
}

#[tokio::test]
async fn without_any_keys_clients_are_told_to_try_again_and_let_in_later() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(Behaviour::Down).await;
    let mut proxy = edge(&upstream, &server)
        .more(ADMIN)
        .adapt(impatient())
        .start();
    let admin = proxy.admin.expect("an admin address");
    assert_eq!(refused(&proxy.entrance, &issuer.token("a")).await, 1013);
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::AdmissionUnavailable);
    assert_eq!(record.endpoint, None);
    assert_eq!(get(admin, "/readyz").await.status(), 503);
    server.now(publishes(&issuer, &["a"]));
    assert_admitted_in_the_end(&proxy.entrance, &issuer.token("a")).await;
    assert_eq!(get(admin, "/readyz").await.status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_in_the_request_head_that_cannot_be_judged_is_answered_503() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a", "b"]));
    let server = KeyServer::start(Behaviour::Down).await;
    let rule = rule(&server.jwks());
    let proxy = proxy(upstream.address)
        .auth_of_issuers("method = \"header\"", &rule)
        .adapt(impatient())
        .start();
    let ask = |token: String| {
        let request = proxy.entrance.request("/chat");
        proxy
            .entrance
            .ask(request.with_header("Authorization", format!("Bearer {token}")))
    };
    let status = async |kid: &str| match ask(issuer.token(kid)).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    assert_eq!(status("a").await, 503);
    server.now(publishes(&issuer, &["a"]));
    let in_the_end = async |kid| while status(kid).await != 101 {};
    within("the source is asked again", in_the_end("a")).await;
    assert_eq!(status("b").await, 401);
    server.now(publishes(&issuer, &["b"]));
    within("the source is asked again", in_the_end("b")).await;
    proxy.stop().await;
}

#[tokio::test]
async fn keys_that_are_too_old_are_out_of_use_until_the_source_is_back() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a", "made-up"]));
    // The second reads again as soon as it may, so that its schedule never waits.
    for refresh in [40, 20].map(Duration::from_millis) {
        let server = KeyServer::start(publishes(&issuer, &["a"])).await;
        let proxy = edge(&upstream, &server)
            .more(ADMIN)
            .adapt(each_source(move |jwks| {
                jwks.refetch_interval = Duration::from_millis(20);
                jwks.refresh = refresh;
                jwks.max_age = Some(Duration::from_millis(200));
            }))
            .start();
        let admin = proxy.admin.expect("an admin address");
        assert_admitted(&proxy.entrance, &issuer.token("a")).await;
        server.now(Behaviour::Down);
        let begun = Instant::now();
        while get(admin, "/readyz").await.status() == 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "still ready");
            // Whoever has the set read again and again does not keep it in use.
            assert_eq!(
                refused(&proxy.entrance, &issuer.token("made-up")).await,
                1013
            );
        }
        assert_eq!(refused(&proxy.entrance, &issuer.token("a")).await, 1013);
        server.now(publishes(&issuer, &["a"]));
        assert_admitted_in_the_end(&proxy.entrance, &issuer.token("a")).await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_service_that_is_not_trusted_is_not_listened_to() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    let other = KeyServer::start(publishes(&issuer, &["a"])).await;
    let by_name = format!("https://localhost:{}/keys", server.address.port());
    for (name, jwks) in [
        (
            "another root",
            format!("url = {:?}, ca = {:?}", server.url(), other.ca()),
        ),
        (
            "another name",
            format!("url = {by_name:?}, ca = {:?}", server.ca()),
        ),
        ("the system's roots", format!("url = {:?}", server.url())),
    ] {
        let proxy = proxy(upstream.address)
            .issuers(&rule(&jwks))
            .adapt(impatient())
            .start();
        assert_eq!(
            refused(&proxy.entrance, &issuer.token("a")).await,
            1013,
            "{name}"
        );
        proxy.stop().await;
    }
}

#[tokio::test]
async fn routes_that_name_a_source_alike_share_it() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    let more = format!(
        "[[route]]\nname = \"second\"\npath = \"/second\"\norigins = [\"*\"]\nupstream = \"server\"\n\
         [route.auth]\nmethod = \"first-message\"\n{}",
        rule(&server.jwks())
    );
    let proxy = edge(&upstream, &server).more(&more).start();
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    let second = proxy.entrance.request("/second");
    let (mut client, _) = proxy.entrance.ask(second).await.expect("a 101");
    client.send(issuer.token("a")).await;
    client.echoes("admitted").await;
    assert_eq!(server.asked(), 1);
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn each_of_several_issuers_has_its_own_keys_and_audiences() {
    let (upstream, one, two) = (echo().await, Issuer::new(&["k"]), Issuer::new(&["k"]));
    let first = KeyServer::start(publishes(&one, &["k"])).await;
    let second = KeyServer::start(publishes(&two, &["k"])).await;
    let table = |jwks: &str, name: &str| {
        format!(
            "[[route.auth.jwt]]\nalgorithms = [\"ES256\"]\njwks = {{ {jwks} }}\n\
             issuer = \"{name}\"\naudience = [\"for-{name}\"]\n"
        )
    };
    let rules = table(&first.jwks(), "one") + &table(&second.jwks(), "two");
    let proxy = proxy(upstream.address).issuers(&rules).start();
    let token = |issuer: &Issuer, iss: &str, aud: &str| {
        let mut claims = good_claims();
        claims["iss"] = json!(iss);
        claims["aud"] = json!(aud);
        issuer.token_that_says("k", &claims)
    };
    assert_admitted(&proxy.entrance, &token(&one, "one", "for-one")).await;
    assert_admitted(&proxy.entrance, &token(&two, "two", "for-two")).await;
    for token in [
        token(&one, "two", "for-two"),
        token(&two, "one", "for-one"),
        token(&one, "one", "for-two"),
        token(&one, "three", "for-one"),
    ] {
        assert_eq!(refused(&proxy.entrance, &token).await, 3000);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_published_key_is_no_secret_to_sign_with() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(publishes(&issuer, &["a"])).await;
    let proxy = edge(&upstream, &server).start();
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    let jwk = issuer.jwk("a");
    let x = jwk["x"].as_str().expect("text").to_owned();
    for secret in [issuer.publishes(&["a"]), jwk.to_string(), x] {
        // HS256, as `Header::default` says.
        let forged = signed(&good_claims(), &secret);
        assert_eq!(refused(&proxy.entrance, &forged).await, 3000);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_set_in_a_file_is_read_again_when_it_changes() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a", "b"]));
    let folder = Folder::new();
    let file = folder.write("keys.json", &issuer.publishes(&["a"]));
    let proxy = proxy(upstream.address)
        .issuers(&rule(&format!("file = {file:?}")))
        .adapt(each_source(|jwks| {
            jwks.refresh = Duration::from_millis(20);
            jwks.refetch_interval = Duration::from_millis(20);
        }))
        .start();
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    folder.write("keys.json", "{\"keys\":[]}");
    assert_eq!(refused(&proxy.entrance, &issuer.token("b")).await, 1013);
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    std::fs::remove_file(&file).expect("it is there");
    assert_eq!(refused(&proxy.entrance, &issuer.token("b")).await, 1013);
    assert_admitted(&proxy.entrance, &issuer.token("a")).await;
    folder.write("keys.json", &issuer.publishes(&["b"]));
    assert_admitted_in_the_end(&proxy.entrance, &issuer.token("b")).await;
    assert_eq!(refused(&proxy.entrance, &issuer.token("a")).await, 3000);
    proxy.stop().await;
}
