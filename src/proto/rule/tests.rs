//! The order and the meaning of rules.

use super::*;
use crate::proto::json::Pointer;

/// An inspection with `rules`, and no refresh.
struct Build {
    places: Places,
    claims: Vec<String>,
}

impl Build {
    fn new() -> Self {
        Self {
            places: Places::default(),
            claims: vec!["channels".to_owned(), "sub".to_owned()],
        }
    }

    fn at(&mut self, pointer: &str) -> Place {
        self.places
            .add(&Pointer::parse(pointer).expect("a pointer"))
    }

    fn when(&mut self, pointer: &str, test: Test) -> Condition {
        Condition {
            at: self.at(pointer),
            test,
        }
    }

    fn require(&mut self, pointer: &str, claim: usize, patterns: Patterns) -> Requirement {
        Requirement {
            at: self.at(pointer),
            claim,
            patterns,
        }
    }

    fn done(self, list: Vec<Rule>, default: Action) -> Inspection {
        Inspection {
            places: self.places,
            refresh: None,
            rules: Some(Rules {
                list,
                default,
                on_malformed: Refusal::Close,
                on_binary: Action::Refuse(Refusal::Close),
                claims: self.claims,
            }),
        }
    }
}

fn rule(when: Vec<Condition>, action: Action) -> Rule {
    Rule {
        when,
        require: Vec::new(),
        action,
        otherwise: Refusal::Close,
        quota: None,
    }
}

fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

const CLOSE: Action = Action::Refuse(Refusal::Close);

/// Whether a message passes a route whose one rule allows what meets `test` at `/v`.
fn passes(test: &Test, message: &str) -> bool {
    let mut build = Build::new();
    let condition = build.when("/v", test.clone());
    let inspection = build.done(vec![rule(vec![condition], Action::Allow)], CLOSE);
    match inspection.judge(message, &Grants::default()) {
        Verdict::Allow(Some(0)) => true,
        Verdict::Refuse(Refusal::Close, Objection::NoRule) => false,
        other => panic!("{message}: {other:?}"),
    }
}

#[test]
fn values_are_compared_by_type_and_exactly() {
    let one = Test::In(vec![text("one"), Scalar::Integer(1), Scalar::Flag(true)]);
    for (message, expected) in [
        (r#"{"v":"one"}"#, true),
        (r#"{"v":"\u006fne"}"#, true),
        (r#"{"v":1}"#, true),
        (r#"{"v":true}"#, true),
        (r#"{"v":"One"}"#, false),
        (r#"{"v":"one "}"#, false),
        (r#"{"v":"1"}"#, false),
        (r#"{"v":"true"}"#, false),
        (r#"{"v":2}"#, false),
        (r#"{"v":null}"#, false),
        (r#"{"v":["one"]}"#, false),
        (r#"{"v":{"one":1}}"#, false),
        (r"{}", false),
        (r#"["one"]"#, false),
    ] {
        assert_eq!(passes(&one, message), expected, "{message}");
    }
}

#[test]
fn prefixes_are_of_texts_and_presence_is_of_anything() {
    let prefix = Test::Prefix("room:".to_owned());
    for (message, expected) in [
        (r#"{"v":"room:1"}"#, true),
        (r#"{"v":"room:"}"#, true),
        (r#"{"v":"\u0072oom:1"}"#, true),
        (r#"{"v":"room"}"#, false),
        (r#"{"v":"Room:1"}"#, false),
        (r#"{"v":["room:1"]}"#, false),
        (r"{}", false),
    ] {
        assert_eq!(passes(&prefix, message), expected, "{message}");
    }
    for (message, expected) in [(r#"{"v":null}"#, true), (r#"{"w":1}"#, false), ("1", false)] {
        assert_eq!(passes(&Test::Present, message), expected, "{message}");
        assert_eq!(passes(&Test::Absent, message), !expected, "{message}");
    }
}

#[test]
fn a_number_that_is_compared_has_one_form_only() {
    let mut build = Build::new();
    let condition = build.when("/v", Test::In(vec![Scalar::Integer(1)]));
    let inspection = build.done(vec![rule(vec![condition], CLOSE)], Action::Allow);
    let judge = |message: &'static str| inspection.judge(message, &Grants::default());
    let forbidden = Verdict::Refuse(Refusal::Close, Objection::Forbidden(1));
    assert_eq!(judge(r#"{"v":1}"#), forbidden);
    assert_eq!(judge(r#"{"v":2}"#), Verdict::Allow(None));
    assert_eq!(judge(r#"{"v":"1"}"#), Verdict::Allow(None));
    for message in [
        r#"{"v":1.0}"#,
        r#"{"v":1e0}"#,
        r#"{"v":10e-1}"#,
        r#"{"v":1.00000000000000001}"#,
        r#"{"v":-0}"#,
        r#"{"v":9007199254740993}"#,
    ] {
        let why = Objection::Malformed(Malformed::InexactNumber);
        assert_eq!(
            judge(message),
            Verdict::Refuse(Refusal::Close, why),
            "{message}"
        );
    }
    // Nobody compares this one.
    assert_eq!(judge(r#"{"w":1.0}"#), Verdict::Allow(None));
}

#[test]
fn the_first_rule_whose_conditions_all_hold_counts() {
    let mut build = Build::new();
    let drops = vec![
        build.when("/type", Test::In(vec![text("log")])),
        build.when("/debug", Test::Present),
    ];
    let log = vec![build.when("/type", Test::In(vec![text("log")]))];
    let admin = vec![build.when("/type", Test::Prefix("admin".to_owned()))];
    let rules = vec![
        rule(drops, Action::Refuse(Refusal::Drop)),
        rule(log, Action::Allow),
        rule(admin, CLOSE),
    ];
    let inspection = build.done(rules, Action::Refuse(Refusal::Drop));
    for (message, verdict) in [
        (
            r#"{"type":"log","debug":false}"#,
            Verdict::Refuse(Refusal::Drop, Objection::Forbidden(1)),
        ),
        (r#"{"type":"log"}"#, Verdict::Allow(Some(1))),
        (
            r#"{"type":"admin.stop"}"#,
            Verdict::Refuse(Refusal::Close, Objection::Forbidden(3)),
        ),
        (
            r#"{"type":"other"}"#,
            Verdict::Refuse(Refusal::Drop, Objection::NoRule),
        ),
    ] {
        let judged = inspection.judge(message, &Grants::default());
        assert_eq!(judged, verdict, "{message}");
    }
}

/// The verdict on a message whose `/channel` must be granted by the first claim.
fn granted(patterns: Patterns, grants: &[Scalar], channel: &str) -> bool {
    let mut build = Build::new();
    let require = vec![build.require("/channel", 0, patterns)];
    let rule = Rule {
        require,
        otherwise: Refusal::Drop,
        ..rule(Vec::new(), Action::Allow)
    };
    let inspection = build.done(vec![rule], CLOSE);
    let message = format!("{{\"channel\":{channel}}}");
    match inspection.judge(&message, &Grants(vec![grants.to_vec()])) {
        Verdict::Allow(Some(0)) => true,
        Verdict::Refuse(Refusal::Drop, Objection::NotGranted(1)) => false,
        other => panic!("{channel}: {other:?}"),
    }
}

#[test]
fn a_requirement_is_met_by_a_value_that_the_claim_holds() {
    let grants = [text("news"), Scalar::Integer(7), text("room:*")];
    for (channel, plain, pattern) in [
        (r#""news""#, true, true),
        (r#""n\u0065ws""#, true, true),
        ("7", true, true),
        (r#""7""#, false, false),
        ("7.0", false, false),
        (r#""room:*""#, true, true),
        (r#""room:1""#, false, true),
        (r#""room:""#, false, true),
        (r#""room""#, false, false),
        (r#""Room:1""#, false, false),
        (r#"["news"]"#, false, false),
        ("null", false, false),
    ] {
        assert_eq!(granted(Patterns::Off, &grants, channel), plain, "{channel}");
        assert_eq!(
            granted(Patterns::Suffix, &grants, channel),
            pattern,
            "{channel}"
        );
    }
    assert!(granted(Patterns::Suffix, &[text("*")], "\"anything\""));
    assert!(!granted(Patterns::Suffix, &[text("*")], "1"));
    assert!(!granted(Patterns::Suffix, &[text("a*b")], "\"axb\""));
    assert!(!granted(Patterns::Suffix, &[], "\"news\""));
}

#[test]
fn a_claim_or_a_value_that_is_absent_grants_nothing() {
    let mut build = Build::new();
    let require = vec![
        build.require("/channel", 0, Patterns::Off),
        build.require("/user", 1, Patterns::Off),
    ];
    let rule = Rule {
        require,
        ..rule(Vec::new(), Action::Allow)
    };
    let inspection = build.done(vec![rule], Action::Allow);
    let both = Grants(vec![vec![text("news")], vec![text("alice")]]);
    let good = r#"{"channel":"news","user":"alice"}"#;
    assert_eq!(inspection.judge(good, &both), Verdict::Allow(Some(0)));
    let not_granted = Verdict::Refuse(Refusal::Close, Objection::NotGranted(1));
    assert_eq!(
        inspection.judge(r#"{"channel":"news"}"#, &both),
        not_granted
    );
    assert_eq!(inspection.judge(good, &Grants::default()), not_granted);
    let half = Grants(vec![vec![text("news")], Vec::new()]);
    assert_eq!(inspection.judge(good, &half), not_granted);
}

#[test]
fn what_is_malformed_is_refused_with_rules_and_passes_without() {
    let mut inspection = Build::new().done(Vec::new(), Action::Allow);
    let repeated = r#"{"a":1,"a":2}"#;
    let why = Objection::Malformed(Malformed::RepeatedName);
    assert_eq!(
        inspection.judge(repeated, &Grants::default()),
        Verdict::Refuse(Refusal::Close, why)
    );
    inspection.rules = None;
    assert_eq!(
        inspection.judge(repeated, &Grants::default()),
        Verdict::Allow(None)
    );
}

#[test]
fn a_message_of_the_shape_brings_its_token_before_any_rule_is_asked() {
    let mut build = Build::new();
    let refresh = Refresh {
        field: build.at("/type"),
        equals: "refresh".to_owned(),
        token: build.at("/token"),
        reply: None,
    };
    let mut inspection = build.done(vec![rule(Vec::new(), CLOSE)], CLOSE);
    inspection.refresh = Some(refresh);
    for (message, token) in [
        (r#"{"type":"refresh","token":"a.b.c"}"#, Some("a.b.c")),
        (r#"{"token":"a\u002eb","type":"\u0072efresh"}"#, Some("a.b")),
        (r#"{"type":"refresh"}"#, None),
        (r#"{"type":"refresh","token":1}"#, None),
        (r#"{"type":"refresh","token":["a"]}"#, None),
    ] {
        assert_eq!(
            inspection.judge(message, &Grants::default()),
            Verdict::Refresh(token.map(Masked::from)),
            "{message}"
        );
    }
    for message in [
        r#"{"type":"Refresh","token":"a"}"#,
        r#"{"type":["refresh"]}"#,
        "\"refresh\"",
    ] {
        assert_eq!(
            inspection.judge(message, &Grants::default()),
            Verdict::Refuse(Refusal::Close, Objection::Forbidden(1)),
            "{message}"
        );
    }
}

#[test]
fn claims_are_masked() {
    let grants = Grants(vec![vec![text("secret channel")]]);
    assert!(!format!("{grants:?}").contains("secret"));
}
