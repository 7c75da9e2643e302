//! Why a request is refused before the 101, and the one mapping from there to what the
//! client hears.
//!
//! The client hears a status, the fields that the status demands and a short text. The
//! finer reason is for the log.

use crate::proto::handshake::target::TargetFault;

/// A refusal by the edge before the 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A method other than GET.
    Method,
    /// HTTP/1.0. Its `Upgrade` must be ignored (RFC 9110 §7.8), so it is answered like a
    /// request that does not ask for WebSocket.
    HttpVersion,
    /// The target is too long, not in origin-form, or reads two ways.
    Target(TargetFault),
    /// `Host` is missing, stands there more than once, or is no authority.
    Host,
    /// Content-Length, Transfer-Encoding or Expect: bytes behind the head would be read as
    /// frames by one side and as a body by another.
    Body,
    /// No `Upgrade`: a plain HTTP request.
    NoUpgrade,
    /// `Upgrade` asks for something else, or for something else too.
    OtherUpgrade,
    /// `upgrade` is not among the `Connection` tokens.
    Connection,
    /// `Sec-WebSocket-Version` is missing or stands there more than once.
    VersionField,
    /// A version other than 13.
    Version,
    /// `Sec-WebSocket-Key` is not one base64 of 16 bytes.
    Key,
    /// `Sec-WebSocket-Protocol` is not a short list of distinct tokens.
    Subprotocols,
    /// The route requires a subprotocol and the client offers none of its list.
    NoCommonSubprotocol,
    /// No route for this host and path.
    NoRoute,
    /// The origin is missing, malformed or not in the route's set.
    Origin,
    /// The token in the request head is missing or refused.
    Token,
    /// The token, if one was asked for, is good, and whoever is asked about its bearer says
    /// no.
    Forbidden,
    /// Nobody could say whether the client may come in.
    Undecided,
    /// A trusted proxy's word on where the client connects from cannot be read.
    ClientAddress,
    /// The lists of networks keep the client's address out.
    Address,
    /// The process has no place, or connections come too fast.
    Crowded,
    /// The same for the client's address alone.
    AddressCrowded,
    /// The route has no place.
    RouteFull,
    /// The subject of the token has as many sessions as it may.
    SubjectFull,
    /// A header value for the upstream cannot be sent.
    Unsendable,
    /// The upstream answered wrongly.
    BadGateway,
    /// No endpoint could be reached.
    Unavailable,
    /// This process takes no more sessions, for it is to end.
    Draining,
    /// The upstream took too long.
    GatewayTimeout,
}

impl Reject {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// The body: one short line, coarser than [`reason`](Self::reason).
    pub fn text(self) -> &'static str {
        match self.status() {
            401 => "Unauthorized\n",
            403 => "Forbidden\n",
            404 => "Not found\n",
            405 => "Only GET is allowed\n",
            414 => "URI too long\n",
            426 => "This address speaks WebSocket (RFC 6455)\n",
            429 => "Too many requests\n",
            502 => "Bad gateway\n",
            503 => "Service unavailable\n",
            504 => "Gateway timeout\n",
            _ => "Bad request\n",
        }
    }

    /// The header fields the status demands: RFC 9110 §15.5.2, §15.5.6, §15.5.22 and
    /// RFC 6455 §4.2.2 for the version.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match (self, self.status()) {
            (Self::Version, _) => &[("upgrade", "websocket"), ("sec-websocket-version", "13")],
            (_, 426) => &[("upgrade", "websocket")],
            (_, 405) => &[("allow", "GET")],
            (_, 401) => &[("www-authenticate", "Bearer")],
            _ => &[],
        }
    }

    /// `Retry-After` in seconds (RFC 9110 §10.2.3), where trying again later helps. `random`
    /// spreads those who are refused together over ten of them, or they would come back together.
    pub fn retry_after(self, random: u8) -> Option<u8> {
        let helps = matches!(self.status(), 429 | 503);
        helps.then(|| SOONEST_RETRY + random % RETRY_SPREAD)
    }

    /// For the log and for counters: one of a fixed set of texts.
    pub fn reason(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (u16, &'static str) {
        match self {
            Self::Method => (405, "method is not GET"),
            Self::HttpVersion => (426, "HTTP version is not 1.1"),
            Self::Target(fault) => target_row(fault),
            Self::Host => (400, "Host is not exactly one valid authority"),
            Self::Body => (400, "request announces a body or an expectation"),
            Self::NoUpgrade => (426, "request asks for no upgrade"),
            Self::OtherUpgrade => (426, "Upgrade is not exactly one websocket"),
            Self::Connection => (400, "Connection does not name upgrade"),
            Self::VersionField => (400, "Sec-WebSocket-Version does not stand there once"),
            Self::Version => (426, "Sec-WebSocket-Version is not 13"),
            Self::Key => (400, "Sec-WebSocket-Key is not one base64 of 16 bytes"),
            Self::Subprotocols => (400, "Sec-WebSocket-Protocol is malformed"),
            Self::NoCommonSubprotocol => (400, "no subprotocol in common"),
            Self::NoRoute => (404, "no route"),
            Self::Origin => (403, "origin is not allowed"),
            Self::Token => (401, "token is refused"),
            Self::Forbidden => (403, "admission is refused"),
            Self::Undecided => (503, "admission could not be decided"),
            Self::ClientAddress => (400, "a trusted proxy's word on its client is malformed"),
            Self::Address => (403, "client address is not allowed"),
            Self::Crowded => (503, "no place, or too many at a time"),
            Self::AddressCrowded => (429, "too many from this address"),
            Self::RouteFull => (503, "route has as many sessions as it may"),
            Self::SubjectFull => (429, "subject has as many sessions as it may"),
            Self::Unsendable => (400, "header value for the upstream cannot be sent"),
            Self::BadGateway => (502, "upstream answered wrongly"),
            Self::Unavailable => (503, "upstream is unavailable"),
            Self::Draining => (503, "the process drains"),
            Self::GatewayTimeout => (504, "upstream took too long"),
        }
    }
}

fn target_row(fault: TargetFault) -> (u16, &'static str) {
    match fault {
        TargetFault::TooLong => (414, "target is longer than 8 KiB"),
        TargetFault::NotOriginForm => (400, "target is not in origin-form"),
        TargetFault::Character => (400, "target has a character that must be encoded"),
        TargetFault::Separator => (400, "path has a disguised separator"),
        TargetFault::PercentEncoding => (400, "path has a broken percent-encoding"),
        TargetFault::EncodedControl => (400, "path has an encoded control character"),
        TargetFault::NeedlessEncoding => (400, "path encodes what needs no encoding"),
        TargetFault::DotSegment => (400, "path has a dot segment"),
        TargetFault::EmptySegment => (400, "path has an empty segment"),
    }
}

/// Seconds: long enough for others to leave.
const SOONEST_RETRY: u8 = 5;

/// Seconds over which those who were refused come back.
const RETRY_SPREAD: u8 = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_may_try_again_hear_when_and_not_all_the_same() {
        for reject in [
            Reject::Crowded,
            Reject::AddressCrowded,
            Reject::RouteFull,
            Reject::SubjectFull,
            Reject::Unavailable,
            Reject::Undecided,
        ] {
            let said: Vec<_> = (0..=255).filter_map(|r| reject.retry_after(r)).collect();
            assert_eq!(said.iter().min(), Some(&5), "{reject:?}");
            assert_eq!(said.iter().max(), Some(&15), "{reject:?}");
        }
        for reject in [
            Reject::Address,
            Reject::Token,
            Reject::NoRoute,
            Reject::BadGateway,
        ] {
            assert_eq!(reject.retry_after(7), None, "{reject:?}");
        }
    }

    #[test]
    fn statuses_bring_the_fields_they_demand() {
        assert_eq!(Reject::Method.status(), 405);
        assert_eq!(Reject::Method.fields(), [("allow", "GET")]);
        assert_eq!(Reject::NoUpgrade.status(), 426);
        assert_eq!(Reject::NoUpgrade.fields(), [("upgrade", "websocket")]);
        assert_eq!(
            Reject::Version.fields(),
            [("upgrade", "websocket"), ("sec-websocket-version", "13")]
        );
        assert_eq!(Reject::Token.fields(), [("www-authenticate", "Bearer")]);
        assert_eq!(Reject::Target(TargetFault::TooLong).status(), 414);
        assert_eq!(Reject::NoRoute.fields(), []);
    }

    #[test]
    fn the_text_is_the_same_for_every_malformed_request() {
        let dots = Reject::Target(TargetFault::DotSegment);
        assert_eq!(dots.text(), Reject::Host.text());
        assert_ne!(dots.reason(), Reject::Host.reason());
    }
}
