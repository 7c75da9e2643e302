//! Judges what came from a leg, frame by frame, and decides what of it goes through.
//!
//! Pull-based: one step looks at one header, one control frame or one span of payload,
//! and stops where a rule, a quota or the end of the bytes says so.

use std::time::Instant;

use super::deciding::{Ruling, rule};
use super::input::{Fate, Frame, Mode};
use super::leg::SlotKind;
use super::{Event, Phase, Session};
use crate::proto::cause::{Cause, Misbehaviour, QuotaKind};
use crate::proto::close;
use crate::proto::frame::{Fin, Header, MAX_CONTROL_PAYLOAD, OpCode, apply_mask, encode_frame};
use crate::proto::limits::OnExcess;
use crate::proto::message::{Kind, MaxSizes, MessageError, Place};
use crate::proto::pipe::Ends;
use crate::proto::side::Side;
use crate::proto::token::{CollectError, Masked};

/// Whether judging goes on.
pub(super) enum Step {
    /// There may be more to judge.
    Again,
    /// More bytes, more time or another phase is needed.
    Wait,
}

impl Session {
    /// Judges as much of what came from `from` as can be judged now.
    pub(super) fn judge(&mut self, from: Side, now: Instant) {
        // Only the first step can find something to do without bytes: a message that is whole,
        // and waited for its quota.
        while let Step::Again = self.judge_step(from, now)
            && !self.pipes[from].unjudged().is_empty()
        {}
        self.pipes[from].finish_judging();
    }

    fn judge_step(&mut self, from: Side, now: Instant) -> Step {
        match (self.inputs[from].mode, &self.inputs[from].frame) {
            (Mode::Discard, _) => {
                self.pipes[from].discard_unjudged();
                Step::Wait
            }
            (Mode::Hold, _) => Step::Wait,
            (_, None) => self.judge_header(from, now),
            (_, Some(frame)) if frame.fate == Fate::Undecided => self.decide(from, now),
            (Mode::Token, Some(_)) => self.collect(now),
            (_, Some(frame)) if frame.fate == Fate::Drop => self.judge_dropped(from),
            (_, Some(frame)) if frame.fate == Fate::Inspect => self.inspect(now),
            (_, Some(frame)) if frame.fate == Fate::Compare => self.compare(now),
            (_, Some(_)) => self.judge_payload(from, now),
        }
    }

    fn judge_header(&mut self, from: Side, now: Instant) -> Step {
        let bytes = self.pipes[from].unjudged();
        let (header, header_len) = match Header::decode(bytes, from) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return Step::Wait,
            Err(rule) => return self.misbehaved(from, rule, now),
        };
        if !header.opcode.is_control() {
            // An empty fragment that ends nothing costs the upstream work and the sender
            // nothing: it counts as a control frame.
            if header.len == 0
                && header.fin == Fin::More
                && let Some(step) = self.charge_control(from, now)
            {
                return step;
            }
            return self.judge_data_header(from, header, header_len, now);
        }
        // A control frame is small: it is judged whole.
        let whole = header_len + MAX_CONTROL_PAYLOAD.min(header.len as usize);
        let Some(payload) = bytes.get(header_len..whole) else {
            return Step::Wait;
        };
        let mut unmasked = [0; MAX_CONTROL_PAYLOAD];
        let unmasked = unmasked.get_mut(..payload.len()).unwrap_or_default();
        unmasked.copy_from_slice(payload);
        apply_mask(unmasked, header.mask.unwrap_or_default(), 0);
        if let Some(step) = self.charge_control(from, now) {
            return step;
        }
        self.judge_control(from, header.opcode, unmasked, whole, now)
    }

    /// Charges the client for a control frame. `Some`: it does not pass now. Nothing of the
    /// frame is judged before, so that a frame that waits is charged once.
    fn charge_control(&mut self, from: Side, now: Instant) -> Option<Step> {
        if from == Side::Upstream || !matches!(self.inputs[from].mode, Mode::Token | Mode::Relay) {
            return None;
        }
        match rule(&mut self.meters.control, 1, now) {
            Ruling::Pass | Ruling::Drop => None,
            Ruling::Fail => Some(self.exceeded(QuotaKind::Control, now)),
            Ruling::WaitUntil(until) => Some(self.throttle(from, until, now)),
        }
    }

    fn judge_control(
        &mut self,
        from: Side,
        opcode: OpCode,
        payload: &[u8],
        whole: usize,
        now: Instant,
    ) -> Step {
        // Before the upstream is there, and while it is away, the edge is all there is.
        let relays = self.inputs[from].mode == Mode::Relay && !self.is_holding();
        let answers = self.inputs[from].mode == Mode::Token || self.is_holding();
        match opcode {
            OpCode::Close => match close::parse(payload) {
                Ok(parsed) => {
                    let code = parsed.map(|(code, _)| code);
                    if from == Side::Upstream && self.hold_on_close(code, now) {
                        return Step::Wait;
                    }
                    if relays {
                        self.admit(from, whole, Ends::Frame);
                    }
                    self.handle_close(from, code, now);
                }
                Err(rule) => return self.misbehaved(from, rule, now),
            },
            OpCode::Pong if (relays || answers) && self.handle_pong(from, payload, now) => {
                self.pipes[from].discard(whole);
            }
            _ if relays => self.admit(from, whole, Ends::Frame),
            OpCode::Ping if answers => {
                self.pipes[from].discard(whole);
                let pong = encode_frame(OpCode::Pong, None, payload);
                // A pong that finds another under way is one pong less: RFC 6455 §5.5.3
                // lets the answer to the newest ping stand for all.
                let _ = self.legs[from].inject(SlotKind::Pong, pong);
            }
            _ => self.pipes[from].discard(whole),
        }
        Step::Again
    }

    fn judge_data_header(
        &mut self,
        from: Side,
        header: Header,
        header_len: usize,
        now: Instant,
    ) -> Step {
        let frame = |place, kind, fate| Frame {
            header,
            place,
            kind,
            fate,
            header_left: header_len,
            payload_left: header.len,
        };
        let frame = match &mut self.phase {
            Phase::AwaitToken(waiting) => match waiting.collector.handle_header(&header) {
                Ok(()) => frame(Place::First, Kind::Text, Fate::Admit),
                Err(CollectError::NotText) => {
                    self.fail(Cause::TokenRefused, now);
                    return Step::Again;
                }
                Err(CollectError::Message(error)) => return self.refuse(from, error, now),
            },
            _ => {
                let max = self.max_sizes(from);
                let input = &mut self.inputs[from];
                let fate = match input.mode {
                    Mode::Relay => Fate::Undecided,
                    Mode::FinishMessage => Fate::Admit,
                    _ => Fate::Drop,
                };
                match input.message.handle_header(&header, max) {
                    Ok((kind, place)) => frame(place, kind, fate),
                    Err(error) => return self.refuse(from, error, now),
                }
            }
        };
        let undecided = frame.fate == Fate::Undecided;
        self.inputs[from].frame = Some(frame);
        if let (Side::Downstream, Some(inspector)) = (from, &mut self.inspector) {
            inspector.handle_header(self.policy.limits.max_message_size);
        }
        // What every message comes through is gone through at once.
        match undecided {
            true => self.decide(from, now),
            false => Step::Again,
        }
    }

    /// Collects a span of the first message.
    fn collect(&mut self, now: Instant) -> Step {
        let (Phase::AwaitToken(waiting), Some(frame)) =
            (&mut self.phase, &mut self.inputs.downstream.frame)
        else {
            return Step::Wait;
        };
        let pipe = &mut self.pipes.downstream;
        let available = pipe.unjudged();
        let n = span(frame.left(), available.len());
        if n == 0 {
            return Step::Wait;
        }
        let position = frame.header.len - frame.payload_left;
        let header = frame.handle_judged(n);
        let payload = available.get(header..n).unwrap_or_default();
        let key = frame.header.mask.unwrap_or_default();
        waiting.collector.push(payload, key, position);
        pipe.discard(n);
        if frame.left() > 0 {
            return Step::Wait;
        }
        let is_final = frame.is_final();
        self.inputs.downstream.frame = None;
        if !is_final {
            return Step::Again;
        }
        match String::from_utf8(waiting.collector.take()) {
            Ok(text) => {
                let first_message = if self
                    .policy
                    .first_message
                    .as_ref()
                    .is_some_and(|f| f.forward)
                {
                    Masked(text.clone())
                } else {
                    Masked::default()
                };
                self.phase = Phase::AwaitVerdict { first_message };
                self.inputs.downstream.mode = Mode::Hold;
                self.event = Some(Event::VerifyToken(Masked(text)));
                Step::Wait
            }
            Err(_) => self.misbehaved(Side::Downstream, Misbehaviour::TextNotUtf8, now),
        }
    }

    /// Takes a span of a frame out of the stream.
    fn judge_dropped(&mut self, from: Side) -> Step {
        let input = &mut self.inputs[from];
        let Some(frame) = &mut input.frame else {
            return Step::Again;
        };
        let n = span(frame.left(), self.pipes[from].unjudged().len());
        if n == 0 {
            return Step::Wait;
        }
        frame.handle_judged(n);
        self.pipes[from].discard(n);
        if frame.left() == 0 {
            input.frame = None;
            self.say_if_possible();
        }
        Step::Again
    }

    /// Lets a span of a frame through.
    pub(super) fn judge_payload(&mut self, from: Side, now: Instant) -> Step {
        let Some(frame) = &self.inputs[from].frame else {
            return Step::Again;
        };
        let relays = self.inputs[from].mode == Mode::Relay;
        let mut n = span(frame.left(), self.pipes[from].unjudged().len());
        if n == 0 {
            return Step::Wait;
        }
        if from == Side::Downstream {
            if relays {
                n = match self.charge_bytes(n, now) {
                    Ok(n) => n,
                    Err(until) => return self.throttle(from, until, now),
                };
            }
            if self.policy.limits.validate_utf8 && !self.is_text_valid(n) {
                return self.misbehaved(from, Misbehaviour::TextNotUtf8, now);
            }
        }
        self.timers.handle_data(now);
        let input = &mut self.inputs[from];
        let Some(frame) = &mut input.frame else {
            return Step::Again;
        };
        frame.handle_judged(n);
        let (ends, is_final) = (frame.left() == 0, frame.is_final());
        let mode = input.mode;
        if ends {
            input.frame = None;
            if is_final {
                input.tally.messages += 1;
            }
            if mode == Mode::Finish || mode == Mode::FinishMessage && is_final {
                input.mode = Mode::Watch;
            }
        }
        self.admit(from, n, if ends { Ends::Frame } else { Ends::Inside });
        if ends && mode == Mode::FinishMessage && is_final {
            self.queue_late_close(from.other());
        }
        if ends && self.saying.is_some() {
            self.say_if_possible();
        }
        Step::Again
    }

    /// Charges the client for the next `n` bytes, or as many as may go at once, where its
    /// quota makes it wait.
    ///
    /// # Errors
    ///
    /// The quota allows none before this instant.
    pub(super) fn charge_bytes(&mut self, n: usize, now: Instant) -> Result<usize, Instant> {
        match &mut self.meters.bytes {
            Some(meter) if meter.on_excess() == OnExcess::Throttle => {
                let n = span(meter.burst(), n);
                meter.charge(n as u64, now).map(|()| n)
            }
            _ => Ok(n),
        }
    }

    pub(super) fn admit(&mut self, from: Side, n: usize, ends: Ends) {
        self.pipes[from].admit(n, ends);
        self.inputs[from].tally.bytes += n as u64;
    }

    pub(super) fn throttle(&mut self, from: Side, until: Instant, now: Instant) -> Step {
        self.inputs[from].throttle(until, now);
        Step::Wait
    }

    fn refuse(&mut self, from: Side, error: MessageError, now: Instant) -> Step {
        let cause = match error {
            MessageError::Misbehaved(rule) => return self.misbehaved(from, rule, now),
            MessageError::FrameTooBig => Cause::FrameTooBig(from),
            MessageError::MessageTooBig => Cause::MessageTooBig(from),
        };
        self.fail_input(from, cause, now)
    }

    fn misbehaved(&mut self, from: Side, rule: Misbehaviour, now: Instant) -> Step {
        self.fail_input(from, Cause::Misbehaved(from, rule), now)
    }

    pub(super) fn exceeded(&mut self, kind: QuotaKind, now: Instant) -> Step {
        self.fail_input(Side::Downstream, Cause::QuotaExceeded(kind), now)
    }

    /// Fails the session for what came from `from`; nothing more of that is judged.
    pub(super) fn fail_input(&mut self, from: Side, cause: Cause, now: Instant) -> Step {
        self.abandon_input(from, now);
        self.fail(cause, now);
        // It may have been the one to answer a Close.
        self.answer_late(from.other());
        self.check_ended();
        Step::Again
    }

    fn max_sizes(&self, from: Side) -> MaxSizes {
        let limits = &self.policy.limits;
        match from {
            Side::Downstream => MaxSizes {
                frame: limits.max_frame_size,
                message: limits.max_message_size,
            },
            Side::Upstream => MaxSizes {
                frame: limits.max_upstream_frame_size.unwrap_or(u64::MAX),
                message: limits.max_upstream_message_size.unwrap_or(u64::MAX),
            },
        }
    }
}

/// The shorter of what is left and what is there.
pub(super) fn span(left: u64, available: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(available)
}
