//! TLS towards the clients: certificates, the handshake, and a stream that owns no buffer at rest.
//!
//! Owns everything that names a rustls type, so that a change of that library is felt
//! nowhere else. It knows neither HTTP nor WebSocket, opens no socket and sets no deadline:
//! the caller of [`Acceptor::accept`] has one. RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2),
//! RFC 6066 §3 (server name), RFC 7301 (ALPN).
//!
//! - `acceptor.rs`: settings, with their reasons; from configuration to handshake.
//! - `certificates.rs`, `x509.rs`: PEM files, and what can be wrong with them.
//! - `sni.rs`: which certificate a client gets.
//! - `stream.rs`: a TLS connection as an async stream.
//! - `engine.rs`: the calls into rustls. `kept.rs`, `scratch.rs`: where bytes live.
//! - `dev_cert.rs`: a certificate for trying things out. `connector.rs`: the client's end.

mod acceptor;
mod certificates;
mod connector;
pub mod dev_cert;
mod engine;
mod kept;
mod scratch;
mod sni;
mod stream;
mod x509;

#[cfg(test)]
mod test_pki;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use acceptor::Acceptor;
pub use connector::{ClientStream, Connector};
pub use stream::TlsStream;

use crate::config::TlsVersion;

/// A client's connection, with or without TLS.
#[derive(Debug)]
pub enum Downstream {
    /// A listener with `plaintext = true`.
    Plain(TcpStream),
    /// A listener with `[listener.tls]`.
    Tls(TlsStream),
}

impl Downstream {
    /// Whether bytes to the client are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The version spoken; `None` without TLS.
    pub fn tls_version(&self) -> Option<TlsVersion> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.tls_version()),
        }
    }

    /// The socket, for its addresses and options. Reading or writing it directly would
    /// break a TLS stream.
    pub fn get_ref(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Bytes this connection holds right now, in either direction; 0 without TLS.
    pub fn buffered(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.buffered(),
        }
    }
}

impl From<TcpStream> for Downstream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl From<TlsStream> for Downstream {
    fn from(stream: TlsStream) -> Self {
        Self::Tls(stream)
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
