//! Why a token was refused: for the log, never for the client.
//!
//! No variant holds anything the client sent. The names in them are ours or the operator's.

use thiserror::Error;

/// Why a client was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenRefused {
    /// The request has no token in any place where the route reads one.
    #[error("the request has no token")]
    Missing,
    /// Two tokens in one place, so that readers may disagree on which counts.
    #[error("the request has more than one token in the same place")]
    Repeated,
    /// The message, or the place in it or in the request, is empty.
    #[error("the token is empty")]
    Empty,
    /// The message is not of the type that carries the token.
    #[error("the message is not of the type that carries the token")]
    MessageType,
    /// The token was to be in a JSON document, and the message is none.
    #[error("the message is not JSON")]
    NotJson,
    /// The JSON document lacks the field.
    #[error("the message has no token field")]
    FieldMissing,
    /// A member on the way to the token occurs twice, so that readers may disagree on it.
    #[error("the message names the token field more than once")]
    FieldRepeated,
    /// The field holds something else than a string.
    #[error("the token field is not a string")]
    FieldNotString,
    /// More than [`MAX_TOKEN`](crate::auth::jwt::MAX_TOKEN) bytes.
    #[error("the token is too long")]
    TooLong,
    /// Not three non-empty parts in base64url without padding (RFC 7515 §7.1).
    #[error("the token is not a compact JWS")]
    Malformed,
    /// The JOSE header is not an object, or a member in it has the wrong type.
    #[error("the token's header is malformed")]
    HeaderMalformed,
    /// A member of the JOSE header or of the claims occurs twice (RFC 7515 §4, RFC 7519 §4).
    #[error("the token repeats a member")]
    Duplicate,
    /// A header member that changes how the token would have to be read (RFC 8725 §3.10).
    #[error("the token's header has `{0}`, which is not supported")]
    HeaderMember(&'static str),
    /// `alg` is not one of those configured.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// The content is itself a token (RFC 7519 §5.2).
    #[error("nested tokens are not supported")]
    Nested,
    /// The issuer's keys were never read, or are too old to be used.
    #[error("the issuer's keys are not available")]
    KeysUnavailable,
    /// The token's key is not in the issuer's set, and a newer one did not come in time.
    #[error("the token's key is not in the issuer's set, and a newer set did not come in time")]
    KeysLate,
    /// The issuer's set has no key named by `kid`, or none for the algorithm.
    #[error("the token's key is not in the issuer's set")]
    KeyUnknown,
    /// The key named by `kid` is for another algorithm than `alg`.
    #[error("the token's key is for another algorithm")]
    KeyAlgorithm,
    /// The token has no `kid`, and the issuer's set several keys for its algorithm.
    #[error("the token names no key, and several of the issuer's would fit")]
    KeyAmbiguous,
    /// Someone else signed it, or it was changed.
    #[error("the token's signature does not verify")]
    Signature,
    /// The signed content is not a JSON object.
    #[error("the token's claims are malformed")]
    ClaimsMalformed,
    /// A required claim is absent.
    #[error("the token has no claim `{0}`")]
    ClaimMissing(&'static str),
    /// A registered claim has the wrong type or an impossible value (RFC 7519 §4.1).
    #[error("the token's claim `{0}` is malformed")]
    ClaimInvalid(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` is still to come: the issuer's clock and ours disagree.
    #[error("the token was issued in the future")]
    IssuedInFuture,
    /// `iss` is another issuer.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` names none of ours.
    #[error("the token is for another audience")]
    Audience,
    /// A token that renews a session's names another subject or issuer, or no subject.
    #[error("the new token is not of the session's subject and issuer")]
    OtherIdentity,
    /// Our own clock stands before 1970, so that no time can be judged.
    #[error("the system clock is wrong")]
    Clock,
    /// A claim mapped to a header cannot be one.
    #[error("the claim `{claim}` cannot be sent as a header")]
    NotSendable {
        /// The claim as the configuration names it.
        claim: String,
        /// Why not.
        #[source]
        fault: HeaderFault,
    },
}

impl TokenRefused {
    /// Whether it says nothing against the token: nobody could judge it.
    pub fn is_unjudged(&self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::KeysLate)
    }
}

/// Why a claim cannot be the value of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderFault {
    /// An object, or an array within an array.
    #[error("nested value")]
    Nested,
    /// A control or non-ASCII character, or a space at either end.
    #[error("a character that headers do not carry unchanged")]
    Character,
    /// A comma inside an element of an array, where it would look like two.
    #[error("comma inside an array element")]
    Comma,
    /// A number beyond what is read exactly.
    #[error("a number that is not exact")]
    Inexact,
    /// More than [`MAX_TEXT`](crate::auth::claims::header::MAX_TEXT) bytes, as JSON
    /// [`MAX_JSON`](crate::auth::claims::header::MAX_JSON).
    #[error("too long")]
    TooLong,
}
