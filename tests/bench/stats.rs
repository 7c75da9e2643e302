//! What a row of numbers says as one.
//!
//! Owns the statistics: medians with their spread, and percentiles. Pure; it knows neither where
//! the numbers come from nor what becomes of them.

use serde::{Deserialize, Serialize};

/// The middle and the ends of a handful of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the values are at most this.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (lower, upper) = ((values.len() - 1) / 2, values.len() / 2);
        Some(Self {
            median: f64::midpoint(values[lower], values[upper]),
            min,
            max,
        })
    }
}

/// Times of one run, in microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half were at most this.
    pub p50: f64,
    /// 99 in 100.
    pub p99: f64,
    /// 999 in 1,000.
    pub p999: f64,
}

impl Percentiles {
    /// From nanoseconds, in any order; zero without any.
    pub fn of(mut nanoseconds: Vec<u32>) -> Self {
        nanoseconds.sort_unstable();
        // Nearest rank: the smallest value that at least this share is not above.
        let at = |share: f64| {
            let rank = (share * nanoseconds.len() as f64).ceil() as usize;
            let value = nanoseconds.get(rank.saturating_sub(1));
            f64::from(value.copied().unwrap_or_default()) / 1000.0
        };
        Self {
            p50: at(0.50),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}
