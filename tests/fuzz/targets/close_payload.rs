//! The payload of a Close: what is read is written the same, and what is written is legal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::proto::close::{self, CloseCode};
use tidegate::proto::frame::MAX_CONTROL_PAYLOAD;

fuzz_target!(|input: (u16, String, Vec<u8>)| {
    let (code, reason, bytes) = input;
    if let Ok(Some((code, reason))) = close::parse(&bytes)
        && bytes.len() <= MAX_CONTROL_PAYLOAD
    {
        assert_eq!(close::payload(code, reason), bytes);
    }
    if let Some(code) = CloseCode::from_wire(code) {
        let payload = close::payload(code, &reason);
        assert!(payload.len() <= MAX_CONTROL_PAYLOAD);
        let (read, text) = close::parse(&payload).expect("legal").expect("a code");
        assert_eq!(read, code);
        assert!(reason.starts_with(text));
        // At most one character is cut for its length alone.
        assert!(text.len() == reason.len() || text.len() > MAX_CONTROL_PAYLOAD - 2 - 4);
    }
});
