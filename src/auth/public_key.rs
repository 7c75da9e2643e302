//! What a key is: its kind, which decides the algorithms it may be used with.
//!
//! Owns the recognition of PEM blocks (RFC 7468) and public keys. jsonwebtoken takes a key of
//! any curve or size without a look; this looks.

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RsaPublicKeyComponents,
};
use jsonwebtoken::DecodingKey;

use crate::config::Algorithm;

/// Bits of RSA keys: the lower bound is that of RFC 7518 §3.3, the upper that of aws-lc-rs.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What a key must be for an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hmac,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    pub(super) fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Self::Hmac,
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => Self::Rsa,
            Algorithm::ES256 => Self::P256,
            Algorithm::ES384 => Self::P384,
            Algorithm::EdDSA => Self::Ed25519,
        }
    }

    /// With its article, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hmac => "a secret of at least 32 random bytes",
            Self::Rsa => "an RSA key of 2048 to 8192 bits",
            Self::P256 => "an EC key on curve P-256",
            Self::P384 => "an EC key on curve P-384",
            Self::Ed25519 => "an Ed25519 key",
        }
    }
}

/// The labels of the PEM blocks in a text, as in `-----BEGIN label-----` (RFC 7468 §2).
pub(super) fn pem_labels(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text)
        .lines()
        .filter_map(|line| {
            let label = line.trim().strip_prefix("-----BEGIN ")?;
            label.strip_suffix("-----").map(str::to_owned)
        })
        .collect()
}

/// A public key and what it turned out to be.
pub(super) struct PublicKey {
    pub(super) key: DecodingKey,
    /// `None`: of a family we know, but not one we take.
    pub(super) kind: Option<Kind>,
    /// With its article, for messages.
    pub(super) found: String,
}

impl PublicKey {
    /// `None`: of no family we know, or not readable at all.
    pub(super) fn parse(pem: &[u8]) -> Option<Self> {
        rsa(pem).or_else(|| ec(pem)).or_else(|| ed25519(pem))
    }

    /// From modulus and exponent (RFC 7518 §6.3.1). `None`: no RSA key.
    pub(super) fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let components = RsaPublicKeyComponents {
            n: modulus,
            e: exponent,
        };
        let (kind, found) = judge_rsa(modulus, exponent);
        if kind.is_some() {
            let _valid: PublicEncryptingKey = components.try_into().ok()?;
        }
        Some(Self {
            key: DecodingKey::from_rsa_raw_components(modulus, exponent),
            kind,
            found,
        })
    }

    /// From coordinates, which have the full length of the curve's (§6.2.1.2). `None`: no
    /// point of the curve.
    pub(super) fn from_point(kind: Kind, x: &[u8], y: &[u8]) -> Option<Self> {
        let (curve, length) = match kind {
            Kind::P256 => (&ECDSA_P256_SHA256_FIXED, 32),
            Kind::P384 => (&ECDSA_P384_SHA384_FIXED, 48),
            Kind::Hmac | Kind::Rsa | Kind::Ed25519 => return None,
        };
        if x.len() != length || y.len() != length {
            return None;
        }
        let point = [&[UNCOMPRESSED], x, y].concat();
        ParsedPublicKey::new(curve, &point).ok()?;
        Some(Self {
            key: DecodingKey::from_ec_der(&point),
            kind: Some(kind),
            found: kind.name().to_owned(),
        })
    }

    /// From the 32 bytes of RFC 8032 §5.1.5. `None`: something else.
    pub(super) fn from_ed25519(x: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ED25519, x).ok()?;
        Some(Self {
            key: DecodingKey::from_ed_der(x),
            kind: Some(Kind::Ed25519),
            found: Kind::Ed25519.name().to_owned(),
        })
    }
}

/// The first byte of a point that is written as two coordinates (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Whether an RSA key is one we take, and what it is, for messages.
///
/// The library looks at the size only. With the exponent 1 everyone could sign, and an even
/// one is none (RFC 8017 §3.1).
fn judge_rsa(modulus: &[u8], exponent: &[u8]) -> (Option<Kind>, String) {
    let size = bits(modulus);
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
    if !is_odd || bits(exponent) < 2 {
        return (None, "an RSA key whose exponent is 1 or even".to_owned());
    }
    let kind = RSA_BITS.contains(&size).then_some(Kind::Rsa);
    (kind, format!("an RSA key of {size} bits"))
}

/// The size of a number in big-endian bytes.
fn bits(number: &[u8]) -> usize {
    let mut digits = number.iter().skip_while(|byte| **byte == 0);
    let unused = digits
        .next()
        .map_or(8, |first| first.leading_zeros() as usize);
    digits.count() * 8 + 8 - unused
}

fn rsa(pem: &[u8]) -> Option<PublicKey> {
    let key = DecodingKey::from_rsa_pem(pem).ok()?;
    let der = key.try_get_as_bytes().ok()?;
    let parsed = aws_lc_rs::rsa::PublicKey::from_der(der).ok()?;
    let components = RsaPublicKeyComponents::<Vec<u8>>::from(&parsed);
    let (kind, found) = judge_rsa(&components.n, &components.e);
    Some(PublicKey { key, kind, found })
}

fn ec(pem: &[u8]) -> Option<PublicKey> {
    let key = DecodingKey::from_ec_pem(pem).ok()?;
    let point = key.try_get_as_bytes().ok()?;
    let kind = if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok() {
        Some(Kind::P256)
    } else if ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).is_ok() {
        Some(Kind::P384)
    } else {
        None
    };
    let found = kind.map_or(
        "an EC key on another curve than P-256 and P-384",
        Kind::name,
    );
    Some(PublicKey {
        key,
        kind,
        found: found.to_owned(),
    })
}

fn ed25519(pem: &[u8]) -> Option<PublicKey> {
    let key = DecodingKey::from_ed_pem(pem).ok()?;
    ParsedPublicKey::new(&ED25519, key.try_get_as_bytes().ok()?).ok()?;
    Some(PublicKey {
        key,
        kind: Some(Kind::Ed25519),
        found: Kind::Ed25519.name().to_owned(),
    })
}
