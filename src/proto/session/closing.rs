//! How a session ends: the one funnel [`Session::fail`], the closing handshake that the
//! peers began, and the end of both legs.

use std::time::{Duration, Instant};

use super::input::{Fate, Mode};
use super::leg::{CloseOut, Injected, SlotKind};
use super::{Closing, Event, Phase, Session};
use crate::proto::cause::{Cause, Verdict};
use crate::proto::close::{self, CloseCode};
use crate::proto::frame::{OpCode, encode_frame};
use crate::proto::message::Place;
use crate::proto::side::Side;

impl Session {
    /// Ends the session for `cause`. Every way to end it but a peer's own Close passes
    /// through here; the first cause stands.
    pub(super) fn fail(&mut self, cause: Cause, now: Instant) {
        if matches!(self.phase, Phase::Closing(_) | Phase::Ended(_)) {
            return;
        }
        self.begin_closing(cause, now);
        for side in [Side::Downstream, Side::Upstream] {
            if matches!(cause, Cause::Drained | Cause::LifetimeOver) {
                self.finish_message(side);
            }
            self.wind_down_input(side, now);
        }
        for side in [Side::Downstream, Side::Upstream] {
            if self.inputs[side.other()].mode != Mode::FinishMessage {
                self.queue_close(side, cause.verdicts()[side]);
            }
        }
        self.check_ended();
    }

    /// Nobody waits for the session any longer: it is over, whatever it was at.
    pub fn handle_cut_off(&mut self, now: Instant) {
        self.fail(Cause::Drained, now);
        if let Phase::Closing(Closing { cause, .. }) = &self.phase {
            self.end(*cause);
        }
    }

    /// A peer's Close was judged; in `Relay` it is already on its way to the other leg.
    pub(super) fn handle_close(&mut self, from: Side, code: Option<CloseCode>, now: Instant) {
        self.legs[from].closed = true;
        self.forget_held(from);
        let to = from.other();
        let mode = std::mem::replace(&mut self.inputs[from].mode, Mode::Discard);
        if mode == Mode::FinishMessage {
            self.queue_late_close(to);
        }
        let relayed = mode == Mode::Relay;
        if relayed && self.legs[to].connected {
            // A ping that has not left yet must not follow the Close.
            self.legs[to].withdraw();
            if self.legs[to].close == CloseOut::None {
                self.legs[to].close = CloseOut::Queued;
                self.legs[to].close_code = code;
            }
        }
        if matches!(self.phase, Phase::Closing(_) | Phase::Ended(_)) {
            self.check_ended();
            return;
        }
        let cause = Cause::Closed { by: from, code };
        if self.legs[to].connected {
            self.begin_closing(cause, now);
            self.give_refresh_up(now);
        } else {
            // No upstream yet: the edge answers itself.
            self.fail(cause, now);
        }
    }

    /// `from` ended, or broke, without a Close.
    pub(super) fn handle_vanished(&mut self, from: Side, now: Instant) {
        self.abandon_input(from, now);
        if let Phase::Closing(_) | Phase::Ended(_) = self.phase {
            if self.legs[from].gone {
                // What the other one still says goes nowhere; only its Close is waited for.
                self.wind_down_input(from.other(), now);
            }
            // It may have been the one to answer a Close.
            self.answer_late(from.other());
            return;
        }
        self.legs[from].handle_gone();
        self.pipes[from.other()].discard_unsent();
        self.fail(Cause::Vanished(from), now);
    }

    /// Nothing more of what `from` sends will be judged. A frame that the other leg has a
    /// part of stays broken off there, and no Close can follow it.
    pub(super) fn abandon_input(&mut self, from: Side, now: Instant) {
        let mode = std::mem::replace(&mut self.inputs[from].mode, Mode::Discard);
        self.inputs[from].frame = None;
        self.forget_held(from);
        self.inputs[from].unthrottle(now);
        self.pipes[from].discard_unjudged();
        self.pipes[from].cut_to_boundary();
        if mode == Mode::FinishMessage {
            self.queue_late_close(from.other());
        }
        let to = &mut self.legs[from.other()];
        if to.close == CloseOut::Queued && !self.pipes[from].is_whole() {
            to.slot = None;
            to.close = CloseOut::Impossible;
        }
    }

    /// The closing handshake took its time.
    pub(super) fn handle_closing_deadline(&mut self, now: Instant) {
        let Phase::Closing(Closing { cause, deadline }) = &mut self.phase else {
            return;
        };
        if now < *deadline {
            return;
        }
        let cause = *cause;
        let finishing = [Side::Downstream, Side::Upstream];
        if finishing
            .iter()
            .any(|from| self.inputs[*from].mode == Mode::FinishMessage)
        {
            // Its Close can still be given to the leg that waits for the rest of a message.
            *deadline = now + LATE_ANSWER;
            for from in finishing {
                if self.inputs[from].mode == Mode::FinishMessage {
                    self.abandon_input(from, now);
                }
            }
            self.check_ended();
            return;
        }
        if let Cause::Closed { by, .. } = cause
            && self.legs[by].close == CloseOut::None
        {
            *deadline = now + LATE_ANSWER;
            self.abandon_input(by.other(), now);
            self.legs[by.other()].handle_gone();
            self.pipes[by].discard_unsent();
            self.answer_late(by);
            self.check_ended();
            return;
        }
        self.end(cause);
    }

    /// Ends the session if both legs have nothing left to do.
    pub(super) fn check_ended(&mut self) {
        if let &Phase::Closing(Closing { cause, .. }) = &self.phase
            && self.legs.downstream.is_finished()
            && self.legs.upstream.is_finished()
        {
            self.end(cause);
        }
    }

    fn begin_closing(&mut self, cause: Cause, now: Instant) {
        self.note_held(now);
        let deadline = now + self.policy.close_timeout;
        self.phase = Phase::Closing(Closing { cause, deadline });
        self.event = None;
        self.timers.handle_closing();
        self.life = None;
        self.saying = None;
    }

    fn end(&mut self, cause: Cause) {
        self.phase = Phase::Ended(cause);
        self.event = Some(Event::Ended);
    }

    /// Answers the Close of `by` in the other peer's stead, with its own code, if `by`
    /// began the closing handshake and has no answer yet.
    pub(super) fn answer_late(&mut self, by: Side) {
        if let Phase::Closing(Closing { cause, .. }) = &self.phase
            && matches!(cause, Cause::Closed { by: began, .. } if *began == by)
        {
            let verdict = cause.verdicts()[by];
            self.queue_close(by, verdict);
        }
    }

    /// Lets the message go through that the other leg has a part of, as the next steps find it.
    fn finish_message(&mut self, from: Side) {
        let to = &self.legs[from.other()];
        let is_held = from == Side::Downstream && self.held_amount() > 0;
        let begun = self.pipes[from].is_begun();
        let input = &mut self.inputs[from];
        if input.mode != Mode::Relay || !to.connected || to.gone || is_held {
            return;
        }
        let has_part = match &mut input.frame {
            None => input.message.is_open() && !input.dropping,
            Some(frame) => match (frame.fate, frame.place) {
                (Fate::Admit, Place::First) => begun && !frame.is_final(),
                (Fate::Admit, Place::Later) => true,
                (Fate::Undecided, Place::Later) if !input.dropping => {
                    frame.fate = Fate::Admit;
                    true
                }
                _ => false,
            },
        };
        if has_part {
            input.mode = Mode::FinishMessage;
        }
    }

    /// Lets the frame go through that the other leg has a part of, and admits nothing else.
    fn wind_down_input(&mut self, from: Side, now: Instant) {
        if self.inputs[from].mode == Mode::Discard {
            return;
        }
        self.inputs[from].unthrottle(now);
        self.forget_held(from);
        let to = &self.legs[from.other()];
        if to.gone || !to.connected {
            self.pipes[from].discard_unsent();
        }
        let begun = self.pipes[from].is_begun();
        let input = &mut self.inputs[from];
        match &mut input.frame {
            _ if input.mode == Mode::FinishMessage => {}
            Some(_) if begun => input.mode = Mode::Finish,
            frame => {
                if let Some(frame) = frame {
                    frame.fate = Fate::Drop;
                }
                input.mode = Mode::Watch;
                self.pipes[from].cut_to_boundary();
            }
        }
        self.judge(from, now);
    }

    /// Queues the Close that `to` was to get behind a message.
    pub(super) fn queue_late_close(&mut self, to: Side) {
        if let Phase::Closing(Closing { cause, .. }) = &self.phase {
            let verdict = cause.verdicts()[to];
            self.queue_close(to, verdict);
        }
    }

    /// Puts the edge's Close into the slot of `to`, if it can ever leave.
    fn queue_close(&mut self, to: Side, (code, reason): Verdict) {
        let from = to.other();
        let leg = &mut self.legs[to];
        if !leg.connected || leg.gone || leg.close != CloseOut::None {
            return;
        }
        // Inside a frame whose rest will never come there is no boundary to wait for.
        if self.inputs[from].mode == Mode::Discard && !self.pipes[from].is_whole() {
            leg.close = CloseOut::Impossible;
            return;
        }
        let mask = match to {
            Side::Downstream => None,
            Side::Upstream => Some(self.mask_keys.close),
        };
        let frame = encode_frame(OpCode::Close, mask, &close::payload(code, reason));
        leg.withdraw();
        if leg.inject(SlotKind::Close, frame) == Injected::Yes {
            leg.close = CloseOut::Queued;
            leg.close_code = Some(code);
        }
    }
}

/// How long an answer in the peer's stead may take to leave, once the other peer has let
/// the closing handshake's own time pass.
const LATE_ANSWER: Duration = Duration::from_secs(1);
