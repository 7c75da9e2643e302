//! Claims about sets that change while tokens wait for them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::auth::testing::*;
use crate::auth::{Admission, Authenticator, TokenRefused};
use crate::config::Algorithm::ES256;
use crate::config::url::WebUrl;
use crate::config::{JwksSource, Keys};

/// A route that verifies with a set in force.
struct Edge {
    authenticator: Authenticator,
    keys: Arc<LiveKeys>,
    _file: TempFile,
}

fn edge(kids: &[&str]) -> Edge {
    let file = TempFile::new(document(kids));
    let mut sets = KeySets::default();
    let route = route(
        first_message_with(None, set_jwt(&[ES256], file.path())),
        &[],
    );
    let loaded = Authenticator::load(&route, &env, &mut sets);
    let (authenticator, warnings) = loaded.expect("a good set");
    assert_eq!(warnings, []);
    let keys = Arc::clone(sets.iter().next().expect("one source"));
    Edge {
        authenticator,
        keys,
        _file: file,
    }
}

fn document(kids: &[&str]) -> String {
    let keys: Vec<_> = kids
        .iter()
        .map(|kid| P256.jwk(json!({"kid": kid})))
        .collect();
    key_set(&keys)
}

fn signed(kid: &str) -> String {
    P256.sign(
        &json!({"alg": "ES256", "kid": kid}),
        &good_claims(json!({})),
        ES256,
    )
}

impl Edge {
    fn end(&self, kids: &[&str]) {
        let parsed = self.keys.parse(document(kids).as_bytes());
        let (set, _) = parsed.expect("a good set");
        self.keys.end(Some(set), Instant::now());
    }

    /// Whether somebody asked for a reading since this was last called.
    fn is_wanted(&self) -> bool {
        poll(pin!(self.keys.wanted())).is_ready()
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn is_admitted(verdict: Poll<Result<Admission, TokenRefused>>) -> bool {
    matches!(verdict, Poll::Ready(Ok(_)))
}

fn is_refused(verdict: Poll<Result<Admission, TokenRefused>>) -> bool {
    matches!(verdict, Poll::Ready(Err(TokenRefused::KeyUnknown)))
}

#[test]
fn a_known_key_is_not_waited_for() {
    let edge = edge(&["a"]);
    let token = signed("a");
    assert!(is_admitted(poll(pin!(
        edge.authenticator.admit(&token, now)
    ))));
    assert!(!edge.is_wanted());
}

#[test]
fn an_unknown_key_has_the_set_read_again_and_is_admitted_with_it() {
    let edge = edge(&["a"]);
    let (first, second) = (signed("b"), signed("b"));
    let mut first = pin!(edge.authenticator.admit(&first, now));
    let mut second = pin!(edge.authenticator.admit(&second, now));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    // Both asked, and one reading is enough.
    assert!(edge.is_wanted());
    assert!(!edge.is_wanted());
    edge.keys.begin();
    assert!(poll(first.as_mut()).is_pending());
    edge.end(&["a", "b"]);
    assert!(is_admitted(poll(first)));
    assert!(is_admitted(poll(second)));
    assert!(!edge.is_wanted());
}

#[test]
fn a_key_that_the_new_set_lacks_is_refused_and_not_asked_for_again() {
    let edge = edge(&["a"]);
    let token = signed("b");
    let mut first = pin!(edge.authenticator.admit(&token, now));
    assert!(poll(first.as_mut()).is_pending());
    assert!(edge.is_wanted());
    edge.keys.begin();
    edge.end(&["a"]);
    assert!(is_refused(poll(first)));
    // At once, until the source may be asked again; another token waits for that, also one
    // with the same name of a key: it may have been guessed before it was published.
    assert!(is_refused(poll(pin!(
        edge.authenticator.admit(&token, now)
    ))));
    assert!(!edge.is_wanted());
    let other = signed("b");
    assert_ne!(other, token);
    assert!(poll(pin!(edge.authenticator.admit(&other, now))).is_pending());
    assert!(edge.is_wanted());
    edge.keys.forget_helpless();
    assert!(poll(pin!(edge.authenticator.admit(&token, now))).is_pending());
    assert!(edge.is_wanted());
}

#[test]
fn a_token_that_asks_late_is_served_by_the_same_reading() {
    let edge = edge(&["old"]);
    let token = signed("new");
    let mut one = pin!(edge.authenticator.admit(&token, now));
    assert!(poll(one.as_mut()).is_pending());
    assert!(edge.is_wanted());
    // Whoever reads was woken, and has not begun.
    let mut other = pin!(edge.authenticator.admit(&token, now));
    assert!(poll(other.as_mut()).is_pending());
    edge.keys.begin();
    edge.end(&["new"]);
    assert!(is_admitted(poll(one)) && is_admitted(poll(other)));
    assert!(!edge.is_wanted());
}

#[test]
fn a_reading_that_fails_says_nothing_of_a_token_whose_key_is_new() {
    let edge = edge(&["a"]);
    let token = signed("b");
    let mut waiting = pin!(edge.authenticator.admit(&token, now));
    assert!(poll(waiting.as_mut()).is_pending());
    edge.keys.begin();
    edge.keys.fail();
    let late = |verdict| matches!(verdict, Poll::Ready(Err(TokenRefused::KeysLate)));
    assert!(late(poll(waiting)));
    // Who comes behind does not wait, and is not called bad either.
    assert!(late(poll(pin!(edge.authenticator.admit(&token, now)))));
    let good = signed("a");
    assert!(is_admitted(poll(pin!(
        edge.authenticator.admit(&good, now)
    ))));
}

#[test]
fn a_reading_that_was_under_way_may_be_too_early_and_the_next_one_decides() {
    let edge = edge(&["a"]);
    edge.keys.begin();
    let token = signed("b");
    let mut waiting = pin!(edge.authenticator.admit(&token, now));
    assert!(poll(waiting.as_mut()).is_pending());
    assert!(!edge.is_wanted());
    edge.end(&["a"]);
    assert!(poll(waiting.as_mut()).is_pending());
    assert!(edge.is_wanted());
    edge.keys.begin();
    edge.end(&["a", "b"]);
    assert!(is_admitted(poll(waiting)));
}

#[test]
fn no_token_waits_for_a_third_reading() {
    let edge = edge(&["a"]);
    edge.keys.begin();
    let token = signed("b");
    let mut waiting = pin!(edge.authenticator.admit(&token, now));
    for _ in 0..2 {
        assert!(poll(waiting.as_mut()).is_pending());
        edge.keys.begin();
        edge.end(&["a"]);
    }
    assert!(is_refused(poll(waiting)));
}

#[test]
fn a_key_that_is_withdrawn_is_refused_from_then_on() {
    let edge = edge(&["a", "b"]);
    let token = signed("b");
    assert!(is_admitted(poll(pin!(
        edge.authenticator.admit(&token, now)
    ))));
    edge.end(&["a"]);
    let mut waiting = pin!(edge.authenticator.admit(&token, now));
    assert!(poll(waiting.as_mut()).is_pending());
    edge.end(&["a"]);
    assert!(is_refused(poll(waiting)));
}

#[test]
fn without_keys_the_edge_is_not_ready_and_says_so() {
    let edge = edge(&["a"]);
    assert!(edge.authenticator.is_ready());
    edge.keys.withdraw();
    assert!(!edge.authenticator.is_ready());
    let token = signed("a");
    let mut waiting = pin!(edge.authenticator.admit(&token, now));
    assert!(poll(waiting.as_mut()).is_pending());
    edge.keys.end(None, Instant::now());
    let verdict = poll(waiting);
    let unavailable = TokenRefused::KeysUnavailable;
    assert!(matches!(verdict, Poll::Ready(Err(refused)) if refused == unavailable));
    edge.end(&["a"]);
    assert!(edge.authenticator.is_ready());
}

#[test]
fn what_is_remembered_is_bounded() {
    let edge = edge(&["a"]);
    let remembered = || edge.keys.state.borrow().helpless.len();
    let (_, readings) = edge.keys.current();
    for n in 0..=MAX_HELPLESS {
        let pending = edge.keys.pending(Some(&n.to_string()), readings);
        pending.remember_helpless();
    }
    assert_eq!(remembered(), MAX_HELPLESS);
    // What an older set did not help says nothing about this one.
    let pending = edge.keys.pending(Some("late"), readings);
    edge.end(&["a"]);
    assert_eq!(remembered(), 0);
    pending.remember_helpless();
    assert_eq!(remembered(), 0);
}

#[test]
fn a_source_that_several_routes_name_alike_is_one() {
    let file = TempFile::new(document(&["a"]));
    let other = TempFile::new(document(&["a"]));
    let mut sets = KeySets::default();
    for (file, algorithms) in [
        (&file, [ES256].as_slice()),
        (&file, &[ES256]),
        (&other, &[ES256]),
        (&file, &[ES256, Algorithm::RS256]),
    ] {
        let jwt = set_jwt(algorithms, file.path());
        let route = route(first_message_with(None, jwt), &[]);
        Authenticator::load(&route, &env, &mut sets).expect("a good set");
    }
    assert_eq!(sets.iter().count(), 3);
}

#[test]
fn nothing_printable_shows_a_key() {
    let edge = edge(&["a"]);
    let point = P256.jwk(json!({}))["x"].to_string();
    let text = format!("{:?} {:?}", edge.authenticator, edge.keys);
    assert!(!text.contains(point.trim_matches('"')), "{text}");
}

/// The sets of a configuration with one route that takes its keys from `jwks`.
fn load(mut sets: KeySets, jwks: Jwks) -> KeySets {
    let file = TempFile::new("");
    let mut jwt = set_jwt(&[ES256], file.path());
    jwt.keys = Keys::Set(jwks);
    let route = route(first_message_with(None, jwt), &[]);
    Authenticator::load(&route, &env, &mut sets).expect("a good set");
    sets
}

#[test]
fn a_source_that_the_next_configuration_names_alike_keeps_its_keys() {
    let jwks = |refresh| Jwks {
        source: JwksSource::Url {
            url: WebUrl::parse("https://id.example.com/keys").expect("a URL"),
            ca: None,
        },
        refresh: Duration::from_secs(refresh),
        refetch_interval: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        max_age: None,
    };
    let first = load(KeySets::default(), jwks(60));
    let keys = Arc::clone(first.iter().next().expect("one source"));
    assert!(first.unread().any(|unread| Arc::ptr_eq(unread, &keys)));
    let (set, _) = keys.parse(document(&["a"]).as_bytes()).expect("a good set");
    let read_at = Instant::now();
    keys.end(Some(set), read_at);

    let same = load(first.successor(|_| Roots::Same), jwks(60));
    assert!(same.has(&keys));
    assert_eq!((same.iter().count(), same.unread().count()), (1, 0));

    // What is read at other times, or in another way, is another source with the same keys.
    for other in [
        load(first.successor(|_| Roots::Same), jwks(61)),
        load(first.successor(|_| Roots::Changed), jwks(60)),
    ] {
        assert!(!other.has(&keys));
        let unread: Vec<_> = other.unread().collect();
        assert_eq!(unread.len(), 1);
        assert!(unread.iter().all(|keys| keys.is_ready()));
        // They do not become younger by that.
        assert!(unread.iter().all(|keys| keys.read_at() == Some(read_at)));
    }
    let mut gone = first.successor(|_| Roots::Same);
    gone.forget_before();
    assert!(!gone.has(&keys));
}
