//! `[[route]]`: which requests a route takes, from whom, and where to.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::answer::{Placed, Reported};
use crate::config::auth::fits::{self, Beside};
use crate::config::file::Section;
use crate::config::rule::Tokens;
use crate::config::value::{checked, duration, flag, text};
use crate::config::{
    Auth, HostPattern, Line, PathPattern, Route, RouteAdmission, admission, auth, headers, hold,
    keepalive, names, policy, rule,
};
use crate::proto::limits::Limits;
use crate::proto::origin::OriginPattern;
use crate::proto::policy::Policy;

/// Default of `close_timeout`: the peer's answer to a Close is one round trip; five seconds
/// forgive lost packets, and a dead connection holds its memory no longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Below a tenth of a second a distant peer fails; above a minute a drain is never done.
const CLOSE_TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// What `host` must look like.
const HOST: &str = "\"chat.example.com\" or \"*.example.com\"; leave the key out for any host";

/// What `path` must look like.
const PATH: &str = "\"/chat\" for exactly this path, \"/chat/*\" for everything below it";

/// What `origins` must look like.
const ORIGINS: &str =
    "the origins of your pages: origins = [\"https://app.example.com\", \"https://*.example.com\"]";

/// What `subprotocols` must look like.
const SUBPROTOCOL: &str = "a token of letters, digits and !#$%&'*+-.^_`|~: \"chat.v1\"";

type Place = (Option<HostPattern>, PathPattern);

/// Reads every `[[route]]`. `upstreams` are the names that exist, by index.
pub(super) fn routes(
    root: &mut Section<'_>,
    upstreams: Result<&[String], Reported>,
) -> Result<Vec<Arc<Route>>, Reported> {
    let sections = root.sections(
        "route",
        "at least one [[route]] with `name`, `path`, `origins` and `upstream`",
    )?;
    let mut taken = HashMap::new();
    let mut places = HashMap::new();
    let routes: Vec<_> = sections
        .into_iter()
        .map(|mut section| {
            let name = names::unique(&mut section, "route", &mut taken);
            route(section, name, upstreams, &mut places).map(Arc::new)
        })
        .collect();
    routes.into_iter().collect()
}

fn route(
    mut section: Section<'_>,
    name: Result<String, Reported>,
    upstreams: Result<&[String], Reported>,
    places: &mut HashMap<Place, Line>,
) -> Result<Route, Reported> {
    let line = section.start();
    let place = place(&mut section, places);
    let origins = origins(&mut section);
    let subprotocols = subprotocols(&mut section);
    let upstream = upstream(&mut section, upstreams);
    let mut auth = auth::auth(&mut section);
    let headers = headers::headers(&mut section, &auth);
    headers::report_filled_twice(&section, &auth, &headers);
    if let Ok(auth::Read {
        auth: Auth::Token(auth),
        ..
    }) = &auth
    {
        let beside = Beside {
            origins: origins.as_ref().ok().map(|(origins, _)| origins.as_slice()),
            subprotocols: subprotocols
                .as_ref()
                .ok()
                .map(|(listed, _)| listed.as_slice()),
            headers: headers.as_deref().ok(),
        };
        fits::check(&section, auth, &beside);
    }
    let close_timeout = section.or("close_timeout", duration(CLOSE_TIMES), CLOSE_TIMEOUT);
    let tokens = match &auth {
        Ok(auth::Read {
            auth: Auth::None, ..
        }) => Tokens::None,
        _ => Tokens::Asked,
    };
    let (admission, limits) = limits(&mut section, tokens);
    let backpressure = section
        .section_or_empty("backpressure")
        .and_then(policy::backpressure);
    let keepalive = section
        .section_or_empty("keepalive")
        .and_then(|section| keepalive::keepalive(section, &limits));
    let hold = hold::hold(&mut section);
    let refresh = auth.as_mut().ok().and_then(|auth| auth.refresh.take());
    let inspection = rule::inspection(&mut section, refresh, tokens, &limits);
    section.done();
    let (host, path) = place?;
    let (origins, allow_missing_origin) = origins?;
    let (subprotocols, subprotocols_required) = subprotocols?;
    let auth::Read {
        auth,
        first_message,
        on_expiry,
        authorize,
        identity,
        ..
    } = auth?;
    Ok(Route {
        name: name?,
        host,
        path,
        origins,
        allow_missing_origin,
        subprotocols,
        subprotocols_required,
        upstream: upstream?,
        auth,
        authorize,
        identity,
        headers: headers?,
        admission: admission?,
        policy: Arc::new(Policy {
            first_message,
            on_expiry,
            inspection: inspection?,
            limits: limits?,
            backpressure: backpressure?,
            keepalive: keepalive?,
            hold: hold?,
            close_timeout: close_timeout?.value,
        }),
        line,
    })
}

/// `[route.limits]`: who comes in, and what a session may do then.
fn limits(
    section: &mut Section<'_>,
    tokens: Tokens,
) -> (Result<RouteAdmission, Reported>, Result<Limits, Reported>) {
    match section.section_or_empty("limits") {
        Ok(mut section) => (
            admission::of_route(&mut section, tokens),
            policy::limits(section),
        ),
        Err(reported) => (Err(reported), Err(reported)),
    }
}

/// Host and path, which no other route may have both.
fn place(section: &mut Section<'_>, places: &mut HashMap<Place, Line>) -> Result<Place, Reported> {
    let host = section.optional("host", checked(names::host, HOST));
    let path = section.required("path", checked(names::path, PATH), PATH);
    let (host, path) = (host?.map(|host| host.value), path?);
    let place = (host, path.value);
    if let Some(first) = places.insert(place.clone(), section.start()) {
        let found = format!("the host and path of the route on line {}", first.0);
        section.error(
            "path",
            path.line,
            found,
            "each host and path once: which route should take it?",
        );
    }
    Ok(place)
}

/// The origins, and whether a request may have none.
fn origins(section: &mut Section<'_>) -> Result<(Vec<String>, bool), Reported> {
    let origins = section.list("origins", checked(check_origin, ORIGINS));
    let missing = section.or("allow_missing_origin", flag, false);
    let (origins, missing) = (origins?, missing?);
    let Some(origins) = origins else {
        if missing.value {
            return Ok((Vec::new(), true));
        }
        let allowed = format!("{ORIGINS}; or allow_missing_origin = true for native clients only");
        return Err(section.missing("origins", &allowed));
    };
    let any = origins.value.iter().find(|origin| origin.value == "*");
    match (origins.value.len(), any) {
        (0, _) => Err(section.error("origins", origins.line, "an empty list", ORIGINS)),
        (2.., Some(any)) => {
            let allowed = "\"*\" alone, or the origins without it";
            Err(section.error("origins", any.line, "\"*\" beside other origins", allowed))
        }
        (_, any) => {
            if let Some(any) = any {
                let found = "\"*\": any web page may open sessions with its visitors' credentials";
                section.warning("origins", any.line, found, ORIGINS);
            }
            let origins = origins.value.into_iter().map(|origin| origin.value);
            Ok((origins.collect(), missing.value))
        }
    }
}

/// An origin as `proto::origin` will compare it, `null`, or `*` for any.
fn check_origin(text: &str) -> Result<String, String> {
    match OriginPattern::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The subprotocols, and whether a client must offer one of them.
fn subprotocols(section: &mut Section<'_>) -> Result<(Vec<String>, bool), Reported> {
    let listed = section.list("subprotocols", checked(names::subprotocol, SUBPROTOCOL));
    let required = section.or("subprotocols_required", flag, false);
    let (listed, required) = (listed?, required?);
    let listed = listed.map(|listed| listed.value).unwrap_or_default();
    let mut protocols: Vec<String> = Vec::new();
    for Placed { value, line, .. } in listed {
        if protocols.contains(&value) {
            section.error(
                "subprotocols",
                line,
                format!("\"{value}\" twice"),
                "each subprotocol once",
            );
        }
        protocols.push(value);
    }
    if required.value && protocols.is_empty() {
        let found = "subprotocols_required = true without subprotocols: nobody could connect";
        let allowed = "subprotocols = [\"…\"] beside it";
        return Err(section.error("subprotocols_required", required.line, found, allowed));
    }
    Ok((protocols, required.value))
}

/// The index of the upstream that the route names.
fn upstream(
    section: &mut Section<'_>,
    names: Result<&[String], Reported>,
) -> Result<usize, Reported> {
    let wanted = section.required("upstream", text, "the `name` of an [[upstream]]");
    let (wanted, names) = (wanted?, names?);
    let index = names.iter().position(|name| *name == wanted.value);
    index.ok_or_else(|| {
        let found = format!(
            "\"{}\", which is no upstream",
            wanted.value.escape_default()
        );
        let allowed = format!("the name of an [[upstream]]: {}", names.join(", "));
        section.error("upstream", wanted.line, found, allowed)
    })
}
