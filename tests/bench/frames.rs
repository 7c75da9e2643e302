//! WebSocket frames (RFC 6455 §5.2) as the load and the echo need them.
//!
//! Owns the layout of a frame head and the masking. It is written for speed and for peers of our
//! own: nothing here judges, and the proxy's own code is deliberately not used, so that a fault
//! there cannot hide behind the same fault here.

/// First byte of a whole text message: FIN and opcode 1.
pub const TEXT: u8 = 0x81;
/// First byte of a Close frame.
pub const CLOSE: u8 = 0x88;
/// First byte of a Ping frame.
pub const PING: u8 = 0x89;
/// First byte of a Pong frame.
pub const PONG: u8 = 0x8A;

/// The key of every frame the load sends. RFC 6455 §5.3 asks for an unpredictable one, which
/// matters to browsers and not to a bench: with a constant, a frame is masked once and sent often.
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// One decoded frame head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// FIN, reserved bits and opcode, as on the wire.
    pub first: u8,
    /// The masking key, when the frame has one.
    pub key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
    /// Bytes of the head itself, 2 to 14.
    pub size: usize,
}

impl Head {
    /// Decodes the head at the start of `bytes`; `None` while it is incomplete.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (length, mut size) = match second & 0x7F {
            126 => (u16::from_be_bytes(*bytes[2..].first_chunk()?).into(), 4),
            127 => (u64::from_be_bytes(*bytes[2..].first_chunk()?), 10),
            short => (short.into(), 2),
        };
        let mut key = None;
        if second & 0x80 != 0 {
            key = Some(*bytes[size..].first_chunk()?);
            size += 4;
        }
        Some(Self {
            first,
            key,
            length,
            size,
        })
    }
}

/// A client's frame, whole and masked.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(KEY);
    let start = frame.len();
    frame.extend(payload);
    mask(&mut frame[start..], KEY, 0);
    frame
}

/// Masks or unmasks `bytes`, which begin `offset` bytes into the payload (§5.3).
pub fn mask(bytes: &mut [u8], mut key: [u8; 4], offset: u64) {
    key.rotate_left((offset % 4) as usize);
    let mut words = bytes.chunks_exact_mut(4);
    let key_word = u32::from_ne_bytes(key);
    for word in &mut words {
        let four: &mut [u8; 4] = word.try_into().expect("the chunks are four bytes");
        *four = (u32::from_ne_bytes(*four) ^ key_word).to_ne_bytes();
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}
