//! The address of a web service that the edge itself asks: a key set, a decision.
//!
//! Checked once, so that whoever connects cannot be led elsewhere by what a URL may hold
//! besides: RFC 3986 §3, and no more of it than RFC 9110 §4.2 needs. Also holds what is the
//! same for the endpoints of upstreams.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::names;

/// What such a URL must look like.
pub const WEB_URL: &str = "https://host[:port][/path][?query]: \"https://id.example.com/keys\"; http:// only to this \
     machine: \"http://127.0.0.1:9000/keys\"";

/// Bytes of the longest URL: the longest request line that common servers take.
const LONGEST: usize = 4096;

/// The checked URL of a web service.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebUrl {
    scheme: Scheme,
    host: String,
    port: u16,
    authority: String,
    path_and_query: String,
}

/// How a web service is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear, and only to a loopback address.
    Http,
    /// Over TLS.
    Https,
}

impl WebUrl {
    /// Reads a URL. Neither a user nor a fragment may be in it, and http:// leads to a
    /// loopback address or is refused: what is read there decides who is let in.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("more than 4096 bytes");
        }
        let (scheme, rest) = text.split_once("://").ok_or("no https:// in front")?;
        let (scheme, default_port) = match scheme {
            "https" => (Scheme::Https, 443),
            "http" => (Scheme::Http, 80),
            _ => return Err("the scheme is not https"),
        };
        let (authority, path) = split_authority(rest)?;
        let (host, port) = host_and_port(authority, default_port)?;
        let is_loopback = host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if scheme == Scheme::Http && !is_loopback {
            return Err("http:// to another machine, where anyone on the way could answer");
        }
        let path_and_query = match path {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        Ok(Self {
            scheme,
            host,
            port,
            authority: authority.to_owned(),
            path_and_query,
        })
    }

    /// In clear or over TLS.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address, in lower case and without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 443 or 80 when not written.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// As written, for the `Host` field: `host[:port]`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The target of a request (RFC 9112 §3.2.1).
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }
}

impl fmt::Display for WebUrl {
    /// For the log: without the query, where some services want a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebUrl({self})")
    }
}

/// Splits what follows `://` into the authority and the rest, both of characters that a URL
/// may hold.
pub(super) fn split_authority(rest: &str) -> Result<(&str, &str), &'static str> {
    if let Some(wrong) = rest.chars().find_map(misplaced) {
        return Err(wrong);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err("user names and passwords do not belong into a URL");
    }
    Ok((authority, path))
}

fn misplaced(c: char) -> Option<&'static str> {
    match c {
        '#' => Some("a fragment (#) never reaches a server"),
        // RFC 3986 has no place for these in a URL.
        '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => {
            Some("a character that no URL may hold")
        }
        c if !c.is_ascii_graphic() => Some("a space, control or non-ASCII character"),
        _ => None,
    }
}

/// Splits `host[:port]`; without a port it is the scheme's.
pub(super) fn host_and_port(
    authority: &str,
    default_port: u16,
) -> Result<(String, u16), &'static str> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed
                .split_once(']')
                .ok_or("a bracket that is not closed")?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| "no IPv6 address in the brackets")?;
            (host, rest)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, rest) = authority.split_at(end);
            if rest.matches(':').count() > 1 {
                return Err("an IPv6 address needs brackets: [::1]:9001");
            }
            if !names::is_host(host) {
                return Err("no valid host name");
            }
            (host, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("no port from 1 to 65535")?,
        None if rest.is_empty() => default_port,
        _ => return Err("no port from 1 to 65535"),
    };
    Ok((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_scheme_host_port_and_target() {
        let cases = [
            (
                "https://Id.example.com",
                Scheme::Https,
                "id.example.com",
                443,
                "/",
            ),
            (
                "https://h:8443/a/b?c=d",
                Scheme::Https,
                "h",
                8443,
                "/a/b?c=d",
            ),
            ("https://h?c=d", Scheme::Https, "h", 443, "/?c=d"),
            (
                "https://[2001:db8::1]/k",
                Scheme::Https,
                "2001:db8::1",
                443,
                "/k",
            ),
            (
                "http://127.0.0.1:9000/k",
                Scheme::Http,
                "127.0.0.1",
                9000,
                "/k",
            ),
            ("http://127.8.9.1", Scheme::Http, "127.8.9.1", 80, "/"),
            ("http://[::1]:9000", Scheme::Http, "::1", 9000, "/"),
        ];
        for (text, scheme, host, port, target) in cases {
            let url = WebUrl::parse(text).expect(text);
            assert_eq!(url.scheme(), scheme, "{text}");
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
            assert_eq!(url.path_and_query(), target, "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_web_service_is_refused() {
        let cases = [
            "",
            "id.example.com/keys",
            "HTTPS://h",
            "ftp://h",
            "file:///etc/passwd",
            "https://",
            "https://:443",
            "https:///keys",
            "https://user@h",
            "https://user:secret@h",
            "https://h#x",
            "https://h:0",
            "https://h:65536",
            "https://::1",
            "https://[::1",
            "https://[v1.h]",
            "https://h/a b",
            "https://h/\r\nX: y",
            "https://h\\@evil.example/",
            "https://hé",
            "https://a..b",
        ];
        for text in cases {
            assert!(WebUrl::parse(text).is_err(), "{text:?} was accepted");
        }
        let longest = format!("https://h/{}", "a".repeat(LONGEST - 10));
        assert!(WebUrl::parse(&longest).is_ok());
        assert!(WebUrl::parse(&format!("{longest}a")).is_err());
    }

    #[test]
    fn clear_text_stays_on_this_machine() {
        for text in [
            "http://id.example.com/keys",
            "http://10.0.0.1/keys",
            "http://[::ffff:10.0.0.1]/keys",
            // A name is whatever a resolver says.
            "http://localhost/keys",
            "http://127.0.0.1.example.com/keys",
        ] {
            let wrong = WebUrl::parse(text).expect_err(text);
            assert!(wrong.contains("another machine"), "{text}: {wrong}");
        }
    }

    #[test]
    fn what_is_printed_has_no_query() {
        let url = WebUrl::parse("https://h:1/a?key=hunter2").expect("a URL");
        assert_eq!(url.to_string(), "https://h:1/a");
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
