//! Claims about a whole check: from the configuration and the message to the admission.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;
use crate::auth::testing::*;

fn first_message(token_field: Option<&str>) -> Auth {
    first_message_with(token_field, secret_jwt())
}

fn authenticator(route: &Route) -> Authenticator {
    let (authenticator, warnings) =
        Authenticator::load(route, &env, &mut KeySets::default()).expect("a good route");
    assert_eq!(warnings, []);
    authenticator
}

/// The verdict on a first message, for which nobody has to wait.
fn admit(edge: &Authenticator, message: &str, now: SystemTime) -> Result<Admission, TokenRefused> {
    let admitting = pin!(edge.admit_message(message, || now));
    match admitting.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verdict) => verdict,
        Poll::Pending => panic!("it waits"),
    }
}

fn alice() -> String {
    let claims = good_claims(json!({"jti": "t-1", "roles": ["a", "b"], "org": {"id": 7}}));
    token(r#"{"alg":"HS256"}"#, &claims)
}

#[test]
fn a_bare_token_admits_with_subject_expiry_and_headers() {
    let headers = [
        ("x-user-id", "sub"),
        ("x-org", "/org/id"),
        ("x-roles", "roles"),
    ];
    let edge = authenticator(&route(first_message(None), &headers));
    let admission = admit(&edge, &format!("Bearer {}\n", alice()), now());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = Admission {
        subject: Some("alice".to_owned()),
        token_id: Some("t-1".to_owned()),
        issuer: Some("iss".to_owned()),
        issued_at: Some(NOW),
        expires_at: Some(UNIX_EPOCH + Duration::from_secs(NOW + 90)),
        headers: vec![
            pair("x-user-id", "alice"),
            pair("x-org", "7"),
            pair("x-roles", "a,b"),
        ],
        claims: admission.as_ref().ok().and_then(|a| a.claims.clone()),
        grants: Grants::default(),
    };
    assert!(expected.claims.is_some());
    assert_eq!(admission, Ok(expected));
}

#[test]
fn a_token_in_a_json_field_admits() {
    let edge = authenticator(&route(first_message(Some("/payload/token")), &[]));
    let message = json!({"type": "hello", "payload": {"token": alice()}}).to_string();
    let admission = admit(&edge, &message, now()).expect("a good token");
    assert_eq!(admission.subject.as_deref(), Some("alice"));
    assert_eq!(admit(&edge, &alice(), now()), Err(TokenRefused::NotJson));
    assert_eq!(admit(&edge, "{}", now()), Err(TokenRefused::FieldMissing));
}

#[test]
fn a_token_whose_claims_cannot_be_sent_does_not_admit() {
    let edge = authenticator(&route(first_message(None), &[("x-org", "org")]));
    let refused = admit(&edge, &alice(), now());
    assert_eq!(
        refused,
        Err(TokenRefused::NotSendable {
            claim: "org".to_owned(),
            fault: refused::HeaderFault::Nested,
        })
    );
}

#[test]
fn a_token_is_good_until_the_moment_its_admission_names() {
    let edge = authenticator(&route(first_message(None), &[]));
    let admission = admit(&edge, &alice(), now()).expect("a good token");
    let end = admission.expires_at.expect("an end");
    let before = end - Duration::from_nanos(1);
    assert!(admit(&edge, &alice(), before).is_ok());
    assert_eq!(admit(&edge, &alice(), end), Err(TokenRefused::Expired));
}

#[test]
fn where_no_token_is_asked_for_everyone_is_admitted_as_no_one() {
    let open = authenticator(&route(Auth::None, &[("x-user-id", "sub")]));
    for message in ["", "anything", &alice()] {
        assert_eq!(admit(&open, message, now()), Ok(Admission::anonymous()));
    }
}

#[test]
fn every_problem_of_a_route_is_found_at_once() {
    let headers = [("x-ok", "a~b"), ("x-bad", "/a~2")];
    let broken = route(first_message(Some("token")), &headers);
    let problems = Authenticator::load(&broken, &|_| None, &mut KeySets::default())
        .expect_err("three problems");
    let found: Vec<_> = problems
        .iter()
        .map(|p| (p.severity, p.line.map(|l| l.0), p.key.as_str()))
        .collect();
    let error = |line, key| (Severity::Error, Some(line), key);
    assert_eq!(
        found,
        [
            error(3, "route.chat.headers.x-bad"),
            error(3, "route.chat.auth.token_field"),
            error(7, "route.chat.auth.jwt.key"),
        ]
    );
}

#[test]
fn warnings_come_with_the_authenticator() {
    let file = TempFile::new(SECRET);
    file.chmod(0o644);
    let jwt = jwt(crate::config::Algorithm::HS256, file.source());
    let auth = first_message_with(None, jwt);
    let (_, warnings) =
        Authenticator::load(&route(auth, &[]), &env, &mut KeySets::default()).expect("usable");
    let severities: Vec<_> = warnings.iter().map(|w| w.severity).collect();
    assert_eq!(severities, [Severity::Warning]);
}

#[test]
fn nothing_printable_shows_a_secret_or_a_claim() {
    let edge = authenticator(&route(first_message(None), &[("x-user-id", "sub")]));
    let admission = admit(&edge, &alice(), now()).expect("a good token");
    let text = format!("{edge:?} {admission:?}");
    assert!(text.contains("x-user-id"));
    assert!(!text.contains("alice"), "{text}");
    assert!(!text.contains(&SECRET[..8]), "{text}");
}
