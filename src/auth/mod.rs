//! Who a client is: from its request head or first message to an [`Admission`], or a reason
//! for the log.
//!
//! The steps of one check are the files in reading order: [`head`] or [`message`] finds the
//! token, `issuers` whose rule it is held to, [`jwt`] proves who signed it, [`claims`] says
//! what it grants. `keys` is what happens once, at load; [`key_sets`] what happens to sets of
//! keys ([`jwks`]) from then on; [`mint`] makes tokens for trying things out.
//!
//! Knows no socket and no clock: `now` is handed in, and so is the environment. What the
//! client hears of a refusal is none of its business; every [`TokenRefused`] is for the log
//! and holds nothing of the token.

pub mod claims;
pub mod decision;
pub mod head;
pub mod identity;
mod issuers;
mod json;
pub mod jwks;
pub mod jwt;
pub mod key_sets;
pub mod keys;
pub mod message;
pub mod mint;
mod public_key;
pub mod refused;
pub mod secret;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::auth::claims::Claims;
use crate::auth::head::{Presented, RequestHead, Stripped};
use crate::auth::issuers::Issuers;
use crate::auth::jwt::{Undecided, Verifier};
use crate::auth::key_sets::KeySets;
use crate::auth::message::{Pointer, check_type, extract_token};
pub use crate::auth::refused::TokenRefused;
use crate::config::problem::{Problem, Severity};
use crate::config::{Auth, ClaimHeader, Route, TokenPlace};
use crate::proto::rule::Grants;

/// How the clients of one route prove who they are. Loaded once, shared by all workers.
#[derive(Debug)]
pub struct Authenticator(Method);

#[derive(Debug)]
enum Method {
    Anyone,
    Token(Box<TokenRule>),
}

#[derive(Debug)]
struct TokenRule {
    places: Vec<TokenPlace>,
    forward_token: bool,
    message: Option<MessageRule>,
    issuers: Issuers,
    headers: Vec<ClaimHeader>,
    /// The claims that the rules of the route ask for.
    granted: Vec<String>,
}

#[derive(Debug)]
struct MessageRule {
    message_type: Option<&'static str>,
    field: Option<Pointer>,
}

/// What a good token grants.
#[derive(Clone, PartialEq, Eq)]
pub struct Admission {
    /// The claim `sub`, free of control characters.
    pub subject: Option<String>,
    /// The claim `jti`, free of control characters.
    pub token_id: Option<String>,
    /// The claim `iss`.
    pub issuer: Option<String>,
    /// The claim `iat`, in seconds since 1970.
    pub issued_at: Option<u64>,
    /// The moment from which the token would be refused; `None`: no token was asked for.
    pub expires_at: Option<SystemTime>,
    /// Lower-case name and value of what the upstream is told about the client.
    pub headers: Vec<(String, String)>,
    /// All that the token says; `None`: no token was asked for.
    pub claims: Option<Claims>,
    /// What the rules of the route ask the token for.
    pub grants: Grants,
}

impl Authenticator {
    /// Reads the route's keys, and returns the warnings along with the result.
    ///
    /// `env` looks an environment variable up; `sets` are those of all the configuration.
    ///
    /// # Errors
    /// Everything that keeps the route from checking a token, and the warnings.
    pub fn load(
        route: &Route,
        env: &dyn Fn(&str) -> Option<String>,
        sets: &mut KeySets,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let Auth::Token(auth) = &route.auth else {
            return Ok((Self(Method::Anyone), Vec::new()));
        };
        let mut problems = Vec::new();
        let shape = auth.first_message();
        let token_field = shape.and_then(|shape| shape.token_field.as_deref());
        let field = check_pointers(route, token_field, &mut problems);
        let message = shape.map(|shape| MessageRule {
            message_type: shape.message_type,
            field,
        });
        let mut verifiers = Vec::new();
        for jwt in &auth.jwt {
            match Verifier::load(jwt, env, sets) {
                Ok((verifier, warnings)) => {
                    problems.extend(warnings);
                    verifiers.push(verifier);
                }
                Err(errors) => problems.extend(errors),
            }
        }
        if problems.iter().any(Problem::is_error) {
            return Err(problems);
        }
        let rule = TokenRule {
            places: auth.places.clone(),
            forward_token: auth.forward_token,
            message,
            issuers: Issuers::new(verifiers),
            headers: route.headers.clone(),
            granted: granted_claims(route),
        };
        Ok((Self(Method::Token(Box::new(rule))), problems))
    }

    /// Finds the token in a request head. `None`: the first message decides, or nobody is
    /// asked for a token.
    ///
    /// # Errors
    /// There is none although the head has to have one, or what stands there is no token.
    pub fn find_token(&self, head: &RequestHead<'_>) -> Result<Option<Presented>, TokenRefused> {
        let Method::Token(rule) = &self.0 else {
            return Ok(None);
        };
        match head::find_token(&rule.places, head)? {
            None if rule.message.is_none() => Err(TokenRefused::Missing),
            found => Ok(found),
        }
    }

    /// What the upstream may be told of a request head: no token, but that in the header or
    /// cookie that decided, where the route forwards it.
    pub fn strip(&self, head: &RequestHead<'_>, decided: Option<&Presented>) -> Stripped {
        let Method::Token(rule) = &self.0 else {
            return head::strip(&[], None, head);
        };
        let kept = decided
            .filter(|_| rule.forward_token)
            .map(Presented::place)
            .filter(|place| matches!(place, TokenPlace::Header | TokenPlace::Cookie(_)));
        head::strip(&rule.places, kept, head)
    }

    /// Judges the first message of a session, which is text.
    ///
    /// Where the route asks for no token, everyone is admitted and the message not looked at.
    /// For the rest see [`Self::admit`].
    ///
    /// # Errors
    /// Why there is no session for this client.
    pub async fn admit_message(
        &self,
        message: &str,
        clock: impl Fn() -> SystemTime,
    ) -> Result<Admission, TokenRefused> {
        let Method::Token(rule) = &self.0 else {
            return Ok(Admission::anonymous());
        };
        let Some(MessageRule {
            message_type,
            field,
        }) = &rule.message
        else {
            return Err(TokenRefused::Missing);
        };
        if let Some(message_type) = message_type {
            check_type(message, message_type)?;
        }
        let token = extract_token(message, field.as_ref())?;
        self.admit(&token, clock).await
    }

    /// Judges a token.
    ///
    /// Where the route asks for none, everyone is admitted and the token not looked at. A
    /// token whose key is not in the issuer's set has the set read again, and waits for it;
    /// the caller lets it wait for [`Self::patience`]. Every other verdict is there at once.
    ///
    /// # Errors
    /// Why there is no session for this client.
    pub async fn admit(
        &self,
        token: &str,
        clock: impl Fn() -> SystemTime,
    ) -> Result<Admission, TokenRefused> {
        let mut deciding = None;
        loop {
            let Undecided { refused, pending } = match self.judge(token, clock()) {
                Ok(admission) => return Ok(admission),
                Err(undecided) => undecided,
            };
            let Some(pending) = pending else {
                return Err(refused);
            };
            // A reading that was under way may have begun before the issuer had the key.
            let deciding = *deciding.get_or_insert(pending.deciding());
            if pending.ended() >= deciding {
                pending.remember_helpless();
                return Err(pending.verdict(refused));
            }
            if pending.is_helpless() {
                return Err(pending.verdict(refused));
            }
            pending.next_reading().await;
        }
    }

    /// Judges a new token for a session that an older one admitted: it must be of the same
    /// issuer and subject, and have one. For the rest see [`Self::admit`].
    ///
    /// # Errors
    /// Why the session ends.
    pub async fn renew(
        &self,
        token: &str,
        (issuer, subject): (Option<&str>, Option<&str>),
        clock: impl Fn() -> SystemTime,
    ) -> Result<Admission, TokenRefused> {
        let renewed = self.admit(&extract_token(token, None)?, clock).await?;
        let is_same = renewed.subject.is_some()
            && renewed.subject.as_deref() == subject
            && renewed.issuer.as_deref() == issuer;
        is_same
            .then_some(renewed)
            .ok_or(TokenRefused::OtherIdentity)
    }

    /// Judges a token by the keys that are there now.
    fn judge(&self, token: &str, now: SystemTime) -> Result<Admission, Undecided> {
        let Method::Token(rule) = &self.0 else {
            return Ok(Admission::anonymous());
        };
        let claims = rule.issuers.judge(token, now)?;
        Ok(Admission {
            subject: claims.subject().map(str::to_owned),
            token_id: claims.token_id().map(str::to_owned),
            issuer: claims.issuer().map(str::to_owned),
            issued_at: claims.issued_at(),
            expires_at: Some(claims.expires_at()),
            headers: claims.header_values(&rule.headers)?,
            grants: claims.grants(&rule.granted),
            claims: Some(claims),
        })
    }

    /// Whether clients are asked for a token.
    pub fn asks(&self) -> bool {
        matches!(self.0, Method::Token(_))
    }

    /// How long a token may wait for its issuer's keys: until they may be read again, and
    /// have been.
    pub fn patience(&self) -> Duration {
        match &self.0 {
            Method::Anyone => Duration::ZERO,
            Method::Token(rule) => {
                let patience = rule.issuers.iter().map(Verifier::patience);
                patience.max().unwrap_or_default()
            }
        }
    }

    /// Whether every issuer's keys are there.
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            Method::Anyone => true,
            Method::Token(rule) => rule.issuers.iter().all(Verifier::is_ready),
        }
    }
}

fn granted_claims(route: &Route) -> Vec<String> {
    let inspection = route.policy.inspection.as_ref();
    let rules = inspection.and_then(|inspection| inspection.rules.as_ref());
    rules.map(|rules| rules.claims.clone()).unwrap_or_default()
}

impl Admission {
    /// That of a client who was not asked for a token.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            subject: None,
            token_id: None,
            issuer: None,
            issued_at: None,
            expires_at: None,
            headers: Vec::new(),
            claims: None,
            grants: Grants::default(),
        }
    }
}

impl fmt::Debug for Admission {
    /// Shows the names of the headers and masks their values, which are claims.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.headers.iter().map(|(name, _)| name);
        f.debug_struct("Admission")
            .field("subject", &self.subject.as_ref().map(|_| "***"))
            .field("issuer", &self.issuer)
            .field("expires_at", &self.expires_at)
            .field("headers", &names.collect::<Vec<_>>())
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

/// Reads the pointer to the token, and tries those to the claims.
fn check_pointers(
    route: &Route,
    token_field: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Option<Pointer> {
    let mut parse = |key: String, text: &str| {
        Pointer::parse(text)
            .map_err(|error| {
                problems.push(Problem {
                    severity: Severity::Error,
                    line: Some(route.line),
                    key,
                    found: format!("{text:?}"),
                    allowed: error.to_string(),
                });
            })
            .ok()
    };
    let name = &route.name;
    for mapped in route.headers.iter().filter(|h| h.claim.starts_with('/')) {
        let key = format!("route.{name}.headers.{}", mapped.header);
        parse(key, &mapped.claim);
    }
    token_field.and_then(|text| parse(format!("route.{name}.auth.token_field"), text))
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
