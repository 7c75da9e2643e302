//! What a single value may be: its type, its unit, its bounds. Each reader answers with the
//! value, or with what was found and what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::Mismatch;
use crate::config::file::Value;
use crate::config::units::{self, UnitError};
use crate::proto::limits::Rate;

/// `true` or `false`.
pub(super) fn flag(value: &Value<'_>) -> Result<bool, Mismatch> {
    let wrong = || Mismatch::of(value, "true or false, without quotes");
    value.flag().ok_or_else(wrong)
}

/// A string, whatever it says.
pub(super) fn text(value: &Value<'_>) -> Result<String, Mismatch> {
    let wrong = || Mismatch::of(value, "a string in quotes");
    value.text().map(str::to_owned).ok_or_else(wrong)
}

/// A string that `check` accepts; its error says what is wrong with it, `allowed` what is right.
pub(super) fn checked<T, E: Display>(
    check: impl Fn(&str) -> Result<T, E>,
    allowed: &'static str,
) -> impl Fn(&Value<'_>) -> Result<T, Mismatch> {
    move |value| {
        let text = value.text().ok_or_else(|| Mismatch::of(value, allowed))?;
        check(text)
            .map_err(|wrong| Mismatch::new(format!("{}: {wrong}", value.describe()), allowed))
    }
}

/// The path of a file. What looks like the content of a key file is not printed.
pub(super) fn path(value: &Value<'_>) -> Result<String, Mismatch> {
    let allowed = "the path of a file, in quotes";
    let text = text(value).map_err(|_| Mismatch::of(value, allowed))?;
    if text.is_empty() {
        return Err(Mismatch::new("an empty path", allowed));
    }
    if text.contains("-----BEGIN") || text.chars().any(char::is_control) {
        return Err(Mismatch::new(
            "something that is not a path (not shown)",
            allowed,
        ));
    }
    Ok(text)
}

/// One of some words.
pub(super) fn one_of<T: Copy>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&Value<'_>) -> Result<T, Mismatch> {
    move |value| {
        let chosen = choices.iter().find(|(word, _)| value.text() == Some(*word));
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<String> = choices
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            Mismatch::of(value, format!("one of {}", words.join(", ")))
        })
    }
}

/// A bare whole number within bounds.
pub(super) fn count(bounds: RangeInclusive<u64>) -> impl Fn(&Value<'_>) -> Result<u64, Mismatch> {
    move |value| {
        let counted = value.count().filter(|count| bounds.contains(count));
        counted.ok_or_else(|| {
            let allowed = format!("a whole number from {} to {}", bounds.start(), bounds.end());
            Mismatch::of(value, allowed)
        })
    }
}

/// A number of bytes with its unit, within bounds.
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&Value<'_>) -> Result<u64, Mismatch> {
    move |value| {
        let [low, high] = [*bounds.start(), *bounds.end()].map(units::size_text);
        let allowed =
            format!("a size with its unit (B, KiB, MiB, GiB), from \"{low}\" to \"{high}\"");
        within(value, units::size, &bounds, allowed)
    }
}

/// A time with its unit, within bounds.
pub(super) fn duration(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&Value<'_>) -> Result<Duration, Mismatch> {
    move |value| {
        let [low, high] = [*bounds.start(), *bounds.end()].map(units::duration_text);
        let allowed =
            format!("a time with its unit (ms, s, m, h, d), from \"{low}\" to \"{high}\"");
        within(value, units::duration, &bounds, allowed)
    }
}

/// Messages per time.
pub(super) fn message_rate(value: &Value<'_>) -> Result<Rate, Mismatch> {
    let allowed = "messages per s, m or h: \"50/s\", at most \"1000000/s\"";
    rate(value, units::message_rate, FASTEST_MESSAGES, allowed)
}

/// Anything else that is counted, per time.
pub(super) fn event_rate(value: &Value<'_>) -> Result<Rate, Mismatch> {
    let allowed = "so many per s, m or h: \"100/s\", at most \"1000000/s\"";
    rate(value, units::message_rate, FASTEST_MESSAGES, allowed)
}

/// Bytes per time.
pub(super) fn byte_rate(value: &Value<'_>) -> Result<Rate, Mismatch> {
    let allowed = "a size with its unit per s, m or h: \"256KiB/s\", at most \"512MiB/s\"";
    rate(value, units::byte_rate, FASTEST_BYTES, allowed)
}

/// What `parse` reads, or the word `"off"`.
pub(super) fn or_off<T>(
    parse: impl Fn(&Value<'_>) -> Result<T, Mismatch>,
) -> impl Fn(&Value<'_>) -> Result<Option<T>, Mismatch> {
    move |value| {
        if value.text() == Some("off") {
            return Ok(None);
        }
        parse(value).map(Some).map_err(|mismatch| Mismatch {
            allowed: format!("{}, or \"off\"", mismatch.allowed),
            ..mismatch
        })
    }
}

/// A checked number as one of things in memory. The bounds of every such key fit into 32
/// bits, so nothing is cut off on any machine this runs on.
pub(super) fn in_memory(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Per second. A meter counts time in nanoseconds, and a unit must take at least one; nobody
/// types, and few programs send, more than this on one connection.
const FASTEST_MESSAGES: u64 = 1_000_000;

/// Per second, for the same reason: 512 MiB/s is half a unit per nanosecond.
const FASTEST_BYTES: u64 = 512 << 20;

fn rate(
    value: &Value<'_>,
    parse: impl Fn(&str) -> Result<Rate, UnitError>,
    fastest: u64,
    allowed: &str,
) -> Result<Rate, Mismatch> {
    let rate = amount(value, parse, allowed)?;
    let most = u128::from(fastest) * u128::from(rate.per.as_secs());
    if u128::from(rate.units.get()) > most {
        return Err(Mismatch::of(value, allowed));
    }
    Ok(rate)
}

fn within<T: PartialOrd>(
    value: &Value<'_>,
    parse: impl Fn(&str) -> Result<T, UnitError>,
    bounds: &RangeInclusive<T>,
    allowed: String,
) -> Result<T, Mismatch> {
    let amount = amount(value, parse, &allowed)?;
    if bounds.contains(&amount) {
        return Ok(amount);
    }
    Err(Mismatch::of(value, allowed))
}

/// A string with a unit; a bare number is refused, since nobody can tell what it counts.
fn amount<T>(
    value: &Value<'_>,
    parse: impl Fn(&str) -> Result<T, UnitError>,
    allowed: &str,
) -> Result<T, Mismatch> {
    if value.is_number() {
        let found = format!("{} without a unit", value.describe());
        return Err(Mismatch::new(found, allowed));
    }
    let text = value.text().ok_or_else(|| Mismatch::of(value, allowed))?;
    parse(text).map_err(|wrong| Mismatch::new(format!("{}: {wrong}", value.describe()), allowed))
}
