//! The session's deadlines, and what is due when one has passed.
//!
//! A message moves no deadline: it leaves a time behind, and the deadline that finds it
//! moves itself.

use std::time::Instant;

use super::input::Mode;
use super::leg::{Injected, SlotKind};
use super::{Closing, Phase, Session};
use crate::proto::cause::Cause;
use crate::proto::frame::{OpCode, encode_frame};
use crate::proto::policy::{Keepalive, OnSlowConsumer};
use crate::proto::side::Side;

/// What the edge's own pings begin with, so that their pongs can be told from answers to
/// the upstream's.
const PING_MARK: &[u8; 8] = b"tidegate";

/// Deadlines of the whole session, and the times they are measured from.
#[derive(Debug)]
pub struct Timers {
    ping: Option<Instant>,
    pong: Option<Pong>,
    pings: u32,
    idle: Option<Instant>,
    last_data: Instant,
    /// The nearest of the session's lifetime, its token's expiry and the notice of that:
    /// one deadline for all that comes once, if at all, so that they cost the others nothing.
    pub(super) milestone: Option<Instant>,
}

/// A ping that waits for its answer.
#[derive(Debug)]
struct Pong {
    deadline: Instant,
    /// Whether anything came from the client since the ping.
    heard: bool,
}

impl Timers {
    /// Counts from the 101. Idleness and pings count from when the upstream is there.
    pub fn new(keepalive: &Keepalive, now: Instant) -> Self {
        Self {
            ping: None,
            pong: None,
            pings: 0,
            idle: None,
            last_data: now,
            milestone: keepalive.max_lifetime.map(|span| now + span),
        }
    }

    /// The upstream is there.
    pub fn handle_relaying(&mut self, keepalive: &Keepalive, now: Instant) {
        self.last_data = now;
        self.ping = keepalive.ping_interval.map(|span| now + span);
        self.idle = keepalive.idle_timeout.map(|span| now + span);
    }

    /// A data frame went through.
    pub const fn handle_data(&mut self, now: Instant) {
        self.last_data = now;
    }

    /// Something came from `from`.
    pub const fn handle_heard(&mut self, from: Side) {
        if let (Side::Downstream, Some(pong)) = (from, &mut self.pong) {
            pong.heard = true;
        }
    }

    /// The ping has left; its answer has until `deadline`.
    pub const fn handle_ping_sent(&mut self, deadline: Instant) {
        if let Some(pong) = &mut self.pong {
            pong.deadline = deadline;
        }
    }

    /// Whether a pong from `from` answers a ping of the edge's own; then the other leg
    /// must not see it.
    pub fn handle_pong(&mut self, from: Side, payload: &[u8]) -> bool {
        let is_ours = from == Side::Downstream
            && payload.len() == PING_MARK.len() + size_of::<u32>()
            && payload.starts_with(PING_MARK);
        if is_ours {
            self.pong = None;
        }
        is_ours
    }

    /// Only the closing handshake's deadline counts now.
    pub const fn handle_closing(&mut self) {
        self.ping = None;
        self.pong = None;
        self.idle = None;
        self.milestone = None;
    }

    fn ping_payload(&mut self) -> Vec<u8> {
        self.pings = self.pings.wrapping_add(1);
        [&PING_MARK[..], &self.pings.to_be_bytes()].concat()
    }
}

impl Session {
    /// The nearest deadline. Call [`handle_timeout`](Self::handle_timeout) at or after it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::AwaitToken(waiting) => Some(waiting.deadline),
            Phase::Closing(Closing { deadline, .. }) => Some(*deadline),
            Phase::Ended(_) => return None,
            _ => None,
        };
        let (timers, legs) = (&self.timers, &self.legs);
        let throttle = &self.inputs.downstream.throttle;
        let nearest = earlier(timers.ping, timers.idle);
        let nearest = earlier(nearest, timers.pong.as_ref().map(|pong| pong.deadline));
        let nearest = earlier(nearest, timers.milestone);
        let nearest = earlier(nearest, throttle.map(|throttle| throttle.until));
        let nearest = earlier(nearest, legs.downstream.stall);
        let nearest = earlier(nearest, legs.downstream.slow);
        let nearest = earlier(nearest, legs.upstream.stall);
        earlier(nearest, phase)
    }

    /// Does what is due at `now`. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.phase {
            Phase::AwaitToken(waiting) if waiting.deadline <= now => {
                self.fail(Cause::TokenTimeout, now);
            }
            Phase::Closing(_) => self.handle_closing_deadline(now),
            _ => {}
        }
        if let Some(throttle) = self.inputs.downstream.throttle
            && throttle.until <= now
        {
            self.inputs.downstream.unthrottle(now);
            self.judge(Side::Downstream, now);
        }
        for side in [Side::Downstream, Side::Upstream] {
            if is_due(self.legs[side].stall, now) {
                self.legs[side].stall = None;
                self.fail(Cause::Stalled(side), now);
            }
        }
        if is_due(self.legs.downstream.slow, now) {
            self.legs.downstream.slow = None;
            self.fail(Cause::SlowConsumer, now);
        }
        self.handle_keepalive(now);
    }

    /// Starts or stops the time that a slow consumer has, under policy `close`.
    pub(super) fn watch_slow_consumer(&mut self, to: Side, now: Instant) {
        let policy = &self.policy.backpressure;
        if to != Side::Downstream || policy.on_slow_consumer != OnSlowConsumer::Close {
            return;
        }
        let slow = &mut self.legs.downstream.slow;
        if self.pipes.upstream.is_paused() {
            slow.get_or_insert(now + policy.stall_timeout);
        } else {
            *slow = None;
        }
    }

    fn handle_keepalive(&mut self, now: Instant) {
        if is_due(self.timers.milestone, now) {
            self.handle_milestone(now);
        }
        if is_due(self.timers.idle, now)
            && let Some(span) = self.policy.keepalive.idle_timeout
        {
            let idle = self.timers.last_data + span;
            self.timers.idle = Some(idle);
            if idle <= now {
                self.fail(Cause::Idle, now);
            }
        }
        if is_due(self.timers.pong.as_ref().map(|pong| pong.deadline), now) {
            self.handle_pong_deadline(now);
        }
        if is_due(self.timers.ping, now) {
            self.handle_ping_deadline(now);
        }
    }

    /// A client that is not read, because of a quota or of the upstream, cannot be heard,
    /// and one that is in the middle of a frame has not got the ping: they are given the
    /// time again. One that was heard without a pong lives.
    fn handle_pong_deadline(&mut self, now: Instant) {
        let waits = self.legs.downstream.slot.is_some();
        let unread = self.inputs.downstream.throttle.is_some()
            || self.inputs.downstream.mode == Mode::Hold
            || self.pipes.downstream.is_paused();
        let Some(pong) = &mut self.timers.pong else {
            return;
        };
        if waits || unread {
            pong.deadline = now + self.policy.keepalive.pong_timeout;
            return;
        }
        let heard = pong.heard;
        self.timers.pong = None;
        if !heard {
            self.fail(Cause::PongMissing, now);
        }
    }

    fn handle_ping_deadline(&mut self, now: Instant) {
        let Some(interval) = self.policy.keepalive.ping_interval else {
            self.timers.ping = None;
            return;
        };
        self.timers.ping = Some(now + interval);
        // A ping that cannot leave would measure our own buffer: the stall timeout is the
        // judge of a client that does not read.
        if self.legs.downstream.blocked || self.timers.pong.is_some() {
            return;
        }
        let ping = encode_frame(OpCode::Ping, None, &self.timers.ping_payload());
        if self.legs.downstream.inject(SlotKind::Ping, ping) == Injected::Yes {
            self.timers.pong = Some(Pong {
                deadline: now + self.policy.keepalive.pong_timeout,
                heard: false,
            });
        }
    }
}

/// The earlier of two deadlines, of which most are not set.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

pub(super) fn is_due(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}
