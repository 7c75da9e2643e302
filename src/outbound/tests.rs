//! Answers made by hand, right and hostile ones, over a connection in memory.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const MAX_BODY: usize = 64;

fn url() -> WebUrl {
    WebUrl::parse("https://id.example.com:8443/keys?set=1").expect("a URL")
}

fn get(url: &WebUrl) -> Request<'_> {
    Request {
        url,
        method: Method::Get,
        accept: "application/json",
        fields: &[],
        max_body: MAX_BODY,
    }
}

async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("text")
}

/// What comes of an answer of these bytes, after which the server closes.
async fn answered(answer: impl AsRef<[u8]>) -> Result<Answer, Failed> {
    let (client, mut server) = duplex(1024);
    let url = url();
    let serve = async move {
        read_head(&mut server).await;
        // A client that has heard enough closes while more is written.
        let _ = server.write_all(answer.as_ref()).await;
    };
    let (answer, ()) = tokio::join!(exchange(client, get(&url)), serve);
    answer
}

async fn body_of(answer: &str) -> Vec<u8> {
    answered(answer).await.expect(answer).body.to_vec()
}

#[tokio::test]
async fn a_request_says_who_asks_and_nothing_more() {
    let (client, mut server) = duplex(1024);
    let url = url();
    let authorization = [Field {
        name: "authorization".into(),
        value: b"Bearer x".to_vec(),
    }];
    let request = Request {
        method: Method::Post {
            content_type: "application/json",
            body: Bytes::from_static(b"{}"),
        },
        fields: &authorization,
        ..get(&url)
    };
    let serve = async move {
        let head = read_head(&mut server).await;
        let mut body = [0; 2];
        server.read_exact(&mut body).await.expect("a body");
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        server.write_all(answer).await.expect("written");
        (head, body)
    };
    let (answer, (head, body)) = tokio::join!(exchange(client, request), serve);
    assert_eq!(answer.expect("an answer").status, 204);
    let mut lines: Vec<_> = head.trim_end().lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "POST /keys?set=1 HTTP/1.1",
            "accept-encoding: identity",
            "accept: application/json",
            "authorization: Bearer x",
            "connection: close",
            "content-length: 2",
            "content-type: application/json",
            "host: id.example.com:8443",
            concat!("user-agent: tidegate/", env!("CARGO_PKG_VERSION")),
        ]
    );
    assert_eq!(&body, b"{}");
}

#[tokio::test]
async fn a_whole_body_is_read_however_it_is_framed() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(body_of(length).await, b"hello");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n";
    assert_eq!(body_of(chunked).await, b"hello");
    assert_eq!(body_of("HTTP/1.1 200 OK\r\n\r\nhello").await, b"hello");
    let interim = format!("HTTP/1.1 103 Early Hints\r\n\r\n{length}");
    assert_eq!(body_of(&interim).await, b"hello");
    let more = format!("{length}HTTP/1.1 200 OK\r\n\r\nsecond");
    assert_eq!(body_of(&more).await, b"hello");
}

#[tokio::test]
async fn fields_and_status_of_an_answer_are_told() {
    let text = "HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n";
    let answer = answered(text).await.expect("an answer");
    assert!(!answer.is_success());
    let values: Vec<_> = answer.values("x-a").collect();
    assert_eq!(values, [b"1", b"2"]);
    assert!(!format!("{answer:?}").contains('2'), "{answer:?}");
}

#[tokio::test]
async fn a_redirect_is_an_error() {
    for status in [300, 301, 302, 303, 304, 307, 308, 399] {
        let text = format!("HTTP/1.1 {status} X\r\nLocation: http://evil.example/\r\n\r\n");
        let failed = answered(text).await.expect_err("not followed");
        assert!(
            matches!(failed, Failed::Redirected(s) if s == status),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn a_status_that_was_not_asked_for_is_an_error() {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    assert!(answered(upgrade).await.is_err());
}

#[tokio::test]
async fn a_body_may_be_as_large_as_allowed_and_not_a_byte_larger() {
    let (most, more) = ("a".repeat(MAX_BODY), "a".repeat(MAX_BODY + 1));
    let length = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = |body: &str| {
        let (first, rest) = body.split_at(10);
        let rest_length = rest.len();
        format!(
            "Transfer-Encoding: chunked\r\n\r\na\r\n{first}\r\n{rest_length:x}\r\n{rest}\r\n0\r\n\r\n"
        )
    };
    let to_the_end = |body: &str| format!("\r\n{body}");
    let framings: [&dyn Fn(&str) -> String; 3] = [&length, &chunked, &to_the_end];
    for framed in framings {
        let answer = answered(format!("HTTP/1.1 200 OK\r\n{}", framed(&most))).await;
        assert_eq!(answer.expect("it fits").body, most);
        let failed = answered(format!("HTTP/1.1 200 OK\r\n{}", framed(&more))).await;
        assert!(
            matches!(failed, Err(Failed::TooLarge(MAX_BODY))),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn an_announced_length_is_judged_before_the_body_comes() {
    let (client, mut server) = duplex(1024);
    let url = url();
    let serve = async {
        read_head(&mut server).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n";
        server.write_all(head).await.expect("written");
        // Stays open: no end of the body is to be waited for.
    };
    let (answer, ()) = tokio::join!(exchange(client, get(&url)), serve);
    assert!(answer.is_err());
    drop(server);
}

#[tokio::test]
async fn an_endless_body_costs_no_more_than_what_is_allowed() {
    let (client, mut server) = duplex(1024);
    let url = url();
    let serve = async {
        read_head(&mut server).await;
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        server.write_all(head).await.expect("written");
        // Ends when the client closes, or the test has no end.
        while server.write_all(b"1\r\na\r\n").await.is_ok() {}
    };
    let (answer, ()) = tokio::join!(exchange(client, get(&url)), serve);
    assert!(
        matches!(answer, Err(Failed::TooLarge(MAX_BODY))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn half_an_answer_is_none() {
    for text in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        let failed = answered(text).await.expect_err(text);
        assert!(matches!(failed, Failed::Broken(_)), "{text:?}: {failed:?}");
    }
}

#[tokio::test]
async fn what_two_readers_could_read_differently_is_refused() {
    for text in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: -1\r\n\r\nhello",
        "Content-Length: 5,6\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "X: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "X : 1\r\nContent-Length: 0\r\n\r\n",
    ] {
        let answer = answered(format!("HTTP/1.1 200 OK\r\n{text}")).await;
        assert!(answer.is_err(), "{text:?} was read as {answer:?}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    for text in [
        "hello\r\n\r\n",
        "SSH-2.0-x\r\n",
        "HTTP/2 200\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        assert!(answered(text).await.is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn a_head_has_its_bounds() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nX: {}\r\n\r\n",
        "a".repeat(2 * MAX_ANSWER_HEAD)
    );
    assert!(answered(long).await.is_err());
    let fields = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(n));
    assert!(answered(fields(MAX_ANSWER_FIELDS)).await.is_ok());
    assert!(answered(fields(MAX_ANSWER_FIELDS + 1)).await.is_err());
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    for encoding in ["gzip", "identity, gzip", "br"] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\nx");
        let failed = answered(text).await.expect_err(encoding);
        assert!(matches!(failed, Failed::Encoded), "{failed:?}");
    }
    let plain = "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n\r\nx";
    assert_eq!(body_of(plain).await, b"x");
}

#[tokio::test]
async fn a_field_that_cannot_be_sent_is_not_sent() {
    let (client, mut server) = duplex(1024);
    let url = url();
    let split = [Field {
        name: "authorization".into(),
        value: b"x\r\nHost: evil.example".to_vec(),
    }];
    let request = Request {
        fields: &split,
        ..get(&url)
    };
    let failed = exchange(client, request).await.expect_err("not sent");
    assert!(matches!(&failed, Failed::Unsendable(name) if name == "authorization"));
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.expect("the end");
    assert_eq!(sent, b"");
}

/// Pieces that answers are made of, so that random ones get past the status line.
const PIECES: [&str; 20] = [
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 304 X\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: close\r\n",
    "X: \u{e4}\r\n",
    "\r\n",
    "\r\n",
    "hello",
    "5\r\nhello\r\n",
    "40\r\n",
    "0\r\n\r\n",
    "0\r\nA: b\r\n\r\n",
    "\n",
    "\0",
    ":",
];

proptest! {
    #[test]
    fn whatever_comes_is_an_error_or_within_bounds(
        pieces in proptest::collection::vec(0..PIECES.len(), 0..12),
        cut in 0_usize..400,
    ) {
        let mut text: String = pieces.iter().filter_map(|piece| PIECES.get(*piece)).copied().collect();
        text.insert_str(0, "HTTP/1.1 200 OK\r\n");
        let kept = text.floor_char_boundary(cut);
        text.truncate(kept);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        if let Ok(answer) = runtime.block_on(answered(text)) {
            prop_assert!(answer.body.len() <= MAX_BODY);
            prop_assert!(!(300..400).contains(&answer.status) && answer.status >= 200);
        }
    }
}
