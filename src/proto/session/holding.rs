//! How a session outlives its upstream leg: the client stays, what it says waits, and the
//! driver is asked to dial again until another leg is there or the time is over.
//!
//! All of it lies in a box that only routes with a hold have, and in a phase of its own. Who
//! dials whom, and when all others may, is the driver's affair.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::input::{Fate, Mode};
use super::leg::{CloseOut, Leg};
use super::{Event, MaskKeys, Phase, Session};
use crate::proto::cause::{Cause, DialFailure, Lost};
use crate::proto::close::{self, CloseCode};
use crate::proto::frame::{OpCode, encode_frame};
use crate::proto::message::{Message, Place};
use crate::proto::pipe::Watermarks;
use crate::proto::policy::{Backoff, Hold, Policy};
use crate::proto::replay::Replay;
use crate::proto::seed::{Seed, Use};
use crate::proto::side::Side;
use crate::proto::token::Masked;
use crate::proto::utf8::Utf8;

/// How often, and how long, a session was without its upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Upstream legs that were lost and not the end.
    pub times: u32,
    /// All the time without one.
    pub time: Duration,
}

/// What a session keeps so that another upstream leg can take the place of the one it has.
#[derive(Debug)]
pub(super) struct Resumable {
    /// What the upstream has got.
    pub(super) replay: Replay,
    /// The first message, where it is forwarded.
    pub(super) first_message: Masked,
    /// Pauses so far.
    pauses: u32,
    /// The leg that is lost next goes on with these, unless it has lasted.
    until: Instant,
    attempts: u32,
    /// When the leg took its place; `None`: it is the session's first.
    resumed: Option<Instant>,
    /// A text for the client that waits for room.
    unsaid: Option<Vec<u8>>,
    holds: Holds,
}

/// No upstream, and another is to be had.
#[derive(Debug)]
pub(super) struct Holding {
    lost: Lost,
    since: Instant,
    until: Instant,
    redial: Redial,
}

/// How far the next dial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redial {
    At(Instant),
    Due,
    UnderWay,
}

impl Resumable {
    /// `None`: the sessions of the route end with their upstream leg.
    pub(super) fn new(policy: &Policy, now: Instant) -> Option<Box<Self>> {
        let hold = policy.hold.as_ref()?;
        Some(Box::new(Self {
            replay: Replay::new(hold.replay_messages, hold.replay_buffer),
            first_message: Masked::default(),
            pauses: 0,
            until: now,
            attempts: 0,
            resumed: None,
            unsaid: None,
            holds: Holds::default(),
        }))
    }

    /// The next pause: anything from nothing to the ceiling.
    fn pause(&mut self, backoff: Backoff, seed: Seed) -> Duration {
        let doubled = 2_u32.saturating_pow(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        self.pauses = self.pauses.wrapping_add(1);
        let ceiling = backoff.first.saturating_mul(doubled).min(backoff.max);
        seed.part_of(ceiling, Use::Redial, self.pauses)
    }

    /// A text about the leg. One that still waits is about a moment that has passed: with the
    /// new one it comes to nothing.
    fn tell(&mut self, text: Option<&String>) {
        let waited = self.unsaid.take().is_some();
        if !waited {
            self.unsaid = text.map(|text| encode_frame(OpCode::Text, None, text.as_bytes()));
        }
    }

    /// Nothing will be said again: the session ends.
    pub(super) fn let_go(&mut self) {
        self.replay = Replay::new(0, 0);
        self.first_message = Masked::default();
        self.unsaid = None;
    }

    /// Memory for what is said again.
    pub(super) fn owned(&self) -> usize {
        self.replay.owned() + self.first_message.0.capacity()
    }
}

impl Session {
    /// Whether the connection of `side` may break without the session: then it does not matter
    /// any more, or another takes its place.
    pub(super) fn outlives(&mut self, side: Side, now: Instant) -> bool {
        if side == Side::Upstream && self.is_holding() {
            // An answer to its Close that it will not take is not offered again.
            self.legs.upstream = Leg::new(false);
            return true;
        }
        side == Side::Upstream && self.hold_if_possible(Lost::Vanished, now)
    }

    /// The upstream leg is lost. Whether the session goes on without it, and waits for another.
    fn hold_if_possible(&mut self, lost: Lost, now: Instant) -> bool {
        let policy = Arc::clone(&self.policy);
        let Some(hold) = policy.hold.as_ref().filter(|_| self.can_hold()) else {
            return false;
        };
        let parting = self.parting_close(lost);
        self.drop_half_of_upstreams();
        self.drop_half_of_clients();
        self.timers.handle_upstream_lost();
        self.legs.upstream = Leg::new(false);
        if let Some(frame) = parting {
            self.legs.upstream.part(frame);
        }
        let Watermarks { low, .. } = self.watermarks();
        self.pipes.downstream.set_watermarks(Watermarks {
            high: hold.buffer,
            low: low.min(hold.buffer),
        });
        if let Some(resumable) = &mut self.resumable {
            let lasted = |at: Instant| now.saturating_duration_since(at) >= LASTING;
            if resumable.resumed.is_none_or(lasted) {
                resumable.until = now + hold.max_hold;
                resumable.attempts = 0;
            }
            resumable.holds.times = resumable.holds.times.saturating_add(1);
            resumable.tell(hold.notice.as_ref());
            self.phase = Phase::Holding(Box::new(Holding {
                lost,
                since: now,
                until: resumable.until,
                redial: Redial::At(now + resumable.pause(hold.backoff, self.mask_keys.seed)),
            }));
        }
        self.say_if_possible();
        true
    }

    /// The upstream closed. Whether the session goes on without it.
    pub(super) fn hold_on_close(&mut self, code: Option<CloseCode>, now: Instant) -> bool {
        let codes = self.policy.hold.as_ref().map(|hold| &hold.close_codes);
        match (codes, code) {
            (Some(codes), Some(code)) if codes.contains(&code) => {
                self.hold_if_possible(Lost::Closed(code), now)
            }
            _ => false,
        }
    }

    /// A leg can be replaced between two messages of the upstream's, as the client has got
    /// them: half a message cannot be finished by another.
    fn can_hold(&self) -> bool {
        let Some(resumable) = &self.resumable else {
            return false;
        };
        let (client, input) = (&self.legs.downstream, &self.inputs.upstream);
        let is_client_here = !client.gone && !client.closed && client.close == CloseOut::None;
        let is_between = match &input.frame {
            Some(frame) if frame.fate == Fate::Drop => true,
            Some(frame) => frame.place == Place::First && !self.pipes.upstream.is_begun(),
            None => !input.message.is_open() || input.dropping,
        };
        let relays = matches!(self.phase, Phase::Relaying) && input.mode == Mode::Relay;
        relays && is_client_here && is_between && resumable.replay.is_complete()
    }

    /// The answer to the upstream's Close, if there is a boundary to put it at.
    fn parting_close(&self, lost: Lost) -> Option<Vec<u8>> {
        let Lost::Closed(code) = lost else {
            return None;
        };
        let resumable = self.resumable.as_ref()?;
        let in_slot = self.legs.upstream.slot.as_ref();
        if in_slot.is_some_and(|slot| slot.is_begun()) || !resumable.replay.is_at_boundary() {
            return None;
        }
        let payload = close::payload(code, "");
        Some(encode_frame(
            OpCode::Close,
            Some(self.mask_keys.close),
            &payload,
        ))
    }

    /// Of what the upstream sent, whole messages stay for the client.
    fn drop_half_of_upstreams(&mut self) {
        let input = &mut self.inputs.upstream;
        input.mode = Mode::Hold;
        input.frame = None;
        input.message = Message::default();
        input.utf8 = Utf8::default();
        input.dropping = false;
        self.pipes.upstream.discard_unjudged();
        self.pipes.upstream.cut_to_boundary();
    }

    /// Of what the client sent, all stays that the upstream has no part of, or that will be
    /// said again.
    fn drop_half_of_clients(&mut self) {
        let Some(resumable) = &mut self.resumable else {
            return;
        };
        let pipe = &mut self.pipes.downstream;
        let rest = resumable.replay.handle_lost(pipe.unsent());
        pipe.restart(rest.waiting, rest.behind);
        if rest.goes_on {
            let input = &mut self.inputs.downstream;
            input.dropping = true;
            input.utf8 = Utf8::default();
            input.tally.dropped += 1;
            if let Some(frame) = &mut input.frame {
                frame.fate = Fate::Drop;
            }
        }
    }

    /// Whether the upstream is gone and another waited for.
    pub const fn is_holding(&self) -> bool {
        matches!(self.phase, Phase::Holding(_))
    }

    /// When a held session ends, unless it has an upstream again before.
    pub fn held_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Holding(holding) => Some(holding.until),
            _ => None,
        }
    }

    /// The dial that [`Event::Redial`] asked for was made, or failed. A new leg comes with new
    /// masking keys.
    pub fn handle_redialed(&mut self, redialed: Result<MaskKeys, DialFailure>, now: Instant) {
        let policy = Arc::clone(&self.policy);
        let (Phase::Holding(holding), Some(hold), Some(resumable)) =
            (&mut self.phase, &policy.hold, &mut self.resumable)
        else {
            return;
        };
        match redialed {
            Ok(mask_keys) => {
                // The seed is the session's, by which it knows its pings.
                let seed = self.mask_keys.seed;
                self.mask_keys = MaskKeys { seed, ..mask_keys };
                self.resume(hold, now);
            }
            Err(_) => {
                let pause = resumable.pause(hold.backoff, self.mask_keys.seed);
                holding.redial = Redial::At(now + pause);
            }
        }
    }

    fn resume(&mut self, hold: &Hold, now: Instant) {
        self.note_held(now);
        self.phase = Phase::Relaying;
        self.legs.upstream = Leg::new(true);
        self.inputs.upstream.mode = Mode::Relay;
        let seed = self.mask_keys.seed;
        self.timers
            .handle_upstream(&self.policy.keepalive, seed, now);
        let watermarks = self.watermarks();
        self.pipes.downstream.set_watermarks(watermarks);
        if let Some(resumable) = &mut self.resumable {
            resumable.resumed = Some(now);
            let Masked(first_message) = &resumable.first_message;
            let first_message = match first_message.as_bytes() {
                [] => Vec::new(),
                text => encode_frame(OpCode::Text, Some(self.mask_keys.first_message), text),
            };
            let (preamble, whole) = resumable.replay.begin_again(first_message);
            self.pipes.downstream.push_front(&preamble, whole);
            resumable.tell(hold.resume_notice.as_ref());
        }
        self.say_if_possible();
    }

    /// The session is without its upstream no longer, or ends.
    pub(super) fn note_held(&mut self, now: Instant) {
        if let (Phase::Holding(holding), Some(resumable)) = (&self.phase, &mut self.resumable) {
            resumable.holds.time += now.saturating_duration_since(holding.since);
        }
    }

    /// How the session fared without its upstream.
    pub(super) fn holds(&self) -> Holds {
        let holds = self.resumable.as_ref().map(|resumable| resumable.holds);
        holds.unwrap_or_default()
    }

    /// Asks for the dial that is due, unless a new token is looked at, which whoever dials has
    /// to wait for.
    pub(super) fn poll_redial(&mut self) -> Option<Event> {
        let Phase::Holding(holding) = &mut self.phase else {
            return None;
        };
        if holding.redial != Redial::Due || self.inputs.downstream.mode == Mode::Hold {
            return None;
        }
        holding.redial = Redial::UnderWay;
        Some(Event::Redial)
    }

    pub(super) fn handle_holding_deadline(&mut self, now: Instant) {
        let Phase::Holding(holding) = &mut self.phase else {
            return;
        };
        if holding.until <= now {
            let cause = Cause::HoldOver(holding.lost);
            return self.fail(cause, now);
        }
        if matches!(holding.redial, Redial::At(at) if at <= now) {
            holding.redial = Redial::Due;
        }
    }

    /// Puts the text about the leg behind what the client has to read.
    pub(super) fn say_about_leg(&mut self) {
        if let Some(resumable) = &mut self.resumable
            && let Some(frame) = resumable.unsaid.take()
        {
            self.pipes.upstream.push(&frame);
        }
    }

    /// Whether a text about the leg waits for room.
    pub(super) fn is_leg_unsaid(&self) -> bool {
        let resumable = self.resumable.as_ref();
        resumable.is_some_and(|resumable| resumable.unsaid.is_some())
    }

    fn watermarks(&self) -> Watermarks {
        Watermarks {
            high: self.policy.backpressure.high_watermark,
            low: self.policy.backpressure.low_watermark,
        }
    }
}

impl Holding {
    /// The nearest deadline.
    pub(super) fn deadline(&self) -> Instant {
        match self.redial {
            Redial::At(at) => at.min(self.until),
            Redial::Due | Redial::UnderWay => self.until,
        }
    }
}

/// A leg that is lost sooner after it took its place belongs to the same hold: so an upstream
/// that takes connections and drops them is not dialled for ever.
const LASTING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
