//! WebSocket frames as they come in on a byte stream: what the demo's client and its echo
//! server share. RFC 6455 §5.
//!
//! Knows who is at the far end, and neither answers nor remembers anything.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::proto::frame::{Header, apply_mask};
use crate::proto::side::Side;

/// Bytes asked for at once. Bounds what is read ahead of the frame that is looked at.
const READ: usize = 16 * 1024;

/// The frames that one peer sends.
#[derive(Debug)]
pub(super) struct Frames<R> {
    reader: R,
    received: BytesMut,
    from: Side,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Frames from a client (`Downstream`) or from a server (`Upstream`), beginning with the
    /// bytes that arrived `early`, behind the opening handshake.
    pub(super) fn new(reader: R, early: &[u8], from: Side) -> Self {
        Self {
            reader,
            received: BytesMut::from(early),
            from,
        }
    }

    /// The next frame's header; its payload is then to be taken with
    /// [`piece`](Self::piece). `None`: the stream has ended. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// Those of the stream, a stream that ends inside a header, a header that breaks a rule.
    pub(super) async fn header(&mut self) -> io::Result<Option<Header>> {
        loop {
            if let Some((header, len)) = self.decoded()? {
                self.received.advance(len);
                return Ok(Some(header));
            }
            if self.fill().await? == 0 {
                return self.ended();
            }
        }
    }

    /// What is there of a payload of which `left` bytes are missing: at least one byte, and
    /// as it was sent. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of the stream, and a stream that ends here.
    pub(super) async fn piece(&mut self, left: u64) -> io::Result<BytesMut> {
        if self.received.is_empty() && self.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let here = self.received.len();
        Ok(self
            .received
            .split_to(usize::try_from(left).unwrap_or(here).min(here)))
    }

    /// The next frame whole, its payload unmasked. `None`: the stream has ended. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    /// Those of [`header`](Self::header), and a payload of more than `most` bytes.
    pub(super) async fn whole(&mut self, most: usize) -> io::Result<Option<(Header, BytesMut)>> {
        loop {
            if let Some((header, at)) = self.decoded()? {
                let len = usize::try_from(header.len).unwrap_or(usize::MAX);
                if len > most {
                    return Err(broken("a frame that is larger than expected"));
                }
                if self.received.len() >= at + len {
                    self.received.advance(at);
                    let mut payload = self.received.split_to(len);
                    apply_mask(&mut payload, header.mask.unwrap_or_default(), 0);
                    return Ok(Some((header, payload)));
                }
            }
            if self.fill().await? == 0 {
                return self.ended();
            }
        }
    }

    fn decoded(&self) -> io::Result<Option<(Header, usize)>> {
        Header::decode(&self.received, self.from).map_err(|rule| broken(&rule.to_string()))
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.received.reserve(READ);
        self.reader.read_buf(&mut self.received).await
    }

    /// The end of the stream: a proper one only between two frames.
    fn ended<T>(&self) -> io::Result<Option<T>> {
        match self.received.is_empty() {
            true => Ok(None),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::frame::{OpCode, encode_frame};

    #[tokio::test]
    async fn frames_are_found_however_the_stream_is_cut() {
        let mut wire = encode_frame(OpCode::Text, Some([1, 2, 3, 4]), b"hello");
        wire.extend(encode_frame(OpCode::Ping, Some([5, 6, 7, 8]), b""));
        for cut in 0..=wire.len() {
            let (early, late) = wire.split_at(cut);
            let mut frames = Frames::new(late, early, Side::Downstream);
            let (header, payload) = frames.whole(5).await.expect("read").expect("a frame");
            assert_eq!((header.opcode, &payload[..]), (OpCode::Text, &b"hello"[..]));
            let header = frames.header().await.expect("read").expect("a frame");
            assert_eq!(header.opcode, OpCode::Ping);
            assert!(frames.whole(5).await.expect("read").is_none());
        }
    }

    #[tokio::test]
    async fn a_frame_larger_than_expected_is_refused_by_its_header() {
        let wire = encode_frame(OpCode::Binary, None, &[0; 6]);
        let mut frames = Frames::new(&wire[..2], b"", Side::Upstream);
        let error = frames.whole(5).await.expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_frame_is_broken() {
        let wire = encode_frame(OpCode::Binary, None, b"abc");
        for len in 1..wire.len() {
            let mut frames = Frames::new(&wire[..len], b"", Side::Upstream);
            let error = frames.whole(5).await.expect_err("broken");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len} bytes");
        }
    }
}
