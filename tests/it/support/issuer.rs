//! An issuer of tokens with a key pair for each name, and the set it publishes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::token::good_claims;

/// Key pairs on P-256 by their `kid`.
#[derive(Default)]
pub struct Issuer(BTreeMap<String, rcgen::KeyPair>);

impl Issuer {
    /// With a pair for each name.
    pub fn new(kids: &[&str]) -> Self {
        let pairs = kids.iter().map(|kid| {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
            ((*kid).to_owned(), pair.expect("a key pair"))
        });
        Self(pairs.collect())
    }

    /// The set with these of the keys.
    pub fn publishes(&self, kids: &[&str]) -> String {
        let keys: Vec<Value> = kids.iter().map(|kid| self.jwk(kid)).collect();
        json!({ "keys": keys }).to_string()
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let point = self.0[kid].public_key_raw();
        let (x, y) = point[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// A token with good claims, signed with this key.
    pub fn token(&self, kid: &str) -> String {
        self.token_that_says(kid, &good_claims())
    }

    pub fn token_that_says(&self, kid: &str, claims: &Value) -> String {
        let header = Header {
            kid: Some(kid.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let pem = self.0[kid].serialize_pem();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).expect("a private key");
        encode(&header, claims, &key).expect("it can be signed")
    }
}
