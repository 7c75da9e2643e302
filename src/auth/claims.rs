//! What a token whose signature is good says, and whether that is enough (RFC 7519 §4).
//!
//! Owns the rules for registered claims; [`header`] is the way claims become header values.
//! Knows nothing of keys and signatures.
//!
//! Registered claims must have the type the RFC gives them even where the route does not ask
//! for their value. Times are JSON numbers; a fraction is rounded against the token (`exp`
//! down, `nbf` and `iat` up). They must lie between 1970 and the end of 9999: milliseconds
//! taken for seconds, the usual mistake, would otherwise be a token that never expires.

pub mod header;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Number, Value};

use crate::auth::json::{self, Fault};
use crate::auth::refused::TokenRefused;
use crate::config::ClaimHeader;
use crate::proto::json::exact_integer;
use crate::proto::rule::{Grants, Scalar};

/// Bytes of the longest `sub`, and of the longest `jti`.
pub const MAX_NAME: usize = 1024;

/// The last second of the year 9999: later times are mistakes.
pub(super) const MAX_NUMERIC_DATE: u64 = 253_402_300_799;

/// The numbers a 64-bit float tells apart from their neighbours end here: 2^53.
pub(super) const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// What a route asks of the registered claims.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The one issuer; `None`: any or none.
    pub(super) issuer: Option<String>,
    /// One of these must be named; empty: any or none.
    pub(super) audience: Vec<String>,
    /// Clock difference forgiven in `exp`, `nbf` and `iat`.
    pub(super) leeway: Duration,
}

/// The claims of a token that was found good.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    document: Value,
    expires_at: SystemTime,
}

impl Claims {
    /// Reads the signed bytes and applies the rules.
    pub(super) fn check(
        bytes: &[u8],
        rules: &Rules,
        now: SystemTime,
    ) -> Result<Self, TokenRefused> {
        let document = json::parse_object(bytes).map_err(|fault| match fault {
            Fault::Malformed => TokenRefused::ClaimsMalformed,
            Fault::Duplicate => TokenRefused::Duplicate,
        })?;
        let expires_at = check_times(&document, rules.leeway, now)?;
        check_issuer(&document, rules.issuer.as_deref())?;
        check_audience(&document, &rules.audience)?;
        check_name(&document, "sub")?;
        check_name(&document, "jti")?;
        Ok(Self {
            document,
            expires_at,
        })
    }

    /// The claim `sub`: no control characters, at most [`MAX_NAME`] bytes, so that it
    /// can stand in a log line.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.lookup("sub").and_then(Value::as_str)
    }

    /// The claim `jti`, in the same form.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.lookup("jti").and_then(Value::as_str)
    }

    /// The claim `iss`.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.lookup("iss").and_then(Value::as_str)
    }

    /// The claim `iat` in whole seconds since 1970, rounded down.
    #[must_use]
    pub fn issued_at(&self) -> Option<u64> {
        let issued = numeric_date(&self.document, "iat", f64::floor);
        issued.ok().flatten().map(|since_1970| since_1970.as_secs())
    }

    /// The moment from which this token would be refused: `exp` plus the leeway. It was in
    /// the future when the token was verified.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// All of them: an object.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// A claim by name, or by JSON pointer where `claim` begins with `/` (RFC 6901).
    #[must_use]
    pub fn lookup(&self, claim: &str) -> Option<&Value> {
        if claim.starts_with('/') {
            self.document.pointer(claim)
        } else {
            self.document.get(claim)
        }
    }

    /// What the token grants by these claims: each value that is no object and no array, or
    /// those of an array. Numbers that are not whole, or not exact in a float, grant nothing.
    #[must_use]
    pub fn grants(&self, claims: &[String]) -> Grants {
        let values = |claim: &String| match self.lookup(claim) {
            None => Vec::new(),
            Some(Value::Array(elements)) => elements.iter().filter_map(granted).collect(),
            Some(value) => granted(value).into_iter().collect(),
        };
        Grants(claims.iter().map(values).collect())
    }

    /// The headers the upstream is sent, in the order of the configuration.
    ///
    /// A claim that is absent or `null` gives no header.
    ///
    /// # Errors
    /// [`TokenRefused::NotSendable`]: a claim the upstream might read otherwise than it was
    /// signed. Half an identity is not sent.
    pub fn header_values(
        &self,
        mapped: &[ClaimHeader],
    ) -> Result<Vec<(String, String)>, TokenRefused> {
        let mut headers = Vec::with_capacity(mapped.len());
        for ClaimHeader {
            header,
            claim,
            format,
        } in mapped
        {
            let value = match self.lookup(claim) {
                None | Some(Value::Null) => continue,
                Some(value) => header::value(value, *format),
            };
            let value = value.map_err(|fault| TokenRefused::NotSendable {
                claim: claim.clone(),
                fault,
            })?;
            headers.push((header.clone(), value));
        }
        Ok(headers)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("document", &"***")
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// Judges `exp`, `nbf` and `iat`, and returns the end of the token's life with leeway.
fn check_times(
    document: &Value,
    leeway: Duration,
    now: SystemTime,
) -> Result<SystemTime, TokenRefused> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| TokenRefused::Clock)?;
    let expiry = numeric_date(document, "exp", f64::floor)?
        .ok_or(TokenRefused::ClaimMissing("exp"))?
        .saturating_add(leeway);
    // "On or after" the time the token is not accepted (RFC 7519 §4.1.4).
    if now >= expiry {
        return Err(TokenRefused::Expired);
    }
    let latest_start = now.saturating_add(leeway);
    if numeric_date(document, "nbf", f64::ceil)?.is_some_and(|nbf| nbf > latest_start) {
        return Err(TokenRefused::NotYetValid);
    }
    if numeric_date(document, "iat", f64::ceil)?.is_some_and(|iat| iat > latest_start) {
        return Err(TokenRefused::IssuedInFuture);
    }
    UNIX_EPOCH
        .checked_add(expiry)
        .ok_or(TokenRefused::ClaimInvalid("exp"))
}

/// A NumericDate (RFC 7519 §2) as the time since 1970, in whole seconds.
fn numeric_date(
    document: &Value,
    claim: &'static str,
    round: fn(f64) -> f64,
) -> Result<Option<Duration>, TokenRefused> {
    let seconds = match document.get(claim) {
        None => return Ok(None),
        Some(Value::Number(number)) => whole_seconds(number, round),
        Some(_) => None,
    };
    seconds
        .filter(|seconds| *seconds <= MAX_NUMERIC_DATE)
        .map(|seconds| Some(Duration::from_secs(seconds)))
        .ok_or(TokenRefused::ClaimInvalid(claim))
}

/// `None` for what is negative, or too large to be exact.
fn whole_seconds(number: &Number, round: fn(f64) -> f64) -> Option<u64> {
    if let Some(seconds) = number.as_u64() {
        return Some(seconds);
    }
    let seconds = number.as_f64().map(round)?;
    let in_range = (0.0..MAX_EXACT_FLOAT).contains(&seconds);
    in_range.then_some(seconds as u64)
}

fn check_issuer(document: &Value, wanted: Option<&str>) -> Result<(), TokenRefused> {
    let issuer = check_string(document, "iss")?;
    match (wanted, issuer) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(TokenRefused::ClaimMissing("iss")),
        (Some(wanted), Some(issuer)) if wanted == issuer => Ok(()),
        (Some(_), Some(_)) => Err(TokenRefused::Issuer),
    }
}

/// `aud` is a string or an array of strings (RFC 7519 §4.1.3).
fn check_audience(document: &Value, wanted: &[String]) -> Result<(), TokenRefused> {
    let named = match document.get("aud") {
        None if wanted.is_empty() => return Ok(()),
        None => return Err(TokenRefused::ClaimMissing("aud")),
        Some(Value::Array(elements)) => elements.as_slice(),
        Some(other) => std::slice::from_ref(other),
    };
    let named = named
        .iter()
        .map(|element| element.as_str().ok_or(TokenRefused::ClaimInvalid("aud")))
        .collect::<Result<Vec<_>, _>>()?;
    if wanted.is_empty() || named.iter().any(|n| wanted.iter().any(|w| w == n)) {
        Ok(())
    } else {
        Err(TokenRefused::Audience)
    }
}

/// What names a person or a token must be fit to be named: in a log line, in a revocation.
fn check_name(document: &Value, claim: &'static str) -> Result<(), TokenRefused> {
    let fits = |name: &str| name.len() <= MAX_NAME && !name.contains(char::is_control);
    match check_string(document, claim)? {
        Some(name) if !fits(name) => Err(TokenRefused::ClaimInvalid(claim)),
        Some(_) | None => Ok(()),
    }
}

fn check_string<'d>(
    document: &'d Value,
    claim: &'static str,
) -> Result<Option<&'d str>, TokenRefused> {
    match document.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenRefused::ClaimInvalid(claim)),
    }
}

fn granted(value: &Value) -> Option<Scalar> {
    match value {
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Bool(flag) => Some(Scalar::Flag(*flag)),
        Value::Number(number) => exact_integer(&number.to_string()).map(Scalar::Integer),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
