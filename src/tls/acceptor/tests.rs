//! Everything that can be wrong with a listener's certificates, as the operator reads it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};

use super::*;
use crate::config::{CertificateFiles, Line};
use crate::tls::test_pki::{Folder, Pair, made, made_with, tls};
use crate::tls::x509::{Der, INTEGER, OCTET_STRING, SEQUENCE};

fn load(certificates: Vec<CertificateFiles>) -> Result<Vec<Problem>, Vec<Problem>> {
    Acceptor::load(&tls(certificates, TlsVersion::V1_2), "listener[3]")
        .map(|(_acceptor, warnings)| warnings)
}

/// The key, what was found and the severity of the only problem.
fn only(problems: &[Problem]) -> (&str, &str, Severity) {
    let [problem] = problems else {
        panic!("one problem expected: {problems:#?}");
    };
    assert_eq!(problem.line, Some(Line(7)));
    (&problem.key, &problem.found, problem.severity)
}

/// Text for PEM.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// The algorithm's own form of a key, which PKCS#8 wraps (RFC 5958 §2).
fn unwrapped(pkcs8: &[u8]) -> Vec<u8> {
    let mut info = Der(Der(pkcs8).take(SEQUENCE).expect("PrivateKeyInfo"));
    info.take(INTEGER).expect("version");
    info.take(SEQUENCE).expect("algorithm");
    info.take(OCTET_STRING).expect("privateKey").to_vec()
}

#[test]
fn a_good_pair_has_no_problems() {
    let folder = Folder::new();
    let pair = made(&["localhost"], -1, 100);
    assert_eq!(load(vec![folder.files("a", &pair)]), Ok(vec![]));
}

#[test]
fn every_form_and_kind_of_key_is_read() {
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let cases = [
        (rsa, Some("RSA PRIVATE KEY")),
        (p256, Some("EC PRIVATE KEY")),
        (p384, Some("EC PRIVATE KEY")),
        (ed25519, None),
    ];
    for (key, other_form) in cases {
        let folder = Folder::new();
        let pair = made_with(key, &["localhost"], -1, 100);
        let files = folder.files("a", &pair);
        assert_eq!(load(vec![files.clone()]), Ok(vec![]));
        if let Some(label) = other_form {
            let text = pem(label, &unwrapped(&pair.key.serialize_der()));
            folder.write("a.key", &text);
            assert_eq!(load(vec![files]), Ok(vec![]), "{label}");
        }
    }
}

#[test]
fn one_file_may_hold_both_chain_and_key() {
    let folder = Folder::new();
    let pair = made(&["localhost"], -1, 100);
    let both = pair.key.serialize_pem() + &pair.certificate.pem();
    let path = folder.write("both.pem", &both);
    let files = CertificateFiles {
        cert: path.clone(),
        key: path,
        line: Line(7),
    };
    assert_eq!(load(vec![files]), Ok(vec![]));
}

#[test]
fn an_unusable_file_is_named_with_what_is_wrong() {
    let pair = made(&["localhost"], -1, 100);
    let other = made(&["localhost"], -1, 100);
    let (cert, key) = (pair.certificate.pem(), pair.key.serialize_pem());
    let chain_reversed = other.certificate.pem() + &cert;
    let cases = [
        (None, Some(key.clone()), "cert", "No such file"),
        (Some(cert.clone()), None, "key", "No such file"),
        (
            Some(key.clone()),
            Some(key.clone()),
            "cert",
            "no certificate in it",
        ),
        (
            Some(cert.clone()),
            Some(cert.clone()),
            "key",
            "no private key in it",
        ),
        (
            Some(cert.clone()),
            Some(String::new()),
            "key",
            "no private key in it",
        ),
        (
            Some(cert.clone()),
            Some(key.repeat(2)),
            "key",
            "more than one private key",
        ),
        (
            Some(cert.clone()),
            Some(other.key.serialize_pem()),
            "key",
            "is not the key of",
        ),
        (
            Some(chain_reversed),
            Some(key.clone()),
            "cert",
            "the key is that of certificate 2",
        ),
        (
            Some(pem("CERTIFICATE", b"nonsense")),
            Some(key.clone()),
            "cert",
            "certificate",
        ),
        (
            Some(cert.clone()),
            Some(pem("PRIVATE KEY", b"nonsense")),
            "key",
            "private key",
        ),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA".to_owned()),
            Some(key),
            "cert",
            "section",
        ),
    ];
    for (cert, key, field, expected) in cases {
        let folder = Folder::new();
        let files = CertificateFiles {
            cert: folder.path("a.pem"),
            key: folder.path("a.key"),
            line: Line(7),
        };
        cert.iter()
            .for_each(|text| drop(folder.write("a.pem", text)));
        key.iter()
            .for_each(|text| drop(folder.write("a.key", text)));
        let problems = load(vec![files]).expect_err(expected);
        let (key, found, severity) = only(&problems);
        assert_eq!(
            key,
            format!("listener[3].tls.certificates[0].{field}"),
            "{found}"
        );
        assert_eq!(severity, Severity::Error);
        assert!(found.contains(expected), "{found}");
        assert!(found.contains(&format!(
            "a.{}",
            if field == "cert" { "pem" } else { "key" }
        )));
    }
}

#[test]
fn all_problems_of_all_files_are_found_at_once() {
    let folder = Folder::new();
    let good = folder.files("a", &made(&["a.example.com"], -1, 100));
    let expired = folder.files("b", &made(&["b.example.com"], -9, -2));
    let missing = CertificateFiles {
        cert: folder.path("no.pem"),
        key: folder.path("no.key"),
        line: Line(9),
    };
    let problems = load(vec![good, expired, missing]).expect_err("two are missing");
    let keys: Vec<_> = problems
        .iter()
        .map(|p| (p.key.as_str(), p.severity))
        .collect();
    assert_eq!(
        keys,
        [
            ("listener[3].tls.certificates[1].cert", Severity::Warning),
            ("listener[3].tls.certificates[2].cert", Severity::Error),
            ("listener[3].tls.certificates[2].key", Severity::Error),
        ]
    );
}

#[test]
fn a_certificate_out_of_its_time_is_a_warning_with_the_date() {
    let cases = [
        (-10, -2, Some("expired on")),
        (2, 100, Some("is not valid before")),
        (-10, 13, Some("in 13 days")),
        (-10, 16, None),
    ];
    for (from, to, expected) in cases {
        let folder = Folder::new();
        // A moment ago, so that whole days are left.
        let now = SystemTime::now() - std::time::Duration::from_secs(60);
        let files = vec![folder.files("a", &made(&["localhost"], from, to))];
        let (_, warnings) = Acceptor::load_as_of(&tls(files, TlsVersion::V1_2), "listener[3]", now)
            .expect("it starts all the same");
        match expected {
            None => assert_eq!(warnings, []),
            Some(expected) => {
                let (key, found, severity) = only(&warnings);
                assert_eq!(key, "listener[3].tls.certificates[0].cert");
                assert_eq!(severity, Severity::Warning);
                assert!(found.contains(expected), "{found}");
            }
        }
    }
}

#[test]
fn an_expired_issuer_in_the_chain_is_a_warning_too() {
    let folder = Folder::new();
    let leaf = made(&["localhost"], -1, 100);
    let files = folder.files("a", &leaf);
    let issuer = made(&[], -10, -2);
    folder.write(
        "a.pem",
        &(leaf.certificate.pem() + &issuer.certificate.pem()),
    );
    let warnings = load(vec![files]).expect("it starts");
    let (_, found, _) = only(&warnings);
    assert!(
        found.contains("certificate 2 of the chain expired"),
        "{found}"
    );
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn a_key_that_others_can_read_is_a_warning_with_the_remedy() {
    for (mode, is_exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o644, true)] {
        let folder = Folder::new();
        let files = folder.files("a", &made(&["localhost"], -1, 100));
        set_mode(&files.key, mode);
        let remedy = format!("chmod 600 {}", files.key.display());
        let warnings = load(vec![files]).expect("it starts");
        if is_exposed {
            let (key, found, severity) = only(&warnings);
            assert_eq!(key, "listener[3].tls.certificates[0].key");
            assert!(found.contains(&format!("mode {mode:04o}")), "{found}");
            assert_eq!(severity, Severity::Warning);
            assert!(warnings.iter().all(|p| p.allowed.contains(&remedy)));
        } else {
            assert_eq!(warnings, []);
        }
    }
}

#[test]
fn a_name_in_two_certificates_is_a_warning() {
    let folder = Folder::new();
    let first = made(
        &["a.example.com", "*.example.com", "A.EXAMPLE.COM"],
        -1,
        100,
    );
    let second = made(&["b.example.com", "*.EXAMPLE.com"], -1, 100);
    let files = vec![folder.files("a", &first), folder.files("b", &second)];
    let warnings = load(files).expect("it starts");
    let (key, found, severity) = only(&warnings);
    assert_eq!(key, "listener[3].tls.certificates[1].cert");
    assert_eq!(found, "an earlier certificate already has *.EXAMPLE.com");
    assert_eq!(severity, Severity::Warning);
}

#[test]
fn a_certificate_without_names_is_a_warning_unless_it_is_the_default() {
    let folder = Folder::new();
    let pair: fn(&[&str]) -> Pair = |names| made(names, -1, 100);
    let nameless = folder.files("a", &pair(&["127.0.0.1"]));
    let named = folder.files("b", &pair(&["b.example.com"]));
    assert_eq!(load(vec![nameless.clone(), named.clone()]), Ok(vec![]));
    let warnings = load(vec![named, nameless]).expect("it starts");
    let (key, found, _) = only(&warnings);
    assert_eq!(key, "listener[3].tls.certificates[1].cert");
    assert!(found.contains("never chosen"), "{found}");
}

#[test]
fn no_certificate_at_all_is_an_error() {
    let problems = load(vec![]).expect_err("nothing to serve");
    assert_eq!(problems.len(), 1);
    assert!(problems.iter().all(|p| p.key == "listener[3].tls"));
}

#[test]
fn a_key_is_never_shown() {
    let folder = Folder::new();
    let files = vec![folder.files("a", &made(&["localhost"], -1, 100))];
    let (acceptor, _) =
        Acceptor::load(&tls(files, TlsVersion::V1_3), "listener[0]").expect("good files");
    assert_eq!(format!("{acceptor:?}"), "Acceptor { .. }");
}
