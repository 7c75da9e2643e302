//! Verification of a compact JWS that carries claims (RFC 7515, RFC 7519, RFC 8725).
//!
//! Owns the order of the checks: size, form, header, signature, claims; nothing of the claims
//! is looked at before the signature is good. jsonwebtoken does the signature only: by itself
//! it accepts a missing or wrong-typed `aud` and `iss`, ignores `crit`, and reads the clock.
//! The algorithm is one of the configuration's, for the one key loaded; the header of a token
//! can choose neither, and `kid` is not looked at.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, crypto};
use serde_json::Value;

use crate::auth::claims::{Claims, Rules};
use crate::auth::json::{self, Fault};
use crate::auth::keys;
use crate::auth::refused::TokenRefused;
use crate::config::problem::Problem;
use crate::config::{self, Jwt};

/// Bytes of the longest token that is looked at.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Header members that would have us fetch or trust a key from the token, read the content
/// otherwise, or understand an extension. We do none of that, so a token that asks is refused.
const REFUSED_MEMBERS: [&str; 9] = [
    "crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c", "epk",
];

/// Checks the tokens of one route.
#[derive(Debug)]
pub struct Verifier {
    algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Its `Debug` is a mask.
    key: DecodingKey,
    rules: Rules,
}

impl Verifier {
    /// Reads the key and proves that it can be used, since jsonwebtoken would otherwise say
    /// so at the first token. Returns the warnings along with the result.
    ///
    /// `route` is the name for messages, `env` looks an environment variable up.
    ///
    /// # Errors
    /// Everything that is wrong with the key and the algorithms, and the warnings.
    pub fn load(
        route: &str,
        jwt: &Jwt,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let (loaded, warnings) = keys::load(route, jwt, env)?;
        Ok((Self::new(jwt, loaded.verifying), warnings))
    }

    /// With a key that was found good for all the algorithms of `jwt`.
    pub(super) fn new(jwt: &Jwt, key: DecodingKey) -> Self {
        Self {
            algorithms: jwt.algorithms.iter().copied().map(library_name).collect(),
            key,
            rules: Rules {
                issuer: jwt.issuer.clone(),
                audience: jwt.audience.clone(),
                leeway: jwt.leeway,
            },
        }
    }

    /// Judges a token.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenRefused> {
        let payload = self.verify_signature(token)?;
        Claims::check(&payload, &self.rules, now)
    }

    /// Everything but the claims, which it returns decoded from base64url.
    pub(super) fn verify_signature(&self, token: &str) -> Result<Vec<u8>, TokenRefused> {
        if token.len() > MAX_TOKEN {
            return Err(TokenRefused::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenRefused::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenRefused::Malformed)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(TokenRefused::Malformed);
        }
        let header = decode(header)?;
        let payload = decode(payload)?;
        let algorithm = self.check_header(&header)?;
        match crypto::verify(signature, message.as_bytes(), &self.key, algorithm) {
            Ok(true) => Ok(payload),
            Err(error) if matches!(error.kind(), ErrorKind::Base64(_)) => {
                Err(TokenRefused::Malformed)
            }
            Ok(false) | Err(_) => Err(TokenRefused::Signature),
        }
    }

    fn check_header(&self, bytes: &[u8]) -> Result<jsonwebtoken::Algorithm, TokenRefused> {
        let header = json::parse_object(bytes).map_err(|fault| match fault {
            Fault::Malformed => TokenRefused::HeaderMalformed,
            Fault::Duplicate => TokenRefused::Duplicate,
        })?;
        if let Some(member) = REFUSED_MEMBERS.iter().find(|m| header.get(m).is_some()) {
            return Err(TokenRefused::HeaderMember(member));
        }
        for member in ["typ", "kid"] {
            string_member(&header, member)?;
        }
        if string_member(&header, "cty")?.is_some_and(is_nested) {
            return Err(TokenRefused::Nested);
        }
        let named = string_member(&header, "alg")?.ok_or(TokenRefused::HeaderMalformed)?;
        let named = named.parse().map_err(|_| TokenRefused::Algorithm)?;
        let mut accepted = self.algorithms.iter().copied();
        accepted
            .find(|algorithm| *algorithm == named)
            .ok_or(TokenRefused::Algorithm)
    }
}

/// jsonwebtoken's name for an algorithm of the configuration.
pub(super) fn library_name(algorithm: config::Algorithm) -> jsonwebtoken::Algorithm {
    use jsonwebtoken::Algorithm as Library;
    match algorithm {
        config::Algorithm::HS256 => Library::HS256,
        config::Algorithm::HS384 => Library::HS384,
        config::Algorithm::HS512 => Library::HS512,
        config::Algorithm::RS256 => Library::RS256,
        config::Algorithm::RS384 => Library::RS384,
        config::Algorithm::RS512 => Library::RS512,
        config::Algorithm::PS256 => Library::PS256,
        config::Algorithm::PS384 => Library::PS384,
        config::Algorithm::PS512 => Library::PS512,
        config::Algorithm::ES256 => Library::ES256,
        config::Algorithm::ES384 => Library::ES384,
        config::Algorithm::EdDSA => Library::EdDSA,
    }
}

/// base64url without padding, white space or stray bits (RFC 7515 §2).
fn decode(part: &str) -> Result<Vec<u8>, TokenRefused> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenRefused::Malformed)
}

fn string_member<'h>(header: &'h Value, member: &str) -> Result<Option<&'h str>, TokenRefused> {
    match header.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenRefused::HeaderMalformed),
    }
}

/// A `cty` that says the content is a JWT, with or without the part a media type may omit
/// (RFC 7515 §4.1.10).
fn is_nested(cty: &str) -> bool {
    let cty = cty.to_ascii_lowercase();
    cty.strip_prefix("application/").unwrap_or(&cty) == "jwt"
}

#[cfg(test)]
mod tests;
