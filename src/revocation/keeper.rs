//! The one who changes the store: takes revocations, keeps the file and watches it.
//!
//! Everything here runs on the thread of the housekeeping; a slow disk delays no session. The
//! store comes first and the file after: who is to be thrown out is, even if the disk is full.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Revocation;
use crate::config::problem::Problem;
use crate::revocation::entry::{Complete, Defaults, Entry};
use crate::revocation::file::{self, Fault, Stamp};
use crate::revocation::{Full, Store};

/// See the module's documentation.
#[derive(Debug)]
pub struct Keeper {
    store: Arc<Store>,
    keep: u64,
    /// Whether tokens are asked for on a route, by its name.
    routes: Mutex<Vec<(String, Tokens)>>,
    file: Option<Mutex<Kept>>,
    changed: watch::Sender<u64>,
}

/// Whether a route asks for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// It does.
    Asked,
    /// It does not, so there are none to revoke.
    None,
}

/// What came of a revocation.
#[derive(Debug)]
pub enum Outcome {
    /// It holds, from now on and over a restart, where there is a file.
    Revoked(Entry),
    /// It holds until a restart: this is what is wrong with the file. Writing is tried again.
    Unwritten(Entry, String),
    /// It says nothing, or nothing sensible.
    Malformed(String),
    /// There is no room.
    Full(Full),
}

/// What is known of the file.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// The content that the store has; `None`: there was no file.
    stamp: Option<Stamp>,
    /// A newer content, which may still be being written, and the looks since there is one.
    settling: Option<(Stamp, u32)>,
    /// Why that is not what the store has, after all: then it must not be written over.
    fault: Option<String>,
    /// Whether the store has what the file has not.
    unwritten: bool,
    /// Whether the file names every time: one that does not means others when it is touched.
    complete: Complete,
    /// Not before this time is writing tried again.
    retry_at: u64,
    /// The last thing said about the file, so that it is said once.
    told: Option<String>,
}

impl Keeper {
    /// Reads the file, where the configuration names one that is there. `routes` are all there
    /// are. Returns the warnings along with the result.
    ///
    /// # Errors
    /// What is wrong with the file, and its line.
    pub fn load(
        config: &Revocation,
        routes: Vec<(String, Tokens)>,
        now: SystemTime,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut keeper = Self {
            store: Arc::new(Store::new(config.max_entries)),
            keep: config.keep.as_secs(),
            routes: Mutex::new(routes),
            file: None,
            changed: watch::Sender::new(0),
        };
        let Some(path) = &config.file else {
            return Ok((keeper, Vec::new()));
        };
        let mut kept = Kept {
            path: path.clone(),
            stamp: None,
            settling: None,
            fault: None,
            unwritten: false,
            complete: Complete::Yes,
            retry_at: 0,
            told: None,
        };
        let warnings = match keeper.first_reading(&mut kept, seconds(now)) {
            Ok(unknown) => unknown.map(|route| {
                let found = unknown_route(path, &route);
                Problem::warning(config.line, FILE_KEY, found, "the name of a route")
            }),
            Err(fault) => {
                let found = format!("{}: {fault}", path.display());
                let problem = Problem::error(config.line, FILE_KEY, found, FILE);
                return Err(vec![problem]);
            }
        };
        keeper.file = Some(Mutex::new(kept));
        Ok((keeper, warnings.into_iter().collect()))
    }

    /// Takes other routes for those there were. What is revoked stays so.
    pub fn set_routes(&self, routes: Vec<(String, Tokens)>) {
        *self.lock_routes() = routes;
    }

    fn lock_routes(&self) -> MutexGuard<'_, Vec<(String, Tokens)>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What workers ask.
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Tells of every change after which live sessions may have to be ended.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Writes the file, where there is none yet or where it left out a time: what was meant at
    /// this start is what is meant at the next.
    ///
    /// # Errors
    /// There is none and it cannot be written: better known at the start than at the first
    /// revocation.
    pub fn begin(&self, now: SystemTime) -> std::io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let kept = &mut *file.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.stamp.is_some() {
            self.persist_if_due(kept, seconds(now));
            return Ok(());
        }
        self.persist(kept, seconds(now)).map_err(|why| {
            let path = kept.path.display();
            std::io::Error::other(format!("the file of revocations, {path}: {why}"))
        })
    }

    /// Revokes what `text` names.
    pub fn revoke(&self, text: &[u8], now: SystemTime) -> Outcome {
        let now = seconds(now);
        let defaults = Defaults {
            now,
            keep: self.keep,
        };
        let parsed = Entry::parse(text, defaults).and_then(|(entry, _)| {
            self.check_route(&entry)?;
            match entry.is_alive(now) {
                true => Ok(entry),
                false => Err(PASSED.to_owned()),
            }
        });
        let entry = match parsed {
            Ok(entry) => entry,
            Err(what) => return Outcome::Malformed(what),
        };
        let entry = match self.store.insert(entry, now) {
            Ok(entry) => entry,
            Err(full) => return Outcome::Full(full),
        };
        self.tell();
        let Some(file) = &self.file else {
            return Outcome::Revoked(entry);
        };
        let kept = &mut *file.lock().unwrap_or_else(PoisonError::into_inner);
        kept.unwritten = true;
        match self.persist(kept, now) {
            Ok(()) => Outcome::Revoked(entry),
            Err(why) => Outcome::Unwritten(entry, why),
        }
    }

    /// Looks after the file and the store for as long as it is polled.
    pub async fn watch(self: Arc<Self>) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut purged = seconds(SystemTime::now());
        loop {
            tick.tick().await;
            let now = seconds(SystemTime::now());
            if let Some(file) = &self.file {
                let kept = &mut *file.lock().unwrap_or_else(PoisonError::into_inner);
                self.look_after(kept, now);
            }
            if now.abs_diff(purged) >= PURGE_EVERY {
                purged = now;
                self.store.purge(now);
            }
        }
    }

    /// A slip of the pen must not look like a success.
    fn check_route(&self, entry: &Entry) -> Result<(), String> {
        let Some(name) = entry.route() else {
            return Ok(());
        };
        let routes = self.lock_routes();
        match routes.iter().find(|(known, _)| known == name) {
            None => Err(format!("there is no route `{}`", name.escape_default())),
            Some((_, Tokens::None)) => Err(format!("the route `{name}` asks for no token")),
            Some((_, Tokens::Asked)) => Ok(()),
        }
    }

    fn tell(&self) {
        self.changed
            .send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// The store is empty before.
    fn first_reading(&self, kept: &mut Kept, now: u64) -> Result<Option<String>, Fault> {
        match file::look(&kept.path)? {
            Some(_) => self.read(kept, now),
            None => {
                // The folder must be there; the file is written at the start.
                std::fs::read_dir(file::folder(&kept.path))?;
                Ok(None)
            }
        }
    }

    /// Puts what the file says in place of the store's content. Returns the first name of a
    /// route in it that does not exist.
    fn read(&self, kept: &mut Kept, now: u64) -> Result<Option<String>, Fault> {
        let content = file::read(&kept.path, self.store.max_entries, self.keep, now)?;
        let routes = self.lock_routes();
        let unknown = content.entries.iter().find_map(|entry| {
            let route = entry.route()?;
            let is_known = routes.iter().any(|(name, _)| name == route);
            (!is_known).then(|| route.to_owned())
        });
        drop(routes);
        let mut entries = content.entries;
        if kept.unwritten {
            entries.extend(self.store.alive(now));
        }
        let replaced = self.store.replace(entries);
        replaced.map_err(|Full { max_entries }| Fault::Together(max_entries))?;
        kept.stamp = Some(content.stamp);
        kept.complete = content.complete;
        kept.fault = None;
        Ok(unknown)
    }

    /// One look at the file: is it another, and does it have everything?
    fn look_after(&self, kept: &mut Kept, now: u64) {
        match file::look(&kept.path) {
            Ok(Some(stamp)) if Some(stamp) == kept.stamp => {
                kept.settling = None;
                self.persist_if_due(kept, now);
            }
            Ok(Some(stamp)) if kept.is_settling(stamp) => {}
            // Written is only at a later look: who is still at it would write into the old file.
            Ok(Some(stamp)) => self.read_again(kept, stamp, now),
            Ok(None) => {
                kept.stamp = None;
                kept.settling = None;
                kept.fault = None;
                match kept.unwritten {
                    true => self.persist_if_due(kept, now),
                    false => kept.warn(GONE),
                }
            }
            Err(error) => kept.warn(&error.to_string()),
        }
    }

    fn read_again(&self, kept: &mut Kept, stamp: Stamp, now: u64) {
        kept.settling = None;
        match self.read(kept, now) {
            Ok(unknown) => {
                self.tell();
                kept.told = None;
                let path = kept.path.display().to_string();
                tracing::info!(
                    path,
                    entries = self.store.len(now),
                    "revocations read again"
                );
                if let Some(route) = unknown {
                    kept.warn(&unknown_route(&kept.path, &route));
                }
            }
            Err(fault) => {
                // It is looked at again when it is another.
                kept.stamp = Some(stamp);
                kept.fault = Some(fault.to_string());
                kept.warn(&format!("{fault}; what was revoked before stays so"));
            }
        }
    }

    /// Writes what the file lacks, unless it is wrong or could not be written a moment ago.
    fn persist_if_due(&self, kept: &mut Kept, now: u64) {
        let lacks = kept.unwritten || kept.complete == Complete::No;
        let is_due = lacks && kept.fault.is_none() && now >= kept.retry_at;
        if is_due && let Err(why) = self.persist(kept, now) {
            kept.warn(&why);
        }
    }

    /// Writes the store's content, after what somebody else may have written meanwhile.
    fn persist(&self, kept: &mut Kept, now: u64) -> Result<(), String> {
        let written = self.try_persist(kept, now);
        match &written {
            Ok(()) => {
                kept.unwritten = false;
                kept.complete = Complete::Yes;
            }
            Err(_) => kept.retry_at = now.saturating_add(RETRY_AFTER),
        }
        written
    }

    fn try_persist(&self, kept: &mut Kept, now: u64) -> Result<(), String> {
        let found = file::look(&kept.path).map_err(|error| error.to_string())?;
        if let Some(stamp) = found
            && found != kept.stamp
        {
            self.read_again(kept, stamp, now);
        }
        if let Some(fault) = &kept.fault {
            return Err(fault.clone());
        }
        let written = file::write(&kept.path, &self.store.alive(now));
        kept.stamp = Some(written.map_err(|error| format!("it cannot be written: {error}"))?);
        kept.told = None;
        Ok(())
    }
}

impl Kept {
    /// Whether somebody may be in the middle of writing this content: it is read when it has
    /// rested, or when waiting for that has taken too long.
    fn is_settling(&mut self, stamp: Stamp) -> bool {
        let (before, looks) = self.settling.unzip();
        let looks = looks.unwrap_or(0) + 1;
        self.settling = Some((stamp, looks));
        before != Some(stamp) && looks < MOST_LOOKS
    }

    fn warn(&mut self, what: &str) {
        if self.told.as_deref() != Some(what) {
            let path = self.path.display().to_string();
            tracing::warn!(path, what, "the file of revocations needs attention");
            self.told = Some(what.to_owned());
        }
    }
}

fn unknown_route(path: &Path, route: &str) -> String {
    let route = route.escape_default();
    format!(
        "{} names the route `{route}`, which there is not",
        path.display()
    )
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The key in the configuration.
const FILE_KEY: &str = "revocation.file";

/// What the file must be.
const FILE: &str = "a file that this process may read and replace, in a folder that is there, \
                    with an object such as {\"sub\":\"alice\"} on each line";

/// What is said of an entry that is forgotten at once.
const PASSED: &str = "`exp` has passed by 5 minutes or more: such an entry revokes nobody (it is \
                      in seconds since 1970)";

/// What is said when there is no file any longer.
const GONE: &str = "it is gone; what was revoked stays so, and the next one writes it anew";

/// Looking costs a system call. Two looks make a change count, and then a session has the rest
/// of a second to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Looks that make a change count though each found another: the second would leave nobody the
/// time to write, the fourth no session the time to end.
const MOST_LOOKS: u32 = 3;

/// Seconds.
const PURGE_EVERY: u64 = 60;

/// Seconds until writing is tried again.
const RETRY_AFTER: u64 = 10;

#[cfg(test)]
mod tests;
