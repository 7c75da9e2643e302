//! The server's side of the opening handshake: what a client must send (RFC 6455 §4.2.1)
//! and how a subprotocol is chosen (§4.2.2).
//!
//! Stricter than the RFC wherever two parsers could read a head differently: what may
//! stand there once must stand there once, and nothing may announce a body.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::proto::handshake::reject::Reject;
use crate::proto::handshake::{
    Fields, Single, connection_names, elements, host, single, target, token,
};

/// A version of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A request head as an HTTP parser saw it.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// As sent; compared with case (RFC 9110 §9.1).
    pub method: &'a str,
    /// From the request line.
    pub version: Version,
    /// As sent.
    pub target: &'a str,
    /// Every field.
    pub fields: Fields<'a>,
}

/// An acceptable opening handshake. Owns what later steps need, so that the head itself
/// can go.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    host: String,
    authority: String,
    target: String,
    path_len: usize,
    key: String,
    subprotocols: Vec<String>,
}

impl Opening {
    /// Host in lower case, without port and trailing dot; an IPv6 literal in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `Host` as the client sent it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path as the client sent it: begins with `/`, has neither dot nor empty segments.
    pub fn path(&self) -> &str {
        self.target.get(..self.path_len).unwrap_or(&self.target)
    }

    /// Path, and the query when there is one, as the client sent them; at most 8 KiB.
    pub fn path_and_query(&self) -> &str {
        &self.target
    }

    /// `Sec-WebSocket-Key`: base64 of 16 bytes.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Distinct tokens in the client's order of preference; at most 32.
    pub fn subprotocols(&self) -> &[String] {
        &self.subprotocols
    }
}

impl fmt::Debug for Opening {
    /// Without query and subprotocols: tokens travel in both.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("host", &self.host)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// Checks a request head (RFC 6455 §4.2.1). The first fault found decides.
///
/// A request that merely does not ask for WebSocket is told so (405, 426) before its
/// details are judged.
pub fn check(head: &Head<'_>) -> Result<Opening, Reject> {
    if head.method != "GET" {
        return Err(Reject::Method);
    }
    if head.version != Version::Http11 {
        return Err(Reject::HttpVersion);
    }
    let path_len = target::check(head.target).map_err(Reject::Target)?;
    let (host, authority) = check_host(head.fields)?;
    check_no_body(head.fields)?;
    check_upgrade(head.fields)?;
    check_version(head.fields)?;
    Ok(Opening {
        host,
        authority,
        target: head.target.to_owned(),
        path_len,
        key: check_key(head.fields)?,
        subprotocols: check_subprotocols(head.fields)?,
    })
}

/// The first of the client's subprotocols that the route lists (RFC 6455 §4.2.2); none in
/// common is none at all, which the route may answer with
/// [`Reject::NoCommonSubprotocol`].
pub fn choose_subprotocol<'a>(offered: &'a [String], listed: &[String]) -> Option<&'a str> {
    offered
        .iter()
        .find(|subprotocol| listed.contains(subprotocol))
        .map(String::as_str)
}

/// Host normalized, and as sent.
fn check_host(fields: Fields<'_>) -> Result<(String, String), Reject> {
    let Single::One(authority) = single(fields, "host") else {
        return Err(Reject::Host);
    };
    let host = host::normalize(authority).ok_or(Reject::Host)?;
    let authority = String::from_utf8(authority.to_vec()).map_err(|_| Reject::Host)?;
    Ok((host, authority))
}

fn check_no_body(fields: Fields<'_>) -> Result<(), Reject> {
    let announces = |(name, _): &(&str, &[u8])| {
        ["content-length", "transfer-encoding", "expect"]
            .iter()
            .any(|n| n.eq_ignore_ascii_case(name))
    };
    if fields.iter().any(announces) {
        return Err(Reject::Body);
    }
    Ok(())
}

fn check_upgrade(fields: Fields<'_>) -> Result<(), Reject> {
    match single(fields, "upgrade") {
        Single::Missing => Err(Reject::NoUpgrade),
        Single::One(value) if value.eq_ignore_ascii_case(b"websocket") => {
            if connection_names(fields, b"upgrade") {
                Ok(())
            } else {
                Err(Reject::Connection)
            }
        }
        Single::One(_) | Single::Several => Err(Reject::OtherUpgrade),
    }
}

fn check_version(fields: Fields<'_>) -> Result<(), Reject> {
    match single(fields, "sec-websocket-version") {
        Single::One(b"13") => Ok(()),
        Single::One(_) => Err(Reject::Version),
        Single::Missing | Single::Several => Err(Reject::VersionField),
    }
}

fn check_key(fields: Fields<'_>) -> Result<String, Reject> {
    let Single::One(key) = single(fields, "sec-websocket-key") else {
        return Err(Reject::Key);
    };
    let decoded = STANDARD.decode(key).map_err(|_| Reject::Key)?;
    if decoded.len() != 16 {
        return Err(Reject::Key);
    }
    String::from_utf8(key.to_vec()).map_err(|_| Reject::Key)
}

/// All fields joined (RFC 6455 §11.3.4). A list with an empty element is malformed.
fn check_subprotocols(fields: Fields<'_>) -> Result<Vec<String>, Reject> {
    let mut found: Vec<String> = Vec::new();
    for element in elements(fields, "sec-websocket-protocol") {
        let name = token(element).ok_or(Reject::Subprotocols)?;
        if found.len() == MAX_SUBPROTOCOLS || found.iter().any(|known| known == name) {
            return Err(Reject::Subprotocols);
        }
        found.push(name.to_owned());
    }
    Ok(found)
}

/// Far more than any client offers, few enough to compare each with each.
const MAX_SUBPROTOCOLS: usize = 32;

#[cfg(test)]
mod tests;
