//! The admin address: one bounded HTTP request a connection, for operators and their probes.
//!
//! Owns who may ask and in which form: the paths and methods there are, the bearer token, the
//! bounds in bytes and time, and that no web page can make a browser ask. What is answered is
//! the caller's affair, and so is the socket.

mod token;

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    ORIGIN, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

pub use self::token::Token;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `GET /healthz`: does the process run?
    Health,
    /// `GET /readyz`: should it be sent clients?
    Readiness,
    /// `POST /revoke`, with its body.
    Revoke(Bytes),
    /// `POST /drain`, or `POST /drain?route=…` for the sessions of one route.
    Drain(Option<String>),
    /// `POST /upgrade`: another process is to take this one's place.
    Upgrade,
    /// `GET /upgrade`: how that stands.
    Upgraded,
    /// `GET /.well-known/jwks.json`.
    Keys,
    /// `POST /reload`, with its query.
    Reload(Option<String>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A line of text.
    pub fn text(status: u16, line: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{line}\n"),
        }
    }

    /// JSON.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: format!("{value}\n"),
        }
    }

    /// `{"error": …}`.
    pub fn error(status: u16, what: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": what }))
    }
}

/// Who may ask.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What a request that changes something must bring; `None`: nothing, which the
    /// configuration allows on a loopback address only.
    pub token: Option<Arc<Token>>,
    /// Whether the address is this machine's own, so that a browser on it could be led there
    /// under another name (DNS rebinding).
    pub is_loopback: bool,
}

/// Answers at `listener`, which does not block, until it is dropped.
///
/// `guard` says at each request who may make it; `answer` is called on this thread, once for
/// each that may be made.
pub async fn serve(
    listener: StdListener,
    guard: impl Fn() -> Guard + 'static,
    answer: impl AsyncFn(Asked) -> Answer + 'static,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin address cannot be served");
            return;
        }
    };
    let service = Rc::new(Service { guard, answer });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Beyond that many the kernel lets them wait; each place is free again in a bounded time.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let service = Rc::clone(&service);
                tokio::task::spawn_local(async move {
                    service.attend(tcp).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed at the admin address");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The guard and the one who answers behind it.
struct Service<G, F> {
    guard: G,
    answer: F,
}

/// A request that is not passed on.
struct Refused {
    answer: Answer,
    field: Option<(HeaderName, HeaderValue)>,
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            field: None,
        }
    }
}

impl<G, F> Service<G, F>
where
    G: Fn() -> Guard + 'static,
    F: AsyncFn(Asked) -> Answer + 'static,
{
    /// One request, and its answer.
    async fn attend(self: Rc<Self>, tcp: TcpStream) {
        let service = service_fn(move |request| {
            let this = Rc::clone(&self);
            async move { Ok::<_, Infallible>(this.hear(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .keep_alive(false)
            .serve_connection(TokioIo::new(tcp), service);
        // Whoever broke off, or was too slow, asked for nothing and changed nothing.
        let _ = timeout(EXCHANGE_TIMEOUT, connection).await;
    }

    async fn hear(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        // Read in any case: a connection closed on unread bytes takes the answer with it.
        let body = read(body).await;
        let asked = self.judge(&head, body);
        match asked {
            Ok(asked) => respond((self.answer)(asked).await, None),
            Err(Refused { answer, field }) => respond(answer, field),
        }
    }

    fn judge(
        &self,
        head: &hyper::http::request::Parts,
        body: Result<Bytes, BodyFault>,
    ) -> Result<Asked, Refused> {
        let guard = (self.guard)();
        check_host(&guard, head)?;
        let (allowed, asked) = match head.uri.path() {
            "/healthz" => ("GET, HEAD", Asked::Health),
            "/readyz" => ("GET, HEAD", Asked::Readiness),
            "/.well-known/jwks.json" => ("GET, HEAD", Asked::Keys),
            "/revoke" => ("POST", Asked::Revoke(Bytes::new())),
            "/drain" => ("POST", Asked::Drain(None)),
            "/reload" => ("POST", Asked::Reload(head.uri.query().map(str::to_owned))),
            "/upgrade" if head.method == Method::POST => ("POST", Asked::Upgrade),
            "/upgrade" => ("GET, HEAD, POST", Asked::Upgraded),
            _ => return Err(Answer::error(404, PATHS).into()),
        };
        if !allowed.split(", ").any(|method| head.method == method) {
            let what = format!("only {allowed} here");
            return Err(Refused {
                answer: Answer::error(405, &what),
                field: Some((ALLOW, HeaderValue::from_static(allowed))),
            });
        }
        if head.method != Method::POST {
            return Ok(asked);
        }
        check_token(&guard, &head.headers)?;
        let body = match body {
            Ok(body) => Ok(body),
            Err(BodyFault::TooLarge) => {
                let what = format!("the body is larger than {MAX_BODY} bytes");
                Err(Answer::error(413, &what))
            }
            Err(BodyFault::Broken) => Err(Answer::error(400, "the body is broken off")),
        };
        match asked {
            Asked::Revoke(_) => {
                check_json(&head.headers)?;
                Ok(Asked::Revoke(body?))
            }
            Asked::Drain(_) => {
                check_no_form(&head.headers)?;
                Ok(Asked::Drain(route_of(head.uri.query())?))
            }
            Asked::Reload(query) => {
                check_no_form(&head.headers)?;
                Ok(Asked::Reload(query))
            }
            asked => {
                check_no_form(&head.headers)?;
                Ok(asked)
            }
        }
    }
}

/// No page of another site may have its visitor's browser ask: neither openly (`Origin`)
/// nor by giving its own name this machine's address.
fn check_host(guard: &Guard, head: &hyper::http::request::Parts) -> Result<(), Refused> {
    if head.headers.contains_key(ORIGIN) {
        return Err(Answer::error(403, "not for web pages: the request has an Origin").into());
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next(), head.uri.authority()) {
        (Some(host), None, None) => host.to_str().unwrap_or_default(),
        _ => return Err(Answer::error(400, "exactly one Host, and a path").into()),
    };
    if guard.is_loopback && !is_this_machine(host) {
        let what = "the Host must be localhost or an IP address";
        return Err(Answer::error(403, what).into());
    }
    Ok(())
}

fn check_token(guard: &Guard, headers: &HeaderMap) -> Result<(), Refused> {
    let Some(token) = &guard.token else {
        return Ok(());
    };
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    if let (Some(field), None) = (fields.next(), fields.next())
        && token.is_in(field.as_bytes())
    {
        return Ok(());
    }
    Err(Refused {
        answer: Answer::error(401, "the admin token is missing or wrong"),
        field: Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
    })
}

/// A name that no one else can give an address to, or an address (RFC 6761 §6.3).
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let inner = name.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    let is_address = match inner {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => matches!(name.parse(), Ok(IpAddr::V4(_))),
    };
    is_address || name.eq_ignore_ascii_case("localhost")
}

/// A form on a web page can send other types without asking first.
fn check_json(headers: &HeaderMap) -> Result<(), Refused> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (Some(value), None) => {
            let essence = value.to_str().unwrap_or_default().split(';').next();
            essence.is_some_and(|e| e.trim().eq_ignore_ascii_case("application/json"))
        }
        _ => false,
    };
    match is_json {
        true => Ok(()),
        false => Err(Answer::error(415, "Content-Type must be application/json").into()),
    }
}

/// Where no body is needed a request need not say what is in it, but no form can leave it out.
fn check_no_form(headers: &HeaderMap) -> Result<(), Refused> {
    match headers.contains_key(CONTENT_TYPE) {
        true => Ok(check_json(headers)?),
        false => Ok(()),
    }
}

/// `route=NAME`, alone, without escapes: names of routes need none.
fn route_of(query: Option<&str>) -> Result<Option<String>, Answer> {
    match query.map(|query| query.strip_prefix("route=")) {
        None => Ok(None),
        Some(Some(name)) if !name.is_empty() && !name.contains(['&', '%']) => {
            Ok(Some(name.to_owned()))
        }
        Some(_) => Err(Answer::error(400, "only ?route=NAME here")),
    }
}

enum BodyFault {
    TooLarge,
    Broken,
}

/// Reads a body to its end, or far enough to be heard when it is refused.
async fn read(mut body: Incoming) -> Result<Bytes, BodyFault> {
    let (mut kept, mut seen) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(BodyFault::Broken);
        };
        let data = frame.into_data().unwrap_or_default();
        seen = seen.saturating_add(data.len());
        if seen > MAX_DISCARDED {
            break;
        }
        if seen <= MAX_BODY {
            kept.extend_from_slice(&data);
        }
    }
    match seen {
        0..=MAX_BODY => Ok(kept.into()),
        _ => Err(BodyFault::TooLarge),
    }
}

fn respond(answer: Answer, field: Option<(HeaderName, HeaderValue)>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(field);
    response
}

/// What a wrong path hears.
const PATHS: &str = "no such path; there are /healthz, /readyz, /revoke, /reload, /drain, \
                     /upgrade and /.well-known/jwks.json";

/// At once: probes and operators are few, and the memory of each is bounded.
const MAX_CONNECTIONS: usize = 64;

/// Bytes of the request head; hyper takes no smaller buffer.
const MAX_HEAD: usize = 8 * 1024;

/// Fields of it.
const MAX_HEADERS: usize = 32;

/// Bytes of the body: the longest revocation is a tenth of it.
const MAX_BODY: usize = 64 * 1024;

/// Bytes of a body that are read and thrown away, so that a refusal is heard.
const MAX_DISCARDED: usize = 1024 * 1024;

/// For the request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// From the accept to the end of the answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// After an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
