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
        .map(value)
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

/// Names are compared with case (RFC 6265 §5.3), and decoded, as some servers do.
fn is_named(pair: &[u8], name: &str) -> bool {
    let end = pair.iter().position(|b| *b == b'=');
    let found = pair.get(..end.unwrap_or(pair.len())).unwrap_or_default();
    let (found, name) = (found.trim_ascii(), name.as_bytes());
    found == name || query::decode(found).trim_ascii() == name
}

fn value(pair: &[u8]) -> &[u8] {
    let start = pair.iter().position(|b| *b == b'=');
    let value = start.and_then(|at| pair.get(at + 1..)).unwrap_or_default();
    match value.trim_ascii() {
        [b'"', quoted @ .., b'"'] => quoted,
        bare => bare,
    }
}
