//! What an operator decided for the sessions of one route, as the session reads it.

use std::time::Duration;

use crate::proto::close::CloseCode;
use crate::proto::limits::Limits;
use crate::proto::rule::Inspection;

/// What happens when a client takes messages more slowly than the upstream sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSlowConsumer {
    /// The upstream is not read: TCP makes it wait.
    Throttle,
    /// New whole data messages towards the client are discarded and counted.
    Drop,
    /// The session is closed with 1013 once it stayed above the low watermark for the stall timeout.
    Close,
}

/// How much one direction of a session may hold, and what happens when it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backpressure {
    /// The source is not read at or above this many buffered bytes.
    pub high_watermark: usize,
    /// The source is read again at or below this many.
    pub low_watermark: usize,
    /// Policy towards a slow client.
    pub on_slow_consumer: OnSlowConsumer,
    /// A reader that takes nothing for this long ends the session.
    pub stall_timeout: Duration,
}

/// When a silent connection is pinged, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Ping the client this often, give or take a tenth; `None`: never.
    pub ping_interval: Option<Duration>,
    /// The same for the upstream.
    pub upstream_ping_interval: Option<Duration>,
    /// How long the answer to a ping may take.
    pub pong_timeout: Duration,
    /// Longest time without a data frame in either direction; `None`: unlimited.
    pub idle_timeout: Option<Duration>,
    /// Longest session, of which up to a tenth is taken off; `None`: unlimited.
    pub max_lifetime: Option<Duration>,
    /// The ping and pong of clients that cannot send real ones.
    pub heartbeat: Option<Heartbeat>,
}

/// A text message of the client's that the edge answers, and the upstream never sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The whole message, in one frame; at most [`LONGEST_HEARTBEAT`] bytes.
    pub request: String,
    /// The text that answers it; as long at most.
    pub reply: String,
}

/// As long as the payload of a ping may be (RFC 6455 §5.5): such a frame can be judged whole
/// wherever a ping can.
pub const LONGEST_HEARTBEAT: usize = 125;

/// The first message of a session that its request head did not admit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMessage {
    /// From the 101 to the end of the message.
    pub timeout: Duration,
    /// Largest message, in bytes.
    pub max_size: usize,
    /// Whether the upstream gets the message too.
    pub forward: bool,
    /// Text sent to the client once the upstream is connected.
    pub reply: Option<String>,
}

/// What happens when the token that admitted a session expires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// Nothing: the token counted at admission.
    #[default]
    Ignore,
    /// The session ends.
    Close {
        /// What the client is told before.
        notice: Option<ExpiryNotice>,
    },
}

/// A text message for the client, some time before its token expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryNotice {
    /// How long before; at once when the token expires sooner.
    pub before: Duration,
    /// The text.
    pub message: String,
}

/// How a session outlives its upstream leg: the client stays, and another leg takes the place
/// of the lost one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// From the loss of the leg to the end of the session, unless another is there before.
    pub max_hold: Duration,
    /// Bytes of the client's that wait for the new leg; beyond, the client is not read.
    pub buffer: usize,
    /// The codes of an upstream's Close that the session outlives.
    pub close_codes: Vec<CloseCode>,
    /// The pauses before the dials.
    pub backoff: Backoff,
    /// So many of the client's first messages are said again to a new leg.
    pub replay_messages: u32,
    /// Bytes of all of them together; a session in which they are more is not held.
    pub replay_buffer: usize,
    /// Text for the client when the leg is lost.
    pub notice: Option<String>,
    /// Text for the client when another is there.
    pub resume_notice: Option<String>,
}

/// Exponential, with full jitter: a pause is anything from nothing to a ceiling that doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first ceiling.
    pub first: Duration,
    /// The highest.
    pub max: Duration,
}

/// Everything a session obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `None`: the request head always decides.
    pub first_message: Option<FirstMessage>,
    /// Whether a session outlives its token.
    pub on_expiry: OnExpiry,
    /// `None`: messages are not looked into, and stream through.
    pub inspection: Option<Inspection>,
    /// Sizes and quotas.
    pub limits: Limits,
    /// Watermarks and slow consumers.
    pub backpressure: Backpressure,
    /// Pings, idleness, lifetime.
    pub keepalive: Keepalive,
    /// `None`: a session ends with its upstream leg.
    pub hold: Option<Hold>,
    /// How long the closing handshake may take before the connection is aborted.
    pub close_timeout: Duration,
}
