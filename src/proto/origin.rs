//! `Origin`, and the set of origins a route admits (RFC 6454; RFC 6455 §4.2.1 point 7 and §10.2).
//!
//! Owns the grammar of a serialized origin, the patterns an operator writes, and the
//! comparison. Knows no HTTP: the raw values of the header are handed in.
//!
//! The grammar is the one browsers send, not all that RFC 3986 permits: a scheme, `://`, a
//! host of letters, digits, `-`, `.` and `_` (or an address), and at most a port. Whatever
//! is outside it (a path, user information, an encoded or non-ASCII host, a list of origins)
//! is malformed, since two programs that read such a value might disagree about its host.
//!
//! A host with a trailing dot is malformed too. Browsers treat `app.example.com.` as an
//! origin of its own although the name is the same, so neither comparison would be safe.

use std::fmt;
use std::net::Ipv6Addr;

use thiserror::Error;

/// Bytes of the longest origin that is looked at: a scheme, a host of 253 and a port fit.
pub const MAX_ORIGIN: usize = 320;

/// Bytes of the longest host name (RFC 1035 §2.3.4, without the root's own byte).
const MAX_HOST: usize = 253;

/// Bytes of the longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// One origin (RFC 6454 §4), in the form in which origins are compared.
///
/// Scheme and host are lower case, an IPv6 address is in its one canonical form, and a
/// scheme's default port is written out, so that equality is the comparison of §5.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(Repr);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Repr {
    /// `null`: an origin that equals no other, sent by sandboxed documents and local files.
    Opaque,
    Tuple(Tuple),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tuple {
    scheme: String,
    host: Host,
    /// `None` only where the scheme has no default port and none was written.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// A name or an IPv4 address: lower case, no empty label.
    Name(String),
    V6(Ipv6Addr),
}

impl Origin {
    /// Reads a serialized origin (RFC 6454 §6.2).
    ///
    /// # Errors
    /// The first rule it breaks. The text of the error does not repeat the input.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == "null" {
            return Ok(Self(Repr::Opaque));
        }
        let (scheme, authority) = split_scheme(text)?;
        let (host, port) = split_port(authority)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => parse_v6(rest)?,
            None => Host::Name(parse_name(host)?),
        };
        let port = effective_port(&scheme, port);
        Ok(Self(Repr::Tuple(Tuple { scheme, host, port })))
    }
}

/// One entry of a route's `origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*`.
    Any,
    Exact(Origin),
    Subdomains {
        scheme: String,
        /// Begins with the dot: `.example.com`.
        suffix: String,
        port: Option<u16>,
    },
}

impl OriginPattern {
    /// Reads a pattern: an origin, `null`, `https://*.example.com` or `*`.
    ///
    /// `*.` stands for one or more whole left-most labels, so neither `example.com` itself
    /// nor `evilexample.com` matches. `*` alone is every origin but `null`, which has to be
    /// listed to be admitted.
    ///
    /// # Errors
    /// Those of [`Origin::parse`], and [`OriginError::Wildcard`].
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Self(Pattern::Any));
        }
        if !text.contains('*') {
            return Ok(Self(Pattern::Exact(Origin::parse(text)?)));
        }
        let (scheme, authority) = split_scheme(text)?;
        let (host, port) = split_port(authority)?;
        let parent = host.strip_prefix("*.").ok_or(OriginError::Wildcard)?;
        if parent.contains('*') || is_ipv4_like(parent) {
            return Err(OriginError::Wildcard);
        }
        let suffix = format!(".{}", parse_name(parent)?);
        let port = effective_port(&scheme, port);
        Ok(Self(Pattern::Subdomains {
            scheme,
            suffix,
            port,
        }))
    }

    /// Whether it is `*`, which an operator should be warned about.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0 == Pattern::Any
    }

    /// Whether the origin is one this pattern stands for.
    #[must_use]
    pub fn matches(&self, origin: &Origin) -> bool {
        match (&self.0, &origin.0) {
            (Pattern::Any, Repr::Tuple(_)) => true,
            (Pattern::Exact(exact), _) => exact == origin,
            (
                Pattern::Subdomains {
                    scheme,
                    suffix,
                    port,
                },
                Repr::Tuple(tuple),
            ) => tuple.scheme == *scheme && tuple.port == *port && tuple.host.is_below(suffix),
            (Pattern::Any | Pattern::Subdomains { .. }, Repr::Opaque) => false,
        }
    }
}

impl Host {
    /// Whether labels stand before `suffix`, which begins with a dot. That the labels are
    /// whole follows from the dot; that there is one, from the rule against empty labels.
    fn is_below(&self, suffix: &str) -> bool {
        match self {
            Self::Name(name) => name.ends_with(suffix),
            Self::V6(_) => false,
        }
    }
}

/// What a request without `Origin` gets. Browsers always send it; other programs need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingOrigin {
    /// It is refused.
    Refuse,
    /// It passes.
    Allow,
}

/// The origins a route admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginSet {
    patterns: Vec<OriginPattern>,
    missing: MissingOrigin,
}

impl OriginSet {
    /// An empty list admits no origin at all.
    #[must_use]
    pub fn new(patterns: Vec<OriginPattern>, missing: MissingOrigin) -> Self {
        Self { patterns, missing }
    }

    /// Judges the values of every `Origin` header of a request, in any order.
    ///
    /// # Errors
    /// Why the request must be answered with 403.
    pub fn check<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), OriginRefused> {
        let mut values = values.into_iter();
        let Some(value) = values.next() else {
            return match self.missing {
                MissingOrigin::Allow => Ok(()),
                MissingOrigin::Refuse => Err(OriginRefused::Missing),
            };
        };
        if values.next().is_some() {
            return Err(OriginRefused::Multiple);
        }
        let origin = std::str::from_utf8(value)
            .map_err(|_| OriginRefused::Malformed(OriginError::Character))
            .and_then(|text| Origin::parse(text).map_err(OriginRefused::Malformed))?;
        if self.patterns.iter().any(|p| p.matches(&origin)) {
            Ok(())
        } else {
            Err(OriginRefused::NotAllowed)
        }
    }
}

/// Why a request's `Origin` was refused. The peer hears 403 and nothing of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginRefused {
    /// None was sent, and the route does not allow that.
    #[error("no Origin header")]
    Missing,
    /// More than one header.
    #[error("more than one Origin header")]
    Multiple,
    /// One header that is not one serialized origin.
    #[error("malformed Origin header")]
    Malformed(#[source] OriginError),
    /// A good origin that is not in the set.
    #[error("origin not in the route's list")]
    NotAllowed,
}

/// Which rule of the grammar an origin or a pattern breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginError {
    /// More than [`MAX_ORIGIN`] bytes.
    #[error("longer than {MAX_ORIGIN} bytes")]
    TooLong,
    /// No `://`, or no valid scheme before it.
    #[error("not of the form scheme://host[:port]")]
    Scheme,
    /// A path (even `/`), a query or a fragment.
    #[error("a path, query or fragment is no part of an origin (not even a final `/`)")]
    Path,
    /// An `@`.
    #[error("user information (`@`) is no part of an origin")]
    UserInfo,
    /// A control character, a space, a non-ASCII or any other character no host has.
    #[error("a character that no origin has (international names are written in punycode)")]
    Character,
    /// Nothing where the host should be.
    #[error("no host")]
    EmptyHost,
    /// An empty or too long label, a trailing dot, or no IPv6 address between the brackets.
    #[error("not a valid host (no empty labels, no trailing dot)")]
    Host,
    /// Not a decimal number up to 65535.
    #[error("not a valid port")]
    Port,
    /// A `*` elsewhere than in front of a whole domain.
    #[error("`*` stands alone, or for whole left-most labels as in https://*.example.com")]
    Wildcard,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repr::Tuple(Tuple { scheme, host, port }) = &self.0 else {
            return f.write_str("null");
        };
        match host {
            Host::Name(name) => write!(f, "{scheme}://{name}")?,
            Host::V6(address) => write!(f, "{scheme}://[{address}]")?,
        }
        match port {
            Some(port) if default_port(scheme) != Some(*port) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// Splits at `://` and refuses everything an authority cannot hold, with the rule's name.
fn split_scheme(text: &str) -> Result<(String, &str), OriginError> {
    if text.len() > MAX_ORIGIN {
        return Err(OriginError::TooLong);
    }
    let (scheme, authority) = text.split_once("://").ok_or(OriginError::Scheme)?;
    let mut bytes = scheme.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    if !starts_well || !bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return Err(OriginError::Scheme);
    }
    for b in authority.bytes() {
        match b {
            b'/' | b'\\' | b'?' | b'#' => return Err(OriginError::Path),
            b'@' => return Err(OriginError::UserInfo),
            b'-' | b'.' | b'_' | b':' | b'[' | b']' | b'*' => {}
            _ if b.is_ascii_alphanumeric() => {}
            _ => return Err(OriginError::Character),
        }
    }
    Ok((scheme.to_ascii_lowercase(), authority))
}

/// Splits the port off. The host keeps its opening bracket and loses the closing one.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), OriginError> {
    let (host, rest) = if authority.starts_with('[') {
        authority.split_once(']').ok_or(OriginError::Host)?
    } else {
        authority.split_at(authority.find(':').unwrap_or(authority.len()))
    };
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').ok_or(OriginError::Host)?;
    Ok((host, Some(parse_port(digits)?)))
}

/// Only the canonical spelling: no sign, no leading zero.
fn parse_port(digits: &str) -> Result<u16, OriginError> {
    let canonical = digits == "0" || !digits.starts_with('0');
    if !canonical || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(OriginError::Port);
    }
    digits.parse().map_err(|_| OriginError::Port)
}

fn parse_v6(inside: &str) -> Result<Host, OriginError> {
    inside.parse().map(Host::V6).map_err(|_| OriginError::Host)
}

fn parse_name(host: &str) -> Result<String, OriginError> {
    if host.is_empty() {
        return Err(OriginError::EmptyHost);
    }
    if host.contains('*') {
        return Err(OriginError::Wildcard);
    }
    let is_label =
        |label: &str| (1..=MAX_LABEL).contains(&label.len()) && !label.contains(['[', ']', ':']);
    if host.len() > MAX_HOST || !host.split('.').all(is_label) {
        return Err(OriginError::Host);
    }
    Ok(host.to_ascii_lowercase())
}

/// Whether the last label is a number, which makes a host an address (WHATWG URL §3.5).
fn is_ipv4_like(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    last.bytes().all(|b| b.is_ascii_digit())
}

fn effective_port(scheme: &str, port: Option<u16>) -> Option<u16> {
    port.or_else(|| default_port(scheme))
}

/// The schemes to which browsers give a default port (WHATWG URL §3.1).
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
