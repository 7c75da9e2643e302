//! What the process tells its workers about their end.

use std::cell::RefCell;
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
#[derive(Debug)]
pub(super) struct RouteDrains {
    workers: Vec<mpsc::Sender<Arc<RouteDrain>>>,
    /// Each as long as a worker has not done with it.
    under_way: RefCell<Vec<Arc<RouteDrain>>>,
}

/// What becomes of a wish to drain a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// It is done, beginning now.
    Now,
    /// It is done already, for those who were here when it began. Who came back since has come
    /// back for good.
    Before,
    /// Too many others are.
    Never,
}

/// Route drains at a time. Each holds a list of the sessions that it concerns.
pub(super) const MAX_UNDER_WAY: usize = 16;

impl RouteDrain {
    pub(super) fn picks(&self, route: &str) -> bool {
        self.route == route
    }

    fn is_done(&self) -> bool {
        self.workers_left.load(Ordering::Acquire) == 0
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
    pub(super) const fn new(workers: Vec<mpsc::Sender<Arc<RouteDrain>>>) -> Self {
        Self {
            workers,
            under_way: RefCell::new(Vec::new()),
        }
    }

    /// Has the sessions that the route has now closed, unless that is under way.
    pub(super) fn tell(&self, route: &str, spread: Duration) -> Begun {
        let mut under_way = self.under_way.borrow_mut();
        under_way.retain(|drain| !drain.is_done());
        if under_way.iter().any(|drain| drain.picks(route)) {
            return Begun::Before;
        }
        if under_way.len() >= MAX_UNDER_WAY {
            return Begun::Never;
        }
        let drain = Arc::new(RouteDrain {
            route: route.to_owned(),
            spread,
            workers_left: AtomicUsize::new(self.workers.len()),
            sessions: AtomicUsize::new(0),
        });
        under_way.push(Arc::clone(&drain));
        // There is room for as many as are under way; a worker that has ended has no sessions.
        for worker in &self.workers {
            if worker.try_send(Arc::clone(&drain)).is_err() {
                drain.done(0);
            }
        }
        Begun::Now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(10);

    #[test]
    fn a_route_is_drained_once_at_a_time_and_few_at_once() {
        let (worker, mut told) = mpsc::channel(MAX_UNDER_WAY);
        let drains = RouteDrains::new(vec![worker]);
        assert_eq!(drains.tell("a", SPREAD), Begun::Now);
        assert_eq!(drains.tell("a", SPREAD), Begun::Before);
        let of_a = told.try_recv().expect("told");
        // Also while the worker is at it.
        assert_eq!(drains.tell("a", SPREAD), Begun::Before);
        for n in 1..MAX_UNDER_WAY {
            assert_eq!(drains.tell(&n.to_string(), SPREAD), Begun::Now);
        }
        assert_eq!(drains.tell("one more", SPREAD), Begun::Never);
        of_a.done(5);
        assert_eq!(drains.tell("a", SPREAD), Begun::Now);
        assert_eq!(drains.tell("one more", SPREAD), Begun::Never);
    }

    #[test]
    fn workers_that_have_ended_have_nobody_to_drain() {
        let (worker, told) = mpsc::channel(MAX_UNDER_WAY);
        drop(told);
        let drains = RouteDrains::new(vec![worker]);
        for _ in 0..2 {
            assert_eq!(drains.tell("a", SPREAD), Begun::Now);
        }
    }
}
