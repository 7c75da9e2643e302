//! One upstream of a worker: chooses an endpoint, connects, and performs the client's side
//! of the opening handshake (RFC 6455 §4.1).
//!
//! Owns the order of endpoints, the deadlines of a dial and what an upstream is told about
//! its client. Whether an answer is right, and which fields travel, is decided by
//! `proto::handshake`. Nothing of hyper outlives a dial.

mod opening;
mod pace;

use std::cell::Cell;
use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{self, Endpoint};
use crate::proto::handshake::client::WrongAnswer;
use crate::proto::handshake::reject::Reject;
use crate::proto::handshake::{Field, Refusal};
use crate::socket;
pub use crate::upstream::pace::Pace;

/// An upstream as one worker uses it. Endpoints take turns, counted per worker.
#[derive(Debug)]
pub struct Upstream {
    config: Arc<config::Upstream>,
    next: Cell<usize>,
    pace: Pace,
}

/// How the client reached the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

/// What the upstream is told about its client. Without `Debug`, because tokens travel in
/// queries, subprotocols and fields.
#[derive(Clone)]
pub struct DialRequest {
    /// The client's target, which passes unless the endpoint has a path of its own.
    pub path_and_query: String,
    /// The client's `Host` as sent, for `X-Forwarded-Host`. The upstream's own `Host` is
    /// the endpoint's authority.
    pub host: String,
    /// The client's `Origin`, already admitted.
    pub origin: Option<String>,
    /// For `X-Forwarded-For`, whose only entry it is: the edge believes no earlier one.
    pub client_ip: IpAddr,
    /// For `X-Forwarded-Proto`.
    pub scheme: Scheme,
    /// For `X-Request-Id`.
    pub request_id: String,
    /// What the upstream may choose from, in order of preference.
    pub subprotocols: Vec<String>,
    /// The client's fields that `forward::request_fields` let through.
    pub passed: Vec<Field>,
    /// Fields filled from claims.
    pub mapped: Vec<Field>,
    /// The nonce: random, and never the client's.
    pub key: [u8; 16],
}

/// A connection to an upstream that speaks WebSocket from here on.
#[derive(Debug)]
pub struct Connected {
    /// Without Nagle's delay.
    pub stream: TcpStream,
    /// Bytes that arrived behind the 101: the upstream's first frames. Owned by nobody
    /// else, below 32 KiB.
    pub early: Bytes,
    /// The one the upstream chose of those offered.
    pub subprotocol: Option<String>,
    /// For the client's 101, when it is still to be sent.
    pub set_cookies: Vec<Field>,
    /// Authority of the endpoint, for the log.
    pub endpoint: String,
}

/// Why a dial failed. `Display` and its sources are for the log.
#[derive(Debug, thiserror::Error)]
pub enum DialFailed {
    /// No endpoint could be connected to, or its name not be resolved; what happened to
    /// the last one tried.
    #[error("no endpoint could be reached")]
    Unreachable(#[source] io::Error),
    /// The upstream was too slow.
    #[error("{0}")]
    TimedOut(Step),
    /// The upstream refused in HTTP, with a status of 300 to 599.
    #[error("upstream refused with status {}", .0.status)]
    Refused(Refusal),
    /// The upstream answered, but not as RFC 6455 demands; also with a 2xx, because
    /// relaying one would open the upstream's ordinary pages to whoever asks for them
    /// with `Upgrade`.
    #[error("upstream answered wrongly")]
    WrongAnswer(#[source] WrongAnswer),
    /// The connection ended before the answer did, or the answer is not HTTP/1, or its
    /// head is too large.
    #[error("upstream broke off the opening handshake")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
    /// A part of the request head cannot be sent, such as a claim with a line break.
    /// Nothing was sent.
    #[error("{0} has a value that cannot be sent")]
    Unsendable(String),
}

/// A step of a dial, with its own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Step {
    /// Resolving a name and connecting, of the last endpoint tried.
    #[error("no connection to the endpoint in time")]
    Connect,
    /// From the connection to the end of the answer's head.
    #[error("no answer from the upstream in time")]
    Answer,
}

impl DialFailed {
    /// What a client hears that waits for its answer in HTTP. A refusal of the upstream's
    /// own is better relayed than replaced by this.
    pub fn reject(&self) -> Reject {
        match self {
            Self::Unreachable(_) => Reject::Unavailable,
            Self::TimedOut(_) => Reject::GatewayTimeout,
            Self::Refused(_) | Self::WrongAnswer(_) | Self::Broken(_) => Reject::BadGateway,
            Self::Unsendable(_) => Reject::Unsendable,
        }
    }
}

impl Upstream {
    /// Begins with the first endpoint. All workers have the same pace.
    pub fn new(config: Arc<config::Upstream>, pace: Pace) -> Self {
        let next = Cell::new(0);
        Self { config, next, pace }
    }

    /// As the configuration calls it.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// When a session that is held until then may dial; see [`Pace::turn`].
    pub fn turn(&self, now: Instant, until: Instant) -> Option<Instant> {
        self.pace.turn(now, until)
    }

    /// Whether it is what this configuration describes.
    pub fn is_of(&self, config: &config::Upstream) -> bool {
        *self.config == *config
    }

    /// Connects to the endpoint whose turn it is and opens a WebSocket on it.
    ///
    /// When the connection itself fails, one other endpoint is tried. Once a request was
    /// sent, nothing is tried again: the upstream may have acted on it. Takes at most
    /// twice the dial timeout and once the timeout of the opening handshake. The future
    /// is small, and dropping it closes the connection.
    pub async fn dial(&self, request: &DialRequest) -> Result<Connected, DialFailed> {
        Box::pin(self.open(request, None)).await
    }

    /// The same, beginning with another endpoint than that of this authority, if there is one.
    pub async fn dial_but(
        &self,
        request: &DialRequest,
        authority: Option<&str>,
    ) -> Result<Connected, DialFailed> {
        Box::pin(self.open(request, authority)).await
    }

    async fn open(
        &self,
        request: &DialRequest,
        but: Option<&str>,
    ) -> Result<Connected, DialFailed> {
        let (endpoint, stream) = self.connect(but).await?;
        opening::open(stream, endpoint, request, self.config.handshake_timeout).await
    }

    async fn connect(&self, but: Option<&str>) -> Result<(&Endpoint, TcpStream), DialFailed> {
        let endpoints = &self.config.endpoints;
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let first = turn.checked_rem(endpoints.len()).unwrap_or(0);
        let in_turn = endpoints.iter().cycle().skip(first);
        let is_lost = |endpoint: &&Endpoint| Some(endpoint.authority.as_str()) == but;
        let lost = in_turn.clone().take(endpoints.len()).take_while(is_lost);
        let tried = in_turn.clone().skip(lost.count());
        let mut failed = DialFailed::Unreachable(io::ErrorKind::NotFound.into());
        for endpoint in tried.take(endpoints.len().min(MAX_ATTEMPTS)) {
            match connect(endpoint, &self.config).await {
                Ok(stream) => return Ok((endpoint, stream)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// Tries each address of the endpoint in turn, all within the one timeout.
async fn connect(endpoint: &Endpoint, config: &config::Upstream) -> Result<TcpStream, DialFailed> {
    let connect = async {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        socket::set_patience(&stream, &config.tcp)?;
        Ok(stream)
    };
    match timeout(config.dial_timeout, connect).await {
        Ok(connected) => connected.map_err(DialFailed::Unreachable),
        Err(_) => Err(DialFailed::TimedOut(Step::Connect)),
    }
}

/// The first, and one retry: enough for one endpoint that restarts, and no storm on those
/// that are left when many do.
const MAX_ATTEMPTS: usize = 2;

#[cfg(test)]
mod tests;
