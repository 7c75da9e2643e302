//! Why a session ended, and on whose side; the one mapping from that to close codes,
//! to the words of the record and to its level.

use std::fmt;

use crate::proto::close::CloseCode;
use crate::proto::rule::Objection;
use crate::proto::side::{Side, Sides};

/// A rule of RFC 6455 that a peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// RSV1, RSV2 or RSV3 without a negotiated extension (§5.2).
    ReservedBits,
    /// An opcode that is not defined (§5.2).
    ReservedOpcode(u8),
    /// A control frame without FIN (§5.5).
    FragmentedControl,
    /// A control frame of more than 125 bytes (§5.5).
    ControlTooLong,
    /// A client's frame without mask (§5.1).
    UnmaskedFromClient,
    /// A server's frame with one (§5.1).
    MaskedFromServer,
    /// A length not in its shortest form (§5.2).
    NonMinimalLength,
    /// A 64-bit length with the top bit set (§5.2).
    LengthOverflow,
    /// A continuation frame while no message is open (§5.4).
    ContinuationWithoutMessage,
    /// A new message while another is open (§5.4).
    MessageInterrupted,
    /// A Close payload of one byte (§5.5.1).
    ClosePayloadLength,
    /// A close code that must not be sent (§7.4).
    CloseCode(u16),
    /// A close reason that is not UTF-8 (§5.5.1).
    CloseReasonNotUtf8,
    /// Text that is not UTF-8 (§8.1).
    TextNotUtf8,
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits => f.write_str("reserved bit set"),
            Self::ReservedOpcode(opcode) => write!(f, "reserved opcode {opcode:#x}"),
            Self::FragmentedControl => f.write_str("fragmented control frame"),
            Self::ControlTooLong => f.write_str("control frame above 125 bytes"),
            Self::UnmaskedFromClient => f.write_str("unmasked frame from the client"),
            Self::MaskedFromServer => f.write_str("masked frame from the upstream"),
            Self::NonMinimalLength => f.write_str("length not in its shortest form"),
            Self::LengthOverflow => f.write_str("length of 2^63 or more"),
            Self::ContinuationWithoutMessage => f.write_str("continuation without a message"),
            Self::MessageInterrupted => f.write_str("new message inside another"),
            Self::ClosePayloadLength => f.write_str("close payload of one byte"),
            Self::CloseCode(code) => write!(f, "close code {code} must not be sent"),
            Self::CloseReasonNotUtf8 => f.write_str("close reason is not UTF-8"),
            Self::TextNotUtf8 => f.write_str("text is not UTF-8"),
        }
    }
}

impl Misbehaviour {
    const fn code(self) -> CloseCode {
        match self {
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 => CloseCode::INVALID_PAYLOAD,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Which quota was exceeded under `on_excess = "close"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaKind {
    /// Data messages.
    Messages,
    /// Bytes.
    Bytes,
    /// Control frames and empty fragments.
    Control,
    /// Messages that one rule allows.
    Rule,
}

/// Why the upstream leg could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// No endpoint took the connection.
    Unreachable,
    /// The dial or the opening handshake took too long.
    TimedOut,
    /// It answered, but not with a correct 101.
    Refused,
}

/// How an upstream leg was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its connection ended, or broke, without a Close.
    Vanished,
    /// The upstream closed with a code that sessions of the route outlive.
    Closed(CloseCode),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A peer sent Close, with this code if it gave one.
    Closed {
        /// Who began.
        by: Side,
        /// Its code; `None`: a Close without payload.
        code: Option<CloseCode>,
    },
    /// The first message did not come in time.
    TokenTimeout,
    /// The first message held no good token. The reason is in the log only.
    TokenRefused,
    /// The token that admitted the session has expired.
    TokenExpired,
    /// The token that admitted the session was revoked.
    TokenRevoked,
    /// The token is good, and whoever is asked about its bearer said no.
    AdmissionForbidden,
    /// Nobody could say whether the client may come in.
    AdmissionUnavailable,
    /// The token is good, and the route has as many sessions as it may.
    RouteFull,
    /// The token is good, and its subject has as many sessions as it may.
    SubjectFull,
    /// A frame above its limit.
    FrameTooBig(Side),
    /// A message above its limit.
    MessageTooBig(Side),
    /// The rules of the route do not permit a message of the client's.
    MessageRefused(Objection),
    /// A quota of the client, under policy `close`.
    QuotaExceeded(QuotaKind),
    /// The client stayed above the watermark, under policy `close`.
    SlowConsumer,
    /// A peer took nothing for the stall timeout.
    Stalled(Side),
    /// A peer broke RFC 6455.
    Misbehaved(Side, Misbehaviour),
    /// A peer's connection ended without a Close.
    Vanished(Side),
    /// The upstream leg could not be made.
    DialFailed(DialFailure),
    /// A peer did not answer a ping of the edge's in time.
    PongMissing(Side),
    /// The upstream leg was lost, and no other could be had for as long as the client was held.
    HoldOver(Lost),
    /// No data frame for the idle timeout.
    Idle,
    /// The session reached its maximum lifetime.
    LifetimeOver,
    /// The process drains.
    Drained,
    /// Memory for bytes on their way ran short, and this session owned the most.
    Overloaded,
    /// Our bug.
    Internal,
}

/// A code and the reason text that goes with it. The text tells the peer no more than
/// the code does.
pub type Verdict = (CloseCode, &'static str);

impl Cause {
    /// The leg at fault, when one is.
    pub const fn side(self) -> Option<Side> {
        match self {
            Self::Closed { by, .. } => Some(by),
            Self::FrameTooBig(side)
            | Self::MessageTooBig(side)
            | Self::Stalled(side)
            | Self::PongMissing(side)
            | Self::Misbehaved(side, _)
            | Self::Vanished(side) => Some(side),
            Self::TokenTimeout
            | Self::TokenRefused
            | Self::TokenExpired
            | Self::AdmissionForbidden
            | Self::SubjectFull
            | Self::TokenRevoked
            | Self::MessageRefused(_)
            | Self::QuotaExceeded(_)
            | Self::SlowConsumer => Some(Side::Downstream),
            Self::DialFailed(_) | Self::HoldOver(_) => Some(Side::Upstream),
            Self::AdmissionUnavailable
            | Self::RouteFull
            | Self::Idle
            | Self::LifetimeOver
            | Self::Drained
            | Self::Overloaded
            | Self::Internal => None,
        }
    }

    /// What each leg hears: the table of close codes. The leg at fault hears what it did;
    /// the other only that the session is over.
    pub fn verdicts(self) -> Sides<Verdict> {
        let to_fault: Verdict = match self {
            // The peers' own Close frames travel verbatim; this is what an answer says
            // when the other peer gives none.
            Self::Closed { code, .. } => (code.unwrap_or(NORMAL), ""),
            Self::TokenTimeout => (CloseCode::TIMEOUT, "no token in time"),
            // One wording: what was wrong with a token helps nobody but a forger.
            Self::TokenRefused | Self::TokenExpired | Self::TokenRevoked => {
                (CloseCode::UNAUTHORIZED, "unauthorized")
            }
            Self::AdmissionForbidden => (CloseCode::FORBIDDEN, "forbidden"),
            Self::AdmissionUnavailable => (CloseCode::TRY_AGAIN_LATER, "temporarily unavailable"),
            Self::RouteFull | Self::SubjectFull => {
                (CloseCode::TRY_AGAIN_LATER, "too many sessions")
            }
            Self::FrameTooBig(_) => (CloseCode::TOO_BIG, "frame too big"),
            Self::MessageTooBig(_) => (CloseCode::TOO_BIG, "message too big"),
            Self::MessageRefused(Objection::Malformed(_)) => {
                (CloseCode::INVALID_PAYLOAD, "malformed message")
            }
            Self::MessageRefused(Objection::Binary) => {
                (CloseCode::UNSUPPORTED_DATA, "text messages only")
            }
            Self::MessageRefused(_) => (CloseCode::FORBIDDEN, "forbidden"),
            Self::QuotaExceeded(_) => (CloseCode::POLICY_VIOLATION, "rate exceeded"),
            Self::SlowConsumer | Self::Stalled(_) => {
                (CloseCode::TRY_AGAIN_LATER, "reading too slowly")
            }
            Self::Misbehaved(_, rule) => (rule.code(), "protocol error"),
            Self::PongMissing(_) => (CloseCode::TIMEOUT, "no pong in time"),
            Self::Idle => (CloseCode::TIMEOUT, "idle"),
            Self::LifetimeOver => (CloseCode::GOING_AWAY, "session lifetime is over"),
            Self::Drained => (CloseCode::SERVICE_RESTART, "restarting"),
            Self::Overloaded => (CloseCode::TRY_AGAIN_LATER, "overloaded"),
            Self::Internal => (CloseCode::INTERNAL_ERROR, ""),
            // Nobody is left to hear it.
            Self::Vanished(_) | Self::DialFailed(_) | Self::HoldOver(_) => OVER,
        };
        let downstream = match self {
            Self::DialFailed(DialFailure::Unreachable) | Self::HoldOver(Lost::Vanished) => {
                (CloseCode::TRY_AGAIN_LATER, "upstream unavailable")
            }
            // What the client would have heard at once.
            Self::HoldOver(Lost::Closed(code)) => (code, "upstream unavailable"),
            _ if self.side() == Some(Side::Upstream) => match self {
                Self::Closed { .. } => to_fault,
                _ => (CloseCode::BAD_GATEWAY, "upstream failed"),
            },
            _ => to_fault,
        };
        let upstream = match self {
            Self::Closed { .. } | Self::Internal => to_fault,
            _ if self.side() == Some(Side::Upstream) => to_fault,
            _ => OVER,
        };
        Sides {
            downstream,
            upstream,
        }
    }

    /// The word used in the session-end record and as a label of counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::TokenTimeout => "token_timeout",
            Self::TokenRefused => "token_refused",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::AdmissionForbidden => "admission_forbidden",
            Self::AdmissionUnavailable => "admission_unavailable",
            Self::RouteFull => "route_full",
            Self::SubjectFull => "subject_full",
            Self::FrameTooBig(_) => "frame_too_big",
            Self::MessageTooBig(_) => "message_too_big",
            Self::MessageRefused(Objection::Malformed(_)) => "message_malformed",
            Self::MessageRefused(Objection::Binary) => "message_not_text",
            Self::MessageRefused(_) => "message_forbidden",
            Self::QuotaExceeded(QuotaKind::Messages) => "message_quota_exceeded",
            Self::QuotaExceeded(QuotaKind::Bytes) => "byte_quota_exceeded",
            Self::QuotaExceeded(QuotaKind::Control) => "control_quota_exceeded",
            Self::QuotaExceeded(QuotaKind::Rule) => "rule_quota_exceeded",
            Self::SlowConsumer => "slow_consumer",
            Self::Stalled(_) => "stalled",
            Self::Misbehaved(..) => "misbehaved",
            Self::Vanished(_) => "vanished",
            Self::DialFailed(DialFailure::Unreachable) => "upstream_unreachable",
            Self::DialFailed(DialFailure::TimedOut) => "upstream_timed_out",
            Self::DialFailed(DialFailure::Refused) => "upstream_refused",
            Self::HoldOver(_) => "hold_over",
            Self::PongMissing(_) => "pong_missing",
            Self::Idle => "idle",
            Self::LifetimeOver => "lifetime_over",
            Self::Drained => "drained",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    /// Whether the operator can act on it: the upstream's fault, or ours.
    pub const fn is_operators(self) -> bool {
        match self {
            Self::Internal
            | Self::Overloaded
            | Self::DialFailed(_)
            | Self::AdmissionUnavailable => true,
            Self::Closed { .. } => false,
            _ => matches!(self.side(), Some(Side::Upstream)),
        }
    }
}

const NORMAL: CloseCode = match CloseCode::from_wire(1000) {
    Some(code) => code,
    None => CloseCode::GOING_AWAY,
};

const OVER: Verdict = (CloseCode::GOING_AWAY, "session is over");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::json::Malformed;

    #[test]
    fn the_table_of_close_codes_holds() {
        use Side::{Downstream as D, Upstream as U};
        let cases = [
            (Cause::TokenTimeout, 3008, 1001),
            (Cause::TokenRefused, 3000, 1001),
            (Cause::TokenExpired, 3000, 1001),
            (Cause::TokenRevoked, 3000, 1001),
            (Cause::AdmissionForbidden, 3003, 1001),
            (Cause::AdmissionUnavailable, 1013, 1001),
            (Cause::RouteFull, 1013, 1001),
            (Cause::SubjectFull, 1013, 1001),
            (Cause::FrameTooBig(D), 1009, 1001),
            (Cause::FrameTooBig(U), 1014, 1009),
            (Cause::MessageTooBig(D), 1009, 1001),
            (Cause::MessageTooBig(U), 1014, 1009),
            (Cause::QuotaExceeded(QuotaKind::Bytes), 1008, 1001),
            (Cause::MessageRefused(Objection::NoRule), 3003, 1001),
            (Cause::MessageRefused(Objection::NotGranted(1)), 3003, 1001),
            (Cause::MessageRefused(Objection::Binary), 1003, 1001),
            (
                Cause::MessageRefused(Objection::Malformed(Malformed::Syntax)),
                1007,
                1001,
            ),
            (Cause::SlowConsumer, 1013, 1001),
            (Cause::Stalled(D), 1013, 1001),
            (Cause::Stalled(U), 1014, 1013),
            (Cause::Misbehaved(D, Misbehaviour::ReservedBits), 1002, 1001),
            (Cause::Misbehaved(U, Misbehaviour::ReservedBits), 1014, 1002),
            (Cause::Misbehaved(D, Misbehaviour::TextNotUtf8), 1007, 1001),
            (
                Cause::Misbehaved(U, Misbehaviour::CloseReasonNotUtf8),
                1014,
                1007,
            ),
            (Cause::Vanished(D), 1001, 1001),
            (Cause::Vanished(U), 1014, 1001),
            (Cause::DialFailed(DialFailure::Unreachable), 1013, 1001),
            (Cause::DialFailed(DialFailure::TimedOut), 1014, 1001),
            (Cause::DialFailed(DialFailure::Refused), 1014, 1001),
            (Cause::HoldOver(Lost::Vanished), 1013, 1001),
            (
                Cause::HoldOver(Lost::Closed(CloseCode::SERVICE_RESTART)),
                1012,
                1001,
            ),
            (Cause::PongMissing(D), 3008, 1001),
            (Cause::PongMissing(U), 1014, 3008),
            (Cause::Idle, 3008, 1001),
            (Cause::LifetimeOver, 1001, 1001),
            (Cause::Drained, 1012, 1001),
            (Cause::Overloaded, 1013, 1001),
            (Cause::Internal, 1011, 1011),
        ];
        for (cause, downstream, upstream) in cases {
            let verdicts = cause.verdicts();
            assert_eq!(
                (verdicts.downstream.0.get(), verdicts.upstream.0.get()),
                (downstream, upstream),
                "{cause:?}"
            );
        }
    }

    #[test]
    fn an_unanswered_close_is_answered_with_its_own_code() {
        let code = CloseCode::from_wire(4001);
        for by in [Side::Downstream, Side::Upstream] {
            let verdicts = Cause::Closed { by, code }.verdicts();
            assert_eq!(verdicts.downstream.0.get(), 4001);
            assert_eq!(verdicts.upstream.0.get(), 4001);
        }
    }
}
