//! How long to pause after failures that follow each other. Reads no clock.

use std::time::Duration;

use crate::listener::PAUSES;

/// Doubles from the shortest pause to the longest.
#[derive(Debug)]
pub(super) struct Backoff {
    /// `PAUSES.0 ≤ next ≤ PAUSES.1`.
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: PAUSES.0 }
    }

    /// The pause after one more failure.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSES.1);
        pause
    }

    /// The next failure is again the first.
    pub(super) fn succeeded(&mut self) {
        self.next = PAUSES.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_5_ms_to_one_second_and_stay_there() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..11).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }

    #[test]
    fn one_success_starts_over() {
        let mut backoff = Backoff::new();
        backoff.failed();
        backoff.failed();
        backoff.succeeded();
        assert_eq!(backoff.failed(), PAUSES.0);
    }
}
