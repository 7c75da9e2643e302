//! The query parameter that carries a token.
//!
//! A query is opaque to HTTP (RFC 3986 §3.4); servers read it as a form. Names are compared
//! decoded, and `;` separates like `&`, as some servers have it, so that no other spelling of
//! the parameter is a second one, or is left for the upstream. The rest stays as written.

use std::borrow::Cow;

/// The values of every parameter of this name, decoded.
pub(super) fn values<'r>(path_and_query: &'r str, name: &str) -> Vec<Cow<'r, [u8]>> {
    let Some((_, query)) = path_and_query.split_once('?') else {
        return Vec::new();
    };
    query
        .split(SEPARATORS)
        .filter(|parameter| is_named(parameter, name))
        .map(|parameter| {
            let value = parameter.split_once('=').map(|(_, value)| value);
            decode(value.unwrap_or_default().as_bytes())
        })
        .collect()
}

/// The target without every parameter of this name; without `?` when nothing else is left.
pub(super) fn without(path_and_query: &str, name: &str) -> String {
    let Some((path, query)) = path_and_query.split_once('?') else {
        return path_and_query.to_owned();
    };
    let mut kept = String::with_capacity(query.len());
    let mut last_removed = false;
    for piece in query.split_inclusive(SEPARATORS) {
        last_removed = is_named(piece.trim_end_matches(SEPARATORS), name);
        if !last_removed {
            kept.push_str(piece);
        }
    }
    if last_removed {
        // It separated what stays from what went.
        kept.pop();
    }
    match kept.as_str() {
        "" if query.is_empty() => path_and_query.to_owned(),
        "" => path.to_owned(),
        kept => format!("{path}?{kept}"),
    }
}

/// Percent-decoded, `+` as a space (the form encoding of the URL Standard §5.1). What is no
/// encoding stays as it is.
pub(super) fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let Some((digits, tail)) = tail.split_first_chunk()
            && let Some(byte) = hex(digits)
        {
            decoded.push(byte);
            rest = tail;
        } else {
            decoded.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    Cow::Owned(decoded)
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

/// A `?` in front is no part of the name to those who take it for the query's own.
fn is_named(parameter: &str, name: &str) -> bool {
    let parameter = parameter.trim_start_matches('?');
    let found = parameter
        .split_once('=')
        .map_or(parameter, |(name, _)| name);
    decode(found.as_bytes()).as_ref() == name.as_bytes()
}

const SEPARATORS: [char; 2] = ['&', ';'];
