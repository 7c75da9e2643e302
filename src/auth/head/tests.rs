//! Claims about tokens in request heads: what is found, what is refused, and what is left.

use super::*;

const NAME: &str = "session";

fn header() -> Vec<TokenPlace> {
    vec![TokenPlace::Header]
}

fn cookie() -> Vec<TokenPlace> {
    vec![TokenPlace::Cookie(NAME.to_owned())]
}

fn subprotocol() -> Vec<TokenPlace> {
    vec![TokenPlace::Subprotocol("bearer.".to_owned())]
}

fn query() -> Vec<TokenPlace> {
    vec![TokenPlace::Query("access_token".to_owned())]
}

fn everywhere() -> Vec<TokenPlace> {
    [header(), cookie(), subprotocol(), query()].concat()
}

type Found = Result<Option<String>, TokenRefused>;

fn found(places: &[TokenPlace], head: &RequestHead<'_>) -> Found {
    find_token(places, head).map(|found| found.map(|presented| presented.token))
}

fn good(token: &str) -> Found {
    Ok(Some(token.to_owned()))
}

fn with_fields<'r>(fields: Fields<'r>) -> RequestHead<'r> {
    RequestHead {
        path_and_query: "/chat",
        subprotocols: &[],
        fields,
    }
}

fn with_target(path_and_query: &str) -> RequestHead<'_> {
    RequestHead {
        path_and_query,
        subprotocols: &[],
        fields: &[],
    }
}

/// The token that these fields hold.
fn in_fields(places: &[TokenPlace], fields: Fields<'_>) -> Found {
    found(places, &with_fields(fields))
}

/// The fields that are left of these.
fn left(places: &[TokenPlace], fields: Fields<'_>) -> Vec<(String, String)> {
    let stripped = strip(places, None, &with_fields(fields));
    let text = |field: Field| {
        let value = String::from_utf8(field.value).expect("ASCII");
        (field.name, value)
    };
    stripped.fields.into_iter().map(text).collect()
}

#[test]
fn a_bearer_header_is_found_in_any_case() {
    for value in [
        "Bearer a.b.c",
        "bearer a.b.c",
        "BEARER   a.b.c",
        " bEaReR a.b.c ",
    ] {
        let fields = [("Authorization", value.as_bytes())];
        assert_eq!(in_fields(&header(), &fields), good("a.b.c"), "{value:?}");
        let fields = [("aUTHORIZATION", value.as_bytes())];
        assert_eq!(in_fields(&header(), &fields), good("a.b.c"), "{value:?}");
    }
}

#[test]
fn another_scheme_is_no_token_and_a_broken_bearer_is_a_bad_one() {
    use TokenRefused::*;
    let cases: [(&[u8], Found); 16] = [
        (b"", Ok(None)),
        (b"Basic YTpi", Ok(None)),
        (b"Bearers a.b.c", Ok(None)),
        (b"a.b.c", Ok(None)),
        (b"Basic YTpi, Bearer a.b.c", Ok(None)),
        (b"Bearer", Err(Empty)),
        (b"Bearer   ", Err(Empty)),
        (b"Bearer\ta.b.c", Err(Malformed)),
        (b"Bearer a b", Err(Malformed)),
        (b"Bearer a.b.c, Bearer d.e.f", Err(Malformed)),
        (b"Bearer a.b.c,d", Err(Malformed)),
        (b"Bearer \"a.b.c\"", Err(Malformed)),
        (b"Bearer Bearer a.b.c", Err(Malformed)),
        (b"Bearer a.b.c;x", Err(Malformed)),
        (b"Bearer a%2Eb.c", Err(Malformed)),
        (b"Bearer \xc3\xa4.b.c", Err(Malformed)),
    ];
    for (value, expected) in cases {
        let fields = [("authorization", value)];
        let shown = String::from_utf8_lossy(value);
        assert_eq!(in_fields(&header(), &fields), expected, "{shown}");
    }
}

#[test]
fn two_authorizations_are_refused_whatever_they_are() {
    for (first, second) in [
        ("Bearer a.b.c", "Bearer a.b.c"),
        ("Bearer a.b.c", "Basic YTpi"),
        ("Basic YTpi", "Bearer a.b.c"),
        ("", "Bearer a.b.c"),
        ("Bearer", ""),
    ] {
        let fields = [
            ("authorization", first.as_bytes()),
            ("Authorization", second.as_bytes()),
        ];
        let found = in_fields(&header(), &fields);
        assert_eq!(found, Err(TokenRefused::Repeated), "{first} {second}");
    }
}

#[test]
fn the_cookie_is_found_among_others() {
    for value in [
        "session=a.b.c",
        "x=1; session=a.b.c; y=2",
        "x=1;session=a.b.c;y=2",
        " session = a.b.c ",
        "session=\"a.b.c\"",
        "Session=x; session=a.b.c; SESSION=y",
        "mysession=x; session2=y; session=a.b.c",
        "x=\"1\"; ; session=a.b.c;",
        "%73ession=a.b.c",
    ] {
        let fields = [("Cookie", value.as_bytes())];
        assert_eq!(in_fields(&cookie(), &fields), good("a.b.c"), "{value}");
    }
    let fields: Fields<'_> = &[("cookie", b"x=1"), ("Cookie", b"session=a.b.c")];
    assert_eq!(in_fields(&cookie(), fields), good("a.b.c"));
}

#[test]
fn a_cookie_of_another_name_is_none_and_a_broken_one_is_a_bad_token() {
    use TokenRefused::*;
    let cases = [
        ("", Ok(None)),
        ("Session=a.b.c", Ok(None)),
        ("session2=a.b.c", Ok(None)),
        ("x=session=a.b.c", Ok(None)),
        ("a.b.c", Ok(None)),
        ("theme=my session", Ok(None)),
        ("x=1 session=a.b.c", Err(Malformed)),
        ("x=1,session=a.b.c", Err(Malformed)),
        ("x=1, session = a.b.c", Err(Malformed)),
        ("session=a.b.c; x=1\t%73ession=d", Err(Repeated)),
        ("session", Err(Empty)),
        ("session=", Err(Empty)),
        ("session=\"\"", Err(Empty)),
        ("session=\"a.b.c", Err(Malformed)),
        ("session=a.b.c\"", Err(Malformed)),
        ("session=\"\"a.b.c\"\"", Err(Malformed)),
        ("session=a.b.c, session=d", Err(Malformed)),
        ("session=a b", Err(Malformed)),
        ("session=Bearer%20a.b.c", Err(Malformed)),
        ("session=a.b.c; session=a.b.c", Err(Repeated)),
        ("session=a.b.c; session=", Err(Repeated)),
        ("session=a.b.c; session", Err(Repeated)),
        ("session=a.b.c; x=1; session =d", Err(Repeated)),
        ("session=a.b.c; %73ession=d", Err(Repeated)),
        ("session=a.b.c; x=\"1; session=d; \"", Err(Repeated)),
    ];
    for (value, expected) in cases {
        let fields = [("cookie", value.as_bytes())];
        assert_eq!(in_fields(&cookie(), &fields), expected, "{value}");
    }
    let fields: Fields<'_> = &[("cookie", b"session=a"), ("Cookie", b"session=b")];
    assert_eq!(in_fields(&cookie(), fields), Err(Repeated));
}

#[test]
fn a_cookie_name_with_special_characters_is_compared_as_it_is() {
    let places = [TokenPlace::Cookie("__Host-a+b%41".to_owned())];
    let fields: Fields<'_> = &[("cookie", b"__Host-a+b%41=a.b.c")];
    assert_eq!(in_fields(&places, fields), good("a.b.c"));
    assert_eq!(left(&places, fields), []);
}

#[test]
fn other_cookies_stay_as_they_are() {
    let cases = [
        ("session=t", None),
        ("x=1; session=t; y=\"2\"", Some("x=1; y=\"2\"")),
        ("session=t;x=1", Some("x=1")),
        ("session=t; session=u", None),
        (" session =t; %73ession=u; x=1", Some("x=1")),
        ("Session=t;x=1 ;;", Some("Session=t;x=1 ;;")),
        ("x=\"1; session=t; \"", Some("x=\"1; \"")),
        ("x=1 session=t; y=2,session=u; z=3", Some("z=3")),
        ("theme=my session", Some("theme=my session")),
    ];
    for (value, expected) in cases {
        let fields = [("Cookie", value.as_bytes()), ("x-other", b"session=t")];
        let expected = expected.map(|kept| ("Cookie".to_owned(), kept.to_owned()));
        let mut expected: Vec<_> = expected.into_iter().collect();
        expected.push(("x-other".to_owned(), "session=t".to_owned()));
        assert_eq!(left(&cookie(), &fields), expected, "{value}");
    }
}

#[test]
fn a_subprotocol_is_found_by_its_prefix_and_never_left() {
    let cases: [(&[&str], Found, &[&str]); 9] = [
        (&[], Ok(None), &[]),
        (&["chat.v1"], Ok(None), &["chat.v1"]),
        (&["chat.v1", "bearer.a.b.c"], good("a.b.c"), &["chat.v1"]),
        (&["bearer.a.b.c", "x", "y"], good("a.b.c"), &["x", "y"]),
        (&["BEARER.a.b.c"], good("a.b.c"), &[]),
        (&["bearer."], Err(TokenRefused::Empty), &[]),
        (&["bearer"], Ok(None), &["bearer"]),
        (&["xbearer.a"], Ok(None), &["xbearer.a"]),
        (
            &["bearer.a", "x", "Bearer.b"],
            Err(TokenRefused::Repeated),
            &["x"],
        ),
    ];
    for (offered, expected, kept) in cases {
        let subprotocols: Vec<String> = offered.iter().map(|s| (*s).to_owned()).collect();
        let head = RequestHead {
            path_and_query: "/chat",
            subprotocols: &subprotocols,
            fields: &[],
        };
        assert_eq!(found(&subprotocol(), &head), expected, "{offered:?}");
        let stripped = strip(&subprotocol(), None, &head);
        assert_eq!(stripped.subprotocols, kept, "{offered:?}");
    }
    // Characters that a subprotocol may have and a token may not.
    for odd in ["bearer.a!b", "bearer.a|b", "bearer.'a'"] {
        let offered = [odd.to_owned()];
        let head = RequestHead {
            path_and_query: "/",
            subprotocols: &offered,
            fields: &[],
        };
        assert_eq!(found(&subprotocol(), &head), Err(TokenRefused::Malformed));
    }
}

#[test]
fn a_query_parameter_is_found_in_any_encoding_and_never_left() {
    use TokenRefused::*;
    let cases = [
        ("/chat", Ok(None), "/chat"),
        ("/chat?", Ok(None), "/chat?"),
        ("/chat?x=1", Ok(None), "/chat?x=1"),
        ("/access_token=t", Ok(None), "/access_token=t"),
        ("/chat?access_token=a.b.c", good("a.b.c"), "/chat"),
        (
            "/chat?access_token=a.b.c&x=1&y",
            good("a.b.c"),
            "/chat?x=1&y",
        ),
        ("/chat?x=1&access_token=a.b.c", good("a.b.c"), "/chat?x=1"),
        (
            "/chat?x=%2F&access_token=a.b.c&y=+",
            good("a.b.c"),
            "/chat?x=%2F&y=+",
        ),
        (
            "/chat?x=1;access_token=a.b.c;y=2",
            good("a.b.c"),
            "/chat?x=1;y=2",
        ),
        ("/chat?access%5ftoken=a.b.c", good("a.b.c"), "/chat"),
        ("/chat?%61ccess_%74oken=a%2Eb%2ec", good("a.b.c"), "/chat"),
        (
            "/chat?x=?access_token=a",
            Ok(None),
            "/chat?x=?access_token=a",
        ),
        ("/chat??access_token=a", good("a"), "/chat"),
        (
            "/chat?access_token=a&?access_token=b",
            Err(Repeated),
            "/chat",
        ),
        ("/chat?Access_Token=a", Ok(None), "/chat?Access_Token=a"),
        ("/chat?access_token2=a", Ok(None), "/chat?access_token2=a"),
        (
            "/chat?access%255ftoken=a",
            Ok(None),
            "/chat?access%255ftoken=a",
        ),
        ("/chat?access%5token=a", Ok(None), "/chat?access%5token=a"),
        ("/chat?access_token", Err(Empty), "/chat"),
        ("/chat?access_token=", Err(Empty), "/chat"),
        ("/chat?access_token=a b", Err(Malformed), "/chat"),
        ("/chat?access_token=a%00", Err(Malformed), "/chat"),
        ("/chat?access_token=a%0d%0aX:1", Err(Malformed), "/chat"),
        ("/chat?access_token=a%26x=1", Err(Malformed), "/chat"),
        ("/chat?access_token=a+b", Err(Malformed), "/chat"),
        ("/chat?access_token=a%", Err(Malformed), "/chat"),
        (
            "/chat?access_token=a&access_token=a",
            Err(Repeated),
            "/chat",
        ),
        (
            "/chat?access_token=a&x=1;access%5Ftoken=b",
            Err(Repeated),
            "/chat?x=1",
        ),
        (
            "/chat?access_token=&access_token=a&x",
            Err(Repeated),
            "/chat?x",
        ),
        ("/chat?&access_token=a&", good("a"), "/chat"),
    ];
    for (target, expected, kept) in cases {
        let head = with_target(target);
        assert_eq!(found(&query(), &head), expected, "{target}");
        let stripped = strip(&query(), None, &head);
        assert_eq!(stripped.path_and_query, kept, "{target}");
        // What is left holds no token.
        assert_eq!(found(&query(), &with_target(kept)), Ok(None), "{target}");
    }
}

#[test]
fn one_byte_more_than_the_longest_token_is_refused() {
    let longest = "a".repeat(MAX_TOKEN);
    for (token, expected) in [
        (longest.clone(), good(&longest)),
        (format!("{longest}a"), Err(TokenRefused::TooLong)),
    ] {
        let bearer = format!("Bearer {token}");
        let fields = [("authorization", bearer.as_bytes())];
        assert_eq!(in_fields(&header(), &fields), expected);
        let pair = format!("session={token}");
        assert_eq!(
            in_fields(&cookie(), &[("cookie", pair.as_bytes())]),
            expected
        );
        let target = format!("/?access_token={token}");
        assert_eq!(found(&query(), &with_target(&target)), expected);
    }
}

#[test]
fn the_first_place_with_a_token_decides_and_the_others_are_stripped_too() {
    let subprotocols = ["bearer.s".to_owned()];
    let fields: Fields<'_> = &[
        ("authorization", b"Bearer h"),
        ("cookie", b"session=c; x=1"),
    ];
    let head = RequestHead {
        path_and_query: "/chat?access_token=q&x=1",
        subprotocols: &subprotocols,
        fields,
    };
    let mut places = everywhere();
    for expected in ["h", "c", "s", "q"] {
        assert_eq!(found(&places, &head), good(expected));
        places.rotate_left(1);
    }
    // A bad token is not passed over for a good one.
    let bad: Fields<'_> = &[("authorization", b"Bearer"), ("cookie", b"session=c")];
    assert_eq!(in_fields(&places, bad), Err(TokenRefused::Empty));

    let stripped = strip(&places, None, &head);
    assert_eq!(stripped.path_and_query, "/chat?x=1");
    assert_eq!(stripped.subprotocols, [""; 0]);
    let values: Vec<_> = stripped.fields.iter().map(|f| f.value.clone()).collect();
    assert_eq!(values, [b"x=1"]);
    // Where the cookie is kept, the header that did not decide goes all the same.
    let kept = TokenPlace::Cookie(NAME.to_owned());
    let stripped = strip(&places, Some(&kept), &head);
    let values: Vec<_> = stripped.fields.iter().map(|f| f.value.clone()).collect();
    assert_eq!(values, [b"session=c; x=1"]);
}

#[test]
fn nothing_is_found_or_stripped_where_no_place_is_named() {
    let subprotocols = ["bearer.s".to_owned()];
    let fields: Fields<'_> = &[("Authorization", b"Bearer h"), ("Cookie", b"session=c;")];
    let head = RequestHead {
        path_and_query: "/chat?access_token=q",
        subprotocols: &subprotocols,
        fields,
    };
    assert_eq!(found(&[], &head), Ok(None));
    let stripped = strip(&[], None, &head);
    assert_eq!(stripped.path_and_query, head.path_and_query);
    assert_eq!(stripped.subprotocols, subprotocols);
    let left: Vec<_> = stripped.fields.into_iter().map(|f| f.value).collect();
    assert_eq!(left, [&b"Bearer h"[..], b"session=c;"]);
}

#[test]
fn a_presented_token_prints_as_a_mask() {
    let fields: Fields<'_> = &[("authorization", b"Bearer secret-token")];
    let presented = find_token(&header(), &with_fields(fields));
    let shown = format!("{presented:?}");
    assert!(
        shown.contains("Header") && !shown.contains("secret"),
        "{shown}"
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Pieces that meet at the seams of the places' grammars.
    const PIECES: [&str; 22] = [
        "session",
        "%73ession",
        "Session",
        "access_token",
        "access%5Ftoken",
        "bearer",
        "Bearer ",
        "a.b.c",
        "=",
        "==",
        "\"",
        ";",
        "; ",
        "&",
        "?",
        "%",
        "+",
        " ",
        "\t",
        ",",
        "x=1",
        "",
    ];

    fn text() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(&PIECES[..]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn offered() -> impl Strategy<Value = Vec<String>> {
        let offer = prop::sample::select(vec!["bearer.a.b.c", "BEARER.x", "bearer.", "chat", "b"]);
        prop::collection::vec(offer.prop_map(str::to_owned), 0..4)
    }

    proptest! {
        /// Whatever was sent and found, nothing is left that would be found again.
        #[test]
        fn what_is_stripped_holds_no_token(
            fields in prop::collection::vec((0..3_usize, text()), 0..4),
            query in text(),
            subprotocols in offered(),
        ) {
            let names = ["authorization", "Cookie", "x-other"];
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (names[*name], value.as_bytes()))
                .collect();
            let target = format!("/chat?{query}");
            let head = RequestHead {
                path_and_query: &target,
                subprotocols: &subprotocols,
                fields: &fields,
            };
            let places = everywhere();
            let stripped = strip(&places, None, &head);
            let left: Vec<_> = stripped
                .fields
                .iter()
                .map(|field| (field.name.as_str(), field.value.as_slice()))
                .collect();
            let after = RequestHead {
                path_and_query: &stripped.path_and_query,
                subprotocols: &stripped.subprotocols,
                fields: &left,
            };
            prop_assert!(matches!(find_token(&places, &after), Ok(None)));
            // Once is enough, and nothing is made up.
            let again = strip(&places, None, &after);
            prop_assert_eq!(&again.path_and_query, &stripped.path_and_query);
            prop_assert_eq!(&again.fields, &stripped.fields);
            prop_assert!(stripped.path_and_query.starts_with("/chat"));
            let others = |fields: &[(&str, &[u8])]| -> Vec<Vec<u8>> {
                let others = fields.iter().filter(|(name, _)| *name == "x-other");
                others.map(|(_, value)| value.to_vec()).collect()
            };
            prop_assert_eq!(others(&left), others(&fields));
        }
    }
}
