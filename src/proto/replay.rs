//! What the upstream has got of the client's stream, so that another can take its place:
//! where in its frames and messages the stream stands there, and a copy of the first messages.
//!
//! Follows bytes that were judged before: it finds boundaries, and forbids nothing. Only
//! sessions that outlive their upstream leg have one.

use std::fmt;

use crate::proto::frame::{Fin, Header};
use crate::proto::pipe::Ends;
use crate::proto::side::Side;

/// Follows the client's stream into the upstream leg.
#[derive(Debug, Default)]
pub struct Replay {
    /// Bytes in front of the stream that are said to each leg anew, and not yet sent.
    preamble_left: usize,
    /// Payload of the frame under way that was not yet sent.
    left: u64,
    /// The beginning of a frame header.
    header: [u8; LARGEST_HEADER],
    header_len: usize,
    is_control: bool,
    is_final: bool,
    /// Whether the next data frame continues a message.
    is_open: bool,
    copied: Copied,
}

/// The first messages, as far as they were sent. Control frames are left out.
#[derive(Default)]
struct Copied {
    bytes: Vec<u8>,
    /// The last end of a frame in them.
    whole: usize,
    /// Messages not yet copied to their end.
    messages_left: u32,
    max: usize,
    overflowed: bool,
}

/// What of the bytes that wait for an upstream no other can make sense of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The first so many.
    pub waiting: usize,
    /// Whether the message they belong to goes on in what was not admitted yet.
    pub goes_on: bool,
    /// Where what is left begins.
    pub behind: Ends,
}

impl Replay {
    /// Keeps the first `messages`, if all of them have at most `max` bytes with their headers.
    pub fn new(messages: u32, max: usize) -> Self {
        let copied = Copied {
            messages_left: messages,
            max,
            ..Copied::default()
        };
        Self {
            copied,
            ..Self::default()
        }
    }

    /// Whether all that has to be said again is still known.
    pub const fn is_complete(&self) -> bool {
        !self.copied.overflowed
    }

    /// Whether a control frame can be put behind what the upstream has got.
    pub const fn is_at_boundary(&self) -> bool {
        self.preamble_left == 0 && self.left == 0 && self.header_len == 0
    }

    /// Memory for the copy.
    pub const fn owned(&self) -> usize {
        self.copied.bytes.capacity()
    }

    /// `frames` were put before the stream: they are said to each leg anew, and are not its own.
    pub const fn handle_preamble(&mut self, frames: usize) {
        self.preamble_left = frames;
    }

    /// The upstream took these.
    pub fn handle_sent(&mut self, bytes: &[u8]) {
        let preamble = self.preamble_left.min(bytes.len());
        self.preamble_left -= preamble;
        let mut bytes = bytes.get(preamble..).unwrap_or_default();
        while !bytes.is_empty() {
            let n = self.step(bytes);
            bytes = bytes.get(n..).unwrap_or_default();
        }
    }

    /// The upstream is gone, and `waiting` is what it did not take. What it got a part of is
    /// lost, unless the whole of it will be said again.
    pub fn handle_lost(&mut self, waiting: &[u8]) -> Rest {
        if self.preamble_left > 0 {
            let preamble = std::mem::take(&mut self.preamble_left);
            return self.rest(preamble.min(waiting.len()), false);
        }
        let mut n = 0;
        let mut skip_while = |replay: &mut Self, lasts: fn(&Self) -> bool| {
            while lasts(replay)
                && let Some(bytes @ [_, ..]) = waiting.get(n..)
            {
                n += replay.step(bytes);
            }
            n
        };
        let control = skip_while(self, |replay| replay.is_control && replay.is_in_frame());
        if self.copied.messages_left > 0 {
            return self.rest(control, false);
        }
        let message = skip_while(self, Self::is_in_message);
        let goes_on = self.is_in_message();
        self.left = 0;
        self.header_len = 0;
        self.is_open = false;
        self.rest(message, goes_on)
    }

    /// What the next upstream has to hear before all that waits: `first`, then the copy. With
    /// the last end of a frame in it.
    pub fn begin_again(&mut self, first: Vec<u8>) -> (Vec<u8>, usize) {
        let whole = first.len() + self.copied.whole;
        let mut preamble = first;
        preamble.extend_from_slice(&self.copied.bytes);
        self.preamble_left = preamble.len();
        (preamble, whole)
    }

    const fn rest(&self, waiting: usize, goes_on: bool) -> Rest {
        let behind = if self.is_in_frame() {
            Ends::Inside
        } else {
            Ends::Frame
        };
        Rest {
            waiting,
            goes_on,
            behind,
        }
    }

    const fn is_in_frame(&self) -> bool {
        self.left > 0 || self.header_len > 0
    }

    const fn is_in_message(&self) -> bool {
        self.is_in_frame() || self.is_open
    }

    /// Follows at most to the end of the header or of the frame; how many bytes that is.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let n = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            self.copy(bytes.get(..n).unwrap_or_default());
            self.left -= n as u64;
            self.end_frame_if_done();
            return n;
        }
        let before = self.header_len;
        let known = (before + bytes.len()).min(LARGEST_HEADER);
        if let Some(place) = self.header.get_mut(before..known) {
            place.copy_from_slice(bytes.get(..known - before).unwrap_or_default());
        }
        let header = self.header.get(..known).unwrap_or_default();
        match Header::decode(header, Side::Downstream) {
            Ok(Some((header, len))) => {
                self.header_len = 0;
                self.is_control = header.opcode.is_control();
                self.is_final = header.fin == Fin::Final;
                self.left = header.len;
                let n = len - before;
                self.copy(bytes.get(..n).unwrap_or_default());
                self.end_frame_if_done();
                n
            }
            Ok(None) => {
                self.header_len = known;
                self.is_control = header.first().is_some_and(|first| first & 0x08 != 0);
                self.copy(bytes.get(..known - before).unwrap_or_default());
                known - before
            }
            // Only judged frames come here. Should one not be, nothing is said again.
            Err(_) => {
                self.copied.overflow();
                bytes.len()
            }
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        if !self.is_control && self.copied.messages_left > 0 {
            self.copied.extend(bytes);
        }
    }

    fn end_frame_if_done(&mut self) {
        if self.left > 0 {
            return;
        }
        if !self.is_control {
            self.is_open = !self.is_final;
            if self.copied.messages_left > 0 {
                self.copied.whole = self.copied.bytes.len();
                self.copied.messages_left -= u32::from(self.is_final);
            }
        }
        self.is_control = false;
    }
}

impl Copied {
    fn extend(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > self.max {
            return self.overflow();
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn overflow(&mut self) {
        *self = Self {
            overflowed: true,
            ..Self::default()
        };
    }
}

impl fmt::Debug for Copied {
    /// Without the messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copied")
            .field("bytes", &self.bytes.len())
            .field("messages_left", &self.messages_left)
            .field("overflowed", &self.overflowed)
            .finish_non_exhaustive()
    }
}

/// Bytes of the largest frame header from a client (RFC 6455 §5.2): 2, 8 of length, 4 of mask.
const LARGEST_HEADER: usize = 14;

#[cfg(test)]
mod tests;
