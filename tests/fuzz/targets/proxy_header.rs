//! The PROXY header of any bytes: whole or in pieces it is the same header, it ends where it
//! ends, and one that a sender would write is read as it was meant.

#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use tidegate::proto::proxy_header::{LARGEST, parse};

fuzz_target!(|input: (Vec<u8>, u32, u128, u16, bool)| {
    let (bytes, v4, v6, port, is_v4) = input;
    any_bytes(&bytes);
    let source = match is_v4 {
        true => SocketAddr::new(Ipv4Addr::from_bits(v4).into(), port),
        false => SocketAddr::new(Ipv6Addr::from_bits(v6).into(), port),
    };
    what_a_sender_writes(source, &bytes);
});

fn any_bytes(bytes: &[u8]) {
    let parsed = parse(bytes);
    let Ok(Some(header)) = parsed else {
        // What can become none stays none, whatever comes.
        if parsed.is_err() {
            assert!(parse(&[bytes, b"\r\n"].concat()).is_err());
        }
        return;
    };
    assert!(header.len <= bytes.len() && header.len <= LARGEST);
    for end in 0..header.len {
        assert_eq!(parse(&bytes[..end]), Ok(None));
    }
    assert_eq!(parse(&bytes[..header.len]), Ok(Some(header)));
}

/// Both versions, with anything behind.
fn what_a_sender_writes(source: SocketAddr, behind: &[u8]) {
    let meant = SocketAddr::new(source.ip().to_canonical(), source.port());
    let (ip, port) = (source.ip(), source.port());
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!("PROXY {family} {ip} {ip} {port} 443\r\n").into_bytes();
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    let tlvs = &behind[..behind.len().min(64)];
    let (family, addresses) = match source.ip() {
        std::net::IpAddr::V4(v4) => (0x11, v4.octets().repeat(2)),
        std::net::IpAddr::V6(v6) => (0x21, v6.octets().repeat(2)),
    };
    let length = (addresses.len() + 4 + tlvs.len()) as u16;
    binary.push(family);
    binary.extend(length.to_be_bytes());
    binary.extend(addresses);
    binary.extend(port.to_be_bytes());
    binary.extend(443_u16.to_be_bytes());
    binary.extend(tlvs);
    for header in [line, binary] {
        let bytes = [&header, behind].concat();
        let parsed = parse(&bytes).expect("a header").expect("a whole one");
        assert_eq!((parsed.len, parsed.client), (header.len(), Some(meant)));
    }
}
