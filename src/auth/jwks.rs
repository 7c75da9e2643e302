//! A set of public keys as an issuer publishes it (RFC 7517 §5): read, bounded, pinned.
//!
//! Every key that is kept is for exactly one algorithm: the one it names, or the only one of
//! the configuration that its kind is fit for (RFC 8725 §3.1). The token chooses among keys
//! by `kid`, and never what a key is used for. A key that is not understood is set aside and
//! the others are used (§5); what an operator should hear of it is [`SetAside`].
//!
//! Knows not where the document came from.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::Value;
use thiserror::Error;

use crate::auth::json::{self, Fault};
use crate::auth::public_key::{Kind, PublicKey};
use crate::config::Algorithm;

/// Bytes of the largest document: large issuers publish ten keys of 2 KiB, with certificates.
pub const MAX_DOCUMENT: usize = 128 << 10;

/// Keys of the largest set. A token's key is looked for one by one.
pub const MAX_KEYS: usize = 64;

/// Bytes of the longest `kid`: digests and URLs fit.
const MAX_KID: usize = 256;

/// Members that only a private key has (RFC 7518 §6.2.2 and §6.3.2, RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 4] = ["d", "p", "q", "oth"];

/// The keys of one issuer that are of use to a route.
pub struct KeySet(Vec<SetKey>);

struct SetKey {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    /// Its `Debug` is a mask.
    key: DecodingKey,
}

/// What came of a look-up.
pub(super) enum Found<'s> {
    Key(&'s DecodingKey),
    /// No key of that name; a newer set may have one.
    Unknown,
    /// The key of that name is for another algorithm.
    OtherAlgorithm,
    /// No name was given, and several keys would do.
    Ambiguous,
}

impl KeySet {
    /// Reads a document. The second part is the keys that are not used.
    ///
    /// # Errors
    /// A document that is no set, is out of bounds, or has no key for `algorithms`.
    pub fn parse(
        document: &[u8],
        algorithms: &[Algorithm],
    ) -> Result<(Self, Vec<SetAside>), SetRefused> {
        if document.len() > MAX_DOCUMENT {
            return Err(SetRefused::TooLarge);
        }
        let document = json::parse_object(document).map_err(|fault| match fault {
            Fault::Malformed => SetRefused::NotJson,
            Fault::Duplicate => SetRefused::Duplicate,
        })?;
        let keys = document.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(SetRefused::NoKeys)?;
        if keys.len() > MAX_KEYS {
            return Err(SetRefused::TooMany(keys.len()));
        }
        let (mut kept, mut set_aside) = (Vec::<SetKey>::new(), Vec::new());
        for (index, jwk) in keys.iter().enumerate() {
            match read(jwk, algorithms) {
                Ok(key) if key.kid.is_some() && kept.iter().any(|other| other.is_like(&key)) => {
                    set_aside.push(SetAside::new(index, jwk, Why::Repeated));
                }
                Ok(key) => kept.push(key),
                Err(why) => set_aside.push(SetAside::new(index, jwk, why)),
            }
        }
        if kept.is_empty() {
            return Err(SetRefused::NoneFits(set_aside));
        }
        Ok((Self(kept), set_aside))
    }

    /// How many keys are of use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is, which no set that was read is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key for a token of this algorithm that names this key, or none.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
        let Some(kid) = kid else {
            return match (fitting.next(), fitting.next()) {
                (Some(only), None) => Found::Key(&only.key),
                (Some(_), Some(_)) => Found::Ambiguous,
                (None, _) => Found::Unknown,
            };
        };
        let is_named = |key: &&SetKey| key.kid.as_deref() == Some(kid);
        match fitting.find(is_named) {
            Some(named) => Found::Key(&named.key),
            None if self.0.iter().any(|key| is_named(&key)) => Found::OtherAlgorithm,
            None => Found::Unknown,
        }
    }
}

impl SetKey {
    /// Whether no token could tell the two apart.
    fn is_like(&self, other: &Self) -> bool {
        self.kid == other.kid && self.algorithm == other.algorithm
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.iter().map(|key| (&key.kid, key.algorithm));
        f.debug_list().entries(keys).finish()
    }
}

/// Why a document is not used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SetRefused {
    /// More than [`MAX_DOCUMENT`] bytes.
    #[error("it is larger than {} KiB", MAX_DOCUMENT >> 10)]
    TooLarge,
    /// Not a JSON object.
    #[error("it is not a JSON object")]
    NotJson,
    /// A member occurs twice, so that readers may disagree.
    #[error("it repeats a member")]
    Duplicate,
    /// No array `keys`.
    #[error("it has no array `keys` (RFC 7517 §5)")]
    NoKeys,
    /// More than [`MAX_KEYS`] keys.
    #[error("it has {0} keys, more than {MAX_KEYS}")]
    TooMany(usize),
    /// None of the keys is of use; these are the reasons.
    #[error("it has no key for the configured algorithms{}", listed(.0))]
    NoneFits(Vec<SetAside>),
}

fn listed(set_aside: &[SetAside]) -> String {
    let mut text = String::new();
    for one in set_aside.iter().take(3) {
        text += if text.is_empty() { ": " } else { "; " };
        text += &one.to_string();
    }
    if set_aside.len() > 3 {
        text += &format!("; and {} more", set_aside.len() - 3);
    }
    text
}

/// A key that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    name: String,
    why: Why,
}

impl SetAside {
    fn new(index: usize, jwk: &Value, why: Why) -> Self {
        let kid = jwk.get("kid").and_then(Value::as_str);
        let kid = kid.filter(|kid| kid.len() <= 64 && kid.bytes().all(|b| b.is_ascii_graphic()));
        let name = match kid {
            Some(kid) => format!("key `{kid}`"),
            None => format!("key {}", index + 1),
        };
        Self { name, why }
    }

    /// Whether something is wrong with the key, rather than that it is for something else.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(
            self.why,
            Why::Unsupported | Why::OtherUse | Why::NotConfigured
        )
    }
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.why)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Why {
    #[error("is symmetric: whoever can read the set could sign tokens")]
    Symmetric,
    #[error("is a private key: whoever can read the set can sign tokens, so replace it")]
    Private,
    #[error("is no JWK: `{0}` is missing or malformed")]
    Malformed(&'static str),
    #[error("is {0}")]
    Weak(String),
    #[error("is of a type or on a curve that is not supported")]
    Unsupported,
    #[error("is not for signatures")]
    OtherUse,
    #[error("is for no configured algorithm")]
    NotConfigured,
    #[error("names {0:?}, which a key of its type is not for")]
    Contradictory(Algorithm),
    #[error("names no `alg`, and {0:?} would all fit")]
    Ambiguous(Vec<Algorithm>),
    #[error("has the name of another key")]
    Repeated,
}

/// One key, judged from what it is to what it is for.
fn read(jwk: &Value, algorithms: &[Algorithm]) -> Result<SetKey, Why> {
    let kty = text(jwk, "kty")?.ok_or(Why::Malformed("kty"))?;
    if kty == "oct" || jwk.get("k").is_some() {
        return Err(Why::Symmetric);
    }
    if PRIVATE_MEMBERS.iter().any(|m| jwk.get(m).is_some()) {
        return Err(Why::Private);
    }
    check_use(jwk)?;
    let kid = text(jwk, "kid")?;
    if kid.is_some_and(|kid| kid.len() > MAX_KID) {
        return Err(Why::Malformed("kid"));
    }
    let public = match kty {
        "RSA" => PublicKey::from_rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?),
        "EC" => match text(jwk, "crv")?.ok_or(Why::Malformed("crv"))? {
            "P-256" => PublicKey::from_point(Kind::P256, &bytes(jwk, "x")?, &bytes(jwk, "y")?),
            "P-384" => PublicKey::from_point(Kind::P384, &bytes(jwk, "x")?, &bytes(jwk, "y")?),
            _ => return Err(Why::Unsupported),
        },
        "OKP" => match text(jwk, "crv")?.ok_or(Why::Malformed("crv"))? {
            "Ed25519" => PublicKey::from_ed25519(&bytes(jwk, "x")?),
            _ => return Err(Why::Unsupported),
        },
        _ => return Err(Why::Unsupported),
    };
    let public = public.ok_or(Why::Malformed(if kty == "RSA" { "n" } else { "x" }))?;
    let kind = public.kind.ok_or(Why::Weak(public.found))?;
    Ok(SetKey {
        kid: kid.map(Into::into),
        algorithm: pin(jwk, kind, algorithms)?,
        key: public.key,
    })
}

/// `use` and `key_ops` may be absent, and must then say nothing else (§4.2, §4.3).
fn check_use(jwk: &Value) -> Result<(), Why> {
    if text(jwk, "use")?.is_some_and(|used| used != "sig") {
        return Err(Why::OtherUse);
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|op| op == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(Why::OtherUse),
        Some(_) => Err(Why::Malformed("key_ops")),
    }
}

/// The one algorithm that the key is for.
fn pin(jwk: &Value, kind: Kind, algorithms: &[Algorithm]) -> Result<Algorithm, Why> {
    if let Some(own) = text(jwk, "alg")? {
        // The configured ones go by the name that a key has for them.
        let named = algorithms.iter().find(|one| format!("{one:?}") == own);
        let named = *named.ok_or(Why::NotConfigured)?;
        return match Kind::of(named) == kind {
            true => Ok(named),
            false => Err(Why::Contradictory(named)),
        };
    }
    let fitting = algorithms.iter().filter(|one| Kind::of(**one) == kind);
    let fitting: Vec<Algorithm> = fitting.copied().collect();
    match fitting.as_slice() {
        [] => Err(Why::NotConfigured),
        [only] => Ok(*only),
        _ => Err(Why::Ambiguous(fitting)),
    }
}

fn text<'j>(jwk: &'j Value, member: &'static str) -> Result<Option<&'j str>, Why> {
    match jwk.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Why::Malformed(member)),
    }
}

fn bytes(jwk: &Value, member: &'static str) -> Result<Vec<u8>, Why> {
    let text = text(jwk, member)?.ok_or(Why::Malformed(member))?;
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map_err(|_| Why::Malformed(member))
}

#[cfg(test)]
mod tests;
