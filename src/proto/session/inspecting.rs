//! Messages that are looked into: on a route with rules, or with tokens that are refreshed,
//! a text message of the client's is collected whole, judged, and only then passes as it
//! came, frame by frame.
//!
//! A message that is there whole, in one frame, is judged where it lies. Any other is held
//! here meanwhile, masked as it came, and counts as buffered.

use std::mem;
use std::str::from_utf8;
use std::time::Instant;

use super::deciding::{Ruling, rule};
use super::input::{Fate, Mode};
use super::judging::{Step, span};
use super::{Event, Phase, Session, TokenVerdict};
use crate::proto::cause::{Cause, Misbehaviour, QuotaKind};
use crate::proto::frame::{Header, OpCode, apply_mask, encode_frame};
use crate::proto::json::Malformed;
use crate::proto::limits::Meter;
use crate::proto::message::{Kind, Place};
use crate::proto::pipe::Ends;
use crate::proto::policy::Policy;
use crate::proto::rule::{Action, Grants, Inspection, Objection, Refusal, Verdict};
use crate::proto::side::Side;
use crate::proto::token::Masked;

/// What a session keeps in order to look into messages.
#[derive(Debug)]
pub(super) struct Inspector {
    /// What the client's token grants.
    pub(super) grants: Grants,
    /// By rule.
    quotas: Vec<Option<Meter>>,
    /// Frames of the message under way, at most `most` bytes.
    held: Vec<u8>,
    /// [`most_held`] of the limits that its newest frame was let in under.
    most: u64,
    /// The largest buffered amount with what was held.
    peak: usize,
}

/// Where the message is that is judged.
#[derive(Clone, Copy)]
enum Whole {
    /// In the pipe, its next so many bytes.
    Here(usize),
    /// Among what is held.
    Held,
}

/// What is done with a whole message.
enum Outcome {
    Pass,
    TakeOut,
    Refresh(Option<Masked>),
    WaitUntil(Instant),
    Fail(Cause),
}

impl Inspector {
    /// `None`: the route's messages stream through, and nothing is kept.
    pub(super) fn new(policy: &Policy, now: Instant) -> Option<Box<Self>> {
        let inspection = policy.inspection.as_ref()?;
        let rules = inspection.rules.iter().flat_map(|rules| &rules.list);
        let meter = |quota| Meter::new(quota, now);
        Some(Box::new(Self {
            grants: Grants::default(),
            quotas: rules.map(|rule| rule.quota.as_ref().map(meter)).collect(),
            held: Vec::new(),
            most: most_held(policy.limits.max_message_size),
            peak: 0,
        }))
    }

    /// Another frame of the client's was let in.
    pub(super) const fn handle_header(&mut self, max_message_size: u64) {
        self.most = most_held(max_message_size);
    }
}

/// The most that is held of one message: its payload, and headers of fragments of 64 bytes
/// or more. A message cut finer than that is as good as too big.
const fn most_held(max_message_size: u64) -> u64 {
    max_message_size
        .saturating_add(max_message_size / 8)
        .saturating_add(1024)
}

impl Session {
    /// What happens to a data frame of the client's that no quota takes out, on a route that
    /// looks into messages.
    ///
    /// # Errors
    ///
    /// The session fails.
    pub(super) fn fate_of_inspected(&self, kind: Kind) -> Result<Fate, Cause> {
        let inspection = self.policy.inspection.as_ref();
        let rules = inspection.and_then(|inspection| inspection.rules.as_ref());
        match (kind, rules.map(|rules| rules.on_binary)) {
            (Kind::Text, _) => Ok(Fate::Inspect),
            (Kind::Binary, None | Some(Action::Allow)) => Ok(Fate::Admit),
            (Kind::Binary, Some(Action::Refuse(Refusal::Drop))) => Ok(Fate::Drop),
            (Kind::Binary, Some(Action::Refuse(Refusal::Close))) => {
                Err(Cause::MessageRefused(Objection::Binary))
            }
        }
    }

    /// Collects a span of the client's message, and judges the message when it is whole.
    pub(super) fn inspect(&mut self, now: Instant) -> Step {
        let Some(frame) = &self.inputs.downstream.frame else {
            return Step::Again;
        };
        let (left, is_final) = (frame.left(), frame.is_final());
        let is_alone = frame.place == Place::First && is_final && self.held_amount() == 0;
        let mut n = span(left, self.pipes.downstream.unjudged().len());
        // Nothing is left of a message that waits for the quota of its rule.
        if left > 0 {
            if n == 0 {
                return Step::Wait;
            }
            n = match self.charge_bytes(n, now) {
                Ok(n) => n,
                Err(until) => return self.throttle(Side::Downstream, until, now),
            };
            self.timers.handle_data(now);
        }
        if is_alone && n as u64 == left {
            return self.judge_whole(Whole::Here(n), now);
        }
        if let Err(cause) = self.hold(n) {
            return self.fail_input(Side::Downstream, cause, now);
        }
        if n as u64 == left {
            if is_final {
                return self.judge_whole(Whole::Held, now);
            }
            self.inputs.downstream.frame = None;
        }
        Step::Again
    }

    /// Takes the next `n` bytes of the frame under way out of the pipe, and keeps them.
    fn hold(&mut self, n: usize) -> Result<(), Cause> {
        let (Some(inspector), Some(frame)) =
            (&mut self.inspector, &mut self.inputs.downstream.frame)
        else {
            return Ok(());
        };
        let pipe = &mut self.pipes.downstream;
        let bytes = pipe.unjudged();
        let amount = inspector.held.len() + bytes.len() + pipe.admitted_amount();
        inspector.peak = inspector.peak.max(amount);
        if (inspector.held.len() + n) as u64 > inspector.most {
            return Err(Cause::MessageTooBig(Side::Downstream));
        }
        inspector
            .held
            .extend_from_slice(bytes.get(..n).unwrap_or_default());
        pipe.discard(n);
        frame.handle_judged(n);
        Ok(())
    }

    fn judge_whole(&mut self, whole: Whole, now: Instant) -> Step {
        match self.outcome(whole, now) {
            Outcome::Pass => {
                self.release(whole);
                self.inputs.downstream.tally.messages += 1;
            }
            Outcome::TakeOut => {
                self.take_out(whole);
                self.inputs.downstream.tally.dropped += 1;
            }
            Outcome::Refresh(token) => {
                self.take_out(whole);
                self.inputs.downstream.frame = None;
                return self.refresh(token, now);
            }
            Outcome::WaitUntil(until) => {
                // It was charged, so it must not be met again in the pipe.
                if let Whole::Here(n) = whole
                    && let Err(cause) = self.hold(n)
                {
                    return self.fail_input(Side::Downstream, cause, now);
                }
                return self.throttle(Side::Downstream, until, now);
            }
            Outcome::Fail(cause) => return self.fail_input(Side::Downstream, cause, now),
        }
        self.inputs.downstream.frame = None;
        Step::Again
    }

    /// Judges a whole message, unmasked for that time only.
    fn outcome(&mut self, whole: Whole, now: Instant) -> Outcome {
        let policy = &self.policy;
        let (Some(inspection), Some(inspector), Some(frame)) = (
            &policy.inspection,
            &mut self.inspector,
            &self.inputs.downstream.frame,
        ) else {
            return Outcome::Pass;
        };
        let verdict = match whole {
            Whole::Here(n) => {
                let bytes = self.pipes.downstream.unjudged_mut();
                let payload = bytes.get_mut(frame.header_left..n).unwrap_or_default();
                let key = frame.header.mask.unwrap_or_default();
                apply_mask(payload, key, 0);
                let verdict = verdict(inspection, payload, &inspector.grants);
                apply_mask(payload, key, 0);
                verdict
            }
            Whole::Held => verdict(inspection, &payload(&inspector.held), &inspector.grants),
        };
        match verdict {
            Err(_) if policy.limits.validate_utf8 => {
                let rule = Misbehaviour::TextNotUtf8;
                Outcome::Fail(Cause::Misbehaved(Side::Downstream, rule))
            }
            Ok(verdict) | Err(verdict) => inspector.follow(verdict, now),
        }
    }

    /// Lets a message through as it came.
    fn release(&mut self, whole: Whole) {
        match (whole, &mut self.inspector) {
            (Whole::Here(n), _) => self.admit(Side::Downstream, n, Ends::Frame),
            (Whole::Held, Some(inspector)) => {
                let frames = mem::take(&mut inspector.held);
                self.pipes.downstream.push(&frames);
                self.inputs.downstream.tally.bytes += frames.len() as u64;
            }
            (Whole::Held, None) => {}
        }
    }

    fn take_out(&mut self, whole: Whole) {
        match whole {
            Whole::Here(n) => self.pipes.downstream.discard(n),
            Whole::Held => self.forget_held(Side::Downstream),
        }
    }

    /// What the upstream gets of the first message, which is held to the rules like any other:
    /// nothing, where they take it out or it is not forwarded.
    ///
    /// # Errors
    ///
    /// The session fails.
    pub(super) fn judge_forwarded(&mut self, text: String, now: Instant) -> Result<String, Cause> {
        let (Some(inspection), Some(inspector)) = (&self.policy.inspection, &mut self.inspector)
        else {
            return Ok(text);
        };
        if text.is_empty() {
            return Ok(text);
        }
        let verdict = inspection.judge(&text, &inspector.grants);
        match inspector.follow(verdict, now) {
            // No quota makes the first of its messages wait.
            Outcome::Pass | Outcome::WaitUntil(_) => Ok(text),
            Outcome::TakeOut | Outcome::Refresh(_) => Ok(String::new()),
            Outcome::Fail(cause) => Err(cause),
        }
    }

    /// A new token came. What comes behind it waits for the verdict.
    fn refresh(&mut self, token: Option<Masked>, now: Instant) -> Step {
        if !matches!(self.phase, Phase::Relaying | Phase::Holding(_)) {
            return Step::Again;
        }
        let Some(token) = token else {
            return self.fail_input(Side::Downstream, Cause::TokenRefused, now);
        };
        self.inputs.downstream.mode = Mode::Hold;
        self.event = Some(Event::VerifyRefresh(token));
        Step::Wait
    }

    /// The new token was looked at, as [`Event::VerifyRefresh`] asked.
    pub fn handle_refreshed(&mut self, verdict: TokenVerdict, now: Instant) {
        let is_open = matches!(self.phase, Phase::Relaying | Phase::Holding(_));
        if !is_open || self.inputs.downstream.mode != Mode::Hold {
            return;
        }
        let TokenVerdict::Admitted(admitted) = verdict else {
            self.fail(Cause::TokenRefused, now);
            return;
        };
        self.keep(admitted);
        // The notice of the older token would be a lie now.
        self.unsay();
        let inspection = self.policy.inspection.as_ref();
        let refresh = inspection.and_then(|inspection| inspection.refresh.as_ref());
        if let Some(reply) = refresh.and_then(|refresh| refresh.reply.as_ref()) {
            let frame = encode_frame(OpCode::Text, None, reply.as_bytes());
            self.say(frame);
        }
        self.inputs.downstream.mode = Mode::Relay;
        self.judge(Side::Downstream, now);
    }

    /// The upstream began to close while a new token is looked at: that matters no more, and
    /// the client's answer is waited for.
    pub(super) fn give_refresh_up(&mut self, now: Instant) {
        if self.inputs.downstream.mode == Mode::Hold {
            self.inputs.downstream.mode = Mode::Relay;
            self.judge(Side::Downstream, now);
        }
    }

    /// Nothing comes of the message under way from `from`.
    pub(super) fn forget_held(&mut self, from: Side) {
        if from == Side::Downstream
            && let Some(inspector) = &mut self.inspector
        {
            inspector.held = Vec::new();
            // Of one that waits for the quota of its rule nothing is left to come.
            let frame = &mut self.inputs.downstream.frame;
            frame.take_if(|frame| frame.left() == 0);
        }
    }

    /// Bytes that are held.
    pub(super) fn held_amount(&self) -> usize {
        let held = self
            .inspector
            .as_ref()
            .map(|inspector| inspector.held.len());
        held.unwrap_or_default()
    }

    /// Memory for them: at most twice their number at its highest.
    pub(super) fn held_memory(&self) -> usize {
        let held = self.inspector.as_ref();
        held.map(|inspector| inspector.held.capacity())
            .unwrap_or_default()
    }

    /// The largest buffered amount while something was held.
    pub(super) fn held_peak(&self) -> usize {
        let inspector = self.inspector.as_ref();
        inspector
            .map(|inspector| inspector.peak)
            .unwrap_or_default()
    }
}

impl Inspector {
    /// What a verdict amounts to, with the quota of the rule that allows.
    fn follow(&mut self, verdict: Verdict, now: Instant) -> Outcome {
        let index = match verdict {
            Verdict::Allow(index) => index,
            Verdict::Refuse(Refusal::Drop, _) => return Outcome::TakeOut,
            Verdict::Refuse(Refusal::Close, objection) => {
                return Outcome::Fail(Cause::MessageRefused(objection));
            }
            Verdict::Refresh(token) => return Outcome::Refresh(token),
        };
        let quota = index.and_then(|index| self.quotas.get_mut(index));
        let Some(Some(meter)) = quota else {
            return Outcome::Pass;
        };
        match rule(meter, 1, now) {
            Ruling::Pass => Outcome::Pass,
            Ruling::Drop => Outcome::TakeOut,
            Ruling::Fail => Outcome::Fail(Cause::QuotaExceeded(QuotaKind::Rule)),
            Ruling::WaitUntil(until) => Outcome::WaitUntil(until),
        }
    }
}

/// The verdict on an unmasked message. `Err`: on one that is not even UTF-8.
fn verdict(inspection: &Inspection, payload: &[u8], grants: &Grants) -> Result<Verdict, Verdict> {
    match from_utf8(payload) {
        Ok(text) => Ok(inspection.judge(text, grants)),
        Err(_) => Err(inspection.judge_malformed(Malformed::NotUtf8)),
    }
}

/// The payload of whole frames, unmasked.
fn payload(mut frames: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(frames.len());
    while let Ok(Some((header, at))) = Header::decode(frames, Side::Downstream) {
        let (frame, rest) = frames.split_at(span(at as u64 + header.len, frames.len()));
        let start = payload.len();
        payload.extend_from_slice(frame.get(at..).unwrap_or_default());
        let unmasked = payload.get_mut(start..).unwrap_or_default();
        apply_mask(unmasked, header.mask.unwrap_or_default(), 0);
        frames = rest;
    }
    payload
}

#[cfg(test)]
mod tests;
