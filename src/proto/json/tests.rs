//! What is found, what is refused, and that nothing is read otherwise than by a known parser.

use proptest::prelude::*;
use serde_json::Value as Tree;

use super::*;

fn places(pointers: &[&str]) -> (Places, Vec<Place>) {
    let mut places = Places::default();
    let listed = pointers
        .iter()
        .map(|text| places.add(&Pointer::parse(text).expect("a pointer")))
        .collect();
    (places, listed)
}

fn refused(text: &str) -> Option<Malformed> {
    places(&["/type", "/a/b"]).0.scan(text).err()
}

/// What stands at `pointer`.
fn at<'m>(pointer: &str, text: &'m str) -> Value<'m> {
    let (places, listed) = places(&[pointer]);
    let found = places.scan(text).expect("good JSON");
    found.at(listed[0]).clone()
}

#[test]
fn values_are_found_wherever_the_pointer_leads() {
    let text = r#" { "type" : "publish", "n": -12, "b": true, "z": null,
        "list": [ 1, [], {"deep": ["x", {"er": "here"}]} ], "a/b": {"~": "tilde"}, "": {"": "empty"} } "#;
    for (pointer, value) in [
        ("/type", Value::Text("publish".into())),
        ("/n", Value::Number("-12")),
        ("/b", Value::Flag(true)),
        ("/z", Value::Null),
        ("/list", Value::Container),
        ("/list/0", Value::Number("1")),
        ("/list/1", Value::Container),
        ("/list/2/deep/1/er", Value::Text("here".into())),
        ("/a~1b/~0", Value::Text("tilde".into())),
        ("//", Value::Text("empty".into())),
        ("/nothing", Value::Absent),
        ("/type/x", Value::Absent),
        ("/list/3", Value::Absent),
        ("/list/00", Value::Absent),
        ("/list/+1", Value::Absent),
        ("/list/-", Value::Absent),
    ] {
        assert_eq!(at(pointer, text), value, "{pointer}");
    }
}

#[test]
fn the_same_place_is_named_once_and_a_place_may_lie_below_another() {
    let (places, listed) = places(&["/a", "/a/b", "/a", "/a/c"]);
    assert_eq!(listed[0], listed[2]);
    let found = places.scan(r#"{"a":{"b":1,"c":2}}"#).expect("good JSON");
    let values: Vec<_> = listed.iter().map(|place| found.at(*place)).collect();
    assert_eq!(
        values,
        [
            &Value::Container,
            &Value::Number("1"),
            &Value::Container,
            &Value::Number("2")
        ]
    );
}

#[test]
fn strings_and_names_are_compared_unescaped() {
    assert_eq!(
        at(
            "/type",
            r#"{"\u0074yp\u0065":"\"\\\/\b\f\n\r\t\u00e9\ud83d\uDE00é"}"#
        ),
        Value::Text("\"\\/\u{8}\u{c}\n\r\té😀é".into())
    );
}

#[test]
fn a_document_that_is_no_object_has_nothing_to_find() {
    for text in ["1", "\"type\"", "null", "[]", "[\"type\"]", " true "] {
        assert_eq!(at("/type", text), Value::Absent, "{text}");
    }
}

#[test]
fn a_name_twice_is_refused_at_any_depth_and_in_any_spelling() {
    let mut many = (0..100).map(|n| format!("\"k{n}\":0,")).collect::<String>();
    many.push_str("\"k50\":1");
    for text in [
        r#"{"a":1,"a":1}"#,
        r#"{"x":1,"\u0078":2}"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
        r#"{"x":{"y":1,"z":{},"y":3}}"#,
        r#"[[{"x":[{"y":1,"y":1}]}]]"#,
        r#"{"":1,"":1}"#,
        &format!("{{{many}}}"),
        &format!("{{\"x\":[{{{many}}}]}}"),
    ] {
        assert_eq!(refused(text), Some(Malformed::RepeatedName), "{text}");
    }
    // The same name in different objects is another name.
    assert_eq!(
        refused(r#"{"x":{"y":1},"y":{"y":{"x":1}},"z":[{"y":1},{"y":1}]}"#),
        None
    );
}

#[test]
fn a_name_looked_for_in_another_case_is_refused_where_it_is_looked_for() {
    for text in [
        r#"{"Type":"x"}"#,
        r#"{"type":"ping","TYPE":"publish"}"#,
        r#"{"\u0054ype":"x"}"#,
        r#"{"a":{"B":1}}"#,
    ] {
        assert_eq!(refused(text), Some(Malformed::NameInOtherCase), "{text}");
    }
    assert_eq!(refused(r#"{"x":{"Type":1},"b":1,"B":2,"Typ":3}"#), None);
    let (places, _) = places(&["/kiss", "/straße"]);
    for name in [
        "KISS",
        "\u{212a}iss",
        "kiſs",
        "kıss",
        "kİss",
        "STRASSE",
        "straẞe",
    ] {
        let text = format!("{{\"{name}\":1}}");
        assert_eq!(
            places.scan(&text),
            Err(Malformed::NameInOtherCase),
            "{name}"
        );
    }
}

#[test]
fn what_the_grammar_does_not_have_is_refused() {
    let texts = [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "{}{}",
        "{} x",
        "1 2",
        "\u{feff}{}",
        "{\"x\":1,}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"x\" 1}",
        "{\"x\":}",
        "{x:1}",
        "{'x':1}",
        "{1:1}",
        "{\"x\":1 \"y\":2}",
        "{,}",
        "/* */{}",
        "{}//",
        "#\n{}",
        "{\"x\":NaN}",
        "[Infinity]",
        "[-Infinity]",
        "[undefined]",
        "[True]",
        "[nul]",
        "[nulll]",
        "[01]",
        "[-01]",
        "[00]",
        "[-]",
        "[+1]",
        "[.5]",
        "[1.]",
        "[1.e1]",
        "[1e]",
        "[1e+]",
        "[0x10]",
        "[1_000]",
        "[1n]",
        "\"",
        "\"x",
        "\"\\",
        "\"\\x41\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"\\'\"",
        "\"\\U0041\"",
        "\"a\nb\"",
        "\"a\u{0}b\"",
        "\"a\u{1f}b\"",
        "\u{a0}{}",
        "\u{c}{}",
        "\u{b}1",
    ];
    for text in texts {
        assert_eq!(refused(text), Some(Malformed::Syntax), "{text:?}");
    }
}

#[test]
fn what_parsers_read_differently_is_refused() {
    use Malformed::{HugeNumber, Nul, Surrogate};
    for (text, why) in [
        (r#"["\ud800"]"#, Surrogate),
        (r#"["\udc00"]"#, Surrogate),
        (r#"["\ud800x"]"#, Surrogate),
        (r#"["\ud800\n"]"#, Surrogate),
        (r#"["\ud800\ud800"]"#, Surrogate),
        (r#"["\udc00\ud800"]"#, Surrogate),
        (r#"{"\ud800":1}"#, Surrogate),
        (r#"["a\u0000b"]"#, Nul),
        (r#"{"type\u0000":1}"#, Nul),
        ("[1e400]", HugeNumber),
        ("[-1E+400]", HugeNumber),
        ("[1e99999999999999999999]", HugeNumber),
        (&format!("[{}]", "9".repeat(400)), HugeNumber),
    ] {
        assert_eq!(refused(text), Some(why), "{text}");
    }
    for text in [
        "[1e308]",
        "[1e-400]",
        "[-0]",
        "[0.0]",
        "[1E5]",
        &"9".repeat(300),
    ] {
        assert_eq!(refused(text), None, "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(refused(&nested(MAX_DEPTH)), None);
    assert_eq!(refused(&nested(MAX_DEPTH + 1)), Some(Malformed::TooDeep));
    let objects = |depth: usize| format!("{}1{}", "{\"x\":".repeat(depth), "}".repeat(depth));
    assert_eq!(refused(&objects(MAX_DEPTH)), None);
    assert_eq!(refused(&objects(MAX_DEPTH + 1)), Some(Malformed::TooDeep));
    assert_eq!(refused(&"[".repeat(1 << 20)), Some(Malformed::TooDeep));
    assert_eq!(
        refused(&"{\"x\":".repeat(1 << 18)),
        Some(Malformed::TooDeep)
    );
}

#[test]
fn only_plain_whole_numbers_are_exact() {
    for (number, integer) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9007199254740991", Some((1 << 53) - 1)),
        ("-9007199254740991", Some(1 - (1 << 53))),
        ("9007199254740992", None),
        ("9223372036854775808", None),
        ("-9223372036854775808", None),
        ("-0", None),
        ("1.0", None),
        ("1e0", None),
        ("1.00000000000000001", None),
    ] {
        assert_eq!(exact_integer(number), integer, "{number}");
    }
}

#[test]
fn a_pointer_is_read_by_the_rules_of_the_rfc() {
    for good in ["/", "/a", "/a/b", "//", "/~0~1", "/é"] {
        assert!(Pointer::parse(good).is_ok(), "{good}");
    }
    for bad in ["", "a", "a/b", "/~", "/~2", "/a~", " /a"] {
        assert_eq!(Pointer::parse(bad), Err(NotAPointer), "{bad}");
    }
}

/// Documents as a client may send them, with names that collide, and some slips of the pen.
fn any_text() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,2})?([eE][+-]?[0-9]{1,3})?",
        "\"([ab\\\\\"é]|\\\\u[0-9a-d]{4}|\\\\[nt/\"])*\"",
    ];
    let name = || {
        prop_oneof![
            Just("\"a\"".to_owned()),
            Just("\"b\"".to_owned()),
            Just("\"\\u0061\"".to_owned()),
            "\"[a-d]{0,2}\"",
        ]
    };
    let value = scalar.prop_recursive(5, 40, 5, move |inner| {
        let members = prop::collection::vec((name(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5)
                .prop_map(|elements| format!("[{}]", elements.join(" ,"))),
            members.prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    (value, any::<prop::sample::Index>(), any::<Option<u8>>()).prop_map(|(text, at, slip)| {
        let mut bytes = text.into_bytes();
        if let Some(slip) = slip.filter(u8::is_ascii)
            && slip % 4 == 0
        {
            let at = at.index(bytes.len());
            bytes[at] = slip;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn same(value: &Value<'_>, tree: Option<&Tree>) -> bool {
    match (value, tree) {
        (Value::Absent, None) | (Value::Null, Some(Tree::Null)) => true,
        (Value::Flag(flag), Some(Tree::Bool(other))) => flag == other,
        (Value::Text(text), Some(Tree::String(other))) => text == other,
        // serde_json's floats may be a digit off in the last place.
        (Value::Number(number), Some(Tree::Number(other))) => {
            let (one, other) = (number.parse::<f64>().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= one.abs() * 1e-15
        }
        (Value::Container, Some(Tree::Array(_) | Tree::Object(_))) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_accepted_is_read_as_serde_json_reads_it(text in any_text()) {
        let pointers = ["/a", "/b", "/a/a", "/a/b", "/a/0", "/0", "/1/b", "/b/1/a", "/"];
        let (places, listed) = places(&pointers);
        let tree = serde_json::from_str::<Tree>(&text);
        match places.scan(&text) {
            Ok(found) => {
                let tree = tree.expect("serde_json reads it, too");
                for (pointer, place) in pointers.iter().zip(listed) {
                    let value = found.at(place);
                    prop_assert!(same(value, tree.pointer(pointer)), "{} {:?}", pointer, value);
                }
            }
            Err(Malformed::Syntax | Malformed::Surrogate | Malformed::HugeNumber) => {
                prop_assert!(tree.is_err(), "only the scanner refuses it");
            }
            Err(_) => {}
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}") {
        let _ = places(&["/a", "/a/b"]).0.scan(&text);
    }
}
