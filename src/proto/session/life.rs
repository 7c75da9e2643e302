//! The life of the token that admitted a session: what is kept of it, the notice before it
//! expires, and the end.
//!
//! All of it is cold: it lies in a box of its own, and shares one deadline with the maximum
//! lifetime.

use std::time::Instant;

use super::input::Mode;
use super::timing::is_due;
use super::{Phase, Session};
use crate::proto::cause::Cause;
use crate::proto::frame::{OpCode, encode_frame};
use crate::proto::policy::OnExpiry;
use crate::proto::rule::Grants;

/// What a session keeps of the token that admitted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The moment from which the token would be refused; `None`: it never expires.
    pub expires: Option<Instant>,
    /// What the rules of the route ask the token for.
    pub grants: Grants,
}

/// The deadlines that the milestone is the nearest of.
#[derive(Debug)]
pub(super) struct Life {
    /// The maximum lifetime's.
    lifetime: Option<Instant>,
    expires: Instant,
    notice: Option<Instant>,
}

/// Text of the edge's own for the client, which waits for room and for the end of the
/// upstream's message under way.
#[derive(Debug, Default)]
pub(super) struct Saying {
    /// A frame. A newer one replaces it.
    frame: Option<Vec<u8>>,
    /// Whether heartbeats wait for their answer: one for all, as one pong does.
    heartbeat: bool,
}

impl Life {
    fn nearest(&self) -> Instant {
        [self.lifetime, self.notice]
            .into_iter()
            .flatten()
            .fold(self.expires, Instant::min)
    }
}

impl Session {
    /// Keeps what matters of a token, in place of an older one.
    pub(super) fn keep(&mut self, admitted: Admitted) {
        if let Some(inspector) = &mut self.inspector {
            inspector.grants = admitted.grants;
        }
        let lifetime = match self.life.take() {
            Some(older) => older.lifetime,
            None => self.timers.milestone,
        };
        self.timers.milestone = lifetime;
        let (Some(expires), OnExpiry::Close { notice }) =
            (admitted.expires, &self.policy.on_expiry)
        else {
            return;
        };
        let notice = notice
            .as_ref()
            .map(|notice| expires.checked_sub(notice.before).unwrap_or(expires));
        let life = Life {
            lifetime,
            expires,
            notice,
        };
        self.timers.milestone = Some(life.nearest());
        self.life = Some(Box::new(life));
    }

    /// The token was revoked: ends the session at the next boundary of each leg.
    pub fn handle_revoked(&mut self, now: Instant) {
        self.fail(Cause::TokenRevoked, now);
    }

    /// The milestone is reached: which of the deadlines was it?
    pub(super) fn handle_milestone(&mut self, now: Instant) {
        let Some(life) = &mut self.life else {
            self.fail(Cause::LifetimeOver, now);
            return;
        };
        if life.expires <= now {
            self.fail(Cause::TokenExpired, now);
            return;
        }
        if is_due(life.lifetime, now) {
            self.fail(Cause::LifetimeOver, now);
            return;
        }
        let notify = is_due(life.notice, now);
        if notify {
            life.notice = None;
        }
        self.timers.milestone = Some(life.nearest());
        if let OnExpiry::Close {
            notice: Some(notice),
        } = &self.policy.on_expiry
            && notify
        {
            let frame = encode_frame(OpCode::Text, None, notice.message.as_bytes());
            self.say(frame);
        }
    }

    /// Tells the client something when it can be told, in place of what still waits.
    pub(super) fn say(&mut self, frame: Vec<u8>) {
        self.saying.get_or_insert_default().frame = Some(frame);
        self.say_if_possible();
    }

    /// Takes back what the client was to be told, but for answers to its heartbeats.
    pub(super) fn unsay(&mut self) {
        if let Some(saying) = &mut self.saying {
            saying.frame = None;
        }
    }

    /// The client sent a heartbeat.
    pub(super) fn answer_heartbeat(&mut self) {
        // While the session closes only its Close still goes out.
        if matches!(self.phase, Phase::Relaying | Phase::Holding(_)) {
            self.saying.get_or_insert_default().heartbeat = true;
            self.say_if_possible();
        }
    }

    /// Puts the edge's own texts behind what the upstream has sent, if any wait.
    pub(super) fn say_if_possible(&mut self) {
        // Nearly always: it is asked at every message of the upstream's.
        if self.saying.is_none() && !self.is_leg_unsaid() {
            return;
        }
        if self.can_say() {
            self.say_about_leg();
        }
        if self.can_say()
            && let Some(saying) = self.saying.take()
        {
            let heartbeat = self.policy.keepalive.heartbeat.as_ref();
            if let Some(heartbeat) = heartbeat.filter(|_| saying.heartbeat) {
                let frame = encode_frame(OpCode::Text, None, heartbeat.reply.as_bytes());
                self.pipes.upstream.push(&frame);
            }
            if let Some(frame) = saying.frame {
                self.pipes.upstream.push(&frame);
            }
        }
    }

    /// Whether no message of the upstream's is open (RFC 6455 §5.4) and the client has room.
    fn can_say(&self) -> bool {
        let input = &self.inputs.upstream;
        let is_between = match self.phase {
            Phase::Relaying => {
                input.mode == Mode::Relay && input.frame.is_none() && !input.message.is_open()
            }
            // Nothing but whole messages was kept.
            Phase::Holding(_) => true,
            _ => false,
        };
        is_between
            && self.pipes.upstream.admitted_amount() < self.policy.backpressure.high_watermark
    }
}

#[cfg(test)]
mod tests;
