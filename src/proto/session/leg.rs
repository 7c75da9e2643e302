//! The writing half of one leg, as the session sees it: what is to be injected, whether
//! Close has gone out, whether the peer still takes bytes.

use std::time::Instant;

use crate::proto::close::CloseCode;
use crate::proto::pipe::Pipe;

/// How far the Close towards a leg has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseOut {
    /// There is none.
    None,
    /// It waits in the pipe or in the slot. Nothing may follow it.
    Queued,
    /// The leg took it.
    Taken,
    /// The leg's socket has it.
    Sent,
    /// It can never be sent: the leg is gone, or stands inside a frame that will not end.
    Impossible,
}

/// What the slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A ping of the edge's own.
    Ping,
    /// The answer to a ping that came before the upstream was there.
    Pong,
    /// The edge's Close.
    Close,
}

/// The one frame that waits to be injected at the next boundary.
#[derive(Debug)]
pub struct Slot {
    kind: SlotKind,
    frame: Vec<u8>,
    sent: usize,
    /// A Close that came while this frame was under way: the slot's next.
    close_next: Option<Vec<u8>>,
}

impl Slot {
    /// What is left of it.
    pub fn rest(&self) -> &[u8] {
        self.frame.get(self.sent..).unwrap_or_default()
    }

    /// Whether the leg has a part of it, so that it must be finished.
    pub const fn is_begun(&self) -> bool {
        self.sent > 0
    }
}

/// The state of one leg.
#[derive(Debug)]
pub struct Leg {
    /// Whether there is a connection at all.
    pub connected: bool,
    /// Whether its peer sent Close.
    pub closed: bool,
    /// Whether its peer will send nothing more.
    pub eof: bool,
    /// Whether nothing can be sent to it any more.
    pub gone: bool,
    /// Whether our writing half is shut down.
    pub shut: bool,
    /// Our Close to it.
    pub close: CloseOut,
    /// The code in that Close, for the record.
    pub close_code: Option<CloseCode>,
    /// Whether its socket took less than it was offered, last time.
    pub blocked: bool,
    /// When it is stalled, unless it takes something before.
    pub stall: Option<Instant>,
    /// When it is a slow consumer, unless it drains to the low watermark before.
    pub slow: Option<Instant>,
    /// At most one frame, boxed since most legs never have one.
    pub slot: Option<Box<Slot>>,
}

impl Leg {
    /// A leg with nothing sent either way.
    pub const fn new(connected: bool) -> Self {
        Self {
            connected,
            closed: false,
            eof: false,
            gone: false,
            shut: false,
            close: CloseOut::None,
            close_code: None,
            blocked: false,
            stall: None,
            slow: None,
            slot: None,
        }
    }

    /// A leg whose place another will take, and whose peer is still owed the answer to its
    /// Close.
    pub fn part(&mut self, close: Vec<u8>) {
        self.closed = true;
        self.close = CloseOut::Queued;
        self.slot = Some(Box::new(Slot {
            kind: SlotKind::Close,
            frame: close,
            sent: 0,
            close_next: None,
        }));
    }

    /// Whether the slot is next, and not the bytes of `pipe`.
    pub fn sends_slot(&self, pipe: &Pipe) -> bool {
        let next = |slot: &Slot| slot.is_begun() || !self.connected || pipe.is_sent_to_boundary();
        self.slot.as_deref().is_some_and(next)
    }

    /// Puts a frame into the slot. A newer pong or ping replaces an older one that has not
    /// begun, and Close replaces either: injections cannot grow memory.
    ///
    /// Refused while another frame is under way, and behind a Close.
    pub fn inject(&mut self, kind: SlotKind, frame: Vec<u8>) -> Injected {
        let follows_close = self.close != CloseOut::None;
        let begun = self.slot.as_ref().is_some_and(|slot| slot.is_begun());
        if follows_close || self.gone || !self.connected || (begun && kind != SlotKind::Close) {
            return Injected::No;
        }
        match &mut self.slot {
            Some(slot) if begun => slot.close_next = Some(frame),
            slot => {
                *slot = Some(Box::new(Slot {
                    kind,
                    frame,
                    sent: 0,
                    close_next: None,
                }));
            }
        }
        Injected::Yes
    }

    /// Takes the injected frame back, unless the leg has a part of it.
    pub fn withdraw(&mut self) {
        if self.slot.as_ref().is_some_and(|slot| !slot.is_begun()) {
            self.slot = None;
        }
    }

    /// The leg took `n` bytes of the slot. What it has whole now, if anything.
    pub fn handle_slot_sent(&mut self, n: usize) -> Option<SlotKind> {
        let slot = self.slot.as_mut()?;
        slot.sent += n;
        if !slot.rest().is_empty() {
            return None;
        }
        let kind = slot.kind;
        if kind == SlotKind::Close {
            self.close = CloseOut::Taken;
        }
        match slot.close_next.take() {
            Some(frame) => {
                slot.kind = SlotKind::Close;
                slot.frame = frame;
                slot.sent = 0;
            }
            None => self.slot = None,
        }
        Some(kind)
    }

    /// The peer can be told nothing more.
    pub fn handle_gone(&mut self) {
        self.eof = true;
        self.gone = true;
        self.slot = None;
        self.stall = None;
        self.slow = None;
        if self.close != CloseOut::Sent {
            self.close = CloseOut::Impossible;
        }
    }

    /// The code in the Close that got out, if one did.
    pub const fn sent_close_code(&self) -> Option<CloseCode> {
        match self.close {
            CloseOut::Sent => self.close_code,
            _ => None,
        }
    }

    /// Whether nothing is left to do on this leg.
    pub fn is_finished(&self) -> bool {
        !self.connected
            || self.gone
            || self.close == CloseOut::Impossible
            || (self.shut && (self.closed || self.eof))
    }
}

/// Whether a frame was taken for injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// It waits for the next boundary.
    Yes,
    /// It is dropped.
    No,
}
