//! Rules as a route may have them: of every kind of test, with a claim and a new token.

use tidegate::proto::json::{Place, Places, Pointer};
use tidegate::proto::rule::{
    Action, Condition, Grants, Inspection, Patterns, Refresh, Refusal, Requirement, Rule, Rules,
    Scalar, Test,
};

/// Where these rules look.
pub const POINTERS: [&str; 6] = ["/type", "/channel", "/n", "/a/b", "/0", "/token"];

/// What the client's token grants.
pub fn grants() -> Grants {
    let text = |text: &str| Scalar::Text(text.to_owned());
    Grants(vec![vec![text("news"), text("room:*"), Scalar::Integer(7)]])
}

/// The rules, and the places of [`POINTERS`].
pub fn inspection() -> (Inspection, Vec<Place>) {
    let mut looked = Places::default();
    let places: Vec<Place> = POINTERS
        .iter()
        .map(|text| looked.add(&Pointer::parse(text).expect("a pointer")))
        .collect();
    let when = |place: usize, test| Condition {
        at: places[place],
        test,
    };
    let is = |word: &str| Test::In(vec![Scalar::Text(word.to_owned())]);
    let rule = |when, action| Rule {
        when,
        require: Vec::new(),
        action,
        otherwise: Refusal::Close,
        quota: None,
    };
    let mut publish = rule(vec![when(0, is("publish"))], Action::Allow);
    publish.require.push(Requirement {
        at: places[1],
        claim: 0,
        patterns: Patterns::Suffix,
    });
    let list = vec![
        publish,
        rule(
            vec![when(2, Test::In(vec![Scalar::Integer(1), Scalar::Flag(true)]))],
            Action::Refuse(Refusal::Drop),
        ),
        rule(
            vec![when(3, Test::Prefix("x".to_owned())), when(4, Test::Absent)],
            Action::Refuse(Refusal::Close),
        ),
        rule(vec![when(0, Test::Present)], Action::Allow),
    ];
    let refresh = Refresh {
        field: places[0],
        equals: "refresh".to_owned(),
        token: places[5],
        reply: None,
    };
    let rules = Rules {
        list,
        default: Action::Refuse(Refusal::Drop),
        on_malformed: Refusal::Close,
        on_binary: Action::Refuse(Refusal::Close),
        claims: vec!["channels".to_owned()],
    };
    let inspection = Inspection {
        places: looked,
        refresh: Some(refresh),
        rules: Some(rules),
    };
    (inspection, places)
}
