//! The running process: binds what a loaded configuration names, and serves on one
//! single-threaded worker per core until it is told to stop.
//!
//! - `prepared.rs`: from a configuration to what it names, loaded.
//! - `worker.rs`: one thread of connections.
//! - `phase.rs`: what the process tells its workers about their end.
//! - `desk.rs`: what the admin address answers. `key_refresh.rs`: keys that are fetched.

mod desk;
mod key_refresh;
mod phase;
mod prepared;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::admin::{self, Guard};
use crate::config::Drain;
use crate::housekeeping::{Chore, Housekeeping};
use crate::listener::{self, Permits};
use crate::proxy::{Encryption, Entrance};
use crate::route::Places;
use crate::server::desk::Desk;
pub use crate::server::desk::ReadyCheck;
use crate::server::phase::{Departure, MAX_WAITING, Phase, RouteDrains};
pub use crate::server::phase::{Ending, Wish};
pub use crate::server::prepared::{Prepared, inspect};
use crate::server::worker::{Door, WorkerStart, work};
use crate::telemetry::{Observer, Telemetry};

/// A process that serves.
#[derive(Debug)]
pub struct Running {
    /// What is listened on, in the order of the configuration, with real ports.
    pub addresses: Vec<SocketAddr>,
    /// The admin address, with its real port.
    pub admin: Option<SocketAddr>,
    /// Counters and records.
    pub telemetry: Arc<Telemetry>,
    phase: watch::Sender<Phase>,
    times: Drain,
    wishes: mpsc::Receiver<Wish>,
    workers: Vec<JoinHandle<()>>,
    housekeeping: Option<Housekeeping>,
    ended: mpsc::Receiver<()>,
}

impl Prepared {
    /// Binds every listener and the admin address, and starts the workers and housekeeping.
    ///
    /// # Errors
    ///
    /// An address that cannot be bound, a file that cannot be written, or a thread that cannot
    /// be started.
    pub fn start(mut self, observer: Option<Observer>) -> io::Result<Running> {
        let workers = self.shared.config.server.workers.get();
        let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
        for listener in &self.shared.config.listeners {
            let bound = listener::bind(listener.bind, workers)?;
            addresses.extend(bound.first().map(TcpListener::local_addr).transpose()?);
            sockets.push(bound);
        }
        let admin = self.bind_admin()?;
        self.revocations.begin(SystemTime::now())?;
        let (permits, places) = (Permits::default(), Places::default());
        let telemetry = Arc::new(Telemetry::new(observer));
        self.shared.grants.announce();
        let (phase, heard) = watch::channel(Phase::Serve);
        let (wish, wishes) = mpsc::channel(MAX_WISHES);
        let mut route_drains = RouteDrains(Vec::new());
        let (alive, ended) = mpsc::channel(1);
        let mut threads = Vec::new();
        for worker in 0..workers {
            let (drains, asked) = mpsc::channel(MAX_WAITING);
            route_drains.0.push(drains);
            let start = WorkerStart {
                shared: self.shared.clone(),
                permits: permits.clone(),
                places: places.clone(),
                telemetry: Arc::clone(&telemetry),
                revocations: self.revocations.store(),
                changes: self.revocations.changes(),
                doors: self.doors_of_one_worker(&mut sockets),
                phase: heard.clone(),
                route_drains: asked,
                _ended: alive.clone(),
            };
            let name = format!("worker-{worker}");
            threads.push(thread::Builder::new().name(name).spawn(|| work(start))?);
        }
        let admin_address = admin.as_ref().map(|(listener, _)| listener.local_addr());
        let admin_address = admin_address.transpose()?;
        if admin.is_some() || self.shared.config.revocation.file.is_some() {
            let keeper = Arc::clone(&self.revocations);
            self.chores
                .push(Chore::new("revocations", || keeper.watch()));
        }
        self.chores.extend(admin.map(|(listener, guard)| {
            let desk = Desk {
                phase: heard,
                wish,
                route_drains,
                spread: self.shared.config.server.drain.spread,
                routes: self.shared.config.routes.clone(),
                ready: std::mem::take(&mut self.ready),
                keys: self.keys.take(),
                revocations: Arc::clone(&self.revocations),
            };
            Chore::new("admin", move || {
                admin::serve(listener, guard, move |asked| desk.answer(asked))
            })
        }));
        let housekeeping = match self.chores.is_empty() {
            true => None,
            false => Some(Housekeeping::start(self.chores)?),
        };
        Ok(Running {
            addresses,
            admin: admin_address,
            telemetry,
            phase,
            times: self.shared.config.server.drain.clone(),
            wishes,
            workers: threads,
            housekeeping,
            ended,
        })
    }

    fn bind_admin(&self) -> io::Result<Option<(TcpListener, Guard)>> {
        let Some(admin) = &self.shared.config.admin else {
            return Ok(None);
        };
        let listener = listener::bind(admin.bind, 1)?.pop();
        let listener = listener.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let guard = Guard {
            token: self.admin_token.clone(),
            is_loopback: admin.bind.ip().to_canonical().is_loopback(),
        };
        Ok(Some((listener, guard)))
    }

    fn doors_of_one_worker(&self, sockets: &mut [Vec<TcpListener>]) -> Vec<Door> {
        let listeners = self.shared.config.listeners.iter().zip(&self.acceptors);
        listeners
            .zip(sockets)
            .filter_map(|((listener, acceptor), sockets)| {
                let encryption = match (&listener.tls, acceptor) {
                    (Some(tls), Some(acceptor)) => Encryption::Tls {
                        acceptor: acceptor.clone(),
                        timeout: tls.handshake_timeout,
                    },
                    _ => Encryption::Plaintext,
                };
                let entrance = Entrance {
                    encryption,
                    trust: listener.trust.clone(),
                };
                Some(Door {
                    socket: sockets.pop()?,
                    notsent_lowat: listener.notsent_lowat,
                    entrance,
                })
            })
            .collect()
    }
}

impl Running {
    /// Says at the admin address that clients should be sent elsewhere. They are still taken in.
    pub fn announce(&self) {
        self.tell(Phase::LameDuck);
    }

    /// Stops accepting, and asks every session to end over the configured spread. `grace` from
    /// now those left are cut off.
    pub fn drain(&self, ending: Ending, grace: Duration) {
        self.tell(Phase::Drain(Departure {
            ending,
            spread: self.times.spread.min(grace),
            deadline: Instant::now() + grace,
        }));
    }

    /// The times of a drain.
    pub const fn drain_times(&self) -> &Drain {
        &self.times
    }

    /// What an operator asks for next; `None`: every worker has ended.
    pub async fn wish(&mut self) -> Option<Wish> {
        tokio::select! {
            // Without an admin address nobody ever asks.
            Some(wish) = self.wishes.recv() => Some(wish),
            () = all_ended(&mut self.ended) => None,
        }
    }

    fn tell(&self, phase: Phase) {
        // Nobody left to hear it means that all workers have ended.
        let _ = self.phase.send(phase);
    }

    /// Resolves when every worker has ended.
    pub async fn ended(&mut self) {
        all_ended(&mut self.ended).await;
    }

    /// Waits for every worker, and ends housekeeping.
    ///
    /// # Errors
    ///
    /// A thread that panicked.
    pub fn join(self) -> thread::Result<()> {
        for worker in self.workers {
            worker.join()?;
        }
        self.housekeeping.map_or(Ok(()), Housekeeping::join)
    }
}

async fn all_ended(ended: &mut mpsc::Receiver<()>) {
    while ended.recv().await.is_some() {}
}

/// Wishes of operators that wait. A process that is told twice to drain was told.
const MAX_WISHES: usize = 4;
