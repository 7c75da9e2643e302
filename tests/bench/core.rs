//! Relays messages through the protocol core alone, for counting its instructions and allocations.
//!
//! `tests/bench/guard` runs this under callgrind with two numbers of messages: the
//! difference is what a message costs, whatever else the machine is doing.

use std::hint::black_box;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::proto::frame::{OpCode, encode_frame};
use tidegate::proto::limits::{Limits, OnExcess, Quota, Rate};
use tidegate::proto::policy::{Backpressure, Keepalive, OnExpiry, OnSlowConsumer, Policy};
use tidegate::proto::seed::Seed;
use tidegate::proto::session::{MaskKeys, Session};
use tidegate::proto::side::Side;

fn main() {
    // `cargo bench` adds arguments of its own.
    let rounds = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(10_000);
    let now = Instant::now();
    let keys = MaskKeys {
        first_message: [1, 2, 3, 4],
        close: [5, 6, 7, 8],
        seed: Seed(9),
    };
    let mut session = Session::new(Arc::new(policy()), keys, now);
    let mut scratch = vec![0; 128 * 1024];
    let there = encode_frame(OpCode::Text, Some([9, 8, 7, 6]), &[b'a'; 64]);
    let back = encode_frame(OpCode::Text, None, &[b'a'; 64]);
    for _ in 0..rounds {
        scratch = relay(&mut session, Side::Downstream, &there, scratch, now);
        scratch = relay(&mut session, Side::Upstream, &back, scratch, now);
    }
    let tallies = session.summary().tallies;
    assert_eq!(tallies.downstream.messages, rounds);
    assert_eq!(tallies.upstream.messages, rounds);
}

/// One wake-up with one message, as the relay does it.
fn relay(
    session: &mut Session,
    from: Side,
    frame: &[u8],
    scratch: Vec<u8>,
    now: Instant,
) -> Vec<u8> {
    assert!(session.lend(from, scratch).is_none());
    if let Some(space) = session.space(from).get_mut(..frame.len()) {
        space.copy_from_slice(frame);
    }
    session.handle_filled(from, frame.len(), now);
    let pending = black_box(session.pending(from.other())).len();
    assert_eq!(pending, frame.len());
    session.handle_sent(from.other(), pending, now);
    session.handle_flushed(from.other(), now);
    black_box(session.poll_timeout());
    session.reclaim(from).unwrap_or_default()
}

/// Everything enforced, nothing reached.
fn policy() -> Policy {
    let never_reached = |on_excess| Quota {
        rate: Rate {
            units: NonZeroU64::MIN.saturating_add(499_999_999),
            per: Duration::from_secs(1),
        },
        burst: NonZeroU64::MIN.saturating_add(499_999_999),
        on_excess,
    };
    Policy {
        first_message: None,
        on_expiry: OnExpiry::Ignore,
        inspection: None,
        limits: Limits {
            max_frame_size: 64 * 1024,
            max_message_size: 1024 * 1024,
            max_upstream_frame_size: None,
            max_upstream_message_size: None,
            messages: Some(never_reached(OnExcess::Throttle)),
            bytes: Some(never_reached(OnExcess::Throttle)),
            control: never_reached(OnExcess::Close),
            validate_utf8: true,
        },
        backpressure: Backpressure {
            high_watermark: 64 * 1024,
            low_watermark: 32 * 1024,
            on_slow_consumer: OnSlowConsumer::Throttle,
            stall_timeout: Duration::from_secs(60),
        },
        keepalive: Keepalive {
            ping_interval: Some(Duration::from_secs(25)),
            upstream_ping_interval: None,
            pong_timeout: Duration::from_secs(10),
            idle_timeout: None,
            max_lifetime: None,
            heartbeat: None,
        },
        hold: None,
        close_timeout: Duration::from_secs(5),
    }
}
