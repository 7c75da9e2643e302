//! What the connections of one worker share: what outlives a configuration, and what comes
//! with one.
//!
//! A connection takes the [`Snapshot`] that is in force when it is accepted and keeps it to its
//! end, so everything it meets is of one configuration. Indices of routes and upstreams mean
//! something in the snapshot they are from, and nowhere else.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::auth::Authenticator;
use crate::config::{Apply, Config, Route};
use crate::drain::Registry;
use crate::listener::Permits;
use crate::proxy::Bearer;
use crate::proxy::granting::Grants;
use crate::relay::{Gauge, Handle};
use crate::revocation::Store;
use crate::route::{Places, Routes};
use crate::telemetry::Telemetry;
use crate::upstream::{Pace, Upstream};

/// What outlives every configuration.
#[derive(Debug)]
pub struct Worker {
    /// The connections of the process, shared with the other workers.
    pub permits: Permits,
    /// The sessions of routes that have a cap, shared with the other workers.
    pub places: Places,
    /// Counters and records, shared with the other workers.
    pub telemetry: Arc<Telemetry>,
    /// The memory of its sessions.
    pub gauge: Rc<Gauge>,
    /// The connections that are here.
    pub registry: Registry<Handle>,
    /// Those of them whose session has a token.
    pub bearers: Registry<Bearer>,
    /// The tokens that count no longer, shared with the other workers.
    pub revocations: Arc<Store>,
    snapshot: RefCell<Rc<Snapshot>>,
}

/// A configuration and what was loaded for it, as all workers share it.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// Hosts, paths and origins.
    pub routes: Arc<Routes>,
    /// By the route's index.
    pub authenticators: Arc<[Authenticator]>,
    /// What a good token is still subject to, by the route's index.
    pub grants: Arc<Grants>,
    /// How fast held sessions come back, by the upstream's index.
    pub paces: Arc<[Pace]>,
}

/// One configuration as a worker serves it. Never changed: another one takes its place.
#[derive(Debug)]
pub struct Snapshot {
    /// What all workers have of it.
    pub shared: Shared,
    /// By the upstream's index, and this worker's own.
    pub upstreams: Vec<Rc<Upstream>>,
    /// For whom its limits hold.
    apply: Apply,
}

/// What another configuration means for a session that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it goes on as it was born.
    Stays,
    /// Other limits hold for it.
    Revised,
    /// Its route is gone, and so it is to go.
    Vanished,
}

/// The connections of a worker when it took another configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Sessions that were here.
    pub sessions: usize,
    /// Those of them whose limits changed.
    pub revised: usize,
    /// Those of them whose route is gone by this.
    pub vanished: usize,
}

impl Worker {
    /// A worker without connections.
    pub fn new(
        shared: Shared,
        permits: Permits,
        places: Places,
        telemetry: Arc<Telemetry>,
        revocations: Arc<Store>,
        gauge: Gauge,
    ) -> Self {
        let first = Snapshot {
            upstreams: upstreams(&shared, &[]),
            shared,
            apply: Apply::New,
        };
        Self {
            permits,
            places,
            telemetry,
            gauge: Rc::new(gauge),
            registry: Registry::default(),
            bearers: Registry::default(),
            revocations,
            snapshot: RefCell::new(Rc::new(first)),
        }
    }

    /// What is in force: what the next connection takes.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Puts another configuration in force. An upstream that is in both goes on as it is. Tells
    /// the sessions whose limits change so; those whose route is gone are for the caller.
    pub fn take(&self, shared: Shared, apply: Apply) -> Affected {
        let next = Rc::new(Snapshot {
            upstreams: upstreams(&shared, &self.snapshot.borrow().upstreams),
            shared,
            apply,
        });
        self.snapshot.replace(Rc::clone(&next));
        // Its budget of memory may be another.
        self.gauge.raise();
        let mut affected = Affected::default();
        for handle in self.registry.handles() {
            affected.sessions += usize::from(handle.route().is_some());
            match next.revise(&handle) {
                Fate::Stays => {}
                Fate::Revised => affected.revised += 1,
                // Those that another reload has sent away are not sent away again.
                Fate::Vanished => affected.vanished += usize::from(!handle.is_leaving()),
            }
        }
        affected
    }
}

/// Those of a configuration, with what there is of them already.
fn upstreams(shared: &Shared, before: &[Rc<Upstream>]) -> Vec<Rc<Upstream>> {
    let upstreams = shared.config.upstreams.iter().zip(shared.paces.iter());
    let upstreams = upstreams.map(|(upstream, pace)| {
        let known = before.iter().find(|known| known.is_of(upstream));
        let new = || Rc::new(Upstream::new(Arc::clone(upstream), pace.clone()));
        known.map_or_else(new, Rc::clone)
    });
    upstreams.collect()
}

impl Snapshot {
    /// What becomes of a connection that began under another snapshot. New limits are told.
    pub(super) fn revise(&self, handle: &Handle) -> Fate {
        let Some(born) = handle.route() else {
            return Fate::Stays;
        };
        let Some(route) = self.route_named(&born.name) else {
            return Fate::Vanished;
        };
        // Where the route was gone, and came back before the session's turn.
        handle.stay();
        match self.apply == Apply::Live && handle.revise(&route.policy) {
            true => Fate::Revised,
            false => Fate::Stays,
        }
    }

    /// Whether it has a route of this name.
    pub fn has_route(&self, name: &str) -> bool {
        self.route_named(name).is_some()
    }

    fn route_named(&self, name: &str) -> Option<&Arc<Route>> {
        self.route(self.shared.routes.index_of(name)?)
    }

    pub(super) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(super) fn grants(&self) -> &Grants {
        &self.shared.grants
    }

    pub(super) fn route(&self, index: usize) -> Option<&Arc<Route>> {
        self.shared.config.routes.get(index)
    }

    /// Whether the sessions of the route outlive their upstream.
    pub(super) fn outlives_upstream(&self, route: usize) -> bool {
        let route = self.route(route);
        route.is_some_and(|route| route.policy.hold.is_some())
    }

    pub(super) fn authenticator(&self, route: usize) -> Option<&Authenticator> {
        self.shared.authenticators.get(route)
    }

    /// Who judges a new token for a session of a route with this name; `None`: there is no
    /// such route, or it asks for none.
    pub(super) fn renewer(&self, route: &str) -> Option<&Authenticator> {
        let index = self.shared.routes.index_of(route)?;
        self.authenticator(index).filter(|known| known.asks())
    }

    pub(super) fn upstream_of(&self, route: usize) -> Option<&Upstream> {
        let route = self.route(route)?;
        self.upstreams.get(route.upstream).map(Rc::as_ref)
    }

    pub(super) fn upstream_named(&self, name: &str) -> Option<&Upstream> {
        let mut upstreams = self.upstreams.iter().map(Rc::as_ref);
        upstreams.find(|upstream| upstream.name() == name)
    }
}
