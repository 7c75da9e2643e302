//! Sizes, and quotas per time: what a connection may send.
//!
//! The plain values are what the configuration is parsed into; a [`Meter`] holds one
//! connection to one of them. Time is passed in: the meter has no clock.

use std::cell::Cell;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, Instant};

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};

/// What happens to traffic beyond a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExcess {
    /// The connection is not read until the quota allows more: TCP makes the sender wait.
    Throttle,
    /// Whole messages are discarded and counted.
    Drop,
    /// The session is closed with 1008.
    Close,
}

/// So many units (messages, bytes) in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units per `per`.
    pub units: NonZeroU64,
    /// The span the units are spread over: one second, one minute or one hour.
    pub per: Duration,
}

/// A sustained rate, and how much may come at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Sustained rate.
    pub rate: Rate,
    /// Units admitted at once from a full bucket.
    pub burst: NonZeroU64,
    /// Policy beyond it.
    pub on_excess: OnExcess,
}

/// The limits of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of one frame from the client, in bytes.
    pub max_frame_size: u64,
    /// Largest sum of the payloads of one message's fragments from the client, in bytes.
    pub max_message_size: u64,
    /// The same for frames from the upstream; `None`: unlimited (frames stream through).
    pub max_upstream_frame_size: Option<u64>,
    /// The same for messages from the upstream; `None`: unlimited.
    pub max_upstream_message_size: Option<u64>,
    /// Data messages from the client.
    pub messages: Option<Quota>,
    /// Bytes from the client, headers included.
    pub bytes: Option<Quota>,
    /// Control frames from the client (ping floods).
    pub control: Quota,
    /// Whether text from the client must be valid UTF-8 (RFC 6455 §8.1).
    pub validate_utf8: bool,
}

/// Holds one connection to one quota.
///
/// The algorithm is governor's (GCRA: a leaky bucket that remembers one instant). Large
/// quotas are counted in coarser units so that the time of one unit never rounds to zero;
/// what is left of a unit is carried to the next charge.
///
/// In any span the units admitted are at most `burst + rate × span`, plus one counting unit.
#[derive(Debug)]
pub struct Meter {
    limiter: RateLimiter<NotKeyed, InMemoryState, GivenClock, NoOpMiddleware<Nanos>>,
    epoch: Instant,
    /// Units to a cell of the limiter.
    unit: NonZeroU32,
    /// Units charged that do not make a cell yet; below `unit`.
    carried: u32,
    /// Cells in a full bucket.
    cells: NonZeroU32,
    on_excess: OnExcess,
}

impl Meter {
    /// A full bucket.
    pub fn new(quota: &Quota, now: Instant) -> Self {
        let per = u64::try_from(quota.rate.per.as_nanos()).unwrap_or(u64::MAX);
        // At least a microsecond for each counted unit keeps the rounding below 0.1 %.
        let unit = quota.rate.units.get().div_ceil((per / 1_000).max(1));
        let unit = u32::try_from(unit).unwrap_or(u32::MAX);
        let unit = NonZeroU32::new(unit).unwrap_or(NonZeroU32::MIN);
        let nanos =
            (u128::from(per) * u128::from(unit.get())).div_ceil(u128::from(quota.rate.units.get()));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        let cells = u32::try_from(quota.burst.get() / NonZeroU64::from(unit)).unwrap_or(u32::MAX);
        let cells = NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN);
        let governed = governor::Quota::with_period(Duration::from_nanos(nanos))
            .unwrap_or_else(|| governor::Quota::per_second(NonZeroU32::MIN))
            .allow_burst(cells);
        Self {
            limiter: RateLimiter::direct_with_clock(governed, GivenClock::default()),
            epoch: now,
            unit,
            carried: 0,
            cells,
            on_excess: quota.on_excess,
        }
    }

    /// The policy beyond the quota.
    pub const fn on_excess(&self) -> OnExcess {
        self.on_excess
    }

    /// The most that one [`charge`](Self::charge) can ask for.
    pub const fn burst(&self) -> u64 {
        self.unit.get() as u64 * self.cells.get() as u64
    }

    /// Takes `units` from the bucket, all or none; more than [`burst`](Self::burst) counts
    /// as `burst`, so that no charge waits for ever.
    ///
    /// # Errors
    ///
    /// The bucket has not so many; it will at the instant given.
    pub fn charge(&mut self, units: u64, now: Instant) -> Result<(), Instant> {
        let unit = NonZeroU64::from(self.unit);
        let units = units.min(self.burst());
        let owed = u64::from(self.carried) + units;
        let cells = u32::try_from(owed / unit).unwrap_or(u32::MAX);
        // A remainder is below its divisor, which is 32 bits wide.
        let carried = (owed % unit) as u32;
        let Some(cells) = NonZeroU32::new(cells) else {
            self.carried = carried;
            return Ok(());
        };
        let since = now.saturating_duration_since(self.epoch);
        self.limiter.clock().0.set(since.into());
        match self.limiter.check_n(cells) {
            Ok(Ok(())) => {
                self.carried = carried;
                Ok(())
            }
            Ok(Err(not_until)) => Err(self.epoch + Duration::from(not_until.earliest_possible())),
            // Only what was carried can lift the sum above the burst: let that go.
            Err(_) => {
                self.carried = 0;
                self.charge(units, now)
            }
        }
    }
}

/// The time that was passed in, for governor to find.
#[derive(Clone, Debug, Default)]
struct GivenClock(Cell<Nanos>);

impl Clock for GivenClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(units: u64, per: Duration, burst: u64) -> Quota {
        Quota {
            rate: Rate {
                units: NonZeroU64::new(units).unwrap(),
                per,
            },
            burst: NonZeroU64::new(burst).unwrap(),
            on_excess: OnExcess::Throttle,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_over_the_burst_waits_for_exactly_one_unit() {
        let start = Instant::now();
        let mut meter = Meter::new(&quota(50, SECOND, 100), start);
        for _ in 0..100 {
            assert_eq!(meter.charge(1, start), Ok(()));
        }
        let until = meter.charge(1, start).unwrap_err();
        assert_eq!(until - start, Duration::from_millis(20));
        assert!(meter.charge(1, until - Duration::from_nanos(1)).is_err());
        assert_eq!(meter.charge(1, until), Ok(()));
        assert!(meter.charge(1, until).is_err());
    }

    #[test]
    fn a_charge_above_the_burst_is_not_stuck() {
        let start = Instant::now();
        let mut meter = Meter::new(&quota(1000, SECOND, 2000), start);
        assert_eq!(meter.charge(5000, start), Ok(()));
        let until = meter.charge(5000, start).unwrap_err();
        assert_eq!(until - start, Duration::from_secs(2));
        assert_eq!(meter.charge(5000, until), Ok(()));
    }

    #[test]
    fn a_rate_above_a_unit_each_nanosecond_is_kept() {
        let start = Instant::now();
        let rate = 8 << 30;
        let mut meter = Meter::new(&quota(rate, SECOND, 1 << 20), start);
        let mut admitted = 0;
        for step in 0..100_000u32 {
            let now = start + Duration::from_micros(1) * step;
            while meter.charge(1400, now).is_ok() {
                admitted += 1400;
            }
        }
        let expected = rate / 10;
        assert!(
            admitted > expected - expected / 50,
            "{admitted} of {expected}"
        );
        assert!(
            admitted < expected + expected / 50 + (2 << 20),
            "{admitted} of {expected}"
        );
    }

    proptest! {
        #[test]
        fn no_span_admits_more_than_the_burst_and_the_rate(
            units in 1..100_000_000u64,
            burst in 1..1_000_000u64,
            steps in prop::collection::vec((0..5_000_000u64, 1..4_000u64), 1..200),
        ) {
            let start = Instant::now();
            let mut meter = Meter::new(&quota(units, SECOND, burst), start);
            let mut now = start;
            let mut admitted = 0;
            for (nanos, charge) in steps {
                now += Duration::from_nanos(nanos);
                if meter.charge(charge, now).is_ok() {
                    admitted += charge.min(meter.burst());
                }
                let earned = (now - start).as_nanos() * u128::from(units) / 1_000_000_000;
                let bound = u128::from(meter.burst()) + earned + u128::from(meter.unit.get()) + 1;
                prop_assert!(u128::from(admitted) <= bound, "{} > {}", admitted, bound);
            }
        }
    }
}
