//! Claims about where a token stands in a message.

use proptest::prelude::*;

use super::*;

fn bare(message: &str) -> Result<String, TokenRefused> {
    extract_token(message, None).map(Cow::into_owned)
}

fn at(pointer: &str, message: &str) -> Result<String, TokenRefused> {
    let pointer = Pointer::parse(pointer).expect(pointer);
    extract_token(message, Some(&pointer)).map(Cow::into_owned)
}

#[test]
fn a_bare_token_is_trimmed_and_loses_its_scheme() {
    for message in [
        "a.b.c",
        " \t\r\na.b.c\r\n",
        "Bearer a.b.c",
        "bearer a.b.c",
        "BEARER   a.b.c",
        "\n Bearer a.b.c ",
    ] {
        assert_eq!(bare(message), Ok("a.b.c".to_owned()), "{message:?}");
    }
}

#[test]
fn a_bare_message_is_otherwise_taken_as_it_is() {
    for message in [
        "Bearer",
        "Bearera.b.c",
        "Basic a",
        "a b",
        "\u{a0}a",
        "\u{feff}a",
        "{}",
    ] {
        assert_eq!(bare(message), Ok(message.to_owned()), "{message:?}");
    }
}

#[test]
fn nothing_is_no_token() {
    for message in ["", " ", "\r\n\t"] {
        assert_eq!(bare(message), Err(TokenRefused::Empty), "{message:?}");
    }
    for message in [r#"{"t":""}"#, r#"{"t":"Bearer "}"#] {
        assert_eq!(at("/t", message), Err(TokenRefused::Empty), "{message:?}");
    }
}

#[test]
fn the_field_is_found_wherever_the_pointer_leads() {
    let cases = [
        ("/token", r#"{"token":"a.b.c"}"#),
        (
            "/token",
            " {\"x\":[1,{\"token\":2}], \"token\" : \"a.b.c\" }\n",
        ),
        ("/token", r#"{"token":"Bearer a.b.c"}"#),
        ("/token", r#"{"\u0074oken":"a\u002eb.c"}"#),
        (
            "/payload/Authorization",
            r#"{"payload":{"Authorization":"bearer a.b.c"}}"#,
        ),
        ("/0", r#"["a.b.c"]"#),
        ("/1/t", r#"[0,{"t":"a.b.c"},2]"#),
        ("/", r#"{"":"a.b.c"}"#),
        ("/a~1b/c~0d/~01", r#"{"a/b":{"c~d":{"~1":"a.b.c"}}}"#),
        ("/0", r#"{"0":"a.b.c"}"#),
        ("/token", r#"{"x":{"y":1,"y":2},"token":"a.b.c"}"#),
    ];
    assert!(!cases.is_empty());
    for (pointer, message) in cases {
        assert_eq!(at(pointer, message), Ok("a.b.c".to_owned()), "{message}");
    }
}

#[test]
fn a_field_that_is_absent_repeated_or_no_string_is_refused() {
    use TokenRefused::*;
    let cases = [
        ("/t", "{}", FieldMissing),
        ("/t", "[]", FieldMissing),
        ("/t", "\"a.b.c\"", FieldMissing),
        ("/t", "null", FieldMissing),
        ("/t", "1", FieldMissing),
        ("/t", r#"{"T":"a"}"#, FieldMissing),
        ("/t", r#"{"x":{"t":"a"}}"#, FieldMissing),
        ("/t/x", r#"{"t":"a"}"#, FieldMissing),
        ("/1", r#"["a"]"#, FieldMissing),
        ("/00", r#"["a"]"#, FieldMissing),
        ("/+0", r#"["a"]"#, FieldMissing),
        ("/-", r#"["a"]"#, FieldMissing),
        ("/99999999999999999999", r#"["a"]"#, FieldMissing),
        ("/t", r#"{"t":"a","t":"a"}"#, FieldRepeated),
        ("/t", r#"{"t":"a","x":1,"\u0074":2}"#, FieldRepeated),
        ("/t", r#"{"t":1,"t":2,"t":"a"}"#, FieldRepeated),
        ("/p/t", r#"{"p":{"t":"a"},"p":{}}"#, FieldRepeated),
        ("/p/t", r#"{"p":{"t":"a","t":"b"}}"#, FieldRepeated),
        ("/t", r#"{"t":1}"#, FieldNotString),
        ("/t", r#"{"t":-1.5}"#, FieldNotString),
        ("/t", r#"{"t":null}"#, FieldNotString),
        ("/t", r#"{"t":true}"#, FieldNotString),
        ("/t", r#"{"t":["a"]}"#, FieldNotString),
        ("/t", r#"{"t":{"t":"a"}}"#, FieldNotString),
    ];
    assert!(!cases.is_empty());
    for (pointer, message, reason) in cases {
        assert_eq!(at(pointer, message), Err(reason), "{message}");
    }
}

#[test]
fn what_is_not_one_json_document_is_refused() {
    for message in [
        "",
        "a.b.c",
        "{",
        r#"{"t":"a""#,
        r#"{"t":"a"} {}"#,
        r#"{"t":"a",}"#,
        r#"{t:"a"}"#,
        r#"{'t':'a'}"#,
        r#"{"t":"\ud800"}"#,
        "{\"t\":\"a\nb\"}",
        r#"{"x":tru,"t":"a"}"#,
        "\u{feff}{\"t\":\"a\"}",
    ] {
        assert_eq!(at("/t", message), Err(TokenRefused::NotJson), "{message:?}");
    }
}

#[test]
fn nesting_as_deep_as_the_message_is_long_is_only_read_over() {
    let depth = 500_000;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let message = format!(r#"{{"x":{deep},"t":"a"}}"#);
    assert_eq!(at("/t", &message), Ok("a".to_owned()));
    assert_eq!(at("/0/0/t", &deep), Err(TokenRefused::FieldMissing));
    let along = "/0".repeat(1000);
    assert_eq!(at(&along, &deep), Err(TokenRefused::NotJson));
    assert_eq!(at("/t", &"[".repeat(depth)), Err(TokenRefused::NotJson));
}

#[test]
fn a_pointer_begins_with_a_slash_and_escapes_properly() {
    for text in ["", "token", "#/token", "/~", "/~2", "/a~", "~1"] {
        assert_eq!(Pointer::parse(text), Err(PointerError), "{text}");
    }
}

proptest! {
    #[test]
    fn no_message_panics(message in any::<String>(), json in "[\\[\\]{}\",:a0-9.\\\\ t]{0,40}") {
        let pointer = Pointer::parse("/t/0").expect("a good pointer");
        for text in [&message, &json] {
            let _found = (extract_token(text, None), extract_token(text, Some(&pointer)));
        }
    }

    #[test]
    fn any_text_comes_back_out_of_its_json(token in "[!-~]{1,40}", name in any::<String>()) {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        let message = serde_json::json!({ name: token }).to_string();
        prop_assert_eq!(at(&format!("/{escaped}"), &message), Ok(token));
    }
}
