//! One worker thread: accepts at its sockets, and drains when it is told to.

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::config::Drain;
use crate::drain::Registry;
use crate::listener::{Listener, Permits};
use crate::proxy::{self, Entrance, Shared, Snapshot, Worker};
use crate::relay::Handle;
use crate::revocation::Store;
use crate::server::Phase;
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
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) revocations: Arc<Store>,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) doors: Vec<Door>,
    pub(super) phase: watch::Receiver<Phase>,
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
    let mut phase = start.phase;
    // The sender goes only with the process: an error means the same as a drain.
    let _ = phase.wait_for(|phase| *phase == Phase::Drain).await;
    for task in accepting {
        // Dropping the listener closes it: the kernel refuses what comes now.
        task.abort();
    }
    let drain = worker.snapshot().shared.config.server.drain.clone();
    end_sessions(&worker.registry, &drain).await;
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

/// Asks, waits, and after the grace period lets go of what is left.
async fn end_sessions(registry: &Registry<Handle>, drain: &Drain) {
    let deadline = Instant::now() + drain.grace;
    let ended = async {
        registry.drain(drain.spread, Handle::drain).await;
        registry.emptied().await;
    };
    if timeout_at(deadline, ended).await.is_err() {
        let left = registry.live();
        tracing::warn!(left, "grace period over: closing the connections left");
    }
}
