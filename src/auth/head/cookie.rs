//! The cookie that carries a token (RFC 6265 §4.2.1, §5.4).
//!
//! Servers differ in what they forgive around a cookie's name. What any of them might take
//! for the one with this name counts as it: a second one is then found, and none is left
//! for the upstream.

use crate::auth::head::query;
use crate::proto::handshake::{Field, Fields};

/// The values of every cookie of this name, over all `Cookie` fields, without the quotes that
/// may stand around a value.
pub(super) fn values<'r>(fields: Fields<'r>, name: &str) -> Vec<&'r [u8]> {
    fields
        .iter()
        .filter(|(field, _)| is_cookie(field))
        .flat_map(|(_, value)| pairs(value))
        .filter(|pair| is_named(pair, name))
        .map(|pair| value(pair, name))
        .collect()
}

/// Takes every cookie of this name out, and the fields that hold no other.
pub(super) fn remove(fields: &mut Vec<Field>, name: &str) {
    fields.retain_mut(|field| {
        let holds = || pairs(&field.value).any(|pair| is_named(pair, name));
        if !is_cookie(&field.name) || !holds() {
            return true;
        }
        let kept: Vec<&[u8]> = pairs(&field.value)
            .filter(|pair| !pair.is_empty() && !is_named(pair, name))
            .collect();
        field.value = kept.join(&b"; "[..]);
        !field.value.is_empty()
    });
}

fn is_cookie(field: &str) -> bool {
    field.eq_ignore_ascii_case("cookie")
}

/// The text between semicolons, without blanks around it.
fn pairs(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b';').map(<[u8]>::trim_ascii)
}

/// Whether a reader may find this cookie in a pair: at its beginning, or behind a blank or
/// comma, where some servers let the next one begin.
fn is_named(pair: &[u8], name: &str) -> bool {
    let pieces = pair.split(|b| matches!(b, b' ' | b'\t' | b','));
    let mut pieces = pieces.filter(|piece| !piece.is_empty()).peekable();
    let mut begins = true;
    while let Some(piece) = pieces.next() {
        let has_value = piece.contains(&b'=') || pieces.peek().is_some_and(|p| p.starts_with(b"="));
        if (begins || has_value) && has_name(piece, name) {
            return true;
        }
        begins = false;
    }
    false
}

/// Names are compared with case (RFC 6265 §5.3), and decoded, as some servers do.
fn has_name(text: &[u8], name: &str) -> bool {
    let end = text.iter().position(|b| *b == b'=');
    let found = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    found == name.as_bytes() || query::decode(found).trim_ascii() == name.as_bytes()
}

/// The value of a pair that begins with the name; else the pair itself, which is no token.
fn value<'p>(pair: &'p [u8], name: &str) -> &'p [u8] {
    let start = pair.iter().position(|b| *b == b'=');
    let (found, value) = pair.split_at(start.unwrap_or(pair.len()));
    if !has_name(found.trim_ascii(), name) {
        return pair;
    }
    match value.get(1..).unwrap_or_default().trim_ascii() {
        [b'"', quoted @ .., b'"'] => quoted,
        bare => bare,
    }
}
