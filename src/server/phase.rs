//! What the process tells its workers about their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::drain::Whom;

/// Where the process is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Clients are welcome.
    Serve,
    /// They are taken in, but should be sent elsewhere.
    LameDuck,
    /// Nobody is taken in, and sessions are asked to end.
    Drain(Departure),
}

/// How a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    /// What becomes of those that have not said yet what they want.
    pub(super) ending: Ending,
    /// Closes are spread over this long.
    pub(super) spread: Duration,
    /// Then the sessions that are left are cut off.
    pub(super) deadline: Instant,
}

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is told to. Who has not sent a request head is not waited for.
    Stopped,
    /// Another process has its sockets. Whoever this one accepted is served by it.
    HandedOver,
}

impl Ending {
    pub(super) const fn waits_for(self) -> Whom {
        match self {
            Self::Stopped => Whom::Inside,
            Self::HandedOver => Whom::Everybody,
        }
    }
}

/// Resolves when another process has the sockets, and never if that does not happen.
pub(super) async fn handed_over(mut phase: watch::Receiver<Phase>) {
    let is_over = |phase: &Phase| match phase {
        Phase::Drain(departure) => departure.ending == Ending::HandedOver,
        _ => false,
    };
    if phase.wait_for(is_over).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What an operator asked the process for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To drain, and to end.
    Drain,
    /// To start another process in its place.
    Upgrade,
}

/// How the last attempt to be replaced stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// There was none.
    #[default]
    None,
    /// A process was started, and does not serve yet.
    Starting,
    /// It did not come to that.
    Failed(String),
}

/// The sessions of one route are to be closed; the workers share it.
#[derive(Debug)]
pub(super) struct RouteDrain {
    route: String,
    pub(super) spread: Duration,
    workers_left: AtomicUsize,
    sessions: AtomicUsize,
}

/// Tells every worker.
#[derive(Clone, Debug)]
pub(super) struct RouteDrains(pub(super) Vec<mpsc::Sender<Arc<RouteDrain>>>);

/// Route drains that wait in a worker for the one under way.
pub(super) const MAX_WAITING: usize = 16;

impl RouteDrain {
    pub(super) fn picks(&self, route: &str) -> bool {
        self.route == route
    }

    /// One worker has asked so many of its sessions. The last one says so.
    pub(super) fn done(&self, asked: usize) {
        self.sessions.fetch_add(asked, Ordering::AcqRel);
        if self.workers_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let sessions = self.sessions.load(Ordering::Acquire);
            tracing::info!(route = self.route, sessions, "route drained");
        }
    }
}

impl RouteDrains {
    /// Whether every worker has room to remember it, and was told.
    pub(super) fn tell(&self, route: &str, spread: Duration) -> bool {
        if self.0.iter().any(|worker| worker.capacity() == 0) {
            return false;
        }
        let drain = Arc::new(RouteDrain {
            route: route.to_owned(),
            spread,
            workers_left: AtomicUsize::new(self.0.len()),
            sessions: AtomicUsize::new(0),
        });
        // The admin address is answered one request at a time, so there is room still; a worker
        // that has ended has no sessions.
        for worker in &self.0 {
            if worker.try_send(Arc::clone(&drain)).is_err() {
                drain.done(0);
            }
        }
        true
    }
}
