//! Sizes, and quotas per time: what a connection may send.
//!
//! Plain values here are what the configuration is parsed into; the meters that
//! enforce them live with the session.

use std::num::NonZeroU64;
use std::time::Duration;

/// What happens to traffic beyond a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExcess {
    /// The connection is not read until the quota allows more: TCP makes the sender wait.
    Throttle,
    /// Whole messages are discarded and counted.
    Drop,
    /// The session is closed with 1008.
    Close,
}

/// So many units (messages, bytes) in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units per `per`.
    pub units: NonZeroU64,
    /// The span the units are spread over: one second, one minute or one hour.
    pub per: Duration,
}

/// A sustained rate, and how much may come at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Sustained rate.
    pub rate: Rate,
    /// Units admitted at once from a full bucket.
    pub burst: NonZeroU64,
    /// Policy beyond it.
    pub on_excess: OnExcess,
}

/// The limits of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of one frame from the client, in bytes.
    pub max_frame_size: u64,
    /// Largest sum of the payloads of one message's fragments from the client, in bytes.
    pub max_message_size: u64,
    /// The same for frames from the upstream; `None`: unlimited (frames stream through).
    pub max_upstream_frame_size: Option<u64>,
    /// The same for messages from the upstream; `None`: unlimited.
    pub max_upstream_message_size: Option<u64>,
    /// Data messages from the client.
    pub messages: Option<Quota>,
    /// Bytes from the client, headers included.
    pub bytes: Option<Quota>,
    /// Control frames from the client (ping floods).
    pub control: Quota,
    /// Whether text from the client must be valid UTF-8 (RFC 6455 §8.1).
    pub validate_utf8: bool,
}
