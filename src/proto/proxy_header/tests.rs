//! PROXY headers of both versions, whole, cut, and made up.

use proptest::prelude::*;

use super::*;

fn v2(command: u8, family: u8, length: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// As much of `command` and `family` as a sender would write: the length is that of the body.
fn whole(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    v2(command, family, body.len() as u16, body)
}

const V4_BODY: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xdd, 0xd5, 0x01, 0xbb];

fn v6_body(source: &str) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().expect(source);
    let mut body = source.octets().to_vec();
    body.extend([0; 16]);
    body.extend([0xdd, 0xd5, 0x01, 0xbb]);
    body
}

fn client(bytes: &[u8]) -> Result<Option<String>, NotAProxyHeader> {
    let header = parse(bytes)?.expect("a whole header");
    assert_eq!(header.len, bytes.len());
    Ok(header.client.map(|client| client.to_string()))
}

#[test]
fn a_line_says_where_the_client_connects_from() {
    let cases = [
        ("TCP4 192.0.2.7 10.0.0.1 56789 443", "192.0.2.7:56789"),
        (
            "TCP4 255.255.255.255 255.255.255.255 65535 65535",
            "255.255.255.255:65535",
        ),
        ("TCP6 2001:DB8::7 ::1 0 443", "[2001:db8::7]:0"),
        ("TCP6 ::ffff:192.0.2.7 ::1 1 443", "192.0.2.7:1"),
    ];
    for (line, expected) in cases {
        let line = format!("PROXY {line}\r\n");
        assert_eq!(client(line.as_bytes()), Ok(Some(expected.into())), "{line}");
    }
}

#[test]
fn a_balancer_that_does_not_say_is_taken_at_its_word() {
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff::1 what ever 1 2\r\n",
    ] {
        assert_eq!(client(line.as_bytes()), Ok(None), "{line}");
    }
    for (command, family) in [
        (0x20, 0x00),
        (0x20, 0x11),
        (0x20, 0xff),
        (0x21, 0x00),
        (0x21, 0x31),
    ] {
        let header = whole(command, family, &[9; 216]);
        assert_eq!(client(&header), Ok(None), "{command:#x} {family:#x}");
    }
    assert_eq!(client(&whole(0x20, 0x00, &[])), Ok(None));
}

#[test]
fn version_2_says_the_same_and_its_further_fields_are_skipped() {
    let expected = Some("192.0.2.7:56789".to_owned());
    assert_eq!(client(&whole(0x21, 0x11, &V4_BODY)), Ok(expected.clone()));
    let with_fields = [&V4_BODY[..], &[0x04, 0, 2, 1, 2]].concat();
    assert_eq!(client(&whole(0x21, 0x11, &with_fields)), Ok(expected));
    let v6 = Some("[2001:db8::7]:56789".to_owned());
    assert_eq!(client(&whole(0x21, 0x21, &v6_body("2001:db8::7"))), Ok(v6));
    let mapped = Some("192.0.2.7:56789".to_owned());
    assert_eq!(
        client(&whole(0x21, 0x21, &v6_body("::ffff:192.0.2.7"))),
        Ok(mapped)
    );
}

#[test]
fn a_line_of_another_form_is_refused() {
    let lines = [
        "",
        "TCP4",
        "TCP4 192.0.2.7 10.0.0.1 56789",
        "TCP4 192.0.2.7 10.0.0.1 56789 443 ",
        "TCP4 192.0.2.7  10.0.0.1 56789 443",
        " TCP4 192.0.2.7 10.0.0.1 56789 443",
        "TCP4 192.0.2.7 10.0.0.1 65536 443",
        "TCP4 192.0.2.7 10.0.0.1 1 65536",
        "TCP4 192.0.2.7 10.0.0.1 01 443",
        "TCP4 192.0.2.7 10.0.0.1 +1 443",
        "TCP4 192.0.2.7 10.0.0.1 -1 443",
        "TCP4 192.0.2.7 10.0.0.1 1 ",
        "TCP4 192.0.2.07 10.0.0.1 1 443",
        "TCP4 192.0.2.7 somewhere 1 443",
        "TCP4 ::1 ::1 1 443",
        "TCP6 192.0.2.7 10.0.0.1 1 443",
        "TCP6 fe80::1%1 ::1 1 443",
        "UDP4 192.0.2.7 10.0.0.1 1 443",
        "tcp4 192.0.2.7 10.0.0.1 1 443",
        "UNKNOWNS",
    ];
    for line in lines {
        let line = format!("PROXY {line}\r\n");
        assert_eq!(
            parse(line.as_bytes()),
            Err(NotAProxyHeader::Line),
            "{line:?}"
        );
    }
    // A line feed alone ends no line.
    let bare = b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\n";
    assert_eq!(parse(bare), Err(NotAProxyHeader::Line));
    assert_eq!(parse(b"PROXY \xff\r\n"), Err(NotAProxyHeader::Line));
}

#[test]
fn a_line_has_at_most_107_bytes() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(longest.len(), 107);
    assert_eq!(client(longest.as_bytes()), Ok(None));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(parse(longer.as_bytes()), Err(NotAProxyHeader::Line));
    // One that does not end is given up as soon as it cannot any more.
    assert_eq!(parse(&longer.as_bytes()[..106]), Ok(None));
    assert_eq!(parse(&longer.as_bytes()[..107]), Err(NotAProxyHeader::Line));
}

#[test]
fn what_else_comes_first_is_refused_at_its_first_wrong_byte() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x03\x01",
        b"PROXy TCP4",
        b"P\r\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\nG",
        b" PROXY",
    ] {
        assert_eq!(parse(bytes), Err(NotAProxyHeader::Signature), "{bytes:?}");
    }
}

#[test]
fn undefined_versions_commands_and_families_are_refused() {
    for (command, family) in [
        (0x11, 0x11),
        (0x31, 0x11),
        (0x01, 0x11),
        (0x22, 0x11),
        (0x2f, 0x11),
        (0x21, 0x12),
        (0x21, 0x22),
        (0x21, 0x32),
        (0x21, 0x10),
        (0x21, 0x01),
        (0x21, 0x41),
        (0x21, 0xff),
    ] {
        let header = v2(command, family, 36, &[]);
        assert_eq!(
            parse(&header),
            Err(NotAProxyHeader::Kind),
            "{command:#x} {family:#x}"
        );
    }
}

#[test]
fn a_header_too_short_for_its_addresses_or_one_byte_too_long_is_refused() {
    assert_eq!(parse(&v2(0x21, 0x11, 11, &[])), Err(NotAProxyHeader::Short));
    assert_eq!(parse(&v2(0x21, 0x21, 35, &[])), Err(NotAProxyHeader::Short));
    let most = LARGEST - HEAD;
    assert_eq!(
        parse(&v2(0x21, 0x11, most as u16 + 1, &[])),
        Err(NotAProxyHeader::Long)
    );
    let mut body = vec![0; most];
    body[..12].copy_from_slice(&V4_BODY);
    let largest = whole(0x21, 0x11, &body);
    assert_eq!(client(&largest), Ok(Some("192.0.2.7:56789".into())));
}

#[test]
fn the_bytes_behind_a_header_are_not_of_it() {
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), whole(0x21, 0x11, &V4_BODY)] {
        let with_more = [&header[..], b"\x16\x03\x01 and what follows \r\n"].concat();
        let parsed = parse(&with_more).expect("a header").expect("a whole one");
        assert_eq!(parsed.len, header.len());
    }
}

#[test]
fn a_header_in_pieces_is_the_same_header() {
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n".to_vec(),
        whole(0x20, 0, &[]),
        whole(0x21, 0x21, &v6_body("2001:db8::7")),
    ];
    for header in headers {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(None), "{end} of {header:?}");
        }
        assert!(matches!(parse(&header), Ok(Some(_))));
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_no_header_is_longer_than_what_was_given(
        start in prop::sample::select(vec![&b""[..], PREFIX, b"PROXY TCP4 ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11"]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &rest].concat();
        if let Ok(Some(header)) = parse(&bytes) {
            prop_assert!(header.len <= bytes.len() && header.len <= LARGEST);
            // It ends where it ends: what comes after it changes nothing.
            prop_assert_eq!(parse(&bytes[..header.len]), Ok(Some(header)));
            prop_assert_eq!(parse(&bytes[..header.len - 1]), Ok(None));
        }
    }
}
