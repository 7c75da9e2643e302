//! The edge's own pings: when the next leaves, which pong answers it, how long that took.
//!
//! Their payload holds a mark that was drawn for the session and the leg. So a pong is the
//! edge's own or the other peer's beyond doubt, also where one edge stands behind another.

use std::time::{Duration, Instant};

use super::input::Mode;
use super::leg::{Injected, SlotKind};
use super::timing::{earlier, is_due};
use super::{Phase, Session};
use crate::proto::cause::Cause;
use crate::proto::frame::{OpCode, encode_frame};
use crate::proto::policy::Keepalive;
use crate::proto::seed::{Seed, Use};
use crate::proto::side::Side;

/// What the payload of each ping begins with, for whoever looks at the wire.
const NAME: &[u8; 8] = b"tidegate";

/// The name, the mark and the ping's number.
type Payload = [u8; 20];

/// How long pongs took to come, as the worker saw it. Of those to pings of the edge's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// The newest.
    pub last: Duration,
    /// The shortest: what the line itself takes.
    pub least: Duration,
    /// Smoothed as in RFC 6298 §2, an eighth of each newer one.
    pub smoothed: Duration,
}

/// The pings towards one leg.
#[derive(Debug, Default)]
pub(super) struct Pinger {
    next: Option<Instant>,
    /// Boxed, since it is there for a round trip in each interval.
    awaited: Option<Box<Awaited>>,
    /// Pings so far, which is the number of the newest.
    count: u32,
    times: Micros,
    /// Whether anything came from the leg since the newest ping left, and in the time from the
    /// one before to that.
    heard: bool,
    heard_before: bool,
}

/// A ping that waits for its answer.
#[derive(Debug)]
struct Awaited {
    deadline: Instant,
    /// When the leg took it; `None`: it has not left.
    sent: Option<Instant>,
}

/// A [`RoundTrip`] in little room; all zero: there was none.
#[derive(Clone, Copy, Debug, Default)]
struct Micros {
    last: u32,
    least: u32,
    smoothed: u32,
}

impl Pinger {
    /// The leg is there: counts from now.
    pub(super) fn start(&mut self, interval: Option<Duration>, to: Side, seed: Seed, now: Instant) {
        self.awaited = None;
        self.next = interval.and_then(|span| self.after(span, to, seed, now));
    }

    /// There will be no more.
    pub(super) fn stop(&mut self) {
        self.next = None;
        self.awaited = None;
    }

    /// The nearest deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.awaited {
            None => self.next,
            Some(awaited) => earlier(self.next, Some(awaited.deadline)),
        }
    }

    /// Something came from the leg.
    pub(super) const fn handle_heard(&mut self) {
        self.heard = true;
    }

    /// The ping has left; its answer has until `deadline`.
    fn handle_sent(&mut self, deadline: Instant, now: Instant) {
        if let Some(awaited) = &mut self.awaited {
            **awaited = Awaited {
                deadline,
                sent: Some(now),
            };
            self.heard_before = self.heard;
            self.heard = false;
        }
    }

    /// Whether a pong answers a ping of the edge's own to this leg. Only the answer to the
    /// newest that has left is one: a late one, or one that was made up, changes nothing.
    fn handle_pong(&mut self, payload: &[u8], to: Side, seed: Seed, now: Instant) -> bool {
        let Some((number, mark)) = payload
            .split_last_chunk()
            .map(|(mark, number)| (u32::from_be_bytes(*number), mark))
        else {
            return false;
        };
        if self.count == 0 || *mark != self::mark(to, seed) {
            return false;
        }
        if number == self.count
            && let Some(sent) = self.awaited.as_ref().and_then(|awaited| awaited.sent)
        {
            self.awaited = None;
            self.times.push(now.saturating_duration_since(sent));
        }
        true
    }

    /// What the record says.
    pub(super) fn round_trip(&self) -> Option<RoundTrip> {
        let Micros {
            last,
            least,
            smoothed,
        } = self.times;
        let span = |micros: u32| Duration::from_micros(micros.into());
        (last > 0).then(|| RoundTrip {
            last: span(last),
            least: span(least),
            smoothed: span(smoothed),
        })
    }

    fn after(&self, interval: Duration, to: Side, seed: Seed, now: Instant) -> Option<Instant> {
        let what = match to {
            Side::Downstream => Use::ClientPing,
            Side::Upstream => Use::UpstreamPing,
        };
        now.checked_add(seed.around(interval, what, self.count))
    }

    fn next_payload(&mut self, to: Side, seed: Seed) -> Payload {
        // One a second, which is the fastest, lasts for 136 years.
        self.count = self.count.saturating_add(1);
        let mut payload = Payload::default();
        let (mark, number) = payload.split_at_mut(16);
        mark.copy_from_slice(&self::mark(to, seed));
        number.copy_from_slice(&self.count.to_be_bytes());
        payload
    }
}

impl Micros {
    fn push(&mut self, span: Duration) {
        // At least one, since zero means that there was none.
        let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX).max(1);
        *self = match self.last {
            0 => Self {
                last: micros,
                least: micros,
                smoothed: micros,
            },
            _ => Self {
                last: micros,
                least: self.least.min(micros),
                smoothed: self.smoothed - self.smoothed / 8 + micros / 8,
            },
        };
    }
}

/// The payload but for its number.
fn mark(to: Side, seed: Seed) -> [u8; 16] {
    let what = match to {
        Side::Downstream => Use::ClientMark,
        Side::Upstream => Use::UpstreamMark,
    };
    let drawn = seed.draw(what, 0).to_be_bytes();
    let mut mark = [0; 16];
    for (place, byte) in mark.iter_mut().zip(NAME.iter().chain(&drawn)) {
        *place = *byte;
    }
    mark
}

impl Session {
    /// The leg of `to` took a ping of the edge's.
    pub(super) fn handle_ping_sent(&mut self, to: Side, now: Instant) {
        let deadline = now + self.policy.keepalive.pong_timeout;
        if let Some(pinger) = self.timers.pinger(to) {
            pinger.handle_sent(deadline, now);
        }
    }

    /// Whether a pong from `from` answers a ping of the edge's own; then the other leg must
    /// not see it.
    pub(super) fn handle_pong(&mut self, from: Side, payload: &[u8], now: Instant) -> bool {
        let seed = self.mask_keys.seed;
        let pinger = self.timers.pinger(from);
        pinger.is_some_and(|pinger| pinger.handle_pong(payload, from, seed, now))
    }

    /// Does what is due of pings and pongs.
    pub(super) fn handle_pinging(&mut self, now: Instant) {
        for side in [Side::Downstream, Side::Upstream] {
            let Some(pinger) = self.timers.pinger(side) else {
                continue;
            };
            let missing = pinger.awaited.as_ref().map(|awaited| awaited.deadline);
            if is_due(missing, now) {
                self.handle_pong_deadline(side, now);
            }
            let next = self.timers.pinger(side).and_then(|pinger| pinger.next);
            if is_due(next, now) {
                self.ping(side, now);
            }
        }
    }

    /// A peer that is not read, because of a quota or of the other peer, cannot be heard, and
    /// one that is in the middle of a frame has not got the ping: they are given the time
    /// again. One that was heard without a pong lives; where clients have a heartbeat of
    /// their own, since pings may not reach them, also one that was heard since the ping before.
    fn handle_pong_deadline(&mut self, side: Side, now: Instant) {
        let waits = self.legs[side].slot.is_some();
        let input = &self.inputs[side];
        let unread = input.throttle.is_some() || input.mode == Mode::Hold;
        let unread = unread || self.pipes[side].is_paused() || self.is_short_of(side);
        let again = now + self.policy.keepalive.pong_timeout;
        let has_heartbeat = side == Side::Downstream && self.policy.keepalive.heartbeat.is_some();
        let Some(pinger) = self.timers.pinger(side) else {
            return;
        };
        if let Some(awaited) = &mut pinger.awaited
            && (waits || unread)
        {
            awaited.deadline = again;
            return;
        }
        let awaited = pinger.awaited.take();
        let was_heard = pinger.heard || has_heartbeat && pinger.heard_before;
        let is_missing = awaited.is_some() && !was_heard;
        // An upstream that is dead behind an open connection is lost like any other.
        if is_missing && !self.outlives(side, now) {
            self.fail(Cause::PongMissing(side), now);
        }
    }

    fn ping(&mut self, to: Side, now: Instant) {
        let seed = self.mask_keys.seed;
        let interval = interval(&self.policy.keepalive, to);
        let deadline = now + self.policy.keepalive.pong_timeout;
        let is_open = matches!(self.phase, Phase::Relaying | Phase::Holding(_));
        let leg = &mut self.legs[to];
        let Some(pinger) = self.timers.pinger(to) else {
            return;
        };
        pinger.next = interval.and_then(|span| pinger.after(span, to, seed, now));
        // A ping that cannot leave would measure our own buffer: the stall timeout is the
        // judge of a peer that does not read.
        if interval.is_none() || leg.blocked || pinger.awaited.is_some() || !is_open {
            return;
        }
        let payload = pinger.next_payload(to, seed);
        let mask = match to {
            Side::Downstream => None,
            Side::Upstream => Some(mask_key(seed, pinger.count)),
        };
        let frame = encode_frame(OpCode::Ping, mask, &payload);
        if leg.inject(SlotKind::Ping, frame) == Injected::Yes {
            pinger.awaited = Some(Box::new(Awaited {
                deadline,
                sent: None,
            }));
        }
    }
}

/// How often the leg of `to` is pinged.
pub(super) const fn interval(keepalive: &Keepalive, to: Side) -> Option<Duration> {
    match to {
        Side::Downstream => keepalive.ping_interval,
        Side::Upstream => keepalive.upstream_ping_interval,
    }
}

fn mask_key(seed: Seed, n: u32) -> [u8; 4] {
    let [a, b, c, d, ..] = seed.draw(Use::Mask, n).to_be_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
