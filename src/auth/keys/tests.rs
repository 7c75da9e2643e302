//! Claims about keys: what is refused at load, and in which words.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::auth::testing::*;

/// 1024 bits.
const SMALL_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDLhw4FMLqi27vjUUuHxgfNt6zh
ycDW/yEDY6jMNKHBYWFRskU91PwcbQBmm1mvXkVE7PNB0qW7Y2RpNq1g4ymne5RK
wtMnbzZf/TtU10llXRz7RJEm7LwTn78ffHEXiNP4GipNMB+AgQdhZ5Ke8UwvdJ1x
EdH4E9C2Kw1JgA5g4QIDAQAB
-----END PUBLIC KEY-----
";

/// A point as long as one on P-256.
const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEpaaj8Efs+X4DhEsN1RRhI/JHpNtV8Kmp
RrnvAYhGVgK/doU+rnmoa4S3NjXxXCqGPLfjCPfdK3XsueL92Utc3Q==
-----END PUBLIC KEY-----
";

/// For key agreement, not for signatures.
const X25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAuyXT8LqZhdYxOmFjKFAlIQoTWr51rTrHoyeLy+bv0ms=
-----END PUBLIC KEY-----
";

/// The key of a rule that has one.
fn load(
    jwt: &Jwt,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Verifying, Vec<Problem>), Vec<Problem>> {
    load_verifying(jwt, env, &mut KeySets::default())
}

fn load_env(jwt: &Jwt, value: Option<&str>) -> Result<Vec<Problem>, Vec<Problem>> {
    let env = |name: &str| value.filter(|_| name == "SECRET").map(str::to_owned);
    load(jwt, &env).map(|(_, warnings)| warnings)
}

fn load_file(algorithm: Algorithm, contents: impl AsRef<[u8]>) -> Result<(), Vec<Problem>> {
    let file = TempFile::new(contents);
    load(&jwt(algorithm, file.source()), &env).map(|(_, warnings)| {
        assert_eq!(warnings, []);
    })
}

/// The one problem, as `found | allowed`.
fn only(problems: Result<impl Sized, Vec<Problem>>) -> String {
    let Err(problems) = problems else {
        panic!("accepted");
    };
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert_eq!(problem.severity, Severity::Error);
    assert_eq!(problem.key, "route.chat.auth.jwt.key");
    assert_eq!(problem.line.map(|line| line.0), Some(7));
    format!("{} | {}", problem.found, problem.allowed)
}

#[test]
fn a_secret_comes_from_the_environment() {
    assert_eq!(load_env(&secret_jwt(), Some(SECRET)), Ok(Vec::new()));
}

#[test]
fn a_missing_or_empty_secret_names_the_remedy() {
    for (value, found) in [
        (None, "environment variable SECRET is not set"),
        (Some(""), "environment variable SECRET is empty"),
        (Some("  \n"), "environment variable SECRET is empty"),
    ] {
        let text = only(load_env(&secret_jwt(), value));
        assert!(text.starts_with(found), "{text}");
        assert!(text.contains("openssl rand"), "{text}");
    }
    assert!(only(load_file(Algorithm::HS256, "\n")).contains(" is empty | "));
    assert!(only(load_file(Algorithm::RS256, "")).contains(" is empty | "));
    let absent = KeySource::File(PathBuf::from("/nonexistent/key"));
    let text = only(load(&jwt(Algorithm::HS256, absent), &env));
    assert!(text.starts_with("cannot read /nonexistent/key: "), "{text}");
}

#[test]
fn a_secret_one_byte_too_short_is_refused_and_not_repeated() {
    let short = &SECRET[..MIN_SECRET - 1];
    let text = only(load_env(&secret_jwt(), Some(short)));
    assert!(text.starts_with("environment variable SECRET holds 31 bytes"));
    assert!(!text.contains(&short[..8]), "{text}");
    assert_eq!(
        load_env(&secret_jwt(), Some(&SECRET[..MIN_SECRET])),
        Ok(Vec::new())
    );
}

#[test]
fn one_line_end_of_a_secret_file_is_no_part_of_it() {
    for end in ["", "\n", "\r\n"] {
        let file = TempFile::new(format!("{SECRET}{end}"));
        let verifier = verifier(&jwt(Algorithm::HS256, file.source()));
        let good = token(r#"{"alg":"HS256"}"#, &good_claims(serde_json::json!({})));
        assert!(verifier.verify(&good, now()).is_ok(), "{end:?}");
    }
    let padded = format!("{}\n", &SECRET[..MIN_SECRET - 1]);
    assert!(load_file(Algorithm::HS256, padded).is_err());
}

#[test]
fn a_secret_shorter_than_the_digest_is_a_warning() {
    let mut jwt = secret_jwt();
    jwt.algorithms = vec![Algorithm::HS512];
    let warnings = load_env(&jwt, Some(&SECRET[..63])).expect("usable");
    assert_eq!(warnings.len(), 1);
    assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
    assert_eq!(load_env(&jwt, Some(&SECRET[..64])), Ok(Vec::new()));
}

#[test]
fn a_secret_file_that_others_may_read_is_a_warning() {
    let file = TempFile::new(SECRET);
    for (mode, count) in [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o644, 1)] {
        file.chmod(mode);
        let jwt = jwt(Algorithm::HS256, file.source());
        let (_, warnings) = load(&jwt, &env).expect("usable");
        assert_eq!(warnings.len(), count, "{mode:o}");
        assert!(warnings.iter().all(|w| w.severity == Severity::Warning));
        assert!(
            warnings
                .iter()
                .all(|w| w.found.contains(&format!("{mode:04o}")))
        );
    }
    let public = TempFile::new(&P256.public);
    public.chmod(0o644);
    let jwt = jwt(Algorithm::ES256, public.source());
    let (_, warnings) = load(&jwt, &env).expect("usable");
    assert_eq!(warnings, []);
}

#[test]
fn a_pem_key_is_no_hmac_secret() {
    for pem in [&P256.public, &RSA.public, &P256.private] {
        let text = only(load_file(Algorithm::HS256, pem));
        assert!(text.contains("holds a PEM key"), "{text}");
        assert!(only(load_env(&secret_jwt(), Some(pem))).contains("holds a PEM key"));
    }
}

#[test]
fn a_public_key_fits_its_own_algorithms_only() {
    use Algorithm::*;
    let rsa = [RS256, RS384, RS512, PS256, PS384, PS512];
    let pkcs1 = {
        let key = DecodingKey::from_rsa_pem(RSA.public.as_bytes()).expect("RSA");
        pem("RSA PUBLIC KEY", key.try_get_as_bytes().expect("DER"))
    };
    let keys: [(&str, &str, &[Algorithm]); 5] = [
        ("an RSA key of 2048 bits", &RSA.public, &rsa),
        ("an RSA key of 2048 bits", &pkcs1, &rsa),
        ("an EC key on curve P-256", &P256.public, &[ES256]),
        ("an EC key on curve P-384", &P384.public, &[ES384]),
        ("an Ed25519 key", &ED25519.public, &[EdDSA]),
    ];
    for (name, pem, fitting) in keys {
        for algorithm in rsa.into_iter().chain([ES256, ES384, EdDSA]) {
            let loaded = load_file(algorithm, pem);
            if fitting.contains(&algorithm) {
                assert_eq!(loaded, Ok(()), "{name} for {algorithm:?}");
            } else {
                let text = only(loaded);
                assert!(text.contains(&format!("holds {name} | ")), "{text}");
                assert!(text.contains(&format!("[{algorithm:?}] needs")), "{text}");
            }
        }
    }
}

#[test]
fn weak_foreign_and_unreadable_public_keys_are_refused() {
    let p521 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key");
    let off_curve = {
        let mut der = vec![
            0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1,
        ];
        der.extend([6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x42, 0, 4]);
        der.extend([1; 64]);
        pem("PUBLIC KEY", &der)
    };
    let cases: [(Algorithm, &str, &str); 8] = [
        (Algorithm::RS256, SMALL_RSA, "an RSA key of 1024 bits"),
        (Algorithm::ES256, SECP256K1, "another curve"),
        (Algorithm::ES256, &p521.public_key_pem(), "another curve"),
        (Algorithm::ES256, &off_curve, "another curve"),
        (Algorithm::EdDSA, X25519, "cannot be read"),
        (
            Algorithm::ES256,
            &pem("PUBLIC KEY", b"junk"),
            "cannot be read",
        ),
        (
            Algorithm::RS256,
            "-----BEGIN PUBLIC KEY-----\n",
            "cannot be read",
        ),
        (Algorithm::RS256, "ssh-rsa AAAA", "0 PEM blocks"),
    ];
    for (algorithm, contents, words) in cases {
        let text = only(load_file(algorithm, contents));
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_private_key_has_no_place_in_the_proxy() {
    for (algorithm, private) in [
        (Algorithm::RS256, &RSA.private),
        (Algorithm::ES256, &P256.private),
        (Algorithm::EdDSA, &ED25519.private),
    ] {
        let both = format!("{}{private}", P256.public);
        for contents in [private, &both] {
            let text = only(load_file(algorithm, contents));
            assert!(text.contains("must not be able to sign"), "{text}");
            assert!(text.contains("openssl pkey"), "{text}");
        }
    }
}

#[test]
fn certificates_and_several_blocks_are_refused_with_a_remedy() {
    let certificate = pem("CERTIFICATE", b"not looked at");
    let text = only(load_file(Algorithm::ES256, certificate));
    assert!(text.contains("openssl x509"), "{text}");
    let two = format!("{}{}", P256.public, P256.public);
    assert!(only(load_file(Algorithm::ES256, two)).contains("2 PEM blocks"));
}

#[test]
fn a_key_file_without_end_is_not_read_to_its_end() {
    let endless = KeySource::File(PathBuf::from("/dev/zero"));
    let text = only(load(&jwt(Algorithm::HS256, endless), &env));
    assert!(text.contains("larger than 64 KiB"), "{text}");
    let largest = vec![b'x'; MAX_KEY_FILE];
    assert_eq!(load_file(Algorithm::HS256, &largest), Ok(()));
    assert!(load_file(Algorithm::HS256, [&largest[..], b"x"].concat()).is_err());
}

#[test]
fn a_set_in_a_file_is_checked_wholly_at_load() {
    let load_set = |document: &str| {
        let file = TempFile::new(document);
        load(&set_jwt(&[Algorithm::ES256], file.path()), &env).map(|(_, warnings)| warnings)
    };
    let good = P256.jwk(json!({"kid": "a"}));
    assert_eq!(
        load_set(&key_set(std::slice::from_ref(&good))),
        Ok(Vec::new())
    );

    let secret = json!({"kty": "oct", "kid": "b", "k": "c2VjcmV0"});
    let other = json!({"kty": "RSA", "use": "enc", "n": "AAAA", "e": "AQAB"});
    let warnings = load_set(&key_set(&[good, secret.clone(), other])).expect("usable");
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    assert_eq!(warning.severity, Severity::Warning);
    assert_eq!(warning.key, "route.chat.auth.jwt.jwks");
    assert!(
        warning.found.contains("key `b` is symmetric"),
        "{warning:?}"
    );
    assert!(!format!("{warning:?}").contains("c2VjcmV0"), "{warning:?}");

    let only_secret = key_set(&[secret]);
    for (document, words) in [
        (
            only_secret.as_str(),
            "no key for the configured algorithms: key `b` is symmetric",
        ),
        ("{}", "no array `keys`"),
        ("", "not a JSON object"),
    ] {
        let problems = load_set(document).expect_err(words);
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}");
        };
        assert_eq!(problem.severity, Severity::Error);
        assert!(problem.found.contains(words), "{problem:?}");
    }
    for (path, words) in [
        ("/nonexistent", "cannot read"),
        ("/dev/zero", "larger than 128 KiB"),
    ] {
        let jwt = set_jwt(&[Algorithm::ES256], Path::new(path));
        let problems = load(&jwt, &env).map(|_| ()).expect_err(words);
        assert!(
            problems.iter().any(|p| p.found.contains(words)),
            "{problems:?}"
        );
    }
}

#[test]
fn algorithms_that_need_different_keys_are_refused_along_with_the_key() {
    use Algorithm::*;
    let mixes: [&[Algorithm]; 5] = [
        &[],
        &[HS256, RS256],
        &[ES256, ES384],
        &[RS256, EdDSA],
        &[ES256, RS256],
    ];
    for mix in mixes {
        let mut jwt = secret_jwt();
        jwt.algorithms = mix.to_vec();
        let problems = load_env(&jwt, None).expect_err("a mix");
        let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
        let expected = ["route.chat.auth.jwt.algorithms", "route.chat.auth.jwt.key"];
        assert_eq!(keys, expected, "{mix:?}");
    }
}

#[test]
fn several_algorithms_for_one_key_are_a_warning() {
    let mut jwt = secret_jwt();
    jwt.algorithms = vec![Algorithm::HS256, Algorithm::HS384];
    let warnings = load_env(&jwt, Some(SECRET)).expect("usable");
    assert_eq!(warnings.len(), 1);
    assert!(warnings.iter().all(|w| w.key.ends_with("algorithms")));
}
