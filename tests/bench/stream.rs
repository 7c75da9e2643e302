//! The byte stream under a client connection: TLS, or TCP in clear.
//!
//! Owns the client's TLS: exactly one cipher suite and one key exchange are offered, so that every
//! proxy does the same work, and no session is ever resumed. It knows nothing of HTTP or frames.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One open stream.
pub enum Stream {
    /// Boxed: a plain one should not be as large.
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
    /// In clear.
    Plain(TcpStream),
}

/// How streams are opened.
pub struct Opener {
    port: u16,
    /// Absent: in clear.
    tls: Option<TlsConnector>,
    /// Bytes of ciphertext taken from the socket per system call.
    read_size: usize,
}

impl Opener {
    /// To a port on 127.0.0.1. `certificate`: PEM file that is trusted; without one, no TLS.
    pub fn new(port: u16, certificate: Option<&Path>, read_size: usize) -> io::Result<Self> {
        let tls = match certificate {
            Some(file) => Some(TlsConnector::from(Arc::new(client_config(file)?))),
            None => None,
        };
        Ok(Self {
            port,
            tls,
            read_size,
        })
    }

    /// TCP, and TLS.
    pub async fn open(&self) -> io::Result<Stream> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = ServerName::try_from("localhost").expect("a valid name");
        let tcp = BufReader::with_capacity(self.read_size, tcp);
        Ok(Stream::Tls(Box::new(tls.connect(name, tcp).await?)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
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
