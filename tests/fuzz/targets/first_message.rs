//! Any first message and any token: no panic, and nobody is admitted whose token is not
//! signed with the key.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use arbitrary::Arbitrary;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use tidegate::auth::jwt::Verifier;
use tidegate::auth::key_sets::KeySets;
use tidegate::auth::message::{Pointer, extract_token};
use tidegate::config::{Algorithm, Jwt, KeySource, Keys, Line};

const SECRET: &str = "a secret of the fuzz targets, of no use elsewhere";

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let jwt = Jwt {
        place: "fuzz".to_owned(),
        algorithms: vec![Algorithm::HS256],
        keys: Keys::One(KeySource::Env("SECRET".to_owned())),
        issuer: Some("i".to_owned()),
        audience: vec!["a".to_owned()],
        leeway: Duration::from_secs(30),
        line: Line(1),
    };
    let env = |_: &str| Some(SECRET.to_owned());
    let loaded = Verifier::load(&jwt, &env, &mut KeySets::default());
    let (verifier, _warnings) = loaded.expect("a good key");
    verifier
});

static KEY: LazyLock<hmac::Key> =
    LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()));

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A message with a token somewhere, or none.
    Message(&'a str, Option<&'a str>),
    /// A token as it stands.
    Token(&'a str),
    /// A token signed with the key over any header and claims, then changed in one byte.
    Signed(&'a str, &'a str, Option<(u16, u8)>),
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Message(message, None) => judge(message, None),
        Input::Message(message, Some(pointer)) => {
            if let Ok(pointer) = Pointer::parse(pointer) {
                judge(message, Some(&pointer));
            }
        }
        Input::Token(token) => verify(token),
        Input::Signed(header, claims, change) => {
            let mut token = sign(header, claims).into_bytes();
            if let Some((at, by)) = change {
                let at = usize::from(at) % token.len();
                token[at] ^= by;
            }
            if let Ok(token) = String::from_utf8(token) {
                verify(&token);
            }
        }
    }
});

fn judge(message: &str, field: Option<&Pointer>) {
    if let Ok(token) = extract_token(message, field) {
        assert!(!token.is_empty());
        verify(&token);
    }
}

fn verify(token: &str) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    if VERIFIER.verify(token, now).is_ok() {
        assert!(is_signed(token), "admitted without a signature");
    }
}

/// The signature alone, checked another way than the verifier does.
fn is_signed(token: &str) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else {
        return false;
    };
    URL_SAFE_NO_PAD
        .decode(signature)
        .is_ok_and(|signature| hmac::verify(&KEY, message.as_bytes(), &signature).is_ok())
}

fn sign(header: &str, claims: &str) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let signature = hmac::sign(&KEY, message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}
