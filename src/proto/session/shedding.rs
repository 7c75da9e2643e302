//! What a session does when the memory of the process for bytes on their way runs short: it
//! takes no more in, or it ends and lets go of what it holds.

use std::time::Instant;

use super::leg::CloseOut;
use super::{Phase, Session};
use crate::proto::cause::Cause;
use crate::proto::side::Side;

impl Session {
    /// The session is among those that hold the most, and memory runs short: a leg is not read
    /// while anything of it is under way. One that is kept so for the stall timeout ends.
    pub fn handle_shortage(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Closing(_) | Phase::Ended(_)) {
            let deadline = now + self.policy.backpressure.stall_timeout;
            self.timers
                .shortage
                .get_or_insert_with(|| Box::new(deadline));
        }
    }

    /// There is room again.
    pub fn handle_relief(&mut self) {
        self.timers.shortage = None;
    }

    /// Memory ran out: ends the session, and lets go at once of all that it holds. A leg that
    /// has a part of a frame, or has not taken whole ones, is cut off; the other hears why.
    pub fn handle_overload(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        for from in [Side::Downstream, Side::Upstream] {
            self.shed(from, now);
        }
        if let Some(resumable) = &mut self.resumable {
            resumable.let_go();
        }
        self.fail(Cause::Overloaded, now);
        self.check_ended();
    }

    /// Bytes that the legs took and could not send yet: memory of theirs, not of the session's.
    pub const fn unflushed(&self) -> usize {
        self.pipes.downstream.unflushed() + self.pipes.upstream.unflushed()
    }

    /// Whether what comes from `from` waits for relief.
    pub(super) fn is_short_of(&self, from: Side) -> bool {
        self.timers.shortage.is_some() && self.buffered_amount(from) > 0
    }

    fn shed(&mut self, from: Side, now: Instant) {
        if self.buffered_amount(from) == 0 {
            return;
        }
        let is_cut = !self.pipes[from].is_sent_to_boundary();
        self.abandon_input(from, now);
        self.pipes[from].discard_unsent();
        let to = &mut self.legs[from.other()];
        if is_cut && to.close != CloseOut::Sent {
            to.slot = None;
            to.close = CloseOut::Impossible;
        }
    }
}

#[cfg(test)]
mod tests;
