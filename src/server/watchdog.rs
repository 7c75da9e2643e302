//! Whether every worker still turns, for a service manager that restarts a process which does
//! not (`WATCHDOG_USEC`).
//!
//! Each worker counts on a timer of its own; the thread of housekeeping looks whether all have
//! counted since it looked last, and only then says that the process lives. Where nobody asks,
//! nobody counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::supervisor;

/// One worker's count. It is gone when its worker has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<AtomicU64>);

/// Those of all workers, and how long the manager waits.
#[derive(Debug)]
pub(super) struct Watchdog {
    patience: Duration,
    pulses: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    pulse: Pulse,
    seen: u64,
}

impl Watchdog {
    /// `None`: nobody watches.
    pub(super) fn new(patience: Option<Duration>) -> Option<Self> {
        let patience = patience.filter(|patience| !patience.is_zero())?;
        Some(Self {
            patience,
            pulses: Vec::new(),
        })
    }

    /// For one more worker, and how often it is to count.
    pub(super) fn pulse(&mut self) -> (Pulse, Duration) {
        let pulse = Pulse::default();
        self.pulses.push(Watched {
            pulse: pulse.clone(),
            seen: 0,
        });
        (pulse, self.patience / COUNTS)
    }

    /// Never returns.
    pub(super) async fn watch(mut self) {
        let mut look = interval(self.patience / LOOKS);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            match self.stuck() {
                0 => supervisor::alive(),
                workers => tracing::error!(
                    workers,
                    "workers do not turn: the service manager is not told that all is well"
                ),
            }
        }
    }

    /// Workers that have not counted since the last look, and have not ended.
    fn stuck(&mut self) -> usize {
        self.pulses
            .retain(|watched| Arc::strong_count(&watched.pulse.0) > 1);
        let pulses = self.pulses.iter_mut();
        pulses.filter_map(Watched::is_stuck).count()
    }
}

impl Watched {
    fn is_stuck(&mut self) -> Option<()> {
        let now = self.pulse.0.load(Ordering::Relaxed);
        (std::mem::replace(&mut self.seen, now) == now).then_some(())
    }
}

impl Pulse {
    /// Counts until the worker ends.
    pub(super) async fn beat(self, every: Duration) {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Looks in the time that the manager waits: half of it is what systemd recommends, and one
/// that finds a worker busy may be made up for.
const LOOKS: u32 = 3;

/// Counts of a worker in that time: two for each look, so that none is missed by a hair.
const COUNTS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn watchdog(workers: usize) -> (Watchdog, Vec<Pulse>) {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(6))).expect("asked for");
        let pulses = (0..workers).map(|_| watchdog.pulse().0).collect();
        (watchdog, pulses)
    }

    #[test]
    fn nobody_watches_where_nobody_asks() {
        assert!(Watchdog::new(None).is_none());
        assert!(Watchdog::new(Some(Duration::ZERO)).is_none());
    }

    #[test]
    fn one_worker_that_does_not_turn_is_enough() {
        let (mut watchdog, pulses) = watchdog(3);
        let count = |pulse: &Pulse| {
            pulse.0.fetch_add(1, Ordering::Relaxed);
        };
        pulses.iter().for_each(count);
        assert_eq!(watchdog.stuck(), 0);
        pulses.iter().skip(1).for_each(count);
        assert_eq!(watchdog.stuck(), 1);
        assert_eq!(watchdog.stuck(), 3);
        pulses.iter().for_each(count);
        assert_eq!(watchdog.stuck(), 0);
    }

    #[test]
    fn a_worker_that_has_ended_is_not_missed() {
        let (mut watchdog, mut pulses) = watchdog(2);
        pulses.pop();
        assert_eq!(watchdog.stuck(), 1);
        pulses.pop();
        assert_eq!(watchdog.stuck(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_turns_counts_between_two_looks() {
        let (mut watchdog, _) = watchdog(0);
        let (pulse, every) = watchdog.pulse();
        let beating = pulse.beat(every);
        tokio::pin!(beating);
        let mut look = interval(watchdog.patience / LOOKS);
        look.tick().await;
        for _ in 0..5 {
            tokio::select! {
                () = &mut beating => {}
                _ = look.tick() => {}
            }
            assert_eq!(watchdog.stuck(), 0);
        }
    }
}
