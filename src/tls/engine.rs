//! The calls into rustls: records in, plaintext and answers out.
//!
//! Owns the connection's keys and state, and no buffer: bytes are the caller's. It touches
//! no socket. The unbuffered interface of rustls 0.23 is used here and nowhere else; its
//! successor changes it.
//!
//! Two rules of that interface are kept by this file. Bytes that were not used must come
//! back unchanged and in the same place relative to what follows, because a handshake
//! message that spans records is decrypted and joined in place. And after an error the
//! connection may only be asked for the alert it has ready, never to read again.

use std::io;
use std::sync::Arc;

use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus,
};
use rustls::{HandshakeKind, ProtocolVersion};

use crate::config::TlsVersion;
use crate::tls::kept::Kept;

/// The header of a record: type, version, length (RFC 8446 §5.1).
pub(super) const HEADER: usize = 5;

/// Largest record a peer may send: 2^14 bytes of plaintext and at most 256 of expansion
/// (RFC 8446 §5.2). TLS 1.2 would allow 2048, but no cipher suite spoken here needs them.
pub(super) const MAX_RECORD: usize = HEADER + 16 * 1024 + 256;

/// One TLS connection's state, in one allocation so that moving it is cheap.
pub(super) struct Engine {
    conn: Box<UnbufferedServerConnection>,
}

/// What [`Engine::open`] did with the bytes it was given.
pub(super) struct Opened {
    /// Bytes at the front that are no longer needed; the rest must be given again, first.
    pub(super) used: usize,
    /// The end of what the peer sends, if this was it.
    pub(super) end: Option<End>,
}

/// Why nothing more will be read.
pub(super) enum End {
    /// The peer sent close_notify: everything it sent has arrived.
    CloseNotify,
    /// The peer broke the protocol; the alert that says so, if rustls has one for it, is among
    /// the sealed bytes.
    Failed(rustls::Error),
}

impl Engine {
    /// A connection that has seen nothing yet.
    ///
    /// # Errors
    /// Only if the settings contradict each other, whatever the peer does.
    pub(super) fn new(config: &Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let conn = UnbufferedServerConnection::new(Arc::clone(config))?;
        Ok(Self {
            conn: Box::new(conn),
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// Whether an earlier connection's ticket was accepted.
    pub(super) fn is_resumed(&self) -> bool {
        self.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The version agreed on; TLS 1.2 until that happened.
    pub(super) fn version(&self) -> TlsVersion {
        match self.conn.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        }
    }

    /// Processes every whole record in `records`, decrypting in place. Plaintext goes to
    /// `plain`, one record a call; whatever must be sent because of them, to `sealed`.
    ///
    /// Afterwards no whole record is left, unless a handshake message spans several.
    pub(super) fn open(
        &mut self,
        records: &mut [u8],
        sealed: &mut Kept,
        mut plain: impl FnMut(&[u8]),
    ) -> Opened {
        let mut used = 0;
        let mut end = None;
        loop {
            let UnbufferedStatus { mut discard, state } = self
                .conn
                .process_tls_records(records.get_mut(used..).unwrap_or_default());
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        plain(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(encode)) => queue(encode, sealed),
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => end = Some(End::CloseNotify),
                Ok(_) => {
                    used += discard;
                    return Opened { used, end };
                }
                Err(error) => {
                    self.queue_alert(sealed);
                    return Opened {
                        used: records.len(),
                        end: Some(End::Failed(error)),
                    };
                }
            }
            used += discard;
        }
    }

    /// Seals all of `plain`, and whatever waited to be sent before it, into `sealed`; returns
    /// how much of that was filled. `incoming` is what [`Self::open`] left unused.
    ///
    /// # Errors
    /// The keys of TLS 1.2 are used up (2^24 records); or a call in the wrong state, which is
    /// our bug. Either way nothing more can be sent.
    pub(super) fn seal(
        &mut self,
        incoming: &mut [u8],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> io::Result<usize> {
        match self.conn.process_tls_records(incoming).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                traffic.encrypt(plain, sealed).map_err(cannot_seal)
            }
            _ => Err(io::Error::other("TLS connection is not open for writing")),
        }
    }

    /// Seals close_notify (RFC 8446 §6.1) behind whatever waited to be sent.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub(super) fn close_notify(
        &mut self,
        incoming: &mut [u8],
        sealed: &mut Kept,
    ) -> io::Result<()> {
        match self.conn.process_tls_records(incoming).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let mut alert = [0; 512];
                let n = traffic
                    .queue_close_notify(&mut alert)
                    .map_err(cannot_seal)?;
                sealed.push(alert.get(..n).unwrap_or_default());
                Ok(())
            }
            _ => Err(io::Error::other("TLS connection is not open for writing")),
        }
    }

    /// Fetches the alert that goes with an error. While one is ready rustls hands it out
    /// before it looks at the input, so an empty input is never read.
    fn queue_alert(&mut self, sealed: &mut Kept) {
        while self.conn.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(encode)) =
                self.conn.process_tls_records(&mut []).state
            else {
                return;
            };
            queue(encode, sealed);
        }
    }
}

/// Appends one encoded message to `sealed`.
fn queue<Data>(mut encode: EncodeTlsData<'_, Data>, sealed: &mut Kept) {
    // The size is only told by an attempt that has too little room; an attempt that succeeds
    // has written nothing.
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        encode.encode(&mut [])
    else {
        return;
    };
    let mut message = vec![0; required_size];
    if let Ok(n) = encode.encode(&mut message) {
        sealed.push(message.get(..n).unwrap_or_default());
    }
}

fn cannot_seal(error: EncryptError) -> io::Error {
    io::Error::other(error)
}
