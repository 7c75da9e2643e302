//! What the operator is told: one record at each session's end, and counters for what
//! never became a session.
//!
//! A peer can cause at most one line above `debug`: the session-end record. No token, and
//! no payload, is ever here.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::proto::cause::{Cause, QuotaKind};
use crate::proto::close::CloseCode;
use crate::proto::session::Summary;
use crate::proto::side::Side;

/// How one session went.
#[derive(Clone, Debug)]
pub struct Record {
    /// Names the session in all logs, and is sent to the upstream as `X-Request-Id`.
    pub id: String,
    /// Its route.
    pub route: String,
    /// The `sub` of its token.
    pub subject: Option<String>,
    /// The client's address. Port 0: a proxy in front named the address alone.
    pub client: SocketAddr,
    /// The proxy in front whose word that is; `None`: the connection's own.
    pub via: Option<SocketAddr>,
    /// The upstream's endpoint; `None`: none was dialled.
    pub endpoint: Option<String>,
    /// Why a token was refused or a dial failed, for this log only.
    pub detail: Option<String>,
    /// From the 101 to the end.
    pub duration: Duration,
    /// What the session itself knows.
    pub summary: Summary,
}

/// Who else sees the records: the demonstration and the tests.
pub type Observer = Box<dyn Fn(&Record) + Send + Sync>;

/// Everything that is counted, shared by all workers.
#[derive(Default)]
pub struct Telemetry {
    /// Counts since the start.
    pub counters: Counters,
    observer: Option<Observer>,
}

/// One count. Written by any worker, read at leisure.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts since the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted from the kernel.
    pub accepted: Counter,
    /// Accepts that failed.
    pub accept_errors: Counter,
    /// Connections closed at once: `max_connections`.
    pub over_process_cap: Counter,
    /// Connections refused: `max_connections_per_ip`.
    pub over_address_cap: Counter,
    /// Connections closed at once: `max_unauthenticated`.
    pub over_unauthenticated_cap: Counter,
    /// Connections refused: `max_unauthenticated_per_ip`.
    pub over_address_unauthenticated_cap: Counter,
    /// Connections closed at once: `handshakes`.
    pub over_rate: Counter,
    /// Connections refused: `handshakes_per_ip`.
    pub over_address_rate: Counter,
    /// Sessions refused: `max_sessions` of their route.
    pub over_route_cap: Counter,
    /// Sessions refused: `max_sessions_per_subject` of their route.
    pub over_subject_cap: Counter,
    /// Connections and requests refused by `allow` and `deny`.
    pub denied: Counter,
    /// Connections closed that began with no PROXY header where one is demanded, or came from
    /// somebody who may not send one.
    pub no_proxy_header: Counter,
    /// TLS handshakes that failed or took too long.
    pub tls_failed: Counter,
    /// Request heads that never became an acceptable request.
    pub no_request: Counter,
    /// Requests refused with an HTTP status.
    pub rejected: Counter,
    /// Sessions begun: a 101 was sent.
    pub sessions: Counter,
    /// Upstream legs that were lost while their client stayed.
    pub held: Counter,
    /// Those of them in whose place another came.
    pub resumed: Counter,
    /// Sessions whose end was the upstream's fault, or ours.
    pub sessions_failed: Counter,
    /// Sessions that ended, for whatever cause.
    pub sessions_ended: Counter,
    /// Of those, the ones that a drain ended, and whose client got the Close.
    pub drained: Counter,
    /// The ones that a drain ended, and whose client did not get it in time.
    pub cut_off: Counter,
}

/// How sessions stood at one moment, to be compared with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    begun: u64,
    ended: u64,
    drained: u64,
    cut_off: u64,
}

impl Telemetry {
    /// With an observer of every session's end.
    pub fn new(observer: Option<Observer>) -> Self {
        Self {
            counters: Counters::default(),
            observer,
        }
    }

    /// Writes the one record of a session.
    pub fn record(&self, record: &Record) {
        self.count(&record.summary);
        write(record);
        if let Some(observer) = &self.observer {
            observer(record);
        }
    }

    fn count(&self, summary: &Summary) {
        let counters = &self.counters;
        counters.sessions_ended.add();
        if summary.cause.is_operators() {
            counters.sessions_failed.add();
        }
        if summary.cause == Cause::Drained {
            match summary.close_codes.downstream {
                Some(_) => counters.drained.add(),
                None => counters.cut_off.add(),
            }
        }
    }

    /// How sessions stand.
    pub fn standing(&self) -> Standing {
        let counters = &self.counters;
        Standing {
            begun: counters.sessions.get(),
            ended: counters.sessions_ended.get(),
            drained: counters.drained.get(),
            cut_off: counters.cut_off.get(),
        }
    }

    /// Writes how the sessions ended that were there at `before`, and those begun since.
    pub fn log_drain(&self, before: Standing, took: Duration) {
        let now = self.standing();
        let ended = now.ended.saturating_sub(before.ended);
        let closed = now.drained.saturating_sub(before.drained);
        let cut_off = now.cut_off.saturating_sub(before.cut_off);
        tracing::info!(
            sessions = now.begun.saturating_sub(before.ended),
            closed,
            cut_off,
            ended_by_themselves = ended.saturating_sub(closed + cut_off),
            lost = now.begun.saturating_sub(now.ended),
            took_ms = millis(took),
            "drained"
        );
    }

    /// Writes all counts.
    pub fn log_counters(&self) {
        let counters = &self.counters;
        tracing::info!(
            accepted = counters.accepted.get(),
            accept_errors = counters.accept_errors.get(),
            over_process_cap = counters.over_process_cap.get(),
            over_address_cap = counters.over_address_cap.get(),
            over_unauthenticated_cap = counters.over_unauthenticated_cap.get(),
            over_address_unauthenticated_cap = counters.over_address_unauthenticated_cap.get(),
            over_rate = counters.over_rate.get(),
            over_address_rate = counters.over_address_rate.get(),
            over_route_cap = counters.over_route_cap.get(),
            over_subject_cap = counters.over_subject_cap.get(),
            denied = counters.denied.get(),
            no_proxy_header = counters.no_proxy_header.get(),
            tls_failed = counters.tls_failed.get(),
            no_request = counters.no_request.get(),
            rejected = counters.rejected.get(),
            sessions = counters.sessions.get(),
            held = counters.held.get(),
            resumed = counters.resumed.get(),
            sessions_failed = counters.sessions_failed.get(),
            "counts since the start"
        );
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

fn write(record: &Record) {
    let summary = &record.summary;
    let (client, upstream) = (summary.tallies.downstream, summary.tallies.upstream);
    let (peaks, codes) = (summary.peaks, summary.close_codes);
    let round_trips = summary.round_trips;
    let (client_rtt, upstream_rtt) = (round_trips.downstream, round_trips.upstream);
    tracing::info!(
        id = record.id,
        route = record.route,
        subject = record.subject,
        client = %address(record.client),
        via = record.via.map(|via| tracing::field::display(via.ip())),
        upstream = record.endpoint,
        cause = summary.cause.as_str(),
        side = summary.cause.side().map(Side::as_str),
        detail = detail(record),
        code_to_client = codes.downstream.map(CloseCode::get),
        code_to_upstream = codes.upstream.map(CloseCode::get),
        messages_from_client = client.messages,
        bytes_from_client = client.bytes,
        dropped_from_client = client.dropped,
        throttled_ms = millis(client.throttled),
        messages_from_upstream = upstream.messages,
        bytes_from_upstream = upstream.bytes,
        dropped_from_upstream = upstream.dropped,
        held = summary.holds.times,
        held_ms = millis(summary.holds.time),
        peak_buffered_from_client = peaks.downstream,
        peak_buffered_from_upstream = peaks.upstream,
        heartbeats = Some(summary.heartbeats).filter(|heartbeats| *heartbeats > 0),
        client_rtt_us = client_rtt.map(|rtt| micros(rtt.last)),
        client_rtt_min_us = client_rtt.map(|rtt| micros(rtt.least)),
        client_rtt_smoothed_us = client_rtt.map(|rtt| micros(rtt.smoothed)),
        upstream_rtt_us = upstream_rtt.map(|rtt| micros(rtt.last)),
        upstream_rtt_min_us = upstream_rtt.map(|rtt| micros(rtt.least)),
        upstream_rtt_smoothed_us = upstream_rtt.map(|rtt| micros(rtt.smoothed)),
        duration_ms = millis(record.duration),
        "session ended"
    );
}

fn detail(record: &Record) -> Option<String> {
    match (&record.detail, record.summary.cause) {
        (Some(detail), _) => Some(detail.clone()),
        (None, Cause::Misbehaved(_, rule)) => Some(rule.to_string()),
        (None, Cause::MessageRefused(objection)) => Some(objection.to_string()),
        (None, Cause::Closed { code, .. }) => code.map(|code| format!("code {}", code.get())),
        (None, Cause::QuotaExceeded(QuotaKind::Control)) => {
            Some("control frames or empty fragments".to_owned())
        }
        _ => None,
    }
}

/// Without a port that nobody said.
fn address(client: SocketAddr) -> String {
    match client.port() {
        0 => client.ip().to_string(),
        _ => client.to_string(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// An error and its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
