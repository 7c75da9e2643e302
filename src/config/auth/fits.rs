//! What of `[route.auth]` contradicts the rest of its route.

use crate::config::file::Section;
use crate::config::{ClaimHeader, TokenAuth, TokenPlace};

/// The parts of the route that are looked at, as far as they could be read.
pub(in crate::config) struct Beside<'a> {
    pub(in crate::config) origins: Option<&'a [String]>,
    pub(in crate::config) subprotocols: Option<&'a [String]>,
    pub(in crate::config) headers: Option<&'a [ClaimHeader]>,
}

/// The subprotocols of which clients of graphql-ws offer one.
const GRAPHQL: [&str; 2] = ["graphql-transport-ws", "graphql-ws"];

/// Reports every contradiction. `route` is the section of the route.
pub(in crate::config) fn check(route: &Section<'_>, auth: &TokenAuth, beside: &Beside<'_>) {
    for place in &auth.places {
        match place {
            TokenPlace::Header => check_forwarded(route, auth, beside, "authorization"),
            TokenPlace::Cookie(_) => {
                check_origins(route, beside);
                check_forwarded(route, auth, beside, "cookie");
            }
            TokenPlace::Subprotocol(prefix) => check_subprotocols(route, beside, prefix),
            TokenPlace::Query(_) => {}
            TokenPlace::FirstMessage(shape) if shape.message_type.is_some() => {
                check_graphql(route, beside);
            }
            TokenPlace::FirstMessage(_) => {}
        }
    }
}

/// A browser sends cookies along whichever page asks, so the origins are all that protects.
/// Any page can make itself a sandboxed one, whose origin is `null`.
fn check_origins(route: &Section<'_>, beside: &Beside<'_>) {
    let origins = beside.origins.unwrap_or_default();
    if let Some(any) = origins
        .iter()
        .find(|origin| ["*", "null"].contains(&origin.as_str()))
    {
        let found = format!(
            "\"{any}\" beside method = \"cookie\": any web page could open sessions as its visitors"
        );
        let allowed = "the origins of your own pages";
        route.error("origins", route.line_of("origins"), found, allowed);
    }
}

/// What a claim fills is not the client's any more.
fn check_forwarded(route: &Section<'_>, auth: &TokenAuth, beside: &Beside<'_>, header: &str) {
    let mapped = beside.headers.unwrap_or_default();
    if auth.forward_token && mapped.iter().any(|mapped| mapped.header == header) {
        let found = format!("`{header}` beside forward_token = true: it cannot be both");
        let allowed = "forward_token = false, or another header";
        route.error("headers", route.line_of("headers"), found, allowed);
    }
}

fn check_subprotocols(route: &Section<'_>, beside: &Beside<'_>, prefix: &str) {
    let Some(listed) = beside.subprotocols else {
        return;
    };
    let line = route.line_of("subprotocols");
    let begins = |listed: &&String| {
        listed
            .get(..prefix.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    };
    if let Some(taken) = listed.iter().find(begins) {
        let found = format!("\"{taken}\", which begins like a token with \"{prefix}\"");
        let allowed = "another subprotocol, or another `subprotocol_prefix`";
        route.error("subprotocols", line, found, allowed);
    }
    if listed.is_empty() && beside.origins.is_none_or(|origins| !origins.is_empty()) {
        let found = "no `subprotocols` beside method = \"subprotocol\": browsers give up when \
                     they offer some and the answer names none";
        let allowed = "subprotocols = [\"…\"], one of which clients offer beside the token";
        route.warning("subprotocols", route.line_of("auth"), found, allowed);
    }
}

fn check_graphql(route: &Section<'_>, beside: &Beside<'_>) {
    let Some(listed) = beside.subprotocols else {
        return;
    };
    if !listed
        .iter()
        .any(|listed| GRAPHQL.contains(&listed.as_str()))
    {
        let line = route.line_of("subprotocols").or(route.line_of("auth"));
        let found = "preset = \"graphql-ws\" without its subprotocol: its clients give up";
        let allowed = "subprotocols = [\"graphql-transport-ws\"]";
        route.error("subprotocols", line, found, allowed);
    }
}
