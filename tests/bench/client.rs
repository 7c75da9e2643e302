//! One client connection of the load: TLS, opening handshake, token, then echoes.
//!
//! Owns the client side of the wire. TLS offers exactly one cipher suite and one key exchange, so
//! that every proxy does the same work, and never resumes. It knows nothing of workloads.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::frames::{self, CLOSE, Incoming, TEXT};

/// Opens connections to one proxy.
pub struct Dialer {
    port: u16,
    tls: TlsConnector,
    request: Vec<u8>,
    /// The masked frame with the token; absent where the proxy asks for none.
    first_frame: Option<Vec<u8>>,
    /// Bytes taken from the socket per system call.
    read_size: usize,
}

impl Dialer {
    /// `certificate`: PEM file that is trusted; `first_message`: sent and answered by one message
    /// before the connection counts as open.
    pub fn new(
        port: u16,
        certificate: &Path,
        first_message: Option<&str>,
        read_size: usize,
    ) -> io::Result<Self> {
        let request = format!(
            "GET /chat HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nOrigin: https://app.example.com\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        Ok(Self {
            port,
            tls: TlsConnector::from(Arc::new(client_config(certificate)?)),
            request: request.into_bytes(),
            first_frame: first_message.map(|text| frames::masked(TEXT, text.as_bytes())),
            read_size,
        })
    }

    /// TCP, TLS, 101, and where a token is asked for: token sent, reply received.
    pub async fn connect(&self) -> io::Result<Client> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a valid name");
        let tcp = BufReader::with_capacity(self.read_size, tcp);
        let mut stream = self.tls.connect(name, tcp).await?;
        stream.write_all(&self.request).await?;
        stream.flush().await?;
        let early = response_101(&mut stream).await?;
        let mut client = Client {
            stream,
            incoming: Incoming::default(),
        };
        client.incoming.feed(&early, None)?;
        if let Some(frame) = &self.first_frame {
            client.write(frame).await?;
            client.wait_for(|incoming| incoming.messages > 0).await?;
        }
        client.incoming.messages = 0;
        Ok(client)
    }
}

fn client_config(certificate: &Path) -> io::Result<rustls::ClientConfig> {
    let mut only = provider::default_provider();
    only.cipher_suites = vec![provider::cipher_suite::TLS13_AES_128_GCM_SHA256];
    only.kx_groups = vec![provider::kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    let pem = fs::read(certificate)?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(only))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads the response head; the answer is what followed it.
async fn response_101(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            let seen = String::from_utf8_lossy(&head).into_owned();
            return Err(io::Error::other(format!("closed before 101: {seen:?}")));
        }
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            if !head.starts_with(b"HTTP/1.1 101 ") {
                let line = String::from_utf8_lossy(&head)
                    .lines()
                    .next()
                    .map(str::to_owned);
                return Err(io::Error::other(format!("answered {line:?}")));
            }
            return Ok(head.split_off(end + 4));
        }
    }
}

/// An open connection.
pub struct Client {
    stream: TlsStream<BufReader<TcpStream>>,
    incoming: Incoming,
}

impl Client {
    /// Keeps `batch.in_flight` messages under way until `until`, then waits for the last of them.
    /// The answer is one round trip time in nanoseconds per message.
    pub async fn echo(&mut self, batch: &Batch, until: Instant) -> io::Result<Vec<u32>> {
        let mut exchange = Exchange::new(batch, until);
        let mut scratch = vec![0; SCRATCH];
        std::future::poll_fn(|cx| exchange.poll(self, &mut scratch, cx)).await?;
        Ok(exchange.round_trips)
    }

    /// Answers pings until the proxy ends the connection, which is an error.
    pub async fn idle(&mut self) -> io::Result<()> {
        self.wait_for(|incoming| incoming.is_closed).await
    }

    /// The closing handshake, then the end of TLS and TCP. The client does not wait for the proxy
    /// to go first (RFC 6455 §7.1.1 lets it): one of them would keep it waiting for a second.
    pub async fn close(mut self) -> io::Result<()> {
        self.write(&frames::masked(CLOSE, &1000_u16.to_be_bytes()))
            .await?;
        self.wait_for(|incoming| incoming.is_closed).await?;
        // The proxy may be gone already, which is as good.
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// Reads, and answers pings, until `is_reached`; the end of the stream is an error.
    async fn wait_for(&mut self, is_reached: impl Fn(&Incoming) -> bool) -> io::Result<()> {
        // Small: thousands of idle connections each hold one.
        let mut scratch = [0; 512];
        while !is_reached(&self.incoming) {
            let read = self.stream.read(&mut scratch).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.incoming.feed(&scratch[..read], None)?;
            let pongs = std::mem::take(&mut self.incoming.pongs);
            if !pongs.is_empty() {
                self.write(&pongs).await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// What is sent again and again: frames that were masked once.
pub struct Batch {
    /// `in_flight` equal frames, one after another.
    frames: Vec<u8>,
    /// Bytes of one of them.
    frame: usize,
    in_flight: usize,
    payload: Vec<u8>,
}

impl Batch {
    /// Text messages of `size` bytes, `in_flight` of them at a time.
    pub fn new(size: usize, in_flight: usize) -> Self {
        let payload = text(size);
        let frame = frames::masked(TEXT, &payload);
        Self {
            frames: frame.repeat(in_flight),
            frame: frame.len(),
            in_flight,
            payload,
        }
    }
}

/// Text as chats have it: mostly ASCII, some of it not, so that a UTF-8 check has work to do.
fn text(size: usize) -> Vec<u8> {
    let pattern = r#"{"from":"alice","text":"Grüße aus Łódź → see you at 8"}"#;
    let mut text = String::with_capacity(size);
    for letter in pattern.chars().cycle() {
        if text.len() + letter.len_utf8() > size {
            break;
        }
        text.push(letter);
    }
    while text.len() < size {
        text.push(' ');
    }
    text.into_bytes()
}

/// One run of echoes over one connection.
struct Exchange<'a> {
    batch: &'a Batch,
    until: Instant,
    /// When each message that is under way was handed to TLS, oldest first.
    sent: VecDeque<Instant>,
    /// Bytes of frames that were promised but not written.
    unwritten: usize,
    /// Where in `batch.frames` the next byte is taken from.
    position: usize,
    is_flushed: bool,
    round_trips: Vec<u32>,
}

impl<'a> Exchange<'a> {
    fn new(batch: &'a Batch, until: Instant) -> Self {
        Self {
            batch,
            until,
            sent: std::iter::repeat_n(Instant::now(), batch.in_flight).collect(),
            unwritten: batch.frames.len(),
            position: 0,
            is_flushed: true,
            round_trips: Vec::new(),
        }
    }

    /// Writes what is due and reads what has come, so that neither waits for the other.
    fn poll(
        &mut self,
        client: &mut Client,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.poll_write(client, cx)?;
            if self.sent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut client.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            client
                .incoming
                .feed(read.filled(), Some(&self.batch.payload))?;
            self.count(std::mem::take(&mut client.incoming.messages))?;
        }
    }

    fn poll_write(&mut self, client: &mut Client, cx: &mut Context<'_>) -> io::Result<()> {
        let mut stream = Pin::new(&mut client.stream);
        while self.unwritten > 0 || !client.incoming.pongs.is_empty() {
            let pongs = &mut client.incoming.pongs;
            let is_pong = !pongs.is_empty() && self.position.is_multiple_of(self.batch.frame);
            let due = if is_pong {
                &pongs[..]
            } else {
                self.due(!pongs.is_empty())
            };
            let Poll::Ready(written) = stream.as_mut().poll_write(cx, due)? else {
                return Ok(());
            };
            self.is_flushed = false;
            if is_pong {
                pongs.drain(..written);
            } else {
                self.unwritten -= written;
                self.position = (self.position + written) % self.batch.frames.len();
            }
        }
        if !self.is_flushed {
            self.is_flushed = stream.poll_flush(cx)?.is_ready();
        }
        Ok(())
    }

    /// The next bytes to write; only the rest of the current frame when a pong waits behind it.
    fn due(&self, stop_at_boundary: bool) -> &'a [u8] {
        let frame = self.batch.frame;
        let end = match stop_at_boundary {
            true => (self.position / frame + 1) * frame,
            false => self.batch.frames.len(),
        };
        let end = end.min(self.position + self.unwritten);
        &self.batch.frames[self.position..end]
    }

    /// Books echoes that came in, and promises one more message for each until time is up.
    fn count(&mut self, echoes: usize) -> io::Result<()> {
        let now = Instant::now();
        for _ in 0..echoes {
            let sent = self.sent.pop_front();
            let sent = sent.ok_or_else(|| io::Error::other("an echo of nothing"))?;
            let round_trip = (now - sent).as_nanos();
            self.round_trips
                .push(u32::try_from(round_trip).unwrap_or(u32::MAX));
            if now < self.until {
                self.sent.push_back(now);
                self.unwritten += self.batch.frame;
            }
        }
        Ok(())
    }
}

/// Plaintext taken from TLS at a time: one full record.
const SCRATCH: usize = 16 * 1024;
