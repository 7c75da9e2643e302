//! The reading half of one leg: what is done with its frames, and the frame under way.

use std::time::{Duration, Instant};

use crate::proto::frame::{Fin, Header};
use crate::proto::message::{Kind, Message, Place};
use crate::proto::utf8::Utf8;

/// What is done with the frames of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The first message is collected; control frames are answered.
    Token,
    /// Nothing is read: the token is being verified, or the upstream dialled.
    Hold,
    /// Frames are judged and admitted to the other leg.
    Relay,
    /// The session is closing, but the other leg has a part of this frame: it goes through
    /// to its end, then [`Mode::Watch`].
    Finish,
    /// The session is closing in good order, and the other leg has a part of this message: it
    /// goes through to its end, then [`Mode::Watch`]. The other leg gets its Close after that.
    FinishMessage,
    /// The session is closing: frames are parsed for the peer's Close and thrown away.
    Watch,
    /// Nothing that comes means anything any more.
    Discard,
}

/// What happens to the frame under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its header is good; quotas have not been asked.
    Undecided,
    /// It may be a heartbeat: decided when it is there whole.
    Compare,
    /// It goes through.
    Admit,
    /// It is collected, and goes through when its whole message is found good.
    Inspect,
    /// It is taken out of the stream.
    Drop,
}

/// The data frame under way.
#[derive(Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Where it stands in its message.
    pub place: Place,
    /// Of what kind that is.
    pub kind: Kind,
    /// What happens to it.
    pub fate: Fate,
    /// Header bytes not yet admitted.
    pub header_left: usize,
    /// Payload bytes not yet admitted.
    pub payload_left: u64,
}

impl Frame {
    /// Bytes on the wire not yet admitted.
    pub const fn left(&self) -> u64 {
        self.header_left as u64 + self.payload_left
    }

    /// Whether it is the last of its message.
    pub fn is_final(&self) -> bool {
        self.header.fin == Fin::Final
    }

    /// Notes that `n` more bytes of it were judged; how many of them are header.
    pub fn handle_judged(&mut self, n: usize) -> usize {
        let header = n.min(self.header_left);
        self.header_left -= header;
        self.payload_left -= (n - header) as u64;
        header
    }
}

/// What came from one leg and went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Whole data messages.
    pub messages: u64,
    /// Bytes on the wire, headers and control frames included.
    pub bytes: u64,
    /// Whole data messages taken out by a policy.
    pub dropped: u64,
    /// Time the leg was not read because of a quota.
    pub throttled: Duration,
}

/// Since when, and until when, a quota keeps a leg unread.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    /// When it began.
    pub since: Instant,
    /// When the quota allows more.
    pub until: Instant,
}

/// The state of one leg's input.
#[derive(Debug)]
pub struct Input {
    /// What is done with its frames.
    pub mode: Mode,
    /// The data frame under way.
    pub frame: Option<Frame>,
    /// The message under way.
    pub message: Message,
    /// Its text so far.
    pub utf8: Utf8,
    /// Whether a policy takes the message under way out.
    pub dropping: bool,
    /// Whether a quota keeps it unread.
    pub throttle: Option<Throttle>,
    /// Counts for the record.
    pub tally: Tally,
}

impl Input {
    /// Nothing read yet.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            frame: None,
            message: Message::default(),
            utf8: Utf8::default(),
            dropping: false,
            throttle: None,
            tally: Tally::default(),
        }
    }

    /// Stops reading until the quota allows more.
    pub fn throttle(&mut self, until: Instant, now: Instant) {
        self.throttle = Some(Throttle { since: now, until });
    }

    /// Reads again.
    pub fn unthrottle(&mut self, now: Instant) {
        if let Some(throttle) = self.throttle.take() {
            self.tally.throttled += now.saturating_duration_since(throttle.since);
        }
    }
}
