//! One frame header from any bytes: what is read is written the same, and tungstenite
//! reads the same lengths.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tidegate::proto::frame::{Header, MAX_HEADER_LEN};
use tidegate::proto::side::Side;
use tungstenite::protocol::frame::FrameHeader;

fuzz_target!(|bytes: &[u8]| {
    for from in [Side::Downstream, Side::Upstream] {
        let decoded = Header::decode(bytes, from);
        for cut in 0..bytes.len().min(MAX_HEADER_LEN) {
            let part = Header::decode(&bytes[..cut], from);
            assert!(part == Ok(None) || part == decoded, "the cut decides");
        }
        match decoded {
            Ok(Some((header, at))) => {
                let mut encoded = Vec::new();
                header.encode(&mut encoded);
                assert_eq!(encoded, &bytes[..at]);
                assert_eq!(header.mask.is_some(), from == Side::Downstream);
                compare(bytes, &header, at);
            }
            Ok(None) => assert!(bytes.len() < MAX_HEADER_LEN),
            Err(_) => {}
        }
    }
});

/// tungstenite is more lenient, so what we accept it must accept too.
fn compare(bytes: &[u8], header: &Header, at: usize) {
    let mut cursor = Cursor::new(bytes);
    let (theirs, len) = FrameHeader::parse(&mut cursor)
        .expect("tungstenite accepts it")
        .expect("it is whole");
    assert_eq!((len, cursor.position()), (header.len, at as u64));
    assert_eq!(theirs.mask, header.mask);
}
