//! When the files of a configuration are looked into: once they rest, and again for as long as
//! they are found no good.
//!
//! Knows no files and asks no clock.

use std::time::{Duration, Instant};

use crate::config::problem::Problem;

/// What is known of files whose state is `S`.
#[derive(Debug)]
pub(super) struct Watched<S> {
    /// Newer than what is in force, and the looks since there is one.
    settling: Option<(S, u32)>,
    /// Looked into, and found no different or no good.
    known: Option<S>,
    /// In the latter case.
    again: Option<Again>,
}

/// What was found no good may be for a passing reason, such as no descriptors left.
#[derive(Debug)]
struct Again {
    at: Instant,
    pause: Duration,
    told: Vec<Problem>,
}

impl<S> Default for Watched<S> {
    fn default() -> Self {
        Self {
            settling: None,
            known: None,
            again: None,
        }
    }
}

impl<S: PartialEq> Watched<S> {
    /// Whether what is there now is to be looked into: it has been there for a while and nobody
    /// has, or it was found no good a while ago.
    pub(super) fn is_due(&mut self, state: S, now: Instant) -> bool {
        if self.known.as_ref() == Some(&state) {
            return self.again.as_ref().is_some_and(|again| again.at <= now);
        }
        let (before, looks) = self.settling.take().unzip();
        let looks = looks.unwrap_or(0) + 1;
        if before.as_ref() != Some(&state) && looks < MOST_LOOKS {
            self.settling = Some((state, looks));
            return false;
        }
        self.known = Some(state);
        self.again = None;
        true
    }

    /// What was looked into is in force, or no different from what is.
    pub(super) fn handle_good(&mut self) {
        self.again = None;
    }

    /// It is no good, and tried again later, each time later. Whether that is news.
    pub(super) fn handle_bad(&mut self, problems: &[Problem], now: Instant) -> bool {
        let before = self.again.take();
        let is_news = before.as_ref().is_none_or(|before| before.told != problems);
        let pause = before.map_or(PAUSES.0, |before| (before.pause * 2).min(PAUSES.1));
        self.again = Some(Again {
            at: now + pause,
            pause,
            told: problems.to_vec(),
        });
        is_news
    }
}

/// Looks that make a change count though each found another: files that never rest.
const MOST_LOOKS: u32 = 30;

/// Shortest and longest time until files that are no good are looked into again. A certificate
/// is renewed days before it is needed; what is wrong for good costs a reading of all files.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn problems(found: &str) -> Vec<Problem> {
        vec![Problem::error(
            crate::config::Line(3),
            "listener.#1.tls.certificates[0].cert".to_owned(),
            found.to_owned(),
            "a PEM file",
        )]
    }

    #[test]
    fn a_change_is_looked_into_once_when_it_rests() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        let looks = [1, 2, 2, 2, 3, 3, 3].map(|state| watched.is_due(state, now));
        assert_eq!(looks, [false, false, true, false, false, true, false]);
        // Files that never rest are looked into all the same.
        let looks = (10..).position(|state| watched.is_due(state, now));
        assert_eq!(looks, Some(MOST_LOOKS as usize - 1));
    }

    #[test]
    fn what_was_no_good_is_looked_into_again_and_ever_more_seldom() {
        let (mut watched, begun) = (Watched::default(), Instant::now());
        watched.is_due(1, begun);
        assert!(watched.is_due(1, begun));
        let (mut now, mut pauses, mut told) = (begun, Vec::new(), 0);
        for _ in 0..6 {
            told += u32::from(watched.handle_bad(&problems("no descriptors left"), now));
            let before = now;
            while !watched.is_due(1, now) {
                now += SECOND;
            }
            pauses.push((now - before).as_secs());
        }
        assert_eq!(pauses, [60, 120, 240, 480, 600, 600]);
        // One reason is said once, another one again.
        assert_eq!(told, 1);
        assert!(watched.handle_bad(&problems("no such file"), now));
        // When it is good there is nothing to do.
        watched.handle_good();
        assert!(!watched.is_due(1, now + 1000 * SECOND));
    }

    #[test]
    fn another_change_is_not_kept_waiting_by_one_that_was_no_good() {
        let (mut watched, now) = (Watched::default(), Instant::now());
        for _ in 0..2 {
            watched.is_due(1, now);
        }
        for _ in 0..4 {
            watched.handle_bad(&problems("half a pair"), now);
        }
        assert_eq!(
            [2, 2].map(|state| watched.is_due(state, now)),
            [false, true]
        );
        // And is news, though the same is wrong with it.
        assert!(watched.handle_bad(&problems("half a pair"), now));
        assert!(watched.is_due(2, now + 60 * SECOND));
    }
}
