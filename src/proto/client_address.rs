//! Where a client connects from, as the proxies in front say it: `X-Forwarded-For`, and
//! `Forwarded` of RFC 7239.
//!
//! Every proxy adds at the end, so a list is read from its end, and only as far as those who
//! wrote it are trusted: the first address that is none of theirs is the client, and what
//! stands before it is its own invention. Nothing is believed of a peer that is not trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::proto::handshake::Fields;
use crate::proto::network::Networks;

/// Which field is believed. One alone: whoever fills the one may let the other pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `X-Forwarded-For`: addresses, some with a port.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A trusted proxy says something that is no address, and not that it does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what a trusted proxy says of its client is malformed")]
pub struct Malformed;

/// One proxy's word on who connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    /// Port 0: it does not say which.
    Address(SocketAddr),
    /// It will not say: `unknown`, or a name of its own (RFC 7239 §6.3).
    Hidden,
}

/// Where the client behind `peer` connects from. Port 0 stands for one that nobody said.
///
/// It is `peer` itself unless that is trusted. Where a trusted proxy does not say, for the
/// field is missing or hides it, it is that proxy: it is as far as anybody knows.
///
/// # Errors
/// What a trusted proxy wrote cannot be read.
pub fn client(
    peer: SocketAddr,
    trusted: &Networks,
    source: Source,
    fields: Fields<'_>,
) -> Result<SocketAddr, Malformed> {
    let name = match source {
        Source::XForwardedFor => "x-forwarded-for",
        Source::Forwarded => "forwarded",
    };
    let mut known = peer;
    if !trusted.contains(known.ip()) {
        return Ok(known);
    }
    let lines = fields.iter().rev();
    for (_, line) in lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)) {
        let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
        let listed = match source {
            Source::XForwardedFor => Listed::Plain(line),
            Source::Forwarded => Listed::Read(elements(line)?),
        };
        match listed.furthest(known, trusted)? {
            Furthest::Known(address) => return Ok(address),
            Furthest::Trusted(address) => known = address,
        }
    }
    Ok(known)
}

/// The hops of one field.
enum Listed<'a> {
    /// Read one by one from the end: what stands before the client is not looked at.
    Plain(&'a str),
    /// Quotes have to be followed from the beginning.
    Read(Vec<Hop>),
}

/// How far a field leads.
enum Furthest {
    /// To the client, or as far as anybody says.
    Known(SocketAddr),
    /// To a trusted proxy, whose own word stands in the field before.
    Trusted(SocketAddr),
}

impl Listed<'_> {
    fn furthest(self, known: SocketAddr, trusted: &Networks) -> Result<Furthest, Malformed> {
        match self {
            Self::Plain(line) => {
                let words = line.rsplit(',').map(|word| word.trim_matches(BLANKS));
                let words = words.filter(|word| !word.is_empty());
                walk(words.map(|word| hop(word, Bare::Allowed)), known, trusted)
            }
            Self::Read(hops) => walk(hops.into_iter().rev().map(Ok), known, trusted),
        }
    }
}

fn walk(
    hops: impl Iterator<Item = Result<Hop, Malformed>>,
    mut known: SocketAddr,
    trusted: &Networks,
) -> Result<Furthest, Malformed> {
    for hop in hops {
        match hop? {
            Hop::Hidden => return Ok(Furthest::Known(known)),
            Hop::Address(address) if trusted.contains(address.ip()) => known = address,
            Hop::Address(address) => return Ok(Furthest::Known(address)),
        }
    }
    Ok(Furthest::Trusted(known))
}

/// Every element of a `Forwarded` field, in order (RFC 7239 §4). One without `for` hides.
///
/// A client may write a quote that it does not close, so that what a proxy adds behind it
/// seems to be inside: such a field does not read as a whole, and is malformed.
fn elements(line: &str) -> Result<Vec<Hop>, Malformed> {
    let mut hops = Vec::new();
    let mut element = Element::default();
    let mut rest = line.trim_matches(BLANKS);
    loop {
        if !rest.is_empty() && !rest.starts_with([';', ',']) {
            rest = element.pair(rest)?.trim_start_matches(BLANKS);
        }
        let Some(separator) = rest.chars().next() else {
            hops.extend(element.hop());
            return Ok(hops);
        };
        match separator {
            ';' => {}
            ',' => hops.extend(std::mem::take(&mut element).hop()),
            _ => return Err(Malformed),
        }
        // Both are one byte.
        rest = rest.get(1..).unwrap_or_default().trim_start_matches(BLANKS);
    }
}

/// One element as far as it is read.
#[derive(Default)]
struct Element {
    /// Whether there is anything in it.
    is_written: bool,
    hop: Option<Hop>,
}

impl Element {
    /// Reads `name=value`, and returns what is behind it.
    fn pair<'a>(&mut self, text: &'a str) -> Result<&'a str, Malformed> {
        let (name, rest) = text.split_once('=').ok_or(Malformed)?;
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(Malformed);
        }
        let (value, rest) = value(rest)?;
        self.is_written = true;
        if name.eq_ignore_ascii_case("for") {
            let hop = hop(&value, Bare::Refused)?;
            // Each parameter once in an element.
            if self.hop.replace(hop).is_some() {
                return Err(Malformed);
            }
        }
        Ok(rest)
    }

    /// `None`: there is nothing between two commas.
    fn hop(self) -> Option<Hop> {
        self.is_written.then(|| self.hop.unwrap_or(Hop::Hidden))
    }
}

/// A token or a quoted string (RFC 9110 §5.6), and what is behind it.
fn value(text: &str) -> Result<(String, &str), Malformed> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        return match token.is_empty() {
            true => Err(Malformed),
            false => Ok((token.to_owned(), rest)),
        };
    };
    let mut content = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next().ok_or(Malformed)? {
            '"' => return Ok((content, chars.as_str())),
            '\\' => content.push(chars.next().ok_or(Malformed)?),
            other => content.push(other),
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// Whether an IPv6 address may stand without brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    Allowed,
    Refused,
}

/// A node of RFC 7239 §6: an address, `unknown` or a made-up name, each perhaps with a port.
fn hop(text: &str, bare: Bare) -> Result<Hop, Malformed> {
    if bare == Bare::Allowed
        && let Ok(v6) = text.parse::<Ipv6Addr>()
    {
        return Ok(Hop::Address(at(v6.into(), 0)));
    }
    let (name, behind) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, behind)) => (Node::V6(v6), behind),
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, behind) = text.split_at(end);
            (Node::Other(name), behind)
        }
    };
    let port = match behind.strip_prefix(':') {
        Some(port) => port_of(port)?,
        None if behind.is_empty() => 0,
        None => return Err(Malformed),
    };
    match name {
        Node::V6(v6) => {
            let v6: Ipv6Addr = v6.parse().map_err(|_| Malformed)?;
            Ok(Hop::Address(at(v6.into(), port)))
        }
        Node::Other(name) if name.eq_ignore_ascii_case("unknown") || is_made_up(name) => {
            Ok(Hop::Hidden)
        }
        Node::Other(v4) => {
            let v4: Ipv4Addr = v4.parse().map_err(|_| Malformed)?;
            Ok(Hop::Address(at(v4.into(), port)))
        }
    }
}

enum Node<'a> {
    V6(&'a str),
    Other(&'a str),
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// A port, or 0 for a made-up name of one.
fn port_of(text: &str) -> Result<u16, Malformed> {
    if is_made_up(text) {
        return Ok(0);
    }
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = is_number.then(|| text.parse().ok()).flatten();
    port.ok_or(Malformed)
}

/// RFC 7239 §6.3: `_` and more.
fn is_made_up(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.strip_prefix('_')
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_part))
}

/// The optional whitespace of RFC 9110 §5.6.3.
const BLANKS: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests;
