//! Request heads as raw bytes: what is answered, what is refused, and what a slow sender costs.

use tokio::io::{DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::proto::handshake::target::TargetFault;

const GOOD: &str = "GET /chat?x=1 HTTP/1.1\r\n\
    Host: chat.example.com\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn limits() -> HeadLimits {
    limits_at(Instant::now() + Duration::from_secs(10))
}

fn limits_at(deadline: Instant) -> HeadLimits {
    HeadLimits {
        deadline,
        max_head: 16 * 1024,
        max_headers: 64,
    }
}

/// Serves one connection as the edge does, accepting whatever passes the check.
async fn serve<S>(stream: S, limits: &HeadLimits) -> Result<Opened<S>, NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = read_request(stream, limits).await?;
    request.accept(Accept::default()).await
}

/// Sends these bytes at once over a pipe of this capacity and reads until the edge closes.
async fn exchange(raw: &[u8], capacity: usize) -> (Result<(), NotOpened>, String) {
    let (client, edge) = duplex(capacity);
    let (mut reader, mut writer) = tokio::io::split(client);
    let talk = async {
        let mut answer = String::new();
        let read = reader.read_to_string(&mut answer);
        // A refused client may find the pipe closed while it still writes.
        let (read, _) = tokio::join!(read, writer.write_all(raw));
        read.expect("answer");
        answer
    };
    let limits = limits();
    let serve = async { serve(edge, &limits).await.map(drop) };
    tokio::join!(serve, talk)
}

fn status_of(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).unwrap_or_default();
    code.parse().unwrap_or(0)
}

fn swap(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

fn add(line: &str) -> String {
    swap(
        "Upgrade: websocket\r\n",
        &format!("Upgrade: websocket\r\n{line}\r\n"),
    )
}

#[tokio::test]
async fn the_101_has_what_the_rfc_asks_for_and_nothing_more() {
    let (mut client, edge) = duplex(4096);
    client.write_all(GOOD.as_bytes()).await.expect("write");
    let request = read_request(edge, &limits()).await.expect("request");
    assert_eq!(request.opening().path(), "/chat");
    assert!(request.fields().contains(&("host", b"chat.example.com")));
    let accept = Accept {
        subprotocol: Some("chat.v1".into()),
        fields: vec![
            Field {
                name: "Set-Cookie".into(),
                value: b"a=1".to_vec(),
            },
            Field {
                name: "Set-Cookie".into(),
                value: b"b=2".to_vec(),
            },
        ],
    };
    let opened = request.accept(accept).await.expect("opened");
    assert!(opened.early.is_empty());
    drop(opened);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("answer");
    let mut lines: Vec<_> = answer.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "HTTP/1.1 101 Switching Protocols");
    lines.retain(|line| !line.starts_with("date: "));
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "connection: Upgrade",
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "sec-websocket-protocol: chat.v1",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "upgrade: websocket",
        ]
    );
}

#[tokio::test]
async fn bytes_behind_the_head_are_not_lost() {
    let (mut client, edge) = duplex(4096);
    let raw = [GOOD.as_bytes(), b"\x81\x85masked"].concat();
    client.write_all(&raw).await.expect("write");
    let opened = serve(edge, &limits()).await.expect("opened");
    assert_eq!(&opened.early[..], b"\x81\x85masked");
}

#[tokio::test]
async fn bytes_sent_before_the_answer_are_not_lost_and_are_bounded() {
    let (mut client, edge) = duplex(1024 * 1024);
    client.write_all(GOOD.as_bytes()).await.expect("write");
    let mut request = read_request(edge, &limits()).await.expect("request");
    let sent: Vec<u8> = (0..200_000u32).map(|i| i.to_le_bytes()[0]).collect();
    client.write_all(&sent).await.expect("write");
    let waited = timeout(Duration::from_millis(1), request.abandoned()).await;
    assert!(waited.is_err(), "the client is still there");
    let mut opened = request.accept(Accept::default()).await.expect("opened");
    assert!(opened.early.len() < 32 * 1024);
    let mut received = opened.early.to_vec();
    let mut rest = vec![0; sent.len() - received.len()];
    opened.stream.read_exact(&mut rest).await.expect("rest");
    received.extend(rest);
    assert!(received == sent);
}

/// The table of what an HTTP library lets through, and more.
fn refused() -> Vec<(String, u16)> {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    vec![
        (swap("Host: chat.example.com\r\n", ""), 400),
        (swap("Host: chat.example.com", "Host:"), 400),
        (add("Host: other.example.com"), 400),
        (add("Host: chat.example.com"), 400),
        (swap("chat.example.com", "u@chat.example.com"), 400),
        (add("Content-Length: 0"), 400),
        (add("Content-Length: 5\r\nContent-Length: 5"), 400),
        (add("Content-Length: 5\r\nContent-Length: 6"), 400),
        (add("Content-Length: +5"), 400),
        (add("Transfer-Encoding: chunked"), 400),
        (add("Transfer-Encoding: gzip"), 400),
        (add("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (add("Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
        (add("Expect: 100-continue"), 400),
        (add("Expect: 100-continue\r\nContent-Length: 5"), 400),
        (add("X: a\r\n folded"), 400),
        (add("X : a"), 400),
        (add("X: a\0b"), 400),
        (add("\u{e4}: a"), 400),
        (add(key), 400),
        (swap(key, "Sec-WebSocket-Key: short"), 400),
        (add("Upgrade: websocket"), 426),
        (swap("Upgrade: websocket", "Upgrade: h2c"), 426),
        (swap("Upgrade: websocket", "Upgrade: websocket, h2c"), 426),
        (swap("Upgrade: websocket\r\n", ""), 426),
        (swap("Connection: Upgrade", "Connection: close"), 400),
        (swap("Version: 13", "Version: 8"), 426),
        (add("Sec-WebSocket-Version: 13"), 400),
        (add("Sec-WebSocket-Protocol: a, a"), 400),
        (swap("GET", "POST"), 405),
        (swap("GET", "get"), 405),
        (swap("GET /chat?x=1", "CONNECT chat.example.com:443"), 405),
        (swap("GET /chat?x=1", "OPTIONS *"), 405),
        (swap("HTTP/1.1", "HTTP/1.0"), 426),
        (swap("HTTP/1.1", "HTTP/2.0"), 400),
        (swap("/chat", "http://other.example.com/chat"), 400),
        (swap("/chat", "//..%2f"), 400),
        (swap("/chat", "/%2e%2e/chat"), 400),
        (swap("/chat", "/a/../chat"), 400),
        (swap("/chat", "/a\\b"), 400),
        (swap("/chat", "chat"), 400),
        (swap("/chat", "/\u{e4}"), 400),
        (swap("/chat", "/a\u{1}b"), 400),
        (swap("/chat", &format!("/{}", "a".repeat(9000))), 414),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 426),
        ("nonsense\r\n\r\n".into(), 400),
        ("\u{16}\u{3}\u{1}\0\u{1}\u{1}".into(), 400),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_other_request_is_refused_with_its_status_and_closed() {
    let cases = refused();
    assert!(cases.len() > 40);
    for (raw, status) in cases {
        let (result, answer) = exchange(raw.as_bytes(), 64 * 1024).await;
        assert_eq!(status_of(&answer), status, "{raw:?}\n{answer}");
        let fit = matches!(result, Err(NotOpened::Rejected(_) | NotOpened::Malformed));
        assert!(fit, "{raw:?}: {result:?}");
        if let Err(NotOpened::Rejected(_)) = result {
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_arrives_whole_over_a_narrow_pipe() {
    let mut seen = 0;
    for (raw, status) in refused() {
        let (_, answer) = exchange(raw.as_bytes(), 16).await;
        assert_eq!(status_of(&answer), status, "{raw:?}\n{answer}");
        assert!(answer.contains("\r\n\r\n"), "{raw:?}\n{answer}");
        seen += 1;
    }
    assert!(seen > 40);
}

#[tokio::test(start_paused = true)]
async fn refusals_carry_the_fields_their_status_demands() {
    let (_, answer) = exchange(swap("Version: 13", "Version: 8").as_bytes(), 4096).await;
    assert!(answer.contains("\r\nsec-websocket-version: 13\r\n"));
    assert!(answer.contains("\r\nupgrade: websocket\r\n"));
    let (_, answer) = exchange(swap("GET", "PUT").as_bytes(), 4096).await;
    assert!(answer.contains("\r\nallow: GET\r\n"));
    let (_, answer) = exchange(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 4096).await;
    assert!(answer.contains("\r\nupgrade: websocket\r\n"));
    assert!(answer.ends_with(Reject::NoUpgrade.text()), "{answer}");
}

#[tokio::test]
async fn a_fragment_is_cut_off_and_never_seen_again() {
    // hyper drops it; what is left is what was checked and what an upstream will get.
    let (mut client, edge) = duplex(4096);
    let raw = swap("/chat?x=1", "/chat#/../admin");
    client.write_all(raw.as_bytes()).await.expect("write");
    let request = read_request(edge, &limits()).await.expect("request");
    assert_eq!(request.opening().path_and_query(), "/chat");
}

#[tokio::test(start_paused = true)]
async fn a_second_request_behind_a_refused_one_is_not_answered() {
    let raw = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{GOOD}");
    let (_, answer) = exchange(raw.as_bytes(), 4096).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

/// A head of exactly this many bytes.
fn head_of(size: usize) -> String {
    let pad = size - GOOD.len() - "X: \r\n".len();
    let head = add(&format!("X: {}", "a".repeat(pad)));
    assert_eq!(head.len(), size);
    head
}

#[tokio::test(start_paused = true)]
async fn one_byte_over_the_largest_head_is_refused() {
    for max_head in [1000, 8192, 16 * 1024] {
        let limits = HeadLimits {
            max_head,
            ..limits()
        };
        for (size, status) in [(max_head, 101), (max_head + 1, 431)] {
            let (mut client, edge) = duplex(64 * 1024);
            client
                .write_all(head_of(size).as_bytes())
                .await
                .expect("write");
            let served = serve(edge, &limits).await;
            let large = matches!(served, Err(NotOpened::HeadTooLarge));
            assert_eq!(large, status == 431, "{size}");
            drop(served);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("answer");
            assert_eq!(status_of(&answer), status, "{size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_header_over_the_most_allowed_is_refused() {
    let more = |n: usize| add(&vec!["X: a"; n - 5].join("\r\n"));
    let (result, answer) = exchange(more(64).as_bytes(), 4096).await;
    assert!(result.is_ok());
    assert_eq!(status_of(&answer), 101);
    let (result, answer) = exchange(more(65).as_bytes(), 4096).await;
    assert!(matches!(result, Err(NotOpened::HeadTooLarge)));
    assert_eq!(status_of(&answer), 431);
}

#[tokio::test(start_paused = true)]
async fn an_endless_head_is_refused() {
    let raw = add(&format!("X: {}", "a".repeat(10 * 1024 * 1024)));
    let (result, answer) = exchange(raw.as_bytes(), 4096).await;
    assert!(matches!(result, Err(NotOpened::HeadTooLarge)));
    assert_eq!(status_of(&answer), 431);
}

async fn drip(mut client: DuplexStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    for byte in bytes {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_in_is_closed_at_the_deadline() {
    let (client, edge) = duplex(4096);
    let start = Instant::now();
    let limits = limits();
    let serve = async {
        let served = serve(edge, &limits).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        served.map(drop)
    };
    let (served, sent) = tokio::join!(serve, drip(client, GOOD.as_bytes()));
    assert!(matches!(served, Err(NotOpened::HeadTimeout)));
    assert!((9..=10).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_at_the_deadline() {
    let (_client, edge) = duplex(4096);
    let start = Instant::now();
    let served = serve(edge, &limits()).await;
    assert!(matches!(served, Err(NotOpened::HeadTimeout)));
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_does_not_cover_what_the_answer_waits_for() {
    let (mut client, edge) = duplex(4096);
    client.write_all(GOOD.as_bytes()).await.expect("write");
    let mut request = read_request(edge, &limits()).await.expect("request");
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, request.abandoned()).await.is_err());
    assert!(request.accept(Accept::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answer_is_given_up() {
    let (mut client, edge) = duplex(32);
    let limits = limits();
    let serve = async { serve(edge, &limits).await.map(drop) };
    let write = async { client.write_all(GOOD.as_bytes()).await };
    let (served, written) = tokio::join!(serve, write);
    written.expect("the head was read");
    assert!(matches!(served, Err(NotOpened::AnswerTimeout)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_never_closes_is_given_up() {
    let (mut client, edge) = duplex(4096);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("write");
    let start = Instant::now();
    assert!(serve(edge, &limits()).await.is_err());
    assert_eq!(start.elapsed(), LINGER_TIMEOUT);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let (client, edge) = duplex(4096);
    drop(client);
    assert!(matches!(
        serve(edge, &limits()).await,
        Err(NotOpened::PeerGone)
    ));

    let (mut client, edge) = duplex(4096);
    client
        .write_all(&GOOD.as_bytes()[..40])
        .await
        .expect("write");
    drop(client);
    assert!(matches!(
        serve(edge, &limits()).await,
        Err(NotOpened::PeerGone)
    ));

    let (mut client, edge) = duplex(4096);
    client.write_all(GOOD.as_bytes()).await.expect("write");
    let mut request = read_request(edge, &limits()).await.expect("request");
    drop(client);
    assert!(matches!(request.abandoned().await, NotOpened::PeerGone));
}

#[tokio::test]
async fn a_relayed_refusal_keeps_status_fields_and_body() {
    let (mut client, edge) = duplex(4096);
    client.write_all(GOOD.as_bytes()).await.expect("write");
    let request = read_request(edge, &limits()).await.expect("request");
    let refusal = Refusal {
        status: 401,
        fields: vec![
            Field {
                name: "www-authenticate".into(),
                value: b"Basic".to_vec(),
            },
            Field {
                name: "set-cookie".into(),
                value: b"a=1".to_vec(),
            },
        ],
        body: Bytes::from_static(b"who are you?"),
    };
    let mut answer = String::new();
    let read = async {
        client
            .read_to_string(&mut answer)
            .await
            .map(|_| drop(client))
    };
    let ((), read) = tokio::join!(request.relay(refusal), read);
    read.expect("answer");
    assert!(
        answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
        "{answer}"
    );
    for line in [
        "www-authenticate: Basic",
        "set-cookie: a=1",
        "connection: close",
    ] {
        assert!(answer.contains(&format!("\r\n{line}\r\n")), "{answer}");
    }
    assert!(answer.ends_with("\r\n\r\nwho are you?"));
}

#[tokio::test]
async fn a_refusal_survives_unread_bytes_on_a_real_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let mut client = TcpStream::connect(address).await.expect("connect");
    let (edge, _) = listener.accept().await.expect("accept");
    let raw = [swap("GET", "POST").as_bytes(), &[b'x'; 40_000]].concat();
    client.write_all(&raw).await.expect("write");
    let limits = limits();
    let serve = async { serve(edge, &limits).await.map(drop) };
    // Owns the client, which thereby closes once it has read the answer.
    let read = async move {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.map(|_| answer)
    };
    let (served, answer) = tokio::join!(serve, read);
    assert!(matches!(served, Err(NotOpened::Rejected(Reject::Method))));
    assert_eq!(status_of(&answer.expect("no reset")), 405);
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_refusal_reaches_the_caller() {
    let (result, _) = exchange(swap("/chat", "/./chat").as_bytes(), 4096).await;
    let expected = Reject::Target(TargetFault::DotSegment);
    assert!(matches!(result, Err(NotOpened::Rejected(reject)) if reject == expected));
}

#[tokio::test]
async fn a_third_party_client_takes_the_101() {
    let (client, edge) = duplex(4096);
    let limits = limits();
    let serve = serve(edge, &limits);
    let connect = tokio_tungstenite::client_async("ws://chat.example.com/chat", client);
    let (opened, connected) = tokio::join!(serve, connect);
    assert!(opened.expect("opened").early.is_empty());
    assert_eq!(connected.expect("connected").1.status(), 101);
}

#[test]
fn a_waiting_request_is_small() {
    let (_, edge) = duplex(1);
    let limits = limits_at(Instant::now());
    assert!(size_of_val(&read_request(edge, &limits)) < 1024);
    assert!(size_of::<Request<DuplexStream>>() < 512);
}
