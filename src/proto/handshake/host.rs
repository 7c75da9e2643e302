//! The value of `Host`: an authority without userinfo (RFC 9110 §7.2, RFC 3986 §3.2).

use std::net::Ipv6Addr;

/// Splits an authority and normalizes its host, or refuses it.
///
/// The host comes back in lower case and without the one trailing dot that makes a name
/// absolute: `Chat.Example.com.` and `chat.example.com` are the same host, and a route
/// must not be missed by a spelling. An IPv6 literal comes back in brackets in its
/// canonical form. A port must be 1 to 65535; it is checked and dropped, since routes do
/// not know it. Percent-encoded names, zone identifiers and userinfo are refused.
pub(super) fn normalize(authority: &[u8]) -> Option<String> {
    let authority = std::str::from_utf8(authority).ok()?;
    if let Some(literal) = authority.strip_prefix('[') {
        let (address, port) = literal.split_once(']')?;
        check_port(port)?;
        let address: Ipv6Addr = address.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let name_end = authority.find(':').unwrap_or(authority.len());
    let (name, port) = authority.split_at(name_end);
    check_port(port)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    (name.len() <= MAX_NAME && name.split('.').all(is_label)).then(|| name.to_ascii_lowercase())
}

/// Nothing, or a colon and a port.
fn check_port(port: &str) -> Option<()> {
    let Some(digits) = port.strip_prefix(':') else {
        return port.is_empty().then_some(());
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = digits.parse().ok().filter(|_| plain)?;
    (port != 0).then_some(())
}

/// One label of a name. The underscore is no host name's, yet common inside clusters.
fn is_label(label: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !label.is_empty() && label.len() <= MAX_LABEL && label.bytes().all(is_allowed)
}

/// RFC 1035 §2.3.4.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalized() {
        let cases = [
            ("example.com", "example.com"),
            ("Chat.EXAMPLE.com:8443", "chat.example.com"),
            ("example.com.", "example.com"),
            ("example.com.:443", "example.com"),
            ("localhost", "localhost"),
            ("my_svc:80", "my_svc"),
            ("127.0.0.1:65535", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]:443", "[::1]"),
            ("[2001:DB8::A]:1", "[2001:db8::a]"),
        ];
        for (authority, host) in cases {
            assert_eq!(normalize(authority.as_bytes()).as_deref(), Some(host));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let cases = [
            "",
            ".",
            ":80",
            "a..b",
            ".a",
            "a..",
            "u@a",
            "u:p@a",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a b",
            "a/b",
            "a,b",
            "a%2eb",
            "http://a",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "[v1.x]",
            "exämple.com",
            "a\0",
        ];
        for authority in cases {
            assert_eq!(normalize(authority.as_bytes()), None, "{authority:?}");
        }
        assert_eq!(normalize(b"\xff"), None);
    }

    #[test]
    fn one_byte_over_the_longest_label_and_name_is_refused() {
        let label = "a".repeat(63);
        assert!(normalize(label.as_bytes()).is_some());
        assert_eq!(normalize(format!("{label}a").as_bytes()), None);
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name.len(), 253);
        assert!(normalize(name.as_bytes()).is_some());
        assert_eq!(normalize(format!("{name}a").as_bytes()), None);
    }
}
