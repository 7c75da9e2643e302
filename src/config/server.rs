//! `[server]` and `[limits]`: what holds for the whole process.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use crate::config::answer::{Mismatch, Reported};
use crate::config::drain::{self, Readiness};
use crate::config::file::{Section, Value};
use crate::config::value::{count, duration, in_memory, size};
use crate::config::{ProcessLimits, Server, admission, reload};

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
    section.done();
    Ok(ProcessLimits {
        caps: caps?,
        access: access?,
        request_head_timeout: timeout?.value,
        max_request_head: in_memory(head?.value),
        max_headers: in_memory(headers?.value),
    })
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
