//! `[route.keepalive]`: how a dead peer is found out, and how long a session may last.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::units::{duration_text, size_text};
use crate::config::value::{duration, or_off, text};
use crate::proto::limits::Limits;
use crate::proto::policy::{Heartbeat, Keepalive, LONGEST_HEARTBEAT};

/// Default of `ping_interval`: routers and load balancers forget silent connections after 30
/// seconds at the soonest.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// More often than once a second is a load, not a sign of life.
const PING_TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// Default of `pong_timeout`: a mobile radio that wakes up needs a few seconds.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// Below a tenth of a second a distant client fails.
const PONG_TIMES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60 * 60);

/// `idle_timeout` and `max_lifetime`, which are off by default: only the operator knows how
/// long a session of the application may be silent, or last.
const LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// What `heartbeat` must look like.
const HEARTBEAT: &str = "heartbeat = { request = \"…\", reply = \"…\" }";

/// Reads `[route.keepalive]`.
pub(super) fn keepalive(
    mut section: Section<'_>,
    limits: &Result<Limits, Reported>,
) -> Result<Keepalive, Reported> {
    let ping = section.or(
        "ping_interval",
        or_off(duration(PING_TIMES)),
        Some(PING_INTERVAL),
    );
    let upstream_ping = section.or("upstream_ping_interval", or_off(duration(PING_TIMES)), None);
    let pong = section.or("pong_timeout", duration(PONG_TIMES), PONG_TIMEOUT);
    let idle = section.or("idle_timeout", or_off(duration(LIFETIMES)), None);
    let lifetime = section.or("max_lifetime", or_off(duration(LIFETIMES)), None);
    let heartbeat = heartbeat(&mut section, limits);
    for (key, ping) in [
        ("ping_interval", &ping),
        ("upstream_ping_interval", &upstream_ping),
    ] {
        if let (Ok(ping), Ok(pong)) = (ping, &pong) {
            pong_comes_before_ping(&section, key, ping, pong);
        }
    }
    section.done();
    Ok(Keepalive {
        ping_interval: ping?.value,
        upstream_ping_interval: upstream_ping?.value,
        pong_timeout: pong?.value,
        idle_timeout: idle?.value,
        max_lifetime: lifetime?.value,
        heartbeat: heartbeat?,
    })
}

fn pong_comes_before_ping(
    section: &Section<'_>,
    key: &str,
    ping: &Placed<Option<Duration>>,
    pong: &Placed<Duration>,
) {
    if let Some(interval) = ping.value
        && pong.value >= interval
    {
        let found = format!(
            "{}, {key} is {}",
            pong.show(|time| duration_text(*time)),
            ping.show(|_| duration_text(interval)),
        );
        let allowed = format!("less than {key}: a ping is answered before the next is sent");
        section.error("pong_timeout", pong.line.max(ping.line), found, allowed);
    }
}

/// Off by default: what its text is only the operator knows.
fn heartbeat(
    section: &mut Section<'_>,
    limits: &Result<Limits, Reported>,
) -> Result<Option<Heartbeat>, Reported> {
    let Some(mut table) = section.section("heartbeat")? else {
        return Ok(None);
    };
    let request = table.required("request", short_text, HEARTBEAT);
    let reply = table.required("reply", short_text, HEARTBEAT);
    if let (Ok(request), Ok(limits)) = (&request, limits)
        && request.value.len() as u64 > limits.max_frame_size
    {
        let found = format!(
            "a text of {}, max_frame_size is {}",
            size_text(request.value.len() as u64),
            size_text(limits.max_frame_size)
        );
        table.error(
            "request",
            request.line,
            found,
            "at most max_frame_size: a larger frame ends the session",
        );
    }
    table.done();
    Ok(Some(Heartbeat {
        request: request?.value,
        reply: reply?.value,
    }))
}

/// A text that is no longer than a ping may be.
fn short_text(value: &Value<'_>) -> Result<String, Mismatch> {
    let allowed = format!("a text of 1 to {LONGEST_HEARTBEAT} bytes, in quotes");
    let Ok(text) = text(value) else {
        return Err(Mismatch::of(value, allowed));
    };
    if (1..=LONGEST_HEARTBEAT).contains(&text.len()) {
        return Ok(text);
    }
    Err(Mismatch::new(
        format!("a text of {} bytes", text.len()),
        allowed,
    ))
}
