//! The memory that the sessions of one worker own for bytes on their way: the sum, and whom to
//! tell when it grows.
//!
//! A session says what it owns once in a wake-up, and only when that has changed. One worker
//! writes, so the sum takes no lock and no read-modify-write; the others read it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a worker shows the others.
#[derive(Debug, Default)]
pub struct Shown {
    owned: AtomicUsize,
    largest: AtomicUsize,
}

/// One worker's sum.
#[derive(Debug)]
pub struct Gauge {
    owned: Cell<usize>,
    alarm: Cell<usize>,
    raised: Notify,
    shown: Arc<Shown>,
}

impl Shown {
    /// Bytes owned.
    pub fn owned(&self) -> usize {
        self.owned.load(Ordering::Relaxed)
    }

    /// What the session had that owned the most, when that was last looked at.
    pub fn largest(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    /// Says what the largest session owns.
    pub fn set_largest(&self, bytes: usize) {
        self.largest.store(bytes, Ordering::Relaxed);
    }
}

impl Default for Gauge {
    /// One that nobody else looks at, and that raises no alarm.
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Gauge {
    /// Nothing owned, and nobody to be told.
    pub fn new(shown: Arc<Shown>) -> Self {
        Self {
            owned: Cell::new(0),
            alarm: Cell::new(usize::MAX),
            raised: Notify::new(),
            shown,
        }
    }

    /// Bytes owned by all sessions of the worker.
    pub fn owned(&self) -> usize {
        self.owned.get()
    }

    /// What the other workers see.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Tells of it when so many bytes are owned.
    pub fn set_alarm(&self, bytes: usize) {
        self.alarm.set(bytes);
    }

    /// Resolves when the alarm was raised since it was last waited for.
    pub async fn raised(&self) {
        self.raised.notified().await;
    }

    /// Raises the alarm.
    pub fn raise(&self) {
        self.raised.notify_one();
    }

    /// One session owned `before`, and owns `after`.
    pub(super) fn change(&self, before: usize, after: usize) {
        // No session says less than it said before, so the sum never falls below nothing.
        let owned = (self.owned.get() + after).saturating_sub(before);
        self.owned.set(owned);
        self.shown.owned.store(owned, Ordering::Relaxed);
        if owned >= self.alarm.get() {
            self.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sum_is_exact_and_the_alarm_is_raised_at_it() {
        let shown = Arc::new(Shown::default());
        let gauge = Gauge::new(Arc::clone(&shown));
        gauge.set_alarm(300);
        gauge.change(0, 100);
        gauge.change(0, 199);
        let raised = tokio::time::timeout(std::time::Duration::ZERO, gauge.raised()).await;
        assert!(raised.is_err(), "one below");
        gauge.change(199, 200);
        gauge.raised().await;
        assert_eq!((gauge.owned(), shown.owned()), (300, 300));
        gauge.change(100, 0);
        gauge.change(200, 0);
        assert_eq!((gauge.owned(), shown.owned()), (0, 0));
    }
}
