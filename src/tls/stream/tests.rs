//! The stream against third-party clients on real sockets, and against hostile ones.

use std::future::poll_fn;
use std::io::Write;
use std::mem::size_of;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, HandshakeKind, RootCertStore, SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::acceptor::provider;
use crate::tls::test_pki::{self, Folder, Pair};
use crate::tls::{Acceptor, Downstream};

type Client = tokio_rustls::client::TlsStream<TcpStream>;

static BOTH_VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A listening socket with certificates, and what a client needs to trust them.
struct Server {
    acceptor: Acceptor,
    listener: TcpListener,
    roots: RootCertStore,
    _folder: Folder,
}

impl Server {
    async fn new() -> Self {
        Self::with(&[test_pki::made(&["localhost"], -1, 100)], TlsVersion::V1_2).await
    }

    async fn with(pairs: &[Pair], min_version: TlsVersion) -> Self {
        let folder = Folder::new();
        let mut roots = RootCertStore::empty();
        let files = pairs.iter().enumerate().map(|(i, pair)| {
            roots.add(pair.certificate.der().clone()).expect("a root");
            folder.files(&i.to_string(), pair)
        });
        let tls = test_pki::tls(files.collect(), min_version);
        let (acceptor, problems) = Acceptor::load(&tls, "listener[0]").expect("good files");
        assert_eq!(problems, []);
        Self {
            acceptor,
            listener: TcpListener::bind("127.0.0.1:0").await.expect("bound"),
            roots,
            _folder: folder,
        }
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth()
    }

    async fn accept(&self) -> io::Result<TlsStream> {
        let (tcp, _) = self.listener.accept().await.expect("a connection");
        tcp.set_nodelay(true).expect("set");
        self.acceptor.accept(tcp).await
    }

    async fn tcp(&self) -> TcpStream {
        let addr = self.listener.local_addr().expect("bound");
        let tcp = TcpStream::connect(addr).await.expect("connected");
        tcp.set_nodelay(true).expect("set");
        tcp
    }

    /// Both ends of one connection, with what a client's attempt led to on either side.
    async fn attempt(
        &self,
        config: ClientConfig,
        name: &str,
    ) -> (io::Result<TlsStream>, io::Result<Client>) {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        let connect = async { connector.connect(name, self.tcp().await).await };
        tokio::join!(self.accept(), connect)
    }

    /// Both ends of one connection, with the ticket sent, so that nothing waits.
    async fn pair(&self, version: &'static SupportedProtocolVersion) -> (TlsStream, Client) {
        let (server, client) = self.attempt(self.client(&[version]), "localhost").await;
        let mut server = server.expect("accepted");
        server.flush().await.expect("sent");
        (server, client.expect("connected"))
    }

    /// A client of which we hold the keys, after the TLS handshake.
    async fn forger(&self) -> (TlsStream, Forger) {
        let mut config = self.client(&[&TLS13]);
        config.enable_secret_extraction = true;
        let (server, client) = self.attempt(config, "localhost").await;
        let (tcp, conn) = client.expect("connected").into_inner();
        let mut forger = Forger::new(tcp, conn);
        let mut server = server.expect("accepted");
        // The ticket, so that what comes next is an answer to the forged records.
        server.flush().await.expect("sent");
        forger.receive().await;
        (server, forger)
    }
}

/// Seals records that no honest TLS library would send.
struct Forger {
    tcp: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

impl Forger {
    fn new(tcp: TcpStream, conn: ClientConnection) -> Self {
        let secrets = conn.dangerous_extract_secrets().expect("extraction is on");
        let (sequence, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
            panic!("AES-128-GCM is the first choice");
        };
        Self {
            tcp,
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).expect("a key")),
            iv: iv.as_ref().try_into().expect("12 bytes"),
            sequence,
        }
    }

    /// One TLSCiphertext (RFC 8446 §5.2).
    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        let mut inner = [content, &[kind]].concat();
        let length = u16::try_from(inner.len() + 16)
            .expect("short")
            .to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut inner)
            .expect("sealed");
        [&header[..], &inner].concat()
    }

    /// The length of the next record's protected content.
    async fn receive(&mut self) -> usize {
        let mut header = [0; HEADER];
        self.tcp.read_exact(&mut header).await.expect("a header");
        let [APPLICATION_DATA, 3, 3, high, low] = header else {
            panic!("not a protected record: {header:?}");
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let mut rest = vec![0; length];
        self.tcp.read_exact(&mut rest).await.expect("a record");
        // Without the kind and the tag.
        length - 17
    }

    async fn send(&mut self, kind: u8, content: &[u8]) {
        let record = self.record(kind, content);
        self.tcp.write_all(&record).await.expect("sent");
    }
}

/// Writes one byte at a time, and lets others run after each.
struct Trickle {
    tcp: TcpStream,
    rest: bool,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.rest = !self.rest;
        if self.rest {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Sends back what comes, with buffers of `size`, until the end; gives the stream back.
async fn echo(mut stream: TlsStream, size: usize) -> io::Result<TlsStream> {
    let mut buf = vec![0; size];
    loop {
        match stream.read(&mut buf).await? {
            0 => break,
            n => stream.write_all(&buf[..n]).await?,
        }
        stream.flush().await?;
    }
    stream.shutdown().await?;
    Ok(stream)
}

/// Sends `data` and reads as much back, both at once.
async fn round_trip<S: AsyncRead + AsyncWrite>(client: S, data: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = split(client);
    let send = async {
        to.write_all(data).await.expect("sent");
        to.shutdown().await.expect("shut down");
    };
    let receive = async {
        let mut back = Vec::new();
        from.read_to_end(&mut back).await.expect("received");
        back
    };
    tokio::join!(send, receive).1
}

/// Owns nothing: no byte and no allocation.
fn assert_owns_no_buffer(stream: &TlsStream) {
    assert_eq!(stream.buffered(), 0);
    assert_eq!(stream.incoming.capacity(), 0);
    assert!(stream.plain.is_empty() && stream.sealed.is_empty());
}

/// One poll of a write.
async fn try_write(stream: &mut TlsStream, data: &[u8]) -> Poll<io::Result<usize>> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, data))).await
}

#[tokio::test]
async fn every_size_comes_back_as_it_was() {
    let server = Server::new().await;
    for version in BOTH_VERSIONS {
        for size in [0, 1, 16_384, 16_385, 100_000, 5 * 1024 * 1024] {
            let (stream, client) = server.pair(version).await;
            let data = pattern(size);
            let (echoed, back) = tokio::join!(echo(stream, 64 * 1024), round_trip(client, &data));
            assert!(back == data, "{version:?}, {size} bytes");
            assert_owns_no_buffer(&echoed.expect("a clean end"));
        }
    }
}

#[tokio::test]
async fn a_reader_with_a_tiny_buffer_gets_every_byte() {
    let server = Server::new().await;
    let data = pattern(40_000);
    for size in [1, 3, 512, 700, 5000, MAX_RECORD] {
        let (stream, client) = server.pair(&TLS13).await;
        let (echoed, back) = tokio::join!(echo(stream, size), round_trip(client, &data));
        assert!(back == data, "buffers of {size}");
        echoed.expect("a clean end");
    }
}

#[tokio::test]
async fn a_small_buffer_leaves_at_most_one_record_behind() {
    let server = Server::new().await;
    let (mut stream, mut client) = server.pair(&TLS13).await;
    let data = pattern(200_000);
    let read = async {
        let (mut all, mut most, mut buf) = (Vec::new(), 0, [0; 600]);
        while all.len() < data.len() {
            let n = stream.read(&mut buf).await.expect("read");
            all.extend_from_slice(&buf[..n]);
            most = most.max(stream.buffered());
        }
        (all, most)
    };
    let (sent, (all, most)) = tokio::join!(client.write_all(&data), read);
    sent.expect("sent");
    assert!(all == data);
    assert!((1..=MAX_RECORD).contains(&most), "{most}");
}

#[tokio::test]
async fn a_buffer_larger_than_a_record_leaves_no_plaintext_behind() {
    let server = Server::new().await;
    let (mut stream, mut client) = server.pair(&TLS13).await;
    let data = pattern(1_000_000);
    let read = async {
        let (mut got, mut reads, mut buf) = (0, 0, vec![0; 64 * 1024]);
        while got < data.len() {
            got += stream.read(&mut buf).await.expect("read");
            reads += 1;
            assert!(stream.plain.is_empty());
            assert!(stream.incoming.len() < MAX_RECORD);
        }
        reads
    };
    let (sent, reads) = tokio::join!(client.write_all(&data), read);
    sent.expect("sent");
    assert!(reads > 1);
}

#[tokio::test]
async fn with_or_without_tls_a_connection_is_used_the_same_way() {
    let server = Server::new().await;
    let (stream, client) = server.pair(&TLS13).await;
    let (accepted, plain) = tokio::join!(server.listener.accept(), server.tcp());
    let (tcp, peer) = accepted.expect("accepted");
    assert_eq!(Downstream::from(tcp).get_ref().peer_addr().ok(), Some(peer));
    drop(plain);
    let (accepted, plain) = tokio::join!(server.listener.accept(), server.tcp());
    let (tcp, _) = accepted.expect("accepted");
    let cases: [(Downstream, Box<dyn Duplex>, Option<TlsVersion>); 2] = [
        (tcp.into(), Box::new(plain), None),
        (stream.into(), Box::new(client), Some(TlsVersion::V1_3)),
    ];
    for (mut downstream, client, version) in cases {
        assert_eq!(downstream.tls_version(), version);
        assert_eq!(downstream.is_tls(), version.is_some());
        let serve = async {
            let mut got = Vec::new();
            downstream.read_to_end(&mut got).await.expect("read");
            downstream.write_all(&got).await.expect("written");
            downstream.flush().await.expect("flushed");
            downstream.shutdown().await.expect("shut down");
        };
        let ((), back) = tokio::join!(serve, round_trip(client, b"either way"));
        assert_eq!(back, b"either way");
        assert_eq!(downstream.buffered(), 0);
    }
}

/// Any client.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

#[tokio::test]
async fn a_sender_of_single_bytes_is_understood() {
    let server = Server::new().await;
    let connector = TlsConnector::from(Arc::new(server.client(&[&TLS13])));
    let name = ServerName::try_from("localhost").expect("a name");
    let trickle = Trickle {
        tcp: server.tcp().await,
        rest: false,
    };
    let (stream, client) = tokio::join!(server.accept(), connector.connect(name, trickle));
    let data = pattern(3000);
    let echo = echo(stream.expect("accepted"), 4096);
    let (echoed, back) = tokio::join!(echo, round_trip(client.expect("connected"), &data));
    assert!(back == data);
    assert_owns_no_buffer(&echoed.expect("a clean end"));
}

#[tokio::test]
async fn an_idle_stream_owns_no_buffer() {
    let server = Server::new().await;
    for version in BOTH_VERSIONS {
        let (mut stream, mut client) = server.pair(version).await;
        assert_owns_no_buffer(&stream);
        let data = pattern(50_000);
        let mut buf = vec![0; data.len()];
        let (sent, read) = tokio::join!(client.write_all(&data), stream.read_exact(&mut buf));
        sent.and(read.map(drop)).expect("exchanged");
        assert_owns_no_buffer(&stream);
    }
}

#[test]
fn a_stream_is_small_and_its_tls_state_known() {
    assert!(size_of::<TlsStream>() <= 192, "{}", size_of::<TlsStream>());
    let state = size_of::<rustls::server::UnbufferedServerConnection>();
    assert!(state <= 1280, "{state}");
}

#[tokio::test]
async fn the_version_is_told_and_the_minimum_holds() {
    let pairs = [test_pki::made(&["localhost"], -1, 100)];
    let server = Server::with(&pairs, TlsVersion::V1_3).await;
    let (stream, _client) = server.pair(&TLS13).await;
    assert_eq!(stream.tls_version(), TlsVersion::V1_3);
    let (refused, _) = server.attempt(server.client(&[&TLS12]), "localhost").await;
    assert_eq!(
        refused.expect_err("refused").kind(),
        io::ErrorKind::InvalidData
    );

    let server = Server::with(&pairs, TlsVersion::V1_2).await;
    let (stream, _client) = server.pair(&TLS12).await;
    assert_eq!(stream.tls_version(), TlsVersion::V1_2);
}

#[tokio::test]
async fn aes_128_is_chosen_whatever_the_clients_order() {
    let server = Server::new().await;
    for version in BOTH_VERSIONS {
        let mut reversed = provider();
        reversed.cipher_suites.reverse();
        let config = ClientConfig::builder_with_provider(Arc::new(reversed))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(server.roots.clone())
            .with_no_client_auth();
        let (_stream, client) = server.attempt(config, "localhost").await;
        let client = client.expect("connected");
        let suite = client
            .get_ref()
            .1
            .negotiated_cipher_suite()
            .expect("chosen");
        assert!(format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    }
}

#[tokio::test]
async fn a_second_connection_resumes_with_the_ticket_of_the_first() {
    let server = Server::new().await;
    for version in BOTH_VERSIONS {
        let config = server.client(&[version]);
        for resumed in [false, true] {
            let (stream, client) = server.attempt(config.clone(), "localhost").await;
            let (stream, client) = (stream.expect("accepted"), client.expect("connected"));
            assert_eq!(stream.is_resumed(), resumed, "{version:?}");
            let kind = client.get_ref().1.handshake_kind();
            assert_eq!(kind == Some(HandshakeKind::Resumed), resumed);
            // The ticket of TLS 1.3 comes after the TLS handshake, in front of the answer.
            let (echoed, back) = tokio::join!(echo(stream, 100), round_trip(client, b"ticket?"));
            assert_eq!(back, b"ticket?");
            echoed.expect("a clean end");
        }
    }
}

#[tokio::test]
async fn the_ticket_waits_for_the_answer_and_goes_in_front_of_it() {
    let server = Server::new().await;
    let config = server.client(&[&TLS13]);
    let (stream, client) = server.attempt(config.clone(), "localhost").await;
    let (mut stream, mut client) = (stream.expect("accepted"), client.expect("connected"));
    let ticket = stream.buffered();
    assert!((1..=MAX_LEAD).contains(&ticket), "{ticket}");
    client.write_all(b"question").await.expect("sent");
    stream.read_exact(&mut [0; 8]).await.expect("read");
    assert_eq!(stream.buffered(), ticket, "reading sends nothing");
    stream.write_all(b"answer").await.expect("sent");
    assert_owns_no_buffer(&stream);
    client.read_exact(&mut [0; 6]).await.expect("read");
    let (_, again) = server.attempt(config, "localhost").await;
    let kind = again.expect("connected").get_ref().1.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn the_certificate_is_chosen_by_server_name() {
    let names: [&[&str]; 3] = [&["localhost"], &["a.example.com"], &["*.example.com"]];
    let pairs = names.map(|names| test_pki::made(names, -1, 100));
    let server = Server::with(&pairs, TlsVersion::V1_2).await;
    let cases = [("localhost", 0), ("a.example.com", 1), ("b.example.com", 2)];
    for (name, expected) in cases {
        let (_stream, client) = server.attempt(server.client(&[&TLS13]), name).await;
        let client = client.expect("connected");
        let chain = client.get_ref().1.peer_certificates().expect("a chain");
        assert_eq!(
            chain.first(),
            Some(pairs[expected].certificate.der()),
            "{name}"
        );
    }
    // Nobody has this name; the default is sent, and it is the client that objects.
    let (_, client) = server
        .attempt(server.client(&[&TLS13]), "c.b.example.com")
        .await;
    let error = client.expect_err("refused by the client").to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_client_that_offers_other_protocols_only_is_refused() {
    let server = Server::new().await;
    let cases: [(&[&[u8]], bool); 5] = [
        (&[], true),
        (&[b"http/1.1"], true),
        (&[b"h2", b"http/1.1"], true),
        (&[b"h2"], false),
        (&[b"http/1.0", b"spdy/1"], false),
    ];
    for (offered, is_served) in cases {
        let mut config = server.client(&[&TLS13]);
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let (stream, client) = server.attempt(config, "localhost").await;
        assert_eq!(stream.is_ok(), is_served, "{offered:?}");
        match client {
            Ok(client) if !offered.is_empty() => {
                assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            }
            Ok(_) => assert!(is_served),
            Err(error) => assert!(
                error.to_string().contains("NoApplicationProtocol"),
                "{error}"
            ),
        }
    }
}

#[tokio::test]
async fn data_sent_together_with_the_clients_finished_is_not_lost() {
    let server = Server::new().await;
    for len in [1, 5000, 16_000] {
        let data = pattern(len);
        let config = Arc::new(server.client(&[&TLS13]));
        let name = ServerName::try_from("localhost").expect("a name");
        let mut conn = ClientConnection::new(config, name).expect("a client");
        let client = async {
            let mut tcp = server.tcp().await;
            let mut flight = Vec::new();
            conn.write_tls(&mut flight).expect("ClientHello");
            tcp.write_all(&flight).await.expect("sent");
            while conn.is_handshaking() {
                let mut received = vec![0; 4096];
                let n = tcp.read(&mut received).await.expect("received");
                conn.read_tls(&mut &received[..n]).expect("taken");
                conn.process_new_packets().expect("a good server");
            }
            conn.writer().write_all(&data).expect("taken");
            flight.clear();
            while conn.wants_write() {
                conn.write_tls(&mut flight).expect("Finished and data");
            }
            tcp.write_all(&flight).await.expect("sent");
            tcp
        };
        let (stream, _tcp) = tokio::join!(server.accept(), client);
        let mut stream = stream.expect("accepted");
        let mut got = vec![0; len];
        stream.read_exact(&mut got).await.expect("read");
        assert!(got == data, "{len}");
        // But for the ticket.
        stream.flush().await.expect("sent");
        assert_owns_no_buffer(&stream);
    }
}

#[tokio::test]
async fn close_notify_is_the_end_and_writing_goes_on() {
    let server = Server::new().await;
    for version in BOTH_VERSIONS {
        let (mut stream, client) = server.pair(version).await;
        let (mut from, mut to) = split(client);
        to.shutdown().await.expect("close_notify");
        assert_eq!(stream.read(&mut [0; 10]).await.expect("the end"), 0);
        assert_eq!(stream.read(&mut [0; 10]).await.expect("still"), 0);
        stream.write_all(b"goodbye").await.expect("written");
        stream.shutdown().await.expect("shut down");
        let mut got = Vec::new();
        from.read_to_end(&mut got).await.expect("a clean end");
        assert_eq!(got, b"goodbye");
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let server = Server::new().await;
    for version in BOTH_VERSIONS {
        let (mut stream, client) = server.pair(version).await;
        let (mut tcp, _conn) = client.into_inner();
        tcp.shutdown().await.expect("TCP alone");
        for _ in 0..2 {
            let error = stream.read(&mut [0; 10]).await.expect_err("cut off");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}

#[tokio::test]
async fn after_shutdown_reading_goes_on_and_writing_does_not() {
    let server = Server::new().await;
    let (mut stream, mut client) = server.pair(&TLS13).await;
    stream.shutdown().await.expect("shut down");
    stream.shutdown().await.expect("again");
    let error = stream.write(b"x").await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(client.read(&mut [0; 10]).await.expect("the end"), 0);
    client.write_all(b"late").await.expect("written");
    client.flush().await.expect("flushed");
    let mut got = [0; 4];
    stream.read_exact(&mut got).await.expect("read");
    assert_eq!(&got, b"late");
}

#[tokio::test]
async fn half_a_record_and_then_the_end_is_an_error() {
    let server = Server::new().await;
    let (mut stream, mut forger) = server.forger().await;
    let record = forger.record(APPLICATION_DATA, b"hello");
    let (half, _) = record.split_at(10);
    forger.tcp.write_all(half).await.expect("sent");
    forger.tcp.shutdown().await.expect("shut down");
    let error = stream.read(&mut [0; 10]).await.expect_err("cut off");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    let mut tcp = server.tcp().await;
    let half = [HANDSHAKE, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3];
    tcp.write_all(&half).await.expect("sent");
    tcp.shutdown().await.expect("shut down");
    let error = server.accept().await.expect_err("cut off");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// A record in clear, as before the TLS handshake is over.
fn clear(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    [&[kind, 3, 1, length[0], length[1]], content].concat()
}

#[tokio::test]
async fn what_is_no_client_hello_is_refused() {
    let server = Server::new().await;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("zeros", vec![0; 40_000]),
        ("ones", vec![0xff; 40_000]),
        (
            "SSL 2",
            vec![0x80, 0x2e, 0x01, 0x00, 0x02, 0, 0, 0, 0, 0, 0],
        ),
        ("an empty record", clear(HANDSHAKE, b"")),
        ("application data", clear(APPLICATION_DATA, b"hello")),
        ("an alert", clear(ALERT, &[2, 40])),
        ("a Finished", clear(HANDSHAKE, &[20, 0, 0, 1, 0])),
        (
            "a ClientHello of nonsense",
            clear(HANDSHAKE, &[1, 0, 0, 4, 9, 9, 9, 9]),
        ),
        (
            "a message of 16 MiB",
            clear(HANDSHAKE, &[1, 255, 255, 255, 0]),
        ),
        (
            "half a message, then another kind of record",
            [clear(HANDSHAKE, &[1, 0, 1, 0, 3]), clear(ALERT, &[1, 0])].concat(),
        ),
        (
            "half a message, then garbage",
            [clear(HANDSHAKE, &[1, 0, 1, 0, 3]), vec![0xff; 100]].concat(),
        ),
        (
            "half a message, then nonsense that completes it",
            [
                clear(HANDSHAKE, &[1, 0, 0, 4, 9]),
                clear(HANDSHAKE, &[9; 3]),
            ]
            .concat(),
        ),
        (
            "a message in more fragments than one record's room",
            [
                clear(HANDSHAKE, &[1, 0, 200, 0]),
                clear(HANDSHAKE, &[3]).repeat(4000),
            ]
            .concat(),
        ),
        (
            "a record longer than allowed",
            clear(HANDSHAKE, &[1; 17_000]),
        ),
    ];
    assert!(!cases.is_empty());
    for (what, bytes) in cases {
        // The connection stays open: it is not its end that makes the error.
        let mut tcp = server.tcp().await;
        let (error, sent) = tokio::join!(server.accept(), tcp.write_all(&bytes));
        let error = error.expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
        // The server may well have gone before it had everything.
        drop(sent);
    }
}

#[tokio::test]
async fn a_refused_client_gets_an_alert() {
    let server = Server::new().await;
    let mut tcp = server.tcp().await;
    let hello = clear(HANDSHAKE, &[1, 0, 0, 4, 9, 9, 9, 9]);
    let (refused, sent) = tokio::join!(server.accept(), tcp.write_all(&hello));
    sent.expect("sent");
    refused.expect_err("refused");
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.expect("an answer");
    let [kind, _, _, 0, 2, fatal, _] = answer[..] else {
        panic!("not an alert: {answer:?}");
    };
    assert_eq!((kind, fatal), (ALERT, 2));
}

#[tokio::test]
async fn hostile_records_end_the_connection() {
    let server = Server::new().await;
    type Forge = fn(&mut Forger) -> Vec<u8>;
    // For the two that are `None`, rustls has no alert.
    let alert = Some(2);
    let cases: [(&str, Option<usize>, Forge); 8] = [
        ("more empty records than allowed", None, |f| {
            (0..40)
                .flat_map(|_| f.record(APPLICATION_DATA, b""))
                .collect()
        }),
        ("a plaintext one byte too long", alert, |f| {
            f.record(APPLICATION_DATA, &[7; 16_385])
        }),
        ("a kind that does not exist", alert, |f| {
            f.record(99, b"hello")
        }),
        ("a ClientHello", alert, |f| {
            f.record(HANDSHAKE, &[1, 0, 0, 4, 9, 9, 9, 9])
        }),
        ("data amid a handshake message", None, |f| {
            [
                f.record(HANDSHAKE, &[24, 0]),
                f.record(APPLICATION_DATA, b"x"),
            ]
            .concat()
        }),
        ("a KeyUpdate that asks for nothing known", alert, |f| {
            f.record(HANDSHAKE, &[24, 0, 0, 1, 7])
        }),
        ("a record changed on the way", alert, |f| {
            let mut record = f.record(APPLICATION_DATA, b"hello");
            record[8] ^= 1;
            record
        }),
        ("a record sent twice", alert, |f| {
            f.record(APPLICATION_DATA, b"x").repeat(2)
        }),
    ];
    for (what, answer, forge) in cases {
        let (mut stream, mut forger) = server.forger().await;
        let bytes = forge(&mut forger);
        forger.tcp.write_all(&bytes).await.expect("sent");
        let mut buf = [0; 1000];
        let error = loop {
            match stream.read(&mut buf).await {
                Ok(n) => assert_ne!(n, 0, "{what}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
        let again = stream.read(&mut buf).await.expect_err("still");
        assert_eq!(again.kind(), io::ErrorKind::InvalidData, "{what}");
        let write = stream.write(b"x").await.expect_err("refused");
        assert_eq!(write.kind(), io::ErrorKind::BrokenPipe, "{what}");
        stream.shutdown().await.expect("the alert is out");
        assert_owns_no_buffer(&stream);
        match answer {
            Some(len) => assert_eq!(forger.receive().await, len, "{what}"),
            None => assert_eq!(
                forger.tcp.read(&mut buf).await.expect("the end"),
                0,
                "{what}"
            ),
        }
    }
}

#[tokio::test]
async fn a_record_longer_than_any_is_refused_and_not_kept() {
    let server = Server::new().await;
    let (mut stream, mut forger) = server.forger().await;
    let length = 18_000_u16.to_be_bytes();
    let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
    forger.tcp.write_all(&header).await.expect("sent");
    // One byte less than it announces, so that it is never whole.
    forger.tcp.write_all(&[0; 17_999]).await.expect("sent");
    let error = stream.read(&mut [0; 64]).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_owns_no_buffer(&stream);
}

#[tokio::test]
async fn writing_works_while_half_a_handshake_message_is_kept() {
    let server = Server::new().await;
    let (mut stream, mut forger) = server.forger().await;
    forger.send(APPLICATION_DATA, b"x").await;
    forger.send(HANDSHAKE, &[24, 0]).await;
    assert_eq!(stream.read(&mut [0; 10]).await.expect("read"), 1);
    // The rest of the flight may come in a second `recv`.
    while stream.buffered() == 0 {
        let mut buf = [0; 10];
        let mut buf = ReadBuf::new(&mut buf);
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_read(cx, &mut buf))).await;
        assert!(read.is_pending());
        tokio::task::yield_now().await;
    }
    stream.write_all(b"answer").await.expect("written");
    stream.flush().await.expect("flushed");
    assert_eq!(forger.receive().await, b"answer".len());
    // And when it is completed, the connection fails as it should: what follows a KeyUpdate
    // under the old keys cannot be decrypted.
    forger.send(HANDSHAKE, &[0, 1, 0]).await;
    forger.send(APPLICATION_DATA, b"old keys").await;
    let error = stream.read(&mut [0; 10]).await.expect_err("wrong keys");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn data_before_a_hostile_record_is_still_delivered() {
    let server = Server::new().await;
    let (mut stream, mut forger) = server.forger().await;
    let good = forger.record(APPLICATION_DATA, b"good");
    let bad = forger.record(99, b"bad");
    forger
        .tcp
        .write_all(&[good, bad].concat())
        .await
        .expect("sent");
    let mut buf = [0; 100];
    assert_eq!(stream.read(&mut buf).await.expect("read"), 4);
    let error = stream.read(&mut buf).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn what_follows_close_notify_is_ignored() {
    let server = Server::new().await;
    let (mut stream, mut forger) = server.forger().await;
    let close = forger.record(ALERT, &[1, 0]);
    let late = forger.record(APPLICATION_DATA, b"late");
    forger
        .tcp
        .write_all(&[close, late].concat())
        .await
        .expect("sent");
    assert_eq!(stream.read(&mut [0; 10]).await.expect("the end"), 0);
    assert_owns_no_buffer(&stream);
}

#[tokio::test]
async fn many_tiny_records_arrive_in_order() {
    let server = Server::new().await;
    let (mut stream, mut forger) = server.forger().await;
    let data = pattern(3000);
    let records: Vec<u8> = data
        .chunks(1)
        .flat_map(|byte| forger.record(APPLICATION_DATA, byte))
        .collect();
    let mut got = vec![0; data.len()];
    let (sent, read) = tokio::join!(forger.tcp.write_all(&records), stream.read_exact(&mut got));
    sent.and(read.map(drop)).expect("exchanged");
    assert!(got == data);
}

#[tokio::test]
async fn a_key_update_is_answered_with_the_next_data() {
    let server = Server::new().await;
    let (mut stream, mut client) = server.pair(&TLS13).await;
    for round in 0..3_u8 {
        client.get_mut().1.refresh_traffic_keys().expect("sent");
        client.write_all(&[round]).await.expect("written");
        client.flush().await.expect("flushed");
        let mut got = [0];
        stream.read_exact(&mut got).await.expect("under new keys");
        assert_eq!(got, [round]);
        stream.write_all(&[round]).await.expect("written");
        stream.flush().await.expect("flushed");
        client.read_exact(&mut got).await.expect("under new keys");
        assert_eq!(got, [round]);
        assert_owns_no_buffer(&stream);
    }
}

#[tokio::test]
async fn a_flood_of_key_updates_is_refused() {
    let server = Server::new().await;
    let (mut stream, mut client) = server.pair(&TLS13).await;
    for _ in 0..40 {
        client.get_mut().1.refresh_traffic_keys().expect("sent");
        client.flush().await.expect("flushed");
    }
    let error = stream.read(&mut [0; 10]).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_blocked_writer_holds_at_most_what_it_sealed() {
    let server = Server::new().await;
    for version in BOTH_VERSIONS {
        let (mut stream, mut client) = server.pair(version).await;
        let data = pattern(1024 * 1024);
        let (mut accepted, mut blocked, mut most) = (0, 0, 0);
        // Blocked is what stays blocked while the runtime looks at its sockets.
        while blocked < 100 {
            match try_write(&mut stream, &data[accepted % 1024..]).await {
                Poll::Ready(n) => {
                    accepted += n.expect("written");
                    blocked = 0;
                }
                Poll::Pending => {
                    blocked += 1;
                    tokio::task::yield_now().await;
                }
            }
            most = most.max(stream.buffered());
        }
        assert!(accepted > 0);
        assert!(most <= SEAL_SIZE + 4096, "{most}");
        let mut got = Vec::new();
        let (shut, read) = tokio::join!(stream.shutdown(), client.read_to_end(&mut got));
        shut.and(read.map(drop)).expect("a clean end");
        assert_eq!(got.len(), accepted);
        assert_owns_no_buffer(&stream);
    }
}

#[tokio::test]
async fn a_congested_writer_takes_one_record_at_a_time() {
    let server = Server::new().await;
    let (mut stream, mut client) = server.pair(&TLS13).await;
    let data = pattern(SEAL_SIZE);
    for _ in 0..10_000 {
        if stream.buffered() > 0 {
            break;
        }
        if try_write(&mut stream, &data).await.is_pending() {
            tokio::task::yield_now().await;
        }
    }
    assert!(stream.buffered() > 0, "no write was taken in part");
    let mut read = vec![0; SEAL_SIZE];
    let drain = async { while client.read(&mut read).await.expect("read") > 0 {} };
    let written = tokio::select! {
        written = stream.write(&data) => written.expect("written"),
        () = drain => panic!("the stream ended"),
    };
    assert_eq!(written, 16 * 1024);
}

#[tokio::test]
async fn partial_sends_lose_and_repeat_nothing() {
    let server = Server::new().await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // A window far smaller than one write.
    socket.set_recv_buffer_size(4096).expect("set");
    let addr = server.listener.local_addr().expect("bound");
    let connector = TlsConnector::from(Arc::new(server.client(&[&TLS13])));
    let name = ServerName::try_from("localhost").expect("a name");
    let connect = async {
        let tcp = socket.connect(addr).await.expect("connected");
        connector.connect(name, tcp).await
    };
    let (stream, client) = tokio::join!(server.accept(), connect);
    let (mut stream, mut client) = (stream.expect("accepted"), client.expect("connected"));
    let tcp = socket2::SockRef::from(stream.get_ref());
    tcp.set_send_buffer_size(8192).expect("set");
    let data = pattern(1024 * 1024);
    let most = std::cell::Cell::new(0);
    let write = async {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let n = stream.write(rest).await.expect("written");
            rest = &rest[n..];
            most.set(most.get().max(stream.buffered()));
        }
        stream.shutdown().await.expect("shut down");
    };
    let mut got = Vec::new();
    let ((), read) = tokio::join!(write, client.read_to_end(&mut got));
    read.expect("a clean end");
    assert!(got == data);
    assert!(most.get() > 0, "no send was partial");
    assert_owns_no_buffer(&stream);
}
