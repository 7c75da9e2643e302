//! Decisions that are kept for a while, so that a client that comes back is not asked about
//! again.
//!
//! Bounded: [`MAX_KEPT`] decisions of at most [`MAX_ADDED`](super::MAX_ADDED) bytes each, so
//! some 40 MiB for a route in the worst case and one or two where headers are short. Refusals
//! are kept as well as admissions, so that a refused client that tries again and again is not
//! the service's burden; what is no decision is never kept.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::decision::Decision;

/// Decisions of one route: a reconnect storm of that many clients is answered from here.
pub const MAX_KEPT: usize = 10_000;

/// The decisions of one route, shared by all workers.
pub struct Cache {
    lifetime: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By the question's fingerprint.
    decisions: HashMap<Vec<u8>, (Instant, Decision)>,
    /// In the order they were put in. All live equally long, so that is the order of their
    /// ends, too. Not shorter than `decisions`: a question that was asked twice at once is
    /// here twice.
    ends: VecDeque<(Instant, Vec<u8>)>,
}

impl Cache {
    /// An empty one.
    pub fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            kept: Mutex::default(),
        }
    }

    /// The decision on an equal question, if it is still good.
    pub fn get(&self, fingerprint: &[u8], now: Instant) -> Option<Decision> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (end, decision) = kept.decisions.get(fingerprint)?;
        (now < *end).then(|| decision.clone())
    }

    /// Keeps a decision; the oldest makes room for it.
    pub fn put(&self, fingerprint: Vec<u8>, decision: Decision, now: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.ends.len() >= MAX_KEPT || kept.ends.front().is_some_and(|(end, _)| *end <= now) {
            kept.forget_oldest();
        }
        let end = now + self.lifetime;
        kept.ends.push_back((end, fingerprint.clone()));
        kept.decisions.insert(fingerprint, (end, decision));
    }
}

impl Kept {
    fn forget_oldest(&mut self) {
        let Some((end, fingerprint)) = self.ends.pop_front() else {
            return;
        };
        // A later decision on an equal question stays.
        if self
            .decisions
            .get(&fingerprint)
            .is_some_and(|(kept, _)| *kept == end)
        {
            self.decisions.remove(&fingerprint);
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(30);

    fn fingerprint(number: usize) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    #[test]
    fn a_decision_is_good_for_its_lifetime_and_not_longer() {
        let (cache, now) = (Cache::new(LIFETIME), Instant::now());
        assert!(cache.get(&fingerprint(1), now).is_none());
        cache.put(fingerprint(1), Decision::Refuse(403), now);
        let last = now + LIFETIME - Duration::from_nanos(1);
        assert!(cache.get(&fingerprint(1), last) == Some(Decision::Refuse(403)));
        assert!(cache.get(&fingerprint(1), now + LIFETIME).is_none());
        assert!(cache.get(&fingerprint(2), now).is_none());
    }

    #[test]
    fn one_more_than_fits_makes_the_oldest_go() {
        let (cache, now) = (Cache::new(LIFETIME), Instant::now());
        for number in 0..=MAX_KEPT {
            cache.put(fingerprint(number), Decision::Refuse(403), now);
        }
        assert!(cache.get(&fingerprint(0), now).is_none());
        assert!(cache.get(&fingerprint(1), now).is_some());
        assert!(cache.get(&fingerprint(MAX_KEPT), now).is_some());
        let kept = cache.kept.lock().expect("not poisoned");
        assert_eq!(
            (kept.decisions.len(), kept.ends.len()),
            (MAX_KEPT, MAX_KEPT)
        );
    }

    #[test]
    fn what_has_ended_is_forgotten_when_the_next_comes() {
        let (cache, now) = (Cache::new(LIFETIME), Instant::now());
        for number in 0..100 {
            cache.put(fingerprint(number), Decision::Refuse(403), now);
        }
        cache.put(fingerprint(100), Decision::Refuse(403), now + LIFETIME);
        let kept = cache.kept.lock().expect("not poisoned");
        assert_eq!((kept.decisions.len(), kept.ends.len()), (1, 1));
    }

    #[test]
    fn the_later_of_two_equal_questions_counts() {
        let (cache, now) = (Cache::new(LIFETIME), Instant::now());
        let later = now + LIFETIME / 2;
        cache.put(fingerprint(1), Decision::Refuse(403), now);
        cache.put(fingerprint(1), Decision::Admit(Vec::new()), later);
        assert!(cache.get(&fingerprint(1), later) == Some(Decision::Admit(Vec::new())));
        // The earlier one's end takes only itself along.
        cache.put(fingerprint(2), Decision::Refuse(403), now + LIFETIME);
        assert!(cache.get(&fingerprint(1), now + LIFETIME).is_some());
        // Asked about for ever, it does not grow.
        for _ in 0..2 * MAX_KEPT {
            cache.put(fingerprint(1), Decision::Refuse(403), later);
        }
        let kept = cache.kept.lock().expect("not poisoned");
        assert!(kept.ends.len() <= MAX_KEPT);
    }
}
