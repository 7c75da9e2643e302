//! The header of the PROXY protocol, versions 1 and 2: what a balancer that passes bytes
//! through says about the connection behind it, before the first byte of it.
//!
//! Where it is expected it is demanded: what looks otherwise is refused, and nothing is
//! guessed. It is read from the beginning of a connection in whatever pieces it arrives.
//! Version 2's further fields (TLVs) are skipped, its checksum among them. The document is
//! HAProxy's `proxy-protocol.txt`, whose sections are cited.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of the largest header taken. Version 1 has at most 107 (§2.1); version 2 may have
/// 64 KiB, of which addresses are 36 and the rest is about certificates and clouds.
pub const LARGEST: usize = 4096;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Bytes of it.
    pub len: usize,
    /// Where the client connects from; `None`: the balancer speaks for itself (`LOCAL`), or
    /// does not say (`UNKNOWN`, `UNSPEC`, `AF_UNIX`).
    pub client: Option<SocketAddr>,
}

/// Why bytes are no such header. For the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAProxyHeader {
    /// They begin like neither version.
    #[error("the connection does not begin with a PROXY header")]
    Signature,
    /// Version 1: not a line of the one form, or too long a one.
    #[error("the PROXY line is malformed")]
    Line,
    /// Version 2: a version, command or family that is not defined, or not of TCP.
    #[error("the PROXY header has an unknown command or family")]
    Kind,
    /// Version 2: too short for its own addresses.
    #[error("the PROXY header is too short for its addresses")]
    Short,
    /// Version 2: longer than is taken.
    #[error("the PROXY header is longer than 4 KiB")]
    Long,
}

/// The header that `bytes` begin with; `None`: all of them are of a header that goes on.
///
/// # Errors
/// What they begin with can become none.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, NotAProxyHeader> {
    if begins(bytes, SIGNATURE) {
        return version_2(bytes);
    }
    if begins(bytes, PREFIX) {
        return version_1(bytes);
    }
    Err(NotAProxyHeader::Signature)
}

/// Whether `bytes` are `start`, or as much of it as there is.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.starts_with(start) || start.starts_with(bytes)
}

/// §2.1: `PROXY TCP4 <source> <destination> <source port> <destination port>` CR LF.
fn version_1(bytes: &[u8]) -> Result<Option<ProxyHeader>, NotAProxyHeader> {
    let window = bytes.get(..LARGEST_LINE).unwrap_or(bytes);
    let Some(end) = window.iter().position(|b| *b == b'\n') else {
        return match bytes.len() < LARGEST_LINE {
            true => Ok(None),
            false => Err(NotAProxyHeader::Line),
        };
    };
    let line = window
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .and_then(|line| std::str::from_utf8(line).ok())
        .and_then(|line| line.strip_prefix("PROXY "));
    let client = line.and_then(client_of).ok_or(NotAProxyHeader::Line)?;
    Ok(Some(ProxyHeader {
        len: end + 1,
        client,
    }))
}

/// What stands behind `PROXY`. The outer `None`: no line of the form.
fn client_of(line: &str) -> Option<Option<SocketAddr>> {
    let (family, rest) = line.split_once(' ').unwrap_or((line, ""));
    if family == "UNKNOWN" {
        // What follows is to be ignored.
        return Some(None);
    }
    let words: Vec<&str> = rest.split(' ').collect();
    let [source, destination, source_port, destination_port] = words[..] else {
        return None;
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    address(destination)?;
    port(destination_port)?;
    let client = SocketAddr::new(address(source)?.to_canonical(), port(source_port)?);
    Some(Some(client))
}

/// A decimal number without leading zeros (§2.1).
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    (is_plain || text == "0").then(|| text.parse().ok())?
}

/// §2.2: signature, version and command, family, length; then addresses and TLVs.
fn version_2(bytes: &[u8]) -> Result<Option<ProxyHeader>, NotAProxyHeader> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *head else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let addresses = match (command, family) {
        // LOCAL: the connection is the balancer's own, and the rest of it is skipped.
        (0x20, _) => Addresses::None,
        (0x21, 0x00 | 0x31) => Addresses::None,
        (0x21, 0x11) => Addresses::V4,
        (0x21, 0x21) => Addresses::V6,
        _ => return Err(NotAProxyHeader::Kind),
    };
    if length < addresses.len() {
        return Err(NotAProxyHeader::Short);
    }
    if HEAD + length > LARGEST {
        return Err(NotAProxyHeader::Long);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    Ok(Some(ProxyHeader {
        len: HEAD + length,
        client: addresses.source(body),
    }))
}

/// What the body of a version 2 header begins with.
#[derive(Clone, Copy)]
enum Addresses {
    None,
    V4,
    V6,
}

impl Addresses {
    const fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::V4 => 12,
            Self::V6 => 36,
        }
    }

    /// Source, destination, source port, destination port.
    fn source(self, body: &[u8]) -> Option<SocketAddr> {
        let (source, port): (IpAddr, &[u8]) = match self {
            Self::None => return None,
            Self::V4 => (body.first_chunk::<4>().copied()?.into(), body.get(8..10)?),
            Self::V6 => (body.first_chunk::<16>().copied()?.into(), body.get(32..34)?),
        };
        let port = u16::from_be_bytes(port.try_into().ok()?);
        Some(SocketAddr::new(source.to_canonical(), port))
    }
}

const PREFIX: &[u8] = b"PROXY ";

/// Bytes of the longest line, its end included (§2.1).
const LARGEST_LINE: usize = 107;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of a version 2 header before its addresses.
const HEAD: usize = 16;

#[cfg(test)]
mod tests;
