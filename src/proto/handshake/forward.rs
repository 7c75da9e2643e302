//! Which header fields travel from one leg's head to the other's (RFC 9110 §7.6.1).
//!
//! A field name is compared in a folded form, lower case with every character that is no
//! letter or digit read as `-`: servers that put fields into environment variables
//! (RFC 3875 §4.1.18) cannot tell `X_User_Id` from `X-User-Id`, so a client must not be
//! able to send the one where the edge vouches for the other.

use crate::proto::handshake::{Field, Fields, elements};

/// The client's fields that the upstream gets too.
///
/// Left out are hop-by-hop fields (with those that `Connection` names), everything the
/// edge says itself or vouches for (`Host`, `Origin`, `Sec-WebSocket-*`, `X-Forwarded-*`,
/// `X-Request-Id`, `X-Tidegate-*` and the like), what frames a body, what makes an upstream
/// believe another path than the one the route was chosen by (`X-Original-URL`,
/// `X-Rewrite-URL`), and the names in `replaced`, which the edge fills otherwise.
pub fn request_fields<'a>(fields: Fields<'a>, replaced: &[&str]) -> Vec<(&'a str, &'a [u8])> {
    let replaced: Vec<Vec<u8>> = replaced.iter().map(|name| fold(name.as_bytes())).collect();
    let named = named_by_connection(fields);
    let passes = |name: &Vec<u8>| {
        !is_hop_by_hop(name)
            && !EDGE.contains(&name.as_slice())
            && !EDGE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !named.contains(name)
            && !replaced.contains(name)
    };
    fields
        .iter()
        .filter(|(name, _)| passes(&fold(name.as_bytes())))
        .copied()
        .collect()
}

/// The fields of an upstream's refusal that the client gets too: all but hop-by-hop
/// fields (with those that `Connection` names), `Sec-WebSocket-*` and `Content-Length`,
/// which is written anew. `Set-Cookie` passes.
pub fn response_fields(fields: Fields<'_>) -> Vec<Field> {
    let named = named_by_connection(fields);
    let passes = |name: &Vec<u8>| {
        !is_hop_by_hop(name)
            && !name.starts_with(b"sec-websocket-")
            && name != b"content-length"
            && !named.contains(name)
    };
    fields
        .iter()
        .filter(|(name, _)| passes(&fold(name.as_bytes())))
        .map(owned)
        .collect()
}

/// The cookies an upstream sets with its 101.
pub fn set_cookies(fields: Fields<'_>) -> Vec<Field> {
    fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .map(owned)
        .collect()
}

fn owned((name, value): &(&str, &[u8])) -> Field {
    Field {
        name: (*name).to_owned(),
        value: value.to_vec(),
    }
}

fn named_by_connection(fields: Fields<'_>) -> Vec<Vec<u8>> {
    elements(fields, "connection").map(fold).collect()
}

fn fold(name: &[u8]) -> Vec<u8> {
    let fold = |b: &u8| match b.to_ascii_lowercase() {
        b if b.is_ascii_alphanumeric() => b,
        _ => b'-',
    };
    name.iter().map(fold).collect()
}

fn is_hop_by_hop(folded: &[u8]) -> bool {
    HOP_BY_HOP.contains(&folded) || folded.starts_with(b"proxy-")
}

/// RFC 9110 §7.6.1 and its older lists. `Proxy` itself is no field of HTTP, yet read from
/// the environment as the proxy to use ("httpoxy").
const HOP_BY_HOP: [&[u8]; 9] = [
    b"connection",
    b"http2-settings",
    b"keep-alive",
    b"proxy",
    b"te",
    b"trailer",
    b"trailers",
    b"transfer-encoding",
    b"upgrade",
];

const EDGE: [&[u8]; 9] = [
    b"content-length",
    b"expect",
    b"forwarded",
    b"host",
    b"origin",
    b"x-original-url",
    b"x-real-ip",
    b"x-request-id",
    b"x-rewrite-url",
];

const EDGE_PREFIXES: [&[u8]; 3] = [b"sec-websocket-", b"x-forwarded", b"x-tidegate-"];

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(name: &str) -> bool {
        let fields = [(name, &b"v"[..])];
        !request_fields(&fields, &["x-user-id"]).is_empty()
    }

    #[test]
    fn ordinary_fields_pass_in_order_and_repeated() {
        let fields: Fields<'_> = &[
            ("Cookie", b"a=1"),
            ("user-agent", b"x"),
            ("cookie", b"b=2"),
            ("authorization", b"Bearer t"),
            ("x-custom_name", b"\xff"),
        ];
        assert_eq!(request_fields(fields, &[]), fields);
    }

    #[test]
    fn what_the_edge_vouches_for_never_passes_in_any_spelling() {
        let names = [
            "Connection",
            "Keep-Alive",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Proxy",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "HTTP2-Settings",
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Extensions",
            "Sec_WebSocket_Protocol",
            "Host",
            "Origin",
            "Content-Length",
            "Content_Length",
            "Expect",
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded",
            "X-Forwarded-Anything",
            "Forwarded",
            "X-Request-Id",
            "X-Request_Id",
            "X.Request.Id",
            "X-Real-IP",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Tidegate-Identity",
            "x_tidegate_identity",
            "X-Tidegate.Identity",
            "X-User-Id",
            "x-user-id",
            "X_User_Id",
            "X_User-Id",
            "x.user.id",
            "X-User~Id",
        ];
        for name in names {
            assert!(!passes(name), "{name}");
        }
        for name in ["X-User", "X-User-Id2", "XUser-Id", "Sec-Fetch-Mode"] {
            assert!(passes(name), "{name}");
        }
    }

    #[test]
    fn fields_that_connection_names_do_not_pass() {
        let fields: Fields<'_> = &[
            ("connection", b"Upgrade, X-Hop"),
            ("Connection", b"x-other"),
            ("x-hop", b"1"),
            ("X_Other", b"2"),
            ("x-kept", b"3"),
        ];
        assert_eq!(request_fields(fields, &[]), [("x-kept", &b"3"[..])]);
    }

    #[test]
    fn a_refusal_keeps_its_cookies_and_loses_what_belongs_to_its_hop() {
        let fields: Fields<'_> = &[
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=2"),
            ("connection", b"close, x-hop"),
            ("x-hop", b"1"),
            ("content-length", b"5"),
            ("transfer-encoding", b"chunked"),
            ("sec-websocket-version", b"13"),
            ("proxy-authenticate", b"Basic"),
            ("www-authenticate", b"Bearer"),
        ];
        let passed = response_fields(fields);
        let names: Vec<_> = passed.iter().map(|field| &*field.name).collect();
        assert_eq!(names, ["set-cookie", "set-cookie", "www-authenticate"]);
        let cookies: Vec<_> = set_cookies(fields).into_iter().map(|f| f.value).collect();
        assert_eq!(cookies, [b"a=1", b"b=2"]);
    }
}
