//! What is wrong with a configuration: key, line, what was found, what is allowed.

use crate::config::Line;

/// Whether the program can start all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It starts, but the operator should know.
    Warning,
    /// It does not start.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Where; `None` when it is about the file as a whole.
    pub line: Option<Line>,
    /// The key as a path, `route.chat.auth.jwt.key`.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What is allowed, or what to do.
    pub allowed: String,
}
