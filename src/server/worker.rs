//! One worker thread: accepts at its doors, takes other configurations, and drains when it is
//! told to.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::config::Apply;
use crate::drain::{Registry, Whom};
use crate::listener::Permits;
use crate::proxy::shedding::{Buffered, shed_load};
use crate::proxy::{self, Affected, Shared, Worker};
use crate::relay::Handle;
use crate::revocation::Store;
use crate::route::Places;
use crate::server::doors::{Door, Doors};
use crate::server::phase::{Departure, Ending, Phase, RouteDrain};
use crate::server::watchdog::Pulse;
use crate::telemetry::Telemetry;

/// Everything one worker thread starts with.
pub(super) struct WorkerStart {
    pub(super) shared: Shared,
    pub(super) permits: Permits,
    pub(super) places: Places,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) revocations: Arc<Store>,
    pub(super) changes: watch::Receiver<u64>,
    /// The memory of all workers' sessions, and which of them this is.
    pub(super) buffered: (Buffered, usize),
    pub(super) doors: Vec<Door>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) route_drains: mpsc::Receiver<Arc<RouteDrain>>,
    /// Where somebody watches over the workers.
    pub(super) pulse: Option<(Pulse, Duration)>,
    /// Dropped at the end: so the end is known.
    pub(super) _ended: mpsc::Sender<()>,
}

/// Another configuration. One is under way at a time.
pub(super) struct Order {
    pub(super) shared: Shared,
    pub(super) doors: Vec<Door>,
    pub(super) apply: Apply,
    /// Told when the next connection comes in under it.
    pub(super) done: oneshot::Sender<Affected>,
}

/// One worker thread.
pub(super) fn work(start: WorkerStart) {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(serve(start)),
        Err(error) => tracing::error!(%error, "a worker cannot start"),
    }
}

async fn serve(start: WorkerStart) {
    let (buffered, number) = start.buffered;
    let worker = Rc::new(Worker::new(
        start.shared,
        start.permits,
        start.places,
        start.telemetry,
        start.revocations,
        buffered.gauge(number),
    ));
    tokio::task::spawn_local(shed_load(Rc::clone(&worker), buffered));
    let sweeping = proxy::end_revoked(Rc::clone(&worker), start.changes);
    tokio::task::spawn_local(sweeping);
    if let Some((pulse, every)) = start.pulse {
        tokio::task::spawn_local(pulse.beat(every));
    }
    tokio::task::spawn_local(drain_routes(start.route_drains, Rc::clone(&worker)));
    let mut doors = Doors::default();
    doors.set(start.doors, &worker);
    let (mut orders, mut departing) = (start.orders, pin!(departure(start.phase)));
    let departure = loop {
        tokio::select! {
            biased;
            departure = &mut departing => break departure,
            Some(order) = orders.recv() => obey(order, &mut doors, &worker),
        }
    };
    // What is ordered from now on is not done, and its sockets are closed with the order.
    drop(orders);
    doors.close(departure.ending).await;
    end_sessions(&worker.registry, departure).await;
}

/// Takes a configuration: without a wait, so that nobody comes in under half of it.
fn obey(order: Order, doors: &mut Doors, worker: &Rc<Worker>) {
    let spread = order.shared.config.server.drain.spread;
    let affected = worker.take(order.shared, order.apply);
    doors.set(order.doors, worker);
    if affected.vanished > 0 {
        end_vanished(worker, spread);
    }
    // Whoever asked may have gone with the process.
    let _ = order.done.send(affected);
}

/// Closes the sessions whose route is gone, unless it comes back before their turn.
/// Those whose turn comes already, after another reload, are left to it.
fn end_vanished(worker: &Rc<Worker>, spread: Duration) {
    let in_force = Rc::clone(worker);
    let has_vanished = move |handle: &Handle| {
        let route = handle.route();
        route.is_some_and(|route| !in_force.snapshot().has_route(&route.name))
    };
    let pick = |handle: &Handle| has_vanished(handle) && handle.leave();
    let picked = worker.registry.pick(pick);
    tokio::task::spawn_local(async move {
        let asking = picked.ask(spread, seed(), |handle| {
            if has_vanished(handle) {
                handle.drain();
            }
        });
        let asked = asking.await;
        tracing::debug!(asked, "sessions of routes that are gone were asked to end");
    });
}

async fn departure(mut phase: watch::Receiver<Phase>) -> Departure {
    loop {
        if let Phase::Drain(departure) = *phase.borrow_and_update() {
            return departure;
        }
        if phase.changed().await.is_err() {
            // The sender goes only with the process.
            return Departure {
                ending: Ending::Stopped,
                spread: Duration::ZERO,
                deadline: std::time::Instant::now(),
            };
        }
    }
}

/// Closes the sessions that a route has when an operator asks for it. No route waits for
/// another one's.
async fn drain_routes(mut asked: mpsc::Receiver<Arc<RouteDrain>>, worker: Rc<Worker>) {
    while let Some(drain) = asked.recv().await {
        let pick = |handle: &Handle| handle.route().is_some_and(|r| drain.picks(&r.name));
        let picked = worker.registry.pick(pick);
        tokio::task::spawn_local(async move {
            let asked = picked.ask(drain.spread, seed(), Handle::drain).await;
            drain.done(asked);
        });
    }
}

/// Asks, waits, and after the grace period lets go of what is left.
async fn end_sessions(registry: &Registry<Handle>, departure: Departure) {
    let whom = departure.ending.waits_for();
    if departure.ending == Ending::Stopped {
        registry.close();
    }
    let deadline = Instant::from_std(departure.deadline);
    let ended = registry.drain(whom, departure.spread, seed(), Handle::drain);
    if timeout_at(deadline, ended).await.is_err() {
        let left = registry.waited_for(whom);
        tracing::warn!(left, "grace period over: closing the connections left");
        registry
            .handles()
            .iter()
            .for_each(|handle| handle.cut_off());
        // Nothing but the sessions' own tasks is waited for; each has a record to write.
        let gone = registry.emptied(Whom::Inside);
        if timeout_at(Instant::now() + RECORDS, gone).await.is_err() {
            let left = registry.waited_for(Whom::Inside);
            tracing::debug!(left, "connections without a session are dropped");
        }
    }
}

/// Where in their parts of the spread this worker's sessions are asked.
fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// For the records of sessions that are cut off: a turn of the worker each.
const RECORDS: Duration = Duration::from_secs(1);
