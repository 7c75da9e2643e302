//! A service over TLS and in clear: right, slow, silent, and with another's certificate.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{CertificateFiles, Line, Tls, TlsVersion};
use crate::outbound::Method;
use crate::telemetry::chain;
use crate::tls::{Acceptor, dev_cert};

/// Long enough never to be reached by what works, also on a busy machine.
const AMPLE: Duration = Duration::from_secs(30);
/// Short, for what must run into it.
const SHORT: Duration = Duration::from_millis(200);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A certificate for `localhost` with its key, in a folder that goes with it.
struct Certificate {
    folder: PathBuf,
    files: CertificateFiles,
}

impl Certificate {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-web-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let files = CertificateFiles {
            cert: folder.join("localhost.pem"),
            key: folder.join("localhost.key"),
            line: Line(1),
        };
        dev_cert::ensure(&files.cert, &files.key).expect("a certificate");
        Self { folder, files }
    }

    fn acceptor(&self) -> Acceptor {
        let tls = Tls {
            certificates: vec![self.files.clone()],
            min_version: TlsVersion::V1_2,
            handshake_timeout: AMPLE,
        };
        Acceptor::load(&tls, "listener.#1").expect("loads").0
    }

    fn client(&self) -> WebClient {
        WebClient::new(Some(&self.files.cert)).expect("a client")
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // A folder left behind in the temporary directory harms no other test.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

async fn listen(scheme_and_host: &str) -> (TcpListener, WebUrl) {
    listen_at("127.0.0.1", scheme_and_host).await
}

async fn listen_at(ip: &str, scheme_and_host: &str) -> (TcpListener, WebUrl) {
    let listener = TcpListener::bind((ip, 0)).await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let url = WebUrl::parse(&format!("{scheme_and_host}:{port}/keys")).expect("a URL");
    (listener, url)
}

fn get(url: &WebUrl) -> Request<'_> {
    Request {
        url,
        method: Method::Get,
        accept: "application/json",
        fields: &[],
        max_body: 1024,
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    stream.write_all(answer).await.expect("written");
    stream.shutdown().await.expect("shut");
}

#[tokio::test]
async fn a_service_answers_over_tls() {
    let certificate = Certificate::new();
    let (listener, url) = listen("https://localhost").await;
    let (acceptor, client) = (certificate.acceptor(), certificate.client());
    let serve = async {
        // The second connection resumes the first one's session.
        for _ in 0..2 {
            let (tcp, _) = listener.accept().await.expect("accepted");
            answer(acceptor.accept(tcp).await.expect("TLS"), OK).await;
        }
    };
    let ask = async {
        for _ in 0..2 {
            let answer = client.ask(get(&url), AMPLE).await.expect("an answer");
            assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        }
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn a_service_on_this_machine_answers_in_clear() {
    let (listener, url) = listen("http://127.0.0.1").await;
    let client = Certificate::new().client();
    let serve = async { answer(listener.accept().await.expect("accepted").0, OK).await };
    let (asked, ()) = tokio::join!(client.ask(get(&url), AMPLE), serve);
    assert_eq!(asked.expect("an answer").body, "ok");
}

#[tokio::test]
async fn a_certificate_of_another_issuer_is_refused() {
    let (served, trusted) = (Certificate::new(), Certificate::new());
    let (listener, url) = listen("https://localhost").await;
    let serve = async {
        let (tcp, _) = listener.accept().await.expect("accepted");
        // Whether the server notices in time is of no interest.
        let _ = served.acceptor().accept(tcp).await;
    };
    let client = trusted.client();
    let (asked, ()) = tokio::join!(client.ask(get(&url), AMPLE), serve);
    let failed = asked.expect_err("not trusted");
    assert!(matches!(failed, NotAnswered::Tls(..)), "{failed:?}");
    assert!(chain(&failed).contains("certificate"), "{}", chain(&failed));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let certificate = Certificate::new();
    let (listener, url) = listen_at("127.0.0.2", "https://127.0.0.2").await;
    let serve = async {
        let (tcp, _) = listener.accept().await.expect("accepted");
        // Whether the server notices in time is of no interest.
        let _ = certificate.acceptor().accept(tcp).await;
    };
    let client = certificate.client();
    let (asked, ()) = tokio::join!(client.ask(get(&url), AMPLE), serve);
    assert!(matches!(asked, Err(NotAnswered::Tls(..))), "{asked:?}");
}

#[tokio::test]
async fn a_service_without_tls_is_refused() {
    let (listener, url) = listen("https://localhost").await;
    let client = Certificate::new().client();
    let serve = async {
        let (mut tcp, _) = listener.accept().await.expect("accepted");
        tcp.write_all(OK).await.expect("written");
        tcp
    };
    let (asked, _tcp) = tokio::join!(client.ask(get(&url), AMPLE), serve);
    assert!(matches!(asked, Err(NotAnswered::Tls(..))), "{asked:?}");
}

#[tokio::test]
async fn a_body_without_its_end_is_not_taken_over_tls() {
    let certificate = Certificate::new();
    let (listener, url) = listen("https://localhost").await;
    let serve = async {
        let (tcp, _) = listener.accept().await.expect("accepted");
        let mut tls = certificate.acceptor().accept(tcp).await.expect("TLS");
        let head = b"HTTP/1.1 200 OK\r\n\r\nhalf of it";
        tls.write_all(head).await.expect("written");
        tls.flush().await.expect("flushed");
        // Without close_notify, as when somebody on the way cuts the connection.
    };
    let client = certificate.client();
    let (asked, ()) = tokio::join!(client.ask(get(&url), AMPLE), serve);
    let failed = asked.expect_err("cut off");
    assert!(
        matches!(failed, NotAnswered::Exchange(_, Failed::Broken(_))),
        "{failed:?}"
    );
}

#[tokio::test]
async fn one_time_covers_the_whole_of_it() {
    let client = Certificate::new().client();
    let (listener, url) = listen("http://127.0.0.1").await;
    let (tls_listener, tls_url) = listen("https://localhost").await;
    let drip = async {
        let (mut tcp, _) = listener.accept().await.expect("accepted");
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        tcp.write_all(head).await.expect("written");
        // A byte now and then resets no clock. Ends when the client closes.
        let mut tick = tokio::time::interval(SHORT / 20);
        loop {
            tick.tick().await;
            if tcp.write_all(b"a").await.is_err() {
                return;
            }
        }
    };
    let began = Instant::now();
    let (asked, ()) = tokio::join!(client.ask(get(&url), SHORT), drip);
    assert!(matches!(asked, Err(NotAnswered::TimedOut(..))), "{asked:?}");
    assert!(began.elapsed() >= SHORT);
    // The kernel accepts; nobody speaks TLS there.
    let asked = client.ask(get(&tls_url), SHORT).await;
    assert!(matches!(asked, Err(NotAnswered::TimedOut(..))), "{asked:?}");
    drop(tls_listener);
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_place() {
    let (listener, url) = listen("http://127.0.0.1").await;
    drop(listener);
    let failed = Certificate::new().client().ask(get(&url), AMPLE).await;
    let failed = failed.expect_err("nobody");
    assert!(matches!(failed, NotAnswered::Unreachable(..)), "{failed:?}");
    assert!(failed.to_string().contains(url.authority()));
}

#[tokio::test]
async fn a_client_for_a_service_in_clear_asks_no_other_over_tls() {
    let (listener, url) = listen("https://localhost").await;
    let clear = WebUrl::parse("http://127.0.0.1:1").expect("a URL");
    let client = WebClient::to(&clear, None).expect("no roots are needed");
    let asked = client.ask(get(&url), AMPLE).await;
    assert!(matches!(asked, Err(NotAnswered::Tls(..))), "{asked:?}");
    drop(listener);
}

#[test]
fn a_request_under_way_is_small() {
    fn size_of_output<T>(
        _: impl FnOnce(&'static WebClient, Request<'static>, Duration) -> T,
    ) -> usize {
        size_of::<T>()
    }
    let size = size_of_output(WebClient::ask);
    assert!(size <= 256, "{size}");
}
