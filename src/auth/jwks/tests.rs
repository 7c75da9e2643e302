//! Claims about sets: what of a document is used, and for what.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::testing::*;
use crate::config::Algorithm::{ES256, ES384, EdDSA, PS256, RS256};

const ALL: [Algorithm; 4] = [RS256, ES256, ES384, EdDSA];

fn parse(keys: &[Value], algorithms: &[Algorithm]) -> Result<(KeySet, Vec<SetAside>), SetRefused> {
    KeySet::parse(key_set(keys).as_bytes(), algorithms)
}

/// What is said of one key beside a good one.
fn set_aside(jwk: Value) -> SetAside {
    let good = P256.jwk(json!({"kid": "good"}));
    let (set, set_aside) = parse(&[good, jwk.clone()], &ALL).expect("one good key");
    assert_eq!(set.len(), 1, "{jwk}");
    let [one] = set_aside.as_slice() else {
        panic!("{set_aside:?}");
    };
    one.clone()
}

fn is_key(found: &Found<'_>) -> bool {
    matches!(found, Found::Key(_))
}

#[test]
fn each_kind_of_key_is_for_its_own_algorithm_only() {
    let pairs = [
        (&RSA, RS256),
        (&P256, ES256),
        (&P384, ES384),
        (&ED25519, EdDSA),
    ];
    let keys: Vec<Value> = pairs
        .iter()
        .map(|(pair, algorithm)| pair.jwk(json!({"kid": format!("{algorithm:?}")})))
        .collect();
    let (set, set_aside) = parse(&keys, &ALL).expect("good keys");
    assert_eq!((set.len(), set_aside.len()), (4, 0));
    for (_, algorithm) in pairs {
        for asked in ALL {
            let found = set.find(Some(&format!("{algorithm:?}")), asked);
            match asked == algorithm {
                true => assert!(is_key(&found), "{algorithm:?}"),
                false => assert!(
                    matches!(found, Found::OtherAlgorithm),
                    "{algorithm:?} {asked:?}"
                ),
            }
        }
    }
    assert!(matches!(set.find(Some("rs256"), RS256), Found::Unknown));
    assert!(matches!(set.find(Some(""), RS256), Found::Unknown));
}

#[test]
fn what_a_key_says_of_itself_decides_and_not_the_token() {
    let says = RSA.jwk(json!({"kid": "a", "alg": "PS256"}));
    let (set, _) = parse(&[says], &[RS256, PS256]).expect("a good key");
    assert!(is_key(&set.find(Some("a"), PS256)));
    assert!(matches!(set.find(Some("a"), RS256), Found::OtherAlgorithm));
    // A key that says nothing would leave the choice to the token.
    let silent = RSA.jwk(json!({"kid": "a"}));
    let refused = parse(std::slice::from_ref(&silent), &[RS256, PS256]).expect_err("a choice");
    assert!(refused.to_string().contains("names no `alg`"), "{refused}");
    assert!(parse(&[silent], &[PS256]).is_ok());
}

#[test]
fn a_token_without_kid_has_the_only_key_of_its_algorithm_or_none() {
    let one = [P256.jwk(json!({"kid": "a"})), RSA.jwk(json!({}))];
    let (set, _) = parse(&one, &ALL).expect("good keys");
    assert!(is_key(&set.find(None, ES256)));
    assert!(is_key(&set.find(None, RS256)));
    assert!(matches!(set.find(None, EdDSA), Found::Unknown));
    let two = [P256.jwk(json!({"kid": "a"})), P256.jwk(json!({"kid": "b"}))];
    let (set, _) = parse(&two, &ALL).expect("good keys");
    assert!(matches!(set.find(None, ES256), Found::Ambiguous));
    // And a key without one is not found by any name.
    let (set, _) = parse(&[P256.jwk(json!({}))], &ALL).expect("a good key");
    assert!(matches!(set.find(Some("a"), ES256), Found::Unknown));
}

#[test]
fn a_key_that_is_not_to_be_used_is_set_aside_with_its_reason() {
    let p256 = |more| P256.jwk(more);
    let short = {
        let jwk = P256.jwk(json!({}));
        let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().expect("text"));
        base64url(&x.expect("base64url")[1..])
    };
    let small = base64url([0xff; 128]);
    let huge = base64url([0xff; 1025]);
    let faults = [
        (json!({"kty": "oct", "k": "AAAA"}), "symmetric"),
        (json!({"kty": "oct"}), "symmetric"),
        (p256(json!({"k": "AAAA"})), "symmetric"),
        (
            json!({"kty": "oct", "k": "AAAA", "alg": "RS256", "use": "enc"}),
            "symmetric",
        ),
        (p256(json!({"d": "AAAA"})), "private"),
        (RSA.jwk(json!({"p": "AAAA"})), "private"),
        (p256(json!({"alg": "RS256"})), "not for"),
        (RSA.jwk(json!({"alg": "ES256"})), "not for"),
        (p256(json!({"crv": "P-384"})), "`x`"),
        (p256(json!({"crv": 1})), "`crv`"),
        (p256(json!({"kty": null})), "`kty`"),
        (p256(json!({"kid": 1})), "`kid`"),
        (p256(json!({"kid": "k".repeat(MAX_KID + 1)})), "`kid`"),
        (p256(json!({"use": ["sig"]})), "`use`"),
        (p256(json!({"key_ops": "verify"})), "`key_ops`"),
        (p256(json!({"x": short})), "`x`"),
        (p256(json!({"x": base64url([1; 32])})), "`x`"),
        (
            p256(json!({"x": base64url([0; 32]), "y": base64url([0; 32])})),
            "`x`",
        ),
        (p256(json!({"x": "!"})), "`x`"),
        (p256(json!({"y": null})), "`y`"),
        (ED25519.jwk(json!({"x": base64url([1; 31])})), "`x`"),
        (RSA.jwk(json!({"e": ""})), "exponent is 1 or even"),
        (
            RSA.jwk(json!({"e": base64url([1])})),
            "exponent is 1 or even",
        ),
        (
            RSA.jwk(json!({"e": base64url([0, 1])})),
            "exponent is 1 or even",
        ),
        (
            RSA.jwk(json!({"e": base64url([4])})),
            "exponent is 1 or even",
        ),
        (RSA.jwk(json!({"n": small})), "1024 bits"),
        (RSA.jwk(json!({"n": huge})), "8200 bits"),
        (RSA.jwk(json!({"n": ""})), "0 bits"),
        (p256(json!({"kid": "good"})), "name of another"),
        (json!("a string"), "`kty`"),
        (json!([]), "`kty`"),
        (json!(null), "`kty`"),
    ];
    assert!(!faults.is_empty());
    for (jwk, words) in faults {
        let one = set_aside(jwk.clone());
        assert!(one.is_fault(), "{jwk}: {one}");
        assert!(one.to_string().contains(words), "{jwk}: {one}");
        assert!(!one.to_string().contains("AAAA"), "{one}");
    }
}

#[test]
fn a_key_that_is_for_something_else_is_set_aside_quietly() {
    for jwk in [
        P256.jwk(json!({"use": "enc"})),
        P256.jwk(json!({"key_ops": ["deriveKey"]})),
        P256.jwk(json!({"key_ops": []})),
        RSA.jwk(json!({"alg": "RSA-OAEP"})),
        RSA.jwk(json!({"alg": "RS512"})),
        RSA.jwk(json!({"alg": "none"})),
        RSA.jwk(json!({"alg": "HS256"})),
        json!({"kty": "EC", "crv": "P-521", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "AAAA"}),
        json!({"kty": "OKP", "crv": "Ed448", "x": "AAAA"}),
        json!({"kty": "AKP", "pub": "AAAA"}),
    ] {
        let one = set_aside(jwk.clone());
        assert!(!one.is_fault(), "{jwk}: {one}");
    }
    for members in [
        json!({"kid": "a", "use": "sig", "key_ops": ["sign", "verify"], "x5c": ["AAAA"]}),
        json!({"kid": "a", "x5t": "AAAA", "issued": 1, "alg": "ES256"}),
    ] {
        assert!(parse(&[P256.jwk(members)], &ALL).is_ok());
    }
}

#[test]
fn a_document_that_is_no_set_is_refused() {
    let good = P256.jwk(json!({}));
    let of = |document: &str| {
        let refused = KeySet::parse(document.as_bytes(), &ALL);
        refused.expect_err(document).to_string()
    };
    for (document, words) in [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("<html>", "not a JSON object"),
        ("{\"keys\":[]", "not a JSON object"),
        ("{}", "no array `keys`"),
        ("{\"keys\":{}}", "no array `keys`"),
        ("{\"keys\":null}", "no array `keys`"),
        ("{\"keys\":[]}", "no key for the configured algorithms"),
        ("{\"keys\":[],\"keys\":[]}", "repeats"),
    ] {
        assert!(of(document).contains(words), "{document}");
    }
    assert!(of(&good.to_string()).contains("no array `keys`"));
    let twice = key_set(std::slice::from_ref(&good)).replace("\"crv\"", "\"kty\":\"oct\",\"crv\"");
    assert!(of(&twice).contains("repeats"), "{twice}");
    let only = key_set(&[json!({"kty": "oct", "k": "c2VjcmV0"})]);
    let refused = of(&only);
    assert!(refused.contains("key 1 is symmetric"), "{refused}");
    assert!(!refused.contains("c2VjcmV0"), "{refused}");
}

#[test]
fn one_key_or_one_byte_too_many_is_refused() {
    let keys = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|n| P256.jwk(json!({"kid": n.to_string()})))
            .collect()
    };
    let (set, _) = parse(&keys(MAX_KEYS), &ALL).expect("the most");
    assert_eq!(set.len(), MAX_KEYS);
    let refused = parse(&keys(MAX_KEYS + 1), &ALL).expect_err("one too many");
    assert_eq!(refused, SetRefused::TooMany(MAX_KEYS + 1));

    let mut document = key_set(&keys(1)).into_bytes();
    document.resize(MAX_DOCUMENT, b' ');
    assert!(KeySet::parse(&document, &ALL).is_ok());
    document.push(b' ');
    let refused = KeySet::parse(&document, &ALL).expect_err("one byte too many");
    assert_eq!(refused, SetRefused::TooLarge);
}

#[test]
fn many_keys_that_are_no_good_make_one_short_message() {
    let bad: Vec<Value> = (0..MAX_KEYS)
        .map(|n| json!({"kty": "oct", "kid": format!("{n}{}", "k".repeat(60))}))
        .collect();
    let text = parse(&bad, &ALL).expect_err("no good key").to_string();
    assert!(text.len() < 600 && text.contains("and 61 more"), "{text}");
    // What could spoil a log is not repeated.
    let odd = set_aside(json!({"kty": "oct", "kid": "a\n\u{1b}[2J b"})).to_string();
    assert!(odd.starts_with("key 2 is"), "{odd}");
}

#[test]
fn a_set_shows_names_and_no_keys() {
    let (set, _) = parse(&[P256.jwk(json!({"kid": "a"}))], &ALL).expect("a good key");
    assert_eq!(format!("{set:?}"), "[(Some(\"a\"), ES256)]");
}

proptest! {
    #[test]
    fn no_document_panics(document in any::<Vec<u8>>()) {
        prop_assert!(KeySet::parse(&document, &ALL).is_err());
    }

    #[test]
    fn a_damaged_set_is_refused_or_read_and_never_panics(
        at in 0.0..1.0,
        length in 0_usize..40,
        inserted in "[\\[\\]{}\",:a-zA-Z0-9_\\\\-]{0,20}",
    ) {
        let keys = [
            RSA.jwk(json!({"kid": "r", "alg": "RS256"})),
            P256.jwk(json!({"kid": "p", "use": "sig"})),
            ED25519.jwk(json!({"kid": "e", "key_ops": ["verify"]})),
        ];
        let mut document = key_set(&keys);
        let start = (at * document.len() as f64) as usize;
        let end = document.len().min(start + length);
        document.replace_range(start..end, &inserted);
        match KeySet::parse(document.as_bytes(), &ALL) {
            Ok((set, set_aside)) => prop_assert!(set.len() + set_aside.len() <= MAX_KEYS),
            Err(refused) => prop_assert!(!refused.to_string().is_empty()),
        }
    }
}
