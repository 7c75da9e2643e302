//! Frames and noise as a peer may send them.

use arbitrary::Arbitrary;
use tidegate::proto::close;
use tidegate::proto::close::CloseCode;
use tidegate::proto::frame::{Fin, Header, OpCode, apply_mask};
use tidegate::proto::side::Side;

/// What a peer sends in one go.
#[derive(Arbitrary, Clone, Debug)]
pub enum Piece {
    /// A frame that is well-formed by itself.
    Frame {
        /// Text, binary, continuation, ping or pong.
        opcode: Opcode,
        /// Whether it ends its message; control frames always do.
        more: bool,
        /// What it carries.
        payload: Payload,
    },
    /// A Close, legal or not.
    Close {
        /// The code, if any.
        code: Option<u16>,
        /// What stands behind it.
        reason: Vec<u8>,
    },
    /// A header that promises this many bytes, and none of them.
    Promise {
        /// Its payload length.
        len: u64,
    },
    /// Anything.
    Noise(Vec<u8>),
}

/// The opcodes but Close.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Opcode {
    /// See the RFC.
    Text,
    /// See the RFC.
    Binary,
    /// See the RFC.
    Continuation,
    /// See the RFC.
    Ping,
    /// See the RFC.
    Pong,
}

/// The payload of a frame.
#[derive(Arbitrary, Clone, Debug)]
pub enum Payload {
    /// Nothing.
    Empty,
    /// So many letters, modulo what keeps a run short.
    Letters(u16),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// The most letters in one payload.
const MOST_LETTERS: u16 = 6_000;

impl Piece {
    /// The bytes on the wire, when the peer on `from` sends them.
    pub fn encode(&self, from: Side) -> Vec<u8> {
        match self {
            Self::Frame {
                opcode,
                more,
                payload,
            } => {
                let opcode = opcode.get();
                let mut payload = payload.bytes();
                let fin = if *more && !opcode.is_control() {
                    Fin::More
                } else {
                    Fin::Final
                };
                if opcode.is_control() {
                    payload.truncate(125);
                }
                frame(from, fin, opcode, &payload)
            }
            Self::Close { code, reason } => {
                let mut payload = match code.map(CloseCode::from_wire) {
                    None => Vec::new(),
                    Some(Some(code)) => close::payload(code, ""),
                    Some(None) => code.unwrap_or_default().to_be_bytes().to_vec(),
                };
                payload.extend(reason.iter().take(123));
                frame(from, Fin::Final, OpCode::Close, &payload)
            }
            Self::Promise { len } => {
                let header = Header {
                    fin: Fin::Final,
                    opcode: OpCode::Binary,
                    mask: mask(from),
                    len: len & (i64::MAX as u64),
                };
                let mut bytes = Vec::new();
                header.encode(&mut bytes);
                bytes
            }
            Self::Noise(bytes) => bytes.clone(),
        }
    }
}

impl Opcode {
    fn get(self) -> OpCode {
        match self {
            Self::Text => OpCode::Text,
            Self::Binary => OpCode::Binary,
            Self::Continuation => OpCode::Continuation,
            Self::Ping => OpCode::Ping,
            Self::Pong => OpCode::Pong,
        }
    }
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Letters(n) => vec![b'a'; usize::from(n % MOST_LETTERS)],
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// One frame as the peer on `from` sends it.
pub fn frame(from: Side, fin: Fin, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mask = mask(from);
    let header = Header {
        fin,
        opcode,
        mask,
        len: payload.len() as u64,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    apply_mask(&mut bytes[start..], mask.unwrap_or_default(), 0);
    bytes
}

fn mask(from: Side) -> Option<[u8; 4]> {
    match from {
        Side::Downstream => Some([0x37, 0xfa, 0x21, 0x3d]),
        Side::Upstream => None,
    }
}
