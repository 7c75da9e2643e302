//! The first message that carries a token: its shape, its bounds, and what becomes of it.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::server::HANDSHAKE_TIMES;
use crate::config::value::{checked, duration, flag, in_memory, one_of, size, text};
use crate::config::{MessageShape, names};
use crate::proto::policy::FirstMessage;

/// Default of `timeout`: a client sends the token at once, so ten seconds forgive lost packets
/// and a token that must first be fetched, and a silent stranger holds its slot no longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Default of `max_size`: a token is 200 bytes to 4 KiB, and some JSON stands around it.
const MAX_SIZE: u64 = 8 << 10;

/// No token is shorter than 256 bytes with its JSON; every stranger may make us hold the rest.
const MAX_SIZES: RangeInclusive<u64> = 256..=64 << 10;

/// Longest `reply`: it is kept once per route and sent as one small frame.
const LONGEST_REPLY: usize = 4 << 10;

/// A protocol whose first message is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preset {
    GraphqlWs,
}

/// The message that opens a session of graphql-ws, and its predecessor's
/// (<https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>).
const CONNECTION_INIT: &str = "connection_init";

/// Where `connectionParams` of the client libraries has it by custom.
const GRAPHQL_TOKEN: &str = "/payload/Authorization";

/// What the client waits for. The upstream sends it when it gets the first message.
const CONNECTION_ACK: &str = r#"{"type":"connection_ack"}"#;

/// Reads the keys of the first message.
pub(super) fn first_message(
    section: &mut Section<'_>,
) -> Result<(MessageShape, FirstMessage), Reported> {
    let preset = section.optional("preset", one_of(&[("graphql-ws", Preset::GraphqlWs)]));
    let pointer = "a JSON pointer (RFC 6901): \"/token\", \"/auth/jwt\"";
    let token_field = section.optional("token_field", checked(names::pointer, pointer));
    let timeout = section.or("timeout", duration(HANDSHAKE_TIMES), TIMEOUT);
    let max_size = section.or("max_size", size(MAX_SIZES), MAX_SIZE);
    let is_graphql = matches!(preset, Ok(Some(_)));
    // An unmodified server of graphql-ws hangs up when it gets no `connection_init`.
    let forward = section.or("forward", flag, is_graphql);
    let reply = section.optional("reply", reply);
    let (forward, reply) = (forward?.value, reply?);
    let reply = match reply {
        Some(Placed { line, .. }) if is_graphql && forward => {
            let found = "`reply` beside preset = \"graphql-ws\": the upstream acknowledges itself";
            let allowed = "no `reply`, or forward = false";
            return Err(section.error("reply", line, found, allowed));
        }
        None if is_graphql && !forward => Some(CONNECTION_ACK.to_owned()),
        reply => reply.map(|reply| reply.value),
    };
    let field_of_preset = preset?.map(|_| GRAPHQL_TOKEN.to_owned());
    let shape = MessageShape {
        token_field: token_field?
            .map(|pointer| pointer.value)
            .or(field_of_preset),
        message_type: is_graphql.then_some(CONNECTION_INIT),
    };
    let policy = FirstMessage {
        timeout: timeout?.value,
        max_size: in_memory(max_size?.value),
        forward,
        reply,
    };
    Ok((shape, policy))
}

/// A text that the edge sends to clients.
pub(in crate::config) fn reply(value: &Value<'_>) -> Result<String, Mismatch> {
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
