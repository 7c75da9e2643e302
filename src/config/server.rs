//! `[server]` and `[limits]`: what holds for the whole process.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::config::answer::{Mismatch, Reported};
use crate::config::drain::{self, Readiness};
use crate::config::file::{Section, Value};
use crate::config::units::size_text;
use crate::config::value::{count, duration, in_memory, or_off, size};
use crate::config::{ProcessLimits, Route, Server, admission, reload};

/// Most worker threads: more than any machine has cores to run them on.
const MOST_WORKERS: u64 = 1024;

/// Default of `request_head_timeout`: a request head is one packet, so ten seconds forgive
/// three lost ones on a bad line, and a slow-loris holds its slot no longer.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Below a tenth of a second honest clients fail; above five minutes it protects nothing.
pub(super) const HANDSHAKE_TIMES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);

/// Default of `max_request_head`: browsers send 1 to 2 KiB, large cookies bring it to 8 KiB.
const MAX_REQUEST_HEAD: u64 = 16 << 10;

/// The HTTP library's own buffer is never smaller than 8 KiB, and every stranger may make us
/// hold the largest.
const REQUEST_HEADS: RangeInclusive<u64> = 8 << 10..=256 << 10;

/// Default of `max_headers`: browsers send about twenty, proxies before us add a dozen.
const MAX_HEADERS: u64 = 64;

/// Fewer than sixteen would refuse ordinary browsers.
const HEADER_COUNTS: RangeInclusive<u64> = 16..=256;

/// Default of `max_buffered`: sixteen thousand full pipes at the default watermark. A process
/// that has more of them under way has peers that do not read, and memory of its own to lose.
const MAX_BUFFERED: u64 = 1 << 30;

/// From where a few sessions fit, to the memory of a large machine.
const BUDGETS: RangeInclusive<u64> = 1 << 20..=1 << 40;

/// Full pipes that a budget must hold: fewer, and ordinary sessions would be ended.
const SESSIONS_AT_LEAST: u64 = 4;

/// Reads `[server]`.
pub(super) fn server(mut section: Section<'_>, readiness: Readiness) -> Result<Server, Reported> {
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let workers = section.or("workers", workers, cores);
    let drain = section.section_or_empty("drain");
    let drain = drain.and_then(|section| drain::drain(section, readiness));
    let reload = section.section_or_empty("reload").and_then(reload::reload);
    section.done();
    Ok(Server {
        workers: workers?.value,
        drain: drain?,
        reload: reload?,
    })
}

/// Reads `[limits]`.
pub(super) fn limits(mut section: Section<'_>) -> Result<ProcessLimits, Reported> {
    let caps = admission::caps(&mut section);
    let access = admission::access(&mut section);
    let timeout = section.or(
        "request_head_timeout",
        duration(HANDSHAKE_TIMES),
        REQUEST_HEAD_TIMEOUT,
    );
    let head = section.or("max_request_head", size(REQUEST_HEADS), MAX_REQUEST_HEAD);
    let headers = section.or("max_headers", count(HEADER_COUNTS), MAX_HEADERS);
    let buffered = section.or("max_buffered", or_off(size(BUDGETS)), Some(MAX_BUFFERED));
    section.done();
    Ok(ProcessLimits {
        caps: caps?,
        access: access?,
        request_head_timeout: timeout?.value,
        max_request_head: in_memory(head?.value),
        max_headers: in_memory(headers?.value),
        max_buffered: buffered?.value.map(in_memory),
    })
}

/// A budget that one session could use up alone would end it in the middle of what its own
/// watermarks allow.
pub(super) fn holds_a_session(
    root: &mut Section<'_>,
    limits: &ProcessLimits,
    routes: &[Arc<Route>],
) -> Result<(), Reported> {
    let high = |route: &Route| route.policy.backpressure.high_watermark;
    let largest = routes.iter().max_by_key(|route| high(route));
    let (Some(most), Some(route)) = (limits.max_buffered, largest) else {
        return Ok(());
    };
    let least = SESSIONS_AT_LEAST * high(route) as u64;
    if most as u64 >= least {
        return Ok(());
    }
    let section = root.section_or_empty("limits")?;
    let found = format!(
        "{}, high_watermark of route {} is {}",
        size_text(most as u64),
        route.name,
        size_text(high(route) as u64)
    );
    let allowed = format!(
        "at least \"{}\", which {} full pipes take, or \"off\"",
        size_text(least),
        SESSIONS_AT_LEAST
    );
    let line = section.line_of("max_buffered");
    Err(section.error("max_buffered", line, found, allowed))
}

fn workers(value: &Value<'_>) -> Result<NonZeroUsize, Mismatch> {
    if value.text() == Some("auto") {
        return Ok(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    }
    let threads = value.count().filter(|threads| *threads <= MOST_WORKERS);
    threads
        .and_then(|threads| NonZeroUsize::new(in_memory(threads)))
        .ok_or_else(|| {
            Mismatch::of(
                value,
                format!("\"auto\" (one per core), or a whole number from 1 to {MOST_WORKERS}"),
            )
        })
}
