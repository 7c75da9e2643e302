//! Verification of a compact JWS that carries claims (RFC 7515, RFC 7519, RFC 8725).
//!
//! Owns the order of the checks: size, form, header, signature, claims; nothing of the claims
//! is looked at before the signature is good. jsonwebtoken does the signature only: by itself
//! it accepts a missing or wrong-typed `aud` and `iss`, ignores `crit`, and reads the clock.
//! The algorithm is one of the configuration's, and the one that the key is for. The header
//! of a token can choose neither: beside one key `kid` is not looked at, and in a set it names
//! a key that the set itself says how to use.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, crypto};
use serde_json::Value;

use crate::auth::claims::{Claims, Rules};
use crate::auth::json::{self, Fault};
use crate::auth::jwks::Found;
use crate::auth::key_sets::{KeySets, LiveKeys, Pending};
use crate::auth::keys::{self, Verifying};
use crate::auth::refused::TokenRefused;
use crate::config::problem::Problem;
use crate::config::{Algorithm, Jwt};

/// Bytes of the longest token that is looked at.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Header members that would have us fetch or trust a key from the token, read the content
/// otherwise, or understand an extension. We do none of that, so a token that asks is refused.
const REFUSED_MEMBERS: [&str; 9] = [
    "crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c", "epk",
];

/// Checks the tokens of one issuer for one route.
#[derive(Debug)]
pub struct Verifier {
    algorithms: Vec<Algorithm>,
    keys: Verifying,
    rules: Rules,
}

/// A token that is not accepted, at least for now.
#[derive(Debug)]
pub(super) struct Undecided {
    pub(super) refused: TokenRefused,
    /// Present where another reading of the issuer's keys may change the verdict.
    pub(super) pending: Option<Pending>,
}

impl From<TokenRefused> for Undecided {
    fn from(refused: TokenRefused) -> Self {
        Self {
            refused,
            pending: None,
        }
    }
}

impl Verifier {
    /// Reads the key and proves that it can be used, since jsonwebtoken would otherwise say
    /// so at the first token. Returns the warnings along with the result.
    ///
    /// `env` looks an environment variable up; `sets` are those of all the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with the key and the algorithms, and the warnings.
    pub fn load(
        jwt: &Jwt,
        env: &dyn Fn(&str) -> Option<String>,
        sets: &mut KeySets,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let (verifying, warnings) = keys::load_verifying(jwt, env, sets)?;
        Ok((Self::new(jwt, verifying), warnings))
    }

    /// With a key that was found good for all the algorithms of `jwt`, or a set.
    pub(super) fn new(jwt: &Jwt, keys: Verifying) -> Self {
        Self {
            algorithms: jwt.algorithms.clone(),
            keys,
            rules: Rules {
                issuer: jwt.issuer.clone(),
                audience: jwt.audience.clone(),
                leeway: jwt.leeway,
            },
        }
    }

    /// Judges a token by the keys that are there now.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenRefused> {
        self.judge(token, now)
            .map_err(|undecided| undecided.refused)
    }

    /// The same, with what it takes to wait for other keys.
    pub(super) fn judge(&self, token: &str, now: SystemTime) -> Result<Claims, Undecided> {
        let payload = self.verify_signature(token)?;
        Ok(Claims::check(&payload, &self.rules, now)?)
    }

    /// The `iss` that its tokens have; `None`: any.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.rules.issuer.as_deref()
    }

    /// How long a token may wait for its key.
    pub(super) fn patience(&self) -> Duration {
        match &self.keys {
            Verifying::One(_) => Duration::ZERO,
            Verifying::Set(keys) => keys.patience(),
        }
    }

    /// Whether there is a key to verify with.
    pub(super) fn is_ready(&self) -> bool {
        match &self.keys {
            Verifying::One(_) => true,
            Verifying::Set(keys) => keys.is_ready(),
        }
    }

    /// Everything but the claims, which it returns decoded from base64url.
    pub(super) fn verify_signature(&self, token: &str) -> Result<Vec<u8>, Undecided> {
        let parts = Parts::of(token)?;
        let header = self.check_header(&decode(parts.header)?)?;
        let payload = decode(parts.payload)?;
        match &self.keys {
            Verifying::One(key) => parts.verify(key, header.algorithm)?,
            Verifying::Set(keys) => verify_with_set(keys, &header, &parts)?,
        }
        Ok(payload)
    }

    fn check_header(&self, bytes: &[u8]) -> Result<Header, TokenRefused> {
        let header = json::parse_object(bytes).map_err(|fault| match fault {
            Fault::Malformed => TokenRefused::HeaderMalformed,
            Fault::Duplicate => TokenRefused::Duplicate,
        })?;
        if let Some(member) = REFUSED_MEMBERS.iter().find(|m| header.get(m).is_some()) {
            return Err(TokenRefused::HeaderMember(member));
        }
        string_member(&header, "typ")?;
        let kid = string_member(&header, "kid")?;
        if string_member(&header, "cty")?.is_some_and(is_nested) {
            return Err(TokenRefused::Nested);
        }
        let named = string_member(&header, "alg")?.ok_or(TokenRefused::HeaderMalformed)?;
        let named = named.parse().map_err(|_| TokenRefused::Algorithm)?;
        let mut accepted = self.algorithms.iter().copied();
        let algorithm = accepted
            .find(|algorithm| library_name(*algorithm) == named)
            .ok_or(TokenRefused::Algorithm)?;
        Ok(Header {
            algorithm,
            kid: kid.map(str::to_owned),
        })
    }
}

fn verify_with_set(
    keys: &Arc<LiveKeys>,
    header: &Header,
    parts: &Parts<'_>,
) -> Result<(), Undecided> {
    let kid = header.kid.as_deref();
    let (set, readings) = keys.current();
    let found = set.as_ref().map(|set| set.find(kid, header.algorithm));
    let refused = match found {
        Some(Found::Key(key)) => return Ok(parts.verify(key, header.algorithm)?),
        Some(Found::OtherAlgorithm) => return Err(TokenRefused::KeyAlgorithm.into()),
        Some(Found::Ambiguous) => return Err(TokenRefused::KeyAmbiguous.into()),
        Some(Found::Unknown) => TokenRefused::KeyUnknown,
        None => TokenRefused::KeysUnavailable,
    };
    // Without a set all tokens wait for the same.
    let token = set.is_some().then_some(parts.token);
    Err(Undecided {
        refused,
        pending: Some(keys.pending(token, readings)),
    })
}

/// What a header that was found good says.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

/// The parts of a compact JWS, none of them empty (RFC 7515 §7.1).
struct Parts<'t> {
    token: &'t str,
    /// Header and payload with the dot, which is what was signed.
    message: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Result<Self, TokenRefused> {
        if token.len() > MAX_TOKEN {
            return Err(TokenRefused::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenRefused::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenRefused::Malformed)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(TokenRefused::Malformed);
        }
        Ok(Self {
            token,
            message,
            header,
            payload,
            signature,
        })
    }

    fn verify(&self, key: &DecodingKey, algorithm: Algorithm) -> Result<(), TokenRefused> {
        let message = self.message.as_bytes();
        match crypto::verify(self.signature, message, key, library_name(algorithm)) {
            Ok(true) => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::Base64(_)) => {
                Err(TokenRefused::Malformed)
            }
            Ok(false) | Err(_) => Err(TokenRefused::Signature),
        }
    }
}

/// What a token claims, whoever signed it: only for finding out who should have.
pub(super) fn unverified_payload(token: &str) -> Result<Vec<u8>, TokenRefused> {
    decode(Parts::of(token)?.payload)
}

/// jsonwebtoken's name for an algorithm of the configuration.
pub(super) fn library_name(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    use jsonwebtoken::Algorithm as Library;
    match algorithm {
        Algorithm::HS256 => Library::HS256,
        Algorithm::HS384 => Library::HS384,
        Algorithm::HS512 => Library::HS512,
        Algorithm::RS256 => Library::RS256,
        Algorithm::RS384 => Library::RS384,
        Algorithm::RS512 => Library::RS512,
        Algorithm::PS256 => Library::PS256,
        Algorithm::PS384 => Library::PS384,
        Algorithm::PS512 => Library::PS512,
        Algorithm::ES256 => Library::ES256,
        Algorithm::ES384 => Library::ES384,
        Algorithm::EdDSA => Library::EdDSA,
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
