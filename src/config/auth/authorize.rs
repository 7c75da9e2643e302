//! `authorize` of `[route.auth]`: a service that has the last word on who is admitted.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::answer::{Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::names::folded;
use crate::config::url::{WEB_URL, WebUrl};
use crate::config::value::{checked, duration, or_off, path};
use crate::config::{KeySource, Line, names, secret};

/// Default of `timeout`: a service that is near answers in milliseconds, and a client that
/// waits for two seconds has not given up yet.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Below, no network is reached reliably; above, clients have given up.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(30);

/// A decision that is kept cannot be taken back in the meantime.
const CACHE_TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// Names of either list; each costs memory for every client that waits.
const MOST_NAMES: usize = 16;

/// What `authorize` must look like.
const AUTHORIZE: &str = "authorize = { url = \"https://policy.example.com/admit\" }";

/// What `token` must look like.
const TOKEN: &str = "token = { env = \"NAME\" } or token = { file = \"path\" }: secrets come from a file or the environment";

/// What `request_headers` must look like.
const SHOWN: &str = "the names of request headers: request_headers = [\"User-Agent\"]";

/// What `response_headers` must look like.
const ADDED: &str = "headers of your own: response_headers = [\"X-Tenant\"]";

/// `authorize`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorize {
    /// Where a question is sent.
    pub url: WebUrl,
    /// PEM file with the roots that vouch for it; `None`: the system's.
    pub ca: Option<(PathBuf, Line)>,
    /// For one question, connection and answer included.
    pub timeout: Duration,
    /// How long a decision is kept; `None`: every client is asked about.
    pub cache: Option<Duration>,
    /// What the edge shows the service, as `Authorization: Bearer`.
    pub token: Option<(KeySource, Line)>,
    /// Lower-case names of the client's fields that the service sees.
    pub request_headers: Vec<String>,
    /// Lower-case names of the fields of its answer that the upstream gets. None of them is
    /// the edge's own.
    pub response_headers: Vec<String>,
    /// Where it stands: `route.chat.auth.authorize`, and the line.
    pub place: String,
    /// See [`Self::place`].
    pub line: Line,
}

/// Reads `authorize`, when it is there.
pub(super) fn authorize(route_auth: &mut Section<'_>) -> Result<Option<Authorize>, Reported> {
    let Some(mut section) = route_auth.section("authorize")? else {
        return Ok(None);
    };
    let line = section.start();
    let url = section.required("url", checked(WebUrl::parse, WEB_URL), AUTHORIZE);
    let ca = section.optional("ca", path);
    let timeout = section.or("timeout", duration(TIMES), TIMEOUT);
    let cache = section.or("cache", or_off(duration(CACHE_TIMES)), None);
    let token = match section.has("token") {
        true => secret::source(&mut section, "token", TOKEN).map(Some),
        false => Ok(None),
    };
    let shown = list(&mut section, "request_headers", names::any_header, SHOWN);
    let added = list(&mut section, "response_headers", names::header, ADDED);
    let ca = ca.map(|ca| ca.map(|ca| (section.resolve(&ca.value), ca.at())));
    let place = section.place().to_owned();
    section.done();
    let authorize = Authorize {
        url: url?.value,
        ca: ca?,
        timeout: timeout?.value,
        cache: cache?.value,
        token: token?,
        request_headers: shown?,
        response_headers: added?,
        place,
        line,
    };
    route_auth.name_authorize(authorize.clone());
    Ok(Some(authorize))
}

/// Names of headers, each once whatever its case.
fn list(
    section: &mut Section<'_>,
    key: &'static str,
    check: fn(&str) -> Result<String, &'static str>,
    allowed: &'static str,
) -> Result<Vec<String>, Reported> {
    let check = |value: &Value<'_>| checked(check, allowed)(value);
    let Some(Placed { value, line, .. }) = section.list(key, check)? else {
        return Ok(Vec::new());
    };
    if value.len() > MOST_NAMES {
        let found = format!("{} names", value.len());
        return Err(section.error(key, line, found, format!("at most {MOST_NAMES}")));
    }
    let mut names: Vec<String> = Vec::new();
    for Placed {
        value: name, line, ..
    } in value
    {
        if names.iter().any(|seen| folded(seen) == folded(&name)) {
            let allowed = "each header once, whatever its case";
            section.error(key, line, format!("the header `{name}` twice"), allowed);
        }
        names.push(name);
    }
    Ok(names)
}
