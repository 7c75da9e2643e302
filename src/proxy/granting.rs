//! The second half of step 11: what a good token is still subject to, and what the upstream
//! is told because of it. The same whether the request head or the first message decides.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::auth::Admission;
use crate::auth::decision::{Asked, Undecided};
use crate::auth::identity::{NotSigned, Signer, Subject};
use crate::config::identity::Identity;
use crate::config::problem::{Named, Problem};
use crate::config::{Authorize, Config, KeySource, Route};
use crate::proto::handshake::reject::Reject;
use crate::proto::handshake::{Field, Fields};
use crate::proto::session::TokenVerdict;
use crate::proxy::authorize::{Authorizer, NotAuthorized};
use crate::upstream::DialRequest;

/// What is kept of a request head until its client is admitted.
pub(super) struct Pending {
    /// For the upstream.
    pub(super) dial: DialRequest,
    /// For the service that decides.
    pub(super) shown: Vec<Field>,
    /// Where the upstream may be dialled again: whom the identity is signed for.
    pub(super) admission: Option<Box<Admission>>,
    /// The authority of the endpoint that the session is connected to.
    pub(super) endpoint: Option<String>,
}

/// Asks and signs for all routes. Loaded once, shared by all workers.
pub struct Grants {
    /// By the route's index.
    authorizers: Vec<Option<Arc<Authorizer>>>,
    /// There when a route wants identities signed, or a key is configured.
    signer: Option<Arc<Signer>>,
    identity: Identity,
}

/// What is taken over where the next configuration says the same: decisions that are kept, and
/// the key that signs.
pub struct Before<'a> {
    /// Of the configuration before.
    pub grants: &'a Grants,
    /// Whether files hold what they held then.
    pub are_same: &'a dyn Fn(&[PathBuf]) -> bool,
}

/// Why a client whose token is good does not come in. For the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotGranted {
    #[error("not authorized")]
    Authorize(#[from] NotAuthorized),
    #[error("no identity for the upstream")]
    Identity(#[from] NotSigned),
}

impl Grants {
    /// Reads what the routes' `authorize` and `identity` name. Returns the warnings along
    /// with the result.
    ///
    /// # Errors
    /// Everything that keeps one of them from working, and the warnings.
    pub fn load(
        config: &Config,
        env: &dyn Fn(&str) -> Option<String>,
        before: Option<&Before<'_>>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut authorizers = Vec::new();
        for route in &config.routes {
            let settings = route.authorize.as_ref();
            authorizers.push(settings.and_then(|settings| {
                let known = before.and_then(|before| before.authorizer(settings));
                known.or_else(|| {
                    let loaded = Authorizer::load(settings, env);
                    keep(loaded, &mut problems).map(Arc::new)
                })
            }));
        }
        let identity = &config.identity;
        let is_signer_wanted = config.routes.iter().any(|route| route.identity.is_some());
        let signer = match is_signer_wanted || identity.key.is_some() {
            true => before
                .and_then(|before| before.signer(identity))
                .or_else(|| keep(Signer::load(identity, env), &mut problems).map(Arc::new)),
            false => None,
        };
        if problems.iter().any(Problem::is_error) {
            return Err(problems);
        }
        let grants = Self {
            authorizers,
            signer,
            identity: identity.clone(),
        };
        Ok((grants, problems))
    }

    /// The public key of what this edge signs, as a JWKS; `None`: it signs nothing.
    pub fn jwks(&self) -> Option<&str> {
        self.signer.as_ref().map(|signer| signer.jwks())
    }

    /// Tells the operator of a key that nobody can know beforehand.
    pub fn announce(&self) {
        if let Some(signer) = self.signer.as_ref().filter(|_| self.identity.key.is_none()) {
            tracing::info!(
                kid = signer.key_id(),
                "X-Tidegate-Identity is signed with a key made now, another at each start; \
                 `[identity] key` keeps one"
            );
        }
    }

    /// Lower-case names of the fields that the service of this route fills.
    pub(super) fn added(&self, index: usize) -> &[String] {
        self.authorizer(index).map_or(&[], Authorizer::added)
    }

    /// What the service of this route is to see of a request head.
    pub(super) fn shown(&self, index: usize, fields: Fields<'_>) -> Vec<Field> {
        self.authorizer(index)
            .map(|authorizer| authorizer.shown(fields))
            .unwrap_or_default()
    }

    /// Asks about the client, where the route says so, and completes what its upstream will
    /// be told: claims, what the service adds, the signed identity.
    ///
    /// # Errors
    /// Why it does not come in.
    pub(super) async fn grant(
        &self,
        config: &Config,
        index: usize,
        admission: &Admission,
        pending: &mut Pending,
    ) -> Result<(), NotGranted> {
        let Some(route) = config.routes.get(index) else {
            return Ok(());
        };
        let Pending { dial, shown, .. } = pending;
        let mapped = admission.headers.iter().map(|(name, value)| Field {
            name: name.clone(),
            value: value.clone().into_bytes(),
        });
        dial.mapped = mapped.collect();
        if let Some(authorizer) = self.authorizer(index) {
            let asked = Asked {
                route: &route.name,
                request_id: &dial.request_id,
                client_ip: dial.client_ip,
                host: &dial.host,
                path_and_query: &dial.path_and_query,
                origin: dial.origin.as_deref(),
                admission,
                headers: shown,
            };
            let added = authorizer.decide(&asked).await?;
            dial.mapped.extend(added);
        }
        let identity = self.identity(config, route, admission, &dial.request_id)?;
        dial.mapped.extend(identity);
        if route.policy.hold.is_some() && route.identity.is_some() {
            pending.admission = Some(Box::new(admission.clone()));
        }
        Ok(())
    }

    /// Gives what the upstream was told a new identity in place of the one it had.
    ///
    /// # Errors
    /// It cannot be signed.
    pub(super) fn sign_again(
        &self,
        config: &Config,
        index: usize,
        pending: &mut Pending,
    ) -> Result<(), NotSigned> {
        let Pending {
            dial, admission, ..
        } = pending;
        if let (Some(route), Some(admission)) = (config.routes.get(index), admission) {
            let identity = self.identity(config, route, admission, &dial.request_id)?;
            dial.mapped.retain(|field| field.name != IDENTITY);
            dial.mapped.extend(identity);
        }
        Ok(())
    }

    fn identity(
        &self,
        config: &Config,
        route: &Route,
        admission: &Admission,
        request_id: &str,
    ) -> Result<Option<Field>, NotSigned> {
        let (Some(settings), Some(signer)) = (&route.identity, &self.signer) else {
            return Ok(None);
        };
        let upstream = config.upstreams.get(route.upstream);
        let upstream = upstream.map(|upstream| upstream.name.as_str());
        let subject = Subject {
            admission,
            route: &route.name,
            audience: settings
                .audience
                .as_deref()
                .or(upstream)
                .unwrap_or_default(),
            request_id,
        };
        let token = signer.sign(settings, subject, std::time::SystemTime::now())?;
        Ok(Some(Field {
            name: IDENTITY.to_owned(),
            value: token.into_bytes(),
        }))
    }

    fn authorizer(&self, index: usize) -> Option<&Authorizer> {
        self.authorizers.get(index)?.as_deref()
    }
}

impl Before<'_> {
    fn authorizer(&self, settings: &Authorize) -> Option<Arc<Authorizer>> {
        let mut known = self.grants.authorizers.iter().flatten();
        let same = known.find(|known| known.is_of(settings))?;
        (self.are_same)(&settings.files()).then(|| Arc::clone(same))
    }

    /// The key is the same where it is named alike, or where none was named and one was made.
    fn signer(&self, identity: &Identity) -> Option<Arc<Signer>> {
        let (signer, before) = (self.grants.signer.as_ref()?, &self.grants.identity);
        let key = |identity: &Identity| identity.key.as_ref().map(|(source, _)| source.clone());
        let source = key(identity);
        let files: Vec<PathBuf> = source.iter().filter_map(KeySource::file).collect();
        if key(before) != source || !(self.are_same)(&files) {
            return None;
        }
        match before.issuer == identity.issuer {
            true => Some(Arc::clone(signer)),
            false => signer.with_issuer(identity.issuer.clone()).map(Arc::new),
        }
    }
}

/// The problems with what a refused configuration names.
pub fn inspect(named: &Named, env: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for settings in &named.authorize {
        keep(Authorizer::load(settings, env), &mut problems);
    }
    for identity in &named.identity {
        keep(Signer::load(identity, env), &mut problems);
    }
    problems
}

fn keep<T>(
    loaded: Result<(T, Vec<Problem>), Vec<Problem>>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let (value, found) = match loaded {
        Ok((value, warnings)) => (Some(value), warnings),
        Err(errors) => (None, errors),
    };
    problems.extend(found);
    value
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants")
            .field("authorizers", &self.authorizers)
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

impl NotGranted {
    /// What it means for a client that was answered already.
    pub(super) fn verdict(&self) -> TokenVerdict {
        match self {
            Self::Authorize(NotAuthorized::Refused(_)) => TokenVerdict::Forbidden,
            // What the client itself brought is at fault.
            Self::Authorize(NotAuthorized::Undecided(Undecided::NotText(_))) => {
                TokenVerdict::Forbidden
            }
            Self::Identity(NotSigned::TooLong) => TokenVerdict::Refused,
            Self::Authorize(_) | Self::Identity(_) => TokenVerdict::Unavailable,
        }
    }

    /// The same for one that still waits for its answer in HTTP.
    pub(super) fn reject(&self) -> Reject {
        match self.verdict() {
            TokenVerdict::Refused => Reject::Token,
            TokenVerdict::Forbidden => Reject::Forbidden,
            _ => Reject::Undecided,
        }
    }
}

/// Never the client's: see `proto::handshake::forward`.
const IDENTITY: &str = "x-tidegate-identity";
