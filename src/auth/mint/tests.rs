//! Claims about minted tokens, and with them about every algorithm's round trip.

use serde_json::json;

use super::*;
use crate::auth::testing::*;
use crate::config::KeySource;

fn request(signing_key: Option<&TempFile>) -> MintRequest {
    MintRequest {
        subject: Some("alice".to_owned()),
        ttl: Duration::from_secs(60),
        claims: vec![("role".to_owned(), json!(["admin"]))],
        signing_key: signing_key.map(|file| file.path().to_owned()),
    }
}

#[test]
fn every_algorithm_makes_tokens_that_its_route_accepts() {
    use Algorithm::*;
    let pairs = [
        (&RSA, vec![RS256, RS384, RS512, PS256, PS384, PS512]),
        (&P256, vec![ES256]),
        (&P384, vec![ES384]),
        (&ED25519, vec![EdDSA]),
    ];
    let mut cases = Vec::new();
    for (pair, algorithms) in &pairs {
        let files = (TempFile::new(&pair.public), TempFile::new(&pair.private));
        cases.push((algorithms.clone(), files.0.source(), Some(files)));
    }
    let secret = KeySource::Env("SECRET".to_owned());
    cases.push((vec![HS256, HS384, HS512], secret, None));
    let mut seen = 0;
    for (algorithms, source, files) in &cases {
        for algorithm in algorithms {
            let jwt = jwt(*algorithm, source.clone());
            let request = request(files.as_ref().map(|(_, private)| private));
            let token = mint(&jwt, &env, &request, now()).expect("a token");
            let claims = verifier(&jwt).verify(&token, now()).expect("a good token");
            assert_eq!(claims.subject(), Some("alice"), "{algorithm:?}");
            assert_eq!(claims.lookup("/role/0"), Some(&json!("admin")));
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
}

#[test]
fn a_token_says_what_the_route_asks_for() {
    let jwt = secret_jwt();
    let token = mint(&jwt, &env, &request(None), now()).expect("a token");
    let claims = verifier(&jwt).verify(&token, now()).expect("a good token");
    for (name, value) in [
        ("iss", json!("iss")),
        ("aud", json!("edge")),
        ("sub", json!("alice")),
        ("iat", json!(NOW)),
        ("exp", json!(NOW + 60)),
    ] {
        assert_eq!(claims.lookup(name), Some(&value), "{name}");
    }
}

#[test]
fn a_fraction_of_a_second_is_rounded_up() {
    let jwt = secret_jwt();
    let mut request = request(None);
    request.ttl = Duration::from_millis(1);
    let token = mint(&jwt, &env, &request, now()).expect("a token");
    let claims = verifier(&jwt).verify(&token, now()).expect("a good token");
    assert_eq!(claims.lookup("exp"), Some(&json!(NOW + 1)));
}

#[test]
fn the_key_that_signs_is_asked_for_exactly_where_needed() {
    let public = TempFile::new(&P256.public);
    let private = TempFile::new(&P256.private);
    let es256 = jwt(Algorithm::ES256, public.source());
    assert!(matches!(
        mint(&es256, &env, &request(None), now()),
        Err(MintError::SigningKeyNeeded(Algorithm::ES256))
    ));
    assert!(matches!(
        mint(&secret_jwt(), &env, &request(Some(&private)), now()),
        Err(MintError::SigningKeyUnused(Algorithm::HS256))
    ));
}

#[test]
fn a_signing_key_that_does_not_fit_is_refused() {
    let public = TempFile::new(&P256.public);
    let es256 = jwt(Algorithm::ES256, public.source());
    let sec1 = pem("EC PRIVATE KEY", b"junk");
    for contents in [
        &RSA.private,
        &ED25519.private,
        &P384.private,
        &P256.public,
        &sec1,
        "",
    ] {
        let file = TempFile::new(contents);
        let error = mint(&es256, &env, &request(Some(&file)), now());
        assert!(matches!(&error, Err(MintError::SigningKeyKind { .. })));
        let text = error.expect_err("a refusal").to_string();
        assert!(text.contains("openssl pkcs8"), "{text}");
        assert!(text.contains("P-256"), "{text}");
    }
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let other = TempFile::new(other.serialize_pem());
    assert!(matches!(
        mint(&es256, &env, &request(Some(&other)), now()),
        Err(MintError::OtherKey)
    ));
    let gone = other.path().to_owned();
    drop(other);
    let mut request = request(None);
    request.signing_key = Some(gone);
    assert!(matches!(
        mint(&es256, &env, &request, now()),
        Err(MintError::SigningKeyFile(..))
    ));
}

#[test]
fn claims_that_are_set_already_and_impossible_times_are_refused() {
    let jwt = secret_jwt();
    for name in ["iss", "aud", "sub", "iat", "exp", "role"] {
        let mut request = request(None);
        request.claims.push((name.to_owned(), json!(1)));
        let error = mint(&jwt, &env, &request, now()).expect_err(name);
        assert!(matches!(error, MintError::ClaimTaken(taken) if taken == name));
    }
    let mut request = request(None);
    request.ttl = Duration::MAX;
    let error = mint(&jwt, &env, &request, now());
    assert!(matches!(error, Err(MintError::Time)));
    request.ttl = Duration::from_secs(1);
    let error = mint(&jwt, &env, &request, UNIX_EPOCH - request.ttl);
    assert!(matches!(error, Err(MintError::Time)));
    request.claims = vec![("pad".to_owned(), json!("x".repeat(8192)))];
    let error = mint(&jwt, &env, &request, now());
    assert!(matches!(error, Err(MintError::TooLong)));
}

#[test]
fn a_route_whose_key_is_broken_mints_nothing() {
    let error = mint(&secret_jwt(), &|_| None, &request(None), now());
    assert!(matches!(error, Err(MintError::Key(problems)) if problems.len() == 1));
}
