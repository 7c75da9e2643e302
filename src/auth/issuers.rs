//! Which issuer's rule a token is held to.
//!
//! Where there are several, the token's own `iss` says which: read before the signature is
//! verified, but used for nothing else, and verified after it like every claim. Each issuer
//! has its own keys, algorithms and audiences, so that none can sign for another.

use std::time::SystemTime;

use crate::auth::claims::Claims;
use crate::auth::jwt::{self, Undecided, Verifier};
use crate::auth::message::{Pointer, find_text};
use crate::auth::refused::TokenRefused;

/// The rules of one route: at least one.
#[derive(Debug)]
pub(super) struct Issuers(Vec<Verifier>);

impl Issuers {
    pub(super) fn new(verifiers: Vec<Verifier>) -> Self {
        Self(verifiers)
    }

    /// Judges a token by the rule of its issuer.
    pub(super) fn judge(&self, token: &str, now: SystemTime) -> Result<Claims, Undecided> {
        self.choose(token)?.judge(token, now)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Verifier> {
        self.0.iter()
    }

    fn choose(&self, token: &str) -> Result<&Verifier, TokenRefused> {
        if let [only] = self.0.as_slice() {
            return Ok(only);
        }
        let payload = jwt::unverified_payload(token)?;
        let payload = String::from_utf8(payload).map_err(|_| TokenRefused::ClaimsMalformed)?;
        let issuer = find_text(&payload, &Pointer::to_member("iss")).map_err(of_issuer)?;
        let mut verifiers = self.0.iter();
        verifiers
            .find(|verifier| verifier.issuer() == Some(&issuer))
            .ok_or(TokenRefused::Issuer)
    }
}

/// The same as the rules for claims would say.
fn of_issuer(refused: TokenRefused) -> TokenRefused {
    match refused {
        TokenRefused::FieldMissing => TokenRefused::ClaimMissing("iss"),
        TokenRefused::FieldNotString => TokenRefused::ClaimInvalid("iss"),
        TokenRefused::FieldRepeated => TokenRefused::Duplicate,
        _ => TokenRefused::ClaimsMalformed,
    }
}

#[cfg(test)]
mod tests;
