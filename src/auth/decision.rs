//! The last word on an admission, when a service of the operator's has it: what it is asked,
//! and what its answer means.
//!
//! Knows nothing of how the question travels. The answer's status decides alone; whatever is
//! not plainly a yes is a no.

pub mod cache;

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::auth::Admission;
use crate::auth::claims::Claims;
use crate::proto::handshake::Field;

/// Bytes of the values that one answer may add for the upstream, all together.
pub const MAX_ADDED: usize = 4096;

/// What is known of a client when the service is asked about it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Name of the route.
    pub route: &'a str,
    /// The one that the upstream and the log hear of.
    pub request_id: &'a str,
    /// Where the client is.
    pub client_ip: IpAddr,
    /// The client's `Host`.
    pub host: &'a str,
    /// The client's target, without what may be a token.
    pub path_and_query: &'a str,
    /// The client's `Origin`, already admitted.
    pub origin: Option<&'a str>,
    /// What its token grants; without claims where none was asked for.
    pub admission: &'a Admission,
    /// The client's fields that the service is to see.
    pub headers: &'a [Field],
}

/// A question as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// JSON.
    pub body: Vec<u8>,
    /// A SHA-256 that is the same for equal questions only. The request's id makes none
    /// unequal; everything else that the service sees does.
    pub fingerprint: Vec<u8>,
}

/// What the service decided.
#[derive(Clone, PartialEq, Eq)]
pub enum Decision {
    /// The client comes in, and the upstream gets these fields.
    Admit(Vec<Field>),
    /// It does not; the status that says so.
    Refuse(u16),
}

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// A header that the service is to see is not text.
    #[error("the client's header {0} is not UTF-8, so the service cannot be shown it")]
    NotText(String),
    /// The service failed, or has no time.
    #[error("the service answered with status {0}, which is no decision")]
    Status(u16),
    /// A header for the upstream stands in the answer more than once.
    #[error("the service's answer has the header {0} more than once")]
    Repeated(String),
    /// A header for the upstream has a character that not all servers read alike.
    #[error("the service's answer has the header {0} with a value that is not visible ASCII")]
    Unsendable(String),
    /// The headers for the upstream are too long.
    #[error("the service's answer has more than 4096 bytes of headers for the upstream")]
    TooLong,
}

impl Question {
    /// Puts what is known into words.
    ///
    /// # Errors
    /// [`Undecided::NotText`].
    pub fn new(asked: &Asked<'_>) -> Result<Self, Undecided> {
        let mut headers = Map::new();
        for field in asked.headers {
            let name = field.name.to_ascii_lowercase();
            let text = std::str::from_utf8(&field.value);
            let text = text.map_err(|_| Undecided::NotText(name.clone()))?;
            match headers.entry(name).or_insert_with(|| json!([])) {
                Value::Array(values) => values.push(text.into()),
                // Only arrays are put in.
                _ => continue,
            }
        }
        let (path, query) = match asked.path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (asked.path_and_query, None),
        };
        let question = json!({
            "route": asked.route,
            "client_ip": asked.client_ip.to_canonical().to_string(),
            "host": asked.host,
            "path": path,
            "query": query,
            "origin": asked.origin,
            "claims": asked.admission.claims.as_ref().map(Claims::document),
            "headers": headers,
        });
        let fingerprint = digest(&SHA256, question.to_string().as_bytes());
        let mut body = Map::new();
        body.insert("request_id".to_owned(), asked.request_id.into());
        if let Value::Object(members) = question {
            body.extend(members);
        }
        Ok(Self {
            body: Value::Object(body).to_string().into_bytes(),
            fingerprint: fingerprint.as_ref().to_vec(),
        })
    }
}

impl Decision {
    /// Reads an answer. `added` are the lower-case names of its fields that the upstream gets.
    ///
    /// # Errors
    /// A status that is neither 2xx nor a refusal, and fields that cannot be passed on.
    pub fn read(status: u16, fields: &[Field], added: &[String]) -> Result<Self, Undecided> {
        match status {
            200..300 => {}
            // Asked too often, or too slowly: that says nothing about the client.
            408 | 429 => return Err(Undecided::Status(status)),
            400..500 => return Ok(Self::Refuse(status)),
            _ => return Err(Undecided::Status(status)),
        }
        let mut passed = Vec::new();
        let mut left = MAX_ADDED;
        for name in added {
            let mut named = fields.iter().filter(|field| field.name == *name);
            let Some(field) = named.next() else { continue };
            if named.next().is_some() {
                return Err(Undecided::Repeated(name.clone()));
            }
            if !field.value.iter().all(|b| matches!(b, b' '..=b'~')) {
                return Err(Undecided::Unsendable(name.clone()));
            }
            left = left
                .checked_sub(field.value.len())
                .ok_or(Undecided::TooLong)?;
            passed.push(field.clone());
        }
        Ok(Self::Admit(passed))
    }
}

#[cfg(test)]
mod tests;
