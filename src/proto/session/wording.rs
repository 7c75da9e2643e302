//! Whether the client's text is UTF-8 (RFC 6455 §8.1), unmasked for that time only.

use super::Session;
use crate::proto::frame::apply_mask;
use crate::proto::message::Kind;
use crate::proto::utf8::{NotUtf8, Utf8};

impl Session {
    /// Whether the text in the next `n` bytes of the client's frame under way goes on as
    /// valid UTF-8, up to the end of the message if that is among them.
    pub(super) fn is_text_valid(&mut self, n: usize) -> bool {
        let input = &mut self.inputs.downstream;
        let Some(frame) = &input.frame else {
            return true;
        };
        if frame.kind != Kind::Text {
            return true;
        }
        let bytes = self.pipes.downstream.unjudged();
        let masked = bytes.get(frame.header_left.min(n)..n).unwrap_or_default();
        let key = frame.header.mask.unwrap_or_default();
        let position = frame.header.len - frame.payload_left;
        let ends = frame.left() == n as u64 && frame.is_final();
        let valid = match masked.len() {
            // Clearing the larger scratch would cost more than looking at so little.
            0..=SHORT_TEXT => push_unmasked::<SHORT_TEXT>(&mut input.utf8, masked, key, position),
            _ => push_unmasked::<LONG_TEXT>(&mut input.utf8, masked, key, position),
        };
        valid
            .and_then(|()| if ends { input.utf8.finish() } else { Ok(()) })
            .is_ok()
    }
}

/// Payloads up to this are unmasked for looking at in one piece ...
const SHORT_TEXT: usize = 256;

/// ... longer ones in pieces of this, which stay in the first cache.
const LONG_TEXT: usize = 4096;

/// Unmasks the part of a payload that starts at `position` piece by piece, into scratch of
/// `N` bytes, and checks it.
fn push_unmasked<const N: usize>(
    utf8: &mut Utf8,
    masked: &[u8],
    key: [u8; 4],
    mut position: u64,
) -> Result<(), NotUtf8> {
    let mut scratch = [0; N];
    for masked in masked.chunks(N) {
        let text = scratch.get_mut(..masked.len()).unwrap_or_default();
        text.copy_from_slice(masked);
        apply_mask(text, key, position);
        position += text.len() as u64;
        utf8.push(text)?;
    }
    Ok(())
}
