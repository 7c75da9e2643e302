//! What `[route.auth]` amounts to: where tokens travel, and what makes one good.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Line;
use crate::config::url::WebUrl;

/// `[route.auth]`.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Anyone whose origin passes.
    None,
    /// Whoever brings a good token.
    Token(TokenAuth),
}

/// `[route.auth]` of a route that asks for a token.
#[derive(Clone, Debug)]
pub struct TokenAuth {
    /// The first of these in which a request has a token decides. At least one; the first
    /// message is the last.
    pub places: Vec<TokenPlace>,
    /// Whether the upstream gets the header or the cookie that decided.
    pub forward_token: bool,
    /// What makes a token good: at least one; of several each has an issuer of its own.
    pub jwt: Vec<Jwt>,
}

/// Where a token travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// `Authorization: Bearer`.
    Header,
    /// The cookie of this name.
    Cookie(String),
    /// The subprotocol that begins with this.
    Subprotocol(String),
    /// The query parameter of this name.
    Query(String),
    /// The first message; sizes and times are in [`Policy::first_message`](crate::proto::policy::Policy::first_message).
    FirstMessage(MessageShape),
}

/// What a first message must look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageShape {
    /// JSON pointer to the token; `None`: the whole message is the token.
    pub token_field: Option<String>,
    /// What its member `type` must be; `None`: anything, or absent.
    pub message_type: Option<&'static str>,
}

impl TokenAuth {
    /// How a first message carries the token, where it does.
    pub fn first_message(&self) -> Option<&MessageShape> {
        self.places.iter().find_map(|place| match place {
            TokenPlace::FirstMessage(shape) => Some(shape),
            _ => None,
        })
    }
}

/// `[route.auth.jwt]`, or one of `[[route.auth.jwt]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// Where it stands, as the path of a key: `route.chat.auth.jwt`, `route.chat.auth.jwt.#2`.
    pub place: String,
    /// Exactly what is accepted; at least one. All fit for the one key, or each for some of
    /// the set: then none of them is symmetric.
    pub algorithms: Vec<Algorithm>,
    /// What verifies.
    pub keys: Keys,
    /// The `iss` a token must have; `None`: written `"off"`.
    pub issuer: Option<String>,
    /// The `aud` values of which a token must have one; empty: written `"off"`.
    pub audience: Vec<String>,
    /// Clock difference forgiven in `exp` and `nbf`.
    pub leeway: Duration,
    /// Where `key` or `jwks` stands.
    pub line: Line,
}

/// What verifies the tokens of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// `key`: one, read at start.
    One(KeySource),
    /// `jwks`: the issuer's set, read again while the program runs.
    Set(Jwks),
}

/// `jwks`: a set of public keys (RFC 7517 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    /// Where the set is.
    pub source: JwksSource,
    /// How often it is read without being asked for.
    pub refresh: Duration,
    /// The least time between two readings, whatever tokens ask for.
    pub refetch_interval: Duration,
    /// The longest that one reading takes.
    pub timeout: Duration,
    /// The longest that the last good set is used while the source fails; `None`: for ever.
    pub max_age: Option<Duration>,
}

/// Where a set of keys is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// A file.
    File(PathBuf),
    /// A web service.
    Url {
        /// Its address.
        url: WebUrl,
        /// PEM file with the roots that its certificate must lead to; `None`: the system's.
        ca: Option<PathBuf>,
    },
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url { url, .. } => url.fmt(f),
        }
    }
}

/// A JWS algorithm (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Where a secret comes from: never from the file itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An environment variable.
    Env(String),
    /// A file: raw bytes for HMAC (one trailing line end is removed), PEM otherwise.
    File(PathBuf),
}
