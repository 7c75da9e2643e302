//! The connections of one worker, so that they can be asked to end and waited for.
//!
//! hyper's graceful shutdown knows nothing of an upgraded connection, so this is the
//! edge's own. What a connection is asked with is the caller's type; this module only
//! keeps, paces and counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The connections of one worker. Cheap to clone; clones are the same registry.
#[derive(Debug)]
pub struct Registry<T>(Rc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    /// A slot is reused when its connection is gone, so the table is as long as the worker
    /// was ever busy.
    slots: RefCell<Vec<Option<Rc<T>>>>,
    free: RefCell<Vec<usize>>,
    live: Cell<usize>,
    draining: Cell<bool>,
    emptied: Notify,
}

/// A connection's place in the registry; given back when dropped.
#[derive(Debug)]
pub struct Seat<T> {
    registry: Registry<T>,
    index: usize,
    /// What the connection is asked to end with.
    pub handle: Rc<T>,
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Rc::new(Inner {
            slots: RefCell::default(),
            free: RefCell::default(),
            live: Cell::new(0),
            draining: Cell::new(false),
            emptied: Notify::new(),
        }))
    }
}

impl<T> Registry<T> {
    /// Takes a connection in.
    pub fn enter(&self, handle: T) -> Seat<T> {
        let handle = Rc::new(handle);
        let mut slots = self.0.slots.borrow_mut();
        let index = self.0.free.borrow_mut().pop().unwrap_or(slots.len());
        match slots.get_mut(index) {
            Some(slot) => *slot = Some(Rc::clone(&handle)),
            None => slots.push(Some(Rc::clone(&handle))),
        }
        self.0.live.set(self.0.live.get() + 1);
        Seat {
            registry: self.clone(),
            index,
            handle,
        }
    }

    /// Those that are here now.
    pub fn handles(&self) -> Vec<Rc<T>> {
        self.0.slots.borrow().iter().flatten().cloned().collect()
    }

    /// Connections that are here.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }

    /// Whether [`drain`](Self::drain) has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.get()
    }

    /// Asks each connection to end, evenly spread over `spread`, so that the clients do not
    /// all come back in the same moment. Returns when every one was asked, or is gone.
    pub async fn drain(&self, spread: Duration, ask: impl Fn(&T)) {
        self.0.draining.set(true);
        let handles = self.handles();
        let count = u32::try_from(handles.len()).unwrap_or(u32::MAX).max(1);
        let (step, mut next) = (spread / count, Instant::now());
        for handle in handles {
            tokio::select! {
                () = sleep_until(next) => ask(&handle),
                // The rest of the spread would be waited for in vain.
                () = self.emptied() => return,
            }
            next += step;
        }
    }

    /// Resolves when no connection is here any more.
    pub async fn emptied(&self) {
        while self.live() > 0 {
            self.0.emptied.notified().await;
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let inner = &self.registry.0;
        if let Some(slot) = inner.slots.borrow_mut().get_mut(self.index) {
            *slot = None;
        }
        inner.free.borrow_mut().push(self.index);
        inner.live.set(inner.live.get() - 1);
        if inner.live.get() == 0 {
            inner.emptied.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_asked_evenly_over_the_spread() {
        let registry = Registry::default();
        let seats: Vec<_> = (0..5).map(|n| registry.enter(n)).collect();
        let begun = Instant::now();
        let asked = RefCell::new(Vec::new());
        registry
            .drain(Duration::from_secs(10), |n| {
                asked.borrow_mut().push((*n, begun.elapsed().as_secs()));
            })
            .await;
        assert_eq!(asked.into_inner(), [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)]);
        assert!(registry.is_draining());
        assert_eq!(seats.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spread_is_not_waited_for_when_nobody_is_left_to_ask() {
        let registry = Registry::default();
        let seats = RefCell::new((0..5).map(|n| registry.enter(n)).collect::<Vec<_>>());
        let begun = Instant::now();
        registry
            .drain(Duration::from_secs(10), |n| {
                if *n == 1 {
                    seats.borrow_mut().clear();
                }
            })
            .await;
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_last_connection_is_noticed() {
        let registry = Registry::default();
        let mut seats: Vec<_> = (0..3).map(|n| registry.enter(n)).collect();
        let waiting = registry.clone();
        let wait = async move { waiting.emptied().await };
        tokio::pin!(wait);
        while let Some(seat) = seats.pop() {
            let early = tokio::time::timeout(Duration::from_secs(1), wait.as_mut()).await;
            assert!(early.is_err());
            drop(seat);
        }
        wait.await;
        assert_eq!(registry.live(), 0);
    }

    #[test]
    fn places_are_used_again() {
        let registry = Registry::default();
        for n in 0..100 {
            let _seat = registry.enter(n);
        }
        assert_eq!(registry.0.slots.borrow().len(), 1);
    }
}
