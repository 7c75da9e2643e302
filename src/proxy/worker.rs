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
use crate::config::{Config, Route};
use crate::drain::Registry;
use crate::listener::Permits;
use crate::proxy::Bearer;
use crate::proxy::granting::Grants;
use crate::relay::Handle;
use crate::revocation::Store;
use crate::route::{Places, Routes};
use crate::telemetry::Telemetry;
use crate::upstream::Upstream;

/// What outlives every configuration.
#[derive(Debug)]
pub struct Worker {
    /// The connections of the process, shared with the other workers.
    pub permits: Permits,
    /// The sessions of routes that have a cap, shared with the other workers.
    pub places: Places,
    /// Counters and records, shared with the other workers.
    pub telemetry: Arc<Telemetry>,
    /// The connections that are here.
    pub registry: Registry<Handle>,
    /// Those of them whose session has a token.
    pub bearers: Registry<Bearer>,
    /// The tokens that count no longer, shared with the other workers.
    pub revocations: Arc<Store>,
    /// What the next connection takes.
    pub snapshot: RefCell<Rc<Snapshot>>,
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
}

/// One configuration as a worker serves it. Never changed: another one takes its place.
#[derive(Debug)]
pub struct Snapshot {
    /// What all workers have of it.
    pub shared: Shared,
    /// By the upstream's index, and this worker's own.
    pub upstreams: Vec<Upstream>,
}

impl Worker {
    /// What is in force.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }
}

impl Snapshot {
    /// With upstreams that no connection has been to.
    pub fn new(shared: Shared) -> Self {
        let upstreams = shared.config.upstreams.iter();
        Self {
            upstreams: upstreams
                .map(|upstream| Upstream::new(Arc::clone(upstream)))
                .collect(),
            shared,
        }
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

    pub(super) fn authenticator(&self, route: usize) -> Option<&Authenticator> {
        self.shared.authenticators.get(route)
    }

    pub(super) fn upstream_of(&self, route: usize) -> Option<&Upstream> {
        let route = self.route(route)?;
        self.upstreams.get(route.upstream)
    }
}
