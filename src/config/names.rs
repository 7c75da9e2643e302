//! What the texts of a route may look like: names, hosts, paths, tokens, header names, JSON
//! pointers. Each rule answers with the checked value or with what is wrong.

use std::collections::HashMap;

use crate::config::answer::Reported;
use crate::config::file::Section;
use crate::config::value::checked;
use crate::config::{HostPattern, Line, PathPattern};

/// What a name must look like.
const NAME: &str = "a name of 1 to 64 of a-z, 0-9, _ and -, unique among its kind";

/// Reads `name`, renames the section by it, and reports it when an earlier section has it.
pub(super) fn unique(
    section: &mut Section<'_>,
    kind: &str,
    taken: &mut HashMap<String, Line>,
) -> Result<String, Reported> {
    let name = section.required("name", checked(name, NAME), NAME)?;
    section.rename(format!("{kind}.{}", name.value));
    if let Some(first) = taken.insert(name.value.clone(), name.at()) {
        let found = format!(
            "\"{}\", the name of the {kind} on line {}",
            name.value, first.0
        );
        section.error("name", name.line, found, NAME);
    }
    Ok(name.value)
}

/// A name of a route or an upstream: safe in logs, metrics and on a command line.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    match text.len() {
        0 => Err("it is empty"),
        65.. => Err("it is longer than 64"),
        _ if !text.bytes().all(fits) => Err("it has other characters"),
        _ => Ok(text.to_owned()),
    }
}

/// The host of a route: exact, or `*.` and a suffix. Kept in lower case.
pub(super) fn host(text: &str) -> Result<HostPattern, &'static str> {
    if !text.is_ascii() {
        return Err("international names are written in punycode: xn--…");
    }
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_prefix("*.").unwrap_or(&lower);
    if lower == "*" {
        return Err("to serve every host, leave the key out");
    }
    if bare.contains(':') {
        return Err("a port or an IPv6 address; write the host name alone");
    }
    if bare.contains('*') {
        return Err("a * stands for whole labels, at the left only");
    }
    if !is_host(bare) || bare.contains('_') {
        return Err("it is no valid host name");
    }
    Ok(match lower.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(lower),
    })
}

/// Whether a text is a host name or an IPv4 address (RFC 1123 §2.1; `_` is tolerated, since
/// container networks use it).
pub(super) fn is_host(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The path of a route: exact, or a prefix when it ends in `/*`.
///
/// Percent-encodings are refused: a path has many encoded spellings, and a pattern that
/// matched only one of them would look like protection and be none.
pub(super) fn path(text: &str) -> Result<PathPattern, &'static str> {
    let prefix = text.strip_suffix('*').filter(|kept| kept.ends_with('/'));
    let kept = prefix.unwrap_or(text);
    let Some(below_root) = kept.strip_prefix('/') else {
        return Err("it does not begin with /");
    };
    if let Some(wrong) = kept.chars().find_map(not_in_path) {
        return Err(wrong);
    }
    let segments = below_root.strip_suffix('/').unwrap_or(below_root);
    if kept != "/"
        && segments
            .split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err("an empty or dot segment, which no request has after it was checked");
    }
    if kept.len() > LONGEST_PATH {
        return Err("it is longer than 1024");
    }
    Ok(match prefix {
        Some(prefix) => PathPattern::Prefix(prefix.to_owned()),
        None => PathPattern::Exact(text.to_owned()),
    })
}

/// Bytes of a path pattern: more than any real one, less than a request head.
const LONGEST_PATH: usize = 1024;

fn not_in_path(c: char) -> Option<&'static str> {
    match c {
        '*' => Some("a * stands at the end only, as /*"),
        '?' | '#' => Some("a query or fragment; the query passes through whatever the path"),
        '%' => Some("a percent-encoding"),
        c if c.is_ascii_alphanumeric() => None,
        // The rest of `pchar` (RFC 3986 §3.3), and the separator.
        '/' | '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '+' | ',' | ';'
        | '=' | ':' | '@' => None,
        _ => Some("a character that no path may hold"),
    }
}

/// Whether a text is a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// A subprotocol (RFC 6455 §4.1).
pub(super) fn subprotocol(text: &str) -> Result<String, &'static str> {
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err("it is no token (RFC 9110)")
    }
}

/// The name of a cookie (RFC 6265 §4.1.1).
pub(super) fn cookie(text: &str) -> Result<String, &'static str> {
    match text.len() {
        LONGEST_PLACE.. => Err("it is longer than 128"),
        _ if !is_token(text) => Err("it is no token (RFC 9110)"),
        _ => Ok(text.to_owned()),
    }
}

/// The beginning of a subprotocol.
pub(super) fn prefix(text: &str) -> Result<String, &'static str> {
    cookie(text)
}

/// The name of a query parameter, in characters that are never encoded (RFC 3986 §2.3).
pub(super) fn parameter(text: &str) -> Result<String, &'static str> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    match text.len() {
        0 => Err("it is empty"),
        LONGEST_PLACE.. => Err("it is longer than 128"),
        _ if !text.bytes().all(fits) => Err("it has other characters than letters, digits, -._~"),
        _ => Ok(text.to_owned()),
    }
}

/// One more than the bytes of a name that says where a token is.
const LONGEST_PLACE: usize = 129;

/// A header, in lower case.
pub(super) fn any_header(text: &str) -> Result<String, &'static str> {
    match is_token(text) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("it is no field name (RFC 9110)"),
    }
}

/// A header that a route may fill, in lower case. Names that some servers cannot tell from
/// one of the edge's own are the edge's own (`X_Request_Id`; see `proto::handshake::forward`).
pub(super) fn header(text: &str) -> Result<String, &'static str> {
    let name = any_header(text)?;
    let folded = folded(&name);
    let is_ours = OURS.contains(&folded.as_str())
        || OUR_PREFIXES.iter().any(|prefix| folded.starts_with(prefix));
    if is_ours {
        return Err("the edge writes or removes this header itself");
    }
    Ok(name)
}

/// A header as servers see it that cannot tell `_` from `-` (RFC 3875 §4.1.18).
pub(super) fn folded(header: &str) -> String {
    header.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// What `iss` or `aud` may be: a StringOrURI (RFC 7519 §2), of a length that fits anywhere.
pub(super) fn string_or_uri(text: &str) -> Result<String, &'static str> {
    match text.len() {
        0 => Err("it is empty"),
        1..=LONGEST_CLAIM if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        1..=LONGEST_CLAIM => Err("it has a control character"),
        _ => Err("it is longer than 256"),
    }
}

/// Headers of the connection (RFC 9110 §7.6.1), of the message's framing, and those that the
/// edge sends on its own account.
const OURS: [&str; 15] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

const OUR_PREFIXES: [&str; 3] = ["sec-websocket-", "x-forwarded-", "x-tidegate-"];

/// A JSON pointer (RFC 6901 §3) below the whole document.
pub(super) fn pointer(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty; leave the key out when the whole message is the token");
    }
    if !text.starts_with('/') {
        return Err("it does not begin with /");
    }
    if text.len() > LONGEST_CLAIM {
        return Err("it is longer than 256");
    }
    let escapes = text.split('~').skip(1);
    if escapes
        .into_iter()
        .any(|after| !after.starts_with(['0', '1']))
    {
        return Err("a ~ is written ~0, and a / in a name ~1");
    }
    Ok(text.to_owned())
}

/// The name of a claim, or a JSON pointer into the claims.
pub(super) fn claim(text: &str) -> Result<String, &'static str> {
    match text.len() {
        0 => Err("it is empty"),
        _ if text.starts_with('/') => pointer(text),
        1..=LONGEST_CLAIM => Ok(text.to_owned()),
        _ => Err("it is longer than 256"),
    }
}

/// Bytes of a claim's name or pointer: far beyond real ones.
const LONGEST_CLAIM: usize = 256;

/// Whether a text can be the name of an environment variable (POSIX, and lower case).
pub(super) fn is_variable(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty() && text.bytes().all(fits) && !text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_exact_or_a_suffix_in_lower_case() {
        assert_eq!(
            host("Chat.Example.com"),
            Ok(HostPattern::Exact("chat.example.com".into()))
        );
        assert_eq!(
            host("*.example.com"),
            Ok(HostPattern::Suffix(".example.com".into()))
        );
        assert_eq!(
            host("192.0.2.1"),
            Ok(HostPattern::Exact("192.0.2.1".into()))
        );
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let cases = [
            "",
            "*",
            "*.",
            "*.*.a",
            "a.*.b",
            "*a.b",
            "a.b:443",
            "[::1]",
            "a..b",
            "a.",
            ".a",
            "-a.b",
            "a b",
            "müller.de",
            "a_b.c",
            "https://a.b",
            "a/b",
        ];
        for text in cases {
            assert!(host(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_path_is_exact_or_a_prefix() {
        for exact in ["/", "/chat", "/socket.io/", "/a/b;c=d@e:f"] {
            assert_eq!(path(exact), Ok(PathPattern::Exact(exact.into())));
        }
        assert_eq!(path("/*"), Ok(PathPattern::Prefix("/".into())));
        assert_eq!(path("/chat/*"), Ok(PathPattern::Prefix("/chat/".into())));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let cases = [
            "", "chat", "*", "/chat*", "/*/a", "/a/*/b", "//", "/a//b", "//a", "/a//*", "/.",
            "/..", "/a/../b", "/a/./*", "/../*", "/a?b", "/a#b", "/a%2fb", "/a b", "/a\n", "/ä",
            "/a\\b", "/<a>",
        ];
        for text in cases {
            assert!(path(text).is_err(), "{text:?} was accepted");
        }
        assert!(path(&format!("/{}", "a".repeat(LONGEST_PATH))).is_err());
    }

    #[test]
    fn a_header_is_kept_in_lower_case() {
        assert_eq!(header("X-User-Id"), Ok("x-user-id".to_owned()));
        assert_eq!(header("Authorization"), Ok("authorization".to_owned()));
    }

    #[test]
    fn headers_of_the_connection_and_of_the_edge_are_refused() {
        let cases = [
            "",
            "X User",
            "X:Y",
            "Host",
            "ORIGIN",
            "Connection",
            "Upgrade",
            "Sec-WebSocket-Key",
            "sec-websocket-protocol",
            "X-Forwarded-For",
            "X-Forwarded-User",
            "X-Request-Id",
            "Content-Length",
            "Transfer-Encoding",
            "TE",
            "Keep-Alive",
            "Proxy-Authorization",
            "Ünicode",
        ];
        for text in cases {
            assert!(header(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_pointer_escapes_its_tildes() {
        for text in ["/token", "/a/b/0", "/a~1b", "/a~0b", "/"] {
            assert_eq!(pointer(text), Ok(text.to_owned()));
        }
        for text in ["", "token", "/a~", "/a~2", "/~~0"] {
            assert!(pointer(text).is_err(), "{text:?} was accepted");
        }
        assert!(pointer(&format!("/{}", "a".repeat(LONGEST_CLAIM))).is_err());
        assert!(claim(&"a".repeat(LONGEST_CLAIM + 1)).is_err());
    }

    #[test]
    fn a_name_is_at_most_64_long() {
        assert!(name(&"a".repeat(64)).is_ok());
        assert!(name(&"a".repeat(65)).is_err());
        for text in ["", "Chat", "a b", "a/b", "ä"] {
            assert!(name(text).is_err(), "{text:?} was accepted");
        }
    }
}
