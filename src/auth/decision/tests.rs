//! What a service is asked, what its answer means, and which questions are equal.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use super::*;
use crate::auth::claims::Rules;

fn admission(claims: Option<Value>) -> Admission {
    let rules = Rules {
        issuer: None,
        audience: Vec::new(),
        leeway: Duration::ZERO,
    };
    let check = |claims: Value| {
        let bytes = claims.to_string();
        Claims::check(bytes.as_bytes(), &rules, SystemTime::now()).expect("good claims")
    };
    Admission {
        claims: claims.map(check),
        ..Admission::anonymous()
    }
}

fn alice() -> Admission {
    admission(Some(
        json!({"sub": "alice", "exp": 9_999_999_999_u64, "n": 1.5}),
    ))
}

fn asked<'a>(admission: &'a Admission, headers: &'a [Field]) -> Asked<'a> {
    Asked {
        route: "chat",
        request_id: "r-1",
        client_ip: Ipv4Addr::new(192, 0, 2, 7).into(),
        host: "chat.example.com",
        path_and_query: "/chat?room=1&x=?",
        origin: Some("https://app.example.com"),
        admission,
        headers,
    }
}

fn field(name: &str, value: impl AsRef<[u8]>) -> Field {
    Field {
        name: name.to_owned(),
        value: value.as_ref().to_vec(),
    }
}

#[test]
fn a_question_says_who_wants_what_from_where() {
    let headers = [
        field("Cookie", "a=1"),
        field("X-A", "\u{e4}"),
        field("cookie", "b=2"),
    ];
    let question = Question::new(&asked(&alice(), &headers)).expect("a question");
    let says: Value = serde_json::from_slice(&question.body).expect("JSON");
    assert_eq!(
        says,
        json!({
            "request_id": "r-1",
            "route": "chat",
            "client_ip": "192.0.2.7",
            "host": "chat.example.com",
            "path": "/chat",
            "query": "room=1&x=?",
            "origin": "https://app.example.com",
            "claims": {"sub": "alice", "exp": 9_999_999_999_u64, "n": 1.5},
            "headers": {"cookie": ["a=1", "b=2"], "x-a": ["\u{e4}"]},
        })
    );
}

#[test]
fn what_is_absent_is_null() {
    let anonymous = admission(None);
    let asked = Asked {
        path_and_query: "/",
        origin: None,
        ..asked(&anonymous, &[])
    };
    let question = Question::new(&asked).expect("a question");
    let says: Value = serde_json::from_slice(&question.body).expect("JSON");
    for name in ["query", "origin", "claims"] {
        assert_eq!(says.get(name), Some(&Value::Null), "{name}");
    }
}

/// One client's decision must not serve another, so whatever the service can tell them apart
/// by makes the questions unequal.
#[test]
fn whatever_the_service_sees_makes_questions_unequal() {
    let (alice, bob) = (
        alice(),
        admission(Some(json!({"sub": "bob", "exp": 9_999_999_999_u64}))),
    );
    let anonymous = admission(None);
    let (one, two) = ([field("cookie", "a=1")], [field("cookie", "a=2")]);
    let both = [field("cookie", "a=1"), field("cookie", "a=2")];
    let joined = [field("cookie", "a=1\", \"a=2")];
    let base = asked(&alice, &one);
    let others = [
        asked(&bob, &one),
        asked(&anonymous, &one),
        asked(&alice, &[]),
        asked(&alice, &two),
        asked(&alice, &both),
        asked(&alice, &joined),
        Asked {
            route: "chat2",
            ..base
        },
        Asked {
            client_ip: Ipv4Addr::new(192, 0, 2, 8).into(),
            ..base
        },
        Asked {
            host: "chat.example.org",
            ..base
        },
        Asked {
            path_and_query: "/chat",
            ..base
        },
        Asked {
            path_and_query: "/chat?room=2",
            ..base
        },
        Asked {
            path_and_query: "/chat?",
            ..base
        },
        Asked {
            origin: None,
            ..base
        },
        Asked {
            origin: Some("null"),
            ..base
        },
    ];
    let mut seen = vec![fingerprint(&base)];
    for other in &others {
        let fingerprint = fingerprint(other);
        assert!(!seen.contains(&fingerprint));
        seen.push(fingerprint);
    }
    let again = Asked {
        request_id: "r-2",
        ..base
    };
    assert_eq!(fingerprint(&again), seen[0]);
    assert_eq!(seen[0].len(), 32);
}

fn fingerprint(asked: &Asked<'_>) -> Vec<u8> {
    Question::new(asked).expect("a question").fingerprint
}

#[test]
fn a_header_that_is_no_text_is_not_shown_in_another_form() {
    let (alice, headers) = (alice(), [field("X-A", b"\xff")]);
    let question = Question::new(&asked(&alice, &headers));
    assert!(question.err() == Some(Undecided::NotText("x-a".to_owned())));
}

fn read(status: u16, fields: &[Field]) -> Result<Decision, Undecided> {
    Decision::read(
        status,
        fields,
        &["x-tenant".to_owned(), "x-plan".to_owned()],
    )
}

#[test]
fn only_a_2xx_admits() {
    for status in [200, 201, 204, 299] {
        assert!(
            read(status, &[]) == Ok(Decision::Admit(Vec::new())),
            "{status}"
        );
    }
    for status in [400, 401, 403, 404, 410, 451, 499] {
        assert!(
            read(status, &[]) == Ok(Decision::Refuse(status)),
            "{status}"
        );
    }
    for status in [
        0, 100, 101, 199, 300, 302, 399, 408, 429, 500, 503, 599, 600, 999,
    ] {
        assert!(
            read(status, &[]) == Err(Undecided::Status(status)),
            "{status}"
        );
    }
}

#[test]
fn only_named_fields_are_passed_on() {
    let fields = [
        field("x-other", "1"),
        field("x-plan", ""),
        field("host", "evil.example"),
        field("x-tenant", "acme inc"),
    ];
    let expected = vec![field("x-tenant", "acme inc"), field("x-plan", "")];
    assert!(read(200, &fields) == Ok(Decision::Admit(expected)));
}

#[test]
fn a_field_that_cannot_be_passed_on_as_it_is_admits_nobody() {
    let twice = [field("x-tenant", "a"), field("x-tenant", "a")];
    assert!(read(200, &twice) == Err(Undecided::Repeated("x-tenant".to_owned())));
    for value in [
        &b"a\r\nx-admin: 1"[..],
        b"a\tb",
        b"\xc3\xa4",
        b"\x7f",
        b"a\0",
    ] {
        let decision = read(200, &[field("x-tenant", value)]);
        assert!(
            decision == Err(Undecided::Unsendable("x-tenant".to_owned())),
            "{value:?}"
        );
    }
    let long = |tenant: usize, plan: usize| {
        let fields = [
            field("x-tenant", "a".repeat(tenant)),
            field("x-plan", "b".repeat(plan)),
        ];
        read(200, &fields)
    };
    assert!(matches!(long(MAX_ADDED - 1, 1), Ok(Decision::Admit(_))));
    assert!(long(MAX_ADDED, 1) == Err(Undecided::TooLong));
    assert!(long(MAX_ADDED + 1, 0) == Err(Undecided::TooLong));
}
