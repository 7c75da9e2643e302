//! Secrets that the edge itself uses, read once from a file or the environment.

use std::fmt;

use crate::auth::keys::read_file;
use crate::config::problem::Problem;
use crate::config::{KeySource, Line};

/// What was read, and from where.
pub(super) struct Secret {
    pub(super) bytes: Vec<u8>,
    /// For messages: `keys/jwt.pem`, `environment variable NAME`.
    pub(super) origin: String,
    /// Permission bits, where it was a file.
    mode: Option<u32>,
}

impl Secret {
    /// The permission bits of a file that others than its owner may read.
    pub(super) fn open_mode(&self) -> Option<u32> {
        let mode = self.mode.filter(|mode| mode & 0o077 != 0)?;
        Some(mode & 0o7777)
    }
}

/// Reads a secret.
///
/// # Errors
/// What was found instead, for the operator.
pub(super) fn read(
    source: &KeySource,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Secret, String> {
    match source {
        KeySource::Env(name) => {
            let origin = format!("environment variable {name}");
            match env(name) {
                Some(value) => Ok(Secret {
                    bytes: value.into_bytes(),
                    origin,
                    mode: None,
                }),
                None => Err(format!("{origin} is not set, or not UTF-8")),
            }
        }
        KeySource::File(path) => {
            let origin = path.display().to_string();
            let (bytes, mode) =
                read_file(path).map_err(|error| format!("cannot read {origin}: {error}"))?;
            Ok(Secret {
                bytes,
                origin,
                mode: Some(mode),
            })
        }
    }
}

/// What the edge shows a service to be let in (RFC 6750 §2.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(String);

impl Bearer {
    /// Reads it; `key` and `line` are its place in the configuration. White space around it
    /// is not part of it. Returns the warnings along with the result.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(
        key: &str,
        line: Line,
        source: &KeySource,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Problem> {
        const ALLOWED: &str =
            "the token that the service expects: 1 to 4096 characters, without spaces";
        let error = |found| Problem::error(line, key, found, ALLOWED);
        let secret = read(source, env).map_err(error)?;
        let origin = &secret.origin;
        let token = secret.bytes.trim_ascii();
        let is_token = (1..=4096).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        let token = std::str::from_utf8(token).ok().filter(|_| is_token);
        let token =
            token.ok_or_else(|| error(format!("{origin} holds something else (not shown)")))?;
        let mode = secret.open_mode().map(|mode| {
            let found = format!("{origin} has mode {mode:04o}");
            let allowed = "mode 0600: whoever reads the token can pass for this edge (chmod 600)";
            Problem::warning(line, key, found, allowed)
        });
        Ok((Self(format!("Bearer {token}")), mode.into_iter().collect()))
    }

    /// The value of the `Authorization` field.
    pub fn credentials(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(***)")
    }
}
