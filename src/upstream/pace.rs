//! How fast held sessions come back to one upstream, all workers together.
//!
//! Whoever asks gets a turn of its own, in the order of asking (GCRA: a leaky bucket that
//! remembers one instant). So a storm wakes each session once, and nobody waits for a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Dials;

/// Turns to dial. Clones share them.
#[derive(Clone, Debug)]
pub struct Pace(Option<Arc<Turns>>);

#[derive(Debug)]
struct Turns {
    /// What the nanoseconds count from.
    epoch: Instant,
    interval: u64,
    /// How far the turns given may lie ahead before one has to wait: all of a burst but one.
    burst: u64,
    /// When all turns that were given are over.
    over: AtomicU64,
}

impl Pace {
    /// A full burst from `now` on; `None`: nobody waits.
    pub fn new(dials: Option<Dials>, now: Instant) -> Self {
        Self(dials.map(|Dials { rate, burst }| {
            let interval = nanos(rate.per).div_ceil(rate.units.get()).max(1);
            Arc::new(Turns {
                epoch: now,
                interval,
                burst: interval.saturating_mul(burst.get() - 1),
                over: AtomicU64::new(0),
            })
        }))
    }

    /// The next turn, which may be now. `None`: it would come after `until`, and is left to
    /// somebody else.
    pub fn turn(&self, now: Instant, until: Instant) -> Option<Instant> {
        let Some(turns) = &self.0 else {
            return Some(now);
        };
        let since = |instant: Instant| nanos(instant.saturating_duration_since(turns.epoch));
        let (from, until) = (since(now), since(until));
        let turn = |over: u64| from.max(over.saturating_sub(turns.burst));
        let next = |over: u64| {
            let over = over.max(from);
            (turn(over) <= until).then(|| over.saturating_add(turns.interval))
        };
        // Nothing but the number itself is shared.
        let given = turns
            .over
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let over = given.ok()?.max(from);
        Some(turns.epoch + Duration::from_nanos(turn(over)))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::thread;

    use super::*;
    use crate::proto::limits::Rate;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(units: u64, burst: u64, now: Instant) -> Pace {
        let dials = Dials {
            rate: Rate {
                units: NonZeroU64::new(units).unwrap(),
                per: SECOND,
            },
            burst: NonZeroU64::new(burst).unwrap(),
        };
        Pace::new(Some(dials), now)
    }

    #[test]
    fn a_storm_of_5000_from_all_workers_is_spread_at_the_rate() {
        let now = Instant::now();
        let pace = pace(500, 100, now);
        let until = now + 60 * SECOND;
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let pace = pace.clone();
                let turn = move |_| pace.turn(now, until).unwrap();
                thread::spawn(move || (0..1250).map(turn).collect::<Vec<_>>())
            })
            .collect();
        let mut turns = Vec::new();
        for asking in asking {
            turns.extend(asking.join().unwrap());
        }
        turns.sort();
        assert_eq!(turns.len(), 5000);
        assert_eq!(turns[99], now);
        assert_eq!(turns[100], now + Duration::from_millis(2));
        assert_eq!(turns[4999], now + Duration::from_millis(2) * 4900);
        for second in 0..10 {
            let (from, to) = (now + SECOND * second, now + SECOND * (second + 1));
            let within = turns.iter().filter(|turn| (from..to).contains(*turn));
            let most = if second == 0 { 599 } else { 500 };
            assert!(within.count() <= most, "in second {second}");
        }
    }

    #[test]
    fn one_over_the_burst_waits_and_a_pause_gives_the_burst_back() {
        let start = Instant::now();
        let pace = pace(10, 3, start);
        let until = start + 60 * SECOND;
        let turns: Vec<_> = (0..4).filter_map(|_| pace.turn(start, until)).collect();
        assert_eq!(turns[2], start);
        assert_eq!(turns[3], start + SECOND / 10);
        let later = start + 10 * SECOND;
        let turns: Vec<_> = (0..4).filter_map(|_| pace.turn(later, until)).collect();
        assert_eq!(turns[2], later);
        assert_eq!(turns[3], later + SECOND / 10);
    }

    #[test]
    fn a_turn_that_comes_too_late_is_not_taken() {
        let now = Instant::now();
        let pace = pace(1, 1, now);
        assert_eq!(pace.turn(now, now), Some(now));
        assert_eq!(pace.turn(now, now + SECOND / 2), None);
        assert_eq!(pace.turn(now, now + SECOND), Some(now + SECOND));
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let now = Instant::now();
        let pace = Pace::new(None, now);
        assert!((0..1000).all(|_| pace.turn(now, now) == Some(now)));
    }
}
