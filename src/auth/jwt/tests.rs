//! Claims about tokens: what passes, and where the bounds are. `attacks.rs`: what does not.

mod attacks;

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::testing::*;
use crate::config::Algorithm;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn verify(token: &str) -> Result<Claims, TokenRefused> {
    verifier(&secret_jwt()).verify(token, now())
}

/// Fails if a refusal repeats any eight bytes of the token, encoded or decoded.
fn assert_reveals_nothing(refused: &TokenRefused, token: &str) {
    let text = format!("{refused} {refused:?} {refused:#?}");
    let decoded = token.split('.').flat_map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        [
            part.to_owned(),
            String::from_utf8_lossy(&bytes).into_owned(),
        ]
    });
    for part in decoded {
        for window in part.as_bytes().windows(8) {
            let window = String::from_utf8_lossy(window);
            assert!(!text.contains(&*window), "{text:?} repeats {window:?}");
        }
    }
}

fn assert_refused(token: &str, reason: &TokenRefused) {
    let refused = verify(token).expect_err("a refusal");
    assert_eq!(refused, *reason, "{token}");
    assert_reveals_nothing(&refused, token);
}

#[test]
fn a_good_token_passes_with_its_claims() {
    let claims = verify(&token(HEADER, &good_claims(json!({})))).expect("a good token");
    assert_eq!(claims.subject(), Some("alice"));
    let expiry = UNIX_EPOCH + Duration::from_secs(NOW + 60 + 30);
    assert_eq!(claims.expires_at(), expiry);
    assert_eq!(claims.lookup("iss"), Some(&json!("iss")));
    assert!(!format!("{claims:?}").contains("alice"));
}

#[test]
fn a_harmless_header_passes_and_kid_chooses_nothing() {
    for header in [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","kid":"../../../../dev/null"}"#,
        r#"{"alg":"HS256","kid":"' OR 1=1 --"}"#,
        r#"{"alg":"HS256","cty":"json","x-own":{"a":[1]}}"#,
    ] {
        assert!(
            verify(&token(header, &good_claims(json!({})))).is_ok(),
            "{header}"
        );
    }
}

#[test]
fn one_byte_over_the_largest_token_is_refused_unread() {
    let sized = |size: usize| {
        (0..)
            .map(|n| token(HEADER, &good_claims(json!({"pad": "x".repeat(n)}))))
            .skip(size * 3 / 4 - 200)
            .find(|token| token.len() >= size)
            .expect("an ever longer token")
    };
    let largest = sized(MAX_TOKEN - 1);
    assert!(largest.len() <= MAX_TOKEN);
    assert!(verify(&largest).is_ok());
    assert_refused(&sized(MAX_TOKEN + 1), &TokenRefused::TooLong);
    assert_refused(&"a".repeat(MAX_TOKEN + 1), &TokenRefused::TooLong);
    let big_header = format!(r#"{{"alg":"HS256","x":"{}"}}"#, "x".repeat(MAX_TOKEN));
    assert_refused(
        &token(&big_header, &good_claims(json!({}))),
        &TokenRefused::TooLong,
    );
}

#[test]
fn claims_within_the_rules_pass() {
    let cases = [
        json!({"aud": ["other", "edge2"]}),
        json!({"aud": "edge2"}),
        json!({"exp": NOW as f64 + 60.5}),
        json!({"exp": 253_402_300_799_u64}),
        json!({"exp": NOW - 29}),
        json!({"nbf": NOW + 30, "iat": NOW + 30}),
        json!({"nbf": 0, "iat": 0}),
        json!({"iat": null, "sub": null}),
        json!({"sub": "zoë"}),
    ];
    for changes in cases {
        let text = good_claims(changes);
        assert!(verify(&token(HEADER, &text)).is_ok(), "{text}");
    }
}

#[test]
fn times_are_exact_to_the_nanosecond_and_fractions_count_against_the_token() {
    let mut jwt = secret_jwt();
    jwt.leeway = Duration::ZERO;
    let verifier = verifier(&jwt);
    let at = |changes, nanos| {
        let now = now() + Duration::from_nanos(nanos);
        let verdict = verifier.verify(&token(HEADER, &good_claims(changes)), now);
        verdict.map(|_| ())
    };
    let last = 999_999_999;
    assert_eq!(at(json!({"exp": NOW + 1}), last), Ok(()));
    assert_eq!(
        at(json!({"exp": NOW + 1}), last + 1),
        Err(TokenRefused::Expired)
    );
    assert_eq!(at(json!({"exp": NOW}), 0), Err(TokenRefused::Expired));
    let half = NOW as f64 + 0.5;
    assert_eq!(at(json!({"exp": half}), 0), Err(TokenRefused::Expired));
    assert_eq!(
        at(json!({"nbf": half}), last),
        Err(TokenRefused::NotYetValid)
    );
    assert_eq!(at(json!({"nbf": half}), last + 1), Ok(()));
    assert_eq!(at(json!({"nbf": NOW}), 0), Ok(()));
    assert_eq!(
        at(json!({"iat": NOW + 1}), last),
        Err(TokenRefused::IssuedInFuture)
    );
}

#[test]
fn no_time_overflows_whatever_clock_and_leeway_say() {
    let mut jwt = secret_jwt();
    jwt.leeway = Duration::MAX;
    let good = token(HEADER, &good_claims(json!({"exp": 253_402_300_799_u64})));
    let refused = verifier(&jwt).verify(&good, now()).map(|_| ());
    assert_eq!(refused, Err(TokenRefused::ClaimInvalid("exp")));
    let before = UNIX_EPOCH - Duration::from_secs(1);
    let refused = verifier(&secret_jwt()).verify(&good, before).map(|_| ());
    assert_eq!(refused, Err(TokenRefused::Clock));
    assert!(verifier(&secret_jwt()).verify(&good, UNIX_EPOCH).is_err());
}

#[test]
fn issuer_and_audience_are_not_asked_for_where_switched_off() {
    let mut jwt = secret_jwt();
    jwt.issuer = None;
    jwt.audience = Vec::new();
    let verifier = verifier(&jwt);
    let verdict = |changes| {
        let verdict = verifier.verify(&token(HEADER, &good_claims(changes)), now());
        verdict.map(|_| ())
    };
    assert_eq!(verdict(json!({"iss": null, "aud": null})), Ok(()));
    assert_eq!(verdict(json!({"iss": "x", "aud": ["y"]})), Ok(()));
    assert_eq!(
        verdict(json!({"iss": 5})),
        Err(TokenRefused::ClaimInvalid("iss"))
    );
    assert_eq!(
        verdict(json!({"aud": 5})),
        Err(TokenRefused::ClaimInvalid("aud"))
    );
}

#[test]
fn only_the_configured_algorithms_of_a_key_pass() {
    let mut both = secret_jwt();
    both.algorithms.push(Algorithm::HS512);
    let both = verifier(&both);
    let verdict = |algorithm: Algorithm| {
        let header = format!(r#"{{"alg":"{algorithm:?}"}}"#);
        let token = sign_parts(
            &header,
            &good_claims(json!({})),
            algorithm,
            SECRET.as_bytes(),
        );
        both.verify(&token, now()).map(|_| ())
    };
    assert_eq!(verdict(Algorithm::HS256), Ok(()));
    assert_eq!(verdict(Algorithm::HS512), Ok(()));
    assert_eq!(verdict(Algorithm::HS384), Err(TokenRefused::Algorithm));
}

#[test]
fn a_verifier_shows_no_key() {
    let text = format!("{:?}", verifier(&secret_jwt()));
    assert!(!text.contains("0123456789"));
    assert!(!text.contains("48, 49, 50"), "{text}");
}

proptest! {
    #[test]
    fn no_string_panics_or_passes(text in any::<String>()) {
        prop_assert!(verify(&text).is_err());
    }

    #[test]
    fn no_signed_parts_panic(header in any::<String>(), content in any::<String>()) {
        prop_assert!(verify(&token(&header, &content)).is_err());
        prop_assert!(verify(&token(HEADER, &content)).is_err());
    }

    #[test]
    fn a_changed_byte_never_passes(at in 0_usize..200, byte in "[A-Za-z0-9_.=-]") {
        let good = token(HEADER, &good_claims(json!({})));
        let at = at % good.len();
        if good.get(at..=at) != Some(&byte) {
            let mut changed = good;
            changed.replace_range(at..=at, &byte);
            prop_assert!(verify(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn no_number_panics(exp in any::<f64>(), nbf in any::<f64>(), iat in any::<i64>()) {
        let text = good_claims(json!({"exp": exp, "nbf": nbf, "iat": iat}));
        let _verdict = verify(&token(HEADER, &text));
    }
}
