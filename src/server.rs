//! The running process: binds what a loaded configuration names, and serves on one
//! single-threaded worker per core until it is told to stop.
//!
//! - `origin.rs`, `prepared.rs`: from a file to what it names, loaded.
//! - `worker.rs`, `doors.rs`: one thread of connections, and where they come in. `gates.rs`: the
//!   sockets.
//! - `phase.rs`: what the process tells its workers about their end.
//! - `watchdog.rs`: whether the workers turn.
//! - `reload.rs`: another configuration. `files.rs`: the files that one names.
//! - `desk.rs`: what the admin address answers, from `standing.rs`. `key_refresh.rs`: keys that
//!   are fetched.

mod desk;
mod doors;
mod files;
mod gates;
mod key_refresh;
mod origin;
mod phase;
mod prepared;
mod reload;
mod standing;
mod watchdog;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::config::{Config, Drain};
use crate::housekeeping::{Chore, Housekeeping};
use crate::listener::{Permits, Sockets, Stock};
use crate::proxy::shedding::Buffered;
use crate::route::Places;
use crate::server::desk::Desk;
pub use crate::server::desk::ReadyCheck;
use crate::server::gates::Gates;
pub use crate::server::origin::{Env, Findings, Origin};
use crate::server::phase::{Departure, MAX_UNDER_WAY, Phase, RouteDrains};
pub use crate::server::phase::{Ending, Upgrade, Wish};
pub use crate::server::prepared::{Prepared, inspect};
use crate::server::reload::Reloader;
pub use crate::server::reload::{By, Outcome, Reloaded, Reloads};
use crate::server::standing::Standing;
use crate::server::watchdog::Watchdog;
use crate::server::worker::{WorkerStart, work};
use crate::supervisor;
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
    /// Memory for bytes on their way, of all sessions.
    pub buffered: Buffered,
    /// Takes another configuration.
    pub reloads: Reloads,
    phase: watch::Sender<Phase>,
    standing: Arc<Mutex<Standing>>,
    wishes: mpsc::Receiver<Wish>,
    upgrade: watch::Sender<Upgrade>,
    stock: Stock,
    workers: Vec<JoinHandle<()>>,
    housekeeping: Housekeeping,
    ended: mpsc::Receiver<()>,
}

impl Prepared {
    /// The addresses that are listened on, as configured.
    pub fn binds(&self) -> Vec<SocketAddr> {
        let config = &self.shared.config;
        let listeners = config.listeners.iter().map(|listener| listener.bind);
        listeners
            .chain(config.admin.as_ref().map(|admin| admin.bind))
            .collect()
    }

    /// The same as [`start_on`](Self::start_on) with sockets that are bound now.
    ///
    /// # Errors
    ///
    /// Those of `start_on`.
    pub fn start(self, observer: Option<Observer>) -> io::Result<Running> {
        self.start_on(Stock::default(), observer)
    }

    /// Binds every listener and the admin address, where `stock` has no sockets for them, and
    /// starts the workers and housekeeping.
    ///
    /// # Errors
    ///
    /// An address that cannot be bound, a file that cannot be written, or a thread that cannot
    /// be started.
    pub fn start_on(self, stock: Stock, observer: Option<Observer>) -> io::Result<Running> {
        let config = Arc::clone(&self.shared.config);
        let workers = config.server.workers.get();
        let gates = Gates::new(stock.clone(), config.admin.as_ref().map(|admin| admin.bind));
        let mut plan = gates.plan(&config.listeners, workers)?;
        let addresses = plan.addresses()?;
        let admin = bind_admin(&config, &stock)?;
        self.revocations.begin(SystemTime::now())?;
        let (permits, places) = (Permits::default(), Places::default());
        let buffered = Buffered::new(workers);
        let telemetry = Arc::new(Telemetry::new(observer));
        self.shared.grants.announce();
        let (phase, heard) = watch::channel(Phase::Serve);
        let (wish, wishes) = mpsc::channel(MAX_WISHES);
        let (upgrade, upgrades) = watch::channel(Upgrade::None);
        let mut route_drains = Vec::new();
        let mut watchdog = Watchdog::new(supervisor::watchdog());
        let (alive, ended) = mpsc::channel(1);
        let (mut threads, mut orders) = (Vec::new(), Vec::new());
        for worker in 0..workers {
            let (drains, asked) = mpsc::channel(MAX_UNDER_WAY);
            route_drains.push(drains);
            let (order, obeyed) = mpsc::unbounded_channel();
            orders.push(order);
            let start = WorkerStart {
                shared: self.shared.clone(),
                permits: permits.clone(),
                places: places.clone(),
                telemetry: Arc::clone(&telemetry),
                revocations: self.revocations.store(),
                changes: self.revocations.changes(),
                buffered: (buffered.clone(), worker),
                doors: plan.doors(&config.listeners, &self.acceptors),
                orders: obeyed,
                phase: heard.clone(),
                route_drains: asked,
                pulse: watchdog.as_mut().map(Watchdog::pulse),
                _ended: alive.clone(),
            };
            let name = format!("worker-{worker}");
            threads.push(thread::Builder::new().name(name).spawn(|| work(start))?);
        }
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let (reloads, asked) = Reloads::channel();
        let standing = Arc::new(Mutex::new(Standing::of(&self)));
        let reloader = Reloader {
            gates: plan.into_gates(),
            workers: orders,
            standing: Arc::clone(&standing),
            phase: heard,
            asked,
            current: self,
        };
        let ways = Ways {
            reloads: reloads.clone(),
            wish,
            upgrades,
            route_drains: RouteDrains::new(route_drains),
        };
        let mut chores = chores(reloader, admin, ways);
        chores.extend(watchdog.map(|dog| Chore::new("watchdog", || dog.watch())));
        Ok(Running {
            addresses,
            admin: admin_address,
            telemetry,
            buffered,
            reloads,
            phase,
            standing,
            wishes,
            upgrade,
            stock,
            workers: threads,
            housekeeping: Housekeeping::start(chores)?,
            ended,
        })
    }
}

/// What operators set in motion at the admin address.
struct Ways {
    reloads: Reloads,
    wish: mpsc::Sender<Wish>,
    upgrades: watch::Receiver<Upgrade>,
    route_drains: RouteDrains,
}

/// What goes on beside the connections.
fn chores(reloader: Reloader, admin: Option<TcpListener>, ways: Ways) -> Vec<Chore> {
    let mut chores = Vec::new();
    let Prepared {
        revocations,
        shared,
        ..
    } = &reloader.current;
    if admin.is_some() || shared.config.revocation.file.is_some() {
        let keeper = Arc::clone(revocations);
        chores.push(Chore::new("revocations", || keeper.watch()));
    }
    chores.extend(admin.map(|listener| {
        let standing = Arc::clone(&reloader.standing);
        let (phase, revocations) = (reloader.phase.clone(), Arc::clone(revocations));
        Chore::new("admin", move || async move {
            let replaced = phase::handed_over(phase.clone());
            let desk = Rc::new(Desk {
                phase,
                wish: ways.wish,
                upgrade: ways.upgrades,
                route_drains: ways.route_drains,
                standing,
                revocations,
                reloads: ways.reloads,
            });
            let guard = Rc::clone(&desk);
            let serving = admin::serve(
                listener,
                move || guard.guard(),
                async move |asked| desk.answer(asked).await,
            );
            tokio::select! {
                () = serving => {}
                // From then on the other process answers.
                () = replaced => {}
            }
        })
    }));
    chores.push(Chore::new("reload", || reloader.run()));
    chores
}

fn bind_admin(config: &Config, stock: &Stock) -> io::Result<Option<TcpListener>> {
    let Some(admin) = &config.admin else {
        return Ok(None);
    };
    let listener = stock.bind(admin.bind, 1)?.pop();
    let listener = listener.and_then(Sockets::into_one);
    Ok(Some(listener.ok_or(io::ErrorKind::AddrNotAvailable)?))
}

impl Running {
    /// Says at the admin address that clients should be sent elsewhere. They are still taken in.
    pub fn announce(&self) {
        self.tell(Phase::LameDuck);
    }

    /// Stops accepting, and asks every session to end over the configured spread. `grace` from
    /// now those left are cut off.
    pub fn drain(&self, ending: Ending, grace: Duration) {
        self.stock.let_go();
        self.tell(Phase::Drain(Departure {
            ending,
            spread: self.drain_times().spread.min(grace),
            deadline: Instant::now() + grace,
        }));
    }

    /// The listening sockets, for the process that takes this one's place.
    pub const fn stock(&self) -> &Stock {
        &self.stock
    }

    /// How the attempt to be replaced stands, for whoever asks at the admin address.
    pub fn set_upgrade(&self, upgrade: Upgrade) {
        self.upgrade.send_replace(upgrade);
    }

    /// The times of a drain, as the configuration in force has them.
    pub fn drain_times(&self) -> Drain {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.drain.clone()
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
        self.housekeeping.join()
    }
}

async fn all_ended(ended: &mut mpsc::Receiver<()>) {
    while ended.recv().await.is_some() {}
}

/// Wishes of operators that wait. A process that is told twice to drain was told.
const MAX_WISHES: usize = 4;
