//! What is signed, verified by another library and by hand, and which keys sign.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

use super::*;
use crate::auth::claims::{Claims, Rules};
use crate::auth::testing::*;

const ROUTE: &str = "chat";

fn signer() -> Signer {
    let identity = Identity {
        key: None,
        issuer: "https://edge.example.com".to_owned(),
    };
    Signer::load(&identity, &env).expect("a made key").0
}

fn settings(claims: &[(&str, &str)]) -> SignedIdentity {
    let owned = |(name, claim): &(&str, &str)| ((*name).to_owned(), (*claim).to_owned());
    SignedIdentity {
        audience: None,
        ttl: Duration::from_secs(60),
        claims: claims.iter().map(owned).collect(),
    }
}

fn admission(claims: Value, expires_in: u64) -> Admission {
    let rules = Rules {
        issuer: None,
        audience: Vec::new(),
        leeway: Duration::ZERO,
    };
    let mut claims = claims;
    claims["exp"] = (seconds(SystemTime::now()) + expires_in).into();
    let bytes = claims.to_string();
    let claims = Claims::check(bytes.as_bytes(), &rules, SystemTime::now()).expect("good claims");
    Admission {
        token_id: None,
        issued_at: None,
        subject: claims.subject().map(str::to_owned),
        issuer: claims.issuer().map(str::to_owned),
        expires_at: Some(claims.expires_at()),
        claims: Some(claims),
        ..Admission::anonymous()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

fn sign(signer: &Signer, settings: &SignedIdentity, admission: &Admission) -> String {
    try_sign(signer, settings, admission).expect("signed")
}

fn try_sign(
    signer: &Signer,
    settings: &SignedIdentity,
    admission: &Admission,
) -> Result<String, NotSigned> {
    let subject = Subject {
        admission,
        route: ROUTE,
        audience: "backend",
        request_id: "r-1",
    };
    signer.sign(settings, subject, SystemTime::now())
}

/// Verifies as an upstream would, with the published set and nothing else.
fn verified(jwks: &str, token: &str) -> jsonwebtoken::errors::Result<Value> {
    let set: JwkSet = serde_json::from_str(jwks).expect("a JWKS");
    let kid = decode_header(token)?.kid.expect("a kid");
    let key = DecodingKey::from_jwk(set.find(&kid).expect("the key is published"))?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&["https://edge.example.com"]);
    validation.set_audience(&["backend"]);
    validation.set_required_spec_claims(&["iss", "aud", "exp"]);
    validation.leeway = 0;
    Ok(decode::<Value>(token, &key, &validation)?.claims)
}

#[test]
fn an_identity_is_verified_with_the_published_set() {
    let signer = signer();
    let claims = json!({"sub": "alice", "realm": {"roles": ["a", "b"]}, "secret": "x"});
    let settings = settings(&[
        ("sub", "sub"),
        ("roles", "/realm/roles"),
        ("none", "absent"),
    ]);
    let token = sign(&signer, &settings, &admission(claims, 3600));
    let says = verified(signer.jwks(), &token).expect("verified");
    assert_eq!(says["sub"], "alice");
    assert_eq!(says["roles"], json!(["a", "b"]));
    assert_eq!(says["route"], ROUTE);
    assert_eq!(says["jti"], "r-1");
    let lives = says["exp"].as_u64().zip(says["iat"].as_u64());
    assert_eq!(lives.map(|(exp, iat)| exp - iat), Some(60));
    let names: Vec<_> = says.as_object().expect("an object").keys().collect();
    let expected = ["aud", "exp", "iat", "iss", "jti", "roles", "route", "sub"];
    assert_eq!(names, expected, "nothing else is told");
}

#[test]
fn an_identity_of_another_edge_or_a_changed_one_is_not_verified() {
    let (signer, other) = (signer(), signer());
    let settings = settings(&[("sub", "sub")]);
    let token = sign(&other, &settings, &admission(json!({"sub": "alice"}), 3600));
    let published = signer.jwks().replace(signer.key_id(), other.key_id());
    assert!(verified(&published, &token).is_err());
    let (head, signature) = token.rsplit_once('.').expect("a token");
    let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"admin"}"#);
    let (header, _) = head.split_once('.').expect("a token");
    assert!(verified(other.jwks(), &format!("{header}.{forged}.{signature}")).is_err());
}

#[test]
fn an_identity_ends_with_the_client_s_own_token() {
    let signer = signer();
    let settings = settings(&[]);
    let admission = admission(json!({}), 10);
    let token = sign(&signer, &settings, &admission);
    let says = verified(signer.jwks(), &token).expect("verified");
    let end = admission.expires_at.map(seconds);
    assert_eq!(says["exp"].as_u64(), end);
}

#[test]
fn an_identity_fits_into_a_header_or_is_not_made() {
    let signer = signer();
    let settings = settings(&[("big", "big")]);
    let with = |length: usize| {
        let claims = json!({"big": "x".repeat(length)});
        try_sign(&signer, &settings, &admission(claims, 3600))
    };
    let longest = (0..MAX_IDENTITY).rev().find(|length| with(*length).is_ok());
    let longest = longest.expect("a length that fits");
    let token = with(longest).expect("it fits");
    assert!(
        (MAX_IDENTITY - 3..=MAX_IDENTITY).contains(&token.len()),
        "{}",
        token.len()
    );
    assert!(token.bytes().all(|b| b.is_ascii_graphic()));
    assert_eq!(with(longest + 1), Err(NotSigned::TooLong));
}

#[test]
fn the_kid_is_the_thumbprint_of_rfc_7638() {
    // The P-256 key of RFC 7517 A.1; its thumbprint was computed with Python's hashlib.
    let x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    let y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
    assert_eq!(
        thumbprint(x, y),
        "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
    );
}

#[test]
fn what_is_published_holds_no_private_member() {
    let signer = signer();
    let set: Value = serde_json::from_str(signer.jwks()).expect("JSON");
    let keys = set["keys"].as_array().expect("a list");
    let names: Vec<_> = keys[0].as_object().expect("a key").keys().collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert!(!format!("{signer:?}").contains(keys[0]["x"].as_str().expect("text")));
}

fn load(source: KeySource) -> Result<(Signer, Vec<Problem>), Vec<Problem>> {
    let identity = Identity {
        key: Some((source, Line(7))),
        issuer: "tidegate".to_owned(),
    };
    Signer::load(&identity, &env)
}

#[test]
fn a_key_from_a_file_is_the_same_at_each_start() {
    let file = TempFile::new(&P256.private);
    let (first, warnings) = load(file.source()).expect("loads");
    assert_eq!(warnings, []);
    assert_eq!(first.jwks(), load(file.source()).expect("loads").0.jwks());
    assert_ne!(first.jwks(), signer().jwks());
    file.chmod(0o644);
    let (_, warnings) = load(file.source()).expect("loads");
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].line, Some(Line(7)));
    assert!(warnings[0].allowed.contains("chmod 600"));
}

#[test]
fn a_key_in_the_form_of_openssl_ec_is_taken() {
    let pkcs8 = TempFile::new(&P256.private);
    let (signer, _) = load(pkcs8.source()).expect("loads");
    let sec1: EcPrivateKeyRfc5915Der<'_> = signer.key.private_key().as_der().expect("DER");
    let file = TempFile::new(pem("EC PRIVATE KEY", sec1.as_ref()));
    let (same, _) = load(file.source()).expect("loads");
    assert_eq!(same.key_id(), signer.key_id());
}

#[test]
fn what_is_no_key_for_es256_is_refused_with_line_and_remedy() {
    let twice = format!("{}{}", P256.private, P256.private);
    let cut = P256.private.replacen("MIGHAgEA", "MIGH", 1);
    assert_ne!(cut, P256.private);
    let cases = [
        P384.private.as_str(),
        ED25519.private.as_str(),
        RSA.private.as_str(),
        P256.public.as_str(),
        &twice,
        &cut,
        "",
        "hunter2",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ];
    for text in cases {
        let file = TempFile::new(text);
        let problems = load(file.source()).expect_err(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].line, Some(Line(7)));
        assert_eq!(problems[0].key, "identity.key");
        assert!(problems[0].allowed.contains("openssl genpkey"));
        assert!(
            !problems[0].found.contains("hunter2"),
            "{}",
            problems[0].found
        );
    }
    for absent in [
        KeySource::File("/nonexistent".into()),
        KeySource::Env("UNSET".into()),
    ] {
        let problems = load(absent).expect_err("absent");
        assert_eq!(problems[0].line, Some(Line(7)));
    }
}
