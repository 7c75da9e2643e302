//! One bounded HTTP/1.1 request of the edge's own, over a connection that it is given.
//!
//! Owns what may come back: bytes and fields of the head, bytes of the body, no redirect and
//! no encoding. Nothing is followed and nothing tried again. It opens no connection and sets
//! no deadline: whoever calls has one for all of it, the connection included. What the answer
//! means is the caller's affair.

use std::error::Error as StdError;
use std::fmt;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::url::WebUrl;
use crate::proto::handshake::Field;

/// What is asked.
pub struct Request<'a> {
    /// Whom; the connection must lead there.
    pub url: &'a WebUrl,
    /// How.
    pub method: Method,
    /// The media types understood, for `Accept`.
    pub accept: &'static str,
    /// Fields besides those that every request has, such as `authorization`.
    pub fields: &'a [Field],
    /// Bytes of the largest body that is read.
    pub max_body: usize,
}

/// The method, and the body where it has one.
pub enum Method {
    /// Without a body.
    Get,
    /// With one.
    Post {
        /// Its media type.
        content_type: &'static str,
        /// The whole of it.
        body: Bytes,
    },
}

/// An answer with its whole body. Its status is never one of 100 to 199 or 300 to 399.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 299, or 400 to 999.
    pub status: u16,
    /// Lower-case names; at most 100.
    pub fields: Vec<Field>,
    /// At most what was allowed.
    pub body: Bytes,
}

/// Why there is no answer. For the log.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The connection ended before the answer did, or the answer is not HTTP/1.1, or its
    /// head is too large.
    #[error("the answer is broken off, malformed, or its head is larger than 16 KiB")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
    /// A status of 300 to 399.
    #[error("it redirects (status {0}), which is not followed: name the address it leads to")]
    Redirected(u16),
    /// A 101, or another status that ends no request.
    #[error("it answers with status {0}, which was not asked for")]
    Unasked(u16),
    /// The body is larger than allowed, or says that it will be.
    #[error("its body is larger than {0} bytes")]
    TooLarge(usize),
    /// The body is compressed.
    #[error("its body has a Content-Encoding, which was not asked for")]
    Encoded,
    /// A part of the request cannot be sent. Nothing was sent.
    #[error("the field {0} has a value that cannot be sent")]
    Unsendable(String),
}

impl Answer {
    /// Whether the status is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The values of every field with this lower-case name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.fields.iter().filter(move |field| field.name == name);
        named.map(|field| field.value.as_slice())
    }
}

impl fmt::Debug for Answer {
    /// Without the body, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("fields", &self.fields)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

/// Sends the request and reads the whole answer. Dropping the future closes the connection.
///
/// # Errors
/// Whatever is not a whole answer within bounds; see [`Failed`].
pub async fn exchange<S>(stream: S, request: Request<'_>) -> Result<Answer, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let max_body = request.max_body;
    let head = request_head(request)?;
    let io = TokioIo::new(stream);
    let (mut sender, connection) = builder().handshake(io).await.map_err(broken)?;
    let answer = async {
        let response = sender.send_request(head).await.map_err(broken)?;
        read_answer(response, max_body).await
    };
    let (mut answer, connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What it has read by then is still to be heard; an error is heard there, too.
        _ = connection => answer.await,
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(MAX_ANSWER_HEAD)
        .max_headers(MAX_ANSWER_FIELDS);
    builder
}

fn request_head(request: Request<'_>) -> Result<hyper::Request<Full<Bytes>>, Failed> {
    let (method, content_type, body) = match request.method {
        Method::Get => (hyper::Method::GET, None, Bytes::new()),
        Method::Post { content_type, body } => (hyper::Method::POST, Some(content_type), body),
    };
    let target: Uri = request
        .url
        .path_and_query()
        .parse()
        .map_err(|_| Failed::Unsendable("target".to_owned()))?;
    let mut head = hyper::Request::new(Full::new(body));
    *head.method_mut() = method;
    *head.uri_mut() = target;
    let headers = head.headers_mut();
    append(headers, "host", request.url.authority().as_bytes())?;
    append(headers, "user-agent", USER_AGENT.as_bytes())?;
    append(headers, "accept", request.accept.as_bytes())?;
    append(headers, "accept-encoding", b"identity")?;
    append(headers, "connection", b"close")?;
    if let Some(content_type) = content_type {
        append(headers, "content-type", content_type.as_bytes())?;
    }
    for field in request.fields {
        append(headers, &field.name, &field.value)?;
    }
    Ok(head)
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), Failed> {
    let unsendable = || Failed::Unsendable(name.to_owned());
    let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable())?;
    let mut value = HeaderValue::from_bytes(value).map_err(|_| unsendable())?;
    value.set_sensitive(true);
    headers.append(field, value);
    Ok(())
}

async fn read_answer(response: Response<Incoming>, max_body: usize) -> Result<Answer, Failed> {
    let (head, mut incoming) = response.into_parts();
    let status = head.status.as_u16();
    match status {
        300..400 => return Err(Failed::Redirected(status)),
        0..200 => return Err(Failed::Unasked(status)),
        _ => {}
    }
    let is_identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let mut encodings = head.headers.get_all(CONTENT_ENCODING).iter();
    if !encodings.all(is_identity) {
        return Err(Failed::Encoded);
    }
    let too_large = |bytes: u64| usize::try_from(bytes).map_or(true, |bytes| bytes > max_body);
    if too_large(incoming.size_hint().lower()) {
        return Err(Failed::TooLarge(max_body));
    }
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        // What is no data is trailers, and nobody asked for them.
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            if data.len() > max_body - body.len() {
                return Err(Failed::TooLarge(max_body));
            }
            body.extend_from_slice(&data);
        }
    }
    let field = |(name, value): (&HeaderName, &HeaderValue)| Field {
        name: name.as_str().to_owned(),
        value: value.as_bytes().to_vec(),
    };
    Ok(Answer {
        status,
        fields: head.headers.iter().map(field).collect(),
        body: body.into(),
    })
}

fn broken(error: hyper::Error) -> Failed {
    Failed::Broken(Box::new(error))
}

/// Bytes of an answer's head. hyper's client grows its buffer by doubling and stops only when
/// it is full, so the true bound is below twice this.
const MAX_ANSWER_HEAD: usize = 16 * 1024;

/// hyper's own default, written down.
const MAX_ANSWER_FIELDS: usize = 100;

/// Some services refuse requests without one.
const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
