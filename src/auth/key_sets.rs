//! The key sets in force, which are exchanged while workers verify with them.
//!
//! One [`LiveKeys`] is one source, shared by all routes and workers that name it alike. A
//! single task reads the source and hands over what came of it; an admission that misses a
//! key asks that task to read again, and waits for it. So however many tokens ask, one
//! reading is under way at a time.
//!
//! A token that another reading did not help is remembered until the task says that the source
//! may be asked again: until then the same token is refused at once, and others wait. It is the
//! token and not its `kid`, so that nobody can have a key refused by guessing its name before
//! the issuer publishes it. Bound: `MAX_HELPLESS` digests of 8 bytes.
//!
//! Knows neither files nor the network, and asks no clock.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::auth::jwks::{KeySet, SetAside, SetRefused};
use crate::auth::refused::TokenRefused;
use crate::config::{Algorithm, Jwks, Jwt, Line};

/// Tokens that are remembered: more than honest clients present again and again in a refetch
/// interval. Beyond it they wait as if they were new.
const MAX_HELPLESS: usize = 1024;

/// The longest that a token waits for a key, however rarely the source may be read. The same
/// order as `auth.timeout`: a stranger holds its place no longer with such a token than with
/// none.
const MAX_PATIENCE: Duration = Duration::from_secs(15);

/// Every source that the configuration names, each once.
#[derive(Debug, Default)]
pub struct KeySets {
    sets: Vec<Arc<LiveKeys>>,
    /// Those of the configuration before, and whether they can be taken over as they are.
    before: Vec<(Arc<LiveKeys>, Roots)>,
}

/// Whether what vouches for a source is the same as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roots {
    /// It is.
    Same,
    /// It is not: the source has to be asked in another way.
    Changed,
}

impl KeySets {
    /// Those of the next configuration: what it names as this one does keeps its keys, and who
    /// waits for them goes on waiting.
    #[must_use]
    pub fn successor(&self, roots: impl Fn(&Jwks) -> Roots) -> Self {
        let before = self.sets.iter().map(|keys| {
            let roots = roots(&keys.source);
            (Arc::clone(keys), roots)
        });
        Self {
            sets: Vec::new(),
            before: before.collect(),
        }
    }

    /// The source of a rule, and whether it is the first to name it.
    pub(super) fn share(&mut self, jwt: &Jwt, jwks: &Jwks) -> (Arc<LiveKeys>, bool) {
        let is_same =
            |keys: &Arc<LiveKeys>| keys.source == *jwks && keys.algorithms == jwt.algorithms;
        if let Some(known) = self.sets.iter().find(|keys| is_same(keys)) {
            return (Arc::clone(known), false);
        }
        let mut before = self.before.iter();
        if let Some((kept, _)) = before.find(|(keys, roots)| *roots == Roots::Same && is_same(keys))
        {
            self.sets.push(Arc::clone(kept));
            return (Arc::clone(kept), false);
        }
        let keys = Arc::new(LiveKeys::new(jwt, jwks));
        // Read at other times or trusted for another reason, but the same keys until then.
        let like = |(known, _): &&(Arc<LiveKeys>, Roots)| {
            known.source.source == jwks.source && known.algorithms == jwt.algorithms
        };
        if let Some((known, _)) = self.before.iter().find(like) {
            keys.begin_with(known);
        }
        self.sets.push(Arc::clone(&keys));
        (keys, true)
    }

    /// All of them, for the task that reads them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LiveKeys>> {
        self.sets.iter()
    }

    /// Those that nobody reads yet.
    pub fn unread(&self) -> impl Iterator<Item = &Arc<LiveKeys>> {
        let is_kept = |keys: &Arc<LiveKeys>| {
            let mut before = self.before.iter();
            before.any(|(known, _)| Arc::ptr_eq(known, keys))
        };
        self.sets.iter().filter(move |keys| !is_kept(keys))
    }

    /// Whether these are among them.
    pub fn has(&self, keys: &Arc<LiveKeys>) -> bool {
        self.sets.iter().any(|known| Arc::ptr_eq(known, keys))
    }

    /// Lets go of what the configuration before had.
    pub fn forget_before(&mut self) {
        self.before = Vec::new();
    }
}

/// The keys of one source, as last read.
#[derive(Debug)]
pub struct LiveKeys {
    place: String,
    line: Line,
    source: Jwks,
    algorithms: Vec<Algorithm>,
    state: watch::Sender<State>,
    wanted: Notify,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    set: Option<Arc<KeySet>>,
    /// When it was read last, also where another configuration had it read.
    read_at: Option<Instant>,
    /// Readings that began and ended; at most one is under way.
    begun: u64,
    ended: u64,
    /// Whether the last reading failed, and so says nothing of any token.
    failed: bool,
    /// The last reading that a token asked for.
    wanted: u64,
    /// Digests of the tokens that the last reading did not help.
    helpless: HashSet<u64>,
}

impl State {
    fn end(&mut self) {
        self.begun = self.ended + 1;
        self.ended = self.begun;
        self.helpless.clear();
    }
}

impl LiveKeys {
    fn new(jwt: &Jwt, jwks: &Jwks) -> Self {
        Self {
            place: jwt.place.clone(),
            line: jwt.line,
            source: jwks.clone(),
            algorithms: jwt.algorithms.clone(),
            state: watch::Sender::default(),
            wanted: Notify::new(),
            hasher: RandomState::new(),
        }
    }

    /// Uses the set that is in force elsewhere until it is read.
    fn begin_with(&self, other: &Self) {
        let (set, read_at) = {
            let state = other.state.borrow();
            (state.set.clone(), state.read_at)
        };
        self.state.send_modify(|state| {
            state.set = set;
            state.read_at = read_at;
        });
    }

    /// Where the configuration names the source first, as the path of a key.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The line of it.
    pub fn line(&self) -> Line {
        self.line
    }

    /// Where to read, and how often.
    pub fn source(&self) -> &Jwks {
        &self.source
    }

    /// How long a token may wait for its key: until the source may be read again, and has
    /// been; at most [`MAX_PATIENCE`].
    pub(super) fn patience(&self) -> Duration {
        let source = &self.source;
        MAX_PATIENCE.min(source.refetch_interval + source.timeout)
    }

    /// Whether there are keys to verify with.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().set.is_some()
    }

    /// When the set in force was read last, also where another configuration had it read.
    pub fn read_at(&self) -> Option<Instant> {
        self.state.borrow().read_at
    }

    /// Resolves when there are keys to verify with.
    pub async fn ready(&self) {
        let mut state = self.state.subscribe();
        // The sender is in `self`, so it is still there.
        let _ = state.wait_for(|state| state.set.is_some()).await;
    }

    /// Reads what the source answered.
    ///
    /// # Errors
    /// See [`KeySet::parse`].
    pub fn parse(&self, document: &[u8]) -> Result<(KeySet, Vec<SetAside>), SetRefused> {
        KeySet::parse(document, &self.algorithms)
    }

    /// A reading begins.
    pub fn begin(&self) {
        // Nobody waits for a beginning.
        self.state.send_if_modified(|state| {
            state.begun = state.ended + 1;
            false
        });
    }

    /// The reading has ended well, with another set or, without one, that in force.
    pub fn end(&self, set: Option<KeySet>, now: Instant) {
        self.state.send_modify(|state| {
            state.end();
            state.failed = false;
            if let Some(set) = set {
                state.set = Some(Arc::new(set));
            }
            state.read_at = Some(now);
        });
    }

    /// The reading has failed. The set in force stays.
    pub fn fail(&self) {
        self.state.send_modify(|state| {
            state.end();
            state.failed = true;
        });
    }

    /// The source may be asked again.
    pub fn forget_helpless(&self) {
        self.state.send_if_modified(|state| {
            state.helpless.clear();
            false
        });
    }

    /// The set is too old to be used.
    pub fn withdraw(&self) {
        self.state.send_if_modified(|state| {
            state.set = None;
            state.read_at = None;
            false
        });
    }

    /// Resolves when a token asks for another reading than those that have ended. Several may
    /// have asked for the same one, and one of them late.
    pub async fn wanted(&self) {
        loop {
            self.wanted.notified().await;
            let state = self.state.borrow();
            if state.wanted > state.ended {
                return;
            }
        }
    }

    /// The set in force, and the readings at that time.
    pub(super) fn current(&self) -> (Option<Arc<KeySet>>, Readings) {
        let state = self.state.borrow();
        let readings = Readings {
            begun: state.begun,
            ended: state.ended,
            failed: state.failed,
        };
        (state.set.clone(), readings)
    }

    /// What it takes for a token to wait for the next set. Without `token` it is any set that
    /// is waited for.
    pub(super) fn pending(self: &Arc<Self>, token: Option<&str>, readings: Readings) -> Pending {
        let digest = self.hasher.hash_one(token);
        Pending {
            is_helpless: self.state.borrow().helpless.contains(&digest),
            digest,
            readings,
            keys: Arc::clone(self),
        }
    }
}

/// Readings that began and that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readings {
    begun: u64,
    ended: u64,
    /// Whether the last one failed.
    failed: bool,
}

/// A token that another reading may help: as it stood when the set was looked at.
#[derive(Debug)]
pub(super) struct Pending {
    keys: Arc<LiveKeys>,
    digest: u64,
    readings: Readings,
    is_helpless: bool,
}

impl Pending {
    /// Whether a reading did not help this token, and the source is not to be asked again yet.
    pub(super) fn is_helpless(&self) -> bool {
        self.is_helpless
    }

    /// The reading that decides: the first that began after the token came.
    pub(super) fn deciding(&self) -> u64 {
        self.readings.begun + 1
    }

    /// The last reading that had ended.
    pub(super) fn ended(&self) -> u64 {
        self.readings.ended
    }

    /// The verdict where no further reading is waited for. One that failed proves nothing
    /// against a token whose key is new.
    pub(super) fn verdict(&self, refused: TokenRefused) -> TokenRefused {
        match refused {
            TokenRefused::KeyUnknown if self.readings.failed => TokenRefused::KeysLate,
            refused => refused,
        }
    }

    /// Waits until another reading has ended; asks for one if none is under way.
    pub(super) async fn next_reading(&self) {
        if self.readings.begun == self.readings.ended {
            self.keys.state.send_if_modified(|state| {
                state.wanted = state.wanted.max(self.ended() + 1);
                false
            });
            self.keys.wanted.notify_one();
        }
        let mut state = self.keys.state.subscribe();
        // The sender is in `keys`, so it is still there.
        let _ = state.wait_for(|state| state.ended > self.ended()).await;
    }

    /// Remembers that the set it was looked up in does not help.
    pub(super) fn remember_helpless(&self) {
        self.keys.state.send_if_modified(|state| {
            if state.ended == self.ended() && state.helpless.len() < MAX_HELPLESS {
                state.helpless.insert(self.digest);
            }
            false
        });
    }
}

#[cfg(test)]
mod tests;
