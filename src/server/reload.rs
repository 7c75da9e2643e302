//! Takes another configuration while the process serves: because somebody asks, or because a
//! file that it names was renewed.
//!
//! The next configuration is loaded whole, by the same way as the first; only when nothing is
//! wrong with it does anything change. Runs on the thread of housekeeping, one reload at a time.

mod report;
mod watched;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::auth::key_sets::LiveKeys;
use crate::config::{Apply, diff};
use crate::proxy::Affected;
use crate::server::files::Stamps;
use crate::server::gates::{Gates, Plan};
use crate::server::key_refresh::Refresher;
use crate::server::origin::Findings;
use crate::server::phase::Phase;
use crate::server::prepared::{Prepared, revocable};
use crate::server::reload::watched::Watched;
use crate::server::standing::Standing;
use crate::server::worker::Order;
use crate::telemetry::chain;

pub use self::report::{Outcome, Reloaded};

/// Who wants a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Whoever sent SIGHUP.
    Signal,
    /// Whoever may use the admin address.
    Admin,
    /// Nobody: a file was renewed.
    Files,
}

/// Asks for reloads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Ask>);

#[derive(Debug)]
pub(super) struct Ask {
    by: By,
    apply: Option<Apply>,
    answer: oneshot::Sender<Outcome>,
}

impl Reloads {
    pub(super) fn channel() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(MAX_WAITING);
        (Self(asks), asked)
    }

    /// Has the configuration read again, and says what came of it; so does the log. Without
    /// `apply` the configuration says for whom new limits hold.
    pub async fn ask(&self, by: By, apply: Option<Apply>) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { by, apply, answer };
        let outcome = match self.0.send(ask).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        outcome.unwrap_or_else(|| {
            let ending = Outcome::Impossible(ENDING);
            ending.log(by);
            ending
        })
    }
}

/// The one who does it.
pub(super) struct Reloader {
    pub(super) current: Prepared,
    pub(super) gates: Gates,
    pub(super) workers: Vec<mpsc::UnboundedSender<Order>>,
    pub(super) standing: Arc<Mutex<Standing>>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) asked: mpsc::Receiver<Ask>,
}

/// What goes on beside.
#[derive(Default)]
struct Course {
    /// Everybody who reads a set of keys, also of configurations before as long as somebody
    /// verifies with them.
    reading: Vec<(Arc<LiveKeys>, AbortHandle)>,
    tasks: JoinSet<()>,
    watched: Watched<Stamps>,
}

impl Reloader {
    /// Never returns.
    pub(super) async fn run(mut self) {
        let mut course = Course::default();
        let refreshers = std::mem::take(&mut self.current.refreshers);
        course.read(refreshers);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(Ask { by, apply, answer }) = self.asked.recv() => {
                    let outcome = self.reload(by, apply, &mut course).await;
                    outcome.log(by);
                    // Whoever asked may not wait for the answer.
                    let _ = answer.send(outcome);
                }
                _ = look.tick() => {
                    course.let_go(&self.current);
                    self.look(&mut course).await;
                }
            }
        }
    }

    async fn reload(&mut self, by: By, apply: Option<Apply>, course: &mut Course) -> Outcome {
        if matches!(*self.phase.borrow(), Phase::Drain(_)) {
            return Outcome::Impossible(ENDING);
        }
        let Some(origin) = &self.current.origin else {
            return Outcome::Impossible(NO_FILE);
        };
        match Prepared::read_after(origin, Some(&self.current)) {
            Ok((next, findings)) => self.take(next, &findings, by, apply, course).await,
            Err(findings) => Outcome::refused(origin.file(), findings),
        }
    }

    /// Looks after the files. What is still being written, or does not fit together, is not
    /// taken; it is tried again when it has changed again, and else ever more seldom.
    async fn look(&mut self, course: &mut Course) {
        let is_watched = self.current.shared.config.server.reload.watch;
        if !is_watched || matches!(*self.phase.borrow(), Phase::Drain(_)) {
            return;
        }
        let Some(origin) = &self.current.origin else {
            return;
        };
        let stamps = self.current.files.look();
        let is_new = stamps != self.current.files.stamps();
        if !is_new || !course.watched.is_due(stamps, Instant::now().into_std()) {
            return;
        }
        let config = (*self.current.shared.config).clone();
        let loaded = Prepared::load_after(config, origin.env(), Some(&self.current));
        let (origin, text) = (origin.clone(), origin.text().clone());
        match loaded {
            Ok((next, _)) if self.current.files.changed(&next.files).is_empty() => {
                course.watched.handle_good();
            }
            Ok((next, problems)) => {
                course.watched.handle_good();
                let next = next.renewable(origin, text.clone());
                let findings = Findings { problems, text };
                let outcome = self.take(next, &findings, By::Files, None, course).await;
                outcome.log(By::Files);
            }
            Err(problems) => {
                let now = Instant::now().into_std();
                if course.watched.handle_bad(&problems, now) {
                    let findings = Findings { problems, text };
                    Outcome::refused(origin.file(), findings).log(By::Files);
                }
            }
        }
    }

    /// Puts `next` in force.
    async fn take(
        &mut self,
        mut next: Prepared,
        findings: &Findings,
        by: By,
        apply: Option<Apply>,
        course: &mut Course,
    ) -> Outcome {
        let config = Arc::clone(&next.shared.config);
        let refreshers = std::mem::take(&mut next.refreshers);
        if let Err(ends) = self.read_new(refreshers, course).await {
            return ends;
        }
        // No wait from here to the order: nobody serves what is bound while the process ends.
        let planned = self
            .gates
            .plan(&config.listeners, config.server.workers.get());
        let (plan, addresses) = match planned.and_then(|plan| {
            let addresses = plan.addresses()?;
            Ok((plan, addresses))
        }) {
            Ok(planned) => planned,
            Err(error) => {
                self.gates.keep();
                return Outcome::unbound(&chain(&error));
            }
        };
        let apply = match by {
            By::Files => Apply::New,
            _ => apply.unwrap_or(config.server.reload.apply),
        };
        let affected = self.order(&next, plan, apply).await;
        for address in addresses {
            tracing::info!(%address, "listening");
        }
        self.settle(next, findings, affected)
    }

    /// Has new sets of keys read, and waits for them a while, so that nobody is turned away for
    /// keys that come in a moment. An error: the process ends meanwhile.
    async fn read_new(
        &self,
        refreshers: Vec<Refresher>,
        course: &mut Course,
    ) -> Result<(), Outcome> {
        let new: Vec<_> = refreshers
            .iter()
            .map(|new| Arc::clone(new.keys()))
            .collect();
        course.read(refreshers);
        let ready = async {
            for keys in &new {
                keys.ready().await;
            }
        };
        let mut phase = self.phase.clone();
        tokio::select! {
            biased;
            // Without a sender the process has ended.
            _ = phase.wait_for(|phase| matches!(phase, Phase::Drain(_))) => {
                Err(Outcome::Impossible(ENDING))
            }
            // Whoever comes after that waits for them, as at the start.
            _ = timeout(PATIENCE, ready) => Ok(()),
        }
    }

    /// Tells every worker, and waits until each has it.
    async fn order(&mut self, next: &Prepared, mut plan: Plan, apply: Apply) -> Affected {
        let listeners = &next.shared.config.listeners;
        let mut waiting = Vec::new();
        for worker in &self.workers {
            let (done, told) = oneshot::channel();
            let order = Order {
                shared: next.shared.clone(),
                doors: plan.doors(listeners, &next.acceptors),
                apply,
                done,
            };
            // One that is gone serves nobody.
            if worker.send(order).is_ok() {
                waiting.push(told);
            }
        }
        self.gates = plan.into_gates();
        self.gates.keep();
        let mut all = Affected::default();
        for told in waiting {
            let affected = told.await.unwrap_or_default();
            all.sessions += affected.sessions;
            all.revised += affected.revised;
            all.vanished += affected.vanished;
        }
        all
    }

    /// What is left to do when the workers have it.
    fn settle(&mut self, next: Prepared, findings: &Findings, affected: Affected) -> Outcome {
        let text = |prepared: &Prepared| {
            let origin = prepared.origin.as_ref();
            origin
                .map(|origin| origin.text().clone())
                .unwrap_or_default()
        };
        let reloaded = Reloaded {
            changes: diff::diff(&text(&self.current), &text(&next)),
            files: self.current.files.changed(&next.files),
            held_back: next.held_back.clone(),
            warnings: findings.problems.clone(),
            affected,
        };
        next.revocations.set_routes(revocable(&next.shared.config));
        let (before, now) = (&self.current.shared.grants, &next.shared.grants);
        if before.jwks() != now.jwks() {
            now.announce();
        }
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        *standing = Standing::of(&next);
        drop(standing);
        self.current = next;
        Outcome::Reloaded(Box::new(reloaded))
    }
}

impl Course {
    fn read(&mut self, refreshers: Vec<Refresher>) {
        for refresher in refreshers {
            let keys = Arc::clone(refresher.keys());
            let task = self.tasks.spawn_local(refresher.run());
            self.reading.push((keys, task));
        }
    }

    /// Ends the reading of keys that nobody verifies with any more, and tells of what ended by
    /// itself.
    fn let_go(&mut self, current: &Prepared) {
        self.reading.retain(|(keys, task)| {
            // Ours and the task's own; any more are sessions of a configuration before.
            let is_used = current.key_sets.has(keys) || Arc::strong_count(keys) > 2;
            if !is_used {
                task.abort();
            }
            is_used
        });
        while let Some(ended) = self.tasks.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!(chore = "keys", "a bug ended a part of the housekeeping");
            }
        }
    }
}

/// Looking costs a system call for each file. Two looks make a change count: a pair of a
/// certificate and its key is written within one of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For new sets of keys to be read before they are needed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reloads that are asked for and not begun. Who comes beyond that waits to ask.
const MAX_WAITING: usize = 8;

const ENDING: &str = "the process is ending";

const NO_FILE: &str = "the configuration did not come from a file";
