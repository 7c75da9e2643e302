//! Which tokens an entry names, what an entry may say, and how many there may be.

use super::entry::{Complete, Defaults};
use super::*;

const NOW: u64 = 1_764_000_000;
/// The version of a store that has everything.
const AFTER: u64 = u64::MAX;
const DEFAULTS: Defaults = Defaults {
    now: NOW,
    keep: 1000,
};

fn parse(text: &str) -> Result<(Entry, Complete), String> {
    Entry::parse(text.as_bytes(), DEFAULTS)
}

fn entry(text: &str) -> Entry {
    parse(text).expect(text).0
}

fn store(entries: &[&str]) -> Store {
    let store = Store::new(100);
    for text in entries {
        store.insert(entry(text), NOW).expect("room");
    }
    store
}

/// Of a token for `chat`, issued so many seconds from [`NOW`] and admitted after all entries.
fn marks(jti: &str, sub: &str, iss: &str, issued: i64) -> Marks {
    let issued = NOW.checked_add_signed(issued);
    Marks::new("chat", Some(jti), Some(sub), Some(iss), issued, AFTER)
}

#[test]
fn a_store_without_entries_refuses_nobody() {
    assert!(!store(&[]).refuses(&marks("j", "alice", "id", -10), NOW));
}

#[test]
fn an_entry_names_the_tokens_it_says() {
    let cases: [(&str, &[(Marks, bool)]); 7] = [
        (
            r#"{"jti":"j"}"#,
            &[
                (marks("j", "alice", "id", 9), true),
                (marks("k", "alice", "id", -9), false),
                // A subject of that name is another matter.
                (marks("k", "j", "id", -9), false),
                (
                    Marks::new("chat", None, Some("alice"), None, None, AFTER),
                    false,
                ),
            ],
        ),
        (
            r#"{"sub":"alice"}"#,
            &[
                (marks("j", "alice", "id", -1), true),
                (marks("j", "alice", "id", 1), false),
                (marks("j", "bob", "id", -1), false),
                (marks("alice", "bob", "id", -1), false),
                (
                    Marks::new("feed", None, Some("alice"), None, Some(1), AFTER),
                    true,
                ),
                (
                    Marks::new("chat", Some("j"), None, None, Some(1), AFTER),
                    false,
                ),
            ],
        ),
        (
            r#"{"sub":"alice","iss":"id"}"#,
            &[
                (marks("j", "alice", "id", -1), true),
                (marks("j", "alice", "other", -1), false),
                (
                    Marks::new("chat", None, Some("alice"), None, Some(1), AFTER),
                    false,
                ),
            ],
        ),
        (
            r#"{"sub":"alice","route":"chat"}"#,
            &[
                (marks("j", "alice", "id", -1), true),
                (
                    Marks::new("feed", None, Some("alice"), None, Some(1), AFTER),
                    false,
                ),
            ],
        ),
        (
            r#"{"route":"chat"}"#,
            &[
                (marks("j", "alice", "id", -1), true),
                (marks("j", "alice", "id", 1), false),
                (Marks::new("chat", None, None, None, Some(1), AFTER), true),
                (Marks::new("feed", None, None, None, Some(1), AFTER), false),
            ],
        ),
        (
            r#"{"route":"chat","iss":"id"}"#,
            &[
                (marks("j", "alice", "id", -1), true),
                (marks("j", "alice", "other", -1), false),
            ],
        ),
        (
            r#"{"sub":"alice","before":1763999000}"#,
            &[
                (marks("j", "alice", "id", -1000), true),
                (marks("j", "alice", "id", -999), false),
            ],
        ),
    ];
    for (text, tokens) in cases {
        let store = store(&[text]);
        for (marks, refused) in tokens {
            let found = store.refuses(marks, NOW + 1);
            assert_eq!(
                found,
                *refused,
                "{text}: {:?} {}",
                marks.sub(),
                marks.issued()
            );
        }
    }
}

#[test]
fn a_token_of_the_same_second_may_be_the_older_one_and_is_refused() {
    let store = store(&[r#"{"sub":"alice"}"#]);
    assert!(store.refuses(&marks("j", "alice", "id", 0), NOW));
    assert!(!store.refuses(&marks("j", "alice", "id", 1), NOW));
}

#[test]
fn a_token_that_does_not_say_when_it_was_issued_is_not_newer() {
    let store = store(&[r#"{"sub":"alice"}"#]);
    let unsaid = Marks::new("chat", None, Some("alice"), None, None, AFTER);
    assert!(store.refuses(&unsaid, NOW + 1));
}

#[test]
fn who_was_admitted_before_goes_even_if_the_issuers_clock_is_ahead() {
    let store = store(&[r#"{"sub":"bob"}"#]);
    let admitted = |version| {
        let issued = Some(NOW + 15);
        Marks::new("chat", None, Some("alice"), None, issued, version)
    };
    let live = admitted(store.version());
    let insert = |text: &str| store.insert(entry(text), NOW).expect("room");
    // A time that is said means what it says.
    insert(r#"{"sub":"alice","before":1764000000}"#);
    assert!(!store.refuses(&live, NOW + 1));
    insert(r#"{"sub":"alice"}"#);
    assert!(store.refuses(&live, NOW + 1));
    // The same claims in a token that comes afterwards are those of a newer one.
    let later = admitted(store.version());
    assert!(!store.refuses(&later, NOW + 1));
    insert(r#"{"sub":"carol"}"#);
    assert!(!store.refuses(&later, NOW + 1));
    // What was there is no younger for being put there again.
    store.replace(store.alive(NOW)).expect("room");
    assert!(store.refuses(&live, NOW + 1) && !store.refuses(&later, NOW + 1));
}

#[test]
fn an_entry_lives_as_long_as_a_token_that_it_names() {
    let leeway = 300;
    let named = store(&[&format!(r#"{{"jti":"j","exp":{}}}"#, NOW + 50)]);
    let kept = store(&[r#"{"jti":"j"}"#]);
    let token = marks("j", "alice", "id", -1);
    for (store, exp) in [(named, NOW + 50), (kept, NOW + 1000)] {
        let last = exp + leeway - 1;
        assert!(store.refuses(&token, last));
        assert!(!store.refuses(&token, last + 1));
        assert_eq!((store.len(last), store.len(last + 1)), (1, 0));
        store.purge(last);
        assert_eq!(store.alive(NOW).len(), 1);
        store.purge(last + 1);
        assert_eq!(store.alive(NOW), []);
    }
}

#[test]
fn saying_it_again_changes_nothing_and_saying_more_prolongs_it() {
    let store = store(&[]);
    let insert = |text: &str| store.insert(entry(text), NOW).expect("room");
    let first = insert(r#"{"sub":"alice","before":100,"exp":1764000500}"#);
    assert_eq!(
        insert(r#"{"sub":"alice","before":100,"exp":1764000500}"#),
        first
    );
    // An earlier time takes nothing back.
    assert_eq!(
        insert(r#"{"sub":"alice","before":50,"exp":1764000100}"#),
        first
    );
    let more = insert(r#"{"sub":"alice","before":200,"exp":1764000900}"#);
    assert_eq!(
        more.to_json().to_string(),
        r#"{"before":200,"exp":1764000900,"sub":"alice"}"#
    );
    assert_eq!(store.alive(NOW), [more]);
    insert(r#"{"sub":"alice","route":"chat"}"#);
    insert(r#"{"jti":"alice"}"#);
    assert_eq!(store.len(NOW), 3);
}

#[test]
fn a_full_store_takes_no_more_but_prolongs_and_makes_room() {
    let store = Store::new(2);
    let insert = |text: &str, now| store.insert(entry(text), now);
    insert(r#"{"jti":"a","exp":1764000001}"#, NOW).expect("room");
    insert(r#"{"jti":"b"}"#, NOW).expect("room");
    let full = insert(r#"{"jti":"c"}"#, NOW).expect_err("no room");
    assert_eq!(
        full.to_string(),
        "the store is full: it holds 2 entries (`revocation.max_entries`), and none of them has \
         expired"
    );
    insert(r#"{"jti":"b","exp":1764005000}"#, NOW).expect("it is there");
    // The first has expired by then, leeway included.
    insert(r#"{"jti":"c"}"#, NOW + 301).expect("room");
    assert_eq!(store.len(NOW + 301), 2);
}

#[test]
fn a_store_takes_others_in_place_of_all_but_no_more_than_it_has_room_for() {
    let store = Store::new(2);
    let all = |jtis: &[&str]| -> Vec<Entry> {
        let text = |jti: &&str| entry(&format!(r#"{{"jti":"{jti}"}}"#));
        jtis.iter().map(text).collect()
    };
    // Those that name the same are one.
    store.replace(all(&["a", "b", "a"])).expect("room");
    store.replace(all(&["c", "d", "e"])).expect_err("no room");
    assert_eq!(store.alive(NOW), all(&["a", "b"]));
    store.replace(all(&["c"])).expect("room");
    assert_eq!(store.alive(NOW), all(&["c"]));
}

#[test]
fn what_is_no_revocation_is_refused_with_the_reason() {
    let long = format!(r#"{{"sub":"{}"}}"#, "x".repeat(1025));
    let deep = format!(r#"{{"sub":{}}}"#, "[".repeat(10_000));
    let text = "is not a text of 1 to 1024 bytes without control characters";
    let known = "there are jti, sub, route, iss, before, exp";
    let cases = [
        (
            "",
            "it is not a JSON object: EOF while parsing a value".to_owned(),
        ),
        (
            "alice",
            "it is not a JSON object: expected value".to_owned(),
        ),
        (
            r#"{"sub":"alice""#,
            "it is not a JSON object: EOF while parsing an object".to_owned(),
        ),
        (
            r#"{"sub":"alice"} {}"#,
            "it is not a JSON object: trailing characters".to_owned(),
        ),
        (
            r#"["alice"]"#,
            r#"invalid type: sequence, expected an object such as {"sub":"alice"}"#.to_owned(),
        ),
        (
            r#""alice""#,
            r#"invalid type: string "alice", expected an object such as {"sub":"alice"}"#
                .to_owned(),
        ),
        ("{}", "none of `jti`, `sub` and `route`".to_owned()),
        (
            r#"{"iss":"id"}"#,
            "none of `jti`, `sub` and `route`".to_owned(),
        ),
        (
            r#"{"jti":"j","sub":"alice"}"#,
            "both `jti` and `sub`: one entry each".to_owned(),
        ),
        (r#"{"sub":"a","sub":"b"}"#, "`sub` twice".to_owned()),
        (
            r#"{"subject":"alice"}"#,
            format!("the unknown member `subject`; {known}"),
        ),
        (
            "{\"su\\u0000b\":\"alice\"}",
            format!("the unknown member `su\\u{{0}}b`; {known}"),
        ),
        (r#"{"sub":7}"#, format!("`sub` {text}")),
        (r#"{"sub":null}"#, format!("`sub` {text}")),
        (r#"{"sub":""}"#, format!("`sub` {text}")),
        (r#"{"sub":"a\nb"}"#, format!("`sub` {text}")),
        (&long, format!("`sub` {text}")),
        (
            &deep,
            "it is not a JSON object: recursion limit exceeded".to_owned(),
        ),
        (
            r#"{"sub":"alice","before":"now"}"#,
            "`before` is not a whole number of seconds since 1970".to_owned(),
        ),
        (
            r#"{"jti":"j","exp":1.5}"#,
            "`exp` is not a whole number of seconds since 1970".to_owned(),
        ),
        (
            r#"{"jti":"j","exp":-1}"#,
            "`exp` is not a whole number of seconds since 1970".to_owned(),
        ),
        (
            r#"{"jti":"j","exp":1764000000000}"#,
            "`exp` lies beyond 9999 (it is in seconds since 1970)".to_owned(),
        ),
        (
            r#"{"jti":"j","before":1}"#,
            "`before` beside `jti`, which is one token whenever issued".to_owned(),
        ),
        (
            r#"{"sub":"alice","before":1764000301}"#,
            "`before` lies more than 5 minutes ahead: tokens that are not issued yet cannot be \
             revoked (it is in seconds since 1970)"
                .to_owned(),
        ),
    ];
    for (text, why) in cases {
        assert_eq!(parse(text), Err(why), "{}", &text[..text.len().min(60)]);
    }
    assert_eq!(
        Entry::parse(b"\xff", DEFAULTS),
        Err("it is not UTF-8".to_owned())
    );
}

#[test]
fn what_is_written_is_read_as_the_same() {
    for (text, complete) in [
        (r#"{"jti":"j"}"#, Complete::No),
        (r#"{"jti":"j","exp":1764000301}"#, Complete::Yes),
        (r#" { "sub" : "al\u0069ce" } "#, Complete::No),
        (r#"{"sub":"alice","before":1764000300}"#, Complete::No),
        (
            r#"{"sub":"\"\\","iss":"id","route":"chat","before":0,"exp":253402300799}"#,
            Complete::Yes,
        ),
        (r#"{"route":"chat","iss":"id","before":7}"#, Complete::No),
    ] {
        let (entry, found) = parse(text).expect(text);
        assert_eq!(found, complete, "{text}");
        let written = entry.to_json().to_string();
        let (again, complete) = parse(&written).expect(&written);
        assert!(again.names_the_same(&entry), "{written}");
        assert_eq!(
            (again.to_json().to_string(), complete),
            (written, Complete::Yes)
        );
    }
}

#[test]
fn marks_are_the_claims_and_nothing_shows_them() {
    let all = Marks::new(
        "door",
        Some("jj"),
        Some("alice"),
        Some("id"),
        Some(5),
        AFTER,
    );
    assert_eq!(
        (all.jti(), all.sub(), all.iss(), all.issued(), all.route()),
        (Some("jj"), Some("alice"), Some("id"), 5, "door")
    );
    assert!(!format!("{all:?}").contains("alice"));
    let none = Marks::new("chat", None, None, None, None, AFTER);
    assert_eq!((none.jti(), none.sub(), none.iss()), (None, None, None));
    let empty = Marks::new("chat", Some(""), Some("alice"), Some(""), None, AFTER);
    assert_eq!(
        (empty.jti(), empty.sub(), empty.iss()),
        (None, Some("alice"), None)
    );
    assert_eq!((none.route(), empty.route()), ("chat", "chat"));
}
