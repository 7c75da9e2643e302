//! `jwks`: a set of keys, and how often it is read.

use std::time::Duration;

use crate::config::answer::{Mismatch, Reported};
use crate::config::file::{Section, Value};
use crate::config::value::path;
use crate::config::{Jwks, JwksSource, Line};

/// A file is looked at so often: it costs one system call, and whoever replaces a key does
/// not want to wait.
const FILE_REFRESH: Duration = Duration::from_secs(2);

/// A file is read no more often than this for tokens whose key is not in it.
const FILE_REFETCH_INTERVAL: Duration = Duration::from_secs(1);

/// What `jwks` must look like.
const JWKS: &str = "jwks = { file = \"keys.json\" }";

/// Reads `jwks`, which is there, and where it stands.
pub(super) fn jwks(section: &mut Section<'_>) -> Result<(Jwks, Line), Reported> {
    let table = |value: &Value<'_>| match value.is_table() {
        true => Ok(()),
        false => Err(Mismatch::new(
            "something that is no table (not shown)",
            JWKS,
        )),
    };
    let line = section.required("jwks", table, JWKS)?.at();
    let mut keys = section.section_or_empty("jwks")?;
    let file = keys.required("file", path, JWKS);
    let source = file.map(|file| JwksSource::File(keys.resolve(&file.value)));
    keys.done();
    let jwks = Jwks {
        source: source?,
        refresh: FILE_REFRESH,
        refetch_interval: FILE_REFETCH_INTERVAL,
        timeout: Duration::ZERO,
        max_age: None,
    };
    Ok((jwks, line))
}
