//! Claims about several issuers: none can speak for another.

use serde_json::json;

use super::*;
use crate::auth::key_sets::KeySets;
use crate::auth::testing::*;
use crate::config::Algorithm::{self, ES256, HS256, RS256};
use crate::config::Jwt;

/// `own` signs with a secret for `edge`, `cloud` with P-256 for `cloud-edge`.
fn two() -> Issuers {
    let file = TempFile::new(&P256.public);
    let own = Jwt {
        issuer: Some("own".to_owned()),
        ..secret_jwt()
    };
    let cloud = Jwt {
        issuer: Some("cloud".to_owned()),
        audience: vec!["cloud-edge".to_owned()],
        ..jwt(ES256, file.source())
    };
    let load = |jwt: &Jwt| {
        let loaded = Verifier::load(jwt, &env, &mut KeySets::default());
        loaded.expect("a good key").0
    };
    Issuers::new(vec![load(&own), load(&cloud)])
}

fn verdict(token: &str) -> Result<Option<String>, TokenRefused> {
    match two().judge(token, now()) {
        Ok(claims) => Ok(claims.subject().map(str::to_owned)),
        Err(undecided) => Err(undecided.refused),
    }
}

fn own(claims: &str) -> String {
    token(r#"{"alg":"HS256"}"#, claims)
}

fn cloud(claims: &str) -> String {
    P256.sign(&json!({"alg": "ES256", "kid": "any"}), claims, ES256)
}

#[test]
fn each_issuer_is_held_to_its_own_rule() {
    use TokenRefused::{Algorithm, Audience, Issuer, Signature};
    let alice = || Ok(Some("alice".to_owned()));
    let of_own = good_claims(json!({"iss": "own"}));
    let of_cloud = good_claims(json!({"iss": "cloud", "aud": "cloud-edge"}));
    let cases = [
        (own(&of_own), alice()),
        (cloud(&of_cloud), alice()),
        // Signed by one in the name of the other.
        (own(&of_cloud), Err(Algorithm)),
        (cloud(&of_own), Err(Algorithm)),
        // With the other's algorithm, too.
        (
            sign_parts(
                r#"{"alg":"HS256"}"#,
                &of_cloud,
                HS256,
                P256.public.as_bytes(),
            ),
            Err(Algorithm),
        ),
        (
            sign_parts(r#"{"alg":"ES256"}"#, &of_cloud, HS256, SECRET.as_bytes()),
            Err(Signature),
        ),
        // For the audience of the other.
        (
            own(&good_claims(json!({"iss": "own", "aud": "cloud-edge"}))),
            Err(Audience),
        ),
        (cloud(&good_claims(json!({"iss": "cloud"}))), Err(Audience)),
        (own(&good_claims(json!({"iss": "OWN"}))), Err(Issuer)),
        (own(&good_claims(json!({"iss": ""}))), Err(Issuer)),
    ];
    for (token, expected) in cases {
        assert_eq!(verdict(&token), expected, "{token}");
    }
}

#[test]
fn a_token_that_does_not_say_its_issuer_has_none() {
    use TokenRefused::{ClaimInvalid, ClaimMissing, ClaimsMalformed, Duplicate};
    let text = good_claims(json!({"iss": "own"}));
    let cases = [
        (good_claims(json!({"iss": null})), ClaimMissing("iss")),
        (good_claims(json!({"iss": ["own"]})), ClaimInvalid("iss")),
        (good_claims(json!({"iss": 1})), ClaimInvalid("iss")),
        (text.replacen('{', r#"{"iss":"cloud","#, 1), Duplicate),
        (text.replacen('{', r#"{"i\u0073s":"cloud","#, 1), Duplicate),
        ("[]".to_owned(), ClaimMissing("iss")),
        (text.replacen('{', "", 1), ClaimsMalformed),
        (format!("{text}{text}"), ClaimsMalformed),
    ];
    for (claims, expected) in cases {
        assert_eq!(verdict(&own(&claims)), Err(expected), "{claims}");
    }
    for token in ["", ".", "..", "a.b", "a.b.c.d"] {
        assert_eq!(verdict(token), Err(TokenRefused::Malformed), "{token}");
    }
    let large = own(&good_claims(
        json!({"iss": "own", "x": "x".repeat(jwt::MAX_TOKEN)}),
    ));
    assert_eq!(verdict(&large), Err(TokenRefused::TooLong));
}

#[test]
fn each_issuer_may_have_a_set_of_keys() {
    let sets = [
        (
            TempFile::new(key_set(&[P256.jwk(json!({"kid": "1"}))])),
            ES256,
        ),
        (
            TempFile::new(key_set(&[RSA.jwk(json!({"kid": "1"}))])),
            RS256,
        ),
    ];
    let mut known = KeySets::default();
    let verifiers = sets.iter().map(|(file, algorithm)| {
        let jwt = Jwt {
            issuer: Some(format!("{algorithm:?}")),
            ..set_jwt(&[*algorithm], file.path())
        };
        Verifier::load(&jwt, &env, &mut known).expect("a set").0
    });
    let issuers = Issuers::new(verifiers.collect());
    let signed = |issuer: Algorithm, by: Algorithm| {
        let claims = good_claims(json!({"iss": format!("{issuer:?}")}));
        let header = json!({"alg": format!("{by:?}"), "kid": "1"});
        let pair = if by == ES256 { &P256 } else { &RSA };
        issuers.judge(&pair.sign(&header, &claims, by), now())
    };
    for (issuer, by) in [(ES256, ES256), (RS256, RS256)] {
        assert!(signed(issuer, by).is_ok());
    }
    for (issuer, by) in [(ES256, RS256), (RS256, ES256)] {
        let undecided = signed(issuer, by).expect_err("of the other");
        assert_eq!(undecided.refused, TokenRefused::Algorithm);
    }
}
