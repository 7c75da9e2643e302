//! The running process: loads what the configuration names, binds, and serves on one
//! single-threaded worker per core until it is told to stop.

mod desk;
mod key_refresh;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::admin::{self, Guard, Token};
use crate::auth::Authenticator;
use crate::auth::jwt::Verifier;
use crate::auth::key_sets::KeySets;
use crate::config::problem::{Named, Problem};
use crate::config::{Auth, Config, Drain};
use crate::drain::Registry;
use crate::housekeeping::{Chore, Housekeeping};
use crate::listener::{self, Listener, Permits};
use crate::proxy::granting::{self, Grants};
use crate::proxy::{self, Entrance, Worker};
use crate::relay::Stop;
use crate::revocation::{Keeper, Store, Tokens};
use crate::route::Routes;
use crate::server::desk::Desk;
pub use crate::server::desk::ReadyCheck;
use crate::server::key_refresh::Refresher;
use crate::telemetry::{Observer, Telemetry};
use crate::tls::Acceptor;
use crate::upstream::Upstream;

/// A configuration whose files and secrets are loaded: it would start.
#[derive(Debug)]
pub struct Prepared {
    config: Arc<Config>,
    acceptors: Vec<Option<Acceptor>>,
    authenticators: Arc<[Authenticator]>,
    grants: Arc<Grants>,
    routes: Arc<Routes>,
    admin_token: Option<Arc<Token>>,
    revocations: Arc<Keeper>,
    ready: Vec<ReadyCheck>,
    fetched: Vec<String>,
    chores: Vec<Chore>,
    /// The public keys of the tokens that the edge signs, as JSON.
    keys: Option<Arc<str>>,
}

/// A process that serves.
#[derive(Debug)]
pub struct Running {
    /// What is listened on, in the order of the configuration, with real ports.
    pub addresses: Vec<SocketAddr>,
    /// The admin address, with its real port.
    pub admin: Option<SocketAddr>,
    /// Counters and records.
    pub telemetry: Arc<Telemetry>,
    stop: watch::Sender<Phase>,
    workers: Vec<JoinHandle<()>>,
    housekeeping: Option<Housekeeping>,
    ended: mpsc::Receiver<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serve,
    Drain,
}

/// One worker's socket of one listener, and how connections come in there.
struct Door {
    socket: TcpListener,
    notsent_lowat: u32,
    entrance: Entrance,
}

/// Everything one worker thread starts with.
struct WorkerStart {
    config: Arc<Config>,
    authenticators: Arc<[Authenticator]>,
    grants: Arc<Grants>,
    routes: Arc<Routes>,
    permits: Permits,
    telemetry: Arc<Telemetry>,
    revocations: Arc<Store>,
    changes: watch::Receiver<u64>,
    doors: Vec<Door>,
    phase: watch::Receiver<Phase>,
    /// Dropped at the end: so the end is known.
    _ended: mpsc::Sender<()>,
}

impl Prepared {
    /// Loads certificates, keys and secrets; `env` looks an environment variable up. The
    /// second part is the warnings.
    ///
    /// # Errors
    ///
    /// Every problem found, warnings included.
    pub fn load(
        config: Config,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut acceptors = Vec::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            let Some(tls) = &listener.tls else {
                acceptors.push(None);
                continue;
            };
            let loaded = Acceptor::load(tls, &format!("listener.#{}", index + 1));
            acceptors.push(keep(loaded, &mut problems));
        }
        let (mut authenticators, mut key_sets) = (Vec::new(), KeySets::default());
        for route in &config.routes {
            let loaded = Authenticator::load(route, env, &mut key_sets);
            authenticators.extend(keep(loaded, &mut problems));
        }
        let refreshers = key_refresh::prepare(&key_sets, &mut problems);
        let grants = keep(Grants::load(&config, env), &mut problems);
        let routes = Routes::new(&config.routes)
            .map_err(|error| {
                let key = format!("route.{}.origins", error.route);
                let found = error.origin.clone();
                problems.push(Problem::error(None, key, found, error.source.to_string()));
            })
            .ok();
        let token = config.admin.as_ref().and_then(|admin| admin.token.as_ref());
        let admin_token = token
            .and_then(|token| keep(Token::load(token, env), &mut problems))
            .map(Arc::new);
        let revocations = load_revocations(&config, &mut problems);
        match (routes.zip(grants), revocations) {
            (Some((routes, grants)), Some(revocations))
                if !problems.iter().any(Problem::is_error) =>
            {
                let prepared = Self {
                    config: Arc::new(config),
                    acceptors,
                    authenticators: authenticators.into(),
                    routes: Arc::new(routes),
                    admin_token,
                    revocations: Arc::new(revocations),
                    ready: refreshers.iter().map(Refresher::ready_check).collect(),
                    fetched: refreshers.iter().filter_map(Refresher::url).collect(),
                    chores: refreshers.into_iter().map(Refresher::chore).collect(),
                    keys: grants.jwks().map(Arc::from),
                    grants: Arc::new(grants),
                };
                Ok((prepared, problems))
            }
            _ => Err(problems),
        }
    }

    /// Where keys will be fetched from at start: what nobody has looked at yet.
    pub fn fetched(&self) -> &[String] {
        &self.fetched
    }

    /// Binds every listener and the admin address, and starts the workers and housekeeping.
    ///
    /// # Errors
    ///
    /// An address that cannot be bound, a file that cannot be written, or a thread that cannot
    /// be started.
    pub fn start(mut self, observer: Option<Observer>) -> io::Result<Running> {
        let workers = self.config.server.workers.get();
        let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
        for listener in &self.config.listeners {
            let bound = listener::bind(listener.bind, workers)?;
            addresses.extend(bound.first().map(TcpListener::local_addr).transpose()?);
            sockets.push(bound);
        }
        let admin = self.bind_admin()?;
        self.revocations.begin(SystemTime::now())?;
        let limits = &self.config.limits;
        let permits = Permits::new(limits.max_connections, limits.max_connections_per_ip);
        let telemetry = Arc::new(Telemetry::new(observer));
        self.grants.announce();
        let (stop, phase) = watch::channel(Phase::Serve);
        let (alive, ended) = mpsc::channel(1);
        let mut threads = Vec::new();
        for worker in 0..workers {
            let start = WorkerStart {
                config: Arc::clone(&self.config),
                authenticators: Arc::clone(&self.authenticators),
                grants: Arc::clone(&self.grants),
                routes: Arc::clone(&self.routes),
                permits: permits.clone(),
                telemetry: Arc::clone(&telemetry),
                revocations: self.revocations.store(),
                changes: self.revocations.changes(),
                doors: self.doors_of_one_worker(&mut sockets),
                phase: phase.clone(),
                _ended: alive.clone(),
            };
            let name = format!("worker-{worker}");
            threads.push(thread::Builder::new().name(name).spawn(|| work(start))?);
        }
        let admin_address = admin.as_ref().map(|(listener, _)| listener.local_addr());
        let admin_address = admin_address.transpose()?;
        if admin.is_some() || self.config.revocation.file.is_some() {
            let keeper = Arc::clone(&self.revocations);
            self.chores
                .push(Chore::new("revocations", || keeper.watch()));
        }
        self.chores.extend(admin.map(|(listener, guard)| {
            let desk = Desk {
                phase,
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
            stop,
            workers: threads,
            housekeeping,
            ended,
        })
    }

    fn bind_admin(&self) -> io::Result<Option<(TcpListener, Guard)>> {
        let Some(admin) = &self.config.admin else {
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
        let listeners = self.config.listeners.iter().zip(&self.acceptors);
        listeners
            .zip(sockets)
            .filter_map(|((listener, acceptor), sockets)| {
                let entrance = match (&listener.tls, acceptor) {
                    (Some(tls), Some(acceptor)) => Entrance::Tls {
                        acceptor: acceptor.clone(),
                        timeout: tls.handshake_timeout,
                    },
                    _ => Entrance::Plaintext,
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
    /// Stops accepting, and asks every session to end; see [`Drain`].
    pub fn drain(&self) {
        // Nobody left to hear it means that all workers have ended.
        let _ = self.stop.send(Phase::Drain);
    }

    /// Resolves when every worker has ended.
    pub async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
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

/// One worker thread.
fn work(start: WorkerStart) {
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
    let registry = Registry::<Stop>::default();
    let worker = Rc::new(Worker {
        upstreams: start
            .config
            .upstreams
            .iter()
            .map(|upstream| Upstream::new(Arc::clone(upstream)))
            .collect(),
        config: Arc::clone(&start.config),
        routes: start.routes,
        authenticators: start.authenticators,
        grants: start.grants,
        permits: start.permits,
        telemetry: start.telemetry,
        registry: registry.clone(),
        bearers: Registry::default(),
        revocations: start.revocations,
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
    end_sessions(&registry, &start.config.server.drain).await;
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
async fn end_sessions(registry: &Registry<Stop>, drain: &Drain) {
    let deadline = Instant::now() + drain.grace;
    let ended = async {
        registry.drain(drain.spread, Stop::request).await;
        registry.emptied().await;
    };
    if timeout_at(deadline, ended).await.is_err() {
        let left = registry.live();
        tracing::warn!(left, "grace period over: closing the connections left");
    }
}

/// The problems with the certificates and keys that a refused configuration names.
pub fn inspect(named: &Named, env: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (listener, tls) in &named.tls {
        keep(Acceptor::load(tls, listener), &mut problems);
    }
    let mut key_sets = KeySets::default();
    for jwt in &named.jwt {
        keep(Verifier::load(jwt, env, &mut key_sets), &mut problems);
    }
    key_refresh::prepare(&key_sets, &mut problems);
    problems.extend(granting::inspect(named, env));
    problems
}

fn load_revocations(config: &Config, problems: &mut Vec<Problem>) -> Option<Keeper> {
    let routes = config.routes.iter().map(|route| {
        let tokens = match route.auth {
            Auth::None => Tokens::None,
            Auth::Token(_) => Tokens::Asked,
        };
        (route.name.clone(), tokens)
    });
    let loaded = Keeper::load(&config.revocation, routes.collect(), SystemTime::now());
    keep(loaded, problems)
}

fn keep<T>(
    loaded: Result<(T, Vec<Problem>), Vec<Problem>>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    match loaded {
        Ok((value, warnings)) => {
            problems.extend(warnings);
            Some(value)
        }
        Err(errors) => {
            problems.extend(errors);
            None
        }
    }
}
