//! Collects the first message of a session, bounded: the one that carries the token.
//!
//! Does not know what a token looks like; that is `auth`'s.

use std::fmt;

use crate::proto::frame::{Header, OpCode, apply_mask};
use crate::proto::message::{Kind, MaxSizes, Message, MessageError};

/// The first message, as far as it has come.
pub struct Collector {
    message: Message,
    payload: Vec<u8>,
    max_size: usize,
}

/// Text that is a token, or may hold one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Masked(pub String);

/// Why the first message will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectError {
    /// It is not text.
    NotText,
    /// Order of frames, or size.
    Message(MessageError),
}

impl fmt::Debug for Masked {
    /// Shows the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** ({} bytes)", self.0.len())
    }
}

impl From<&str> for Masked {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Collector {
    /// Without what was collected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("message", &self.message)
            .field("collected", &self.payload.len())
            .field("max_size", &self.max_size)
            .finish()
    }
}

impl Collector {
    /// Waits for a message of at most `max_size` bytes.
    pub fn new(max_size: usize) -> Self {
        Self {
            message: Message::default(),
            payload: Vec::new(),
            max_size,
        }
    }

    /// Judges the header of a data frame. Nothing is reserved for what it declares.
    ///
    /// # Errors
    ///
    /// The message is binary, too big, or its frames are out of order.
    pub fn handle_header(&mut self, header: &Header) -> Result<(), CollectError> {
        if header.opcode == OpCode::Binary {
            return Err(CollectError::NotText);
        }
        let max = MaxSizes {
            frame: self.max_size as u64,
            message: self.max_size as u64,
        };
        match self.message.handle_header(header, max) {
            Ok((Kind::Text, _)) => Ok(()),
            Ok((Kind::Binary, _)) => Err(CollectError::NotText),
            Err(error) => Err(CollectError::Message(error)),
        }
    }

    /// Takes the part of a frame's payload that starts at `position` in it.
    pub fn push(&mut self, masked: &[u8], key: [u8; 4], position: u64) {
        let start = self.payload.len();
        self.payload.extend_from_slice(masked);
        apply_mask(
            self.payload.get_mut(start..).unwrap_or_default(),
            key,
            position,
        );
    }

    /// The whole message, unmasked. Not yet checked to be UTF-8.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::frame::Fin;

    fn header(opcode: OpCode, fin: Fin, len: u64) -> Header {
        Header {
            fin,
            opcode,
            mask: Some([0; 4]),
            len,
        }
    }

    #[test]
    fn nothing_printable_shows_a_token() {
        let token = "eyJhbGciOiJIUzI1NiJ9";
        let mut collector = Collector::new(100);
        collector.push(token.as_bytes(), [0; 4], 0);
        let shown = format!("{:?} {:?}", Masked::from(token), collector);
        assert!(!shown.contains("eyJ") && !shown.contains("101"), "{shown}");
    }

    #[test]
    fn fragments_are_joined_and_unmasked() {
        let mut collector = Collector::new(10);
        let key = [1, 2, 3, 4];
        for (opcode, fin, text) in [
            (OpCode::Text, Fin::More, b"tok"),
            (OpCode::Continuation, Fin::Final, b"en!"),
        ] {
            assert_eq!(collector.handle_header(&header(opcode, fin, 3)), Ok(()));
            let mut masked = *text;
            apply_mask(&mut masked, key, 0);
            collector.push(&masked[..2], key, 0);
            collector.push(&masked[2..], key, 2);
        }
        assert_eq!(collector.take(), b"token!");
    }

    #[test]
    fn one_byte_over_the_size_is_refused_by_the_header() {
        let over = Collector::new(10).handle_header(&header(OpCode::Text, Fin::Final, 11));
        assert_eq!(over, Err(CollectError::Message(MessageError::FrameTooBig)));
        let mut collector = Collector::new(10);
        assert_eq!(
            collector.handle_header(&header(OpCode::Text, Fin::More, 6)),
            Ok(())
        );
        assert_eq!(
            collector.handle_header(&header(OpCode::Continuation, Fin::Final, 5)),
            Err(CollectError::Message(MessageError::MessageTooBig))
        );
    }

    #[test]
    fn a_binary_message_is_refused() {
        assert_eq!(
            Collector::new(10).handle_header(&header(OpCode::Binary, Fin::Final, 1)),
            Err(CollectError::NotText)
        );
    }
}
