//! Tokens that count no longer, though they have not expired: which ones, and for how long.
//!
//! [`Store`] is what workers ask, at each admission and for each live session; [`entry`] is one
//! revocation and its text; `file` keeps them over a restart; [`Keeper`] alone changes the
//! store, on the thread of the housekeeping. Who is closed and what the asker hears are the
//! affair of those who ask. The clock is handed in, in whole seconds since 1970 as in tokens.

pub mod entry;
mod file;
mod keeper;
mod marks;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

pub use self::entry::{Entry, Kind};
pub use self::keeper::{Keeper, Outcome, Tokens};
pub use self::marks::Marks;

/// Every revocation of the process. Shared by all workers.
#[derive(Debug)]
pub struct Store {
    entries: RwLock<Entries>,
    /// Whether there is any entry: mostly there is none, and then nothing is locked.
    any: AtomicBool,
    /// Counts its changes. Moves while the lock is held for writing.
    version: AtomicU64,
    max_entries: usize,
}

/// There is no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store is full: it holds {max_entries} entries (`revocation.max_entries`), and none of \
     them has expired"
)]
pub struct Full {
    max_entries: usize,
}

impl Store {
    /// An empty one, of at most `max_entries`.
    pub fn new(max_entries: usize) -> Self {
        Self {
            entries: RwLock::default(),
            any: AtomicBool::new(false),
            version: AtomicU64::new(0),
            max_entries,
        }
    }

    /// Whether a token with these marks counts no longer.
    pub fn refuses(&self, marks: &Marks, now: u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        self.read(|entries| entries.refuse(marks, now))
    }

    /// What a token is admitted under: to be read before the store is asked about it.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Entries that have not expired.
    pub fn len(&self, now: u64) -> usize {
        self.read(|entries| entries.iter().filter(|e| e.is_alive(now)).count())
    }

    /// Adds an entry, or prolongs the one that names the same. Returns the one that is there
    /// now.
    fn insert(&self, mut entry: Entry, now: u64) -> Result<Entry, Full> {
        self.change(|entries, version| {
            entry.handle_stored(version);
            if entries.count >= self.max_entries && !entries.has(&entry) {
                entries.purge(now);
                if entries.count >= self.max_entries {
                    return Err(Full {
                        max_entries: self.max_entries,
                    });
                }
            }
            Ok(entries.insert(entry))
        })
    }

    /// Puts these entries in place of all. Where they are too many, nothing changes.
    fn replace(&self, all: Vec<Entry>) -> Result<(), Full> {
        self.change(|entries, version| {
            let mut others = Entries::default();
            for mut entry in all {
                entry.handle_stored(version);
                others.insert(entry);
            }
            if others.count > self.max_entries {
                return Err(Full {
                    max_entries: self.max_entries,
                });
            }
            *entries = others;
            Ok(())
        })
    }

    /// Forgets what has expired.
    fn purge(&self, now: u64) {
        self.change(|entries, _| entries.purge(now));
    }

    /// What has not expired, in an order of its own.
    fn alive(&self, now: u64) -> Vec<Entry> {
        let mut alive: Vec<Entry> = self.read(|entries| {
            let alive = entries.iter().filter(|entry| entry.is_alive(now));
            alive.cloned().collect()
        });
        alive.sort();
        alive
    }

    fn read<T>(&self, ask: impl FnOnce(&Entries) -> T) -> T {
        // Nothing panics while it holds the lock, and a reader must not where another did.
        ask(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `change` is told which version it makes.
    fn change<T>(&self, change: impl FnOnce(&mut Entries, u64) -> T) -> T {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let version = self.version.load(Ordering::Acquire) + 1;
        let changed = change(&mut entries, version);
        self.version.store(version, Ordering::Release);
        self.any.store(entries.count > 0, Ordering::Release);
        changed
    }
}

/// By what they name first. The lists are short: one for each route and issuer at most that an
/// operator told apart.
#[derive(Debug, Default)]
struct Entries {
    by_jti: Named,
    by_sub: Named,
    by_route: Named,
    count: usize,
}

type Named = HashMap<Box<str>, Vec<Entry>>;

impl Entries {
    fn refuse(&self, marks: &Marks, now: u64) -> bool {
        let route = marks.route();
        let asked = [
            (&self.by_jti, marks.jti()),
            (&self.by_sub, marks.sub()),
            (&self.by_route, Some(route)),
        ];
        asked.into_iter().any(|(named, name)| {
            let entries = name.and_then(|name| named.get(name));
            let mut entries = entries.into_iter().flatten();
            entries.any(|entry| entry.is_alive(now) && entry.covers(marks, route))
        })
    }

    fn named(&mut self, kind: Kind) -> &mut Named {
        match kind {
            Kind::Jti => &mut self.by_jti,
            Kind::Sub => &mut self.by_sub,
            Kind::Route => &mut self.by_route,
        }
    }

    fn has(&mut self, entry: &Entry) -> bool {
        let same = self.named(entry.kind()).get(entry.name());
        same.is_some_and(|same| same.iter().any(|known| known.names_the_same(entry)))
    }

    fn insert(&mut self, entry: Entry) -> Entry {
        let list = self.named(entry.kind()).entry(entry.name().into());
        let list = list.or_default();
        if let Some(known) = list.iter_mut().find(|known| known.names_the_same(&entry)) {
            known.prolong(&entry);
            return known.clone();
        }
        list.push(entry.clone());
        self.count += 1;
        entry
    }

    fn purge(&mut self, now: u64) {
        self.count = 0;
        for named in [&mut self.by_jti, &mut self.by_sub, &mut self.by_route] {
            named.retain(|_, list| {
                list.retain(|entry| entry.is_alive(now));
                self.count += list.len();
                !list.is_empty()
            });
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        let all = [&self.by_jti, &self.by_sub, &self.by_route];
        all.into_iter().flat_map(|named| named.values().flatten())
    }
}

#[cfg(test)]
mod tests;
