//! The opening handshake on a fresh connection to an endpoint, spoken through hyper.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config::Endpoint;
use crate::proto::handshake::client::{ClientKey, check_answer, request_fields};
use crate::proto::handshake::{Refusal, forward};
use crate::upstream::{Connected, DialFailed, DialRequest, Scheme, Step};

/// Sends the request and judges the answer, all of it within `within`.
pub(super) async fn open(
    stream: TcpStream,
    endpoint: &Endpoint,
    request: &DialRequest,
    within: Duration,
) -> Result<Connected, DialFailed> {
    let deadline = Instant::now() + within;
    let key = ClientKey::new(request.key);
    let head = request_head(endpoint, request, &key)?;
    let exchange = async {
        let (mut sender, hyper) = builder().handshake(TokioIo::new(stream)).await?;
        let mut connection = Connection {
            hyper,
            ended: false,
        };
        let response = connection.while_driven(sender.send_request(head)).await?;
        Ok::<_, hyper::Error>((connection, response))
    };
    let (connection, response) = match timeout_at(deadline, exchange).await {
        Ok(exchanged) => exchanged.map_err(|error| DialFailed::Broken(error.into()))?,
        Err(_) => return Err(DialFailed::TimedOut(Step::Answer)),
    };
    let status = response.status().as_u16();
    if (300..600).contains(&status) {
        let refusal = refusal(connection, response, deadline).await;
        return Err(DialFailed::Refused(refusal));
    }
    let fields = fields(response.headers());
    let agreed = check_answer(status, &fields, &key, &request.subprotocols)
        .map_err(DialFailed::WrongAnswer)?;
    let set_cookies = forward::set_cookies(&fields);
    let (stream, early) = connection.into_stream(deadline).await?;
    Ok(Connected {
        stream,
        early,
        subprotocol: agreed.subprotocol,
        set_cookies,
        endpoint: endpoint.authority.clone(),
    })
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(MAX_ANSWER_HEAD)
        .max_headers(MAX_ANSWER_FIELDS);
    builder
}

/// The request head (RFC 6455 §4.1): the edge's own fields, then those from claims, then
/// what passes of the client's.
fn request_head(
    endpoint: &Endpoint,
    request: &DialRequest,
    key: &ClientKey,
) -> Result<Request<Empty<Bytes>>, DialFailed> {
    let target = target(endpoint, &request.path_and_query);
    let uri: Uri = target
        .parse()
        .map_err(|_| DialFailed::Unsendable("target".into()))?;
    let mut head = Request::new(Empty::new());
    *head.uri_mut() = uri;
    let headers = head.headers_mut();
    append(headers, "host", endpoint.authority.as_bytes())?;
    for (name, value) in request_fields(key, &request.subprotocols) {
        append(headers, name, value.as_bytes())?;
    }
    if let Some(origin) = &request.origin {
        append(headers, "origin", origin.as_bytes())?;
    }
    let client_ip = request.client_ip.to_canonical().to_string();
    append(headers, "x-forwarded-for", client_ip.as_bytes())?;
    let proto: &[u8] = match request.scheme {
        Scheme::Http => b"http",
        Scheme::Https => b"https",
    };
    append(headers, "x-forwarded-proto", proto)?;
    append(headers, "x-forwarded-host", request.host.as_bytes())?;
    append(headers, "x-request-id", request.request_id.as_bytes())?;
    for field in request.mapped.iter().chain(&request.passed) {
        append(headers, &field.name, &field.value)?;
    }
    Ok(head)
}

/// The endpoint's own path replaces the client's; the client's query is kept either way.
fn target(endpoint: &Endpoint, client: &str) -> String {
    let Some(own) = &endpoint.path_and_query else {
        return client.to_owned();
    };
    match client.split_once('?') {
        Some((_, query)) if own.contains('?') => format!("{own}&{query}"),
        Some((_, query)) => format!("{own}?{query}"),
        None => own.clone(),
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), DialFailed> {
    let unsendable = || DialFailed::Unsendable(name.to_owned());
    let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable())?;
    let value = HeaderValue::from_bytes(value).map_err(|_| unsendable())?;
    headers.append(field, value);
    Ok(())
}

fn fields(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect()
}

/// What can be relayed of a refusal. A body that is too large, breaks off or comes too
/// late is left out whole, with the fields that describe it: half a body under a
/// `Content-Encoding` is no body.
async fn refusal(
    mut connection: Connection,
    response: Response<Incoming>,
    deadline: Instant,
) -> Refusal {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_REFUSAL_BODY).collect();
    let body = timeout_at(deadline, connection.while_driven(body)).await;
    let mut fields = forward::response_fields(&fields(&head.headers));
    let body = match body {
        // Copied, because a short body is a slice of hyper's read buffer.
        Ok(Ok(body)) => Bytes::copy_from_slice(&body.to_bytes()),
        Ok(Err(_)) | Err(_) => {
            fields.retain(|field| !field.name.starts_with("content-"));
            Bytes::new()
        }
    };
    Refusal {
        status: head.status.as_u16(),
        fields,
        body,
    }
}

/// hyper's side of the connection. What is awaited over it, it must be driven for, and
/// once it has ended it must not be driven again.
struct Connection {
    hyper: http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>,
    ended: bool,
}

impl Connection {
    /// Awaits something that comes over this connection. An error of the connection is
    /// heard from what was awaited.
    async fn while_driven<F: Future>(&mut self, awaited: F) -> F::Output {
        let mut awaited = pin!(awaited);
        if !self.ended {
            tokio::select! {
                biased;
                output = &mut awaited => return output,
                _ = self.drive() => {}
            }
        }
        awaited.await
    }

    /// Takes the connection out of HTTP, with what was read behind the 101.
    async fn into_stream(mut self, deadline: Instant) -> Result<(TcpStream, Bytes), DialFailed> {
        if !self.ended {
            match timeout_at(deadline, self.drive()).await {
                Ok(ended) => ended.map_err(|error| DialFailed::Broken(error.into()))?,
                Err(_) => return Err(DialFailed::TimedOut(Step::Answer)),
            }
        }
        let parts = self.hyper.into_parts();
        let early = Bytes::copy_from_slice(&parts.read_buf);
        Ok((parts.io.into_inner(), early))
    }

    async fn drive(&mut self) -> Result<(), hyper::Error> {
        let ended = poll_fn(|cx| self.hyper.poll_without_shutdown(cx)).await;
        self.ended = true;
        ended
    }
}

/// Bytes of an answer's head, many cookies included. hyper's client grows its buffer by
/// doubling and stops only when it is full, so the true bound is below twice this.
const MAX_ANSWER_HEAD: usize = 16 * 1024;

/// hyper's own default, written down.
const MAX_ANSWER_FIELDS: usize = 100;

/// A refusal is read by a person or a small parser.
const MAX_REFUSAL_BODY: usize = 64 * 1024;
