//! Where a secret comes from: the environment or a file, and never the configuration itself.
//!
//! What may be the secret is never printed.

use crate::config::answer::{Mismatch, Reported};
use crate::config::file::{Section, Value};
use crate::config::names;
use crate::config::value::path;
use crate::config::{KeySource, Line};

/// Reads the source of a secret, and where it stands; `allowed` shows one of each kind.
pub(super) fn source(
    section: &mut Section<'_>,
    key: &'static str,
    allowed: &str,
) -> Result<(KeySource, Line), Reported> {
    let table = |value: &Value<'_>| match value.is_table() {
        true => Ok(()),
        false => {
            let found = format!("a {key} in the file itself (not shown)");
            Err(Mismatch::new(found, allowed))
        }
    };
    let line = section.required(key, table, allowed)?.at();
    let mut keys = section.section_or_empty(key)?;
    let env = keys.optional("env", variable);
    let file = keys.optional("file", path);
    let error = |found| Err(keys.error("", Some(line), found, allowed));
    let source = match (env, file) {
        (Ok(Some(env)), Ok(None)) => Ok(KeySource::Env(env.value)),
        (Ok(None), Ok(Some(file))) => Ok(KeySource::File(keys.resolve(&file.value))),
        (Ok(None), Ok(None)) => error("neither `env` nor `file`"),
        (Ok(Some(_)), Ok(Some(_))) => error("both `env` and `file`"),
        (Err(reported), _) | (_, Err(reported)) => Err(reported),
    };
    keys.done();
    Ok((source?, line))
}

/// The text is not printed when it is no name: it may be the secret itself.
fn variable(value: &Value<'_>) -> Result<String, Mismatch> {
    let name = value.text().filter(|name| names::is_variable(name));
    name.map(str::to_owned).ok_or_else(|| {
        let allowed = "the name of a variable, of letters, digits and _: \"TIDEGATE_JWT_SECRET\"";
        Mismatch::new("no name of a variable (not shown)", allowed)
    })
}
