//! Loads what a configuration names: certificates, keys, secrets and files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::admin::Token;
use crate::auth::Authenticator;
use crate::auth::jwt::Verifier;
use crate::auth::key_sets::{KeySets, Roots};
use crate::config::problem::{Named, Problem};
use crate::config::{Admin, Auth, Config, Line, Revocation, Tls, Upstream};
use crate::proxy::Shared;
use crate::proxy::granting::{self, Grants};
use crate::revocation::{Keeper, Tokens};
use crate::route::Routes;
use crate::server::files::Files;
use crate::server::key_refresh::{self, Refresher};
use crate::server::origin::Origin;
use crate::tls::Acceptor;
use crate::upstream::Pace;

/// A configuration whose files and secrets are loaded: it would start.
#[derive(Debug)]
pub struct Prepared {
    pub(super) shared: Shared,
    pub(super) acceptors: Vec<Option<Acceptor>>,
    pub(super) admin_token: Option<Arc<Token>>,
    pub(super) revocations: Arc<Keeper>,
    pub(super) key_sets: KeySets,
    /// For the sets of keys that nobody reads yet.
    pub(super) refreshers: Vec<Refresher>,
    pub(super) files: Files,
    /// What differs from the configuration before, and counts only after a restart.
    pub(super) held_back: Vec<&'static str>,
    /// `None`: it cannot be read again.
    pub(super) origin: Option<Origin>,
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
        Self::load_after(config, env, None)
    }

    /// The same for a process that serves another configuration: what is the same is taken
    /// over and not loaded, and so keeps its state; what cannot change is held back.
    pub(super) fn load_after(
        mut config: Config,
        env: &dyn Fn(&str) -> Option<String>,
        before: Option<&Self>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let held_back = before.map(|before| before.hold_back(&mut config));
        let held_back = held_back.unwrap_or_default();
        let files = Files::read(config.files());
        let before = before.map(|before| Before {
            prepared: before,
            files: &files,
        });
        let mut problems = Vec::new();
        let acceptors = load_acceptors(&config, before.as_ref(), &mut problems);
        let mut key_sets = before.as_ref().map(Before::key_sets).unwrap_or_default();
        let mut authenticators = Vec::new();
        for route in &config.routes {
            let loaded = Authenticator::load(route, env, &mut key_sets);
            authenticators.extend(keep(loaded, &mut problems));
        }
        let refreshers = key_refresh::prepare(&key_sets, &mut problems);
        key_sets.forget_before();
        let grants = load_grants(&config, env, before.as_ref(), &mut problems);
        let routes = Routes::new(&config.routes)
            .map_err(|error| {
                let key = format!("route.{}.origins", error.route);
                let found = error.origin.clone();
                problems.push(Problem::error(None, key, found, error.source.to_string()));
            })
            .ok();
        let token = config.admin.as_ref().and_then(|admin| admin.token.as_ref());
        let admin_token = match &before {
            Some(before) if held_back.contains(&"admin") => before.prepared.admin_token.clone(),
            _ => token
                .and_then(|token| keep(Token::load(token, env), &mut problems))
                .map(Arc::new),
        };
        let shared = before.as_ref().map(|before| &before.prepared.shared);
        let paces = paces(&config, shared);
        let revocations = match &before {
            Some(before) => Some(Arc::clone(&before.prepared.revocations)),
            None => load_revocations(&config, &mut problems),
        };
        match (routes.zip(grants), revocations) {
            (Some((routes, grants)), Some(revocations))
                if !problems.iter().any(Problem::is_error) =>
            {
                let prepared = Self {
                    acceptors,
                    admin_token,
                    revocations,
                    key_sets,
                    refreshers,
                    files,
                    held_back,
                    origin: None,
                    shared: Shared {
                        paces,
                        config: Arc::new(config),
                        routes: Arc::new(routes),
                        authenticators: authenticators.into(),
                        grants: Arc::new(grants),
                    },
                };
                Ok((prepared, problems))
            }
            _ => Err(problems),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Where keys will be fetched from at start: what nobody has looked at yet.
    pub fn fetched(&self) -> Vec<String> {
        self.refreshers.iter().filter_map(Refresher::url).collect()
    }

    /// Puts back what a running process cannot change, and names it.
    fn hold_back(&self, config: &mut Config) -> Vec<&'static str> {
        let now = &*self.shared.config;
        let mut held_back = Vec::new();
        if config.server.workers != now.server.workers {
            config.server.workers = now.server.workers;
            held_back.push("server.workers");
        }
        let bind = |admin: &Option<Admin>| admin.as_ref().map(|admin| admin.bind);
        if bind(&config.admin) != bind(&now.admin) {
            // With its token: what one address needs another may not.
            config.admin.clone_from(&now.admin);
            held_back.push("admin");
        }
        let placeless = |revocation: &Revocation| Revocation {
            line: Line(0),
            ..revocation.clone()
        };
        if placeless(&config.revocation) != placeless(&now.revocation) {
            config.revocation = now.revocation.clone();
            held_back.push("revocation");
        }
        held_back
    }
}

/// What another configuration may take over from the one before.
struct Before<'a> {
    prepared: &'a Prepared,
    /// The files of the next one.
    files: &'a Files,
}

impl Before<'_> {
    fn are_same(&self, paths: &[PathBuf]) -> bool {
        self.prepared.files.are_same(self.files, paths)
    }

    /// With its ticket keys: clients go on resuming.
    fn acceptor(&self, tls: &Tls) -> Option<Acceptor> {
        let placeless = |tls: &Tls| {
            let mut tls = tls.clone();
            for pair in &mut tls.certificates {
                pair.line = Line(0);
            }
            tls
        };
        let (wanted, before) = (placeless(tls), self.prepared);
        let mut known = before.shared.config.listeners.iter().zip(&before.acceptors);
        let is_same = |known: &Tls| placeless(known) == wanted;
        let (_, acceptor) =
            known.find(|(listener, _)| listener.tls.as_ref().is_some_and(is_same))?;
        acceptor.clone().filter(|_| self.are_same(&tls.files()))
    }

    fn key_sets(&self) -> KeySets {
        self.prepared.key_sets.successor(|jwks| {
            let ca: Vec<PathBuf> = jwks.ca().into_iter().cloned().collect();
            match self.are_same(&ca) {
                true => Roots::Same,
                false => Roots::Changed,
            }
        })
    }
}

fn load_acceptors(
    config: &Config,
    before: Option<&Before<'_>>,
    problems: &mut Vec<Problem>,
) -> Vec<Option<Acceptor>> {
    let mut acceptors = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        acceptors.push(listener.tls.as_ref().and_then(|tls| {
            let known = before.and_then(|before| before.acceptor(tls));
            known.or_else(|| {
                let loaded = Acceptor::load(tls, &format!("listener.#{}", index + 1));
                keep(loaded, problems)
            })
        }));
    }
    acceptors
}

fn load_grants(
    config: &Config,
    env: &dyn Fn(&str) -> Option<String>,
    before: Option<&Before<'_>>,
    problems: &mut Vec<Problem>,
) -> Option<Grants> {
    let Some(before) = before else {
        return keep(Grants::load(config, env, None), problems);
    };
    let before = granting::Before {
        grants: &before.prepared.shared.grants,
        are_same: &|paths| before.are_same(paths),
    };
    keep(Grants::load(config, env, Some(&before)), problems)
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

fn load_revocations(config: &Config, problems: &mut Vec<Problem>) -> Option<Arc<Keeper>> {
    let routes = revocable(config);
    let loaded = Keeper::load(&config.revocation, routes, SystemTime::now());
    keep(loaded, problems).map(Arc::new)
}

/// The routes as revocation knows them.
pub(super) fn revocable(config: &Config) -> Vec<(String, Tokens)> {
    let routes = config.routes.iter().map(|route| {
        let tokens = match route.auth {
            Auth::None => Tokens::None,
            Auth::Token(_) => Tokens::Asked,
        };
        (route.name.clone(), tokens)
    });
    routes.collect()
}

/// With a full burst each, but for those that go on.
fn paces(config: &Config, before: Option<&Shared>) -> Arc<[Pace]> {
    let now = Instant::now().into_std();
    let pace = |upstream: &Arc<Upstream>| {
        let mut known = before
            .iter()
            .flat_map(|before| before.config.upstreams.iter().zip(before.paces.iter()));
        let known =
            known.find(|(known, _)| (&known.name, known.dials) == (&upstream.name, upstream.dials));
        known.map_or_else(|| Pace::new(upstream.dials, now), |(_, pace)| pace.clone())
    };
    config.upstreams.iter().map(pace).collect()
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
