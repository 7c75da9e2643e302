//! Another policy for a session that is under way.
//!
//! Of it the session takes the limits alone, and from the next frame on. Everything else stays
//! as the session was born with it: what was promised to its peers then, a first message, a
//! lifetime, rules that its token was asked for, cannot be taken back in the middle.

use std::sync::Arc;
use std::time::Instant;

use super::{Meters, Phase, Session};
use crate::proto::limits::{Limits, Meter, Quota};
use crate::proto::policy::Policy;
use crate::proto::side::Side;

impl Session {
    /// The operator changed the limits. A quota that is the same keeps its bucket; one that is
    /// not begins with a full one, and whoever was kept waiting for the older one is read
    /// again. A message under way is held to the sizes from its next frame on. Whether text is
    /// validated stays, since that depends on what was read of it before.
    pub fn handle_policy(&mut self, policy: &Arc<Policy>, now: Instant) {
        if matches!(self.phase, Phase::Closing(_) | Phase::Ended(_)) {
            return;
        }
        let revised = revised(&self.policy, policy);
        self.meters
            .revise(&self.policy.limits, &revised.limits, now);
        self.policy = revised;
        if self.inputs.downstream.throttle.is_some() {
            self.inputs.downstream.unthrottle(now);
            self.judge(Side::Downstream, now);
        }
    }
}

/// What the session obeys from now on: mostly the very policy of those that begin now.
fn revised(born: &Policy, now: &Arc<Policy>) -> Arc<Policy> {
    let revised = Policy {
        limits: Limits {
            validate_utf8: born.limits.validate_utf8,
            ..now.limits.clone()
        },
        ..born.clone()
    };
    match revised == **now {
        true => Arc::clone(now),
        false => Arc::new(revised),
    }
}

impl Meters {
    fn revise(&mut self, before: &Limits, after: &Limits, now: Instant) {
        let meter = |quota: &Option<Quota>| quota.as_ref().map(|quota| Meter::new(quota, now));
        if after.messages != before.messages {
            self.messages = meter(&after.messages);
        }
        if after.bytes != before.bytes {
            self.bytes = meter(&after.bytes);
        }
        if after.control != before.control {
            self.control = Meter::new(&after.control, now);
        }
    }
}

#[cfg(test)]
mod tests;
