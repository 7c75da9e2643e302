//! Claims about tokens: what passes, and every known way to pretend.

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
fn header_attacks_are_refused() {
    use TokenRefused::*;
    let cases = [
        (r#"{"alg":"none"}"#, Algorithm),
        (r#"{"alg":"None"}"#, Algorithm),
        (r#"{"alg":"hs256"}"#, Algorithm),
        (r#"{"alg":"HS384"}"#, Algorithm),
        (r#"{"alg":"RS256"}"#, Algorithm),
        (r#"{"alg":"ES256K"}"#, Algorithm),
        (r#"{"alg":"HS256 "}"#, Algorithm),
        (r#"{"alg":""}"#, Algorithm),
        (r#"{"alg":["HS256"]}"#, HeaderMalformed),
        (r#"{"alg":null}"#, HeaderMalformed),
        (r#"{"typ":"JWT"}"#, HeaderMalformed),
        (r#"{}"#, HeaderMalformed),
        (r#"[]"#, HeaderMalformed),
        (r#""HS256""#, HeaderMalformed),
        (r#"not json"#, HeaderMalformed),
        (r#"{"alg":"HS256"} x"#, HeaderMalformed),
        (r#"{"alg":"HS256","alg":"HS256"}"#, Duplicate),
        (r#"{"alg":"none","alg":"HS256"}"#, Duplicate),
        (r#"{"alg":"HS256","\u0061lg":"none"}"#, Duplicate),
        (r#"{"alg":"HS256","x":{"a":1,"a":2}}"#, Duplicate),
        (r#"{"alg":"HS256","crit":[]}"#, HeaderMember("crit")),
        (
            r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
            HeaderMember("crit"),
        ),
        (r#"{"alg":"HS256","crit":null}"#, HeaderMember("crit")),
        (r#"{"alg":"HS256","b64":false}"#, HeaderMember("b64")),
        (r#"{"alg":"HS256","b64":true}"#, HeaderMember("b64")),
        (r#"{"alg":"HS256","zip":"DEF"}"#, HeaderMember("zip")),
        (r#"{"alg":"HS256","enc":"A128GCM"}"#, HeaderMember("enc")),
        (
            r#"{"alg":"HS256","jku":"https://evil.example"}"#,
            HeaderMember("jku"),
        ),
        (
            r#"{"alg":"HS256","x5u":"https://evil.example"}"#,
            HeaderMember("x5u"),
        ),
        (r#"{"alg":"HS256","x5c":["AAAA"]}"#, HeaderMember("x5c")),
        (
            r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
            HeaderMember("jwk"),
        ),
        (r#"{"alg":"HS256","cty":"JWT"}"#, Nested),
        (r#"{"alg":"HS256","cty":"jwt"}"#, Nested),
        (r#"{"alg":"HS256","cty":"application/JWT"}"#, Nested),
        (r#"{"alg":"HS256","cty":1}"#, HeaderMalformed),
        (r#"{"alg":"HS256","typ":1}"#, HeaderMalformed),
        (r#"{"alg":"HS256","kid":1}"#, HeaderMalformed),
    ];
    assert!(!cases.is_empty());
    for (header, reason) in cases {
        assert_refused(&token(header, &good_claims(json!({}))), &reason);
    }
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
fn what_is_not_three_parts_in_canonical_base64url_is_malformed() {
    let good = token(HEADER, &good_claims(json!({})));
    let mut parts = good.split('.');
    let mut part = || parts.next().expect("three parts");
    let (h, p, s) = (part(), part(), part());
    // The last of 43 characters carries two bits that must be zero.
    let (body, last) = s.split_at(s.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).expect("a base64url character");
    let stray = format!("{body}{}", &alphabet[at + 1..at + 2]);
    let cases = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        h.to_owned(),
        format!("{h}.{p}"),
        format!("{h}.{p}."),
        format!(".{p}.{s}"),
        format!("{h}..{s}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{s}"),
        format!("{h}.{p}.{s}.{s}.{s}"),
        format!("{good}="),
        format!("{h}=.{p}.{s}"),
        format!("{h}.{p}==.{s}"),
        format!("{h} .{p}.{s}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{h}.{p}\r\n.{s}"),
        format!("{h}.{p}.{stray}"),
        format!("{h}.{p}.+/{s}"),
        format!("{h}.{p}.é{s}"),
        format!("{h}.A.{s}"),
    ];
    assert!(!cases.is_empty());
    for token in cases {
        assert_refused(&token, &TokenRefused::Malformed);
    }
}

#[test]
fn a_signature_of_someone_else_is_refused() {
    let good = token(HEADER, &good_claims(json!({})));
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("a header");
    let admin = base64url(good_claims(json!({"sub": "admin"})));
    let flipped = match signature.strip_prefix('A') {
        Some(rest) => format!("B{rest}"),
        None => format!("A{}", signature.get(1..).expect("ASCII")),
    };
    let other = sign_parts(
        HEADER,
        &good_claims(json!({})),
        Algorithm::HS256,
        b"another secret of at least 32 bytes",
    );
    // Signed with another digest than the header says.
    let hs512 = sign_parts(
        HEADER,
        &good_claims(json!({})),
        Algorithm::HS512,
        SECRET.as_bytes(),
    );
    let cases = [
        format!("{header}.{admin}.{signature}"),
        format!("{message}.{flipped}"),
        format!("{message}.AAAA"),
        format!("{message}.{signature}AAAA"),
        format!("{message}.{}", signature.get(..20).expect("ASCII")),
        other,
        hs512,
    ];
    for token in cases {
        assert_refused(&token, &TokenRefused::Signature);
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
fn deep_nesting_is_refused_and_does_not_exhaust_the_stack() {
    let deep = format!(r#"{{"alg":"HS256","x":{}"#, "[".repeat(5000));
    assert_refused(&token(&deep, "{}"), &TokenRefused::HeaderMalformed);
    let deep = format!(r#"{{"x":{}"#, "[".repeat(5000));
    assert_refused(&token(HEADER, &deep), &TokenRefused::ClaimsMalformed);
}

#[test]
fn claim_attacks_are_refused() {
    use TokenRefused::*;
    let cases = [
        (json!({"exp": null}), ClaimMissing("exp")),
        (json!({"exp": "1900000060"}), ClaimInvalid("exp")),
        (json!({"exp": [NOW + 60]}), ClaimInvalid("exp")),
        (json!({"exp": true}), ClaimInvalid("exp")),
        (json!({"exp": -1}), ClaimInvalid("exp")),
        (json!({"exp": i64::MIN}), ClaimInvalid("exp")),
        (json!({"exp": u64::MAX}), ClaimInvalid("exp")),
        (json!({"exp": 1e300}), ClaimInvalid("exp")),
        (json!({"exp": -0.5}), ClaimInvalid("exp")),
        (json!({"exp": (NOW + 60) * 1000}), ClaimInvalid("exp")),
        (json!({"exp": 253_402_300_800_u64}), ClaimInvalid("exp")),
        (json!({"exp": 0}), Expired),
        (json!({"exp": NOW - 30}), Expired),
        (json!({"nbf": NOW + 31}), NotYetValid),
        (json!({"nbf": "0"}), ClaimInvalid("nbf")),
        (json!({"nbf": -1}), ClaimInvalid("nbf")),
        (json!({"nbf": u64::MAX}), ClaimInvalid("nbf")),
        (json!({"iat": NOW + 31}), IssuedInFuture),
        (json!({"iat": "0"}), ClaimInvalid("iat")),
        (json!({"iss": null}), ClaimMissing("iss")),
        (json!({"iss": 5}), ClaimInvalid("iss")),
        (json!({"iss": ["iss"]}), ClaimInvalid("iss")),
        (json!({"iss": "ISS"}), Issuer),
        (json!({"iss": "iss "}), Issuer),
        (json!({"iss": ""}), Issuer),
        (json!({"aud": null}), ClaimMissing("aud")),
        (json!({"aud": 5}), ClaimInvalid("aud")),
        (json!({"aud": {"edge": 1}}), ClaimInvalid("aud")),
        (json!({"aud": ["edge", 5]}), ClaimInvalid("aud")),
        (json!({"aud": [["edge"]]}), ClaimInvalid("aud")),
        (json!({"aud": []}), Audience),
        (json!({"aud": ["other"]}), Audience),
        (json!({"aud": "edge,other"}), Audience),
        (json!({"aud": "EDGE"}), Audience),
        (json!({"sub": 5}), ClaimInvalid("sub")),
        (json!({"sub": "a\nlevel=info"}), ClaimInvalid("sub")),
        (json!({"sub": "a\u{7f}"}), ClaimInvalid("sub")),
        (json!({"sub": "x".repeat(1025)}), ClaimInvalid("sub")),
        (json!({"jti": 5}), ClaimInvalid("jti")),
    ];
    assert!(!cases.is_empty());
    for (changes, reason) in cases {
        assert_refused(&token(HEADER, &good_claims(changes)), &reason);
    }
    for (text, reason) in [
        ("[]", ClaimsMalformed),
        ("null", ClaimsMalformed),
        ("", Malformed),
        ("{", ClaimsMalformed),
        (r#"{"exp":1e999}"#, ClaimsMalformed),
        (r#"{"exp":NaN}"#, ClaimsMalformed),
        (r#"{"exp":null}"#, ClaimInvalid("exp")),
        (r#"{"exp":1900000060,"exp":1900000060}"#, Duplicate),
        (
            r#"{"sub":"alice","exp":1900000060,"sub":"admin"}"#,
            Duplicate,
        ),
        (
            r#"{"sub":"alice","exp":1900000060,"\u0073ub":"admin"}"#,
            Duplicate,
        ),
    ] {
        assert_refused(&token(HEADER, text), &reason);
    }
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
fn a_public_key_is_no_hmac_secret() {
    for (algorithm, public) in [
        (Algorithm::RS256, &RSA.public),
        (Algorithm::ES256, &P256.public),
        (Algorithm::EdDSA, &ED25519.public),
    ] {
        let file = TempFile::new(public);
        let verifier = verifier(&jwt(algorithm, file.source()));
        for secret in [public.as_bytes(), public.trim_end().as_bytes()] {
            for header in [HEADER.to_owned(), format!(r#"{{"alg":"{algorithm:?}"}}"#)] {
                let forged = sign_parts(&header, &good_claims(json!({})), Algorithm::HS256, secret);
                let refused = verifier.verify(&forged, now()).expect_err("a forgery");
                let expected = if header == HEADER {
                    TokenRefused::Algorithm
                } else {
                    TokenRefused::Signature
                };
                assert_eq!(refused, expected);
                assert_reveals_nothing(&refused, &forged);
            }
        }
    }
}

#[test]
fn a_zero_ecdsa_signature_is_refused() {
    let file = TempFile::new(&P256.public);
    let verifier = verifier(&jwt(Algorithm::ES256, file.source()));
    let message = format!(
        "{}.{}",
        base64url(r#"{"alg":"ES256"}"#),
        base64url(good_claims(json!({})))
    );
    for size in [0_usize, 1, 63, 64, 65, 72] {
        let forged = format!("{message}.{}", base64url(vec![0; size]));
        assert!(verifier.verify(&forged, now()).is_err(), "{size}");
    }
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
