//! A rate and a burst that many are held to, each of whom costs one instant to remember.
//!
//! A [`Meter`](crate::proto::limits::Meter) holds one connection, and is large beside what an
//! address that came by once is worth. The algorithm is the same (GCRA).

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::proto::limits::Rate;

/// How often something may happen: so fast for long, and so often at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Sustained.
    pub rate: Rate,
    /// At once.
    pub burst: NonZeroU64,
}

/// What is remembered of one who is held to an allowance: when the burst is whole again.
/// The whole burst is there once that moment has passed, and then nothing need be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spent(Instant);

impl Spent {
    /// Nothing.
    pub const fn nothing(now: Instant) -> Self {
        Self(now)
    }

    /// Whether it is no different from nothing.
    pub fn is_nothing(self, now: Instant) -> bool {
        self.0 <= now
    }
}

impl Allowance {
    /// Takes one, if there is one.
    ///
    /// In any span no more than `burst + rate × span` are taken.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn charge(&self, spent: &mut Spent, now: Instant) -> Result<(), Duration> {
        let interval = self.interval();
        let burst = u32::try_from(self.burst.get()).unwrap_or(u32::MAX);
        let most = interval.saturating_mul(burst);
        // A slower allowance may have left behind more than this one can be owed.
        let whole = now
            .checked_add(most)
            .map_or(spent.0, |latest| spent.0.min(latest))
            .max(now);
        let owed = whole
            .saturating_duration_since(now)
            .saturating_add(interval);
        if owed > most {
            spent.0 = whole;
            return Err(owed - most);
        }
        // So far off that no clock shows it, it is never whole again, and most of it is gone.
        spent.0 = whole.checked_add(interval).unwrap_or(whole);
        Ok(())
    }

    /// Between two of them, rounded up so that the rate is never exceeded.
    fn interval(&self) -> Duration {
        let per = u64::try_from(self.rate.per.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(per.div_ceil(self.rate.units.get()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn allowance(units: u64, per: Duration, burst: u64) -> Allowance {
        let units = NonZeroU64::new(units).unwrap();
        Allowance {
            rate: Rate { units, per },
            burst: NonZeroU64::new(burst).unwrap(),
        }
    }

    #[test]
    fn one_over_the_burst_waits_for_exactly_one() {
        let start = Instant::now();
        let allowance = allowance(50, SECOND, 100);
        let mut spent = Spent::nothing(start);
        for _ in 0..100 {
            assert_eq!(allowance.charge(&mut spent, start), Ok(()));
        }
        let wait = allowance.charge(&mut spent, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(20));
        let before = start + wait - Duration::from_nanos(1);
        assert_eq!(
            allowance.charge(&mut spent, before),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(allowance.charge(&mut spent, start + wait), Ok(()));
        assert!(allowance.charge(&mut spent, start + wait).is_err());
    }

    #[test]
    fn a_pause_gives_the_burst_back_and_no_more() {
        let start = Instant::now();
        let allowance = allowance(2, SECOND, 3);
        let mut spent = Spent::nothing(start);
        let mut taken = |now| {
            (0..10)
                .filter(|_| allowance.charge(&mut spent, now).is_ok())
                .count()
        };
        assert_eq!(taken(start), 3);
        assert_eq!(taken(start + SECOND), 2);
        assert_eq!(taken(start + SECOND * 3600), 3);
        assert!(spent.is_nothing(start + SECOND * 3602));
        assert!(!spent.is_nothing(start + SECOND * 3601));
    }

    #[test]
    fn a_faster_allowance_owes_no_more_than_its_own_burst() {
        let start = Instant::now();
        let slow = allowance(1, SECOND, 100);
        let mut spent = Spent::nothing(start);
        while slow.charge(&mut spent, start).is_ok() {}
        let fast = allowance(10, SECOND, 100);
        assert!(fast.charge(&mut spent, start).is_err());
        let soon = start + SECOND / 10;
        assert_eq!(fast.charge(&mut spent, soon), Ok(()));
        assert!(fast.charge(&mut spent, soon).is_err());
        assert!(spent.is_nothing(soon + SECOND * 10));
    }

    proptest! {
        #[test]
        fn no_span_admits_more_than_the_burst_and_the_rate(
            units in 1..1_000_000u64,
            burst in 1..1_000u64,
            steps in prop::collection::vec(0..5_000_000u64, 1..300),
        ) {
            let start = Instant::now();
            let allowance = allowance(units, SECOND, burst);
            let (mut spent, mut now, mut admitted) = (Spent::nothing(start), start, 0_u128);
            for nanos in steps {
                now += Duration::from_nanos(nanos);
                admitted += u128::from(allowance.charge(&mut spent, now).is_ok());
                let earned = (now - start).as_nanos() * u128::from(units) / 1_000_000_000;
                prop_assert!(admitted <= u128::from(burst) + earned);
            }
        }
    }
}
