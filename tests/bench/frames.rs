//! WebSocket frames (RFC 6455 §5.2) as the load and the echo need them.
//!
//! Owns the layout of a frame head, the masking, and the frames a client receives. It is written
//! for speed and for peers of our own: nothing here judges, and the proxy's own code is
//! deliberately not used, so that a fault there cannot hide behind the same fault here.

use std::io;

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

/// A server's frame, whole and unmasked.
pub fn bare(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = masked(first, payload);
    let head = frame.len() - payload.len();
    frame.drain(head - KEY.len()..);
    frame[1] &= 0x7F;
    frame.extend(payload);
    frame
}

/// Text as chats have it, `size` bytes of it: mostly ASCII, some of it not, so that a UTF-8 check
/// has work to do.
pub fn text(size: usize) -> Vec<u8> {
    let pattern = r#"{"from":"alice","text":"Grüße aus Łódź → see you at 8"}"#;
    let mut text = String::with_capacity(size);
    for letter in pattern.chars().cycle() {
        if text.len() + letter.len_utf8() > size {
            break;
        }
        text.push(letter);
    }
    while text.len() < size {
        text.push(' ');
    }
    text.into_bytes()
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

/// The frames of a server, taken in any slicing.
#[derive(Default)]
pub struct Incoming {
    /// An unfinished head.
    head: Vec<u8>,
    /// First byte of the current frame.
    first: u8,
    /// Payload bytes of it that came and that are to come.
    past: usize,
    left: usize,
    /// Payload of the current ping.
    ping: Vec<u8>,
    /// Whole data messages since somebody took the count.
    pub messages: usize,
    /// Masked answers to pings, to be sent at a boundary.
    pub pongs: Vec<u8>,
    /// Whether a Close frame came.
    pub is_closed: bool,
}

impl Incoming {
    /// `expected`: what every data message must say, to the byte.
    pub fn feed(&mut self, mut bytes: &[u8], expected: Option<&[u8]>) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 && !self.begin(&mut bytes) {
                return Ok(());
            }
            let (here, rest) = bytes.split_at(self.left.min(bytes.len()));
            bytes = rest;
            self.take(here, expected)?;
            if self.left == 0 {
                self.finish(expected)?;
            }
        }
        Ok(())
    }

    /// Takes a head; whether it is complete. Only a head split between reads is copied.
    fn begin(&mut self, bytes: &mut &[u8]) -> bool {
        let head = if self.head.is_empty() {
            Head::decode(bytes).inspect(|head| *bytes = &bytes[head.size..])
        } else {
            self.head.push(bytes[0]);
            *bytes = &bytes[1..];
            Head::decode(&self.head)
        };
        match head {
            Some(head) => {
                self.head.clear();
                self.first = head.first;
                self.past = 0;
                self.left = head.length as usize;
                true
            }
            None if bytes.is_empty() => false,
            None if self.head.is_empty() => {
                self.head.extend_from_slice(bytes);
                false
            }
            None => self.begin(bytes),
        }
    }

    fn take(&mut self, payload: &[u8], expected: Option<&[u8]>) -> io::Result<()> {
        if self.first == PING {
            self.ping.extend_from_slice(payload);
        } else if self.first == TEXT
            && let Some(expected) = expected
            && expected.get(self.past..self.past + payload.len()) != Some(payload)
        {
            return Err(io::Error::other("the echo differs from what was sent"));
        }
        self.past += payload.len();
        self.left -= payload.len();
        Ok(())
    }

    fn finish(&mut self, expected: Option<&[u8]>) -> io::Result<()> {
        match self.first {
            TEXT if expected.is_some_and(|expected| expected.len() != self.past) => {
                return Err(io::Error::other("the echo is shorter than what was sent"));
            }
            TEXT => self.messages += 1,
            PING => {
                let ping = std::mem::take(&mut self.ping);
                self.pongs.extend(masked(PONG, &ping));
            }
            PONG => {}
            CLOSE => self.is_closed = true,
            other => return Err(io::Error::other(format!("unexpected frame {other:#x}"))),
        }
        Ok(())
    }
}
