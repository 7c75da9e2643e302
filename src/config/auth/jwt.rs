//! `[route.auth.jwt]`: what makes a token good.
//!
//! Whether the key exists and fits its algorithm is not looked at here; what may be a secret
//! is never printed.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::secret;
use crate::config::value::{duration, one_of, or_off};
use crate::config::{Algorithm, Jwt};

/// Default of `leeway`: clocks that a time server sets differ by far less than 30 seconds.
const LEEWAY: Duration = Duration::from_secs(30);

/// More than five minutes would make short-lived tokens long-lived.
const LEEWAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);

/// What `key` must look like.
const KEY: &str = "key = { env = \"NAME\" } or key = { file = \"path\" }: secrets come from a file or the environment";

/// What `issuer` must look like.
const ISSUER: &str = "the `iss` that tokens must have: issuer = \"https://id.example.com\"";

/// What `audience` must look like.
const AUDIENCE: &str = "the `aud` values of which tokens must have one: audience = [\"chat\"]";

/// Algorithms by the name a token's header has for them (RFC 7518 §3.1, RFC 8037 §3.1).
static ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Reads `[route.auth.jwt]`.
pub(super) fn jwt(mut section: Section<'_>) -> Result<Jwt, Reported> {
    let algorithm = algorithm(&mut section);
    let refused = section.refuse("jwks", "`jwks`: fetching keys is not available", KEY);
    // With `jwks` in its place, a missing `key` is no second problem.
    let key = match refused {
        Err(reported) if !section.has("key") => Err(reported),
        _ => secret::source(&mut section, "key", KEY),
    };
    let issuer = section.required("issuer", or_off(filled), ISSUER);
    let audience = section.required("audience", or_off(audience), AUDIENCE);
    let leeway = section.or("leeway", duration(LEEWAYS), LEEWAY);
    if let Ok(Placed {
        value: None, line, ..
    }) = issuer
    {
        let found = "a token of any issuer is good when the key fits";
        section.warning("issuer", line, found, ISSUER);
    }
    if let Ok(Placed {
        value: None, line, ..
    }) = audience
    {
        let found = "a token for any audience is good, also one made for another service";
        section.warning("audience", line, found, AUDIENCE);
    }
    if let (Ok(algorithm), Ok((key, line))) = (&algorithm, &key) {
        section.name_jwt(Jwt {
            algorithms: vec![*algorithm],
            key: key.clone(),
            issuer: None,
            audience: Vec::new(),
            leeway: LEEWAY,
            line: *line,
        });
    }
    section.done();
    let (key, line) = key?;
    let algorithm = algorithm?;
    Ok(Jwt {
        algorithms: vec![algorithm],
        key,
        issuer: issuer?.value,
        audience: audience?.value.unwrap_or_default(),
        leeway: leeway?.value,
        line,
    })
}

/// Exactly one: a key that verifies with two algorithms lets the sender of a token choose
/// the weaker, or take a public key for a shared secret (RFC 8725 §3.1).
fn algorithm(section: &mut Section<'_>) -> Result<Algorithm, Reported> {
    let allowed =
        "exactly one algorithm, since one key is for one algorithm: algorithms = [\"HS256\"]";
    let Some(written) = section.list("algorithms", one_of(&ALGORITHMS))? else {
        return Err(section.missing("algorithms", allowed));
    };
    match written.value.as_slice() {
        [only] => Ok(only.value),
        several => {
            let found = format!("{} algorithms", several.len());
            Err(section.error("algorithms", written.line, found, allowed))
        }
    }
}

fn filled(value: &Value<'_>) -> Result<String, Mismatch> {
    let text = value.text().filter(|text| !text.is_empty());
    text.map(str::to_owned)
        .ok_or_else(|| Mismatch::of(value, ISSUER))
}

fn audience(value: &Value<'_>) -> Result<Vec<String>, Mismatch> {
    let items = value.items().filter(|items| !items.is_empty());
    let Some(items) = items else {
        return Err(Mismatch::of(value, AUDIENCE));
    };
    let wrong = |_| Mismatch::new("an audience that is no text, or empty", AUDIENCE);
    items
        .iter()
        .map(|item| filled(item).map_err(wrong))
        .collect()
}
