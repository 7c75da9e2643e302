//! Close codes that are legal on the wire, and the payload of a Close frame
//! (RFC 6455 §5.5.1, §7.4, and the IANA WebSocket Close Code Number Registry).

use crate::proto::cause::Misbehaviour;
use crate::proto::frame::MAX_CONTROL_PAYLOAD;

/// A close code that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// Going away: the session is over for a reason on the other leg, or its lifetime is.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The peer sent a kind of message that is not taken.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// The peer sent text that is not UTF-8, or a message that is not what it must be.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// The peer broke a quota of ours.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A frame or message above its limit.
    pub const TOO_BIG: Self = Self(1009);
    /// Our fault.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The edge restarts: come back at once.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// Try again later: no endpoint, or a reader that does not read.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// The upstream failed (named after HTTP's 502).
    pub const BAD_GATEWAY: Self = Self(1014);
    /// The token is missing or no good (IANA registry: Unauthorized).
    pub const UNAUTHORIZED: Self = Self(3000);
    /// The client is known, and it or its message is not permitted (IANA registry: Forbidden).
    pub const FORBIDDEN: Self = Self(3003);
    /// Something did not come in time (IANA registry: Timeout).
    pub const TIMEOUT: Self = Self(3008);

    /// The code, if it may appear in a Close frame: 1000–1003, 1007–1014, 3000–4999.
    ///
    /// 1004 is reserved, 1005, 1006 and 1015 must never be sent (§7.4.1), 1016–2999 are
    /// not assigned, and 5000 and above are not defined (§7.4.2).
    pub const fn from_wire(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Reads the (unmasked) payload of a Close frame. `Ok(None)`: the peer gave no code.
///
/// # Errors
///
/// A payload of one byte, a code that must not be sent, a reason that is not UTF-8.
pub fn parse(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, Misbehaviour> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(None),
            _ => Err(Misbehaviour::ClosePayloadLength),
        };
    };
    let code = u16::from_be_bytes(*code);
    let code = CloseCode::from_wire(code).ok_or(Misbehaviour::CloseCode(code))?;
    let reason = std::str::from_utf8(reason).map_err(|_| Misbehaviour::CloseReasonNotUtf8)?;
    Ok(Some((code, reason)))
}

/// The payload of a Close frame with `code` and `reason`; the reason is cut to what fits,
/// at a character.
pub fn payload(code: CloseCode, reason: &str) -> Vec<u8> {
    let room = MAX_CONTROL_PAYLOAD - 2;
    let (reason, _) = reason.split_at(reason.floor_char_boundary(room));
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.get().to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_codes_that_may_be_sent_are_accepted() {
        let legal: Vec<u16> = (0..=u16::MAX)
            .filter(|&code| CloseCode::from_wire(code).is_some())
            .collect();
        let expected: Vec<u16> = (1000..=1003)
            .chain(1007..=1014)
            .chain(3000..=4999)
            .collect();
        assert_eq!(legal, expected);
    }

    #[test]
    fn payloads_are_read_or_refused() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03"), Err(Misbehaviour::ClosePayloadLength));
        assert_eq!(
            parse(b"\x03\xe8"),
            Ok(Some((CloseCode::from_wire(1000).unwrap(), "")))
        );
        assert_eq!(
            parse(b"\x0f\xa1bye"),
            Ok(Some((CloseCode::from_wire(4001).unwrap(), "bye")))
        );
        assert_eq!(parse(b"\x03\xed"), Err(Misbehaviour::CloseCode(1005)));
        assert_eq!(
            parse(b"\x03\xe8\xff"),
            Err(Misbehaviour::CloseReasonNotUtf8)
        );
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = "é".repeat(100);
        let bytes = payload(CloseCode::GOING_AWAY, &long);
        assert!(bytes.len() <= MAX_CONTROL_PAYLOAD);
        let (code, reason) = parse(&bytes).unwrap().unwrap();
        assert_eq!((code, reason.len()), (CloseCode::GOING_AWAY, 122));
    }
}
