//! How many connections there may be at once: in the process, not yet admitted, and from one
//! address, and of those, not yet admitted. And how fast they may come: see [`arrivals`](super::arrivals).
//!
//! Reads no clock and touches no socket. Shared by all workers; the table of addresses is
//! split into parts with a lock each, so that two workers rarely want the same one. What is
//! counted outlives a configuration, so the caps are said with each question.

use std::array;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::Caps;
use crate::listener::arrivals::Arrivals;

/// The counts of the process. Cheap to clone; clones count together.
///
/// Memory: one table entry (about 50 bytes) per address that has a connection right now, so
/// never more entries than `max_connections`. The table keeps the room of its busiest moment.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    shared: Arc<Shared>,
}

/// The right to one connection, which is a stranger's until [`admit`](Self::admit); given
/// back when dropped.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    shared: Arc<Shared>,
    /// Whose it is, as soon as that is known.
    key: Option<Key>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Stranger,
    Admitted,
}

/// The right to tell a connection that there is no place for it; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct Refusing(Arc<Shared>);

/// Which cap or rate was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `limits.max_connections`.
    #[error("the process has as many connections as it may")]
    Process,
    /// `limits.max_unauthenticated`.
    #[error("as many connections as may are not admitted yet")]
    Strangers,
    /// `limits.handshakes`.
    #[error("connections come faster than they may")]
    Rate,
    /// `limits.max_connections_per_ip`.
    #[error("this address has as many connections as it may")]
    Address,
    /// `limits.max_unauthenticated_per_ip`.
    #[error("this address has as many connections as may are not admitted yet")]
    AddressStrangers,
    /// `limits.handshakes_per_ip`.
    #[error("connections come from this address faster than they may")]
    AddressRate,
}

impl Permits {
    /// One permit for a connection that is nobody's yet.
    ///
    /// # Errors
    /// The cap that is reached. Nothing is taken then.
    pub fn take(&self, caps: &Caps) -> Result<Permit, Full> {
        let shared = &self.shared;
        enter(&shared.in_use, caps.max_connections).ok_or(Full::Process)?;
        if enter(&shared.strangers, caps.max_unauthenticated).is_none() {
            leave(&shared.in_use);
            return Err(Full::Strangers);
        }
        Ok(Permit {
            shared: Arc::clone(shared),
            key: None,
            standing: Standing::Stranger,
        })
    }

    /// The right to refuse one connection in words; `None`: enough hear them already.
    pub fn refusing(&self) -> Option<Refusing> {
        enter(&self.shared.refusing, MOST_REFUSING)?;
        Some(Refusing(Arc::clone(&self.shared)))
    }

    /// Permits that are out.
    pub fn in_use(&self) -> usize {
        self.shared.in_use.load(Ordering::Relaxed)
    }

    /// Those of them that are strangers'.
    pub fn strangers(&self) -> usize {
        self.shared.strangers.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    fn addresses(&self) -> usize {
        let parts = self.shared.parts.iter();
        parts.map(|part| lock(part).len()).sum()
    }
}

impl Permit {
    /// Makes it the permit of `client`, and that a handshake which comes now.
    ///
    /// An IPv4 address in IPv6 form counts as the IPv4 address. IPv6 counts by /64, the least
    /// that a customer gets: whoever has one address there has all of them.
    ///
    /// # Errors
    /// The cap or rate that is reached. It is nobody's then, of no use, and nothing is spent.
    pub fn claim(&mut self, client: IpAddr, caps: &Caps, now: Instant) -> Result<(), Full> {
        self.unclaim();
        let key = Key::from(client);
        self.shared.enter_from(key, self.standing, caps)?;
        self.key = Some(key);
        let (of_address, of_all) = (caps.handshakes_per_ip.as_ref(), caps.handshakes.as_ref());
        let arrived = self.shared.arrivals.one_more(key, of_address, of_all, now);
        arrived.inspect_err(|_| self.unclaim())
    }

    /// The client may stay: it is no stranger any more.
    pub fn admit(&mut self) {
        if self.standing == Standing::Stranger {
            self.standing = Standing::Admitted;
            leave(&self.shared.strangers);
            if let Some(key) = self.key {
                self.shared.admit_from(key);
            }
        }
    }

    fn unclaim(&mut self) {
        if let Some(key) = self.key.take() {
            self.shared.leave_from(key, self.standing);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.unclaim();
        self.admit();
        leave(&self.shared.in_use);
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        leave(&self.0.refusing);
    }
}

/// The connections of one address: `strangers ≤ all`, and `1 ≤ all` in the table.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    all: usize,
    strangers: usize,
}

type Part = Mutex<HashMap<Key, Counts>>;

/// A few times more than the workers there are likely to be.
const PARTS: usize = 64;

/// Connections beyond the caps that are told so at once: a descriptor and 4 KiB each, for two
/// seconds until the words are taken and two more until the client closes. Who is denied, or
/// sends no PROXY header where one is demanded, is never among them.
const MOST_REFUSING: usize = 64;

#[derive(Debug)]
struct Shared {
    /// Never raised above `max_connections`.
    in_use: AtomicUsize,
    /// `strangers ≤ in_use`; never raised above `max_unauthenticated`.
    strangers: AtomicUsize,
    /// `refusing ≤ MOST_REFUSING`.
    refusing: AtomicUsize,
    arrivals: Arrivals,
    /// Chooses the part, under a secret of its own: clients choose their addresses.
    hasher: RandomState,
    /// Connections by address; one without any is absent.
    parts: [Part; PARTS],
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            in_use: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            refusing: AtomicUsize::new(0),
            arrivals: Arrivals::new(),
            hasher: RandomState::new(),
            parts: array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Shared {
    fn enter_from(&self, key: Key, standing: Standing, caps: &Caps) -> Result<(), Full> {
        let mut part = self.part(key);
        let Counts { all, strangers } = part.get(&key).copied().unwrap_or_default();
        if all >= caps.max_connections_per_ip {
            return Err(Full::Address);
        }
        let is_stranger = standing == Standing::Stranger;
        if is_stranger && strangers >= caps.max_unauthenticated_per_ip {
            return Err(Full::AddressStrangers);
        }
        let counts = Counts {
            all: all + 1,
            strangers: strangers + usize::from(is_stranger),
        };
        part.insert(key, counts);
        Ok(())
    }

    fn admit_from(&self, key: Key) {
        if let Some(counts) = self.part(key).get_mut(&key) {
            counts.strangers -= 1;
        }
    }

    fn leave_from(&self, key: Key, standing: Standing) {
        if let Entry::Occupied(mut counts) = self.part(key).entry(key) {
            let Counts { all, strangers } = counts.get_mut();
            *all -= 1;
            *strangers -= usize::from(standing == Standing::Stranger);
            if *all == 0 {
                counts.remove();
            }
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is below its divisor")]
    fn part(&self, key: Key) -> MutexGuard<'_, HashMap<Key, Counts>> {
        let i = self.hasher.hash_one(key) as usize % PARTS;
        lock(&self.parts[i])
    }
}

/// One more, unless there are as many as there may be.
fn enter(count: &AtomicUsize, most: usize) -> Option<()> {
    let more = |n| (n < most).then(|| n + 1);
    count
        .try_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .map(drop)
        .ok()
}

fn leave(count: &AtomicUsize) {
    count.fetch_sub(1, Ordering::Relaxed);
}

/// A panic elsewhere while the lock was held leaves the counts whole: each is changed in one
/// step.
fn lock(part: &Part) -> MutexGuard<'_, HashMap<Key, Counts>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
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
    use std::num::NonZeroU64;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::proto::allowance::Allowance;
    use crate::proto::limits::Rate;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn caps(max_connections: usize, max_connections_per_ip: usize) -> Caps {
        Caps {
            max_connections,
            max_unauthenticated: max_connections,
            max_connections_per_ip,
            max_unauthenticated_per_ip: max_connections_per_ip,
            handshakes: None,
            handshakes_per_ip: None,
        }
    }

    /// So many at once, and one an hour.
    fn once(burst: u64) -> Option<Allowance> {
        Some(Allowance {
            rate: Rate {
                units: NonZeroU64::MIN,
                per: Duration::from_secs(3600),
            },
            burst: NonZeroU64::new(burst).expect("not zero"),
        })
    }

    fn take_for(permits: &Permits, client: IpAddr, caps: &Caps) -> Result<Permit, Full> {
        let mut permit = permits.take(caps)?;
        permit.claim(client, caps, Instant::now())?;
        Ok(permit)
    }

    #[test]
    fn one_more_than_the_process_may_have_is_refused() {
        let (permits, caps) = (Permits::default(), caps(2, 2));
        let first = take_for(&permits, ip("192.0.2.1"), &caps).expect("1 of 2");
        let _second = take_for(&permits, ip("192.0.2.2"), &caps).expect("2 of 2");
        assert_eq!(
            take_for(&permits, ip("192.0.2.3"), &caps).err(),
            Some(Full::Process)
        );
        assert_eq!(permits.in_use(), 2);
        drop(first);
        assert_eq!(permits.in_use(), 1);
        let _third = take_for(&permits, ip("192.0.2.3"), &caps).expect("2 of 2 again");
    }

    #[test]
    fn one_more_than_an_address_may_have_is_refused_and_takes_nothing() {
        let (permits, caps) = (Permits::default(), caps(10, 2));
        let first = take_for(&permits, ip("192.0.2.1"), &caps).expect("1 of 2");
        let _second = take_for(&permits, ip("192.0.2.1"), &caps).expect("2 of 2");
        assert_eq!(
            take_for(&permits, ip("192.0.2.1"), &caps).err(),
            Some(Full::Address)
        );
        assert_eq!(permits.in_use(), 2);
        let _other = take_for(&permits, ip("192.0.2.2"), &caps).expect("another address");
        drop(first);
        let _again = take_for(&permits, ip("192.0.2.1"), &caps).expect("2 of 2 again");
    }

    #[test]
    fn caps_of_zero_admit_nobody() {
        assert_eq!(
            take_for(&Permits::default(), ip("::1"), &caps(0, 9)).err(),
            Some(Full::Process)
        );
        assert_eq!(
            take_for(&Permits::default(), ip("::1"), &caps(9, 0)).err(),
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
            let (permits, caps) = (Permits::default(), caps(10, 1));
            let _first = take_for(&permits, ip(a), &caps).expect("the first");
            assert_eq!(
                take_for(&permits, ip(b), &caps).is_err(),
                is_one,
                "{a} and {b}"
            );
        }
    }

    #[test]
    fn an_address_without_connections_is_forgotten() {
        let (permits, caps) = (Permits::default(), caps(1000, 2));
        let held: Vec<_> = (0..500_u16)
            .flat_map(|i| {
                let peer = IpAddr::from([198, 51, (i / 250) as u8, (i % 250) as u8]);
                [
                    take_for(&permits, peer, &caps),
                    take_for(&permits, peer, &caps),
                ]
            })
            .collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!((permits.in_use(), permits.addresses()), (1000, 500));
        drop(held);
        assert_eq!((permits.in_use(), permits.addresses()), (0, 0));
    }

    #[test]
    fn threads_never_exceed_the_caps_together() {
        let (permits, caps) = (Permits::default(), caps(8, 3));
        thread::scope(|scope| {
            for n in 0..4_u8 {
                let (permits, caps) = (permits.clone(), caps.clone());
                scope.spawn(move || {
                    for i in 0..2000_u16 {
                        let peer = IpAddr::from([192, 0, 2, n ^ (i % 4) as u8]);
                        let held: Vec<_> =
                            (0..4).map(|_| take_for(&permits, peer, &caps)).collect();
                        assert!(permits.in_use() <= 8);
                        assert!(held.iter().filter(|held| held.is_ok()).count() <= 3);
                    }
                });
            }
        });
        assert_eq!((permits.in_use(), permits.addresses()), (0, 0));
    }

    #[test]
    fn strangers_have_a_cap_of_their_own_and_leave_room_for_those_admitted() {
        let permits = Permits::default();
        let caps = Caps {
            max_unauthenticated: 2,
            ..caps(4, 4)
        };
        let mut first = permits.take(&caps).expect("1 of 2");
        let second = permits.take(&caps).expect("2 of 2");
        assert_eq!(permits.take(&caps).err(), Some(Full::Strangers));
        assert_eq!((permits.in_use(), permits.strangers()), (2, 2));
        first.admit();
        first.admit();
        assert_eq!((permits.in_use(), permits.strangers()), (2, 1));
        let third = permits.take(&caps).expect("2 of 2 again");
        assert_eq!(permits.take(&caps).err(), Some(Full::Strangers));
        drop((first, second, third));
        assert_eq!((permits.in_use(), permits.strangers()), (0, 0));
    }

    #[test]
    fn one_address_has_a_cap_of_its_own_on_strangers_and_leaves_room_for_others() {
        let permits = Permits::default();
        let caps = Caps {
            max_unauthenticated_per_ip: 2,
            ..caps(9, 5)
        };
        let mut held: Vec<_> = (0..2)
            .map(|_| take_for(&permits, ip("2001:db8::1"), &caps).expect("2 of 2"))
            .collect();
        let third = |from| take_for(&permits, ip(from), &caps);
        assert_eq!(third("2001:db8::2").err(), Some(Full::AddressStrangers));
        assert_eq!((permits.in_use(), permits.strangers()), (2, 2));
        let _other = third("2001:db8:0:1::1").expect("another address");
        // Whoever is admitted makes room, once.
        held[0].admit();
        held[0].admit();
        held.push(third("2001:db8::2").expect("2 of 2 again"));
        assert_eq!(third("2001:db8::3").err(), Some(Full::AddressStrangers));
        // So does whoever leaves.
        held.truncate(1);
        held.extend((0..2).map(|_| third("2001:db8::4").expect("the places of two")));
        assert_eq!(third("2001:db8::3").err(), Some(Full::AddressStrangers));
        held.iter_mut().for_each(Permit::admit);
        held.extend((0..2).map(|_| third("2001:db8::4").expect("5 of 5")));
        assert_eq!(third("2001:db8::4").err(), Some(Full::Address));
        drop((held, _other));
        assert_eq!((permits.strangers(), permits.addresses()), (0, 0));
    }

    #[test]
    fn a_lower_cap_on_strangers_holds_for_the_next_and_not_for_those_admitted() {
        let permits = Permits::default();
        let lower = Caps {
            max_unauthenticated_per_ip: 1,
            ..caps(9, 9)
        };
        let strangers: Vec<_> = (0..3)
            .map(|_| take_for(&permits, ip("192.0.2.1"), &caps(9, 9)).expect("3 of 9"))
            .collect();
        let refused = take_for(&permits, ip("192.0.2.1"), &lower);
        assert_eq!(refused.err(), Some(Full::AddressStrangers));
        let mut admitted = permits.take(&lower).expect("4 of 9");
        admitted.admit();
        let claimed = admitted.claim(ip("192.0.2.1"), &lower, Instant::now());
        assert_eq!(claimed, Ok(()));
        drop((strangers, admitted));
        assert_eq!((permits.in_use(), permits.addresses()), (0, 0));
    }

    #[test]
    fn one_handshake_over_the_burst_is_refused_and_takes_nothing() {
        let permits = Permits::default();
        let caps = Caps {
            handshakes: once(3),
            handshakes_per_ip: once(2),
            ..caps(9, 9)
        };
        for _ in 0..2 {
            drop(take_for(&permits, ip("192.0.2.1"), &caps).expect("one of the burst"));
        }
        // As often as it likes: that is nothing to the others.
        for _ in 0..9 {
            let refused = take_for(&permits, ip("192.0.2.1"), &caps);
            assert_eq!(refused.err(), Some(Full::AddressRate));
        }
        drop(take_for(&permits, ip("192.0.2.2"), &caps).expect("another address"));
        let refused = take_for(&permits, ip("192.0.2.3"), &caps);
        assert_eq!(refused.err(), Some(Full::Rate));
        assert_eq!((permits.in_use(), permits.addresses()), (0, 0));
    }

    #[test]
    fn who_is_refused_for_the_rate_of_all_has_spent_nothing_of_its_own() {
        let permits = Permits::default();
        let crowded = Caps {
            handshakes: once(1),
            handshakes_per_ip: once(2),
            ..caps(9, 9)
        };
        drop(take_for(&permits, ip("192.0.2.1"), &crowded).expect("the one"));
        for _ in 0..9 {
            let refused = take_for(&permits, ip("192.0.2.2"), &crowded);
            assert_eq!(refused.err(), Some(Full::Rate));
        }
        let calm = Caps {
            handshakes: None,
            ..crowded
        };
        for _ in 0..2 {
            drop(take_for(&permits, ip("192.0.2.2"), &calm).expect("one of its burst"));
        }
        let refused = take_for(&permits, ip("192.0.2.2"), &calm);
        assert_eq!(refused.err(), Some(Full::AddressRate));
    }

    #[test]
    fn a_permit_can_change_its_owner_once_that_is_known_better() {
        let (permits, caps) = (Permits::default(), caps(9, 1));
        let mut permit = take_for(&permits, ip("10.0.0.1"), &caps).expect("the proxy");
        assert_eq!(permit.claim(ip("192.0.2.1"), &caps, Instant::now()), Ok(()));
        let _proxy = take_for(&permits, ip("10.0.0.1"), &caps).expect("its place is free");
        let client = take_for(&permits, ip("192.0.2.1"), &caps);
        assert_eq!(client.err(), Some(Full::Address));
        assert_eq!(permits.addresses(), 2);
    }

    #[test]
    fn only_so_many_are_refused_in_words() {
        let permits = Permits::default();
        let refusing: Vec<_> = (0..MOST_REFUSING).map(|_| permits.refusing()).collect();
        assert!(refusing.iter().all(Option::is_some));
        assert!(permits.refusing().is_none());
        drop(refusing);
        assert!(permits.refusing().is_some());
    }
}
