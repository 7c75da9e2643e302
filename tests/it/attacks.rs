//! The attack table, `attacks.toml`: each row is played against the real program, must get the
//! answer that the row says, and must leave it as it was: a good client is served at once, and
//! no memory is kept.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::support::client::Tls;
use crate::support::program::Program;
use crate::support::raw::{
    Seen, masked, opening, plain, read_frame, read_head, read_to_end, text, write,
};
use crate::support::settings::{ORIGIN, Settings, proxy};
use crate::support::upstream::{Echo, Upstream, echo, switching, upstream};
use crate::support::{token, until, within};

#[derive(Deserialize)]
struct Table {
    request: Vec<Request>,
    frames: Vec<Frames>,
    answer: Vec<Answer>,
    claims: Vec<Claims>,
    records: Vec<Records>,
    phase: Vec<Phase>,
}

#[derive(Deserialize)]
struct Request {
    name: String,
    send: String,
    status: u16,
    closed: Option<u16>,
    cause: Option<String>,
}

#[derive(Deserialize)]
struct Frames {
    name: String,
    #[serde(flatten)]
    bytes: Bytes,
    client: u16,
    upstream: Option<u16>,
    cause: String,
}

#[derive(Deserialize)]
struct Answer {
    name: String,
    answer: String,
    #[serde(flatten)]
    bytes: Bytes,
    delivered: Option<String>,
    client: Option<u16>,
    upstream: Option<u16>,
    cause: String,
}

#[derive(Deserialize)]
struct Claims {
    name: String,
    sub: String,
    times: Option<usize>,
}

#[derive(Deserialize)]
struct Records {
    name: String,
    #[serde(flatten)]
    bytes: Bytes,
    #[serde(default)]
    inside: bool,
}

#[derive(Deserialize)]
struct Phase {
    name: String,
    at: String,
    how: String,
    client: Option<u16>,
    cause: Option<String>,
}

/// `hex` or, where there is a `rest`, that, `times` over; and then the `last`.
#[derive(Deserialize)]
struct Bytes {
    #[serde(default)]
    hex: String,
    rest: Option<String>,
    last: Option<String>,
    times: Option<usize>,
}

fn table() -> Table {
    toml::from_str(include_str!("attacks.toml")).expect("a table")
}

impl Bytes {
    fn all(&self) -> Vec<u8> {
        let (first, times) = (unhex(&self.hex), self.times.unwrap_or(1));
        let last = self.last.as_deref().map(unhex).unwrap_or_default();
        match &self.rest {
            None => [first.repeat(times), last].concat(),
            Some(rest) => [first, unhex(rest).repeat(times), last].concat(),
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |two| u8::from_str_radix(str::from_utf8(two).expect("ASCII"), 16).expect("hex");
    digits.map(byte).collect()
}

/// The program under attack, with a route whose upstream the test plays and one for the good.
struct Stage {
    program: Program,
    upstream: Upstream,
    _echo: Echo,
    /// Session-end records so far.
    ended: usize,
    base: u64,
}

/// What an allocator keeps, and what a page more or less is.
const SLACK: u64 = 8 << 20;

impl Stage {
    async fn new(change: impl FnOnce(Settings) -> Settings) -> Self {
        let (upstream, echo) = (upstream().await, echo().await);
        let good = format!(
            r#"
[[upstream]]
name = "echo"
endpoints = ["ws://{}"]
[[route]]
name = "good"
path = "/good"
origins = ["{ORIGIN}"]
upstream = "echo"
auth.method = "none"
[[route]]
name = "admin"
host = "admin.example.com"
path = "/admin"
origins = ["{ORIGIN}"]
upstream = "echo"
auth.method = "none"
"#,
            echo.address
        );
        let settings = proxy(upstream.address)
            .process_limits("handshakes_per_ip = \"off\"")
            .route_also("close_timeout = \"300ms\"")
            .section("headers", "X-User-Id = \"sub\"")
            .more(&good);
        let program = change(settings).spawn_quiet().await;
        let mut stage = Self {
            program,
            upstream,
            _echo: echo,
            ended: 0,
            base: u64::MAX / 2,
        };
        for _ in 0..10 {
            stage.serves("nothing yet").await;
        }
        stage.base = stage.program.memory("VmRSS:");
        stage
    }

    /// A good client is served at once, and no memory is kept.
    async fn serves(&mut self, after: &str) {
        let asked = Instant::now();
        let request = self.program.entrance.request("/good");
        let (mut client, _) = self.program.entrance.ask(request).await.expect("a 101");
        client.echoes("still there?").await;
        client.close(1000, "").await;
        client.closed().await;
        // Far longer than it takes, far less than anything waits for an attacker.
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?} after {after}");
        self.ended_by(after, "closed").await;
        self.program.assert_running();
        until(&format!("memory is given back after {after}"), || {
            (self.program.memory("VmRSS:") <= self.base + SLACK).then_some(())
        })
        .await;
    }

    async fn ended_by(&mut self, name: &str, cause: &str) {
        let record = self.program.record(self.ended).await;
        assert_eq!(record["cause"], cause, "{name}: {record}");
        self.ended += 1;
    }

    async fn stop(self) {
        self.program.stop().await;
    }
}

/// Sends what the other side may have stopped to take.
async fn flood(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    // Refused bytes are what an attacker has to live with.
    let _how_far = within("bytes are taken or refused", sent).await;
}

/// The code of the Close that comes, whatever comes before it: none when the connection ends.
async fn close_code(stream: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    while let Some(frame) = read_frame(stream).await {
        if frame.opcode == 8 {
            return Some(frame.close().0);
        }
    }
    None
}

fn request(send: &str) -> String {
    let fields = opening("/chat");
    let text = |fields: crate::support::raw::Opening| {
        let text = fields.text();
        let (_, fields) = text.split_once("\r\n").expect("a request line");
        fields.strip_suffix("\r\n").expect("an end").to_owned()
    };
    let mut sent = send.replace("<good>", &text(fields.clone()));
    for (mark, name) in [
        ("<no-host>", "Host"),
        ("<no-origin>", "Origin"),
        ("<no-upgrade>", "Upgrade"),
        ("<no-key>", "Sec-WebSocket-Key"),
    ] {
        sent = sent.replace(mark, &text(fields.clone().without(name)));
    }
    sent
}

#[tokio::test]
async fn requests_of_the_attack_table() {
    let mut stage = Stage::new(|s| s.auth_also("timeout = \"2s\"")).await;
    let rows = table().request;
    assert!(rows.len() > 50);
    let mut wrong = Vec::new();
    for row in rows {
        let name = &row.name;
        let mut tls = stage.program.entrance.tls().await;
        flood(&mut tls, request(&row.send).as_bytes()).await;
        if row.status == 0 {
            let heard = read_to_end(&mut tls).await;
            assert!(!heard.starts_with(b"HTTP/1.1 101"), "{name}: {heard:?}");
        } else {
            let head = read_head(&mut tls).await;
            if head.status() != row.status {
                wrong.push(format!("{name}: {} and not {}", head.status(), row.status));
            }
        }
        if let Some(cause) = &row.cause {
            assert_eq!(close_code(&mut tls).await, row.closed, "{name}");
            drop(tls);
            stage.ended_by(name, cause).await;
        } else {
            // One answer, and nothing behind it.
            let rest = read_to_end(&mut tls).await;
            assert!(!rest.windows(8).any(|w| w == b"HTTP/1.1"), "{name}");
            drop(tls);
        }
        stage.serves(name).await;
    }
    stage.program.stop().await;
    stage.upstream.assert_untouched();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn frames_of_the_attack_table() {
    let mut stage = Stage::new(|s| s).await;
    let rows = table().frames;
    assert!(rows.len() > 20);
    for row in rows {
        let client = stage.program.entrance.raw_admitted().await;
        let mut server = stage.upstream.accept_raw().await;
        let (mut reading, mut writing) = tokio::io::split(client);
        let bytes = row.bytes.all();
        let served = async {
            let heard = close_code(&mut server).await;
            if heard == Some(1000) {
                flood(&mut server, &plain(crate::support::raw::close(1000, ""))).await;
            }
            heard
        };
        let ((), heard, server_heard) = tokio::join!(
            flood(&mut writing, &bytes),
            close_code(&mut reading),
            served
        );
        assert_eq!(heard, Some(row.client), "{}", row.name);
        let to_upstream = row.upstream.unwrap_or(1001);
        assert_eq!(server_heard, Some(to_upstream), "{}", row.name);
        drop((reading, writing, server));
        stage.ended_by(&row.name, &row.cause).await;
        stage.serves(&row.name).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn upstreams_of_the_attack_table() {
    let mut stage = Stage::new(|s| s).await;
    let rows = table().answer;
    assert!(rows.len() > 15);
    for row in rows {
        let name = &row.name;
        let mut client = stage.program.entrance.raw_admitted().await;
        let (mut server, head) = stage.upstream.asked().await;
        let key = head.field("sec-websocket-key").expect("a key");
        let answer = row.answer.replace("<101>", &switching(&head, ""));
        let answer = answer.replace("<accept>", &derive_accept_key(key.as_bytes()));
        let all = [answer.as_bytes(), &row.bytes.all()].concat();
        let served = async {
            flood(&mut server, &all).await;
            let heard = match row.upstream {
                Some(_) => close_code(&mut server).await,
                None => None,
            };
            drop(server);
            heard
        };
        let listens = async {
            if let Some(delivered) = &row.delivered {
                let Seen { payload, .. } = read_frame(&mut client).await.expect("a frame");
                assert_eq!(payload, delivered.as_bytes(), "{name}");
            }
            close_code(&mut client).await
        };
        let (server_heard, heard) = tokio::join!(served, listens);
        assert_eq!(heard, row.client, "{name}");
        assert_eq!(server_heard, row.upstream, "{name}");
        drop(client);
        stage.ended_by(name, &row.cause).await;
        stage.serves(name).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn claims_of_the_attack_table() {
    let mut stage = Stage::new(|s| s).await;
    let rows = table().claims;
    assert!(rows.len() > 5);
    for row in rows {
        let mut claims = token::good_claims();
        claims["sub"] = json!(row.sub.repeat(row.times.unwrap_or(1)));
        let signed = token::signed(&claims, token::SECRET);
        let mut client = stage.program.entrance.raw_open().await;
        write(&mut client, &masked(text(&token::message(&signed)))).await;
        assert_eq!(close_code(&mut client).await, Some(3000), "{}", row.name);
        drop(client);
        stage.ended_by(&row.name, "token_refused").await;
        stage.serves(&row.name).await;
    }
    stage.program.stop().await;
    stage.upstream.assert_untouched();
}

#[tokio::test]
async fn records_of_the_attack_table() {
    let mut stage = Stage::new(|s| s.tls("handshake_timeout = \"2s\"")).await;
    let rows = table().records;
    assert!(rows.len() > 10);
    for row in rows {
        let mut tcp = if row.inside {
            stage.program.entrance.tls().await.into_inner().0
        } else {
            stage.program.entrance.tcp().await
        };
        let bytes = row.bytes.all();
        let (mut reading, mut writing) = tcp.split();
        let ((), heard) = tokio::join!(
            flood(&mut writing, &bytes),
            // At the latest when the handshake has had its time.
            read_to_end(&mut reading)
        );
        assert!(!heard.windows(5).any(|w| w == b"HTTP/"), "{}", row.name);
        drop(tcp);
        stage.serves(&row.name).await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn phases_of_the_attack_table() {
    let rows = table().phase;
    assert!(rows.len() > 20);
    // Most of their time they wait: each has a program of its own, all at once.
    join_all(rows.iter().map(async |row| {
        let mut stage = Stage::new(|s| {
            s.tls("handshake_timeout = \"2s\"")
                .process_limits("handshakes_per_ip = \"off\"\nrequest_head_timeout = \"2s\"")
                .auth_also("timeout = \"2s\"")
                .section(
                    "keepalive",
                    "ping_interval = \"2s\"\npong_timeout = \"1s\"\nmax_lifetime = \"6s\"",
                )
        })
        .await;
        stage.plays(row).await;
        if let Some(cause) = &row.cause {
            stage.ended_by(&row.name, cause).await;
        }
        stage.serves(&row.name).await;
        stage.stop().await;
    }))
    .await;
}

impl Stage {
    async fn plays(&self, row: &Phase) {
        let entrance = &self.program.entrance;
        match row.at.as_str() {
            "tcp" => misbehave(Wire::Tcp(entrance.tcp().await), &[], row).await,
            "hello" => {
                let hello = unhex("16030100c8010000c403030102030405060708090a0b0c0d0e0f");
                misbehave(Wire::Tcp(entrance.tcp().await), &hello, row).await;
            }
            "head" => {
                let head = opening("/chat").text();
                let tls = Wire::Tls(Box::new(entrance.tls().await));
                misbehave(tls, &head.as_bytes()[..60], row).await;
            }
            "first message" => {
                let tls = Wire::Tls(Box::new(entrance.raw_open().await));
                let message = masked(text(&token::message(&token::good())));
                misbehave(tls, &message[..100], row).await;
            }
            "frame" => {
                let (tls, server) = self.session().await;
                let frame = masked(crate::support::raw::binary(vec![7; 1000]));
                misbehave(tls, &frame[..500], row).await;
                drop(server);
            }
            "closing" => {
                let (tls, mut server) = self.session().await;
                let close = masked(crate::support::raw::close(1000, ""));
                // The upstream hears it, and never answers.
                let (heard, ()) =
                    tokio::join!(close_code(&mut server), misbehave(tls, &close, row));
                assert_eq!(heard, Some(1000), "{}", row.name);
            }
            other => panic!("{}: at {other}", row.name),
        }
    }

    /// A session with both ends in the test's hands.
    async fn session(&self) -> (Wire, TcpStream) {
        let client = self.program.entrance.raw_admitted().await;
        let server = self.upstream.accept_raw().await;
        (Wire::Tls(Box::new(client)), server)
    }
}

/// What an attacker holds.
enum Wire {
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

/// Sends `bytes` and does what the row says; then the connection must end, by the edge.
async fn misbehave(wire: Wire, bytes: &[u8], row: &Phase) {
    match wire {
        Wire::Tcp(mut tcp) => {
            if row.how == "reset" {
                flood(&mut tcp, bytes).await;
                return reset(&tcp);
            }
            misbehave_on(&mut tcp, bytes, row).await;
        }
        Wire::Tls(mut tls) => {
            if row.how == "reset" {
                flood(&mut tls, bytes).await;
                return reset(tls.get_ref().0);
            }
            if row.how == "fin" {
                flood(&mut tls, bytes).await;
                // TLS is not told: no close_notify.
                let ended = tls.get_mut().0.shutdown().await;
                ended.expect("the end can be sent");
                read_to_end(&mut tls).await;
                return;
            }
            misbehave_on(&mut tls, bytes, row).await;
        }
    }
}

async fn misbehave_on<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
    row: &Phase,
) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let sends = async {
        match row.how.as_str() {
            "stall" => flood(&mut writing, bytes).await,
            "half-close" => {
                flood(&mut writing, bytes).await;
                // It may be gone by now, which is as good.
                let _how = writing.shutdown().await;
            }
            "drip" => {
                let mut ticks = tokio::time::interval(Duration::from_millis(50));
                // Each byte is a sign of life, and none moves the deadline.
                for byte in bytes.iter().cycle().take(1000) {
                    ticks.tick().await;
                    if writing.write_all(&[*byte]).await.is_err() || writing.flush().await.is_err()
                    {
                        break;
                    }
                }
            }
            other => panic!("{}: {other}", row.name),
        }
        std::future::pending::<()>().await;
    };
    let hears = async {
        match row.client {
            Some(code) => assert_eq!(close_code(&mut reading).await, Some(code), "{}", row.name),
            None => assert!(!read_to_end(&mut reading).await.starts_with(b"HTTP/1.1 101")),
        }
        read_to_end(&mut reading).await;
    };
    tokio::select! {
        () = sends => {}
        () = hears => {}
    }
}

fn reset(tcp: &TcpStream) {
    let linger = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    linger.expect("an option is set");
}

#[tokio::test]
async fn a_session_of_single_bytes_is_a_session() {
    let mut stage = Stage::new(|s| s).await;
    let mut client = stage.program.entrance.tls().await;
    let all = [
        opening("/chat").text().into_bytes(),
        masked(text(&token::message(&token::good()))),
        masked(text("one byte a packet")),
    ]
    .concat();
    for byte in all {
        write(&mut client, &[byte]).await;
    }
    let mut server = stage.upstream.accept().await;
    assert_eq!(server.text().await, "one byte a packet");
    drop((client, server));
    stage.program.record(stage.ended).await;
    stage.ended += 1;
    stage.serves("single bytes").await;
    stage.stop().await;
}

/// A connection from one of some hundred addresses of the loopback, so that no cap of one
/// address is what holds.
async fn stranger(n: u16, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let [_, host] = (n % 100 + 10).to_be_bytes();
    socket
        .bind(SocketAddr::from(([127, 0, 1, host], 0)))
        .expect("all of 127/8 is the loopback");
    within("a connection", socket.connect(to))
        .await
        .expect("it listens")
}

#[tokio::test]
async fn storms_of_strangers_leave_room_for_the_good() {
    const IDLE: u16 = 10_000;
    crate::memory::allow_descriptors(u64::from(IDLE) + 500);
    let mut stage = Stage::new(|s| {
        s.tls("handshake_timeout = \"10s\"").process_limits(
            "max_connections = 40000\nmax_unauthenticated = 12000\n\
             handshakes_per_ip = \"off\"",
        )
    })
    .await;
    let address = stage.program.entrance.address;
    // Ten thousand that say nothing. The allocator keeps what the first of them needed, and
    // none of it must be lost: the second need no more.
    for round in 0..2 {
        let mut idle = Vec::new();
        for n in 0..IDLE {
            idle.push(stranger(n, address).await);
            if n % 2000 == 0 {
                stage.good_client_alone().await;
            }
        }
        stage.good_client_alone().await;
        if round == 0 {
            let needed = stage.program.memory("VmRSS:") - stage.base;
            assert!(needed < u64::from(IDLE) * (12 << 10), "{needed} bytes");
            stage.base += needed;
        }
        drop(idle);
        stage.serves("ten thousand idle strangers").await;
    }
    // Five hundred that come with TLS and leave, and five hundred that leave within it.
    for n in 0..500 {
        let tls = stage
            .program
            .entrance
            .tls_over(stranger(n, address).await)
            .await;
        drop(tls.expect("a TLS connection"));
        let mut tcp = stranger(n, address).await;
        flood(&mut tcp, &unhex("16030100c8010000c40303")).await;
        reset(&tcp);
    }
    stage.serves("storms of connections").await;
    stage.stop().await;
}

impl Stage {
    /// Served, whatever memory others hold meanwhile.
    async fn good_client_alone(&mut self) {
        let base = std::mem::replace(&mut self.base, u64::MAX / 2);
        self.serves("strangers that are still there").await;
        self.base = base;
    }
}
