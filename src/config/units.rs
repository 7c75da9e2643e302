//! Sizes, durations and rates as an operator writes them, always with their unit.
//!
//! The units are powers of 1024 for bytes (`B KiB MiB GiB`), and `ms s m h d` for time.
//! A rate is an amount per `s`, `m` or `h`. Nothing is rounded and nothing overflows.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::proto::limits::Rate;

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not begin with digits, or has a sign, a fraction or a space.
    #[error("not a whole number")]
    NotANumber,
    /// Digits alone.
    #[error("it has no unit")]
    NoUnit,
    /// A unit that is not in the list.
    #[error("its unit is not known")]
    UnknownUnit,
    /// More than can be counted.
    #[error("too large to count")]
    TooLarge,
    /// A rate of nothing.
    #[error("it is zero")]
    Zero,
}

/// Bytes, from `512B`, `64KiB`, `1MiB` or `1GiB`.
///
/// # Errors
/// See [`UnitError`].
pub fn size(text: &str) -> Result<u64, UnitError> {
    scaled(text, &SIZES)
}

/// A length of time, from `250ms`, `10s`, `5m`, `2h` or `1d`.
///
/// # Errors
/// See [`UnitError`].
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    scaled(text, &TIMES).map(Duration::from_millis)
}

/// Messages per time, from `50/s`, `600/m` or `1000/h`.
///
/// # Errors
/// See [`UnitError`].
pub fn message_rate(text: &str) -> Result<Rate, UnitError> {
    let (amount, per) = per(text)?;
    let (units, rest) = digits(amount)?;
    if !rest.is_empty() {
        return Err(UnitError::UnknownUnit);
    }
    rate(units, per)
}

/// Bytes per time, from `256KiB/s`.
///
/// # Errors
/// See [`UnitError`].
pub fn byte_rate(text: &str) -> Result<Rate, UnitError> {
    let (amount, per) = per(text)?;
    rate(size(amount)?, per)
}

/// Bytes in the largest unit that needs no fraction.
pub fn size_text(bytes: u64) -> String {
    largest(bytes, &SIZES)
}

/// Time in the largest unit that needs no fraction; below a millisecond it is cut off.
pub fn duration_text(time: Duration) -> String {
    largest(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &TIMES)
}

/// Units in bytes.
const SIZES: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Units in milliseconds.
const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("d", 24 * 60 * 60 * 1000),
];

fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let (number, unit) = digits(text)?;
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or(UnitError::UnknownUnit)?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

/// The leading digits as a number, and what follows them.
fn digits(text: &str) -> Result<(u64, &str), UnitError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if number.is_empty() || rest.starts_with(['.', ',', '_', ' ']) {
        return Err(UnitError::NotANumber);
    }
    Ok((number.parse().map_err(|_| UnitError::TooLarge)?, rest))
}

/// Splits `amount/time` into the amount and the span.
fn per(text: &str) -> Result<(&str, Duration), UnitError> {
    let (amount, unit) = text.split_once('/').ok_or(UnitError::NoUnit)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return Err(UnitError::UnknownUnit),
    };
    Ok((amount, Duration::from_secs(seconds)))
}

fn rate(units: u64, per: Duration) -> Result<Rate, UnitError> {
    let units = NonZeroU64::new(units).ok_or(UnitError::Zero)?;
    Ok(Rate { units, per })
}

fn largest(amount: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .rev()
        .find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor))
        .or(units.first())
        .map(|(name, factor)| format!("{}{name}", amount / factor))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases = [
            ("0B", 0),
            ("1B", 1),
            ("64KiB", 65_536),
            ("1MiB", 1_048_576),
            ("16GiB", 17_179_869_184),
            ("007B", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_its_reason() {
        let cases = [
            ("", UnitError::NotANumber),
            ("KiB", UnitError::NotANumber),
            ("-1B", UnitError::NotANumber),
            ("+1B", UnitError::NotANumber),
            (" 1B", UnitError::NotANumber),
            ("1 B", UnitError::NotANumber),
            ("1.5KiB", UnitError::NotANumber),
            ("1_000B", UnitError::NotANumber),
            ("٣B", UnitError::NotANumber),
            ("65536", UnitError::NoUnit),
            ("64KB", UnitError::UnknownUnit),
            ("64kib", UnitError::UnknownUnit),
            ("64K", UnitError::UnknownUnit),
            ("1B ", UnitError::UnknownUnit),
            ("1e3B", UnitError::UnknownUnit),
            ("17179869184GiB", UnitError::TooLarge),
            ("18446744073709551616B", UnitError::TooLarge),
        ];
        for (text, error) in cases {
            assert_eq!(size(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn durations_have_five_units() {
        let cases = [
            ("0ms", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_reason() {
        let cases = [
            ("10", UnitError::NoUnit),
            ("10us", UnitError::UnknownUnit),
            ("10S", UnitError::UnknownUnit),
            ("1h30m", UnitError::UnknownUnit),
            ("213503982335d", UnitError::TooLarge),
        ];
        for (text, error) in cases {
            assert_eq!(duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn rates_are_amounts_per_time() {
        let cases = [("50/s", 50, 1), ("600/m", 600, 60), ("1000/h", 1000, 3600)];
        for (text, units, seconds) in cases {
            let rate = message_rate(text).expect(text);
            assert_eq!((rate.units.get(), rate.per.as_secs()), (units, seconds));
        }
        let rate = byte_rate("256KiB/s").expect("a byte rate");
        assert_eq!((rate.units.get(), rate.per.as_secs()), (262_144, 1));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_its_reason() {
        let cases = [
            ("50", UnitError::NoUnit),
            ("50/d", UnitError::UnknownUnit),
            ("50/", UnitError::UnknownUnit),
            ("50B/s", UnitError::UnknownUnit),
            ("0/s", UnitError::Zero),
            ("/s", UnitError::NotANumber),
        ];
        for (text, error) in cases {
            assert_eq!(message_rate(text), Err(error), "{text}");
        }
        assert_eq!(byte_rate("256/s"), Err(UnitError::NoUnit));
        assert_eq!(byte_rate("0B/s"), Err(UnitError::Zero));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bytes: u64, millis: u64) {
            prop_assert_eq!(size(&size_text(bytes)), Ok(bytes));
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&duration_text(time)), Ok(time));
        }

        #[test]
        fn no_text_panics(text in "[0-9]{0,22}[a-zA-Z/. ]{0,4}") {
            for outcome in [size(&text).is_ok(), duration(&text).is_ok(), message_rate(&text).is_ok()] {
                prop_assert!(!outcome || text.starts_with(|c: char| c.is_ascii_digit()));
            }
        }
    }
}
