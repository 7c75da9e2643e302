//! One worker thread: accepts at its sockets, and drains when it is told to.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::drain::{Registry, Whom};
use crate::listener::{Listener, Permits};
use crate::proxy::{self, Entrance, Shared, Snapshot, Worker};
use crate::relay::Handle;
use crate::revocation::Store;
use crate::route::Places;
use crate::server::phase::{Departure, Ending, Phase, RouteDrain};
use crate::telemetry::Telemetry;

/// One worker's socket of one listener, and how connections come in there.
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) notsent_lowat: u32,
    pub(super) entrance: Entrance,
}

/// Everything one worker thread starts with.
pub(super) struct WorkerStart {
    pub(super) shared: Shared,
    pub(super) permits: Permits,
    pub(super) places: Places,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) revocations: Arc<Store>,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) doors: Vec<Door>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) route_drains: mpsc::Receiver<Arc<RouteDrain>>,
    /// Dropped at the end: so the end is known.
    pub(super) _ended: mpsc::Sender<()>,
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
    let worker = Rc::new(Worker {
        permits: start.permits,
        places: start.places,
        telemetry: start.telemetry,
        registry: Registry::default(),
        bearers: Registry::default(),
        revocations: start.revocations,
        snapshot: RefCell::new(Rc::new(Snapshot::new(start.shared))),
    });
    let sweeping = proxy::end_revoked(Rc::clone(&worker), start.changes);
    tokio::task::spawn_local(sweeping);
    let mut accepting = Vec::new();
    for door in start.doors {
        match Listener::new(door.socket, door.notsent_lowat) {
            Ok(listener) => {
                let accept = accept(listener, Rc::new(door.entrance), Rc::clone(&worker));
                accepting.push(tokio::task::spawn_local(accept));
            }
            Err(error) => tracing::error!(%error, "a worker cannot listen"),
        }
    }
    tokio::task::spawn_local(drain_routes(start.route_drains, Rc::clone(&worker)));
    let departure = departure(start.phase).await;
    for task in accepting {
        // Dropping the listener closes it: the kernel refuses what comes now, unless another
        // process has the socket, too.
        task.abort();
    }
    end_sessions(&worker.registry, departure).await;
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

async fn accept(mut listener: Listener, entrance: Rc<Entrance>, worker: Rc<Worker>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                let serve = proxy::serve(Rc::clone(&worker), accepted, Rc::clone(&entrance));
                tokio::task::spawn_local(serve);
            }
            Err(error) => {
                worker.telemetry.counters.accept_errors.add();
                tracing::debug!(%error, "accept failed");
            }
        }
    }
}

/// Closes the sessions of one route after another, as operators ask for it.
async fn drain_routes(mut asked: mpsc::Receiver<Arc<RouteDrain>>, worker: Rc<Worker>) {
    while let Some(drain) = asked.recv().await {
        let pick = |handle: &Handle| handle.route().is_some_and(|r| drain.picks(&r.name));
        let asking = worker
            .registry
            .ask(pick, drain.spread, seed(), Handle::drain);
        drain.done(asking.await);
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
