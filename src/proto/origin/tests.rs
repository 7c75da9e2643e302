//! Claims about origins, mostly as tables.

use proptest::prelude::*;

use super::*;

fn set(patterns: &[&str], missing: MissingOrigin) -> OriginSet {
    let patterns = patterns
        .iter()
        .map(|p| OriginPattern::parse(p).expect(p))
        .collect();
    OriginSet::new(patterns, missing)
}

fn check(patterns: &[&str], origin: &str) -> Result<(), OriginRefused> {
    set(patterns, MissingOrigin::Refuse).check([origin.as_bytes()])
}

#[test]
fn same_scheme_host_and_port_is_the_same_origin() {
    let cases = [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com", "https://app.example.com:443"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("https://app.example.com", "HTTPS://APP.Example.COM"),
        ("http://app.example.com", "http://app.example.com:80"),
        ("https://App.Example.Com", "https://app.example.com"),
        (
            "https://app.example.com:8443",
            "https://app.example.com:8443",
        ),
        ("http://localhost:0", "http://localhost:0"),
        ("http://localhost:65535", "http://localhost:65535"),
        ("https://[::1]", "https://[0:0:0:0:0:0:0:1]:443"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("https://my_app.example.com", "https://my_app.example.com"),
        ("null", "null"),
    ];
    assert!(!cases.is_empty());
    for (listed, sent) in cases {
        assert_eq!(check(&[listed], sent), Ok(()), "{listed} and {sent}");
    }
}

#[test]
fn another_scheme_host_or_port_is_not_allowed() {
    let sent = [
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com:80",
        "http://app.example.com:443",
        "https://example.com",
        "https://evilexample.com",
        "https://app.example.com.evil",
        "https://app.example.com.evil.com",
        "https://evil-app.example.com",
        "https://xapp.example.com",
        "https://a.app.example.com",
        "https://app-example.com",
        "https://[::1]",
        "wss://app.example.com",
        "null",
    ];
    assert!(!sent.is_empty());
    for origin in sent {
        assert_eq!(
            check(&["https://app.example.com"], origin),
            Err(OriginRefused::NotAllowed),
            "{origin}"
        );
    }
}

#[test]
fn a_wildcard_stands_for_one_or_more_whole_labels() {
    let listed = ["https://*.example.com"];
    for origin in [
        "https://app.example.com",
        "https://a.b.example.com",
        "https://APP.example.com:443",
    ] {
        assert_eq!(check(&listed, origin), Ok(()), "{origin}");
    }
    for origin in [
        "https://example.com",
        "https://evilexample.com",
        "https://example.com.evil",
        "https://app.example.com.evil.com",
        "https://app.example.com:8443",
        "http://app.example.com",
        "null",
    ] {
        let refused = Err(OriginRefused::NotAllowed);
        assert_eq!(check(&listed, origin), refused, "{origin}");
    }
    assert_eq!(
        check(
            &["https://*.example.com:8443"],
            "https://a.example.com:8443"
        ),
        Ok(())
    );
    assert_eq!(
        check(&["https://*.example.com:8443"], "https://a.example.com"),
        Err(OriginRefused::NotAllowed)
    );
}

#[test]
fn what_is_not_one_serialized_origin_is_malformed() {
    let long_label = format!("https://{}.example.com", "a".repeat(MAX_LABEL + 1));
    let long_host = format!("https://{}com", "abcdefg.".repeat(32));
    let long = format!("https://{}", "a".repeat(MAX_ORIGIN));
    let cases: &[(&str, OriginError)] = &[
        ("", OriginError::Scheme),
        ("*", OriginError::Scheme),
        ("app.example.com", OriginError::Scheme),
        ("//app.example.com", OriginError::Scheme),
        ("://app.example.com", OriginError::Scheme),
        ("1https://app.example.com", OriginError::Scheme),
        (" https://app.example.com", OriginError::Scheme),
        ("https:app.example.com", OriginError::Scheme),
        ("NULL", OriginError::Scheme),
        ("null null", OriginError::Scheme),
        ("https://app.example.com/", OriginError::Path),
        ("https://app.example.com/x", OriginError::Path),
        ("https://app.example.com\\x", OriginError::Path),
        ("https://app.example.com?x", OriginError::Path),
        ("https://app.example.com#x", OriginError::Path),
        ("file:///etc/passwd", OriginError::Path),
        ("https://app.example.com@evil", OriginError::UserInfo),
        ("https://u:p@app.example.com", OriginError::UserInfo),
        ("https://app.example.com ", OriginError::Character),
        ("https://app.example.com,https:", OriginError::Character),
        (
            "https://a.example.com https://b.example.com",
            OriginError::Character,
        ),
        ("https://app.example.com\0", OriginError::Character),
        ("https://app.example.com\r\n", OriginError::Character),
        ("https://app.example.com\x7f", OriginError::Character),
        ("https://app\t.example.com", OriginError::Character),
        ("https://app%2eexample.com", OriginError::Character),
        ("https://äpp.example.com", OriginError::Character),
        ("https://аpp.example.com", OriginError::Character),
        ("https://", OriginError::EmptyHost),
        ("https://:443", OriginError::EmptyHost),
        ("https://app.example.com.", OriginError::Host),
        ("https://.example.com", OriginError::Host),
        ("https://app..example.com", OriginError::Host),
        ("https://.", OriginError::Host),
        ("https://[::1", OriginError::Host),
        ("https://[::1]x", OriginError::Host),
        ("https://[]", OriginError::Host),
        ("https://[127.0.0.1]", OriginError::Host),
        ("https://app]", OriginError::Host),
        ("https://*.example.com", OriginError::Wildcard),
        ("https://app.example.com:", OriginError::Port),
        ("https://app.example.com:65536", OriginError::Port),
        ("https://app.example.com:0443", OriginError::Port),
        ("https://app.example.com:-1", OriginError::Port),
        ("https://app.example.com:443:443", OriginError::Port),
        ("https://::1", OriginError::Port),
        (&long_label, OriginError::Host),
        (&long_host, OriginError::Host),
        (&long, OriginError::TooLong),
    ];
    assert!(!cases.is_empty());
    for (sent, error) in cases {
        let refused = Err(OriginRefused::Malformed(*error));
        assert_eq!(check(&["*"], sent), refused, "{sent:?}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_malformed() {
    let all = set(&["*"], MissingOrigin::Allow);
    assert_eq!(
        all.check([&b"https://app\xff.example.com"[..]]),
        Err(OriginRefused::Malformed(OriginError::Character))
    );
}

#[test]
fn a_missing_origin_passes_only_where_that_is_allowed() {
    let refuse = set(&["*"], MissingOrigin::Refuse);
    let allow = set(&["https://app.example.com"], MissingOrigin::Allow);
    assert_eq!(refuse.check([]), Err(OriginRefused::Missing));
    assert_eq!(allow.check([]), Ok(()));
    assert_eq!(
        allow.check([&b"https://evil.example"[..]]),
        Err(OriginRefused::NotAllowed)
    );
}

#[test]
fn two_origin_headers_are_refused_even_when_equal() {
    let app = &b"https://app.example.com"[..];
    let allow = set(&["https://app.example.com"], MissingOrigin::Allow);
    assert_eq!(allow.check([app, app]), Err(OriginRefused::Multiple));
    assert_eq!(allow.check([app, b""]), Err(OriginRefused::Multiple));
}

#[test]
fn null_is_admitted_only_when_listed() {
    assert_eq!(check(&["*"], "null"), Err(OriginRefused::NotAllowed));
    assert_eq!(check(&["*", "null"], "null"), Ok(()));
    assert_eq!(
        check(&["null"], "https://a.example"),
        Err(OriginRefused::NotAllowed)
    );
}

#[test]
fn any_is_every_well_formed_origin_and_says_so() {
    assert_eq!(check(&["*"], "https://whoever.example"), Ok(()));
    assert!(OriginPattern::parse("*").expect("any").is_any());
    assert!(!OriginPattern::parse("null").expect("null").is_any());
}

#[test]
fn an_empty_list_admits_no_origin() {
    assert_eq!(
        check(&[], "https://app.example.com"),
        Err(OriginRefused::NotAllowed)
    );
}

#[test]
fn a_pattern_with_a_misplaced_wildcard_is_refused() {
    let cases = [
        "**",
        "*.example.com",
        "https://*",
        "https://*example.com",
        "https://app*.example.com",
        "https://app.*.com",
        "https://*.*.example.com",
        "https://*.",
        "https://*..example.com",
        "https://*.example.com.",
        "https://*.example.com/",
        "https://*.example.com:*",
        "https://*.0.0.1",
        "https://[*]",
        "*://app.example.com",
        "https://*.example.com/*",
    ];
    assert!(!cases.is_empty());
    for text in cases {
        assert!(OriginPattern::parse(text).is_err(), "{text}");
    }
}

#[test]
fn an_origin_is_written_as_a_browser_would() {
    for (text, written) in [
        ("HTTPS://App.Example.com:443", "https://app.example.com"),
        (
            "https://app.example.com:8443",
            "https://app.example.com:8443",
        ),
        ("http://[0::1]:8080", "http://[::1]:8080"),
        ("app://local", "app://local"),
        ("null", "null"),
    ] {
        let origin = Origin::parse(text).expect(text);
        assert_eq!(origin.to_string(), written);
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _parsed = (Origin::parse(&text), OriginPattern::parse(&text));
    }

    #[test]
    fn near_origins_never_panic_and_print_as_they_were_read(
        text in "(https?|ws)://[\\[a-z0-9.*:@/\\]-]{0,24}(:[0-9]{0,6})?"
    ) {
        if let Ok(origin) = Origin::parse(&text) {
            prop_assert_eq!(Origin::parse(&origin.to_string()), Ok(origin));
        }
        let _pattern = OriginPattern::parse(&text);
    }

    #[test]
    fn a_wildcard_matches_exactly_what_ends_in_dot_and_domain(host in "[a-z.]{1,20}") {
        let pattern = OriginPattern::parse("https://*.a.b").expect("a good pattern");
        if let Ok(origin) = Origin::parse(&format!("https://{host}")) {
            prop_assert_eq!(pattern.matches(&origin), host.ends_with(".a.b"));
        }
    }
}
