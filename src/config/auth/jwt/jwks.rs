//! `jwks`: a set of keys, and how often it is read.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::units::duration_text;
use crate::config::url::{WEB_URL, WebUrl};
use crate::config::value::{checked, duration, or_off, path};
use crate::config::{Jwks, JwksSource, Line};

/// Default of `refresh`: a key that its issuer withdraws is of no use ten minutes later, and
/// six requests in an hour are no load for anyone.
const REFRESH: Duration = Duration::from_secs(600);

const REFRESHES: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(86_400);

/// Default of `refetch_interval`: strangers can make us ask six times in a minute and not
/// more, and a client whose key is new does not wait longer.
const REFETCH_INTERVAL: Duration = Duration::from_secs(10);

const REFETCH_INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(600);

/// Default of `timeout`: a set is a few KiB, and clients wait for it.
const TIMEOUT: Duration = Duration::from_secs(5);

const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(30);

/// Default of `max_age`: an outage of a night drops nobody, and whoever keeps us from the
/// issuer cannot keep a withdrawn key alive for longer than a day.
const MAX_AGE: Duration = Duration::from_secs(86_400);

const MAX_AGES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(2_592_000);

/// A file is read so often: it is small and at hand, and whoever replaces a key does not want
/// to wait.
const FILE_REFRESH: Duration = Duration::from_secs(2);

/// A file is read no more often than this for tokens whose key is not in it.
const FILE_REFETCH_INTERVAL: Duration = Duration::from_secs(1);

/// Long enough for a disk; only the wait for it is bounded.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// What `jwks` must look like.
const JWKS: &str = "jwks = \"https://id.example.com/keys\", or { url = \"https://…\" }, or { file = \"keys.json\" }";

/// Keys that go with `url` alone.
const OF_URL: [&str; 5] = ["ca", "refresh", "refetch_interval", "timeout", "max_age"];

/// Reads `jwks`, which is there, and where it stands.
pub(super) fn jwks(section: &mut Section<'_>) -> Result<(Jwks, Line), Reported> {
    let written = section.required("jwks", written, JWKS)?;
    let line = written.at();
    if let Some(url) = written.value {
        return Ok((fetched(url, None), line));
    }
    let mut keys = section.section_or_empty("jwks")?;
    let jwks = match (keys.has("url"), keys.has("file")) {
        (true, false) => of_url(&mut keys),
        (false, true) => of_file(&mut keys),
        (false, false) => Err(keys.error("", Some(line), "neither `url` nor `file`", JWKS)),
        (true, true) => Err(keys.error("", Some(line), "both `url` and `file`", JWKS)),
    };
    if jwks.is_err() {
        OF_URL.iter().for_each(|key| keys.expect(key));
    }
    keys.done();
    Ok((jwks?, line))
}

/// A URL alone, or `None` for a table. What is neither may be the keys themselves, among them
/// secret ones, and is not printed.
fn written(value: &Value<'_>) -> Result<Option<WebUrl>, Mismatch> {
    match value.text() {
        Some(text) if text.contains("://") && !text.contains(['{', '\n']) => url(value).map(Some),
        _ if value.is_table() => Ok(None),
        _ => Err(Mismatch::new(
            "neither an https:// URL nor a table (not shown)",
            JWKS,
        )),
    }
}

fn url(value: &Value<'_>) -> Result<WebUrl, Mismatch> {
    checked(WebUrl::parse, WEB_URL)(value)
}

fn fetched(url: WebUrl, ca: Option<std::path::PathBuf>) -> Jwks {
    Jwks {
        source: JwksSource::Url { url, ca },
        refresh: REFRESH,
        refetch_interval: REFETCH_INTERVAL,
        timeout: TIMEOUT,
        max_age: Some(MAX_AGE),
    }
}

fn of_url(keys: &mut Section<'_>) -> Result<Jwks, Reported> {
    let url = keys.required("url", url, WEB_URL);
    let ca = keys.optional("ca", path);
    let refresh = keys.or("refresh", duration(REFRESHES), REFRESH);
    let refetch_interval = keys.or(
        "refetch_interval",
        duration(REFETCH_INTERVALS),
        REFETCH_INTERVAL,
    );
    let timeout = keys.or("timeout", duration(TIMEOUTS), TIMEOUT);
    let max_age = keys.or("max_age", or_off(duration(MAX_AGES)), Some(MAX_AGE));
    if let (Ok(refresh), Ok(interval)) = (&refresh, &refetch_interval)
        && interval.value > refresh.value
    {
        not_above(keys, "refetch_interval", interval, refresh);
    }
    if let (Ok(refresh), Ok(max_age)) = (&refresh, &max_age)
        && max_age.value.is_some_and(|max_age| max_age < refresh.value)
    {
        let found = format!("less than refresh = {}", refresh.show(quoted));
        let allowed = "at least as long as refresh, or \"off\"";
        keys.error("max_age", max_age.line, found, allowed);
    }
    let ca = ca?.map(|ca| keys.resolve(&ca.value));
    Ok(Jwks {
        refresh: refresh?.value,
        refetch_interval: refetch_interval?.value,
        timeout: timeout?.value,
        max_age: max_age?.value,
        ..fetched(url?.value, ca)
    })
}

fn not_above(keys: &Section<'_>, key: &str, found: &Placed<Duration>, bound: &Placed<Duration>) {
    let text = format!(
        "{}, more than refresh = {}",
        found.show(quoted),
        bound.show(quoted)
    );
    keys.error(key, found.line, text, "at most as long as refresh");
}

fn quoted(time: &Duration) -> String {
    format!("\"{}\"", duration_text(*time))
}

fn of_file(keys: &mut Section<'_>) -> Result<Jwks, Reported> {
    let file = keys.required("file", path, JWKS);
    for key in OF_URL {
        if keys.has(key) {
            let found = format!("`{key}` beside `file`");
            keys.error(key, keys.line_of(key), found, "only beside `url`");
        }
    }
    Ok(Jwks {
        source: JwksSource::File(keys.resolve(&file?.value)),
        refresh: FILE_REFRESH,
        refetch_interval: FILE_REFETCH_INTERVAL,
        timeout: FILE_TIMEOUT,
        max_age: None,
    })
}
