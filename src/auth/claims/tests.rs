//! Claims about claims sent as headers.

use serde_json::json;

use super::header::{MAX_JSON, MAX_TEXT};
use super::*;
use crate::auth::refused::HeaderFault;
use crate::config::ClaimFormat;

fn good(changes: Value) -> Claims {
    let mut document = json!({"exp": 2_000_000_000});
    for (name, value) in changes.as_object().expect("an object") {
        document[name] = value.clone();
    }
    let rules = Rules {
        issuer: None,
        audience: Vec::new(),
        leeway: Duration::ZERO,
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    Claims::check(document.to_string().as_bytes(), &rules, now).expect("good claims")
}

fn mapped(claim: &str) -> Vec<ClaimHeader> {
    vec![ClaimHeader {
        header: "x-claim".to_owned(),
        claim: claim.to_owned(),
        format: ClaimFormat::Text,
    }]
}

/// The value of the one header that the claim `c` gives.
fn sent(value: Value) -> Result<Option<String>, TokenRefused> {
    sent_as(ClaimFormat::Text, value)
}

fn sent_as(format: ClaimFormat, value: Value) -> Result<Option<String>, TokenRefused> {
    let mut mapped = mapped("c");
    mapped[0].format = format;
    let headers = good(json!({ "c": value })).header_values(&mapped)?;
    assert!(headers.len() <= 1);
    Ok(headers.into_iter().next().map(|(name, value)| {
        assert_eq!(name, "x-claim");
        value
    }))
}

#[test]
fn scalars_and_their_arrays_are_sent_as_text() {
    let cases = [
        (json!("alice"), "alice"),
        (json!("a, b=\"c\" d"), "a, b=\"c\" d"),
        (json!(""), ""),
        (json!(42), "42"),
        (json!(-42), "-42"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!(i64::MIN), "-9223372036854775808"),
        (json!(1.5), "1.5"),
        (json!(true), "true"),
        (json!([]), ""),
        (json!(["admin", "user", 3, false]), "admin,user,3,false"),
    ];
    assert!(!cases.is_empty());
    for (value, text) in cases {
        assert_eq!(sent(value.clone()), Ok(Some(text.to_owned())), "{value}");
    }
    let longest = "x".repeat(MAX_TEXT);
    assert_eq!(sent(json!(longest)), Ok(Some(longest.clone())));
}

#[test]
fn what_the_upstream_might_read_otherwise_refuses_the_token() {
    use HeaderFault::*;
    let cases = [
        (json!({}), Nested),
        (json!([["a"]]), Nested),
        (json!([{"a": 1}]), Nested),
        (json!(["a", null]), Nested),
        (json!("a\r\nx-admin: 1"), Character),
        (json!("a\n"), Character),
        (json!("a\0"), Character),
        (json!("a\tb"), Character),
        (json!("a\u{7f}"), Character),
        (json!("a\u{85}"), Character),
        (json!("zoë"), Character),
        (json!(" admin"), Character),
        (json!("admin "), Character),
        (json!(["a", "b\r\n"]), Character),
        (json!(["user", "x,admin"]), Comma),
        (json!(18446744073709551616.0), Inexact),
        (json!(-9007199254740992.0), Inexact),
        (json!("x".repeat(MAX_TEXT + 1)), TooLong),
        (json!(["x".repeat(600), "x".repeat(600)]), TooLong),
    ];
    assert!(!cases.is_empty());
    for (value, fault) in cases {
        let refused = sent(value.clone()).expect_err("a refusal");
        let claim = "c".to_owned();
        assert_eq!(
            refused,
            TokenRefused::NotSendable { claim, fault },
            "{value}"
        );
        assert!(!format!("{refused} {refused:?}").contains("admin"));
    }
}

#[test]
fn any_claim_is_sent_as_json_in_visible_ascii() {
    let cases = [
        (json!("alice"), r#""alice""#),
        (
            json!(" zoë\r\nx-admin: 1\u{7f}\u{1f600}\u{85}"),
            r#"" zo\u00eb\r\nx-admin: 1\u007f\ud83d\ude00\u0085""#,
        ),
        (json!("a, \"b\" \\"), r#""a, \"b\" \\""#),
        (
            json!({"é": [1, -2.5, null, true, {}], "b": ["x,y"]}),
            r#"{"b":["x,y"],"\u00e9":[1,-2.5,null,true,{}]}"#,
        ),
        (json!([["a"], []]), r#"[["a"],[]]"#),
        (json!(false), "false"),
        (json!(u64::MAX), "18446744073709551615"),
    ];
    assert!(!cases.is_empty());
    for (value, text) in cases {
        let sent = sent_as(ClaimFormat::Json, value.clone()).expect("sendable");
        let sent = sent.expect("a header");
        assert_eq!(sent, text);
        assert!(sent.bytes().all(|b| matches!(b, b' '..=b'~')));
        let read: Value = serde_json::from_str(&sent).expect("JSON");
        assert_eq!(read, value, "it is read as it was signed");
    }
}

#[test]
fn json_is_bounded_and_exact() {
    let longest = "x".repeat(MAX_JSON - 2);
    assert!(sent_as(ClaimFormat::Json, json!(longest)).is_ok());
    // Bounded as it is sent: an escape has six bytes.
    let many_escapes = "ë".repeat(MAX_JSON / 6 + 1);
    for (value, fault) in [
        (json!(format!("{longest}x")), HeaderFault::TooLong),
        (json!(many_escapes), HeaderFault::TooLong),
        (
            json!({"id": [18446744073709551616.0]}),
            HeaderFault::Inexact,
        ),
    ] {
        let claim = "c".to_owned();
        let refused = sent_as(ClaimFormat::Json, value);
        assert_eq!(refused, Err(TokenRefused::NotSendable { claim, fault }));
    }
}

#[test]
fn an_absent_or_null_claim_gives_no_header() {
    assert_eq!(sent(Value::Null), Ok(None));
    assert_eq!(sent_as(ClaimFormat::Json, Value::Null), Ok(None));
    let headers = good(json!({})).header_values(&mapped("absent"));
    assert_eq!(headers, Ok(Vec::new()));
}

#[test]
fn claims_are_found_by_name_and_by_pointer() {
    let claims = good(json!({"a.b": 1, "https://x.example/role": 2, "r": {"s/t": [3, 4]}}));
    assert_eq!(claims.lookup("a.b"), Some(&json!(1)));
    assert_eq!(claims.lookup("https://x.example/role"), Some(&json!(2)));
    assert_eq!(claims.lookup("/r/s~1t/1"), Some(&json!(4)));
    assert_eq!(claims.lookup("r/s"), None);
    assert_eq!(claims.lookup(""), None);
    assert_eq!(claims.lookup("/"), None);
}

#[test]
fn headers_keep_the_order_of_the_configuration() {
    let mut list = mapped("b");
    list.extend(mapped("a"));
    let headers = good(json!({"a": 1, "b": 2})).header_values(&list);
    let pair = |value: &str| ("x-claim".to_owned(), value.to_owned());
    assert_eq!(headers, Ok(vec![pair("2"), pair("1")]));
}
