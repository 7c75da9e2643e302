//! What any fields say of a client: a stranger is never believed, and whatever a client
//! writes, the address that its trusted proxy adds behind is the one that counts.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use tidegate::proto::client_address::{Malformed, Source, client};
use tidegate::proto::network::Networks;

const PROXY: &str = "10.0.0.1:4000";
const STRANGER: &str = "203.0.113.9:4000";
const CLIENT: &str = "198.51.100.17:0";

fuzz_target!(|input: (Vec<Vec<u8>>, u8)| {
    let (mut lines, way) = input;
    lines.truncate(8);
    let trusted: Networks = ["10.0.0.0/8".parse().expect("a network")].into_iter().collect();
    let (source, name, added) = match way % 4 {
        0 => (Source::XForwardedFor, "x-forwarded-for", "198.51.100.17"),
        1 => (Source::Forwarded, "forwarded", "for=198.51.100.17"),
        2 => (Source::Forwarded, "forwarded", "for=\"198.51.100.17\";by=\"[::1]\""),
        _ => (Source::Forwarded, "forwarded", "proto=https;for=\"198.51.100.17\""),
    };
    let found = |peer: &str, lines: &[Vec<u8>]| {
        let fields: Vec<_> = lines.iter().map(|line| (name, line.as_slice())).collect();
        client(peer.parse().expect("an address"), &trusted, source, &fields)
    };
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    assert_eq!(found(STRANGER, &lines), Ok(at(STRANGER)));
    let _anything = found(PROXY, &lines);
    // The proxy adds a field of its own, or to the last that is there.
    let mut own = lines.clone();
    own.push(added.as_bytes().to_vec());
    assert_eq!(found(PROXY, &own), Ok(at(CLIENT)));
    if let Some(last) = lines.last_mut() {
        last.extend_from_slice(b", ");
        last.extend_from_slice(added.as_bytes());
        let found = found(PROXY, &lines);
        assert!(found == Ok(at(CLIENT)) || found == Err(Malformed), "{found:?}");
    }
});
