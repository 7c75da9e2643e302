//! How a session went: what its record is made of.

use super::input::Tally;
use super::{Closing, Holds, Phase, RoundTrip, Session};
use crate::proto::cause::Cause;
use crate::proto::close::CloseCode;
use crate::proto::side::Sides;

/// How a session ended: the material of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Why.
    pub cause: Cause,
    /// The code in the Close that each leg was sent, if one got out.
    pub close_codes: Sides<Option<CloseCode>>,
    /// What came from each leg.
    pub tallies: Sides<Tally>,
    /// The largest buffered amount of the pipe that each leg feeds.
    pub peaks: Sides<usize>,
    /// How long each leg took to answer the edge's pings; `None`: it answered none.
    pub round_trips: Sides<Option<RoundTrip>>,
    /// Heartbeats of the client's that the edge answered.
    pub heartbeats: u64,
    /// How it fared without its upstream.
    pub holds: Holds,
}

impl Session {
    /// How the session ended, or stands.
    pub fn summary(&self) -> Summary {
        let cause = match &self.phase {
            Phase::Ended(cause) | Phase::Closing(Closing { cause, .. }) => *cause,
            // Dropped in the middle: only a bug in the driver does that.
            _ => Cause::Internal,
        };
        Summary {
            cause,
            close_codes: Sides {
                downstream: self.legs.downstream.sent_close_code(),
                upstream: self.legs.upstream.sent_close_code(),
            },
            tallies: Sides {
                downstream: self.inputs.downstream.tally,
                upstream: self.inputs.upstream.tally,
            },
            peaks: Sides {
                downstream: self.pipes.downstream.peak().max(self.held_peak()),
                upstream: self.pipes.upstream.peak(),
            },
            round_trips: self.timers.round_trips(),
            heartbeats: self.timers.heartbeats.into(),
            holds: self.holds(),
        }
    }
}
