//! `[route.hold]`: how the sessions of a route outlive their upstream; and `dials` of an
//! upstream, how fast they come back to it.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Reported};
use crate::config::auth::first_message::reply;
use crate::config::file::{Section, Value};
use crate::config::units::duration_text;
use crate::config::value::{count, duration, in_memory, message_rate, size};
use crate::proto::close::CloseCode;
use crate::proto::limits::Rate;
use crate::proto::policy::{Backoff, Hold};

/// `[[upstream]] dials`: how fast held sessions come back to the upstream, all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dials {
    /// Sustained rate.
    pub rate: Rate,
    /// At once after a pause.
    pub burst: NonZeroU64,
}

/// Default of `max_hold`: a server that is restarted or replaced is back in seconds; people
/// wait no longer before they reload the page.
const MAX_HOLD: Duration = Duration::from_secs(30);

/// Shorter than a second holds nothing; after ten minutes what was said is stale.
const HOLDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 60);

/// Default of `hold_buffer`: the default of `high_watermark`, so that a held session costs no
/// more than one whose upstream is slow.
const HOLD_BUFFER: u64 = 64 << 10;

/// A few messages at least; as much as a watermark may be at most.
const HOLD_BUFFERS: RangeInclusive<u64> = 1 << 10..=16 << 20;

/// Default of `close_codes`: 1012 says that the service restarts, and nothing else does.
const CLOSE_CODE: CloseCode = CloseCode::SERVICE_RESTART;

/// Default of `backoff`: another endpoint is there at once; the ceiling of the fifth pause is
/// four seconds, and no endpoint that comes back waits longer than five for its sessions.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(250),
    max: Duration::from_secs(5),
};

/// Below a hundredth of a second it is a storm; above a minute no hold sees the second one.
const PAUSES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// Joining and subscribing take a few messages; what needs more is not set up, but replayed.
const REPLAYS: RangeInclusive<u64> = 0..=100;

/// Default of `replay_buffer`: as much as may wait, for the reason of that.
const REPLAY_BUFFER: u64 = 64 << 10;

/// Kept for as long as the session lives, so no more than a large message.
const REPLAY_BUFFERS: RangeInclusive<u64> = 1 << 10..=1 << 20;

/// Default of `dials`: five thousand sessions are back in ten seconds, and a server that just
/// started is not asked for more handshakes than one core does beside its work.
const DIALS: Dials = Dials {
    rate: Rate {
        units: NonZeroU64::MIN.saturating_add(499),
        per: Duration::from_secs(1),
    },
    burst: NonZeroU64::MIN.saturating_add(99),
};

/// More at once is no pace.
const BURSTS: RangeInclusive<u64> = 1..=100_000;

/// What `close_codes` may hold.
const CLOSE_CODES: &str = "codes that an upstream may close with (1001 to 1003, 1007 to 1014, \
    3000 to 4999): [1012]; not 1000, with which it ends a session as it should";

/// What `dials` must look like.
const EXAMPLE: &str = "{ rate = \"500/s\", burst = 100 }";

/// Reads `[route.hold]`; `None` where it is absent.
pub(super) fn hold(route: &mut Section<'_>) -> Result<Option<Hold>, Reported> {
    let Some(mut section) = route.section("hold")? else {
        return Ok(None);
    };
    let max_hold = section.or("max_hold", duration(HOLDS), MAX_HOLD);
    let buffer = section.or("hold_buffer", size(HOLD_BUFFERS), HOLD_BUFFER);
    let close_codes = section.list("close_codes", close_code);
    let backoff = backoff(&mut section);
    let messages = section.or("replay_messages", count(REPLAYS), 0);
    let replay_buffer = section.or("replay_buffer", size(REPLAY_BUFFERS), REPLAY_BUFFER);
    let notice = section.optional("hold_notice", reply);
    let resume_notice = section.optional("resume_notice", reply);
    section.done();
    let close_codes = close_codes?.map(|codes| codes.value.into_iter().map(|code| code.value));
    Ok(Some(Hold {
        max_hold: max_hold?.value,
        buffer: in_memory(buffer?.value),
        close_codes: close_codes.map_or_else(|| vec![CLOSE_CODE], Iterator::collect),
        backoff: backoff?,
        replay_messages: u32::try_from(messages?.value).unwrap_or(u32::MAX),
        replay_buffer: in_memory(replay_buffer?.value),
        notice: notice?.map(|notice| notice.value),
        resume_notice: resume_notice?.map(|notice| notice.value),
    }))
}

/// Reads `dials` of an upstream; `None` where it is off.
pub(super) fn dials(upstream: &mut Section<'_>) -> Result<Option<Dials>, Reported> {
    if !upstream.or("dials", is_on, true)?.value {
        return Ok(None);
    }
    let Some(mut section) = upstream.section("dials")? else {
        return Ok(Some(DIALS));
    };
    let rate = section.required("rate", dial_rate, EXAMPLE);
    let burst = section.required("burst", count(BURSTS), EXAMPLE);
    section.done();
    Ok(Some(Dials {
        rate: rate?.value,
        burst: NonZeroU64::new(burst?.value).unwrap_or(NonZeroU64::MIN),
    }))
}

fn dial_rate(value: &Value<'_>) -> Result<Rate, Mismatch> {
    message_rate(value).map_err(|mismatch| Mismatch {
        allowed: "dials per s, m or h: \"500/s\", at most \"1000000/s\"".to_owned(),
        ..mismatch
    })
}

/// `true` when the value is a table, `false` when it is `"off"`.
fn is_on(value: &Value<'_>) -> Result<bool, Mismatch> {
    match value.text() {
        Some("off") => Ok(false),
        _ if value.is_table() => Ok(true),
        _ => Err(Mismatch::of(value, format!("{EXAMPLE}, or \"off\""))),
    }
}

fn backoff(section: &mut Section<'_>) -> Result<Backoff, Reported> {
    let Some(mut table) = section.section("backoff")? else {
        return Ok(BACKOFF);
    };
    let first = table.or("first", duration(PAUSES), BACKOFF.first);
    let max = table.or("max", duration(PAUSES), BACKOFF.max);
    if let (Ok(first), Ok(max)) = (&first, &max)
        && first.value > max.value
    {
        let found = format!(
            "{}, max is {}",
            first.show(|time| duration_text(*time)),
            max.show(|time| duration_text(*time)),
        );
        let line = first.line.max(max.line);
        table.error(
            "first",
            line,
            found,
            "at most max: the pauses grow up to it",
        );
    }
    table.done();
    Ok(Backoff {
        first: first?.value,
        max: max?.value,
    })
}

fn close_code(value: &Value<'_>) -> Result<CloseCode, Mismatch> {
    let code = value.count().and_then(|code| u16::try_from(code).ok());
    let code = code
        .filter(|code| *code != 1000)
        .and_then(CloseCode::from_wire);
    code.ok_or_else(|| Mismatch::of(value, CLOSE_CODES))
}
