//! One session: composes the frame rules, the limits and the two pipes into phases.
//!
//! `AwaitToken → AwaitVerdict → AwaitUpstream → Relaying → Closing → Ended`; a session
//! whose request head was enough starts at `Relaying`, and one that outlives its upstream is
//! `Holding` until it relays again. Touches no socket, reads no clock.
//! The order of calls is in the documentation of [`proto`](crate::proto).

mod admitting;
mod closing;
mod deciding;
mod holding;
mod input;
mod inspecting;
mod judging;
mod leg;
mod life;
mod pinging;
mod revising;
mod shedding;
mod start;
mod summary;
mod timing;
mod wording;

use std::sync::Arc;
use std::time::Instant;

pub use self::holding::Holds;
use self::holding::{Holding, Resumable};
pub use self::input::Tally;
use self::input::{Input, Mode};
use self::inspecting::Inspector;
use self::leg::{CloseOut, Leg, SlotKind};
pub use self::life::Admitted;
use self::life::{Life, Saying};
pub use self::pinging::RoundTrip;
pub use self::summary::Summary;
use self::timing::Timers;
use crate::proto::cause::Cause;
use crate::proto::limits::Meter;
use crate::proto::pipe::Pipe;
use crate::proto::policy::Policy;
use crate::proto::seed::Seed;
use crate::proto::side::{Side, Sides};
use crate::proto::token::{Collector, Masked};

/// Masking keys for the frames the edge itself sends to the upstream: unpredictable, each
/// used once (RFC 6455 §5.3). And what everything else is drawn from that must be random.
#[derive(Clone, Copy, Debug)]
pub struct MaskKeys {
    /// For the forwarded first message.
    pub first_message: [u8; 4],
    /// For Close.
    pub close: [u8; 4],
    /// For pings and jitter.
    pub seed: Seed,
}

/// What the driver must do for the session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The first message is complete: verify the token in it, then call
    /// [`Session::handle_token`].
    VerifyToken(Masked),
    /// The client brought a new token: verify it, then call [`Session::handle_refreshed`].
    VerifyRefresh(Masked),
    /// The token is good: dial, then call [`Session::handle_dialed`].
    Dial,
    /// The upstream leg is lost and the client stays: drop what is left of it, dial again, then
    /// call [`Session::handle_redialed`]. The session goes on meanwhile, and may end.
    Redial,
    /// Everything is over: drop both connections.
    Ended,
}

/// The answer to [`Event::VerifyToken`] and [`Event::VerifyRefresh`]. The reason of a refusal is the log's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenVerdict {
    /// The token is good.
    Admitted(Admitted),
    /// It is not.
    Refused,
    /// It is, and whoever is asked about its bearer says no.
    Forbidden,
    /// Nobody could say.
    Unavailable,
    /// It is, and the route has as many sessions as it may.
    RouteFull,
    /// It is, and its subject has as many sessions as it may.
    SubjectFull,
}

#[derive(Debug)]
enum Phase {
    /// Boxed, since it is the largest and the first to go.
    AwaitToken(Box<AwaitToken>),
    AwaitVerdict {
        first_message: Masked,
    },
    AwaitUpstream {
        first_message: Masked,
    },
    Relaying,
    /// Boxed, since it is rare.
    Holding(Box<Holding>),
    Closing(Closing),
    Ended(Cause),
}

#[derive(Debug)]
struct AwaitToken {
    collector: Collector,
    deadline: Instant,
}

#[derive(Debug)]
struct Closing {
    cause: Cause,
    deadline: Instant,
}

#[derive(Debug)]
struct Meters {
    messages: Option<Meter>,
    bytes: Option<Meter>,
    control: Meter,
}

/// One client, its upstream, and all the rules between them.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    phase: Phase,
    /// By the leg that feeds them.
    pipes: Sides<Pipe>,
    inputs: Sides<Input>,
    legs: Sides<Leg>,
    meters: Meters,
    timers: Timers,
    /// Where messages are looked into.
    inspector: Option<Box<Inspector>>,
    /// What is kept of the token; nothing where there is none, or nothing to keep.
    life: Option<Box<Life>>,
    /// What is kept of the upstream leg's stream, where the session can outlive it.
    resumable: Option<Box<Resumable>>,
    /// At most one: a newer replaces it.
    saying: Option<Box<Saying>>,
    event: Option<Event>,
    mask_keys: MaskKeys,
}

impl Session {
    /// Lends scratch memory to the pipe that `from` feeds; see [`Pipe::lend`].
    pub fn lend(&mut self, from: Side, scratch: Vec<u8>) -> Option<Vec<u8>> {
        self.pipes[from].lend(scratch)
    }

    /// Takes it back; see [`Pipe::reclaim`].
    pub fn reclaim(&mut self, from: Side) -> Option<Vec<u8>> {
        self.pipes[from].reclaim()
    }

    /// Where the next bytes from `from` go. Empty: do not read it. This is backpressure,
    /// and the throttle.
    pub fn space(&mut self, from: Side) -> &mut [u8] {
        let input = &self.inputs[from];
        let waits = input.throttle.is_some() || input.mode == Mode::Hold;
        let waits = waits || self.is_short_of(from);
        if waits || self.legs[from].eof || self.is_ended() {
            return &mut [];
        }
        let most = match (&self.phase, &self.policy.first_message) {
            // A stranger may fill no more than its first message needs.
            (Phase::AwaitToken(_), Some(first)) => first.max_size + FIRST_MESSAGE_SLACK,
            _ if self.leaves_room_to_drop(from) => self.room_before_dropping(),
            _ => usize::MAX,
        };
        self.pipes[from].space(most)
    }

    /// `n` bytes from `from` are in [`space`](Self::space) now: judges them.
    pub fn handle_filled(&mut self, from: Side, n: usize, now: Instant) {
        self.pipes[from].handle_filled(n);
        self.timers.handle_heard(from);
        self.judge(from, now);
        self.watch_slow_consumer(from.other(), now);
    }

    /// `from` will send nothing more.
    pub fn handle_eof(&mut self, from: Side, now: Instant) {
        let leg = &self.legs[from];
        if leg.eof || (!leg.closed && self.outlives(from, now)) {
            return;
        }
        let leg = &mut self.legs[from];
        leg.eof = true;
        if !leg.closed {
            self.handle_vanished(from, now);
        }
        self.check_ended();
    }

    /// The connection of `side` is broken: nothing comes, nothing goes.
    pub fn handle_reset(&mut self, side: Side, now: Instant) {
        if self.legs[side].gone || self.outlives(side, now) {
            return;
        }
        self.legs[side].handle_gone();
        self.pipes[side.other()].discard_unsent();
        self.handle_vanished(side, now);
        self.check_ended();
    }

    /// What `to` should be sent next. Empty: nothing.
    pub fn pending(&self, to: Side) -> &[u8] {
        let (leg, pipe) = (&self.legs[to], &self.pipes[to.other()]);
        if leg.gone || self.is_ended() {
            return &[];
        }
        match &leg.slot {
            Some(slot) if leg.sends_slot(pipe) => slot.rest(),
            Some(_) => pipe.unsent_to_boundary(),
            None if !leg.connected => &[],
            None if matches!(leg.close, CloseOut::Taken | CloseOut::Sent) => &[],
            None => pipe.unsent(),
        }
    }

    /// `to` took `n` bytes of [`pending`](Self::pending).
    pub fn handle_sent(&mut self, to: Side, n: usize, now: Instant) {
        let from = to.other();
        let leg = &mut self.legs[to];
        leg.blocked = false;
        leg.stall = None;
        match leg.sends_slot(&self.pipes[from]) {
            true => {
                if leg.handle_slot_sent(n) == Some(SlotKind::Ping) {
                    self.handle_ping_sent(to, now);
                }
            }
            false => {
                if let (Side::Upstream, Some(resumable)) = (to, &mut self.resumable) {
                    let sent = self.pipes[from].unsent().get(..n).unwrap_or_default();
                    resumable.replay.handle_sent(sent);
                }
                self.pipes[from].handle_sent(n);
                if leg.close == CloseOut::Queued
                    && leg.slot.is_none()
                    && self.pipes[from].unsent().is_empty()
                {
                    leg.close = CloseOut::Taken;
                }
            }
        }
        self.watch_slow_consumer(to, now);
    }

    /// The socket of `to` has everything that `to` took.
    pub fn handle_flushed(&mut self, to: Side, now: Instant) {
        if self.is_ended() {
            return;
        }
        self.pipes[to.other()].handle_flushed();
        let leg = &mut self.legs[to];
        leg.blocked = false;
        leg.stall = None;
        if leg.close == CloseOut::Taken {
            leg.close = CloseOut::Sent;
        }
        if to == Side::Downstream {
            self.say_if_possible();
        }
        self.watch_slow_consumer(to, now);
        self.check_ended();
    }

    /// `to` takes nothing at present. From here the stall timeout runs.
    pub fn handle_blocked(&mut self, to: Side, now: Instant) {
        let stall_timeout = self.policy.backpressure.stall_timeout;
        let leg = &mut self.legs[to];
        if leg.connected {
            leg.blocked = true;
            leg.stall.get_or_insert(now + stall_timeout);
        }
    }

    /// Whether the writing half of `to` should be shut down now; then call
    /// [`handle_shut`](Self::handle_shut).
    pub fn can_shut(&self, to: Side) -> bool {
        let leg = &self.legs[to];
        let hears_nothing = self.inputs[to].mode == Mode::Discard;
        let is_next = leg.close == CloseOut::Sent && !leg.gone && !leg.shut && !self.is_ended();
        is_next && (leg.closed || leg.eof || hears_nothing)
    }

    /// The writing half of `to` is shut down.
    pub fn handle_shut(&mut self, to: Side) {
        self.legs[to].shut = true;
        self.check_ended();
    }

    /// The process drains: ends the session behind the message that is under way to each leg.
    pub fn handle_drain(&mut self, now: Instant) {
        self.fail(Cause::Drained, now);
    }

    /// What the driver must do, if anything.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take().or_else(|| self.poll_redial())
    }

    /// Whether the session is over.
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Bytes held in user space on their way from `from` to the other leg.
    pub fn buffered_amount(&self, from: Side) -> usize {
        let held = match from {
            Side::Downstream => self.held_amount(),
            Side::Upstream => 0,
        };
        self.pipes[from].buffered_amount() + held
    }

    /// Memory that the session owns for bytes on their way. An idle session owns none.
    pub fn owned_memory(&self) -> usize {
        let resumable = self.resumable.as_ref();
        self.pipes.downstream.owned()
            + self.pipes.upstream.owned()
            + self.held_memory()
            + resumable.map_or(0, |resumable| resumable.owned())
    }
}

/// Room beside the first message itself: frame headers of its fragments, and a control
/// frame in between.
const FIRST_MESSAGE_SLACK: usize = 1024;

#[cfg(test)]
mod tests;
