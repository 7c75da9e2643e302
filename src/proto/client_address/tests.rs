//! What proxies in front say of their clients, honest and not.

use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.1:4000";
const STRANGER: &str = "203.0.113.9:4000";

fn trusted() -> Networks {
    let networks = ["10.0.0.0/8", "2001:db8:1::/48"];
    networks.iter().map(|n| n.parse().expect(n)).collect()
}

fn of(peer: &str, source: Source, lines: &[&str]) -> Result<String, Malformed> {
    let name = match source {
        Source::XForwardedFor => "X-Forwarded-For",
        Source::Forwarded => "forwarded",
    };
    let fields: Vec<(&str, &[u8])> = [("x-other", &b"1"[..])]
        .into_iter()
        .chain(lines.iter().map(|line| (name, line.as_bytes())))
        .collect();
    let peer = peer.parse().expect(peer);
    client(peer, &trusted(), source, &fields).map(|client| client.to_string())
}

fn x_forwarded_for(lines: &[&str]) -> Result<String, Malformed> {
    of(PROXY, Source::XForwardedFor, lines)
}

fn forwarded(lines: &[&str]) -> Result<String, Malformed> {
    of(PROXY, Source::Forwarded, lines)
}

#[test]
fn a_stranger_is_believed_nothing() {
    let said = ["192.0.2.7", "garbage \u{fe}", "10.0.0.1", ""];
    for line in said {
        let found = of(STRANGER, Source::XForwardedFor, &[line]);
        assert_eq!(found, Ok(STRANGER.into()), "{line}");
        let line = format!("for={line}");
        let found = of(STRANGER, Source::Forwarded, &[&line]);
        assert_eq!(found, Ok(STRANGER.into()), "{line}");
    }
    // In IPv6 form an address is the same one.
    let mapped = of("[::ffff:10.0.0.1]:1", Source::XForwardedFor, &["192.0.2.7"]);
    assert_eq!(mapped, Ok("192.0.2.7:0".into()));
}

#[test]
fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
    let cases: [(&[&str], &str); 13] = [
        (&["192.0.2.7"], "192.0.2.7:0"),
        (&["192.0.2.7:5000"], "192.0.2.7:5000"),
        (&["198.51.100.1, 192.0.2.7"], "192.0.2.7:0"),
        (&["192.0.2.7, 10.9.9.9"], "192.0.2.7:0"),
        (&["192.0.2.7,10.9.9.9 ,\t10.8.8.8"], "192.0.2.7:0"),
        (
            &["198.51.100.1", "192.0.2.7", "10.9.9.9, 10.8.8.8"],
            "192.0.2.7:0",
        ),
        (&["198.51.100.1", "192.0.2.7"], "192.0.2.7:0"),
        // What stands before the client is the client's own, whatever it says.
        (&["10.0.0.7, 192.0.2.7"], "192.0.2.7:0"),
        (&["<script>, \u{e9}, 192.0.2.7"], "192.0.2.7:0"),
        (&["2001:db8::7"], "[2001:db8::7]:0"),
        (&["[2001:db8::7], 2001:db8:1::1"], "[2001:db8::7]:0"),
        (&["[2001:db8::7]:443"], "[2001:db8::7]:443"),
        (&["::ffff:192.0.2.7, ::ffff:10.1.1.1"], "192.0.2.7:0"),
    ];
    for (lines, expected) in cases {
        assert_eq!(x_forwarded_for(lines), Ok(expected.into()), "{lines:?}");
    }
}

#[test]
fn a_client_inside_the_trusted_networks_is_the_first_address() {
    assert_eq!(
        x_forwarded_for(&["10.1.1.1, 10.2.2.2"]),
        Ok("10.1.1.1:0".into())
    );
    assert_eq!(
        forwarded(&["for=10.1.1.1, for=10.2.2.2"]),
        Ok("10.1.1.1:0".into())
    );
}

#[test]
fn a_proxy_that_does_not_say_stands_for_its_client() {
    assert_eq!(x_forwarded_for(&[]), Ok(PROXY.into()));
    assert_eq!(x_forwarded_for(&["", " , "]), Ok(PROXY.into()));
    assert_eq!(x_forwarded_for(&["192.0.2.7, unknown"]), Ok(PROXY.into()));
    let cases: [(&[&str], &str); 8] = [
        (&[], PROXY),
        (&["for=192.0.2.7, for=unknown"], PROXY),
        (&["for=192.0.2.7, For=\"_gazonk\""], PROXY),
        (&["for=192.0.2.7, for=_SEVKISEK"], PROXY),
        (
            &["for=192.0.2.7, for=\"_x:_port\", for=10.2.2.2"],
            "10.2.2.2:0",
        ),
        (&["for=192.0.2.7, proto=https;by=10.0.0.1"], PROXY),
        (&["for=192.0.2.7", "proto=https"], PROXY),
        (&["for=\"unknown:47011\""], PROXY),
    ];
    for (lines, expected) in cases {
        assert_eq!(forwarded(lines), Ok(expected.into()), "{lines:?}");
    }
}

#[test]
fn forwarded_is_read_as_rfc_7239_writes_it() {
    let cases: [(&[&str], &str); 11] = [
        (
            &["for=192.0.2.60;proto=http;by=203.0.113.43"],
            "192.0.2.60:0",
        ),
        (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17:0"),
        (
            &["For=\"[2001:db8:cafe::17]:4711\""],
            "[2001:db8:cafe::17]:4711",
        ),
        (&["for=\"192.0.2.43:47011\""], "192.0.2.43:47011"),
        (&["for=\"192.0.2.43:_hidden\""], "192.0.2.43:0"),
        (&["for=\"192.0.2.43\""], "192.0.2.43:0"),
        (&["for=\"192\\.0.2.43\""], "192.0.2.43:0"),
        (
            &["proto=https ; FOR=192.0.2.43 ;; host=\"a,b;c=\\\"d\""],
            "192.0.2.43:0",
        ),
        (&[", ,for=192.0.2.43,"], "192.0.2.43:0"),
        (&["for=192.0.2.43", "for=10.1.1.1"], "192.0.2.43:0"),
        // The client's own field is not even read when its proxy's word ends the search.
        (&["for=\"", "for=192.0.2.43"], "192.0.2.43:0"),
    ];
    for (lines, expected) in cases {
        assert_eq!(forwarded(lines), Ok(expected.into()), "{lines:?}");
    }
}

#[test]
fn a_trusted_proxy_that_cannot_be_understood_is_refused() {
    for line in [
        "192.0.2.7, x",
        "192.0.2.7 10.0.0.1",
        "\"192.0.2.7\"",
        "[192.0.2.7]",
        "[2001:db8::7",
        "2001:db8::7]",
        "[2001:db8::7]443",
        "fe80::1%eth0",
        "192.0.2.7:",
        "192.0.2.7:65536",
        "192.0.2.7:+1",
        "192.0.2.07",
        "for=192.0.2.7",
        "_",
        "\u{e9}",
    ] {
        assert_eq!(x_forwarded_for(&[line]), Err(Malformed), "{line}");
    }
    for line in [
        "192.0.2.7",
        "for",
        "for=",
        "for =192.0.2.7",
        "for= 192.0.2.7",
        "=192.0.2.7",
        "for=192.0.2.7 for=192.0.2.8",
        "for=192.0.2.7;for=192.0.2.8",
        "for=192.0.2.7:80",
        "for=[2001:db8::7]",
        "for=\"2001:db8::7\"",
        "for=\"192.0.2.7",
        "for=\"192.0.2.7\"x",
        "for=192.0.2.7\"",
        "for=\"192.0.2.7\\",
        "for=\"\"",
        "f\u{f6}r=192.0.2.7",
        "for=192.0.2.7;=",
    ] {
        assert_eq!(forwarded(&[line]), Err(Malformed), "{line}");
    }
}

/// Whatever a client writes, its proxy adds its address behind, in the same field or in one
/// of its own: the client never comes from anywhere else.
fn cannot_be_spoofed(
    invented: &str,
    added: &str,
    separator: &str,
    found: Result<String, Malformed>,
) {
    let allowed = found == Err(Malformed) || found.as_deref() == Ok("198.51.100.17:0");
    assert!(allowed, "{invented:?}{separator:?}{added:?}: {found:?}");
}

#[test]
fn an_open_quote_hides_nothing_that_a_proxy_adds() {
    let invented = [
        "for=192.0.2.7;by=\"",
        "for=192.0.2.7;by=\"\\",
        "for=192.0.2.7, for=\"",
        "for=192.0.2.7;x=\"\\\"",
        "for=192.0.2.7;x=\",\"",
        "for=192.0.2.7,",
        "for=192.0.2.7;",
        "for=192.0.2.7;for",
        "for=192.0.2.7;x=",
    ];
    for invented in invented {
        for added in [
            "for=198.51.100.17",
            "for=\"198.51.100.17\"",
            "proto=https;for=\"198.51.100.17\";by=\"_me\"",
        ] {
            let line = format!("{invented}, {added}");
            cannot_be_spoofed(invented, added, ", ", forwarded(&[&line]));
            cannot_be_spoofed(invented, added, "\n", forwarded(&[invented, added]));
        }
    }
}

proptest! {
    #[test]
    fn nobody_chooses_the_own_address(invented in "[a-z0-9=\";,:.\\\\ \\[\\]_]{0,40}") {
        let line = format!("{invented},198.51.100.17");
        cannot_be_spoofed(&invented, "", ",", x_forwarded_for(&[&line]));
        for added in ["for=198.51.100.17", "for=\"198.51.100.17\";by=\"[::1]\""] {
            let line = format!("{invented}, {added}");
            cannot_be_spoofed(&invented, added, ", ", forwarded(&[&line]));
            cannot_be_spoofed(&invented, added, "\n", forwarded(&[&invented, added]));
        }
    }
}
