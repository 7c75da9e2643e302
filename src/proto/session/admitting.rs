//! From the verdict on the token to the upstream leg.

use std::sync::Arc;
use std::time::Instant;

use super::input::Mode;
use super::leg::Leg;
use super::{Event, Phase, Session, TokenVerdict};
use crate::proto::cause::{Cause, DialFailure};
use crate::proto::frame::{OpCode, encode_frame};
use crate::proto::side::Side;
use crate::proto::token::Masked;

impl Session {
    /// The token was looked at.
    pub fn handle_token(&mut self, verdict: TokenVerdict, now: Instant) {
        let Phase::AwaitVerdict { first_message } = &mut self.phase else {
            return;
        };
        match verdict {
            TokenVerdict::Refused => self.fail(Cause::TokenRefused, now),
            TokenVerdict::Forbidden => self.fail(Cause::AdmissionForbidden, now),
            TokenVerdict::Unavailable => self.fail(Cause::AdmissionUnavailable, now),
            TokenVerdict::RouteFull => self.fail(Cause::RouteFull, now),
            TokenVerdict::SubjectFull => self.fail(Cause::SubjectFull, now),
            TokenVerdict::Admitted(admitted) => {
                let Masked(first_message) = std::mem::take(first_message);
                self.keep(admitted);
                match self.judge_forwarded(first_message, now) {
                    Ok(first_message) => {
                        let first_message = Masked(first_message);
                        self.phase = Phase::AwaitUpstream { first_message };
                        self.event = Some(Event::Dial);
                    }
                    Err(cause) => self.fail(cause, now),
                }
            }
        }
    }

    /// The upstream leg is there, or cannot be had.
    pub fn handle_dialed(&mut self, dialed: Result<(), DialFailure>, now: Instant) {
        let Phase::AwaitUpstream { first_message } = &mut self.phase else {
            return;
        };
        if let Err(failure) = dialed {
            self.fail(Cause::DialFailed(failure), now);
            return;
        }
        let Masked(first_message) = std::mem::take(first_message);
        self.phase = Phase::Relaying;
        self.legs.upstream = Leg::new(true);
        self.inputs.downstream.mode = Mode::Relay;
        self.timers
            .handle_relaying(&self.policy.keepalive, self.mask_keys.seed, now);
        let policy = Arc::clone(&self.policy);
        if let Some(first) = &policy.first_message {
            if !first_message.is_empty() {
                let key = Some(self.mask_keys.first_message);
                let frame = encode_frame(OpCode::Text, key, first_message.as_bytes());
                self.pipes.downstream.push(&frame);
                if let Some(resumable) = &mut self.resumable {
                    resumable.replay.handle_preamble(frame.len());
                    resumable.first_message = Masked(first_message);
                }
            }
            if let Some(reply) = &first.reply {
                let frame = encode_frame(OpCode::Text, None, reply.as_bytes());
                self.pipes.upstream.push(&frame);
            }
        }
        self.say_if_possible();
        // What came behind the first message waited unjudged.
        self.judge(Side::Downstream, now);
    }
}
