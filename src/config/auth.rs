//! `[route.auth]`: how a client proves who it is. What makes its token good is in `jwt`.

mod expiry;
mod jwt;

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::names;
use crate::config::server::HANDSHAKE_TIMES;
use crate::config::value::{checked, duration, flag, in_memory, size, text};
use crate::config::{Auth, MessageShape, TokenAuth, TokenPlace};
use crate::proto::policy::{FirstMessage, OnExpiry};

/// Default of `timeout`: a client sends the token at once, so ten seconds forgive lost packets
/// and a token that must first be fetched, and a silent stranger holds its slot no longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Default of `max_size`: a token is 200 bytes to 4 KiB, and some JSON stands around it.
const MAX_SIZE: u64 = 8 << 10;

/// No token is shorter than 256 bytes with its JSON; every stranger may make us hold the rest.
const MAX_SIZES: RangeInclusive<u64> = 256..=64 << 10;

/// Longest `reply`: it is kept once per route and sent as one small frame.
const LONGEST_REPLY: usize = 4 << 10;

/// What `method` must look like.
const METHOD: &str = "\"first-message\", or \"none\" to admit everyone whose origin passes";

/// Keys of `[route.auth]` that say how the first message is read.
const OF_FIRST_MESSAGE: [&str; 8] = [
    "token_field",
    "timeout",
    "max_size",
    "forward",
    "reply",
    "on_expiry",
    "expiry_notice",
    "jwt",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    None,
    FirstMessage,
}

/// What `[route.auth]` says.
pub(super) struct Read {
    pub(super) auth: Auth,
    pub(super) first_message: Option<FirstMessage>,
    pub(super) on_expiry: OnExpiry,
}

/// Reads `[route.auth]` of a route.
pub(super) fn auth(route: &mut Section<'_>) -> Result<Read, Reported> {
    let Some(mut section) = route.section("auth")? else {
        return Err(route.missing("auth", &format!("[route.auth] with method = {METHOD}")));
    };
    let method = section.required("method", method, METHOD);
    let outcome = match &method {
        Ok(method) if method.value == Method::None => Ok(without_token(&mut section, method)),
        // Nobody knows whether a token is wanted, so only what is written is checked.
        Err(reported) if !section.has("jwt") => {
            OF_FIRST_MESSAGE.iter().for_each(|key| section.expect(key));
            Err(*reported)
        }
        _ => first_message(&mut section),
    };
    section.done();
    method.and(outcome)
}

fn method(value: &Value<'_>) -> Result<Method, Mismatch> {
    match value.text() {
        Some("none") => Ok(Method::None),
        Some("first-message") => Ok(Method::FirstMessage),
        Some("header" | "cookie" | "subprotocol") => {
            let found = format!("{}: this method is not available", value.describe());
            Err(Mismatch::new(found, METHOD))
        }
        _ => Err(Mismatch::of(value, METHOD)),
    }
}

fn without_token(section: &mut Section<'_>, method: &Placed<Method>) -> Read {
    for key in OF_FIRST_MESSAGE {
        if section.has(key) {
            let found = format!("`{key}` beside method = \"none\", which reads no token");
            let allowed = "method = \"first-message\", or no such key";
            section.error(key, section.line_of(key), found, allowed);
        }
    }
    let found = "no token is asked for: everyone whose origin passes is admitted";
    section.warning(
        "method",
        method.line,
        found,
        "method = \"first-message\" with [route.auth.jwt]",
    );
    Read {
        auth: Auth::None,
        first_message: None,
        on_expiry: OnExpiry::Ignore,
    }
}

fn first_message(section: &mut Section<'_>) -> Result<Read, Reported> {
    let pointer = "a JSON pointer (RFC 6901): \"/token\", \"/auth/jwt\"";
    let token_field = section.optional("token_field", checked(names::pointer, pointer));
    let timeout = section.or("timeout", duration(HANDSHAKE_TIMES), TIMEOUT);
    let max_size = section.or("max_size", size(MAX_SIZES), MAX_SIZE);
    let forward = section.or("forward", flag, false);
    let reply = section.optional("reply", reply);
    let on_expiry = expiry::on_expiry(section);
    let jwt = jwt::issuers(section);
    let shape = MessageShape {
        token_field: token_field?.map(|pointer| pointer.value),
        message_type: None,
    };
    let auth = Auth::Token(TokenAuth {
        places: vec![TokenPlace::FirstMessage(shape)],
        forward_token: false,
        jwt: jwt?,
    });
    let first_message = FirstMessage {
        timeout: timeout?.value,
        max_size: in_memory(max_size?.value),
        forward: forward?.value,
        reply: reply?.map(|reply| reply.value),
    };
    Ok(Read {
        auth,
        first_message: Some(first_message),
        on_expiry: on_expiry?,
    })
}

fn reply(value: &Value<'_>) -> Result<String, Mismatch> {
    let allowed = format!("a text of 1 to {LONGEST_REPLY} bytes; leave the key out to send none");
    let Ok(reply) = text(value) else {
        return Err(Mismatch::of(value, allowed));
    };
    if (1..=LONGEST_REPLY).contains(&reply.len()) {
        return Ok(reply);
    }
    Err(Mismatch::new(
        format!("a text of {} bytes", reply.len()),
        allowed,
    ))
}
