//! Keys, configurations and tokens for the tests of this module.

use std::fs::{self, Permissions};
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey, crypto};
use serde_json::{Value, json};

use crate::auth::jwt::{Verifier, library_name};
use crate::auth::key_sets::KeySets;
use crate::auth::public_key::Kind;
use crate::config::{
    Algorithm, Auth, ClaimFormat, ClaimHeader, Jwks, JwksSource, Jwt, KeySource, Keys, Line,
    MessageShape, PathPattern, Route, TokenAuth, TokenPlace,
};
use crate::proto::limits::{Limits, OnExcess, Quota, Rate};
use crate::proto::policy::{Backpressure, Keepalive, OnExpiry, OnSlowConsumer, Policy};

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The seconds of [`now`].
pub(super) const NOW: u64 = 1_900_000_000;

pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// Knows one variable, with the secret.
pub(super) fn env(name: &str) -> Option<String> {
    (name == "SECRET").then(|| SECRET.to_owned())
}

/// `iss` = `iss`, `aud` = `edge` or `edge2`, 30 s leeway.
pub(super) fn jwt(algorithm: Algorithm, key: KeySource) -> Jwt {
    Jwt {
        place: "route.chat.auth.jwt".to_owned(),
        algorithms: vec![algorithm],
        keys: Keys::One(key),
        issuer: Some("iss".to_owned()),
        audience: vec!["edge".to_owned(), "edge2".to_owned()],
        leeway: Duration::from_secs(30),
        line: Line(7),
    }
}

pub(super) fn secret_jwt() -> Jwt {
    jwt(Algorithm::HS256, KeySource::Env("SECRET".to_owned()))
}

pub(super) fn verifier(jwt: &Jwt) -> Verifier {
    match Verifier::load(jwt, &env, &mut KeySets::default()) {
        Ok((verifier, _warnings)) => verifier,
        Err(problems) => panic!("{problems:?}"),
    }
}

/// A token signed with [`SECRET`], whatever its parts say.
pub(super) fn token(header: &str, claims: &str) -> String {
    sign_parts(header, claims, Algorithm::HS256, SECRET.as_bytes())
}

pub(super) fn sign_parts(header: &str, claims: &str, with: Algorithm, secret: &[u8]) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let key = EncodingKey::from_secret(secret);
    let signature =
        crypto::sign(message.as_bytes(), &key, library_name(with)).expect("HMAC signs anything");
    format!("{message}.{signature}")
}

pub(super) fn base64url(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Claims that pass, with members replaced (or with `null` removed) by those of `changes`.
pub(super) fn good_claims(changes: Value) -> String {
    let mut claims = serde_json::json!({
        "iss": "iss", "aud": "edge", "sub": "alice", "iat": NOW, "exp": NOW + 60,
    });
    for (name, value) in changes.as_object().expect("an object of changes") {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        }
    }
    claims.to_string()
}

/// A token in the first message.
pub(super) fn first_message_with(token_field: Option<&str>, jwt: Jwt) -> Auth {
    let shape = MessageShape {
        token_field: token_field.map(str::to_owned),
        message_type: None,
    };
    Auth::Token(TokenAuth {
        places: vec![TokenPlace::FirstMessage(shape)],
        forward_token: false,
        jwt: vec![jwt],
    })
}

/// A route that asks for a token, or for none.
pub(super) fn route(auth: Auth, headers: &[(&str, &str)]) -> Route {
    let headers = headers.iter().map(|(header, claim)| ClaimHeader {
        header: (*header).to_owned(),
        claim: (*claim).to_owned(),
        format: ClaimFormat::Text,
    });
    Route {
        name: "chat".to_owned(),
        host: None,
        path: PathPattern::Exact("/chat".to_owned()),
        origins: Vec::new(),
        allow_missing_origin: false,
        subprotocols: Vec::new(),
        subprotocols_required: false,
        upstream: 0,
        auth,
        authorize: None,
        identity: None,
        headers: headers.collect(),
        admission: crate::config::RouteAdmission::default(),
        policy: Arc::new(policy()),
        line: Line(3),
    }
}

fn policy() -> Policy {
    let second = Duration::from_secs(1);
    Policy {
        first_message: None,
        on_expiry: OnExpiry::Ignore,
        inspection: None,
        limits: Limits {
            max_frame_size: 1,
            max_message_size: 1,
            max_upstream_frame_size: None,
            max_upstream_message_size: None,
            messages: None,
            bytes: None,
            control: Quota {
                rate: Rate {
                    units: NonZeroU64::MIN,
                    per: second,
                },
                burst: NonZeroU64::MIN,
                on_excess: OnExcess::Close,
            },
            validate_utf8: true,
        },
        backpressure: Backpressure {
            high_watermark: 2,
            low_watermark: 1,
            on_slow_consumer: OnSlowConsumer::Throttle,
            stall_timeout: second,
        },
        keepalive: Keepalive {
            ping_interval: None,
            upstream_ping_interval: None,
            pong_timeout: second,
            idle_timeout: None,
            max_lifetime: None,
            heartbeat: None,
        },
        hold: None,
        close_timeout: second,
    }
}

/// A key pair as files would hold it.
pub(super) struct Pair {
    pub(super) private: String,
    pub(super) public: String,
}

pub(super) static P256: LazyLock<Pair> = LazyLock::new(|| pair(&rcgen::PKCS_ECDSA_P256_SHA256));
pub(super) static P384: LazyLock<Pair> = LazyLock::new(|| pair(&rcgen::PKCS_ECDSA_P384_SHA384));
pub(super) static ED25519: LazyLock<Pair> = LazyLock::new(|| pair(&rcgen::PKCS_ED25519));

/// Slow to make: once for all tests.
pub(super) static RSA: LazyLock<Pair> = LazyLock::new(|| {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("an RSA key");
    let private: Pkcs8V1Der<'_> = key.as_der().expect("PKCS#8");
    let public: PublicKeyX509Der<'_> = aws_lc_rs::signature::KeyPair::public_key(&key)
        .as_der()
        .expect("SPKI");
    Pair {
        private: pem("PRIVATE KEY", private.as_ref()),
        public: pem("PUBLIC KEY", public.as_ref()),
    }
});

fn pair(kind: &'static rcgen::SignatureAlgorithm) -> Pair {
    let key = rcgen::KeyPair::generate_for(kind).expect("a key pair");
    Pair {
        private: key.serialize_pem(),
        public: key.public_key_pem(),
    }
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

impl Pair {
    /// The public half as a JWK, with more members or others.
    pub(super) fn jwk(&self, more: Value) -> Value {
        let pem = self.public.as_bytes();
        let mut jwk = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            let der = key.try_get_as_bytes().expect("DER");
            let key = rsa::PublicKey::from_der(der).expect("an RSA key");
            let key = RsaPublicKeyComponents::<Vec<u8>>::from(&key);
            json!({"kty": "RSA", "n": base64url(key.n), "e": base64url(key.e)})
        } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            let (x, y) = {
                let point = key.try_get_as_bytes().expect("a point");
                point[1..].split_at(point.len() / 2)
            };
            let crv = if x.len() == 32 { "P-256" } else { "P-384" };
            json!({"kty": "EC", "crv": crv, "x": base64url(x), "y": base64url(y)})
        } else {
            let key = DecodingKey::from_ed_pem(pem).expect("an Ed25519 key");
            let x = key.try_get_as_bytes().expect("32 bytes");
            json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(x)})
        };
        for (name, value) in more.as_object().expect("an object of members") {
            jwk[name] = value.clone();
        }
        jwk
    }

    /// A token of these parts that this pair signed.
    pub(super) fn sign(&self, header: &Value, claims: &str, with: Algorithm) -> String {
        let pem = self.private.as_bytes();
        let key = match Kind::of(with) {
            Kind::Rsa => EncodingKey::from_rsa_pem(pem),
            Kind::P256 | Kind::P384 => EncodingKey::from_ec_pem(pem),
            Kind::Hmac | Kind::Ed25519 => EncodingKey::from_ed_pem(pem),
        };
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims));
        let key = key.expect("a private key");
        let signature = crypto::sign(message.as_bytes(), &key, library_name(with));
        format!("{message}.{}", signature.expect("a key for the algorithm"))
    }
}

/// A document with these keys.
pub(super) fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// A rule like [`jwt`] with a set of keys in a file.
pub(super) fn set_jwt(algorithms: &[Algorithm], file: &Path) -> Jwt {
    Jwt {
        algorithms: algorithms.to_vec(),
        keys: Keys::Set(Jwks {
            source: JwksSource::File(file.to_owned()),
            refresh: Duration::from_secs(2),
            refetch_interval: Duration::from_secs(1),
            timeout: Duration::ZERO,
            max_age: None,
        }),
        ..secret_jwt()
    }
}

/// A file that is removed when dropped.
pub(super) struct TempFile(PathBuf);

impl TempFile {
    pub(super) fn new(contents: impl AsRef<[u8]>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-auth-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, contents).expect("a writable temporary directory");
        let file = Self(path);
        file.chmod(0o600);
        file
    }

    pub(super) fn chmod(&self, mode: u32) {
        fs::set_permissions(&self.0, Permissions::from_mode(mode)).expect("our own file");
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn source(&self) -> KeySource {
        KeySource::File(self.0.clone())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // A file left behind in the temporary directory harms no other test.
        let _removed = fs::remove_file(&self.0);
    }
}
