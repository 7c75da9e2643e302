//! Tokens in the request head: who is refused before the 101 and before the upstream hears of
//! it, what the upstream gets, and that no token is written down.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::proto::cause::Cause;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::assert_took;
use crate::support::client::Tls;
use crate::support::proxy::Proxy;
use crate::support::raw::{
    Head, Opening, masked, opening, plain, read_frame, read_head, read_to_end, text, write,
};
use crate::support::settings::{Settings, proxy};
use crate::support::token::{SECRET, good, good_claims, message, seconds_from_now, signed};
use crate::support::upstream::{Upstream, echo, switching, upstream};

const COOKIE: &str = "method = \"cookie\"\ncookie = \"session\"";

const QUERY: &str = "method = \"query\"\nquery = \"access_token\"\ni_know_query_tokens_leak = true";

const EVERYWHERE: &str = "method = [\"header\", \"cookie\", \"subprotocol\", \"query\"]\n\
     cookie = \"session\"\nquery = \"access_token\"\ni_know_query_tokens_leak = true";

/// The places of a token, and a request that has `token` in this one, beside other things of
/// the same kind.
fn places(token: &str) -> Vec<(&'static str, Opening)> {
    let other = "other=1";
    let both = opening(&format!("/chat?{other}&access_token={token}"));
    vec![
        (
            "header",
            opening("/chat?other=1").with("Authorization", &format!("Bearer {token}")),
        ),
        (
            "cookie",
            opening("/chat?other=1").with("Cookie", &format!("{other}; session={token}")),
        ),
        (
            "subprotocol",
            opening("/chat?other=1").with(
                "Sec-WebSocket-Protocol",
                &format!("chat.v1, bearer.{token}"),
            ),
        ),
        ("query", both),
    ]
}

/// What a client hears that is not let in, but for the date: the whole answer.
async fn refused(proxy: &Proxy, request: &Opening) -> (String, Vec<(String, String)>, Vec<u8>) {
    let mut tls = proxy.entrance.tls().await;
    write(&mut tls, request.text().as_bytes()).await;
    let mut head = read_head(&mut tls).await;
    let body = read_to_end(&mut tls).await;
    head.fields.retain(|(name, _)| name != "date");
    (head.first_line, head.fields, body)
}

/// A session whose upstream answers with more `fields`: both ends, and both heads.
async fn opened(
    proxy: &Proxy,
    upstream: &Upstream,
    request: &Opening,
    fields: &str,
) -> (Tls, Head, TcpStream, Head) {
    let client = async {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, request.text().as_bytes()).await;
        let head = read_head(&mut tls).await;
        (tls, head)
    };
    let server = async {
        let (mut tcp, head) = upstream.asked().await;
        write(&mut tcp, switching(&head, fields).as_bytes()).await;
        (tcp, head)
    };
    let ((client, answer), (server, asked)) = tokio::join!(client, server);
    assert_eq!(answer.status(), 101);
    (client, answer, server, asked)
}

/// Whether any part of `token` that is not the same for all tokens is in the head.
fn holds(head: &Head, token: &str) -> bool {
    let text = format!("{head:?}");
    token.split('.').skip(1).any(|part| text.contains(part))
}

#[tokio::test]
async fn a_token_admits_from_every_place_and_goes_no_further() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .auth(EVERYWHERE)
        .route_also("subprotocols = [\"chat.v1\"]")
        .section("headers", "\"X-User-Id\" = \"sub\"")
        .start();
    let token = good();
    for (place, request) in places(&token) {
        let request = request.with("X-User-Id", "root");
        let (mut client, answer, mut server, asked) =
            opened(&proxy, &upstream, &request, "Set-Cookie: a=1\r\n").await;
        assert!(!holds(&asked, &token), "{place}: {asked:?}");
        assert!(!holds(&answer, &token), "{place}: {answer:?}");
        assert_eq!(asked.first_line, "GET /chat?other=1 HTTP/1.1", "{place}");
        assert_eq!(asked.field("authorization"), None, "{place}");
        let cookie = Some("other=1").filter(|_| place == "cookie");
        assert_eq!(asked.field("cookie"), cookie, "{place}");
        let subprotocol = Some("chat.v1").filter(|_| place == "subprotocol");
        assert_eq!(
            asked.field("sec-websocket-protocol"),
            subprotocol,
            "{place}"
        );
        assert_eq!(asked.field("x-user-id"), Some("alice"), "{place}");
        // The upstream's own answer passes, and frames do from the first on.
        assert_eq!(answer.all("set-cookie"), ["a=1"], "{place}");
        write(&mut client, &masked(text("up"))).await;
        assert_eq!(read_frame(&mut server).await.expect("up").payload, b"up");
        write(&mut server, &plain(text("down"))).await;
        assert_eq!(
            read_frame(&mut client).await.expect("down").payload,
            b"down"
        );
        drop((client, server));
        assert_eq!(proxy.record().await.subject.as_deref(), Some("alice"));
    }
    proxy.stop().await;
}

/// Tokens that are no good, for as many reasons as a request head has.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let with = |name: &str, value: Value| {
        let mut claims = good_claims();
        claims[name] = value;
        signed(&claims, SECRET)
    };
    let token = good();
    let (unsigned, _) = token.rsplit_once('.').expect("a signature");
    vec![
        ("empty", String::new()),
        ("no JWT", "a.b".to_owned()),
        ("no signature", format!("{unsigned}.")),
        ("another signature", format!("{unsigned}.AAAA")),
        (
            "another secret",
            signed(&good_claims(), "some other secret of forty bytes........"),
        ),
        ("expired", with("exp", seconds_from_now(-3600).into())),
        ("not yet valid", with("nbf", seconds_from_now(3600).into())),
        ("another audience", with("aud", json!("mail"))),
        ("another issuer", with("iss", json!("https://evil.com"))),
        ("a claim that is no header", with("sub", json!("zoë"))),
        ("too long", format!("{unsigned}.{}", "A".repeat(8 * 1024))),
    ]
}

#[tokio::test]
async fn every_bad_token_hears_the_same_401_and_the_upstream_nothing() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth(EVERYWHERE)
        .process_limits("max_request_head = \"32KiB\"")
        .section("headers", "\"X-User-Id\" = \"sub\"")
        .start();
    let token = good();
    let mut requests = vec![("no token", opening("/chat"))];
    for (_, bad) in bad_tokens() {
        // A target as long as that is refused for itself.
        let fits = |place: &str| place != "query" || bad.len() < 8000;
        requests.extend(places(&bad).into_iter().filter(|(place, _)| fits(place)));
    }
    let bearer = format!("Bearer {token}");
    let twice = [
        opening("/chat")
            .with("Authorization", &bearer)
            .with("authorization", &bearer),
        opening("/chat")
            .with("Authorization", "Basic YTpi")
            .with("Authorization", &bearer),
        opening("/chat").with("Authorization", &format!("{bearer}, {bearer}")),
        opening("/chat").with("Authorization", &format!("Bearer {bearer}")),
        opening("/chat").with("Cookie", &format!("session={token}; session={token}")),
        opening("/chat")
            .with("Cookie", &format!("session={token}"))
            .with("Cookie", "session=x"),
        opening("/chat").with("Cookie", &format!("session={token}; %73ession=x")),
        opening("/chat").with("Cookie", &format!("session=\"{token}")),
        opening("/chat").with("Cookie", &format!("Session={token}")),
        opening("/chat").with(
            "Sec-WebSocket-Protocol",
            &format!("bearer.{token}, Bearer.x"),
        ),
        opening("/chat").with("Sec-WebSocket-Protocol", &format!("bearer, {token}")),
        opening(&format!("/chat?access_token={token}&access_token={token}")),
        opening(&format!("/chat?access_token={token}&access%5ftoken=x")),
        opening(&format!("/chat?access_token={token}%20")),
        opening(&format!("/chat?access_token[]={token}")),
        opening(&format!("/chat?Access_Token={token}")),
        // In a place that comes before a good one.
        opening(&format!("/chat?access_token={token}")).with("Authorization", "Bearer x"),
        opening("/chat")
            .with("Authorization", &bearer)
            .with("Authorization", ""),
        opening("/chat")
            .with("Cookie", "session=")
            .with("Sec-WebSocket-Protocol", &format!("bearer.{token}")),
    ];
    requests.extend(twice.map(|request| ("a trick", request)));
    assert!(requests.len() > 55, "{}", requests.len());
    let expected = refused(&proxy, &opening("/chat")).await;
    assert_eq!(expected.0, "HTTP/1.1 401 Unauthorized");
    let challenge = ("www-authenticate".to_owned(), "Bearer".to_owned());
    assert!(expected.1.contains(&challenge), "{expected:?}");
    assert_eq!(expected.2, b"Unauthorized\n");
    let asked = requests.len() as u64 + 1;
    for (name, request) in requests {
        let heard = refused(&proxy, &request).await;
        assert_eq!(heard, expected, "{name}: {}", request.text());
    }
    proxy.counted("refusals", asked, |c| c.rejected.get()).await;
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn a_wrong_origin_is_told_before_a_token_is_looked_at() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).auth(COOKIE).start();
    let cookie = format!("session={}", good());
    let request = opening("/chat").with("Cookie", &cookie).without("Origin");
    let request = request.with("Origin", "https://evil.com");
    let (status, _, _) = refused(&proxy, &request).await;
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn the_header_or_cookie_that_decided_is_forwarded_where_the_route_says_so() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth(&format!("{EVERYWHERE}\nforward_token = true"))
        .route_also("subprotocols = [\"chat.v1\"]")
        .start();
    let token = good();
    let bearer = format!("bearer  {token}");
    let cookies = format!("a=1;session={token}; b=2");
    let query = format!("/chat?access_token={token}");
    let subprotocol = format!("bearer.{token}, chat.v1");
    // The header decides, and alone passes; what was not verified does not.
    let request = opening(&query)
        .with("Authorization", &bearer)
        .with("Cookie", "session=unverified; a=1")
        .with("Sec-WebSocket-Protocol", &subprotocol);
    let (client, _, server, asked) = opened(&proxy, &upstream, &request, "").await;
    assert_eq!(asked.field("authorization"), Some(bearer.as_str()));
    assert_eq!(asked.field("cookie"), Some("a=1"));
    assert_eq!(asked.first_line, "GET /chat HTTP/1.1");
    assert_eq!(asked.field("sec-websocket-protocol"), Some("chat.v1"));
    drop((client, server));
    // The cookie decides; the credentials of another scheme were never looked at.
    let request = opening(&query)
        .with("Cookie", &cookies)
        .with("Authorization", "Basic YTpi");
    let (client, _, server, asked) = opened(&proxy, &upstream, &request, "").await;
    assert_eq!(asked.field("cookie"), Some(cookies.as_str()));
    assert_eq!(asked.field("authorization"), None);
    assert_eq!(asked.first_line, "GET /chat HTTP/1.1");
    drop((client, server));
    // Subprotocol and query never pass.
    for request in [
        opening("/chat").with("Sec-WebSocket-Protocol", &subprotocol),
        opening(&query),
    ] {
        let (client, _, server, asked) = opened(&proxy, &upstream, &request, "").await;
        assert!(!holds(&asked, &token), "{asked:?}");
        drop((client, server));
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_the_route_reads_no_token_from_passes_as_it_is() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).auth("method = \"header\"").start();
    let request = opening("/chat?access_token=theirs")
        .with("Authorization", &format!("Bearer {}", good()))
        .with("Cookie", "session=theirs;x=1")
        .with("Sec-WebSocket-Protocol", "bearer.theirs");
    let (client, _, server, asked) = opened(&proxy, &upstream, &request, "").await;
    assert_eq!(asked.first_line, "GET /chat?access_token=theirs HTTP/1.1");
    assert_eq!(asked.field("cookie"), Some("session=theirs;x=1"));
    assert_eq!(asked.field("sec-websocket-protocol"), Some("bearer.theirs"));
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_among_the_subprotocols_is_never_the_one_chosen() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth("method = \"subprotocol\"")
        .route_also("subprotocols = [\"chat.v1\"]")
        .start();
    let offering = |offered: &str| {
        let offered = offered.replace('T', &format!("bearer.{}", good()));
        opening("/chat").with("Sec-WebSocket-Protocol", &offered)
    };
    let chose = |subprotocol: &str| format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
    // Offered; said by the upstream; heard by the client.
    let cases = [
        ("T, chat.v2, chat.v1", chose("chat.v2"), Some("chat.v2")),
        // Browsers give up when they offered some and hear of none.
        ("chat.v2, T, chat.v1", String::new(), Some("chat.v1")),
        ("T, chat.v2", String::new(), None),
        ("T", String::new(), None),
    ];
    for (offered, said, heard) in cases {
        let (client, answer, server, _) =
            opened(&proxy, &upstream, &offering(offered), &said).await;
        assert_eq!(answer.field("sec-websocket-protocol"), heard, "{offered}");
        drop((client, server));
    }
    // An upstream cannot choose what it was not offered.
    let client = async {
        let mut tls = proxy.entrance.tls().await;
        write(&mut tls, offering("T").text().as_bytes()).await;
        read_head(&mut tls).await.status()
    };
    let server = async {
        let (mut tcp, head) = upstream.asked().await;
        let answer = switching(&head, &chose(&format!("bearer.{}", good())));
        write(&mut tcp, answer.as_bytes()).await;
    };
    assert_eq!(tokio::join!(client, server).0, 502);
    proxy.stop().await;
}

fn mixed(settings: Settings) -> Settings {
    settings.auth(
        "method = [\"header\", \"first-message\"]\ntoken_field = \"/token\"\n\
         reply = \"ready\"\ntimeout = \"1s\"",
    )
}

#[tokio::test]
async fn on_a_mixed_route_the_request_head_decides_where_it_has_a_token() {
    let upstream = upstream().await;
    let mut proxy = mixed(proxy(upstream.address)).start();
    let request = opening("/chat").with("Authorization", &format!("Bearer {}", good()));
    let (mut client, _, mut server, _) = opened(&proxy, &upstream, &request, "").await;
    // Its first message is one like any other, also when it looks like a token.
    let first = message("not.a.token");
    write(&mut client, &masked(text(&first))).await;
    let seen = read_frame(&mut server).await.expect("the first message");
    assert_eq!(seen.payload, first.as_bytes());
    write(&mut server, &plain(text("the upstream's first"))).await;
    let seen = read_frame(&mut client)
        .await
        .expect("no reply of the edge's");
    assert_eq!(seen.payload, b"the upstream's first");
    drop((client, server));
    assert_eq!(proxy.record().await.subject.as_deref(), Some("alice"));
    proxy.stop().await;
}

#[tokio::test]
async fn on_a_mixed_route_the_first_message_decides_where_the_head_has_none() {
    let upstream = upstream().await;
    let mut proxy = mixed(proxy(upstream.address)).start();
    // Answered before the upstream is dialled.
    let mut client = proxy.entrance.raw_open().await;
    write(&mut client, &masked(text(&message(&good())))).await;
    let server = upstream.accept_raw().await;
    assert_eq!(
        read_frame(&mut client).await.expect("a reply").payload,
        b"ready"
    );
    drop((client, server));
    assert_eq!(proxy.record().await.subject.as_deref(), Some("alice"));
    // The deadline of the first message holds, and a bad token has no second chance.
    assert_eq!(proxy.entrance.open().await.closed().await.0, 3008);
    let mut client = proxy.entrance.open().await;
    client.send(message("not.a.token")).await;
    assert_eq!(client.closed().await.0, 3000);
    let request = opening("/chat").with("Authorization", "Bearer not.a.token");
    let (status, _, _) = refused(&proxy, &request).await;
    assert_eq!(status, "HTTP/1.1 401 Unauthorized");
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn credentials_of_another_scheme_leave_it_to_the_first_message_and_go_no_further() {
    let upstream = upstream().await;
    let proxy = mixed(proxy(upstream.address)).start();
    let mut tls = proxy.entrance.tls().await;
    let request = opening("/chat").with("Authorization", "Basic YTpi");
    write(&mut tls, request.text().as_bytes()).await;
    assert_eq!(read_head(&mut tls).await.status(), 101);
    write(&mut tls, &masked(text(&message(&good())))).await;
    let (server, asked) = upstream.asked().await;
    assert_eq!(asked.field("authorization"), None);
    drop((tls, server));
    proxy.stop().await;
}

#[tokio::test]
async fn a_session_that_its_head_admitted_ends_with_its_token() {
    let upstream = upstream().await;
    let mut proxy = mixed(proxy(upstream.address)).start();
    let mut claims = good_claims();
    // Thirty seconds of leeway: two to three seconds are left.
    claims["exp"] = seconds_from_now(3 - 30).into();
    let began = Instant::now();
    let bearer = format!("Bearer {}", signed(&claims, SECRET));
    let request = proxy.entrance.request("/chat");
    let request = request.with_header("Authorization", bearer);
    let (asked, server) = tokio::join!(proxy.entrance.ask(request), upstream.accept());
    let (mut client, _) = asked.expect("a 101");
    client.send("alive").await;
    let mut server = server;
    assert_eq!(server.text().await, "alive");
    let heard = client.closed().await;
    assert_eq!(heard, (3000, "unauthorized".to_owned()));
    assert_took(began, Duration::from_secs(2), Duration::from_secs(20));
    assert_eq!(server.closed().await.0, 1001);
    let record = proxy.record().await;
    assert_eq!(record.summary.cause, Cause::TokenExpired);
    assert_eq!(record.subject.as_deref(), Some("alice"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_token_in_the_head_is_never_logged() {
    let echo = echo().await;
    let mut program = proxy(echo.address).auth(EVERYWHERE).spawn().await;
    let mut secrets = vec![SECRET.to_owned()];
    let mut tokens = bad_tokens();
    tokens.retain(|(_, token)| token.len() < 4000);
    tokens.push(("good", good()));
    for (name, token) in &tokens {
        for (place, request) in places(token) {
            let mut tls = program.entrance.tls().await;
            write(&mut tls, request.text().as_bytes()).await;
            let status = read_head(&mut tls).await.status();
            let is_good = *name == "good" || *name == "a claim that is no header";
            assert_eq!(status == 101, is_good, "{name} in {place}: {status}");
        }
        secrets.extend(token.split('.').skip(1).map(str::to_owned));
    }
    program.signal("TERM");
    program.exited().await;
    let log = program.log().join("\n");
    assert!(
        log.contains("\"token refused\""),
        "the reasons are in the log"
    );
    assert!(log.contains("\"the token has expired\""), "{log}");
    let secrets: Vec<_> = secrets.iter().filter(|part| part.len() > 8).collect();
    assert!(secrets.len() > 10);
    for secret in secrets {
        assert!(!log.contains(secret.as_str()), "{secret} in {log}");
    }
}

#[tokio::test]
async fn a_query_token_alone_leaves_the_target_bare() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth(QUERY)
        .endpoint_path("/inner?edge=1")
        .start();
    let request = opening(&format!("/chat?access%5Ftoken={}", good()));
    let (client, _, server, asked) = opened(&proxy, &upstream, &request, "").await;
    assert_eq!(asked.first_line, "GET /inner?edge=1 HTTP/1.1");
    drop((client, server));
    proxy.stop().await;
}

const GRAPHQL: &str = "method = \"first-message\"\npreset = \"graphql-ws\"";

fn init(token: &str) -> String {
    json!({"type": "connection_init", "payload": {"Authorization": format!("Bearer {token}")}})
        .to_string()
}

#[tokio::test]
async fn connection_init_admits_and_the_upstream_acknowledges_it() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth(GRAPHQL)
        .route_also("subprotocols = [\"graphql-transport-ws\"]")
        .start();
    let request = proxy.entrance.request("/chat");
    let request = request.with_sub_protocol("graphql-transport-ws");
    let (mut client, answer) = proxy.entrance.ask(request).await.expect("a 101");
    assert_eq!(
        answer.headers()["sec-websocket-protocol"],
        "graphql-transport-ws"
    );
    let first = init(&good());
    client.send(first.as_str()).await;
    let (mut server, asked) = upstream.asked().await;
    assert_eq!(
        asked.field("sec-websocket-protocol"),
        Some("graphql-transport-ws")
    );
    let chosen = "Sec-WebSocket-Protocol: graphql-transport-ws\r\n";
    write(&mut server, switching(&asked, chosen).as_bytes()).await;
    let seen = read_frame(&mut server).await.expect("the first message");
    assert_eq!(seen.payload, first.as_bytes());
    write(&mut server, &plain(text(r#"{"type":"connection_ack"}"#))).await;
    assert_eq!(client.text().await, r#"{"type":"connection_ack"}"#);
    drop((client, server));
    proxy.stop().await;
}

#[tokio::test]
async fn any_other_first_message_of_graphql_is_refused() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address)
        .auth(GRAPHQL)
        .route_also("subprotocols = [\"graphql-transport-ws\"]")
        .start();
    let payload = json!({ "Authorization": good() });
    for first in [
        json!({ "type": "connection_init" }),
        json!({ "type": "connection_init", "payload": { "authorization": good() } }),
        json!({ "type": "subscribe", "payload": payload }),
        json!({ "type": ["connection_init"], "payload": payload }),
        json!({ "payload": payload }),
        json!("connection_init"),
        json!([{ "type": "connection_init", "payload": payload }]),
    ] {
        let mut client = proxy.entrance.open().await;
        client.send(first.to_string()).await;
        assert_eq!(client.closed().await.0, 3000, "{first}");
        let record = proxy.record().await;
        assert_eq!(record.summary.cause, Cause::TokenRefused, "{first}");
    }
    // Two types, of which readers take the one or the other.
    let twice = init(&good()).replacen('{', "{\"type\":\"subscribe\",", 1);
    let mut client = proxy.entrance.open().await;
    client.send(twice).await;
    assert_eq!(client.closed().await.0, 3000);
    upstream.assert_untouched();
    proxy.stop().await;
}

#[tokio::test]
async fn where_connection_init_is_kept_back_the_edge_acknowledges_it() {
    let upstream = upstream().await;
    let proxy = proxy(upstream.address)
        .auth(&format!(
            "{GRAPHQL}\nforward = false\ntoken_field = \"/payload/headers/auth\""
        ))
        .route_also("subprotocols = [\"graphql-transport-ws\"]")
        .start();
    let mut client = proxy.entrance.open().await;
    let payload = json!({ "headers": { "auth": good() } });
    client
        .send(json!({ "type": "connection_init", "payload": payload }).to_string())
        .await;
    let mut server = upstream.accept().await;
    assert_eq!(client.text().await, r#"{"type":"connection_ack"}"#);
    client.send(Message::text("second")).await;
    assert_eq!(server.text().await, "second");
    drop((client, server));
    proxy.stop().await;
}
