//! The token in a request head: finds it, and takes out what the upstream must not get.
//!
//! Owns where in a head a token may stand, and that both halves agree on it: what
//! `find_token` would take for a token, `strip` removes. Does not know what a good token
//! is.

mod cookie;
mod query;

use std::borrow::Cow;
use std::fmt;

use crate::auth::TokenRefused;
use crate::auth::jwt::MAX_TOKEN;
use crate::config::TokenPlace;
use crate::proto::handshake::{Field, Fields};

/// What of a request head may hold a token, already found to be an opening handshake.
#[derive(Clone, Copy)]
pub struct RequestHead<'r> {
    /// Path, and the query when there is one.
    pub path_and_query: &'r str,
    /// What the client offers: distinct tokens of RFC 9110.
    pub subprotocols: &'r [String],
    /// The fields: all of them to find a token, those that travel on to strip.
    pub fields: Fields<'r>,
}

/// A token as a client brought it, unverified, and its place.
pub struct Presented {
    token: String,
    place: TokenPlace,
}

/// What the upstream may be told of a request head.
pub struct Stripped {
    /// Path, and the query when something of it is left.
    pub path_and_query: String,
    /// Those that are no token.
    pub subprotocols: Vec<String>,
    /// Without the fields and cookies that hold a token.
    pub fields: Vec<Field>,
}

impl Presented {
    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether the client offered it as a subprotocol.
    pub fn is_subprotocol(&self) -> bool {
        matches!(self.place, TokenPlace::Subprotocol(_))
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("token", &"***")
            .field("place", &self.place)
            .finish()
    }
}

/// Looks into the places in their order. The first in which something stands decides, also
/// when it is no good: a client that brings a bad token is not asked for another.
///
/// # Errors
/// [`TokenRefused::Repeated`], and what a text that cannot be a token is.
pub(super) fn find_token(
    places: &[TokenPlace],
    head: &RequestHead<'_>,
) -> Result<Option<Presented>, TokenRefused> {
    for place in places {
        let mut found = candidates(place, head).into_iter();
        match (found.next(), found.next()) {
            (None, _) => {}
            (Some(only), None) => {
                let token = token_text(&only)?.to_owned();
                let place = place.clone();
                return Ok(Some(Presented { token, place }));
            }
            // Readers disagree on which of two counts.
            (Some(_), Some(_)) => return Err(TokenRefused::Repeated),
        }
    }
    Ok(None)
}

/// Everything in one place that a reader might take for the token.
fn candidates<'r>(place: &TokenPlace, head: &RequestHead<'r>) -> Vec<Cow<'r, [u8]>> {
    match place {
        TokenPlace::Header => authorizations(head.fields),
        TokenPlace::Cookie(name) => {
            let values = cookie::values(head.fields, name);
            values.into_iter().map(Cow::Borrowed).collect()
        }
        TokenPlace::Subprotocol(prefix) => head
            .subprotocols
            .iter()
            .filter_map(|offered| after_prefix(offered, prefix))
            .map(|token| Cow::Borrowed(token.as_bytes()))
            .collect(),
        TokenPlace::Query(name) => query::values(head.path_and_query, name),
        TokenPlace::FirstMessage(_) => Vec::new(),
    }
}

/// The credentials of `Authorization: Bearer` (RFC 6750 §2.1). Another scheme alone is no
/// token; beside a second field it is one reading of two.
fn authorizations<'r>(fields: Fields<'r>) -> Vec<Cow<'r, [u8]>> {
    let values: Vec<&[u8]> = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(AUTHORIZATION))
        .map(|(_, value)| value.trim_ascii())
        .collect();
    let credentials = |value: &'r [u8]| {
        let end = value.iter().position(|b| matches!(b, b' ' | b'\t'));
        let (scheme, rest) = value.split_at(end.unwrap_or(value.len()));
        scheme
            .eq_ignore_ascii_case(b"bearer")
            .then(|| trim_spaces(rest))
    };
    match values.as_slice() {
        [only] => credentials(only).map(Cow::Borrowed).into_iter().collect(),
        several => several.iter().copied().map(Cow::Borrowed).collect(),
    }
}

/// The prefix is compared without case, so that no spelling of it passes on to the upstream.
fn after_prefix<'o>(offered: &'o str, prefix: &str) -> Option<&'o str> {
    let (begin, token) = offered.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(token)
}

/// A token of RFC 6750 §2.1: so a list, a quote or a blank makes none.
fn token_text(bytes: &[u8]) -> Result<&str, TokenRefused> {
    if bytes.is_empty() {
        return Err(TokenRefused::Empty);
    }
    if bytes.len() > MAX_TOKEN {
        return Err(TokenRefused::TooLong);
    }
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    let text = bytes.iter().all(is_plain).then(|| str::from_utf8(bytes));
    text.and_then(Result::ok).ok_or(TokenRefused::Malformed)
}

/// Takes a token out of every place where the route reads one, whichever decided: what was
/// not verified must not reach the upstream either. Only `kept` stays.
pub(super) fn strip(
    places: &[TokenPlace],
    kept: Option<&TokenPlace>,
    head: &RequestHead<'_>,
) -> Stripped {
    let mut stripped = Stripped {
        path_and_query: head.path_and_query.to_owned(),
        subprotocols: head.subprotocols.to_vec(),
        fields: head.fields.iter().map(owned).collect(),
    };
    for place in places.iter().filter(|place| Some(*place) != kept) {
        match place {
            TokenPlace::Header => stripped
                .fields
                .retain(|field| !field.name.eq_ignore_ascii_case(AUTHORIZATION)),
            TokenPlace::Cookie(name) => cookie::remove(&mut stripped.fields, name),
            TokenPlace::Subprotocol(prefix) => stripped
                .subprotocols
                .retain(|offered| after_prefix(offered, prefix).is_none()),
            TokenPlace::Query(name) => {
                stripped.path_and_query = query::without(&stripped.path_and_query, name);
            }
            TokenPlace::FirstMessage(_) => {}
        }
    }
    stripped
}

fn owned((name, value): &(&str, &[u8])) -> Field {
    Field {
        name: (*name).to_owned(),
        value: value.to_vec(),
    }
}

fn trim_spaces(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

impl Presented {
    /// The place, for [`strip`].
    pub(super) fn place(&self) -> &TokenPlace {
        &self.place
    }
}

const AUTHORIZATION: &str = "authorization";

#[cfg(test)]
mod tests;
