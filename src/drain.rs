//! The connections of one worker, so that they can be asked to end and waited for.
//!
//! hyper's graceful shutdown knows nothing of an upgraded connection, so this is the
//! edge's own. What a connection is asked with is the caller's type; this module only
//! keeps, paces and counts. It has no randomness of its own.

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
    free: RefCell<Vec<u32>>,
    live: Cell<usize>,
    /// Of those, the ones that nobody waits for. `outside ≤ live`.
    outside: Cell<usize>,
    closed: Cell<bool>,
    emptied: Notify,
}

/// A connection's place in the registry; given back when dropped.
#[derive(Debug)]
pub struct Seat<T> {
    registry: Registry<T>,
    /// More connections than this counts no worker can have.
    index: u32,
    outside: Cell<bool>,
    /// What the connection is asked to end with.
    pub handle: Rc<T>,
}

/// Connections that were here at one moment.
#[derive(Debug)]
pub struct Picked<T>(Vec<Rc<T>>);

/// Which connections are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Those that have come in, see [`Seat::come_in`].
    Inside,
    /// Those that have not said yet what they want, too.
    Everybody,
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
            outside: Cell::new(0),
            closed: Cell::new(false),
            emptied: Notify::new(),
        }))
    }
}

impl<T> Registry<T> {
    /// Takes a connection in.
    pub fn enter(&self, handle: T) -> Seat<T> {
        let handle = Rc::new(handle);
        let mut slots = self.0.slots.borrow_mut();
        let next = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let index = self.0.free.borrow_mut().pop().unwrap_or(next);
        match slots.get_mut(index as usize) {
            Some(slot) => *slot = Some(Rc::clone(&handle)),
            None => slots.push(Some(Rc::clone(&handle))),
        }
        self.0.live.set(self.0.live.get() + 1);
        Seat {
            registry: self.clone(),
            index,
            outside: Cell::new(false),
            handle,
        }
    }

    /// The same for one that has not said yet what it wants: it holds nobody up until it
    /// [comes in](Seat::come_in).
    pub fn enter_outside(&self, handle: T) -> Seat<T> {
        let seat = self.enter(handle);
        seat.outside.set(true);
        self.0.outside.set(self.0.outside.get() + 1);
        seat
    }

    /// Those that are here now.
    pub fn handles(&self) -> Vec<Rc<T>> {
        self.0.slots.borrow().iter().flatten().cloned().collect()
    }

    /// Connections that are here.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }

    /// Those of them that are waited for.
    pub fn waited_for(&self, whom: Whom) -> usize {
        match whom {
            Whom::Everybody => self.0.live.get(),
            Whom::Inside => self.0.live.get().saturating_sub(self.0.outside.get()),
        }
    }

    /// Nobody is to come in any more.
    pub fn close(&self) {
        self.0.closed.set(true);
    }

    /// Whether whoever comes now is to be sent away.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Those that are here now and are picked. Who comes later is none of them.
    pub fn pick(&self, pick: impl Fn(&T) -> bool) -> Picked<T> {
        let mut handles = self.handles();
        handles.retain(|handle| pick(handle));
        Picked(handles)
    }

    /// Asks every connection, and resolves when nobody is left who is waited for: the rest of
    /// the spread would be waited for in vain. One that came in after the beginning, as the last
    /// that was accepted, is asked at the end.
    pub async fn drain(&self, whom: Whom, spread: Duration, seed: u64, ask: impl Fn(&T)) {
        tokio::select! {
            _ = self.pick(|_| true).ask(spread, seed, &ask) => {}
            () = self.emptied(whom) => return,
        }
        self.handles().iter().for_each(|handle| ask(handle));
        self.emptied(whom).await;
    }

    /// Resolves when no connection is here any more that is waited for.
    pub async fn emptied(&self, whom: Whom) {
        while self.waited_for(whom) > 0 {
            self.0.emptied.notified().await;
        }
    }

    fn notice(&self) {
        if self.waited_for(Whom::Inside) == 0 {
            self.0.emptied.notify_waiters();
        }
    }
}

impl<T> Picked<T> {
    /// Asks each to end, so that the clients do not all come back in the same moment: `spread`
    /// is cut into as many parts as there are connections, and each is asked somewhere in its
    /// own, which `seed` decides. So no span of time has more than its share, nor has it where
    /// several workers do this at once. Returns how many were asked.
    pub async fn ask(self, spread: Duration, seed: u64, ask: impl Fn(&T)) -> usize {
        let asked = self.0.len();
        let part = spread / u32::try_from(asked).unwrap_or(u32::MAX).max(1);
        let (mut begin, mut jitter) = (Instant::now(), Jitter(seed));
        for handle in self.0 {
            sleep_until(begin + jitter.within(part)).await;
            ask(&handle);
            begin += part;
        }
        asked
    }
}

impl<T> Seat<T> {
    /// It has said what it wants, and is waited for from now on.
    pub fn come_in(&self) {
        if self.outside.replace(false) {
            let outside = &self.registry.0.outside;
            outside.set(outside.get().saturating_sub(1));
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.come_in();
        let inner = &self.registry.0;
        if let Some(slot) = inner.slots.borrow_mut().get_mut(self.index as usize) {
            *slot = None;
        }
        inner.free.borrow_mut().push(self.index);
        inner.live.set(inner.live.get() - 1);
        self.registry.notice();
    }
}

/// Where in its part of the spread each connection is asked (SplitMix64).
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    /// Less than `part`, or nothing.
    fn within(&mut self, part: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let nanos = part.as_nanos().saturating_mul(u128::from(z)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
