//! The client's HTTP: one connection, one request head, one answer.
//!
//! Owns the bounds of the request head (time, bytes, fields), the writing of the answer
//! and the closing of a refused connection. What makes a head acceptable is decided by
//! `proto::handshake`; which answer it gets, by the caller. With `upstream/` this is the
//! only place that names hyper, and nothing of hyper outlives the answer: not its
//! buffers, and not the bytes it read too far, which are copied out of them.

mod answer;

use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::http::answer::Answer;
use crate::proto::handshake::reject::Reject;
use crate::proto::handshake::server::{self, Head, Opening, Version};
use crate::proto::handshake::{Field, Fields, Refusal};

/// How much a request head may cost.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// When the head must have arrived completely. It does not limit what comes after.
    pub deadline: Instant,
    /// Bytes of the head, request line included. hyper grows its read buffer by doubling,
    /// so the buffer stays below twice this or twice 8 KiB, whichever is more.
    pub max_head: usize,
    /// Header fields.
    pub max_headers: usize,
}

/// Why a connection did not become a WebSocket. Whatever the client was to hear about it
/// has been said, and the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// The head was read and refused.
    #[error("{}", .0.reason())]
    Rejected(Reject),
    /// The head did not arrive in time; nothing was answered.
    #[error("request head did not arrive in time")]
    HeadTimeout,
    /// The head is larger or has more fields than allowed; answered with 431 or 414.
    #[error("request head is too large")]
    HeadTooLarge,
    /// What arrived is not HTTP/1; answered with 400 where an answer could be understood.
    #[error("request head is malformed")]
    Malformed,
    /// The client went away, or closed its half, before it was answered.
    #[error("client went away before it was answered")]
    PeerGone,
    /// The client did not take the answer in time.
    #[error("client did not take the answer in time")]
    AnswerTimeout,
    /// The connection failed.
    #[error("connection failed")]
    Io(#[source] Box<dyn StdError + Send + Sync>),
}

/// A client's acceptable opening handshake that waits for its answer.
///
/// Dropping it closes the connection without an answer.
pub struct Request<S: AsyncRead + AsyncWrite + Unpin> {
    exchange: Exchange<S>,
    headers: HeaderMap,
    opening: Opening,
}

impl<S: AsyncRead + AsyncWrite + Unpin> fmt::Debug for Request<S> {
    /// Without the fields: cookies and authorization travel in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("opening", &self.opening)
            .finish_non_exhaustive()
    }
}

/// The 101.
#[derive(Debug, Default)]
pub struct Accept {
    /// `Sec-WebSocket-Protocol`: one that the client offered.
    pub subprotocol: Option<String>,
    /// Further fields, such as the upstream's `Set-Cookie`; none that the opening
    /// handshake itself uses.
    pub fields: Vec<Field>,
}

/// A connection that speaks WebSocket from here on.
#[derive(Debug)]
pub struct Opened<S> {
    /// As it was passed in.
    pub stream: S,
    /// Bytes that arrived behind the request head: the first ones of the session. Owned by
    /// nobody else, at most one read buffer.
    pub early: Bytes,
}

/// Reads one request head and checks it (RFC 6455 §4.2.1).
///
/// A head that is refused has been answered, and its connection closed, when this returns.
pub async fn read_request<S>(stream: S, limits: &HeadLimits) -> Result<Request<S>, NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    read_vetted_request(stream, limits, |_| Ok(())).await
}

/// The same, where the fields of every head that can be read are shown to `vet` first: whoever
/// is rejected there hears of that, whatever else is wrong with the head.
pub async fn read_vetted_request<S>(
    stream: S,
    limits: &HeadLimits,
    vet: impl FnOnce(Fields<'_>) -> Result<(), Reject>,
) -> Result<Request<S>, NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (request, exchange) = read_head(stream, limits).await?;
    // The body goes with this: an acceptable request has none, another is refused unread.
    let (head, _) = request.into_parts();
    let vetted = vet(&fields(&head.headers));
    let checked = vetted.and_then(|()| check(&head));
    match checked {
        Ok(opening) => Ok(Request {
            exchange,
            headers: head.headers,
            opening,
        }),
        Err(reject) => {
            drop(head);
            exchange.refuse(answer::rejection(reject)).await;
            Err(NotOpened::Rejected(reject))
        }
    }
}

fn check(head: &Parts) -> Result<Opening, Reject> {
    server::check(&Head {
        method: head.method.as_str(),
        version: match head.version {
            hyper::Version::HTTP_11 => Version::Http11,
            _ => Version::Http10,
        },
        target: &head.uri.to_string(),
        fields: &fields(&head.headers),
    })
}

/// Refuses a connection in clear without reading a request, and closes. Whether the client
/// takes the answer changes nothing.
pub async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reject: Reject) {
    let answer = answer::rejection_bytes(reject);
    // A fresh connection takes so little at once, or it is not worth waiting for.
    if let Ok(Ok(())) = timeout(LINGER_TIMEOUT, stream.write_all(&answer)).await {
        close_gently(stream).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Request<S> {
    /// What the client asked for.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Every header field, grouped by name.
    pub fn fields(&self) -> Vec<(&str, &[u8])> {
        fields(&self.headers)
    }

    /// Resolves when the client goes away unanswered; to be raced against whatever the
    /// answer waits for. The request is of no use afterwards. A client that has already
    /// sent bytes behind its head is not watched. Dropping and calling again loses nothing.
    pub async fn abandoned(&mut self) -> NotOpened {
        match self.exchange.run().await {
            Ok(()) => NotOpened::PeerGone,
            Err(error) => classify(error),
        }
    }

    /// Answers 101 and takes the connection out of HTTP (RFC 6455 §4.2.2).
    pub async fn accept(self, accept: Accept) -> Result<Opened<S>, NotOpened> {
        let response = answer::switching_protocols(&self.opening, accept);
        let exchange = self.exchange;
        // They share the read buffer's memory.
        drop(self.headers);
        let (stream, read_buf) = exchange.deliver(response).await?;
        let early = Bytes::copy_from_slice(&read_buf);
        Ok(Opened { stream, early })
    }

    /// Refuses and closes. Whether the client took the answer changes nothing.
    pub async fn reject(self, reject: Reject) {
        self.exchange.refuse(answer::rejection(reject)).await;
    }

    /// Passes on the upstream's own refusal and closes.
    pub async fn relay(self, refusal: Refusal) {
        self.exchange.refuse(answer::relayed(refusal)).await;
    }
}

type Asked = (hyper::Request<Incoming>, oneshot::Sender<Answer>);

/// hyper's service: hands the request out and lets the connection wait for the answer.
#[derive(Default)]
struct Reception(Rc<Cell<Option<Asked>>>);

impl Service<hyper::Request<Incoming>> for Reception {
    type Response = Answer;
    type Error = oneshot::error::RecvError;
    type Future = oneshot::Receiver<Answer>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        self.0.set(Some((request, answer)));
        answered
    }
}

/// hyper's side of one request: boxed, so that whoever waits with it stays small.
///
/// hyper reports that it is done before it has flushed, when it refuses a head itself or
/// when a refused request had a body. The writer between it and the stream keeps what a
/// slow client has not taken by then.
struct Exchange<S: AsyncRead + AsyncWrite + Unpin> {
    connection: Box<http1::Connection<TokioIo<BufWriter<S>>, Reception>>,
    answer: oneshot::Sender<Answer>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Runs hyper until it has no more to do.
    async fn run(&mut self) -> Result<(), hyper::Error> {
        poll_fn(|cx| self.connection.poll_without_shutdown(cx)).await
    }

    /// Writes the answer and gives the stream back, with what was read behind the head.
    async fn deliver(mut self, response: Answer) -> Result<(S, Bytes), NotOpened> {
        let (spent, _) = oneshot::channel();
        let answer = std::mem::replace(&mut self.answer, spent);
        if answer.send(response).is_err() {
            return Err(NotOpened::PeerGone);
        }
        let write = async {
            self.run().await.map_err(classify)?;
            let parts = self.connection.into_parts();
            let mut writer = parts.io.into_inner();
            let flushed = writer.flush().await;
            flushed.map_err(|error| NotOpened::Io(Box::new(error)))?;
            Ok((writer.into_inner(), parts.read_buf))
        };
        let written = timeout(ANSWER_TIMEOUT, write).await;
        written.unwrap_or(Err(NotOpened::AnswerTimeout))
    }

    async fn refuse(self, response: Answer) {
        // Boxed, since few connections come here; an answer that could not be written
        // leaves nothing to close gently.
        Box::pin(async {
            if let Ok((stream, _)) = self.deliver(response).await {
                close_gently(stream).await;
            }
        })
        .await;
    }
}

/// Runs hyper until it hands out the request.
async fn read_head<S>(
    stream: S,
    limits: &HeadLimits,
) -> Result<(hyper::Request<Incoming>, Exchange<S>), NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let reception = Reception::default();
    let asked = Rc::clone(&reception.0);
    let io = TokioIo::new(BufWriter::with_capacity(WRITE_BUFFER, stream));
    let mut connection = Box::new(builder(limits).serve_connection(io, reception));
    let arrived = poll_fn(|cx| match connection.poll_without_shutdown(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending => asked.take().map_or(Poll::Pending, |a| Poll::Ready(Ok(a))),
    });
    match timeout_at(limits.deadline, arrived).await {
        Ok(Ok((request, answer))) => Ok((request, Exchange { connection, answer })),
        Ok(Err(Ok(()))) => Err(NotOpened::PeerGone),
        Ok(Err(Err(error))) => {
            let why = classify(error);
            if matches!(why, NotOpened::HeadTooLarge | NotOpened::Malformed) {
                Box::pin(close_gently(connection.into_parts().io.into_inner())).await;
            }
            Err(why)
        }
        Err(_) => Err(NotOpened::HeadTimeout),
    }
}

/// hyper drops its timeout silently without a timer. Keep-alive stays on, because hyper
/// would otherwise add `Connection: close` to the 101; every other answer of ours says so
/// itself.
fn builder(limits: &HeadLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.deadline.saturating_duration_since(Instant::now()))
        .max_buf_size(limits.max_head.max(MIN_BUFFER))
        .max_header_size(limits.max_head)
        .max_headers(limits.max_headers);
    builder
}

fn classify(error: hyper::Error) -> NotOpened {
    if error.is_timeout() {
        NotOpened::HeadTimeout
    } else if error.is_parse_too_large() {
        NotOpened::HeadTooLarge
    } else if error.is_parse() {
        NotOpened::Malformed
    } else if error.is_incomplete_message() {
        NotOpened::PeerGone
    } else {
        NotOpened::Io(Box::new(error))
    }
}

fn fields(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

/// Closes so that the answer survives: closing a socket with unread bytes resets it, and
/// a reset makes the client's kernel discard what it has not yet read (RFC 9112 §9.6).
async fn close_gently<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = vec![0; 4096];
        let mut left = LINGER_BYTES;
        loop {
            match stream.read(&mut scratch).await? {
                0 => return Ok(()),
                n if n >= left => return Ok::<(), std::io::Error>(()),
                n => left -= n,
            }
        }
    };
    // However it ends, the stream is dropped next and the answer was already written.
    let _ = timeout(LINGER_TIMEOUT, drain).await;
}

/// Holds every refusal of ours and of hyper's; a larger one, relayed, is flushed by hyper.
const WRITE_BUFFER: usize = 1024;

/// hyper takes no smaller one.
const MIN_BUFFER: usize = 8192;

/// An answer fits the socket's send buffer; only a client that reads nothing over TLS or
/// an exhausted network makes it wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that closes when it has read the answer needs one round trip.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// More than a client pipelines behind an opening by mistake.
const LINGER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
