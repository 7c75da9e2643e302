//! Names of this machine, and the token. Requests are in `tests/it/admin.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::config::problem::{Problem, Severity};
use crate::config::{AdminToken, KeySource, Line};

const GOOD: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn only_localhost_and_addresses_name_this_machine() {
    for host in [
        "localhost",
        "LOCALHOST:9090",
        "127.0.0.1",
        "127.0.0.1:9090",
        "10.0.0.1:80",
        "[::1]",
        "[::1]:9090",
    ] {
        assert!(is_this_machine(host), "{host}");
    }
    for host in [
        "",
        ":9090",
        "evil.com",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "localhost.",
        "::1",
        "[127.0.0.1]",
        "[::1",
        "evil.com:127.0.0.1",
        "0x7f000001",
    ] {
        assert!(!is_this_machine(host), "{host}");
    }
}

fn from_env(value: Option<&str>) -> Result<(Token, Vec<Problem>), Vec<Problem>> {
    let token = AdminToken {
        source: KeySource::Env("ADMIN".to_owned()),
        line: Line(7),
    };
    Token::load(&token, &|name| {
        assert_eq!(name, "ADMIN");
        value.map(str::to_owned)
    })
}

#[test]
fn a_token_is_long_and_visible() {
    let longest = "x".repeat(1024);
    for good in [GOOD, &format!("{GOOD}\n"), &longest] {
        let (token, warnings) = from_env(Some(good)).expect("a token");
        assert_eq!(warnings, []);
        let field = format!("Bearer {}", good.trim_end());
        assert!(token.is_in(field.as_bytes()));
        assert!(!format!("{token:?}").contains(good.trim_end()));
    }
    for bad in [
        None,
        Some(""),
        Some(&GOOD[1..]),
        Some("0123456789abcdef 123456789abcdef0"),
        Some("0123456789abcdef\u{e4}0123456789abcdef"),
        Some(&format!("{longest}x")),
    ] {
        let problems = from_env(bad).expect_err("no token");
        let [problem] = &problems[..] else {
            panic!("{problems:?}");
        };
        assert_eq!(
            (problem.line, &*problem.key),
            (Some(Line(7)), "admin.token")
        );
        assert!(!problem.found.contains("0123456789"), "{problem:?}");
    }
}

#[test]
fn a_field_is_the_token_or_it_is_not() {
    let (token, _) = from_env(Some(GOOD)).expect("a token");
    for good in [format!("bearer {GOOD}"), format!("BEARER {GOOD}")] {
        assert!(token.is_in(good.as_bytes()), "{good}");
    }
    for bad in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Basic {GOOD}"),
        format!("Bearer  {GOOD}"),
        format!("Bearer {GOOD}0"),
        format!("Bearer {}", &GOOD[1..]),
        GOOD.to_owned(),
    ] {
        assert!(!token.is_in(bad.as_bytes()), "{bad}");
    }
}

#[test]
fn a_token_file_that_others_may_read_makes_a_warning() {
    let path: PathBuf = std::env::temp_dir().join(format!("tidegate-admin-{}", std::process::id()));
    fs::write(&path, format!("{GOOD}\n")).expect("written");
    let token = AdminToken {
        source: KeySource::File(path.clone()),
        line: Line(7),
    };
    let mut found = Vec::new();
    for mode in [0o600, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        let (_, warnings) = Token::load(&token, &|_| None).expect("a token");
        found.push(warnings.iter().map(|w| w.severity).collect::<Vec<_>>());
    }
    fs::remove_file(&path).expect("removed");
    assert_eq!(found, [vec![], vec![Severity::Warning]]);
    let problems = Token::load(&token, &|_| None).expect_err("no file");
    assert!(problems[0].found.contains("cannot read"), "{problems:?}");
}
