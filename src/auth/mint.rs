//! Makes tokens that a route accepts, for trying things out (`tidegate token`, the demo).
//!
//! Owns what such a token says. Nothing on the way of a connection uses it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::auth::claims::MAX_NUMERIC_DATE;
use crate::auth::jwt::{Verifier, library_name};
use crate::auth::keys::{self, Verifying};
use crate::auth::public_key::{Kind, pem_labels};
use crate::auth::refused::TokenRefused;
use crate::config::problem::Problem;
use crate::config::{Algorithm, Jwt, Keys};

/// What the token is to say.
#[derive(Clone, Debug, Default)]
pub struct MintRequest {
    /// `sub`; `None`: the token has none.
    pub subject: Option<String>,
    /// From `iat` to `exp`, rounded up to whole seconds.
    pub ttl: Duration,
    /// Further claims. Those that the token gets anyway cannot be given here.
    pub claims: Vec<(String, Value)>,
    /// The private key, PKCS#8 in PEM (RSA: also PKCS#1). Needed where the route's own key
    /// cannot sign, and refused where it can.
    pub signing_key: Option<PathBuf>,
}

/// Makes a token with the first of the route's algorithms, its `iss` and the first of its
/// `aud`, `iat` = `now` and `exp` = `now` + `ttl`.
///
/// # Errors
/// See [`MintError`]. A token that is returned has a signature that the route accepts.
pub fn mint(
    jwt: &Jwt,
    env: &dyn Fn(&str) -> Option<String>,
    request: &MintRequest,
    now: SystemTime,
) -> Result<String, MintError> {
    let Keys::One(source) = &jwt.keys else {
        return Err(MintError::KeySet);
    };
    let (loaded, _warnings) = keys::load(jwt, source, env).map_err(MintError::Key)?;
    // A key that loaded has an algorithm, and its kind is that of them all.
    let algorithm = *jwt.algorithms.first().ok_or(MintError::Signing)?;
    let key = signing_key(loaded.signing, request, algorithm)?;
    let header = Header::new(library_name(algorithm));
    let claims = claims(jwt, request, now)?;
    let token = jsonwebtoken::encode(&header, &claims, &key).map_err(|_| {
        // A key on another curve is found out only here.
        let path = request.signing_key.as_deref();
        path.map_or(MintError::Signing, |path| wrong_kind(path, algorithm))
    })?;
    let verifier = Verifier::new(jwt, Verifying::One(loaded.verifying));
    match verifier.verify_signature(&token) {
        Ok(_) => Ok(token),
        Err(undecided) if undecided.refused == TokenRefused::TooLong => Err(MintError::TooLong),
        Err(_) => Err(MintError::OtherKey),
    }
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum MintError {
    /// The route's own key cannot be loaded: these are the problems.
    #[error("the route's key cannot be loaded")]
    Key(Vec<Problem>),
    /// The route verifies with a set of keys.
    #[error(
        "the route takes the keys of its issuer (jwks), who alone can sign tokens for it: \
         ask the issuer for one"
    )]
    KeySet,
    /// The route verifies with a public key, and no private one was given.
    #[error("{0:?} tokens are signed with a private key, which the route does not have: give one")]
    SigningKeyNeeded(Algorithm),
    /// A private key was given although the route's secret signs.
    #[error("{0:?} tokens are signed with the route's own secret: give no other key")]
    SigningKeyUnused(Algorithm),
    /// The file of the private key cannot be read.
    #[error("cannot read {}", .0.display())]
    SigningKeyFile(PathBuf, #[source] std::io::Error),
    /// The file holds something else than a private key for the algorithm.
    #[error("{} does not hold {wanted} as a private key in PKCS#8 PEM; to convert: \
             openssl pkcs8 -topk8 -nodes -in key.pem -out pkcs8.pem", path.display())]
    SigningKeyKind {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The private key is not the other half of the route's public key.
    #[error("the route would not accept the token: the keys do not belong together")]
    OtherKey,
    /// The token would be longer than what is accepted.
    #[error("the token would be too long: give fewer claims")]
    TooLong,
    /// A claim that the token gets anyway, or that was given twice.
    #[error("the claim `{0}` is set already")]
    ClaimTaken(String),
    /// `exp` would lie beyond the year 9999, or `now` before 1970.
    #[error("the time to live is out of range")]
    Time,
    /// The cryptography library refused.
    #[error("signing failed")]
    Signing,
}

/// The route's own secret, or the private key that was given.
fn signing_key(
    own: Option<EncodingKey>,
    request: &MintRequest,
    algorithm: Algorithm,
) -> Result<EncodingKey, MintError> {
    let path = match (own, &request.signing_key) {
        (Some(own), None) => return Ok(own),
        (Some(_), Some(_)) => return Err(MintError::SigningKeyUnused(algorithm)),
        (None, None) => return Err(MintError::SigningKeyNeeded(algorithm)),
        (None, Some(path)) => path,
    };
    let (pem, _mode) =
        keys::read_file(path).map_err(|error| MintError::SigningKeyFile(path.clone(), error))?;
    let key = match Kind::of(algorithm) {
        Kind::Rsa => EncodingKey::from_rsa_pem(&pem),
        Kind::P256 | Kind::P384 => EncodingKey::from_ec_pem(&pem),
        Kind::Hmac | Kind::Ed25519 => EncodingKey::from_ed_pem(&pem),
    };
    let labels = pem_labels(&pem);
    let is_private = labels.len() == 1 && labels.iter().all(|l| l.ends_with("PRIVATE KEY"));
    key.ok()
        .filter(|_| is_private)
        .ok_or_else(|| wrong_kind(path, algorithm))
}

fn wrong_kind(path: &Path, algorithm: Algorithm) -> MintError {
    MintError::SigningKeyKind {
        path: path.to_owned(),
        wanted: Kind::of(algorithm).name(),
    }
}

fn claims(
    jwt: &Jwt,
    request: &MintRequest,
    now: SystemTime,
) -> Result<Map<String, Value>, MintError> {
    let issued = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| MintError::Time)?;
    let ttl = request
        .ttl
        .as_secs()
        .saturating_add(u64::from(request.ttl.subsec_nanos() > 0));
    let expires = issued
        .as_secs()
        .checked_add(ttl)
        .filter(|exp| *exp <= MAX_NUMERIC_DATE)
        .ok_or(MintError::Time)?;
    let mut claims = Map::new();
    claims.insert("iat".to_owned(), issued.as_secs().into());
    claims.insert("exp".to_owned(), expires.into());
    let texts = [
        ("iss", jwt.issuer.as_ref()),
        ("aud", jwt.audience.first()),
        ("sub", request.subject.as_ref()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            claims.insert(name.to_owned(), text.as_str().into());
        }
    }
    for (name, value) in &request.claims {
        if claims.insert(name.clone(), value.clone()).is_some() {
            return Err(MintError::ClaimTaken(name.clone()));
        }
    }
    Ok(claims)
}

#[cfg(test)]
mod tests;
