//! `[route.limits]` and `[route.backpressure]`: what the sessions of a route obey.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::units::size_text;
use crate::config::value::{
    byte_rate, count, duration, flag, in_memory, message_rate, one_of, or_off, size,
};
use crate::proto::limits::{Limits, OnExcess, Quota, Rate};
use crate::proto::policy::{Backpressure, OnSlowConsumer};

/// Default of `max_frame_size`: libraries cut messages into frames of 4 to 64 KiB.
const MAX_FRAME_SIZE: u64 = 64 << 10;

/// Default of `max_message_size`: chat, telemetry and collaboration stay far below; most
/// servers hold a whole message in memory and expect no more.
const MAX_MESSAGE_SIZE: u64 = 1 << 20;

/// A limit of nothing admits nobody; beyond 1 TiB it is no limit.
const SIZES: RangeInclusive<u64> = 1..=1 << 40;

/// Default of `messages`: twenty times faster than anyone types, and slow enough that a
/// thousand hostile clients are no load. A page's first requests come in a burst of a hundred.
const MESSAGES: Quota = quota(50, 100, OnExcess::Throttle);

/// Default of `bytes`: a message of the largest default size at once, then one in four seconds.
const BYTES: Quota = quota(256 << 10, 1 << 20, OnExcess::Throttle);

/// Default of `control`: a ping a second is much, twenty are a flood; the burst forgives a
/// client that caught up after a pause. It closes, since waiting would also hold back data.
const CONTROL: Quota = quota(20, 40, OnExcess::Close);

/// Messages at once: more than that in a moment is no burst.
const MESSAGE_BURSTS: RangeInclusive<u64> = 1..=1_000_000;

/// Bytes at once: at least 1 KiB, since bytes are charged in pieces and smaller pieces would
/// make a wake-up of each.
const BYTE_BURSTS: RangeInclusive<u64> = 1 << 10..=1 << 30;

/// Longest time for a burst to come back: meters count in nanoseconds, and a quota that needs
/// longer is a lifetime limit under another name.
const LONGEST_REFILL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Bytes of the largest frame header from a client (RFC 6455 §5.2): 2, 8 of length, 4 of mask.
const LARGEST_HEADER: u64 = 14;

/// Default of `high_watermark`: what a slow client may cost us. Four TLS records: enough that
/// a good line never waits for the upstream.
const HIGH_WATERMARK: u64 = 64 << 10;

/// The largest TLS record (16 KiB) arrives whole, and as much again may be under way.
const HIGH_WATERMARKS: RangeInclusive<u64> = 32 << 10..=16 << 20;

/// Default of `stall_timeout`: a minute forgives a tunnel and a change of networks.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Shorter than a second would end sessions over a lost packet.
const STALL_TIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

const MESSAGE_QUOTA: QuotaRules = QuotaRules {
    default: MESSAGES,
    off: Off::Allowed,
    rate: message_rate,
    burst: |value| count(MESSAGE_BURSTS)(value),
    on_excess: &[
        ("throttle", OnExcess::Throttle),
        ("drop", OnExcess::Drop),
        ("close", OnExcess::Close),
    ],
    example: "{ rate = \"50/s\", burst = 100, on_excess = \"throttle\" }",
};

const BYTE_QUOTA: QuotaRules = QuotaRules {
    default: BYTES,
    rate: byte_rate,
    burst: |value| size(BYTE_BURSTS)(value),
    example: "{ rate = \"256KiB/s\", burst = \"1MiB\", on_excess = \"throttle\" }",
    ..MESSAGE_QUOTA
};

/// The quota of a rule: where it is off, it is not written.
const RULE_QUOTA: QuotaRules = QuotaRules {
    off: Off::Refused,
    example: "{ rate = \"5/s\", burst = 10, on_excess = \"throttle\" }",
    ..MESSAGE_QUOTA
};

/// A control frame is not dropped: an unanswered ping would look like a dead connection.
const CONTROL_QUOTA: QuotaRules = QuotaRules {
    default: CONTROL,
    off: Off::Refused,
    on_excess: &[("throttle", OnExcess::Throttle), ("close", OnExcess::Close)],
    example: "{ rate = \"20/s\", burst = 40, on_excess = \"close\" }",
    ..MESSAGE_QUOTA
};

const fn quota(per_second: u64, burst: u64, on_excess: OnExcess) -> Quota {
    let one = NonZeroU64::MIN;
    Quota {
        rate: Rate {
            units: one.saturating_add(per_second - 1),
            per: Duration::from_secs(1),
        },
        burst: one.saturating_add(burst - 1),
        on_excess,
    }
}

/// Reads `[route.limits]`.
pub(super) fn limits(mut section: Section<'_>) -> Result<Limits, Reported> {
    let frame = section.or("max_frame_size", size(SIZES), MAX_FRAME_SIZE);
    let message = section.or("max_message_size", size(SIZES), MAX_MESSAGE_SIZE);
    let upstream_frame = section.or("max_upstream_frame_size", or_off(size(SIZES)), None);
    let upstream_message = section.or("max_upstream_message_size", or_off(size(SIZES)), None);
    if let (Ok(frame), Ok(message)) = (&frame, &message) {
        let keys = ["max_frame_size", "max_message_size"];
        frame_fits_message(&section, keys, frame, message);
    }
    if let (Ok(frame), Ok(message)) = (&upstream_frame, &upstream_message) {
        let keys = ["max_upstream_frame_size", "max_upstream_message_size"];
        let unlimited = |size: &Option<u64>| size.unwrap_or(u64::MAX);
        if message.value.is_some() && frame.value.is_some() {
            frame_fits_message(
                &section,
                keys,
                &frame.map(unlimited),
                &message.map(unlimited),
            );
        }
    }
    let messages = quota_of(&mut section, "messages", &MESSAGE_QUOTA);
    let bytes = quota_of(&mut section, "bytes", &BYTE_QUOTA);
    if let (Ok(frame), Ok(Some(bytes))) = (&frame, &bytes) {
        frame_fits_burst(&section, frame, bytes);
    }
    let control = quota_of(&mut section, "control", &CONTROL_QUOTA);
    let validate_utf8 = utf8(&mut section);
    section.done();
    Ok(Limits {
        max_frame_size: frame?.value,
        max_message_size: message?.value,
        max_upstream_frame_size: upstream_frame?.value,
        max_upstream_message_size: upstream_message?.value,
        messages: messages?.map(|quota| quota.value),
        bytes: bytes?.map(|quota| quota.value),
        control: control?.map_or(CONTROL, |quota| quota.value),
        validate_utf8: validate_utf8?,
    })
}

/// Reads `[route.backpressure]`.
pub(super) fn backpressure(mut section: Section<'_>) -> Result<Backpressure, Reported> {
    let policies = &[
        ("throttle", OnSlowConsumer::Throttle),
        ("drop", OnSlowConsumer::Drop),
        ("close", OnSlowConsumer::Close),
    ];
    let high = section.or("high_watermark", size(HIGH_WATERMARKS), HIGH_WATERMARK);
    let low = section.optional("low_watermark", size(0..=*HIGH_WATERMARKS.end()));
    // The default makes every slow client wait, as TCP would without an edge in between.
    let on_slow = section.or(
        "on_slow_consumer",
        one_of(policies),
        OnSlowConsumer::Throttle,
    );
    let stall = section.or("stall_timeout", duration(STALL_TIMES), STALL_TIMEOUT);
    let watermarks = high.and_then(|high| Ok((high.value, low_watermark(&section, &high, low?)?)));
    section.done();
    let (high, low) = watermarks?;
    Ok(Backpressure {
        high_watermark: in_memory(high),
        low_watermark: in_memory(low),
        on_slow_consumer: on_slow?.value,
        stall_timeout: stall?.value,
    })
}

/// Default of `low_watermark`: half of the high one, so that neither side waits for the other
/// to be empty, and reading does not start and stop with every frame.
fn low_watermark(
    section: &Section<'_>,
    high: &Placed<u64>,
    low: Option<Placed<u64>>,
) -> Result<u64, Reported> {
    match low {
        None => Ok(high.value / 2),
        Some(low) if low.value < high.value => Ok(low.value),
        Some(low) => {
            let high_text = high.show(|size| size_text(*size));
            let found = format!("{}, high_watermark is {high_text}", size_text(low.value));
            let allowed =
                "less than high_watermark: reading stops at the high one and starts at the low one";
            Err(section.error("low_watermark", low.line, found, allowed))
        }
    }
}

/// Reads `quota` of a rule; `None` when it is absent.
pub(super) fn rule_quota(section: &mut Section<'_>) -> Result<Option<Quota>, Reported> {
    if !section.has("quota") {
        return Ok(None);
    }
    let quota = quota_of(section, "quota", &RULE_QUOTA)?;
    Ok(quota.map(|quota| quota.value))
}

/// Whether a quota may be switched off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Off {
    Allowed,
    Refused,
}

/// What a quota may be.
struct QuotaRules {
    default: Quota,
    off: Off,
    rate: fn(&Value<'_>) -> Result<Rate, Mismatch>,
    burst: fn(&Value<'_>) -> Result<u64, Mismatch>,
    on_excess: &'static [(&'static str, OnExcess)],
    example: &'static str,
}

impl QuotaRules {
    /// `true` when the value is a table, `false` when it is `"off"`.
    fn is_on(&self, value: &Value<'_>) -> Result<bool, Mismatch> {
        match (value.text(), self.off) {
            (Some("off"), Off::Allowed) => Ok(false),
            _ if value.is_table() => Ok(true),
            (_, Off::Allowed) => Err(Mismatch::of(value, format!("{}, or \"off\"", self.example))),
            (_, Off::Refused) => Err(Mismatch::of(value, self.example)),
        }
    }
}

/// Reads a quota; `None` when it is switched off.
fn quota_of(
    section: &mut Section<'_>,
    key: &'static str,
    rules: &QuotaRules,
) -> Result<Option<Placed<Quota>>, Reported> {
    let on = section.or(key, |value| rules.is_on(value), true)?;
    if !on.value {
        return Ok(None);
    }
    let Some(mut table) = section.section(key)? else {
        return Ok(Some(on.map(|_| rules.default)));
    };
    let rate = table.required("rate", rules.rate, rules.example);
    let burst = table.required("burst", rules.burst, rules.example);
    let on_excess = table.or(
        "on_excess",
        one_of(rules.on_excess),
        rules.default.on_excess,
    );
    let outcome = rate.and_then(|rate| refillable(&table, rate.value, burst?));
    table.done();
    let (rate, burst) = outcome?;
    let on_excess = on_excess?.value;
    Ok(Some(on.map(|_| Quota {
        rate,
        burst,
        on_excess,
    })))
}

/// The burst, if the rate gives it back within [`LONGEST_REFILL`].
pub(super) fn refillable(
    section: &Section<'_>,
    rate: Rate,
    burst: Placed<u64>,
) -> Result<(Rate, NonZeroU64), Reported> {
    let needed = u128::from(burst.value) * u128::from(rate.per.as_secs());
    let given = u128::from(rate.units.get()) * u128::from(LONGEST_REFILL.as_secs());
    match NonZeroU64::new(burst.value) {
        Some(burst) if needed <= given => Ok((rate, burst)),
        _ => {
            let found = "a burst that the rate does not give back in 30 days";
            Err(section.error(
                "burst",
                burst.line,
                found,
                "a smaller burst, or a higher rate",
            ))
        }
    }
}

fn frame_fits_message(
    section: &Section<'_>,
    keys: [&str; 2],
    frame: &Placed<u64>,
    message: &Placed<u64>,
) {
    if frame.value > message.value {
        let [frame_key, message_key] = keys;
        let found = format!(
            "{}, {message_key} is {}",
            frame.show(|size| size_text(*size)),
            message.show(|size| size_text(*size)),
        );
        let allowed = format!("at most {message_key}: a message is at least one frame");
        section.error(frame_key, frame.line.max(message.line), found, allowed);
    }
}

/// A quota that drops or closes must let one frame pass, or nothing of that size ever would.
/// One that throttles charges bytes in pieces, so a larger frame merely takes longer.
fn frame_fits_burst(section: &Section<'_>, frame: &Placed<u64>, bytes: &Placed<Quota>) {
    let needed = frame.value.saturating_add(LARGEST_HEADER);
    if bytes.value.on_excess == OnExcess::Throttle || bytes.value.burst.get() >= needed {
        return;
    }
    let found = format!(
        "a burst of {}, max_frame_size is {}",
        size_text(bytes.value.burst.get()),
        frame.show(|size| size_text(*size)),
    );
    let allowed = format!(
        "a burst of at least \"{}\" (max_frame_size and a header), or on_excess = \"throttle\"",
        size_text(needed)
    );
    section.error("bytes.burst", bytes.line.max(frame.line), found, allowed);
}

/// On by default: the edge promises the upstream well-formed traffic.
fn utf8(section: &mut Section<'_>) -> Result<bool, Reported> {
    let validate = section.or("validate_utf8", flag, true)?;
    if !validate.value {
        let found = "text that is not UTF-8 reaches the upstream";
        section.warning(
            "validate_utf8",
            validate.line,
            found,
            "true, unless the upstream checks it itself",
        );
    }
    Ok(validate.value)
}
