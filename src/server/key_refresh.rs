//! Keeps sets of keys fresh: reads each source at start, on a schedule, and when a token's
//! key is not in the set, but never more often than its `refetch_interval`.
//!
//! Joins `auth`, which has the sets and what asks for them, with `proxy::web_client`. While a
//! source fails, the last good set stays in use until it is `max_age` old, and the log says
//! so. Runs on the thread of housekeeping; there is one task for a source, so that one reading
//! is under way at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use crate::auth::jwks::{MAX_DOCUMENT, SetRefused};
use crate::auth::key_sets::{KeySets, LiveKeys};
use crate::auth::keys::read_set_file;
use crate::config::problem::Problem;
use crate::config::url::WebUrl;
use crate::config::{Jwks, JwksSource};
use crate::outbound::{Method, Request};
use crate::proxy::web_client::{NotAnswered, WebClient};
use crate::server::desk::ReadyCheck;
use crate::telemetry::chain;

/// While a source fails, the log says so at once, and then this seldom.
const REMINDER: Duration = Duration::from_secs(600);

/// The same when it fails in another way: two that take turns fill no log.
const OTHER_REASON: Duration = Duration::from_secs(60);

/// One source and the way to it.
#[derive(Debug)]
pub(super) struct Refresher {
    keys: Arc<LiveKeys>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    File(PathBuf),
    Web(WebClient, WebUrl),
}

/// Finds the way to each source that nobody reads yet.
pub(super) fn prepare(sets: &KeySets, problems: &mut Vec<Problem>) -> Vec<Refresher> {
    let mut refreshers = Vec::new();
    for keys in sets.unread() {
        let way = match &keys.source().source {
            JwksSource::File(path) => Ok(Way::File(path.clone())),
            JwksSource::Url { url, ca } => WebClient::to(url, ca.as_deref())
                .map(|client| Way::Web(client, url.clone()))
                .map_err(|error| no_roots(keys, ca.as_deref(), &error)),
        };
        match way {
            Ok(way) => refreshers.push(Refresher {
                keys: Arc::clone(keys),
                way,
            }),
            Err(problem) => problems.push(problem),
        }
    }
    refreshers
}

/// All keys have to be there before clients come.
pub(super) fn ready_checks(sets: &KeySets) -> Vec<ReadyCheck> {
    let checks = sets.iter().map(|keys| {
        let keys = Arc::clone(keys);
        ReadyCheck::new(move || {
            let source = &keys.source().source;
            (!keys.is_ready()).then(|| format!("no keys from {source}"))
        })
    });
    checks.collect()
}

fn no_roots(keys: &LiveKeys, ca: Option<&Path>, error: &io::Error) -> Problem {
    let (place, line) = (keys.place(), keys.line());
    match ca {
        Some(ca) => Problem::error(
            line,
            format!("{place}.jwks.ca"),
            format!("{}: {error}", ca.display()),
            "a PEM file with the certificates that the service's must lead to",
        ),
        None => Problem::error(
            line,
            format!("{place}.jwks"),
            format!("the system has no roots to trust: {error}"),
            "the package ca-certificates installed, or jwks = { url = \"https://…\", ca = \"roots.pem\" }",
        ),
    }
}

/// Why a reading brought no set.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the file cannot be read")]
    File(#[source] io::Error),
    #[error(transparent)]
    Web(NotAnswered),
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("what was read is no set of keys to verify with")]
    Set(#[source] SetRefused),
}

impl Refresher {
    /// Where it fetches from; `None`: it reads a file.
    pub(super) fn url(&self) -> Option<String> {
        match &self.way {
            Way::File(_) => None,
            Way::Web(_, url) => Some(url.to_string()),
        }
    }

    /// Whose keys it reads.
    pub(super) fn keys(&self) -> &Arc<LiveKeys> {
        &self.keys
    }

    /// Never returns.
    pub(super) async fn run(self) {
        let mut course = Course::default();
        if self.keys.is_ready() {
            // Those of a configuration before may be older than this one wants them.
            if self.too_old().is_some_and(|at| at <= Instant::now()) {
                self.withdraw();
            }
            // A file was read when the configuration was; others may have keys from one before.
            if matches!(self.way, Way::File(_)) {
                self.until_due(&mut course).await;
            }
        }
        loop {
            self.keys.begin();
            match self.read(&mut course).await {
                Ok(()) => self.note_success(&mut course),
                Err(failed) => {
                    self.keys.fail();
                    self.note_failure(&failed, &mut course);
                }
            }
            // Whoever asks meanwhile waits, and nobody is asked twice for what is not there.
            sleep(self.keys.source().refetch_interval).await;
            self.keys.forget_helpless();
            self.until_due(&mut course).await;
        }
    }

    /// One reading, which ends well with a set in force.
    async fn read(&self, course: &mut Course) -> Result<(), Failed> {
        let document = self.document().await?;
        let is_same = course.document.as_ref() == Some(&document);
        if is_same && self.keys.is_ready() {
            self.keys.end(None, Instant::now().into_std());
            return Ok(());
        }
        let (set, set_aside) = self.keys.parse(&document).map_err(Failed::Set)?;
        let source = &self.keys.source().source;
        for one in set_aside.iter().filter(|one| one.is_fault()) {
            tracing::warn!(%source, %one, "a key of the set is not used");
        }
        tracing::info!(%source, keys = set.len(), "keys are in use");
        self.keys.end(Some(set), Instant::now().into_std());
        course.document = Some(document);
        Ok(())
    }

    async fn document(&self) -> Result<Bytes, Failed> {
        match &self.way {
            Way::File(path) => read_set_file(path).map(Bytes::from).map_err(Failed::File),
            Way::Web(client, url) => {
                let request = Request {
                    url,
                    method: Method::Get,
                    accept: "application/jwk-set+json, application/json",
                    fields: &[],
                    max_body: MAX_DOCUMENT,
                };
                let within = self.keys.source().timeout;
                let answer = client.ask(request, within).await.map_err(Failed::Web)?;
                match answer.status {
                    200 => Ok(answer.body),
                    other => Err(Failed::Status(other)),
                }
            }
        }
    }

    /// Waits until the source is to be read again: on schedule, or because a token asks. A
    /// set that becomes too old meanwhile is taken out of use.
    async fn until_due(&self, course: &mut Course) {
        let due = Instant::now() + course.pause(self.keys.source());
        loop {
            // Before anything that ends the waiting: otherwise whoever asks again and again
            // would keep the set in use.
            let too_old = self.too_old();
            if too_old.is_some_and(|at| at <= Instant::now()) {
                self.withdraw();
                continue;
            }
            let next = too_old.map_or(due, |at| at.min(due));
            if timeout_at(next, self.keys.wanted()).await.is_ok() || due <= Instant::now() {
                return;
            }
        }
    }

    /// When the set in force will be too old.
    fn too_old(&self) -> Option<Instant> {
        let max_age = self.keys.source().max_age?;
        let at = self.keys.read_at()?.checked_add(max_age)?;
        Some(Instant::from_std(at))
    }

    fn withdraw(&self) {
        self.keys.withdraw();
        let source = &self.keys.source().source;
        tracing::error!(%source, "the keys are older than max_age and out of use: tokens cannot be judged (1013, 503)");
    }

    fn note_success(&self, course: &mut Course) {
        if course.failures > 0 {
            let source = &self.keys.source().source;
            tracing::info!(%source, "keys can be read again");
        }
        course.failures = 0;
        course.told = None;
    }

    fn note_failure(&self, failed: &Failed, course: &mut Course) {
        course.failures = course.failures.saturating_add(1);
        let source = &self.keys.source().source;
        let (now, reason) = (Instant::now(), chain(failed));
        if let Some((at, told)) = &course.told {
            let quiet = if *told == reason {
                REMINDER
            } else {
                OTHER_REASON
            };
            if now.duration_since(*at) < quiet {
                return tracing::debug!(%source, reason, "keys could not be read");
            }
        }
        match self.keys.read_at() {
            Some(at) => {
                let age_s = now.duration_since(Instant::from_std(at)).as_secs();
                tracing::warn!(%source, reason, age_s, "keys could not be read: the last good ones stay in use");
            }
            None => {
                tracing::warn!(%source, reason, "keys could not be read: tokens cannot be judged (1013, 503)");
            }
        }
        course.told = Some((now, reason));
    }
}

/// How the readings of one source went so far.
#[derive(Debug, Default)]
struct Course {
    /// The document that the set in force is from, if it was read here.
    document: Option<Bytes>,
    /// Readings that failed since then.
    failures: u32,
    /// The last warning, and when it was given.
    told: Option<(Instant, String)>,
}

impl Course {
    /// From the end of the refetch interval to the next reading on schedule: after a failure
    /// sooner than otherwise, and each time later.
    fn pause(&self, source: &Jwks) -> Duration {
        let interval = source.refetch_interval;
        let between = match self.failures.checked_sub(1) {
            None => source.refresh,
            Some(doublings) => {
                let factor = 2_u32.saturating_pow(doublings);
                interval.saturating_mul(factor).min(source.refresh)
            }
        };
        between.saturating_sub(interval)
    }
}

#[cfg(test)]
mod tests;
