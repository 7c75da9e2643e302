//! One frame header (RFC 6455 §5.2): decode, encode, and the masking of payloads (§5.3).
//!
//! Knows nothing of the frames before it: the order of fragments is `message`'s, sizes
//! are `limits`'.

use crate::proto::cause::Misbehaviour;
use crate::proto::side::Side;

/// The longest header: two bytes, a 64-bit length, a masking key.
pub const MAX_HEADER_LEN: usize = 14;

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// What a frame carries (RFC 6455 §5.2, "Opcode").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCode {
    /// A further fragment of the message that is open.
    Continuation,
    /// The first or only fragment of a UTF-8 message.
    Text,
    /// The first or only fragment of a binary message.
    Binary,
    /// The start or the answer of the closing handshake.
    Close,
    /// A question that a pong answers.
    Ping,
    /// The answer to a ping, or unsolicited.
    Pong,
}

impl OpCode {
    /// Whether the frame is a control frame: unfragmented, at most 125 bytes.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn decode(bits: u8) -> Result<Self, Misbehaviour> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            reserved => return Err(Misbehaviour::ReservedOpcode(reserved)),
        })
    }

    const fn encode(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// Whether a frame ends its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fin {
    /// More fragments follow.
    More,
    /// The last fragment.
    Final,
}

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the frame ends its message.
    pub fin: Fin,
    /// What it carries.
    pub opcode: OpCode,
    /// The masking key; present exactly on frames from a client.
    pub mask: Option<[u8; 4]>,
    /// Payload length in bytes, below 2⁶³.
    pub len: u64,
}

impl Header {
    /// Decodes the header at the front of `bytes`, sent by the peer on `from`.
    ///
    /// `Ok(None)`: more bytes are needed. Otherwise the header and its length on the wire.
    ///
    /// # Errors
    ///
    /// Each rule is checked as soon as the byte it reads is there, in wire order, so that
    /// the verdict does not depend on how the bytes were cut.
    pub fn decode(bytes: &[u8], from: Side) -> Result<Option<(Self, usize)>, Misbehaviour> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        // RSV1-3 belong to extensions (§9), and the edge negotiates none.
        if first & 0x70 != 0 {
            return Err(Misbehaviour::ReservedBits);
        }
        let opcode = OpCode::decode(first & 0x0F)?;
        let fin = if first & 0x80 != 0 {
            Fin::Final
        } else {
            Fin::More
        };
        if opcode.is_control() && fin == Fin::More {
            return Err(Misbehaviour::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        match (from, second & 0x80 != 0) {
            (Side::Downstream, false) => return Err(Misbehaviour::UnmaskedFromClient),
            (Side::Upstream, true) => return Err(Misbehaviour::MaskedFromServer),
            (Side::Downstream, true) | (Side::Upstream, false) => {}
        }
        let short = second & 0x7F;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL_PAYLOAD {
            return Err(Misbehaviour::ControlTooLong);
        }
        let Some((len, at)) = decode_len(bytes, short)? else {
            return Ok(None);
        };
        let (mask, at) = match from {
            Side::Upstream => (None, at),
            Side::Downstream => match array_at(bytes, at) {
                Some(key) => (Some(key), at + 4),
                None => return Ok(None),
            },
        };
        Ok(Some((
            Self {
                fin,
                opcode,
                mask,
                len,
            },
            at,
        )))
    }

    /// Writes the header to the end of `out`, in the shortest form (§5.2).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let fin = match self.fin {
            Fin::Final => 0x80,
            Fin::More => 0,
        };
        out.push(fin | self.opcode.encode());
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        if let Ok(len @ 0..=125) = u8::try_from(self.len) {
            out.push(masked | len);
        } else if let Ok(len) = u16::try_from(self.len) {
            out.push(masked | 126);
            out.extend_from_slice(&len.to_be_bytes());
        } else {
            out.push(masked | 127);
            out.extend_from_slice(&self.len.to_be_bytes());
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// A whole frame: header and payload, masked when a key is given.
pub fn encode_frame(opcode: OpCode, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MAX_HEADER_LEN + payload.len());
    let header = Header {
        fin: Fin::Final,
        opcode,
        mask,
        len: payload.len() as u64,
    };
    header.encode(&mut frame);
    let start = frame.len();
    frame.extend_from_slice(payload);
    if let (Some(key), Some(payload)) = (mask, frame.get_mut(start..)) {
        apply_mask(payload, key, 0);
    }
    frame
}

/// Masks or unmasks `bytes`, the part of a payload that starts at offset `position`.
///
/// Eight bytes at a time in plain safe code: faster than any network the bytes come from.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4], position: u64) {
    let [a, b, c, d] = key;
    let key = match position % 4 {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The payload length and the offset behind it, from the seven-bit field on.
fn decode_len(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, Misbehaviour> {
    let (len, at, shorter_form_ends) = match short {
        126 => match array_at(bytes, 2) {
            Some(len) => (u64::from(u16::from_be_bytes(len)), 4, 125),
            None => return Ok(None),
        },
        127 => match array_at(bytes, 2) {
            Some(len) => (u64::from_be_bytes(len), 10, u64::from(u16::MAX)),
            None => return Ok(None),
        },
        len => return Ok(Some((u64::from(len), 2))),
    };
    if len > i64::MAX as u64 {
        return Err(Misbehaviour::LengthOverflow);
    }
    if len <= shorter_form_ends {
        return Err(Misbehaviour::NonMinimalLength);
    }
    Ok(Some((len, at)))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8], from: Side) -> Result<Option<(Header, usize)>, Misbehaviour> {
        Header::decode(bytes, from)
    }

    #[test]
    fn headers_that_break_a_rule_are_refused() {
        use Misbehaviour as M;
        let cases: &[(&[u8], Side, M)] = &[
            (&[0xC1], Side::Downstream, M::ReservedBits),
            (&[0xA1], Side::Downstream, M::ReservedBits),
            (&[0x91], Side::Upstream, M::ReservedBits),
            (&[0x83], Side::Downstream, M::ReservedOpcode(3)),
            (&[0x8B], Side::Upstream, M::ReservedOpcode(0xB)),
            (&[0x8F], Side::Upstream, M::ReservedOpcode(0xF)),
            (&[0x09], Side::Downstream, M::FragmentedControl),
            (&[0x08], Side::Upstream, M::FragmentedControl),
            (&[0x81, 0x05], Side::Downstream, M::UnmaskedFromClient),
            (&[0x81, 0x85], Side::Upstream, M::MaskedFromServer),
            (&[0x89, 0xFE], Side::Downstream, M::ControlTooLong),
            (&[0x8A, 0x7F], Side::Upstream, M::ControlTooLong),
            (&[0x82, 126, 0, 125], Side::Upstream, M::NonMinimalLength),
            (
                &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
                Side::Upstream,
                M::NonMinimalLength,
            ),
            (
                &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
                Side::Upstream,
                M::LengthOverflow,
            ),
        ];
        assert!(!cases.is_empty());
        for (bytes, from, expected) in cases {
            assert_eq!(decode(bytes, *from), Err(*expected), "{bytes:02X?}");
        }
    }

    #[test]
    fn the_shortest_and_longest_lengths_of_each_form_are_read() {
        for len in [
            0,
            1,
            125,
            126,
            127,
            0xFFFF,
            0x1_0000,
            u64::from(u32::MAX),
            i64::MAX as u64,
        ] {
            let header = Header {
                fin: Fin::Final,
                opcode: OpCode::Binary,
                mask: None,
                len,
            };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            assert_eq!(
                decode(&bytes, Side::Upstream),
                Ok(Some((header, bytes.len())))
            );
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_masked_and_unmasked() {
        // RFC 6455 §5.7: a single-frame masked text message, "Hello".
        let frame = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let key = [0x37, 0xfa, 0x21, 0x3d];
        assert_eq!(encode_frame(OpCode::Text, Some(key), b"Hello"), frame);
        let (header, at) = decode(&frame, Side::Downstream).unwrap().unwrap();
        let mut payload = frame[at..].to_vec();
        apply_mask(&mut payload, header.mask.unwrap(), 0);
        assert_eq!(payload, b"Hello");
    }

    fn any_header() -> impl Strategy<Value = (Header, Side)> {
        let data = (
            prop_oneof![Just(Fin::More), Just(Fin::Final)],
            prop_oneof![
                Just(OpCode::Continuation),
                Just(OpCode::Text),
                Just(OpCode::Binary)
            ],
            prop_oneof![0..200u64, 60_000..70_000u64, 0..=(i64::MAX as u64)],
        );
        let control = (
            Just(Fin::Final),
            prop_oneof![Just(OpCode::Close), Just(OpCode::Ping), Just(OpCode::Pong)],
            0..=125u64,
        );
        (prop_oneof![data, control], any::<Option<[u8; 4]>>()).prop_map(
            |((fin, opcode, len), mask)| {
                let from = if mask.is_some() {
                    Side::Downstream
                } else {
                    Side::Upstream
                };
                let header = Header {
                    fin,
                    opcode,
                    mask,
                    len,
                };
                (header, from)
            },
        )
    }

    proptest! {
        #[test]
        fn every_legal_header_survives_encode_and_decode((header, from) in any_header()) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            prop_assert!(bytes.len() <= MAX_HEADER_LEN);
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut], from), Ok(None));
            }
            prop_assert_eq!(decode(&bytes, from), Ok(Some((header, bytes.len()))));
        }

        #[test]
        fn a_verdict_does_not_depend_on_the_cut(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            for from in [Side::Downstream, Side::Upstream] {
                let whole = decode(&bytes, from);
                for cut in 0..bytes.len() {
                    let part = decode(&bytes[..cut], from);
                    prop_assert!(part == Ok(None) || part == whole);
                }
            }
        }

        #[test]
        fn masking_in_pieces_is_masking_as_a_whole(
            payload in prop::collection::vec(any::<u8>(), 0..100),
            key in any::<[u8; 4]>(),
            cut in 0..100usize,
        ) {
            let cut = cut.min(payload.len());
            let mut whole = payload.clone();
            apply_mask(&mut whole, key, 0);
            let mut pieces = payload.clone();
            let (head, tail) = pieces.split_at_mut(cut);
            apply_mask(head, key, 0);
            apply_mask(tail, key, cut as u64);
            prop_assert_eq!(&whole, &pieces);
            apply_mask(&mut whole, key, 0);
            prop_assert_eq!(whole, payload);
        }
    }
}
