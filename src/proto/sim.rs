//! A simulated world for one session: two wires with a settable capacity, and a clock that
//! jumps. No sockets, no waiting.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proto::cause::Cause;
use crate::proto::close::CloseCode;
use crate::proto::frame::{Fin, Header, OpCode, apply_mask, encode_frame};
use crate::proto::json::Places;
use crate::proto::limits::{Limits, OnExcess, Quota, Rate};
use crate::proto::policy::{
    Backpressure, FirstMessage, Keepalive, OnExpiry, OnSlowConsumer, Policy,
};
use crate::proto::rule::{Action, Inspection, Refusal, Rules};
use crate::proto::seed::Seed;
use crate::proto::session::{Event, MaskKeys, Session};
use crate::proto::side::{Side, Sides};

/// A client's masking key in tests.
pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a simulated session draws from.
pub const SEED: Seed = Seed(9);

/// A frame as a peer reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub fin: Fin,
    pub opcode: OpCode,
    pub payload: Vec<u8>,
}

/// What lies between the edge and one peer.
#[derive(Debug)]
pub struct Wire {
    to_edge: VecDeque<u8>,
    eof: bool,
    /// Everything the edge's socket took.
    pub taken: Vec<u8>,
    /// How many more bytes it will take.
    pub capacity: usize,
    /// Whether the edge shut its writing half down.
    pub shut: bool,
}

pub struct Sim {
    pub session: Session,
    pub now: Instant,
    pub wires: Sides<Wire>,
    pub events: Vec<Event>,
    /// The most that one read or write moves.
    pub slice: usize,
    scratch: Option<Vec<u8>>,
}

/// Every limit wide open; tests close the one they are about.
pub fn policy() -> Policy {
    Policy {
        first_message: None,
        on_expiry: OnExpiry::Ignore,
        inspection: None,
        limits: Limits {
            max_frame_size: 1 << 20,
            max_message_size: 1 << 20,
            max_upstream_frame_size: None,
            max_upstream_message_size: None,
            messages: None,
            bytes: None,
            control: quota(1_000_000, 1_000_000, OnExcess::Close),
            validate_utf8: true,
        },
        backpressure: Backpressure {
            high_watermark: 64 * 1024,
            low_watermark: 32 * 1024,
            on_slow_consumer: OnSlowConsumer::Throttle,
            stall_timeout: Duration::from_secs(60),
        },
        keepalive: Keepalive {
            ping_interval: None,
            upstream_ping_interval: None,
            pong_timeout: Duration::from_secs(10),
            idle_timeout: None,
            max_lifetime: None,
            heartbeat: None,
        },
        hold: None,
        close_timeout: Duration::from_secs(5),
    }
}

/// Every message that is JSON passes, once it is there whole.
pub fn inspecting() -> Policy {
    let rules = Rules {
        list: Vec::new(),
        default: Action::Allow,
        on_malformed: Refusal::Close,
        on_binary: Action::Allow,
        claims: Vec::new(),
    };
    Policy {
        inspection: Some(Inspection {
            places: Places::default(),
            refresh: None,
            rules: Some(rules),
        }),
        ..policy()
    }
}

pub fn first_message() -> FirstMessage {
    FirstMessage {
        timeout: Duration::from_secs(10),
        max_size: 1024,
        forward: false,
        reply: None,
    }
}

/// So many in a second.
pub fn quota(units: u64, burst: u64, on_excess: OnExcess) -> Quota {
    Quota {
        rate: Rate {
            units: NonZeroU64::new(units).unwrap(),
            per: Duration::from_secs(1),
        },
        burst: NonZeroU64::new(burst).unwrap(),
        on_excess,
    }
}

/// A whole frame as the peer on `from` sends it.
pub fn frame(from: Side, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    encode_frame(opcode, mask_of(from), payload)
}

/// One fragment as the peer on `from` sends it.
pub fn fragment(from: Side, fin: Fin, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mask = mask_of(from);
    Header {
        fin,
        opcode,
        mask,
        len: payload.len() as u64,
    }
    .encode(&mut bytes);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    apply_mask(&mut bytes[start..], mask.unwrap_or_default(), 0);
    bytes
}

/// The payload of a Close.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    crate::proto::close::payload(CloseCode::from_wire(code).unwrap(), reason)
}

fn mask_of(from: Side) -> Option<[u8; 4]> {
    match from {
        Side::Downstream => Some(KEY),
        Side::Upstream => None,
    }
}

impl Wire {
    fn new() -> Self {
        Self {
            to_edge: VecDeque::new(),
            eof: false,
            taken: Vec::new(),
            capacity: usize::MAX,
            shut: false,
        }
    }

    /// See [`Sim::seen`].
    pub fn seen(&self, to: Side) -> Vec<Seen> {
        let mut bytes = &self.taken[..];
        let mut seen = Vec::new();
        while let Some((header, at)) = Header::decode(bytes, to.other()).expect("a legal header") {
            let end = at + usize::try_from(header.len).unwrap();
            if bytes.len() < end {
                break;
            }
            let mut payload = bytes[at..end].to_vec();
            apply_mask(&mut payload, header.mask.unwrap_or_default(), 0);
            seen.push(Seen {
                fin: header.fin,
                opcode: header.opcode,
                payload,
            });
            bytes = &bytes[end..];
        }
        seen
    }
}

impl Sim {
    pub fn new(policy: Policy) -> Self {
        let now = Instant::now();
        let keys = MaskKeys {
            first_message: [1, 2, 3, 4],
            close: [5, 6, 7, 8],
            seed: SEED,
        };
        Self {
            session: Session::new(Arc::new(policy), keys, now),
            now,
            wires: Sides {
                downstream: Wire::new(),
                upstream: Wire::new(),
            },
            events: Vec::new(),
            slice: usize::MAX,
            scratch: Some(vec![0; 128 * 1024]),
        }
    }

    /// The peer on `from` sends `bytes`.
    pub fn send(&mut self, from: Side, bytes: &[u8]) {
        self.wires[from].to_edge.extend(bytes);
        self.drive();
    }

    /// The peer on `from` ends its half.
    pub fn eof(&mut self, from: Side) {
        self.wires[from].eof = true;
        self.drive();
    }

    /// The connection of `side` breaks: what it sent and the edge did not read is gone.
    pub fn reset(&mut self, side: Side) {
        self.wires[side].to_edge.clear();
        self.session.handle_reset(side, self.now);
        self.drive();
    }

    /// A held session gets another upstream, which takes `capacity` bytes at first. Returns
    /// what lay between the edge and the one before.
    pub fn redialed(&mut self, capacity: usize) -> Wire {
        let mut wire = Wire::new();
        wire.capacity = capacity;
        let before = std::mem::replace(&mut self.wires.upstream, wire);
        let keys = MaskKeys {
            first_message: [9, 8, 7, 6],
            close: [5, 4, 3, 2],
            seed: Seed(2),
        };
        self.session.handle_redialed(Ok(keys), self.now);
        self.drive();
        before
    }

    /// The peer on `to` takes `n` more bytes.
    pub fn take(&mut self, to: Side, n: usize) {
        self.wires[to].capacity = n;
        self.drive();
    }

    /// Time passes, and every deadline in it is met when it is due.
    pub fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            match self.session.poll_timeout() {
                Some(deadline) if deadline <= end => {
                    self.now = self.now.max(deadline);
                    self.session.handle_timeout(self.now);
                    self.drive();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the same deadline again and again: {:?}", self.session);
    }

    /// Moves bytes until nothing moves any more.
    pub fn drive(&mut self) {
        for _ in 0..1_000_000 {
            let moved = self.pump(Side::Downstream) | self.pump(Side::Upstream);
            self.events.extend(self.session.poll_event());
            if !moved {
                return;
            }
        }
        panic!("no end of moving: {:?}", self.session);
    }

    /// One read from `from` and the writes to the other leg, as the relay does them.
    fn pump(&mut self, from: Side) -> bool {
        let to = from.other();
        if let Some(scratch) = self.scratch.take() {
            self.scratch = self.session.lend(from, scratch);
        }
        let mut moved = self.read(from);
        moved |= self.write(to);
        if let Some(scratch) = self.session.reclaim(from) {
            self.scratch = Some(scratch);
        }
        moved
    }

    fn read(&mut self, from: Side) -> bool {
        let wire = &mut self.wires[from];
        let space = self.session.space(from);
        if space.is_empty() {
            return false;
        }
        let n = space.len().min(wire.to_edge.len()).min(self.slice);
        for (place, byte) in space.iter_mut().zip(wire.to_edge.drain(..n)) {
            *place = byte;
        }
        if n > 0 {
            self.session.handle_filled(from, n, self.now);
        } else if std::mem::take(&mut wire.eof) {
            self.session.handle_eof(from, self.now);
        } else {
            return false;
        }
        true
    }

    fn write(&mut self, to: Side) -> bool {
        let mut moved = false;
        loop {
            let pending = self.session.pending(to);
            if pending.is_empty() {
                break;
            }
            let wire = &mut self.wires[to];
            let n = pending.len().min(wire.capacity).min(self.slice);
            if n == 0 {
                self.session.handle_blocked(to, self.now);
                break;
            }
            wire.taken.extend_from_slice(&pending[..n]);
            wire.capacity -= n;
            self.session.handle_sent(to, n, self.now);
            moved = true;
        }
        self.session.handle_flushed_if(moved, to, self.now);
        if self.session.can_shut(to) {
            self.wires[to].shut = true;
            self.session.handle_shut(to);
            moved = true;
        }
        moved
    }

    /// The frames that the peer on `to` has got so far. Panics on a broken stream; a frame
    /// cut off at the end is left out.
    pub fn seen(&self, to: Side) -> Vec<Seen> {
        self.wires[to].seen(to)
    }

    /// Bytes that the peer on `from` sent and the edge did not read.
    pub fn unread(&self, from: Side) -> usize {
        self.wires[from].to_edge.len()
    }

    /// The code of the Close that the peer on `to` has got.
    pub fn close_code(&self, to: Side) -> Option<u16> {
        let close = self
            .seen(to)
            .into_iter()
            .find(|seen| seen.opcode == OpCode::Close)?;
        let code = close.payload.first_chunk::<2>().expect("a code");
        Some(u16::from_be_bytes(*code))
    }

    /// Why the session ended. Panics if it has not.
    pub fn ended(&self) -> Cause {
        assert!(self.session.is_ended(), "{:?}", self.session);
        assert_eq!(self.events.last(), Some(&Event::Ended));
        self.session.summary().cause
    }
}

impl Session {
    fn handle_flushed_if(&mut self, moved: bool, to: Side, now: Instant) {
        if moved {
            let blocked = !self.pending(to).is_empty();
            self.handle_flushed(to, now);
            if blocked {
                self.handle_blocked(to, now);
            }
        }
    }
}
