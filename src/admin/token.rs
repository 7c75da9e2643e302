//! The bearer token of the admin address.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::config::problem::{Problem, Severity};
use crate::config::{AdminToken, KeySource};

/// Its `Debug` is a mask.
pub struct Token(Vec<u8>);

impl Token {
    /// Reads it, and returns the warnings along with it. `env` looks an environment variable up.
    ///
    /// # Errors
    /// Everything that is wrong with it, and the warnings.
    pub fn load(
        token: &AdminToken,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let problem = |severity, found: String, allowed: &str| Problem {
            severity,
            line: Some(token.line),
            key: "admin.token".to_owned(),
            found,
            allowed: allowed.to_owned(),
        };
        let mut warnings = Vec::new();
        let read = match &token.source {
            KeySource::Env(name) => env(name)
                .map(String::into_bytes)
                .ok_or_else(|| format!("the environment variable {name} is not set")),
            KeySource::File(path) => read_file(path)
                .map(|(bytes, mode)| {
                    if mode & 0o077 != 0 {
                        let found = format!("others may read {}", path.display());
                        let better = format!("chmod 600 {}", path.display());
                        warnings.push(problem(Severity::Warning, found, &better));
                    }
                    bytes
                })
                .map_err(|error| format!("cannot read {}: {error}", path.display())),
        };
        let checked = read.and_then(|bytes| {
            let text = bytes.trim_ascii_end();
            match text.iter().all(u8::is_ascii_graphic) && TOKEN_LENGTHS.contains(&text.len()) {
                true => Ok(Self(text.to_vec())),
                false => Err(format!(
                    "a token of {} bytes, or with others than visible ASCII in it (not shown)",
                    text.len()
                )),
            }
        });
        match checked {
            Ok(token) => Ok((token, warnings)),
            Err(found) => {
                warnings.push(problem(Severity::Error, found, HOW));
                Err(warnings)
            }
        }
    }

    /// The value of `Authorization`, for who asks.
    pub fn to_field(&self) -> Vec<u8> {
        [BEARER, &self.0].concat()
    }

    /// Whether the value of an `Authorization` field is this token (RFC 6750 §2.1). How long
    /// that takes says nothing about the token.
    pub(super) fn is_in(&self, field: &[u8]) -> bool {
        let Some((scheme, rest)) = field.split_at_checked(BEARER.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(BEARER) && verify_slices_are_equal(rest, &self.0).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

fn read_file(path: &Path) -> std::io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

const BEARER: &[u8] = b"Bearer ";

/// From 16 random bytes in hexadecimal digits to what fits well into a request head.
const TOKEN_LENGTHS: RangeInclusive<usize> = 32..=1024;

/// Bytes of the file that are looked at: what is longer is no token.
const MAX_FILE: u64 = 4096;

/// What is allowed.
const HOW: &str = "32 to 1024 characters of visible ASCII, such as `openssl rand -hex 32` makes";
