//! The external decision: asks the operator's service about a client that is about to be
//! admitted.
//!
//! Joins `auth::decision`, which knows the words, with the way they travel. Closed by
//! default, and there is no other way: whoever cannot be asked about is not admitted.

mod outage;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::auth::decision::cache::Cache;
use crate::auth::decision::{Asked, Decision, Question, Undecided};
use crate::auth::secret::Bearer;
use crate::config::problem::Problem;
use crate::config::{Authorize, Line};
use crate::outbound::{Method, Request};
use crate::proto::handshake::{Field, Fields};
use crate::proxy::authorize::outage::{Notice, Outage};
use crate::proxy::web_client::{NotAnswered, WebClient};
use crate::telemetry::chain;

/// Asks the service of one route. Loaded once, shared by all workers.
pub struct Authorizer {
    settings: Authorize,
    client: WebClient,
    /// With the edge's credentials in it, where there are any.
    fields: Vec<Field>,
    cache: Option<Cache>,
    in_flight: Semaphore,
    outage: Outage,
}

/// Why a client does not come in. For the log.
#[derive(Debug, thiserror::Error)]
pub enum NotAuthorized {
    /// The service said no.
    #[error("the service refused the client with status {0}")]
    Refused(u16),
    /// Its answer is no decision.
    #[error(transparent)]
    Undecided(#[from] Undecided),
    /// There is no answer.
    #[error("the service gave no answer")]
    NotAnswered(#[source] NotAnswered),
    /// So many other questions were under way that this one was not sent in time.
    #[error(
        "the service has more questions open than are sent at once, and was not asked within {0:?}"
    )]
    Busy(Duration),
}

impl Authorizer {
    /// Reads what a route's `authorize` names. Returns the warnings along with the result.
    ///
    /// # Errors
    /// Everything that keeps the service from being asked, and the warnings.
    pub fn load(
        settings: &Authorize,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let client = load_client(settings);
        let token = settings.token.as_ref().map(|(source, line)| {
            let key = format!("{}.token", settings.place);
            Bearer::load(&key, *line, source, env)
        });
        match (client, token.transpose()) {
            (Ok(client), Ok(token)) => {
                let (token, warnings) = token.unzip();
                let authorizer = Self::new(settings, client, token.as_ref());
                Ok((authorizer, warnings.unwrap_or_default()))
            }
            (client, token) => Err(client.err().into_iter().chain(token.err()).collect()),
        }
    }

    fn new(settings: &Authorize, client: WebClient, token: Option<&Bearer>) -> Self {
        Self {
            settings: settings.clone(),
            client,
            fields: token.into_iter().map(credentials).collect(),
            cache: settings.cache.map(Cache::new),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            outage: Outage::default(),
        }
    }

    /// Whether it was loaded from settings like these, wherever they stood in the file. What
    /// the files hold that they name is the caller's affair.
    pub fn is_of(&self, settings: &Authorize) -> bool {
        let placeless = |settings: &Authorize| Authorize {
            line: Line(0),
            ca: settings.ca.clone().map(|(path, _)| (path, Line(0))),
            token: settings.token.clone().map(|(token, _)| (token, Line(0))),
            ..settings.clone()
        };
        placeless(&self.settings) == placeless(settings)
    }

    /// The fields of a request head that the service is to see.
    pub fn shown(&self, fields: Fields<'_>) -> Vec<Field> {
        let is_shown = |name: &str| {
            let mut names = self.settings.request_headers.iter();
            names.any(|shown| shown.eq_ignore_ascii_case(name))
        };
        let shown = fields.iter().filter(|(name, _)| is_shown(name));
        shown
            .map(|(name, value)| Field {
                name: (*name).to_owned(),
                value: value.to_vec(),
            })
            .collect()
    }

    /// Lower-case names of what the upstream is told by the service, and so by no client.
    pub fn added(&self) -> &[String] {
        &self.settings.response_headers
    }

    /// Asks, unless an equal question was answered lately. Gives what the upstream is to be
    /// told besides.
    ///
    /// Takes at most the route's timeout, waiting for its turn included. The future is small,
    /// and dropping it closes the connection to the service.
    ///
    /// # Errors
    /// Whatever is not plainly a yes.
    pub async fn decide(&self, asked: &Asked<'_>) -> Result<Vec<Field>, NotAuthorized> {
        let question = Question::new(asked)?;
        let kept = self
            .cache
            .as_ref()
            .and_then(|cache| cache.get(&question.fingerprint, Instant::now().into_std()));
        let decision = match kept {
            Some(decision) => decision,
            None => {
                let asked = Box::pin(self.ask(question)).await;
                self.tell(&asked);
                asked?
            }
        };
        match decision {
            Decision::Admit(fields) => Ok(fields),
            Decision::Refuse(status) => Err(NotAuthorized::Refused(status)),
        }
    }

    async fn ask(&self, question: Question) -> Result<Decision, NotAuthorized> {
        let within = self.settings.timeout;
        let deadline = Instant::now() + within;
        let turn = timeout_at(deadline, self.in_flight.acquire()).await;
        // The semaphore is never closed; an error would mean the same as no turn.
        let Ok(Ok(_turn)) = turn else {
            return Err(NotAuthorized::Busy(within));
        };
        let request = Request {
            url: &self.settings.url,
            method: Method::Post {
                content_type: "application/json",
                body: Bytes::from(question.body),
            },
            accept: "*/*",
            fields: &self.fields,
            max_body: MAX_BODY,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = self.client.ask(request, left).await;
        let answer = answer.map_err(NotAuthorized::NotAnswered)?;
        let added = &self.settings.response_headers;
        let decision = Decision::read(answer.status, &answer.fields, added)?;
        if let Some(cache) = &self.cache {
            let now = Instant::now().into_std();
            cache.put(question.fingerprint, decision.clone(), now);
        }
        Ok(decision)
    }
}

impl Authorizer {
    /// The operator can do something about a service that fails, and each client that is
    /// refused for it may be in the log at `debug` only.
    fn tell(&self, asked: &Result<Decision, NotAuthorized>) {
        let now = Instant::now().into_std();
        let notice = match asked {
            Ok(_) => self.outage.handle_decided(now),
            Err(_) => self.outage.handle_failed(now),
        };
        let (place, url) = (&self.settings.place, &self.settings.url);
        match (notice, asked) {
            (Notice::Failing, Err(error)) => {
                let reason = chain(error);
                tracing::warn!(%place, %url, reason, "no decision: clients are refused");
            }
            (Notice::Recovered(after), _) => {
                tracing::info!(%place, %url, ?after, "decisions again");
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn load_client(settings: &Authorize) -> Result<WebClient, Problem> {
    let ca = settings.ca.as_ref();
    let file = ca.map(|(file, _)| file.as_path());
    WebClient::to(&settings.url, file).map_err(|error| match ca {
        Some((file, line)) => {
            let found = format!("{}: {error}", file.display());
            let allowed = "a PEM file with the roots that vouch for the service";
            Problem::error(*line, format!("{}.ca", settings.place), found, allowed)
        }
        None => {
            let key = format!("{}.url", settings.place);
            let allowed = "the system's roots (ca-certificates), or `ca` with a PEM file";
            Problem::error(settings.line, key, error.to_string(), allowed)
        }
    })
}

fn credentials(token: &Bearer) -> Field {
    Field {
        name: "authorization".to_owned(),
        value: token.credentials().as_bytes().to_vec(),
    }
}

/// Questions of one route that are under way at once, whatever the number of clients: so many
/// sockets and no more, and at five milliseconds each more than ten thousand in a second.
const MAX_IN_FLIGHT: usize = 64;

/// Bytes of an answer's body, which is read to its end and not looked at.
const MAX_BODY: usize = 64 * 1024;

#[cfg(test)]
mod tests;
