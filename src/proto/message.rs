//! The order of fragments (RFC 6455 §5.4) and the size of the whole message.
//!
//! Sees data-frame headers only; control frames may stand between fragments.

use crate::proto::cause::Misbehaviour;
use crate::proto::frame::{Fin, Header, OpCode};

/// What kind of message is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// Where a data frame stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It starts a message.
    First,
    /// It continues one.
    Later,
}

/// What is wrong with a data frame's header at this point of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The order of frames.
    Misbehaved(Misbehaviour),
    /// The frame's payload is above its limit.
    FrameTooBig,
    /// The message's payload so far, with this frame's, is above its limit.
    MessageTooBig,
}

/// The sizes one direction may reach, in bytes of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxSizes {
    /// Of a frame.
    pub frame: u64,
    /// Of a message.
    pub message: u64,
}

/// The message that is open in one direction.
#[derive(Debug, Default)]
pub struct Message {
    open: Option<Kind>,
    /// Payload of its fragments so far.
    size: u64,
}

impl Message {
    /// Whether the next data frame must continue a message.
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Judges the header of a data frame, and remembers it.
    ///
    /// # Errors
    ///
    /// A continuation without a message, a new message inside another, or a size above
    /// `max`, all before a byte of the payload is looked at.
    pub fn handle_header(
        &mut self,
        header: &Header,
        max: MaxSizes,
    ) -> Result<(Kind, Place), MessageError> {
        let (kind, place, before) = match (header.opcode, self.open) {
            (OpCode::Continuation, Some(kind)) => (kind, Place::Later, self.size),
            (OpCode::Continuation, None) => {
                return Err(MessageError::Misbehaved(
                    Misbehaviour::ContinuationWithoutMessage,
                ));
            }
            (_, Some(_)) => {
                return Err(MessageError::Misbehaved(Misbehaviour::MessageInterrupted));
            }
            (OpCode::Text, None) => (Kind::Text, Place::First, 0),
            (_, None) => (Kind::Binary, Place::First, 0),
        };
        if header.len > max.frame {
            return Err(MessageError::FrameTooBig);
        }
        // Fragments of up to 2⁶³ bytes each: the sum must not wrap.
        let size = before.saturating_add(header.len);
        if size > max.message {
            return Err(MessageError::MessageTooBig);
        }
        self.size = size;
        self.open = match header.fin {
            Fin::More => Some(kind),
            Fin::Final => None,
        };
        Ok((kind, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: MaxSizes = MaxSizes {
        frame: 10,
        message: 25,
    };

    fn header(opcode: OpCode, fin: Fin, len: u64) -> Header {
        Header {
            fin,
            opcode,
            mask: None,
            len,
        }
    }

    #[test]
    fn fragments_continue_the_message_that_is_open() {
        let mut message = Message::default();
        let mut see = |opcode, fin| message.handle_header(&header(opcode, fin, 1), MAX);
        assert_eq!(see(OpCode::Text, Fin::More), Ok((Kind::Text, Place::First)));
        assert_eq!(
            see(OpCode::Continuation, Fin::More),
            Ok((Kind::Text, Place::Later))
        );
        assert_eq!(
            see(OpCode::Continuation, Fin::Final),
            Ok((Kind::Text, Place::Later))
        );
        assert_eq!(
            see(OpCode::Binary, Fin::Final),
            Ok((Kind::Binary, Place::First))
        );
    }

    #[test]
    fn a_continuation_without_a_message_is_misbehaviour() {
        let verdict =
            Message::default().handle_header(&header(OpCode::Continuation, Fin::Final, 0), MAX);
        assert_eq!(
            verdict,
            Err(MessageError::Misbehaved(
                Misbehaviour::ContinuationWithoutMessage
            ))
        );
    }

    #[test]
    fn a_message_inside_another_is_misbehaviour() {
        for second in [OpCode::Text, OpCode::Binary] {
            let mut message = Message::default();
            let first = message.handle_header(&header(OpCode::Text, Fin::More, 0), MAX);
            assert!(first.is_ok());
            assert_eq!(
                message.handle_header(&header(second, Fin::Final, 0), MAX),
                Err(MessageError::Misbehaved(Misbehaviour::MessageInterrupted))
            );
        }
    }

    #[test]
    fn one_byte_over_the_frame_limit_is_too_big() {
        let mut message = Message::default();
        assert!(
            message
                .handle_header(&header(OpCode::Binary, Fin::Final, 10), MAX)
                .is_ok()
        );
        assert_eq!(
            message.handle_header(&header(OpCode::Binary, Fin::Final, 11), MAX),
            Err(MessageError::FrameTooBig)
        );
    }

    #[test]
    fn one_byte_over_the_message_limit_is_too_big_and_nothing_wraps() {
        let mut message = Message::default();
        for opcode in [OpCode::Binary, OpCode::Continuation] {
            assert!(
                message
                    .handle_header(&header(opcode, Fin::More, 10), MAX)
                    .is_ok()
            );
        }
        assert_eq!(
            message.handle_header(&header(OpCode::Continuation, Fin::Final, 6), MAX),
            Err(MessageError::MessageTooBig)
        );
        let boundless = MaxSizes {
            frame: u64::MAX,
            message: u64::MAX - 1,
        };
        let mut message = Message::default();
        let huge = i64::MAX as u64;
        for opcode in [OpCode::Binary, OpCode::Continuation] {
            assert!(
                message
                    .handle_header(&header(opcode, Fin::More, huge), boundless)
                    .is_ok()
            );
        }
        assert_eq!(
            message.handle_header(&header(OpCode::Continuation, Fin::More, huge), boundless),
            Err(MessageError::MessageTooBig)
        );
    }
}
