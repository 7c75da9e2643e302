//! What the edge itself signs: a short-lived JWT about a client, for its upstream.
//!
//! Owns the signing key and its public half as a JWKS (RFC 7515, RFC 7517, RFC 7518 §3.4,
//! RFC 7638). Knows nothing of the header that carries the token. The private key never
//! leaves this file, and no message repeats any of its bytes.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::auth::Admission;
use crate::auth::public_key::pem_labels;
use crate::auth::secret;
use crate::config::identity::Identity;
use crate::config::problem::Problem;
use crate::config::{KeySource, Line, SignedIdentity};

/// Bytes of the longest token that is made: what servers take in one header without being
/// told to, with room for others.
pub const MAX_IDENTITY: usize = 4096;

/// Signs identities.
pub struct Signer {
    key: Arc<EcdsaKeyPair>,
    random: SystemRandom,
    issuer: String,
    key_id: String,
    /// The JOSE header in base64url.
    header: String,
    jwks: String,
}

/// What an identity is about, besides the client.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who the client is.
    pub admission: &'a Admission,
    /// Name of the route.
    pub route: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// `jti`: unique, and the one of `X-Request-Id`.
    pub request_id: &'a str,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The chosen claims do not fit into one header.
    #[error("the chosen claims make an identity of more than 4096 bytes")]
    TooLong,
    /// Our own clock stands before 1970.
    #[error("the system clock is wrong")]
    Clock,
    /// The cryptography library refused.
    #[error("signing failed")]
    Signing,
}

impl Subject<'_> {
    fn claim(&self, claim: &str) -> Option<&Value> {
        self.admission.claims.as_ref()?.lookup(claim)
    }
}

impl Signer {
    /// Reads the key, or makes one. Returns the warnings along with the result.
    ///
    /// # Errors
    /// Everything that is wrong with the key, and the warnings.
    pub fn load(
        identity: &Identity,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut problems = Vec::new();
        let key = match &identity.key {
            Some((source, line)) => read_key(source, *line, env, &mut problems),
            None => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                .map_err(|_| problems.push(error(None, "no random key can be made".into(), HOW)))
                .ok(),
        };
        let signer = key.and_then(|key| Self::new(Arc::new(key), identity.issuer.clone()));
        match signer {
            Some(signer) if !problems.iter().any(Problem::is_error) => Ok((signer, problems)),
            _ => Err(problems),
        }
    }

    fn new(key: Arc<EcdsaKeyPair>, issuer: String) -> Option<Self> {
        let (x, y) = coordinates(key.public_key().as_ref())?;
        let key_id = thumbprint(&x, &y);
        let header = json!({"alg": "ES256", "kid": key_id, "typ": "JWT"});
        let public = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y,
            "use": "sig", "alg": "ES256", "kid": key_id,
        });
        Some(Self {
            key,
            random: SystemRandom::new(),
            issuer,
            key_id,
            header: URL_SAFE_NO_PAD.encode(header.to_string()),
            jwks: json!({ "keys": [public] }).to_string(),
        })
    }

    /// The same key under another `iss`.
    #[must_use]
    pub fn with_issuer(&self, issuer: String) -> Option<Self> {
        Self::new(Arc::clone(&self.key), issuer)
    }

    /// The public key as a JWKS (RFC 7517 §5), for whoever verifies.
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The `kid` of the key: its thumbprint (RFC 7638).
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Makes a token with the claims that `settings` choose. It ends no later than the session
    /// may: at the client's own `exp` and the leeway. A chosen claim that the client's token
    /// lacks is left out.
    ///
    /// # Errors
    /// See [`NotSigned`]. Half an identity is not sent.
    pub fn sign(
        &self,
        settings: &SignedIdentity,
        subject: Subject<'_>,
        now: SystemTime,
    ) -> Result<String, NotSigned> {
        let claims = self.claims(settings, subject, now)?;
        let claims = URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string());
        let mut token = format!("{}.{claims}", self.header);
        let signature = self.key.sign(&self.random, token.as_bytes());
        let signature = signature.map_err(|_| NotSigned::Signing)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        if token.len() > MAX_IDENTITY {
            return Err(NotSigned::TooLong);
        }
        Ok(token)
    }

    fn claims(
        &self,
        settings: &SignedIdentity,
        subject: Subject<'_>,
        now: SystemTime,
    ) -> Result<Map<String, Value>, NotSigned> {
        let seconds = |time: SystemTime| {
            let since_1970 = time.duration_since(UNIX_EPOCH);
            since_1970
                .map(|time| time.as_secs())
                .map_err(|_| NotSigned::Clock)
        };
        let issued = seconds(now)?;
        let mut expires = issued.saturating_add(settings.ttl.as_secs().max(1));
        if let Some(end) = subject.admission.expires_at {
            expires = expires.min(seconds(end)?);
        }
        let mut claims = Map::new();
        for (name, claim) in &settings.claims {
            if let Some(value) = subject.claim(claim) {
                claims.insert(name.clone(), value.clone());
            }
        }
        let own: [(&str, Value); 6] = [
            ("iss", self.issuer.as_str().into()),
            ("aud", subject.audience.into()),
            ("iat", issued.into()),
            ("exp", expires.into()),
            ("jti", subject.request_id.into()),
            ("route", subject.route.into()),
        ];
        claims.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Ok(claims)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("key", &"***")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

fn read_key(
    source: &KeySource,
    line: Line,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<EcdsaKeyPair> {
    let secret = secret::read(source, env)
        .map_err(|found| problems.push(error(Some(line), found, HOW)))
        .ok()?;
    let origin = &secret.origin;
    if let Some(mode) = secret.open_mode() {
        let found = format!("{origin} has mode {mode:04o}");
        let allowed =
            "mode 0600: whoever reads the key can be anyone to your upstreams (chmod 600)";
        problems.push(Problem::warning(line, KEY, found, allowed));
    }
    let key = parse_key(&secret.bytes).map_err(|fault| format!("{origin} holds {fault}"));
    key.map_err(|found| problems.push(error(Some(line), found, HOW)))
        .ok()
}

fn parse_key(pem: &[u8]) -> Result<EcdsaKeyPair, String> {
    let labels = pem_labels(pem);
    match labels.as_slice() {
        [label] if label == "PRIVATE KEY" || label == "EC PRIVATE KEY" => {}
        [label] if label == "ENCRYPTED PRIVATE KEY" => {
            return Err(
                "an encrypted key, and nobody is there to be asked for its password".into(),
            );
        }
        [label] => return Err(format!("a PEM block {label:?}")),
        labels => return Err(format!("{} PEM blocks {labels:?}", labels.len())),
    }
    let der = pem_content(pem).ok_or("PEM that cannot be read")?;
    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
        .map_err(|_| "no EC key on curve P-256".to_owned())
}

/// What stands between the marks of the one block of a PEM text (RFC 7468 §2).
fn pem_content(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, text) = text.split_once("-----BEGIN ")?;
    let (_, text) = text.split_once("-----")?;
    let (text, _) = text.split_once("-----END ")?;
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()
}

fn error(line: Option<Line>, found: String, allowed: &str) -> Problem {
    Problem::error(line, KEY, found, allowed)
}

/// The coordinates of an uncompressed point of P-256 (SEC 1 §2.3.3), in base64url.
fn coordinates(point: &[u8]) -> Option<(String, String)> {
    let coordinates = point.strip_prefix(&[4]).filter(|rest| rest.len() == 64)?;
    let (x, y) = coordinates.split_at(32);
    Some((URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y)))
}

/// RFC 7638 §3: the required members in the order of their names, without white space.
fn thumbprint(x: &str, y: &str) -> String {
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}

/// The key in the configuration.
const KEY: &str = "identity.key";

/// What is allowed, and how to come by it.
const HOW: &str = "an unencrypted EC key on curve P-256 in PEM, alone in its file: openssl genpkey \
     -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out identity.key";

#[cfg(test)]
mod tests;
