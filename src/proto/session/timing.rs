//! The session's deadlines, and what is due when one has passed.
//!
//! A message moves no deadline: it leaves a time behind, and the deadline that finds it
//! moves itself.

use std::time::Instant;

use super::pinging::{Pinger, RoundTrip, interval};
use super::{Closing, Phase, Session};
use crate::proto::cause::Cause;
use crate::proto::policy::{Keepalive, OnSlowConsumer};
use crate::proto::seed::{Seed, Use};
use crate::proto::side::{Side, Sides};

/// Deadlines of the whole session, and the times they are measured from.
#[derive(Debug)]
pub struct Timers {
    client: Pinger,
    /// Where the upstream is pinged.
    upstream: Option<Box<Pinger>>,
    /// Heartbeats of the client's that were answered. With the pings, since they are the same
    /// in another form.
    pub(super) heartbeats: u32,
    idle: Option<Instant>,
    last_data: Instant,
    /// The nearest of the session's lifetime, its token's expiry and the notice of that:
    /// one deadline for all that comes once, if at all, so that they cost the others nothing.
    pub(super) milestone: Option<Instant>,
    /// When the session ends, unless there is room in memory before. Boxed, since it is rare.
    pub(super) shortage: Option<Box<Instant>>,
}

impl Timers {
    /// Counts from the 101. Idleness and pings count from when the upstream is there.
    pub fn new(keepalive: &Keepalive, seed: Seed, now: Instant) -> Self {
        let lifetime = keepalive.max_lifetime;
        let lifetime = lifetime.map(|span| seed.at_most(span, Use::Lifetime, 0));
        Self {
            client: Pinger::default(),
            upstream: None,
            heartbeats: 0,
            idle: None,
            last_data: now,
            shortage: None,
            milestone: lifetime.map(|span| now + span),
        }
    }

    /// The upstream is there.
    pub fn handle_relaying(&mut self, keepalive: &Keepalive, seed: Seed, now: Instant) {
        self.last_data = now;
        self.idle = keepalive.idle_timeout.map(|span| now + span);
        let (client, upstream) = (Side::Downstream, Side::Upstream);
        self.client
            .start(interval(keepalive, client), client, seed, now);
        if interval(keepalive, upstream).is_some() {
            self.upstream.get_or_insert_default();
        }
        self.handle_upstream(keepalive, seed, now);
    }

    /// Another upstream is there.
    pub fn handle_upstream(&mut self, keepalive: &Keepalive, seed: Seed, now: Instant) {
        let to = Side::Upstream;
        if let Some(pinger) = &mut self.upstream {
            pinger.start(interval(keepalive, to), to, seed, now);
        }
    }

    /// The upstream is gone.
    pub fn handle_upstream_lost(&mut self) {
        if let Some(pinger) = &mut self.upstream {
            pinger.stop();
        }
    }

    /// A data frame went through.
    pub const fn handle_data(&mut self, now: Instant) {
        self.last_data = now;
    }

    /// Something came from `from`.
    pub fn handle_heard(&mut self, from: Side) {
        match (from, &mut self.upstream) {
            (Side::Downstream, _) => self.client.handle_heard(),
            (Side::Upstream, Some(upstream)) => upstream.handle_heard(),
            (Side::Upstream, None) => {}
        }
    }

    /// Only the closing handshake's deadline counts now.
    pub fn handle_closing(&mut self) {
        self.client.stop();
        self.handle_upstream_lost();
        self.idle = None;
        self.milestone = None;
        self.shortage = None;
    }

    /// The pings to a leg, where there are any.
    pub(super) fn pinger(&mut self, to: Side) -> Option<&mut Pinger> {
        match to {
            Side::Downstream => Some(&mut self.client),
            Side::Upstream => self.upstream.as_deref_mut(),
        }
    }

    /// How long each leg took to answer them.
    pub(super) fn round_trips(&self) -> Sides<Option<RoundTrip>> {
        let upstream = self.upstream.as_ref();
        Sides {
            downstream: self.client.round_trip(),
            upstream: upstream.and_then(|pinger| pinger.round_trip()),
        }
    }

    /// The nearest deadline of all these.
    fn nearest(&self) -> Option<Instant> {
        let nearest = earlier(self.client.deadline(), self.idle);
        let nearest = earlier(nearest, self.milestone);
        let nearest = earlier(nearest, self.shortage.as_deref().copied());
        match &self.upstream {
            None => nearest,
            Some(upstream) => earlier(nearest, upstream.deadline()),
        }
    }
}

impl Session {
    /// The nearest deadline. Call [`handle_timeout`](Self::handle_timeout) at or after it.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::AwaitToken(waiting) => Some(waiting.deadline),
            Phase::Holding(holding) => Some(holding.deadline()),
            Phase::Closing(Closing { deadline, .. }) => Some(*deadline),
            Phase::Ended(_) => return None,
            _ => None,
        };
        let (timers, legs) = (&self.timers, &self.legs);
        let throttle = &self.inputs.downstream.throttle;
        let nearest = earlier(timers.nearest(), throttle.map(|throttle| throttle.until));
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
            Phase::Holding(_) => self.handle_holding_deadline(now),
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
        if is_due(self.timers.shortage.as_deref().copied(), now) {
            self.handle_overload(now);
        }
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
        self.handle_pinging(now);
    }
}

/// The earlier of two deadlines, of which most are not set.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

pub(super) fn is_due(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}
