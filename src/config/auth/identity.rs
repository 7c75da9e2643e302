//! `identity` of `[route.auth]`: what the edge vouches for towards the upstream, signed.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::Section;
use crate::config::names;
use crate::config::source::printable;
use crate::config::value::{checked, duration, text};

/// Default of `ttl`: an upstream looks at the token while the opening handshake is under way,
/// and clocks differ by seconds.
const TTL: Duration = Duration::from_secs(60);

/// What lives longer than an hour is no longer short-lived.
const TTLS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Claims that can be chosen: all of them have to fit into one header.
const MOST_CLAIMS: usize = 32;

/// Claims that the edge writes itself.
const OURS: [&str; 7] = ["iss", "aud", "exp", "nbf", "iat", "jti", "route"];

/// What `claims` must look like.
const CLAIMS: &str = "name = claim, or a JSON pointer into the token's claims: \
     claims = { sub = \"sub\", roles = \"/realm/roles\" }";

/// `identity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIdentity {
    /// `aud`; `None`: the name of the route's upstream.
    pub audience: Option<String>,
    /// From `iat` to `exp`, unless the client's token ends before.
    pub ttl: Duration,
    /// The name in the signed token, and the claim it is filled from (name or JSON pointer).
    pub claims: Vec<(String, String)>,
}

/// Reads `identity`, when it is there.
pub(super) fn identity(route_auth: &mut Section<'_>) -> Result<Option<SignedIdentity>, Reported> {
    let Some(mut section) = route_auth.section("identity")? else {
        return Ok(None);
    };
    let audience = section.optional(
        "audience",
        checked(names::string_or_uri, "the `aud` that the upstream expects"),
    );
    let ttl = section.or("ttl", duration(TTLS), TTL);
    let claims = match section.section("claims") {
        Ok(Some(table)) => claims(&table),
        Ok(None) => Ok(vec![("sub".to_owned(), "sub".to_owned())]),
        Err(reported) => Err(reported),
    };
    section.done();
    Ok(Some(SignedIdentity {
        audience: audience?.map(|audience| audience.value),
        ttl: ttl?.value,
        claims: claims?,
    }))
}

fn claims(table: &Section<'_>) -> Result<Vec<(String, String)>, Reported> {
    let chosen = table.entries(|name, value| {
        if OURS.contains(&name) {
            let found = format!("the claim `{name}`, which the edge writes itself");
            return Err(Mismatch::new(found, CLAIMS));
        }
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            let found = format!("the name `{}`", printable(name));
            return Err(Mismatch::new(found, "a name of 1 to 64 bytes"));
        }
        let claim = text(value).map_err(|_| Mismatch::of(value, CLAIMS))?;
        let claim = names::claim(&claim);
        let claim = claim
            .map_err(|wrong| Mismatch::new(format!("{}: {wrong}", value.describe()), CLAIMS))?;
        Ok((name.to_owned(), claim))
    })?;
    if chosen.len() > MOST_CLAIMS {
        let found = format!("{} claims", chosen.len());
        let allowed = format!("at most {MOST_CLAIMS}");
        return Err(table.error("", Some(table.start()), found, allowed));
    }
    Ok(chosen
        .into_iter()
        .map(|Placed { value, .. }| value)
        .collect())
}
