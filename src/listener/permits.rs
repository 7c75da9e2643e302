//! How many connections there may be at once: in the process, and from one address.
//!
//! Reads no clock and touches no socket. Shared by all workers; the table of addresses is
//! split into parts with a lock each, so that two workers rarely want the same one.

use std::array;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The caps of the process. Cheap to clone; clones count together.
///
/// Memory: one table entry (about 40 bytes) per address that has a connection right now, so
/// never more entries than `max_connections`. The table keeps the room of its busiest moment.
#[derive(Clone, Debug)]
pub struct Permits {
    shared: Arc<Shared>,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    shared: Arc<Shared>,
    key: Key,
}

/// Which cap was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `limits.max_connections`.
    #[error("the process has as many connections as it may")]
    Process,
    /// `limits.max_connections_per_ip`.
    #[error("this address has as many connections as it may")]
    Address,
}

impl Permits {
    /// At most `max_connections` at once, and at most `max_per_ip` from one address.
    pub fn new(max_connections: usize, max_per_ip: usize) -> Self {
        let shared = Shared {
            max_connections,
            max_per_ip,
            in_use: AtomicUsize::new(0),
            hasher: RandomState::new(),
            parts: array::from_fn(|_| Mutex::default()),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// One permit for a connection from `peer`.
    ///
    /// An IPv4 address in IPv6 form counts as the IPv4 address. IPv6 counts by /64, the least
    /// that a customer gets: whoever has one address there has all of them.
    ///
    /// # Errors
    /// The cap that is reached. Nothing is taken then.
    pub fn take(&self, peer: IpAddr) -> Result<Permit, Full> {
        self.shared.enter()?;
        let key = Key::from(peer);
        if let Err(full) = self.shared.enter_from(key) {
            self.shared.leave();
            return Err(full);
        }
        Ok(Permit {
            shared: Arc::clone(&self.shared),
            key,
        })
    }

    /// Permits that are out.
    pub fn in_use(&self) -> usize {
        self.shared.in_use.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    fn addresses(&self) -> usize {
        let parts = self.shared.parts.iter();
        parts.map(|part| lock(part).len()).sum()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.leave_from(self.key);
        self.shared.leave();
    }
}

type Part = Mutex<HashMap<Key, usize>>;

/// A few times more than the workers there are likely to be.
const PARTS: usize = 64;

#[derive(Debug)]
struct Shared {
    max_connections: usize,
    max_per_ip: usize,
    /// `in_use ≤ max_connections`.
    in_use: AtomicUsize,
    /// Chooses the part, under a secret of its own: clients choose their addresses.
    hasher: RandomState,
    /// Connections by address; `1 ≤ count ≤ max_per_ip`, an address without any is absent.
    parts: [Part; PARTS],
}

impl Shared {
    fn enter(&self) -> Result<(), Full> {
        self.in_use
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < self.max_connections).then(|| n + 1)
            })
            .map(drop)
            .map_err(|_| Full::Process)
    }

    fn leave(&self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
    }

    fn enter_from(&self, key: Key) -> Result<(), Full> {
        let mut part = self.part(key);
        let count = part.get(&key).copied().unwrap_or(0);
        if count >= self.max_per_ip {
            return Err(Full::Address);
        }
        part.insert(key, count + 1);
        Ok(())
    }

    fn leave_from(&self, key: Key) {
        if let Entry::Occupied(mut count) = self.part(key).entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is below its divisor")]
    fn part(&self, key: Key) -> MutexGuard<'_, HashMap<Key, usize>> {
        let i = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[i])
    }
}

/// A panic elsewhere while the lock was held leaves the counts whole: each is changed in one
/// step.
fn lock(part: &Part) -> MutexGuard<'_, HashMap<Key, usize>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4([u8; 4]),
    /// The network part: the first 64 bits.
    V6([u8; 8]),
}

impl From<IpAddr> for Key {
    fn from(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_more_than_the_process_may_have_is_refused() {
        let permits = Permits::new(2, 2);
        let first = permits.take(ip("192.0.2.1")).expect("1 of 2");
        let _second = permits.take(ip("192.0.2.2")).expect("2 of 2");
        assert_eq!(permits.take(ip("192.0.2.3")).err(), Some(Full::Process));
        assert_eq!(permits.in_use(), 2);
        drop(first);
        assert_eq!(permits.in_use(), 1);
        let _third = permits.take(ip("192.0.2.3")).expect("2 of 2 again");
    }

    #[test]
    fn one_more_than_an_address_may_have_is_refused_and_takes_nothing() {
        let permits = Permits::new(10, 2);
        let first = permits.take(ip("192.0.2.1")).expect("1 of 2");
        let _second = permits.take(ip("192.0.2.1")).expect("2 of 2");
        assert_eq!(permits.take(ip("192.0.2.1")).err(), Some(Full::Address));
        assert_eq!(permits.in_use(), 2);
        let _other = permits.take(ip("192.0.2.2")).expect("another address");
        drop(first);
        let _again = permits.take(ip("192.0.2.1")).expect("2 of 2 again");
    }

    #[test]
    fn caps_of_zero_admit_nobody() {
        assert_eq!(
            Permits::new(0, 9).take(ip("::1")).err(),
            Some(Full::Process)
        );
        assert_eq!(
            Permits::new(9, 0).take(ip("::1")).err(),
            Some(Full::Address)
        );
    }

    #[test]
    fn what_counts_as_one_address() {
        let cases = [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("192.0.2.1", "::192.0.2.1", false),
        ];
        for (a, b, is_one) in cases {
            let permits = Permits::new(10, 1);
            let _first = permits.take(ip(a)).expect("the first");
            assert_eq!(permits.take(ip(b)).is_err(), is_one, "{a} and {b}");
        }
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let permits = Permits::new(1000, 2);
        let held: Vec<_> = (0..500_u16)
            .flat_map(|i| {
                let peer = IpAddr::from([198, 51, (i / 250) as u8, (i % 250) as u8]);
                [permits.take(peer), permits.take(peer)]
            })
            .collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!((permits.in_use(), permits.addresses()), (1000, 500));
        drop(held);
        assert_eq!((permits.in_use(), permits.addresses()), (0, 0));
    }

    #[test]
    fn threads_never_exceed_the_caps_together() {
        let permits = Permits::new(8, 3);
        thread::scope(|scope| {
            for n in 0..4_u8 {
                let permits = permits.clone();
                scope.spawn(move || {
                    for i in 0..2000_u16 {
                        let peer = IpAddr::from([192, 0, 2, n ^ (i % 4) as u8]);
                        let held: Vec<_> = (0..4).map(|_| permits.take(peer)).collect();
                        assert!(permits.in_use() <= 8);
                        assert!(held.iter().filter(|held| held.is_ok()).count() <= 3);
                    }
                });
            }
        });
        assert_eq!((permits.in_use(), permits.addresses()), (0, 0));
    }
}
