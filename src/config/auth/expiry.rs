//! `on_expiry` and `expiry_notice` of `[route.auth]`: whether a session outlives its token.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Placed, Reported};
use crate::config::auth::first_message::reply;
use crate::config::file::{Section, Value};
use crate::config::value::{duration, one_of};
use crate::proto::policy::{ExpiryNotice, OnExpiry};

/// Below a second no client has time to act; a token that lives longer than a day is renewed
/// within its last.
const NOTICE_TIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Default of `expiry_notice.message`: JSON, like most of what travels on such a route.
const MESSAGE: &str = r#"{"type":"token_expiring"}"#;

/// What `expiry_notice` must look like.
const NOTICE: &str =
    "expiry_notice = { before = \"60s\", message = '{\"type\":\"token_expiring\"}' }";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Close,
    Ignore,
}

/// Reads both. By default a session ends with its token: who may connect for an hour may not
/// stay for a day.
pub(super) fn on_expiry(section: &mut Section<'_>) -> Result<OnExpiry, Reported> {
    let words = &[("close", Word::Close), ("ignore", Word::Ignore)];
    let word = section.or("on_expiry", one_of(words), Word::Close);
    let notice = notice(section);
    let (word, notice) = (word?, notice?);
    match (word.value, notice) {
        (Word::Close, notice) => Ok(OnExpiry::Close { notice }),
        (Word::Ignore, None) => Ok(OnExpiry::Ignore),
        (Word::Ignore, Some(_)) => {
            let found = "`expiry_notice` beside on_expiry = \"ignore\": no session would end";
            let allowed = "on_expiry = \"close\", or no `expiry_notice`";
            let line = section.line_of("expiry_notice");
            Err(section.error("expiry_notice", line, found, allowed))
        }
    }
}

fn notice(section: &mut Section<'_>) -> Result<Option<ExpiryNotice>, Reported> {
    let times = duration(NOTICE_TIMES);
    let short = |value: &Value<'_>| match value.is_table() {
        true => Ok(None),
        false => times(value).map(Some),
    };
    let Some(Placed { value: short, .. }) = section.optional("expiry_notice", short)? else {
        return Ok(None);
    };
    if let Some(before) = short {
        let message = MESSAGE.to_owned();
        return Ok(Some(ExpiryNotice { before, message }));
    }
    let mut table = section.section_or_empty("expiry_notice")?;
    let before = table.required("before", duration(NOTICE_TIMES), NOTICE);
    let message = table.or("message", reply, MESSAGE.to_owned());
    table.done();
    Ok(Some(ExpiryNotice {
        before: before?.value,
        message: message?.value,
    }))
}
