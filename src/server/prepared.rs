//! Loads what a configuration names: certificates, keys, secrets and files.

use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::Token;
use crate::auth::Authenticator;
use crate::auth::jwt::Verifier;
use crate::auth::key_sets::KeySets;
use crate::config::problem::{Named, Problem};
use crate::config::{Auth, Config};
use crate::housekeeping::Chore;
use crate::proxy::Shared;
use crate::proxy::granting::{self, Grants};
use crate::revocation::{Keeper, Tokens};
use crate::route::Routes;
use crate::server::desk::ReadyCheck;
use crate::server::key_refresh::{self, Refresher};
use crate::tls::Acceptor;

/// A configuration whose files and secrets are loaded: it would start.
#[derive(Debug)]
pub struct Prepared {
    pub(super) shared: Shared,
    pub(super) acceptors: Vec<Option<Acceptor>>,
    pub(super) admin_token: Option<Arc<Token>>,
    pub(super) revocations: Arc<Keeper>,
    pub(super) ready: Vec<ReadyCheck>,
    fetched: Vec<String>,
    pub(super) chores: Vec<Chore>,
    /// The public keys of the tokens that the edge signs, as JSON.
    pub(super) keys: Option<Arc<str>>,
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
                    acceptors,
                    admin_token,
                    revocations: Arc::new(revocations),
                    ready: refreshers.iter().map(Refresher::ready_check).collect(),
                    fetched: refreshers.iter().filter_map(Refresher::url).collect(),
                    chores: refreshers.into_iter().map(Refresher::chore).collect(),
                    keys: grants.jwks().map(Arc::from),
                    shared: Shared {
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

    /// Where keys will be fetched from at start: what nobody has looked at yet.
    pub fn fetched(&self) -> &[String] {
        &self.fetched
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
