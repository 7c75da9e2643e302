//! The doors of one worker: its sockets, and how connections come in there. They are opened,
//! changed and shut while the others stay as they are.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::listener::{Accepted, Listener, Sockets};
use crate::proxy::{self, Entrance, Worker};
use crate::server::phase::Ending;

/// One listener of the configuration, for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gate(pub(super) u64);

/// One worker's part of one listener.
pub(super) struct Door {
    pub(super) gate: Gate,
    /// `None`: it is open already.
    pub(super) sockets: Option<Sockets>,
    pub(super) manner: Manner,
}

/// How connections come in.
#[derive(Clone)]
pub(super) struct Manner {
    pub(super) notsent_lowat: u32,
    pub(super) entrance: Arc<Entrance>,
}

/// Those that are open.
#[derive(Default)]
pub(super) struct Doors(BTreeMap<Gate, Open>);

/// One that is. When `manner` is dropped it is shut, after those who wait there were let in.
struct Open {
    manner: watch::Sender<Manner>,
    attending: JoinHandle<()>,
}

impl Doors {
    /// Opens and shuts what it takes to have these and no others. Connections that come from
    /// now on come in as they say.
    pub(super) fn set(&mut self, doors: Vec<Door>, worker: &Rc<Worker>) {
        let wanted: Vec<Gate> = doors.iter().map(|door| door.gate).collect();
        self.0.retain(|gate, _| wanted.contains(gate));
        for Door {
            gate,
            sockets,
            manner,
        } in doors
        {
            match (sockets, self.0.get(&gate)) {
                (Some(sockets), _) => self.open(gate, sockets, manner, worker),
                // It lives as long as the door is open.
                (None, Some(open)) => drop(open.manner.send_replace(manner)),
                (None, None) => {}
            }
        }
    }

    /// Shuts all at once: the kernel refuses what comes now. Those who wait are let in, unless
    /// another process has the sockets, too, and serves them.
    pub(super) async fn close(self, ending: Ending) {
        let mut shutting = Vec::new();
        for Open { manner, attending } in self.0.into_values() {
            match ending {
                Ending::HandedOver => attending.abort(),
                Ending::Stopped => shutting.push(attending),
            }
            drop(manner);
        }
        for attending in shutting {
            // If a bug ended it, its sockets are closed all the same.
            let _ = attending.await;
        }
    }

    fn open(&mut self, gate: Gate, sockets: Sockets, manner: Manner, worker: &Rc<Worker>) {
        match Listener::new(sockets, manner.notsent_lowat) {
            Ok(listener) => {
                let (changes, manner) = watch::channel(manner);
                let attending = attend(listener, manner, Rc::clone(worker));
                let open = Open {
                    manner: changes,
                    attending: tokio::task::spawn_local(attending),
                };
                self.0.insert(gate, open);
            }
            Err(error) => tracing::error!(%error, "a worker cannot listen"),
        }
    }
}

/// Lets connections in until the door is shut.
async fn attend(mut listener: Listener, mut manner: watch::Receiver<Manner>, worker: Rc<Worker>) {
    let mut current = manner.borrow().clone();
    loop {
        // A change first: nobody comes in as it was before, who came after it.
        tokio::select! {
            biased;
            changed = manner.changed() => {
                if changed.is_err() {
                    break;
                }
                current = manner.borrow_and_update().clone();
                listener.set_notsent_lowat(current.notsent_lowat);
            }
            accepted = listener.accept() => let_in(accepted, &current, &worker),
        }
    }
    // Those whom the kernel has let in already would hear a reset.
    for accepted in listener.accept_waiting() {
        let_in(accepted, &current, &worker);
    }
}

fn let_in(accepted: std::io::Result<Accepted>, manner: &Manner, worker: &Rc<Worker>) {
    match accepted {
        Ok(accepted) => {
            tokio::task::spawn_local(proxy::serve(worker, accepted, &manner.entrance));
        }
        Err(error) => {
            worker.telemetry.counters.accept_errors.add();
            tracing::debug!(%error, "accept failed");
        }
    }
}
