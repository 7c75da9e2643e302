//! `[route.auth] refresh`: the message by which a client brings a new token.

use crate::config::answer::{Mismatch, Reported};
use crate::config::auth::first_message::reply;
use crate::config::file::{Section, Value};
use crate::config::rule::pointer;
use crate::config::value::checked;
use crate::proto::json::Pointer;

/// What `refresh` must look like.
const REFRESH: &str =
    "refresh = { field = \"/type\", equals = \"refresh\", token_field = \"/token\" }";

/// What its pointers must look like.
const POINTER: &str = "a JSON pointer into the message (RFC 6901): \"/type\", \"/token\"";

/// Bytes of `equals`, which is a word.
const LONGEST_WORD: usize = 256;

/// The shape of a message that brings a new token.
pub(in crate::config) struct Refresh {
    pub(in crate::config) field: Pointer,
    pub(in crate::config) equals: String,
    pub(in crate::config) token_field: Pointer,
    pub(in crate::config) reply: Option<String>,
}

/// Reads `refresh`; `None`: a token lasts as long as it lasts.
pub(super) fn refresh(auth: &mut Section<'_>) -> Result<Option<Refresh>, Reported> {
    let Some(mut section) = auth.section("refresh")? else {
        return Ok(None);
    };
    let field = section.required("field", checked(pointer, POINTER), REFRESH);
    let equals = section.required("equals", word, REFRESH);
    let token_field = section.required("token_field", checked(pointer, POINTER), REFRESH);
    let reply = section.optional("reply", reply);
    if let (Ok(field), Ok(token)) = (&field, &token_field)
        && field.value == token.value
    {
        let found = "the same place as `field`";
        section.error("token_field", token.line, found, REFRESH);
    }
    section.done();
    Ok(Some(Refresh {
        field: field?.value,
        equals: equals?.value,
        token_field: token_field?.value,
        reply: reply?.map(|reply| reply.value),
    }))
}

fn word(value: &Value<'_>) -> Result<String, Mismatch> {
    let fits = |text: &&str| (1..=LONGEST_WORD).contains(&text.len());
    let word = value.text().filter(fits);
    word.map(str::to_owned)
        .ok_or_else(|| Mismatch::of(value, format!("a text of 1 to {LONGEST_WORD} bytes")))
}
