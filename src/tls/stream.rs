//! A TLS connection as an async stream that owns no buffer at rest.
//!
//! Ciphertext is received into the thread's scratch, decrypted there, and the plaintext
//! copied straight into the caller's buffer; plaintext is sealed into the thread's other
//! scratch and sent from there. Only what is unfinished stays with the connection, each part
//! with its bound beside it. Knows nothing of what the bytes mean, and sets no deadline.

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config::TlsVersion;
use crate::tls::engine::{End, Engine, HEADER, MAX_RECORD, Opened};
use crate::tls::kept::Kept;
use crate::tls::scratch::{self, READ_SIZE, SEAL_SIZE};

/// A client's TLS connection after the TLS handshake.
///
/// Memory, beyond the socket and the TLS state: `incoming` + `plain` + `sealed`, which is 0
/// when nothing is unfinished and at most 16,645 + 16,645 + 69,632 bytes (plus a few alerts).
///
/// - **Reading** makes one `recv` per call that gives plaintext, and takes at most as many
///   bytes as fit decrypted into the caller's buffer, unless that is smaller than the record
///   at hand. The end of the stream is the peer's close_notify; a connection that ends
///   without one is [`io::ErrorKind::UnexpectedEof`] (truncation, RFC 8446 §6.1), and one
///   that breaks the protocol is [`io::ErrorKind::InvalidData`], once the alert that rustls
///   has for it, if it has one, was sent.
/// - **Writing** takes up to 64 KiB per call and makes one `send`. What the socket did not
///   take stays sealed in here; nothing is accepted while there is any, so poll
///   [`AsyncWrite::poll_flush`] until it is ready before waiting for anything else.
/// - **Flushed** means that every sealed byte is the kernel's. The answer to a KeyUpdate is
///   not sealed until there is data to send, which it goes in front of (RFC 8446 §4.6.3).
/// - **Shutting down** sends close_notify, then ends the TCP direction. Reading goes on.
pub struct TlsStream {
    tcp: TcpStream,
    engine: Engine,
    /// Received and not yet decrypted: part of one record, or records that make up part of
    /// one handshake message. `len ≤ MAX_RECORD`.
    incoming: Vec<u8>,
    /// Decrypted and not yet read, when the caller's buffer was smaller than a record, or
    /// when it came with the last flight of the TLS handshake. `len < MAX_RECORD`.
    plain: Kept,
    /// Sealed and not yet sent: at most one write's worth, and alerts.
    sealed: Kept,
    reading: Reading,
    writing: Writing,
}

/// What can still come from the peer.
enum Reading {
    Open,
    /// The peer sent close_notify.
    Closed,
    /// The protocol was broken; the error is told once in full.
    Failed(Option<io::Error>),
}

/// Plaintext of a full record (RFC 8446 §5.1).
const RECORD_SIZE: usize = 16 * 1024;

/// What can still be sent.
#[derive(PartialEq, Eq)]
enum Writing {
    Open,
    /// The socket did not take the last write whole. One record is sealed at a time then:
    /// what is not sealed counts as not taken, so that a slow reader's progress shows.
    Congested,
    /// close_notify is sealed or sent.
    Closed,
}

/// Most `recv` calls of one poll that gives no plaintext: parts of records, tickets, empty
/// records. Beyond it other connections have their turn first.
const RECEIVES_PER_POLL: usize = 8;

/// Most sealed bytes that wait for the next write and leave with it; the scratch has so much
/// room to spare. A ticket is a quarter of it.
const MAX_LEAD: usize = 1024;

/// Least room for one `recv`, however little the caller asked for.
const MIN_RECEIVE: usize = 512;

impl TlsStream {
    pub(super) fn new(tcp: TcpStream, engine: Engine) -> Self {
        Self {
            tcp,
            engine,
            incoming: Vec::new(),
            plain: Kept::default(),
            sealed: Kept::default(),
            reading: Reading::Open,
            writing: Writing::Open,
        }
    }

    /// The version agreed on in the TLS handshake.
    pub fn tls_version(&self) -> TlsVersion {
        self.engine.version()
    }

    /// Whether the client came back with a ticket instead of doing the whole TLS handshake.
    pub fn is_resumed(&self) -> bool {
        self.engine.is_resumed()
    }

    /// The socket, for its addresses and options. Reading or writing it directly would break
    /// the stream.
    pub fn get_ref(&self) -> &TcpStream {
        &self.tcp
    }

    /// Bytes this connection holds right now: an unfinished record, plaintext not yet read,
    /// ciphertext not yet sent.
    pub fn buffered(&self) -> usize {
        self.incoming.len() + self.plain.len() + self.sealed.len()
    }

    /// Drives the TLS handshake; ready when it is complete and our last flight is sent. Data
    /// that follows the client's Finished in the same flight is kept. What no client waits for,
    /// the ticket of TLS 1.3, goes in front of the first answer: one packet in place of two.
    ///
    /// # Errors
    /// As the errors of reading; the alert was sent if the socket took it.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..RECEIVES_PER_POLL {
            let is_complete = !self.engine.is_handshaking();
            if is_complete && self.engine.version() == TlsVersion::V1_3 {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_send_sealed(cx))?;
            if is_complete {
                return Poll::Ready(Ok(()));
            }
            // As much as one record, so that a flight costs one `recv`. The plaintext that may
            // follow it has nowhere to go yet, and is kept.
            ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut []), MAX_RECORD))?;
            if let Reading::Failed(error) = &mut self.reading {
                let error = tell(error);
                // The alert, if the socket takes it.
                let _sent_or_dropped = self.poll_send_sealed(cx);
                return Poll::Ready(Err(error));
            }
        }
        yield_now(cx)
    }

    /// One `recv` of what decrypts to at most `room` bytes, or finishes the record at hand,
    /// and everything that follows from it.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        room: usize,
    ) -> Poll<io::Result<()>> {
        let kept = self.incoming.len();
        let end = READ_SIZE.min(kept + receivable(&self.incoming, room));
        scratch::with_read(|scratch| {
            let space = scratch.get_mut(..end).unwrap_or_default();
            let mut received = ReadBuf::new(space.get_mut(kept..).unwrap_or_default());
            // Never `try_read`: only `poll_read` learns from a short read that the socket is
            // empty, and so saves the next call's `recv`.
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut received))?;
            let n = received.filled().len();
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let records = space.get_mut(..kept + n).unwrap_or_default();
            for (place, byte) in records.iter_mut().zip(&self.incoming) {
                *place = *byte;
            }
            self.open(records, buf);
            Poll::Ready(Ok(()))
        })
    }

    /// The same after the TLS handshake.
    fn poll_receive_and_answer(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let waited = self.sealed.len();
        ready!(self.poll_receive(cx, buf, buf.remaining()))?;
        if self.sealed.len() > waited {
            // An answer or alert goes out now if the socket takes it. If not, or if the socket
            // is broken, the next write or flush deals with it: reading is not at fault.
            let _sent_or_kept = self.poll_send_sealed(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Decrypts `records` into `buf`, and keeps what does not fit or is not whole.
    fn open(&mut self, records: &mut [u8], buf: &mut ReadBuf<'_>) {
        let plain = &mut self.plain;
        let Opened { used, end } = self.engine.open(records, &mut self.sealed, |bytes| {
            let (fits, rest) = bytes.split_at(bytes.len().min(buf.remaining()));
            buf.put_slice(fits);
            plain.push(rest);
        });
        self.keep_incoming(records.get(used..).unwrap_or_default());
        match end {
            Some(End::CloseNotify) => self.end_reading(Reading::Closed),
            Some(End::Failed(error)) => self.end_reading(failed(error)),
            None if self.incoming.len() >= MAX_RECORD => {
                self.end_reading(failed(rustls::Error::PeerSentOversizedRecord));
            }
            None => {}
        }
    }

    /// Replaces the unfinished part; an empty one owns no memory.
    fn keep_incoming(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
            return;
        }
        self.incoming.clear();
        self.incoming.reserve_exact(rest.len());
        self.incoming.extend_from_slice(rest);
    }

    /// Whatever follows the end is ignored (RFC 8446 §6.1).
    fn end_reading(&mut self, reading: Reading) {
        self.incoming = Vec::new();
        self.reading = reading;
    }

    /// Sends what is sealed; ready when nothing is left.
    fn poll_send_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.is_empty() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, self.sealed.as_slice()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sealed.advance(n),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals `buf` and sends it once, behind what waited, at most [`MAX_LEAD`]; what the socket
    /// does not take is kept.
    fn seal_and_send(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> io::Result<()> {
        scratch::with_write(|scratch| {
            let lead = mem::take(&mut self.sealed);
            let (front, rest) = scratch.split_at_mut(lead.len().min(scratch.len()));
            front.copy_from_slice(lead.as_slice());
            let n = lead.len() + self.engine.seal(&mut self.incoming, buf, rest)?;
            let sealed = scratch.get(..n).unwrap_or_default();
            let sent = match Pin::new(&mut self.tcp).poll_write(cx, sealed) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => 0,
            };
            let unsent = sealed.get(sent..).unwrap_or_default();
            self.sealed.push(unsent);
            self.writing = match unsent {
                [] => Writing::Open,
                _ => Writing::Congested,
            };
            Ok(())
        })
    }

    fn is_writable(&self) -> bool {
        self.writing != Writing::Closed && !matches!(self.reading, Reading::Failed(_))
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..RECEIVES_PER_POLL {
            serve(&mut this.plain, buf);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            match &mut this.reading {
                Reading::Open => ready!(this.poll_receive_and_answer(cx, buf))?,
                Reading::Closed => return Poll::Ready(Ok(())),
                Reading::Failed(error) => return Poll::Ready(Err(tell(error))),
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        yield_now(cx)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.is_writable() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.writing == Writing::Congested || this.sealed.len() > MAX_LEAD {
            ready!(this.poll_send_sealed(cx))?;
        }
        let most = match this.writing {
            // Nothing is sealed for a socket that may be full still: it would have to be kept.
            Writing::Congested => {
                ready!(this.tcp.poll_write_ready(cx))?;
                RECORD_SIZE
            }
            _ => SEAL_SIZE,
        };
        let chunk = buf.get(..most).unwrap_or(buf);
        if !chunk.is_empty() {
            this.seal_and_send(cx, chunk)?;
        }
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send_sealed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_writable() {
            this.writing = Writing::Closed;
            this.engine
                .close_notify(&mut this.incoming, &mut this.sealed)?;
        }
        ready!(this.poll_send_sealed(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("version", &self.tls_version())
            .field("buffered", &self.buffered())
            .finish_non_exhaustive()
    }
}

/// Ciphertext to take next, after `incoming`, for a caller with room for `room` bytes.
///
/// Plaintext is always shorter than its ciphertext, so what is taken in the first case cannot
/// overflow the caller's buffer. In the second the buffer is smaller than the record at hand,
/// which is then finished and not one byte more, so that the overflow is one record's.
fn receivable(incoming: &[u8], room: usize) -> usize {
    let kept = incoming.len();
    let room = room.max(MIN_RECEIVE);
    if room > kept {
        return room - kept;
    }
    match incoming {
        [_, _, _, high, low, ..] => {
            let record = HEADER + usize::from(u16::from_be_bytes([*high, *low]));
            // Nothing is missing from a record that is kept as part of a handshake message.
            record.checked_sub(kept).filter(|&missing| missing > 0)
        }
        _ => None,
    }
    .unwrap_or(MIN_RECEIVE)
    .min(MAX_RECORD.saturating_sub(kept).max(1))
}

/// Moves as much of `plain` as fits.
fn serve(plain: &mut Kept, buf: &mut ReadBuf<'_>) {
    let n = plain.len().min(buf.remaining());
    buf.put_slice(plain.as_slice().get(..n).unwrap_or_default());
    plain.advance(n);
}

fn failed(error: rustls::Error) -> Reading {
    Reading::Failed(Some(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// The error in full the first time, its kind from then on.
fn tell(error: &mut Option<io::Error>) -> io::Error {
    mem::take(error).unwrap_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Comes back at the next turn of the runtime.
fn yield_now<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod tests;
