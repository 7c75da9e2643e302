//! The places in a request head where a token may travel, and whether it travels on.

use crate::config::TokenPlace;
use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::auth::method::Method;
use crate::config::file::{Section, Value};
use crate::config::names;
use crate::config::value::{checked, flag};

/// Default of `subprotocol_prefix`: it says what follows, and no registered subprotocol begins
/// with it.
const PREFIX: &str = "bearer.";

/// What `cookie` must look like. There is no default: the name is the application's.
const COOKIE: &str = "the name of the cookie that holds the token: cookie = \"session\"";

/// What `subprotocol_prefix` must look like.
const SUBPROTOCOL: &str = "the beginning of the subprotocol that holds the token: \"bearer.\"";

/// What `query` must look like.
const QUERY: &str = "the name of the parameter that holds the token: query = \"access_token\"";

/// What stands beside `query`.
const LEAK: &str = "i_know_query_tokens_leak = true, when it must be so: addresses are kept in \
     histories, logs and caches all the way; else \"header\", \"cookie\", \"subprotocol\" or \
     \"first-message\"";

/// Reads what goes with one method that looks into the request head.
pub(super) fn place(
    section: &mut Section<'_>,
    method: Method,
) -> Result<Option<TokenPlace>, Reported> {
    match method {
        Method::Header => Ok(Some(TokenPlace::Header)),
        Method::Cookie => {
            let name = section.required("cookie", checked(names::cookie, COOKIE), COOKIE)?;
            Ok(Some(TokenPlace::Cookie(name.value)))
        }
        Method::Subprotocol => {
            let read = checked(names::prefix, SUBPROTOCOL);
            let prefix = section.or("subprotocol_prefix", read, PREFIX.to_owned())?;
            Ok(Some(TokenPlace::Subprotocol(prefix.value)))
        }
        Method::Query => {
            let name = section.required("query", checked(names::parameter, QUERY), QUERY);
            section.required("i_know_query_tokens_leak", known, LEAK)?;
            Ok(Some(TokenPlace::Query(name?.value)))
        }
        Method::FirstMessage => Ok(None),
    }
}

/// Whether the upstream gets the header or cookie that decided. By default it does not: what
/// it has to know comes in `[route.headers]`, and a token that it holds can be replayed.
pub(super) fn forward_token(section: &mut Section<'_>) -> Result<bool, Reported> {
    section
        .or("forward_token", flag, false)
        .map(|Placed { value, .. }| value)
}

fn known(value: &Value<'_>) -> Result<(), Mismatch> {
    match value.flag() {
        Some(true) => Ok(()),
        _ => Err(Mismatch::of(value, LEAK)),
    }
}
