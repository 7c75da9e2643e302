//! Tells the operator that a service gives no decisions, and when it does again, in a line now
//! and then however many clients are refused meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Nothing new.
    None,
    /// It gives none.
    Failing,
    /// It gives some again, after so long without.
    Recovered(Duration),
}

/// The state of one service, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<Since>>);

/// A failure that no decision followed yet.
#[derive(Clone, Copy, Debug)]
struct Since {
    began: Instant,
    told: Instant,
}

impl Outage {
    /// A question got no decision.
    pub(super) fn handle_failed(&self, now: Instant) -> Notice {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *since {
            Some(Since { told, .. }) if now < *told + AGAIN => Notice::None,
            Some(Since { told, .. }) => {
                *told = now;
                Notice::Failing
            }
            None => {
                *since = Some(Since {
                    began: now,
                    told: now,
                });
                Notice::Failing
            }
        }
    }

    /// A question got one. A service that fails now and then is told of once in a while, too:
    /// its outage counts as over when it has lasted for the time between two lines.
    pub(super) fn handle_decided(&self, now: Instant) -> Notice {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *since {
            Some(Since { began, .. }) if now >= began + AGAIN => {
                *since = None;
                Notice::Recovered(now.saturating_duration_since(began))
            }
            _ => Notice::None,
        }
    }
}

/// Often enough to be seen, seldom enough to leave room for other lines.
const AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_at_its_beginning_now_and_then_and_at_its_end() {
        let (outage, begin) = (Outage::default(), Instant::now());
        assert_eq!(outage.handle_decided(begin), Notice::None);
        let told: Vec<u64> = (0..35)
            .filter(|second| {
                let now = begin + Duration::from_secs(*second);
                outage.handle_failed(now) == Notice::Failing
            })
            .collect();
        assert_eq!(told, [0, 10, 20, 30]);
        let end = begin + Duration::from_secs(36);
        assert_eq!(outage.handle_decided(end), Notice::Recovered(end - begin));
        assert_eq!(outage.handle_decided(end), Notice::None);
        assert_eq!(outage.handle_failed(end), Notice::Failing);
    }

    #[test]
    fn a_service_that_fails_every_other_time_makes_no_flood() {
        let (outage, begin) = (Outage::default(), Instant::now());
        let mut lines = 0;
        for tenth in 0..600 {
            let now = begin + Duration::from_millis(100 * tenth);
            lines += usize::from(outage.handle_failed(now) != Notice::None);
            lines += usize::from(outage.handle_decided(now) != Notice::None);
        }
        assert!((6..=24).contains(&lines), "{lines} lines in a minute");
    }
}
