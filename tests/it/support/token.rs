//! Tokens as an identity provider would make them, good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The secret of the tests' routes.
pub const SECRET: &str = "the tests' own secret of forty-two bytes..";

/// The environment variable that holds it.
pub const SECRET_NAME: &str = "TIDEGATE_TEST_SECRET";

/// The `iss` the routes expect.
pub const ISSUER: &str = "https://id.example.com";

/// The `aud` the routes expect.
pub const AUDIENCE: &str = "chat";

/// Claims that the routes accept.
pub fn good_claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": seconds_from_now(60) })
}

/// A token that the routes accept.
pub fn good() -> String {
    signed(&good_claims(), SECRET)
}

pub fn signed(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), claims, &key).expect("it can be signed")
}

/// The first message that carries `token`.
pub fn message(token: &str) -> String {
    json!({ "token": token }).to_string()
}

pub fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs().cast_signed() + seconds
}
