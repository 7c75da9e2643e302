//! Decides the fate of a data frame: what the client's quotas say, and whether a slow
//! client is spared a message.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::input::Fate;
use super::judging::{Step, span};
use crate::proto::cause::QuotaKind;
use crate::proto::frame::apply_mask;
use crate::proto::limits::{Meter, OnExcess};
use crate::proto::message::{Kind, Place};
use crate::proto::policy::{LONGEST_HEARTBEAT, OnSlowConsumer};
use crate::proto::side::Side;

/// What a quota says of a frame.
pub(super) enum Ruling {
    Pass,
    Drop,
    Fail,
    WaitUntil(Instant),
}

impl Session {
    /// Asks the quotas, and the slow consumer's policy, about the frame under way.
    pub(super) fn decide(&mut self, from: Side, now: Instant) -> Step {
        let Some(frame) = &self.inputs[from].frame else {
            return Step::Again;
        };
        let (place, kind, size) = (frame.place, frame.kind, frame.left());
        let ruling = match (from, place) {
            (Side::Upstream, Place::First) if self.is_too_slow_for(size) => Ruling::Drop,
            (Side::Upstream, _) => Ruling::Pass,
            (Side::Downstream, _) => match self.ask_quotas(place, size, now) {
                Ok(ruling) => ruling,
                Err(kind) => return self.exceeded(kind, now),
            },
        };
        let mut fate = match (ruling, place) {
            (Ruling::WaitUntil(until), _) => return self.throttle(from, until, now),
            // Fragments share the fate of their first.
            (_, Place::Later) if self.inputs[from].dropping => Fate::Drop,
            (Ruling::Drop, Place::First) => Fate::Drop,
            _ => Fate::Admit,
        };
        if fate == Fate::Admit && from == Side::Downstream {
            if self.may_be_heartbeat() {
                self.set_fate(from, Fate::Compare);
                return self.compare(now);
            }
            if self.inspector.is_some() {
                fate = match self.fate_of_inspected(kind) {
                    Ok(fate) => fate,
                    Err(cause) => return self.fail_input(from, cause, now),
                };
            }
        }
        self.follow_fate(from, fate, place, now)
    }

    /// Goes on with the data frame under way as was decided.
    fn follow_fate(&mut self, from: Side, fate: Fate, place: Place, now: Instant) -> Step {
        let input = &mut self.inputs[from];
        let drops = fate == Fate::Drop;
        if drops && place == Place::First {
            input.tally.dropped += 1;
        }
        input.dropping = drops;
        self.set_fate(from, fate);
        match fate {
            Fate::Admit | Fate::Undecided | Fate::Compare => self.judge_payload(from, now),
            Fate::Inspect => self.inspect(now),
            Fate::Drop => Step::Again,
        }
    }

    fn set_fate(&mut self, from: Side, fate: Fate) {
        if let Some(frame) = &mut self.inputs[from].frame {
            frame.fate = fate;
        }
    }

    /// Whether the client's frame under way is as long as the heartbeat of the route, and a
    /// whole text message.
    fn may_be_heartbeat(&self) -> bool {
        let heartbeat = self.policy.keepalive.heartbeat.as_ref();
        let (Some(heartbeat), Some(frame)) = (heartbeat, &self.inputs.downstream.frame) else {
            return false;
        };
        frame.payload_left == heartbeat.request.len() as u64
            && (frame.place, frame.kind, frame.is_final()) == (Place::First, Kind::Text, true)
    }

    /// Waits until a frame that may be a heartbeat is there whole. Answers it, if it is one;
    /// or else the frame goes the way of every other. The quotas were asked before.
    pub(super) fn compare(&mut self, now: Instant) -> Step {
        let policy = Arc::clone(&self.policy);
        let heartbeat = policy.keepalive.heartbeat.as_ref();
        let (Some(heartbeat), Some(frame)) = (heartbeat, &self.inputs.downstream.frame) else {
            return Step::Again;
        };
        let (header_len, key) = (frame.header_left, frame.header.mask.unwrap_or_default());
        let n = span(frame.left(), usize::MAX);
        let Some(frame) = self.pipes.downstream.unjudged().get(..n) else {
            return Step::Wait;
        };
        let mut text = [0; LONGEST_HEARTBEAT];
        let masked = frame.get(header_len..).unwrap_or_default();
        let text = text.get_mut(..masked.len()).unwrap_or_default();
        text.copy_from_slice(masked.get(..text.len()).unwrap_or_default());
        apply_mask(text, key, 0);
        if text != heartbeat.request.as_bytes() {
            let fate = match self.inspector.is_some() {
                true => Fate::Inspect,
                false => Fate::Admit,
            };
            return self.follow_fate(Side::Downstream, fate, Place::First, now);
        }
        // It is smaller than any burst of bytes.
        if let Err(until) = self.charge_bytes(n, now) {
            return self.throttle(Side::Downstream, until, now);
        }
        self.pipes.downstream.discard(n);
        self.inputs.downstream.frame = None;
        self.inputs.downstream.dropping = false;
        self.timers.heartbeats = self.timers.heartbeats.saturating_add(1);
        self.answer_heartbeat();
        Step::Again
    }

    /// What the client's quotas say about a data frame of `size` bytes on the wire.
    fn ask_quotas(&mut self, place: Place, size: u64, now: Instant) -> Result<Ruling, QuotaKind> {
        let dropping = place == Place::Later && self.inputs.downstream.dropping;
        if let (Place::First, Some(meter)) = (place, &mut self.meters.messages) {
            match rule(meter, 1, now) {
                Ruling::Pass => {}
                Ruling::Fail => return Err(QuotaKind::Messages),
                other => return Ok(other),
            }
        }
        // Under `throttle` bytes are charged as they go through, in pieces.
        match &mut self.meters.bytes {
            Some(meter) if meter.on_excess() != OnExcess::Throttle && !dropping => {
                match (meter.charge(size, now), meter.on_excess(), place) {
                    (Ok(()), ..) => Ok(Ruling::Pass),
                    (Err(_), OnExcess::Close, _) => Err(QuotaKind::Bytes),
                    (Err(_), _, Place::First) => Ok(Ruling::Drop),
                    // Half a message cannot be dropped: its further fragments wait.
                    (Err(until), _, Place::Later) => Ok(Ruling::WaitUntil(until)),
                }
            }
            _ => Ok(Ruling::Pass),
        }
    }

    /// Whether what is read from `from` must leave [`room_to_drop`] in the pipe: under policy
    /// `drop`, as long as the client keeps up. When it falls behind, the upstream is then
    /// still read, and what it sends can be taken out.
    pub(super) fn leaves_room_to_drop(&self, from: Side) -> bool {
        from == Side::Upstream
            && self.policy.backpressure.on_slow_consumer == OnSlowConsumer::Drop
            && !self.legs.downstream.blocked
    }

    /// How much more may be read before that room is touched.
    pub(super) fn room_before_dropping(&self) -> usize {
        let high = self.policy.backpressure.high_watermark;
        (high - room_to_drop(high)).saturating_sub(self.pipes.upstream.buffered_amount())
    }

    /// Whether a new message that begins with a frame of `size` bytes is taken out, since
    /// the client is behind and the pipe has no room for it.
    fn is_too_slow_for(&self, size: u64) -> bool {
        let policy = &self.policy.backpressure;
        let room = room_to_drop(policy.high_watermark) as u64;
        let needed = self.pipes.upstream.admitted_amount() as u64 + size + room;
        policy.on_slow_consumer == OnSlowConsumer::Drop
            && self.legs.downstream.blocked
            && needed > policy.high_watermark as u64
    }
}

/// The part of the pipe towards a slow client that new messages do not get under policy
/// `drop`: what comes is read into it and looked at, control frames go through it. A quarter
/// makes reads of a useful size, and is little less for the messages.
const fn room_to_drop(high_watermark: usize) -> usize {
    high_watermark / 4
}

/// What the meter's policy makes of a charge.
pub(super) fn rule(meter: &mut Meter, units: u64, now: Instant) -> Ruling {
    match (meter.charge(units, now), meter.on_excess()) {
        (Ok(()), _) => Ruling::Pass,
        (Err(until), OnExcess::Throttle) => Ruling::WaitUntil(until),
        (Err(_), OnExcess::Drop) => Ruling::Drop,
        (Err(_), OnExcess::Close) => Ruling::Fail,
    }
}
