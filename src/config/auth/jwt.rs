//! `[route.auth.jwt]`: what makes a token good. There may be several, each with an issuer,
//! keys and audiences of its own. `jwks.rs`: sets of keys.
//!
//! Whether the key exists and fits its algorithm is not looked at here; what may be a secret
//! is never printed.

mod jwks;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Reported};
use crate::config::file::{Section, Value};
use crate::config::secret;
use crate::config::value::{duration, one_of, or_off};
use crate::config::{Algorithm, Jwt, Keys, Line};

/// Default of `leeway`: clocks that a time server sets differ by far less than 30 seconds.
const LEEWAY: Duration = Duration::from_secs(30);

/// More than five minutes would make short-lived tokens long-lived.
const LEEWAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);

/// What `key` must look like.
const KEY: &str = "key = { env = \"NAME\" } or key = { file = \"path\" }: secrets come from a file or the environment";

/// What a route's rules for tokens must look like.
const JWT: &str = "[route.auth.jwt]: what makes a token good; where there are several issuers, [[route.auth.jwt]] for each";

/// Issuers of one route: a token's `iss` is compared with one after the other.
const MOST_ISSUERS: usize = 16;

/// What `algorithms` must look like beside `key`.
const OF_ONE_KEY: &str =
    "exactly one algorithm, since one key is for one algorithm: algorithms = [\"HS256\"]";

/// The same beside `jwks`.
const OF_A_SET: &str = "algorithms with public keys, each once: algorithms = [\"RS256\"]";

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

/// Reads `[route.auth.jwt]`, once or several times.
pub(super) fn issuers(auth: &mut Section<'_>) -> Result<Vec<Jwt>, Reported> {
    auth.required("jwt", tables, JWT)?;
    let sections = auth.one_or_more("jwt", JWT)?;
    if sections.len() > MOST_ISSUERS {
        let found = format!("{} issuers", sections.len());
        let allowed = format!("at most {MOST_ISSUERS} for one route");
        return Err(auth.error("jwt", auth.line_of("jwt"), found, allowed));
    }
    let alone = sections.len() == 1;
    let mut taken = HashMap::new();
    let rules: Vec<_> = sections
        .into_iter()
        .map(|section| jwt(section, alone, &mut taken))
        .collect();
    rules.into_iter().collect()
}

/// What is no table may be a secret, and is not printed.
fn tables(value: &Value<'_>) -> Result<(), Mismatch> {
    let fits = match value.items() {
        Some(items) => items.iter().all(Value::is_table),
        None => value.is_table(),
    };
    match fits {
        true => Ok(()),
        false => Err(Mismatch::new("something that is no table (not shown)", JWT)),
    }
}

fn jwt(
    mut section: Section<'_>,
    alone: bool,
    taken: &mut HashMap<String, Line>,
) -> Result<Jwt, Reported> {
    let algorithms = algorithms(&mut section);
    let keys = keys(&mut section);
    let issuer = issuer(&mut section, alone, taken);
    let audience = section.required("audience", or_off(audience), AUDIENCE);
    let leeway = section.or("leeway", duration(LEEWAYS), LEEWAY);
    if let Ok(audience) = &audience
        && audience.value.is_none()
    {
        let found = "a token for any audience is good, also one made for another service";
        section.warning("audience", audience.line, found, AUDIENCE);
    }
    let rule = algorithms.and_then(|algorithms| {
        let (keys, line) = keys?;
        Ok(Jwt {
            place: section.place().to_owned(),
            algorithms,
            keys,
            issuer: None,
            audience: Vec::new(),
            leeway: LEEWAY,
            line,
        })
    });
    if let Ok(rule) = &rule {
        section.name_jwt(rule.clone());
    }
    section.done();
    Ok(Jwt {
        issuer: issuer?,
        audience: audience?.value.unwrap_or_default(),
        leeway: leeway?.value,
        ..rule?
    })
}

/// Reads `issuer`. Where there are several, a token's `iss` decides which rule it is held to:
/// so each names one, and no other names the same.
fn issuer(
    section: &mut Section<'_>,
    alone: bool,
    taken: &mut HashMap<String, Line>,
) -> Result<Option<String>, Reported> {
    let issuer = section.required("issuer", or_off(filled), ISSUER)?;
    match &issuer.value {
        None if alone => {
            let found = "a token of any issuer is good when the key fits";
            section.warning("issuer", issuer.line, found, ISSUER);
        }
        None => {
            let found = "\"off\" beside other issuers, where `iss` tells them apart";
            return Err(section.error("issuer", issuer.line, found, ISSUER));
        }
        Some(name) => {
            if let Some(first) = taken.insert(name.clone(), issuer.at()) {
                let found = format!("the issuer of line {} again", first.0);
                return Err(section.error("issuer", issuer.line, found, "each issuer once"));
            }
        }
    }
    Ok(issuer.value)
}

/// Reads `algorithms`. For one key exactly one: a key that verifies with two lets the sender
/// of a token choose the weaker, or take a public key for a shared secret (RFC 8725 §3.1).
/// Of a set, each key is for one of them, which the key itself says.
fn algorithms(section: &mut Section<'_>) -> Result<Vec<Algorithm>, Reported> {
    let is_set = section.line_of("jwks").is_some();
    let allowed = if is_set { OF_A_SET } else { OF_ONE_KEY };
    let Some(written) = section.list("algorithms", one_of(&ALGORITHMS))? else {
        return Err(section.missing("algorithms", allowed));
    };
    let named: Vec<Algorithm> = written.value.iter().map(|one| one.value).collect();
    let found = match named.as_slice() {
        several if !is_set && several.len() != 1 => format!("{} algorithms", several.len()),
        [] => "0 algorithms".to_owned(),
        several => match wrong_for_a_set(several) {
            Some(wrong) if is_set => wrong,
            _ => return Ok(named),
        },
    };
    Err(section.error("algorithms", written.line, found, allowed))
}

fn wrong_for_a_set(algorithms: &[Algorithm]) -> Option<String> {
    use Algorithm::{HS256, HS384, HS512};
    let mut seen = Vec::new();
    for algorithm in algorithms {
        if matches!(algorithm, HS256 | HS384 | HS512) {
            let why = "a secret that is published is none";
            return Some(format!("{algorithm:?} beside `jwks`: {why}"));
        }
        if seen.contains(algorithm) {
            return Some(format!("{algorithm:?} twice"));
        }
        seen.push(*algorithm);
    }
    None
}

/// Reads what verifies, and where it stands.
fn keys(section: &mut Section<'_>) -> Result<(Keys, Line), Reported> {
    let both = section.has("jwks") && section.has("key");
    if both {
        let line = section.line_of("jwks");
        return Err(section.error("jwks", line, "`jwks` beside `key`", "one of them"));
    }
    if section.has("jwks") {
        return jwks::jwks(section).map(|(jwks, line)| (Keys::Set(jwks), line));
    }
    secret::source(section, "key", KEY).map(|(key, line)| (Keys::One(key), line))
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
