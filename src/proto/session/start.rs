//! How a session starts: with a stranger whose first message decides, or with a client that
//! its request head admitted.

use std::sync::Arc;
use std::time::Instant;

use super::holding::Resumable;
use super::input::{Input, Mode};
use super::inspecting::Inspector;
use super::leg::Leg;
use super::life::Admitted;
use super::timing::Timers;
use super::{AwaitToken, MaskKeys, Meters, Phase, Session};
use crate::proto::limits::Meter;
use crate::proto::pipe::{Pipe, Watermarks};
use crate::proto::policy::Policy;
use crate::proto::side::Sides;
use crate::proto::token::Collector;

impl Session {
    /// A session that has just answered 101 and waits for the first message, when the
    /// policy asks for one; else a session whose upstream leg is already there.
    pub fn new(policy: Arc<Policy>, mask_keys: MaskKeys, now: Instant) -> Self {
        let (phase, mode) = match &policy.first_message {
            Some(first) => {
                let waiting = AwaitToken {
                    collector: Collector::new(first.max_size),
                    deadline: now + first.timeout,
                };
                (Phase::AwaitToken(Box::new(waiting)), Mode::Token)
            }
            None => (Phase::Relaying, Mode::Relay),
        };
        Self::in_phase(phase, mode, policy, mask_keys, now)
    }

    /// A session that its request head admitted, also where the policy asks others for a
    /// first message: its upstream leg is already there.
    pub fn admitted(
        policy: Arc<Policy>,
        admitted: Admitted,
        mask_keys: MaskKeys,
        now: Instant,
    ) -> Self {
        let mut session = Self::in_phase(Phase::Relaying, Mode::Relay, policy, mask_keys, now);
        session.keep(admitted);
        session
    }

    fn in_phase(
        phase: Phase,
        mode: Mode,
        policy: Arc<Policy>,
        mask_keys: MaskKeys,
        now: Instant,
    ) -> Self {
        let watermarks = Watermarks {
            high: policy.backpressure.high_watermark,
            low: policy.backpressure.low_watermark,
        };
        let limits = &policy.limits;
        let meters = Meters {
            messages: limits.messages.as_ref().map(|quota| Meter::new(quota, now)),
            bytes: limits.bytes.as_ref().map(|quota| Meter::new(quota, now)),
            control: Meter::new(&limits.control, now),
        };
        let inspector = Inspector::new(&policy, now);
        let resumable = Resumable::new(&policy, now);
        let has_upstream = matches!(phase, Phase::Relaying);
        let mut timers = Timers::new(&policy.keepalive, mask_keys.seed, now);
        if has_upstream {
            timers.handle_relaying(&policy.keepalive, mask_keys.seed, now);
        }
        Self {
            policy,
            phase,
            pipes: Sides {
                downstream: Pipe::new(watermarks),
                upstream: Pipe::new(watermarks),
            },
            inputs: Sides {
                downstream: Input::new(mode),
                upstream: Input::new(Mode::Relay),
            },
            legs: Sides {
                downstream: Leg::new(true),
                upstream: Leg::new(has_upstream),
            },
            meters,
            timers,
            inspector,
            life: None,
            resumable,
            saying: None,
            event: None,
            mask_keys,
        }
    }
}
