//! Another configuration while the process serves: who is concerned, what survives, what is
//! refused; and a thousand of them under load.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::Value;
use tidegate::config::Apply;
use tidegate::proto::cause::Cause;
use tidegate::server::Outcome;

use crate::admin::ADMIN;
use crate::jwks::rule;
use crate::support::admin::{get, post, revoke, send};
use crate::support::client::{Client, Entrance};
use crate::support::issuer::Issuer;
use crate::support::key_server::{Behaviour, KeyServer};
use crate::support::raw::write;
use crate::support::service::service;
use crate::support::settings::{ORIGIN, Settings, proxy};
use crate::support::token::{AUDIENCE, ISSUER, good, good_claims, message, signed};
use crate::support::upstream::{Echo, echo, switching, upstream};
use crate::support::{until, within};

mod under_load;

/// The edge of these tests, whose frames may have so many bytes.
fn edge(upstream: &Echo, frame: usize) -> Settings {
    proxy(upstream.address)
        .more(ADMIN)
        .section("limits", &format!("max_frame_size = \"{frame}B\""))
}

/// A second route to the same upstream, without a token.
fn second_route(name: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nupstream = \"server\"\npath = \"/{name}\"\n\
         origins = [\"{ORIGIN}\"]\nauth.method = \"none\"\n"
    )
}

/// A second listener.
fn second_listener() -> &'static str {
    "[[listener]]\nbind = \"127.0.0.1:0\"\nplaintext = true\n"
}

async fn at(entrance: &Entrance, path: &str) -> Client {
    let asked = entrance.ask(entrance.request(path)).await;
    asked.expect("a 101").0
}

/// What the reload changed; it must not be refused.
fn changed(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Reloaded(reloaded) => reloaded.changes.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A message just too long for a frame of 100 bytes.
fn long() -> String {
    "m".repeat(101)
}

#[tokio::test]
async fn sessions_go_on_as_they_were_born_and_the_next_begin_anew() {
    let upstream = echo().await;
    let proxy = edge(&upstream, 200).start();
    let mut older = proxy.entrance.admitted().await;
    older.echoes("hello").await;
    let outcome = proxy.reload(&edge(&upstream, 100), None).await;
    assert_eq!(
        changed(&outcome),
        ["route.chat.limits.max_frame_size: \"200B\" → \"100B\""]
    );
    let mut younger = proxy.entrance.admitted().await;
    younger.echoes("hello").await;
    older.echoes(&long()).await;
    younger.send(long()).await;
    assert_eq!(younger.closed().await.0, 1009);
    older.echoes(&long()).await;
    drop(older);
    proxy.stop().await;
}

#[tokio::test]
async fn limits_hold_for_those_who_are_here_where_the_operator_says_so() {
    let upstream = echo().await;
    let proxy = edge(&upstream, 200).start();
    let mut client = proxy.entrance.admitted().await;
    client.echoes(&long()).await;
    // For who comes later only; then for all, though nothing is written differently.
    proxy.reload(&edge(&upstream, 100), Some(Apply::New)).await;
    client.echoes(&long()).await;
    let outcome = proxy.reload_as_it_is(Some(Apply::Live)).await;
    let Outcome::Reloaded(reloaded) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (reloaded.affected.sessions, reloaded.affected.revised),
        (1, 1)
    );
    // What they obey already is not told them again; what they were born with is, too.
    for (frame, revised) in [(100, 0), (200, 1), (200, 0), (100, 1)] {
        let outcome = proxy
            .reload(&edge(&upstream, frame), Some(Apply::Live))
            .await;
        let Outcome::Reloaded(reloaded) = &outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(reloaded.affected.revised, revised, "{frame}");
    }
    client.echoes("short").await;
    client.send(long()).await;
    assert_eq!(client.closed().await.0, 1009);
    proxy.stop().await;
}

#[tokio::test]
async fn what_the_configuration_says_of_live_sessions_holds_without_a_word() {
    let upstream = echo().await;
    let live = |frame: usize| edge(&upstream, frame).server("reload = { apply = \"live\" }");
    let proxy = live(200).start();
    let mut client = proxy.entrance.admitted().await;
    client.echoes(&long()).await;
    proxy.reload(&live(100), None).await;
    client.send(long()).await;
    assert_eq!(client.closed().await.0, 1009);
    proxy.stop().await;
}

#[tokio::test]
async fn sessions_whose_route_is_gone_are_drained_and_no_others() {
    let upstream = echo().await;
    let mut proxy = edge(&upstream, 200).more(&second_route("feed")).start();
    let mut stays = proxy.entrance.admitted().await;
    let mut goes = at(&proxy.entrance, "/feed").await;
    stays.echoes("hello").await;
    goes.echoes("hello").await;
    let outcome = proxy.reload(&edge(&upstream, 200), None).await;
    assert_eq!(
        changed(&outcome),
        ["route.feed: a section of 5 keys → (not in the file)"]
    );
    assert_eq!(goes.closed().await, (1012, "restarting".to_owned()));
    let record = proxy.record().await;
    assert_eq!(
        (record.route.as_str(), record.summary.cause),
        ("feed", Cause::Drained)
    );
    stays.echoes("still here").await;
    let refused = proxy.entrance.ask(proxy.entrance.request("/feed")).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("404")));
    // It may come back.
    proxy
        .reload(&edge(&upstream, 200).more(&second_route("feed")), None)
        .await;
    at(&proxy.entrance, "/feed").await.echoes("hello").await;
    drop(stays);
    proxy.stop().await;
}

/// However often the configuration is read while they leave.
#[tokio::test]
async fn sessions_of_a_route_that_is_gone_are_sent_away_by_one_reload() {
    let upstream = echo().await;
    let edge = |frame: usize| {
        let edge = edge(&upstream, frame).grace("2h");
        edge.drain("lame_duck = \"0s\", spread = \"1h\"")
    };
    let feed = || edge(200).more(&second_route("feed"));
    let proxy = feed().start();
    let mut leaving = Vec::new();
    for _ in 0..3 {
        let mut client = at(&proxy.entrance, "/feed").await;
        client.echoes("hello").await;
        leaving.push(client);
    }
    // Where it came back and goes again, they are sent away by that.
    for (settings, vanished) in [
        (edge(200), 3),
        (edge(100), 0),
        (edge(200), 0),
        (feed(), 0),
        (edge(200), 3),
        (edge(100), 0),
    ] {
        let outcome = proxy.reload(&settings, None).await;
        let Outcome::Reloaded(reloaded) = &outcome else {
            panic!("{outcome:?}");
        };
        let affected = reloaded.affected;
        assert_eq!((affected.sessions, affected.vanished), (3, vanished));
    }
    drop(leaving);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_is_being_let_in_keeps_its_configuration_unless_its_route_goes() {
    let upstream = upstream().await;
    let settings = |routes: &[&str]| {
        let routes: String = routes.iter().map(|name| second_route(name)).collect();
        proxy(upstream.address).more(&routes)
    };
    let proxy = settings(&["feed", "news"]).start();
    // Both wait for the upstream's answer, which decides about their own.
    let [feed, news] = ["/feed", "/news"].map(|path| {
        let entrance = proxy.entrance.clone();
        tokio::spawn(async move { at(&entrance, path).await })
    });
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(upstream.asked().await);
    }
    proxy.reload(&settings(&["news"]), None).await;
    let mut servers = Vec::new();
    for (mut tcp, head) in held {
        write(&mut tcp, switching(&head, "").as_bytes()).await;
        servers.push(tcp);
    }
    let feed = within("a 101", feed).await.expect("no panic");
    assert_eq!(feed.closed().await.0, 1012);
    let mut news = within("a 101", news).await.expect("no panic");
    news.send("hello").await;
    drop((news, servers));
    proxy.stop().await;
}

#[tokio::test]
async fn a_held_session_finds_its_upstream_where_a_reload_says_it_is() {
    let (before, after) = (upstream().await, upstream().await);
    let settings =
        |address| proxy(address).section("hold", "backoff = { first = \"20ms\", max = \"100ms\" }");
    let proxy = settings(before.address).start();
    let mut client = proxy.entrance.admitted().await;
    let server = before.accept().await;
    // Both its connection and its place are gone.
    let _nobody = before.into_dead();
    drop(server);
    proxy.counted("held", 1, |c| c.held.get()).await;
    client.send("meanwhile").await;
    changed(&proxy.reload(&settings(after.address), None).await);
    let mut server = after.accept().await;
    assert_eq!(server.text().await, "meanwhile");
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_configuration_with_a_mistake_changes_nothing_and_says_all_that_is_wrong() {
    let upstream = echo().await;
    let proxy = edge(&upstream, 200).start();
    let mut client = proxy.entrance.admitted().await;
    client.echoes("hello").await;
    let toml = edge(&upstream, 100)
        .process_limits("max_conections = 5\nmax_headers = 1")
        .toml();
    fs::write(proxy.path("proxy.toml"), &toml).expect("written");
    let admin = proxy.admin.expect("an admin address");
    let answered = post(admin, "/reload").await;
    assert_eq!(answered.status(), 422, "{}", answered.body);
    let body = json(&answered.body);
    let problems = body["problems"].as_array().expect("problems");
    let keys: Vec<&str> = problems.iter().filter_map(|p| p["key"].as_str()).collect();
    assert_eq!(keys, ["limits.max_conections", "limits.max_headers"]);
    let line = toml
        .lines()
        .position(|line| line.starts_with("max_conections"));
    assert_eq!(problems[0]["line"], line.expect("it is there") + 1);
    // Not even for those who come now.
    proxy.entrance.admitted().await.echoes(&long()).await;
    client.echoes(&long()).await;
    // What a file says that it names is looked at, too.
    let toml = edge(&upstream, 100)
        .toml()
        .replace("localhost.pem", "missing.pem");
    fs::write(proxy.path("proxy.toml"), toml).expect("written");
    let answered = post(admin, "/reload").await;
    assert_eq!(answered.status(), 422);
    assert!(
        answered
            .body
            .contains("listener.#1.tls.certificates[0].cert"),
        "{}",
        answered.body
    );
    proxy.entrance.admitted().await.echoes(&long()).await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn the_admin_address_reloads_for_those_who_may_and_says_what_changed() {
    let upstream = echo().await;
    let guarded = |frame: usize, token: &str| {
        proxy(upstream.address)
            .more(&format!("{ADMIN}token = {{ file = \"{token}\" }}\n"))
            .section("limits", &format!("max_frame_size = \"{frame}B\""))
            .file("a.token", "the-first-token-of-the-admin-address\n")
            .file("b.token", "the-other-token-of-the-admin-address\n")
    };
    let proxy = guarded(200, "a.token").start();
    let admin = proxy.admin.expect("an admin address");
    let ask = async |query: &str, token: &str| {
        let request = format!(
            "POST /reload{query} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        send(admin, &request).await
    };
    let (first, other) = (
        "the-first-token-of-the-admin-address",
        "the-other-token-of-the-admin-address",
    );
    fs::write(proxy.path("proxy.toml"), guarded(100, "b.token").toml()).expect("written");
    assert_eq!(post(admin, "/reload").await.status(), 401);
    assert_eq!(get(admin, "/reload").await.status(), 405);
    assert_eq!(ask("", other).await.status(), 401);
    assert_eq!(ask("?apply=later", first).await.status(), 400);
    let client = proxy.entrance.admitted().await;
    let answered = ask("?apply=live", first).await;
    assert_eq!(answered.status(), 200, "{}", answered.body);
    let body = json(&answered.body);
    assert_eq!(body["changed"][0]["key"], "admin.token.file");
    assert_eq!(
        body["changed"][1]["key"],
        "route.chat.limits.max_frame_size"
    );
    assert_eq!(body["changed"][1]["old"], "\"200B\"");
    assert_eq!(body["changed"][1]["new"], "\"100B\"");
    assert!(!answered.body.contains("the-"), "{}", answered.body);
    // The token is another from now on.
    assert_eq!(ask("", first).await.status(), 401);
    assert_eq!(ask("", other).await.status(), 200);
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn what_cannot_change_while_it_runs_is_held_back_and_named() {
    let upstream = echo().await;
    let proxy = edge(&upstream, 200).start();
    let admin = proxy.admin.expect("an admin address");
    let moved = proxy_with_other_process(&upstream).toml();
    fs::write(proxy.path("proxy.toml"), moved).expect("written");
    for _ in 0..2 {
        let answered = post(admin, "/reload").await;
        assert_eq!(answered.status(), 200, "{}", answered.body);
        let held_back = &json(&answered.body)["after_restart"];
        assert_eq!(
            *held_back,
            serde_json::json!(["server.workers", "admin", "revocation"])
        );
    }
    // The rest counts at once.
    let mut client = proxy.entrance.admitted().await;
    client.send(long()).await;
    assert_eq!(client.closed().await.0, 1009);
    proxy.stop().await;
}

fn proxy_with_other_process(upstream: &Echo) -> Settings {
    proxy(upstream.address)
        .workers(2)
        .more("[admin]\nbind = \"[::1]:0\"\n[revocation]\nmax_entries = 5\n")
        .section("limits", "max_frame_size = \"100B\"")
}

/// A token that is asked for at one address is not forgotten for another that needs none.
#[tokio::test]
async fn an_admin_address_that_cannot_move_keeps_its_token() {
    let upstream = echo().await;
    let at = |bind: &str, token: &str| {
        proxy(upstream.address)
            .more(&format!("[admin]\nbind = \"{bind}:0\"\n{token}"))
            .file("a.token", "the-first-token-of-the-admin-address\n")
    };
    let proxy = at("127.0.0.1", "token = { file = \"a.token\" }\n").start();
    let admin = proxy.admin.expect("an admin address");
    // Even where its file is gone.
    fs::remove_file(proxy.path("a.token")).expect("it was there");
    let outcome = proxy.reload(&at("127.0.0.2", ""), None).await;
    let Outcome::Reloaded(reloaded) = &outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(reloaded.held_back, ["admin"]);
    assert_eq!(post(admin, "/reload").await.status(), 401);
    proxy.stop().await;
}

#[tokio::test]
async fn listeners_come_and_go_without_the_others() {
    let upstream = echo().await;
    let with = |more: &str| edge(&upstream, 200).workers(2).more(more);
    let program = with("").spawn().await;
    let mut client = program.entrance.admitted().await;
    client.echoes("hello").await;
    let reload = async |more: &str, n: usize| {
        program.folder.write("proxy.toml", &with(more).toml());
        program.signal("HUP");
        program.said_again("reloaded", n).await
    };
    let reloaded = reload(second_listener(), 0).await;
    assert_eq!(reloaded["by"], "SIGHUP");
    assert_eq!(reloaded["sessions"], 1);
    let added = program.said_again("listening", 1).await["address"].clone();
    let added: std::net::SocketAddr = added.as_str().expect("text").parse().expect("an address");
    let tcp = within("a connection", tokio::net::TcpStream::connect(added)).await;
    drop(tcp.expect("it listens"));
    program.entrance.admitted().await.echoes("hello").await;
    reload("", 1).await;
    until("it is closed", || {
        std::net::TcpStream::connect(added).err().map(drop)
    })
    .await;
    program.entrance.admitted().await.echoes("hello").await;
    client.echoes("hello").await;
    drop(client);
    program.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_refuses_the_reload() {
    let upstream = echo().await;
    let proxy = edge(&upstream, 200).start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let more = format!("[[listener]]\nbind = \"{address}\"\nplaintext = true\n");
    let outcome = proxy.reload(&edge(&upstream, 100).more(&more), None).await;
    let (status, body) = outcome.answer();
    assert_eq!(status, 409);
    let error = body["error"].as_str().expect("text");
    assert!(
        error.contains(&format!("cannot listen on {address}")),
        "{error}"
    );
    proxy.entrance.admitted().await.echoes(&long()).await;
    proxy.stop().await;
}

/// Whether the certificate that is served is the one that this client trusts.
async fn is_trusted(entrance: &Entrance) -> bool {
    let tcp = entrance.tcp().await;
    entrance.tls_over(tcp).await.is_ok()
}

#[tokio::test]
async fn a_renewed_certificate_is_served_by_itself_and_half_a_pair_is_not() {
    let upstream = echo().await;
    let program = edge(&upstream, 200).spawn().await;
    let mut client = program.entrance.admitted().await;
    client.echoes("hello").await;
    // The new one lies ready under another name, as with those who issue them.
    let renewed = program.folder.certificate("next", &["localhost"]);
    let renewed = Entrance::new(program.entrance.address, renewed);
    let rename = |from: &str, to: &str| {
        fs::rename(program.folder.path(from), program.folder.path(to)).expect("renamed");
    };
    rename("next.pem", "localhost.pem");
    let refused = program.said("reload refused: nothing changed").await;
    assert_eq!(refused["by"], "renewed files");
    let problem = program.said("configuration").await;
    assert_eq!(problem["key"], "listener.#1.tls.certificates[0].key");
    assert!(is_trusted(&program.entrance).await && !is_trusted(&renewed).await);
    rename("next.key", "localhost.key");
    let reloaded = program.said("reloaded").await;
    assert_eq!(reloaded["by"], "renewed files");
    assert_eq!(reloaded["files_changed"], 2);
    assert!(is_trusted(&renewed).await && !is_trusted(&program.entrance).await);
    assert_eq!(program.times_said("reload refused: nothing changed"), 1);
    client.echoes("still here").await;
    drop(client);
    program.stop().await;
}

#[tokio::test]
async fn files_that_are_not_watched_are_taken_when_somebody_asks() {
    let upstream = echo().await;
    let program = edge(&upstream, 200)
        .server("reload = { watch = false }")
        .spawn()
        .await;
    let renewed = program.folder.certificate("localhost", &["localhost"]);
    let renewed = Entrance::new(program.entrance.address, renewed);
    assert!(is_trusted(&program.entrance).await);
    program.signal("HUP");
    let reloaded = program.said("reloaded").await;
    assert_eq!(reloaded["by"], "SIGHUP");
    assert_eq!(reloaded["keys_changed"], 0);
    assert_eq!(reloaded["files_changed"], 2);
    assert!(is_trusted(&renewed).await && !is_trusted(&program.entrance).await);
    program.stop().await;
}

#[tokio::test]
async fn a_renewed_key_verifies_those_who_come_and_those_who_refresh() {
    const OLD: &str = "an issuer's own secret of thirty-two bytes, the old one";
    const NEW: &str = "an issuer's own secret of thirty-two bytes, the new one";
    let upstream = echo().await;
    let jwt = format!(
        "refresh = {{ field = \"/type\", equals = \"refresh\", token_field = \"/token\", \
         reply = \"refreshed\" }}\njwt = {{ algorithms = [\"HS256\"], \
         key = {{ file = \"issuer.secret\" }}, issuer = \"{ISSUER}\", audience = [\"{AUDIENCE}\"] }}"
    );
    let proxy = proxy(upstream.address)
        .auth_of_issuers("method = \"first-message\"\ntoken_field = \"/token\"", &jwt)
        .file("issuer.secret", OLD)
        .start();
    let refresh = |secret: &str| {
        let token = signed(&good_claims(), secret);
        serde_json::json!({ "type": "refresh", "token": token }).to_string()
    };
    let opened = async |secret: &str| {
        let mut client = proxy.entrance.open().await;
        client.send(message(&signed(&good_claims(), secret))).await;
        client
    };
    let (mut stays, mut late) = (opened(OLD).await, opened(OLD).await);
    stays.echoes("hello").await;
    late.echoes("hello").await;
    fs::write(proxy.path("issuer.secret"), NEW).expect("written");
    // Nobody asks for it: the file is watched.
    let taken = async {
        loop {
            let mut client = opened(NEW).await;
            // Where the token was refused, this may come too late.
            let _ = client.0.send("hello".into()).await;
            if client.try_next().await.is_ok_and(|heard| heard.is_text()) {
                return;
            }
        }
    };
    within("the key is taken", taken).await;
    stays.send(refresh(NEW)).await;
    assert_eq!(stays.text().await, "refreshed");
    stays.echoes("still here").await;
    late.send(refresh(OLD)).await;
    assert_eq!(late.closed().await.0, 3000);
    assert_eq!(opened(OLD).await.closed().await.0, 3000);
    drop(stays);
    proxy.stop().await;
}

#[tokio::test]
async fn a_source_of_keys_that_comes_back_is_read_anew() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(Behaviour::Publishes(issuer.publishes(&["a"]))).await;
    let rule = rule(&server.jwks());
    let settings = || proxy(upstream.address).issuers(&rule).more(ADMIN);
    let proxy = settings().start();
    server.until_asked(1).await;
    changed(&proxy.reload(&edge(&upstream, 200), None).await);
    // Named again it is read again, as if it were new.
    changed(&proxy.reload(&settings(), None).await);
    assert_eq!(server.asked(), 2);
    let mut client = proxy.entrance.open().await;
    client.send(message(&issuer.token("a"))).await;
    client.echoes("hello").await;
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn what_the_next_configuration_does_not_change_keeps_its_state() {
    let (upstream, issuer) = (upstream().await, Issuer::new(&["a"]));
    let server = KeyServer::start(Behaviour::Publishes(issuer.publishes(&["a"]))).await;
    let settings = |frame: usize| {
        proxy(upstream.address)
            .auth_of_issuers(
                "method = \"first-message\"\ntoken_field = \"/token\"\n\
                 identity = { claims = { sub = \"sub\" } }",
                &rule(&server.jwks()),
            )
            .more(ADMIN)
            .section("limits", &format!("max_frame_size = \"{frame}B\""))
    };
    let proxy = settings(200).start();
    let admin = proxy.admin.expect("an admin address");
    let admitted = async || {
        let mut client = proxy.entrance.open().await;
        client.send(message(&issuer.token("a"))).await;
        let (server, request) = upstream.accept_with_request().await;
        let identity = request.headers().get("X-Tidegate-Identity").cloned();
        assert!(identity.is_some());
        (client, server)
    };
    let before = admitted().await;
    let keys = get(admin, "/.well-known/jwks.json").await.body;
    revoke(admin, r#"{"sub":"mallory"}"#).await;
    for frame in [100, 200, 100] {
        changed(&proxy.reload(&settings(frame), None).await);
    }
    // Neither asked again, nor another key made, nor anybody let in again.
    let after = admitted().await;
    assert_eq!(server.asked(), 1);
    assert_eq!(get(admin, "/.well-known/jwks.json").await.body, keys);
    let mut thrown_out = proxy.entrance.open().await;
    let claims = serde_json::json!({ "sub": "mallory" });
    thrown_out
        .send(message(&issuer.token_that_says("a", &claims)))
        .await;
    assert_eq!(thrown_out.closed().await.0, 3000);
    drop((before, after));
    proxy.stop().await;
}

#[tokio::test]
async fn a_decision_that_is_kept_outlives_a_reload() {
    let (upstream, service) = (echo().await, service().await);
    let settings = |frame: usize| {
        proxy(upstream.address)
            .section(
                "auth.authorize",
                &format!(
                    "url = \"{}\"\ntimeout = \"30s\"\ncache = \"60s\"",
                    service.url
                ),
            )
            .section("limits", &format!("max_frame_size = \"{frame}B\""))
    };
    let proxy = settings(200).start();
    let token = good();
    let open = async || {
        let mut client = proxy.entrance.open().await;
        client.send(message(&token)).await;
        client
    };
    let mut first = open().await;
    service.asked().await.status(200, "").await;
    first.echoes("hello").await;
    changed(&proxy.reload(&settings(100), None).await);
    open().await.echoes("hello").await;
    service.assert_unasked();
    drop(first);
    proxy.stop().await;
}

#[tokio::test]
async fn keys_of_a_new_source_are_there_before_they_are_needed() {
    let (upstream, issuer) = (echo().await, Issuer::new(&["a"]));
    let server = KeyServer::start(Behaviour::Publishes(issuer.publishes(&["a"]))).await;
    let proxy = edge(&upstream, 200).start();
    let next = proxy_of(&upstream, &server);
    changed(&proxy.reload(&next, None).await);
    assert_eq!(server.asked(), 1);
    let mut client = proxy.entrance.open().await;
    client.send(message(&issuer.token("a"))).await;
    client.echoes("hello").await;
    drop(client);
    proxy.stop().await;
}

fn proxy_of(upstream: &Echo, server: &KeyServer) -> Settings {
    proxy(upstream.address)
        .issuers(&rule(&server.jwks()))
        .more(ADMIN)
}

#[tokio::test]
async fn a_process_that_drains_takes_no_other_configuration() {
    let upstream = upstream().await;
    let settings = || proxy(upstream.address).grace("30s");
    let mut proxy = settings().start();
    let client = proxy.entrance.admitted().await;
    let server = upstream.accept().await;
    proxy.drain();
    let outcome = proxy.reload(&settings(), None).await;
    assert!(matches!(outcome, Outcome::Impossible(_)), "{outcome:?}");
    drop((client, server));
    proxy.ended().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_drain_ends_the_wait_for_new_keys_and_nothing_is_bound() {
    let upstream = upstream().await;
    let server = KeyServer::start(Behaviour::Silent).await;
    let mut proxy = proxy(upstream.address).grace("30s").start();
    let client = proxy.entrance.admitted().await;
    let session = upstream.accept().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let next = crate::support::settings::proxy(upstream.address)
        .issuers(&rule(&server.jwks()))
        .more(&format!(
            "[[listener]]\nbind = \"{address}\"\nplaintext = true\n"
        ));
    let drain = async {
        server.until_asked(1).await;
        proxy.drain();
    };
    let (outcome, ()) = tokio::join!(proxy.reload(&next, None), drain);
    assert!(matches!(outcome, Outcome::Impossible(_)), "{outcome:?}");
    assert!(std::net::TcpStream::connect(address).is_err());
    drop((client, session));
    proxy.ended().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_hangup_that_comes_before_it_serves_is_acted_on_when_it_does() {
    let upstream = echo().await;
    let program = edge(&upstream, 200).spawn_and_hang_up().await;
    let reloaded = program.said("reloaded").await;
    assert_eq!(reloaded["by"], "SIGHUP");
    program.entrance.admitted().await.echoes("hello").await;
    program.stop().await;
}
