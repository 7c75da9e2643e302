//! `method` of `[route.auth]`: where tokens travel, in order of preference, and which keys
//! go with which.

use crate::config::answer::Mismatch;
use crate::config::file::{Section, Value};

/// What `method` must look like.
pub(super) const METHOD: &str = "\"first-message\", \"header\", \"cookie\", \"subprotocol\" or \
     \"query\", or a list of them in order of preference; or \"none\" to admit everyone whose \
     origin passes";

/// The keys of every method but `"none"`.
pub(super) const OF_TOKEN: [&str; 5] = ["on_expiry", "expiry_notice", "refresh", "identity", "jwt"];

/// The keys of certain methods, and which these are.
const OF_METHODS: [(&str, &[Method]); 11] = [
    ("cookie", &[Method::Cookie]),
    ("subprotocol_prefix", &[Method::Subprotocol]),
    ("query", &[Method::Query]),
    ("i_know_query_tokens_leak", &[Method::Query]),
    ("forward_token", &[Method::Header, Method::Cookie]),
    ("preset", &[Method::FirstMessage]),
    ("token_field", &[Method::FirstMessage]),
    ("timeout", &[Method::FirstMessage]),
    ("max_size", &[Method::FirstMessage]),
    ("forward", &[Method::FirstMessage]),
    ("reply", &[Method::FirstMessage]),
];

/// A place where a token travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Header,
    Cookie,
    Subprotocol,
    Query,
    FirstMessage,
}

const WORDS: [(&str, Method); 5] = [
    ("header", Method::Header),
    ("cookie", Method::Cookie),
    ("subprotocol", Method::Subprotocol),
    ("query", Method::Query),
    ("first-message", Method::FirstMessage),
];

/// What `method` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Methods {
    /// Nobody is asked for a token.
    None,
    /// At least one, each once.
    Of(Vec<Method>),
}

/// Reads a word or a list of words.
pub(super) fn methods(value: &Value<'_>) -> Result<Methods, Mismatch> {
    let Some(items) = value.items() else {
        return match value.text() {
            Some("none") => Ok(Methods::None),
            _ => Ok(Methods::Of(vec![method(value)?])),
        };
    };
    let mut methods = Vec::new();
    for item in &items {
        if item.text() == Some("none") && items.len() > 1 {
            let found = "\"none\" beside others: whoever brings no token would be admitted";
            return Err(Mismatch::new(found, METHOD));
        }
        let method = method(item)?;
        if methods.contains(&method) {
            return Err(Mismatch::new(
                format!("{} twice", item.describe()),
                "each method once",
            ));
        }
        methods.push(method);
    }
    let after_first_message = |pair: &[Method]| pair.first() == Some(&Method::FirstMessage);
    if methods.windows(2).any(after_first_message) {
        let found =
            "\"first-message\" before others: it is asked for when the request has no token";
        return Err(Mismatch::new(found, "\"first-message\" as the last"));
    }
    if methods.is_empty() {
        return Err(Mismatch::of(value, METHOD));
    }
    Ok(Methods::Of(methods))
}

fn method(value: &Value<'_>) -> Result<Method, Mismatch> {
    let word = WORDS.iter().find(|(word, _)| value.text() == Some(word));
    word.map(|(_, method)| *method)
        .ok_or_else(|| Mismatch::of(value, METHOD))
}

/// Reports the keys that none of the methods reads: a key that does nothing is taken for
/// protection.
pub(super) fn refuse_unread(section: &mut Section<'_>, methods: &[Method]) {
    for (key, readers) in OF_METHODS {
        if section.has(key) && !readers.iter().any(|reader| methods.contains(reader)) {
            let found = format!("`{key}`, which no method of this route reads");
            let allowed = format!("{} in `method`, or no such key", words(readers));
            section.error(key, section.line_of(key), found, allowed);
        }
    }
}

/// All keys there are beside `method`.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    OF_METHODS.iter().map(|(key, _)| *key).chain(OF_TOKEN)
}

fn words(methods: &[Method]) -> String {
    let word = |method| WORDS.iter().find(|(_, known)| known == method);
    let words: Vec<String> = methods
        .iter()
        .filter_map(word)
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    words.join(" or ")
}
