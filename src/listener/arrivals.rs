//! How fast connections may come: to the process, and from one address.
//!
//! Touches no socket and reads no clock. What is remembered lasts longer than a
//! configuration, so how fast they may come is said at each of them.

use std::array;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::listener::permits::{Full, Key};
use crate::proto::allowance::{Allowance, Spent};

/// Who came lately. Shared by all workers; the table of addresses is split into parts with a
/// lock each.
///
/// Memory: one entry (about 40 bytes) for each address that has not got its burst back, and
/// never more than 65,536 (3 MiB).
#[derive(Debug)]
pub(super) struct Arrivals {
    process: Mutex<Option<Spent>>,
    /// Chooses the part, under a secret of its own: clients choose their addresses.
    hasher: RandomState,
    parts: [Mutex<HashMap<Key, Spent>>; PARTS],
}

/// A few times more than the workers there are likely to be.
const PARTS: usize = 64;

/// In one part. To find the entry to go, all of a full part are looked at: a microsecond.
const MOST_IN_PART: usize = 1024;

/// Addresses that are remembered at once.
#[cfg(test)]
const MOST_ADDRESSES: usize = PARTS * MOST_IN_PART;

impl Arrivals {
    pub(super) fn new() -> Self {
        Self {
            process: Mutex::new(None),
            hasher: RandomState::new(),
            parts: array::from_fn(|_| Mutex::default()),
        }
    }

    /// One more from this address, if it may come from there and to the process. If one of
    /// them says no, nothing is spent of the other: one address cannot empty what is for all,
    /// and the others cannot empty what is for one.
    pub(super) fn one_more(
        &self,
        key: Key,
        of_address: Option<&Allowance>,
        of_all: Option<&Allowance>,
        now: Instant,
    ) -> Result<(), Full> {
        let Some(allowance) = of_address else {
            return self.one_more_of_all(of_all, now);
        };
        // Always locked in this order: the address, then the process.
        let mut part = self.part(key);
        let known = part.get(&key).copied();
        let mut spent = known.unwrap_or(Spent::nothing(now));
        if allowance.charge(&mut spent, now).is_err() {
            // What a refusal leaves may be less than was there under an older allowance.
            part.entry(key).and_modify(|kept| *kept = spent);
            return Err(Full::AddressRate);
        }
        self.one_more_of_all(of_all, now)?;
        if known.is_none() && part.len() >= MOST_IN_PART {
            make_room(&mut part, now);
        }
        part.insert(key, spent);
        Ok(())
    }

    fn one_more_of_all(&self, allowance: Option<&Allowance>, now: Instant) -> Result<(), Full> {
        let Some(allowance) = allowance else {
            return Ok(());
        };
        let mut process = lock(&self.process);
        let spent = process.get_or_insert(Spent::nothing(now));
        allowance.charge(spent, now).map_err(|_| Full::Rate)
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is below its divisor")]
    fn part(&self, key: Key) -> MutexGuard<'_, HashMap<Key, Spent>> {
        let i = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[i])
    }

    #[cfg(test)]
    fn addresses(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }
}

/// Forgets everyone who has the whole burst again, and if there is nobody, the one who lacks
/// the least: what it is given by that is less than anyone else would be.
fn make_room(part: &mut HashMap<Key, Spent>, now: Instant) {
    part.retain(|_, spent| !spent.is_nothing(now));
    if part.len() < MOST_IN_PART {
        return;
    }
    let least = part.iter().min_by_key(|(_, spent)| **spent);
    if let Some(key) = least.map(|(key, _)| *key) {
        part.remove(&key);
    }
}

/// A panic elsewhere while the lock was held leaves every entry whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::*;
    use crate::proto::limits::Rate;

    fn allowance(per_second: u64, burst: u64) -> Allowance {
        Allowance {
            rate: Rate {
                units: NonZeroU64::new(per_second).unwrap(),
                per: Duration::from_secs(1),
            },
            burst: NonZeroU64::new(burst).unwrap(),
        }
    }

    impl Arrivals {
        fn one_more_from(&self, key: Key, allowance: &Allowance, now: Instant) -> bool {
            self.one_more(key, Some(allowance), None, now).is_ok()
        }
    }

    fn key(n: u32) -> Key {
        Key::from(IpAddr::from(Ipv4Addr::from_bits(n)))
    }

    #[test]
    fn each_address_has_its_own_and_the_process_one_for_all() {
        let (arrivals, now) = (Arrivals::new(), Instant::now());
        let few = allowance(1, 2);
        let came = |n, now| {
            (0..9)
                .filter(|_| arrivals.one_more_from(key(n), &few, now))
                .count()
        };
        assert_eq!((came(1, now), came(2, now)), (2, 2));
        assert_eq!(came(1, now + Duration::from_secs(1)), 1);
        let to_all = |n| arrivals.one_more(key(n), None, Some(&few), now).is_ok();
        assert_eq!((1..9).filter(|n| to_all(*n)).count(), 2);
    }

    #[test]
    fn another_allowance_counts_from_the_next_on() {
        let (arrivals, now) = (Arrivals::new(), Instant::now());
        assert!(arrivals.one_more_from(key(1), &allowance(1, 1), now));
        assert!(!arrivals.one_more_from(key(1), &allowance(1, 1), now));
        assert!(arrivals.one_more_from(key(1), &allowance(1, 2), now));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_who_lack_the_least() {
        let (arrivals, now) = (Arrivals::new(), Instant::now());
        let (eager, slow) = (key(0), allowance(1, 5));
        while arrivals.one_more_from(eager, &slow, now) {}
        for n in 1..=2 * MOST_ADDRESSES as u32 {
            assert!(arrivals.one_more_from(key(n), &slow, now));
        }
        assert!(arrivals.addresses() <= MOST_ADDRESSES);
        assert!(
            !arrivals.one_more_from(eager, &slow, now),
            "the flood washed it out"
        );
    }

    #[test]
    fn those_who_have_everything_back_make_room_first() {
        let (arrivals, now) = (Arrivals::new(), Instant::now());
        let slow = allowance(1, 5);
        for n in 0..2 * MOST_ADDRESSES as u32 {
            arrivals.one_more_from(key(n), &slow, now);
        }
        let later = now + Duration::from_secs(10);
        let newcomers = 4 * MOST_ADDRESSES as u32..4 * MOST_ADDRESSES as u32 + 5000;
        for n in newcomers {
            assert!(arrivals.one_more_from(key(n), &slow, later));
        }
        // Each part was swept when the first newcomer came to it.
        assert!(arrivals.addresses() <= 5000, "{}", arrivals.addresses());
    }
}
