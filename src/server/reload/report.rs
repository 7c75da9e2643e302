//! What came of a reload, for the log and for whoever asked.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::diff::Change;
use crate::config::problem::Problem;
use crate::proxy::Affected;
use crate::server::origin::Findings;
use crate::server::reload::By;

/// What came of a reload.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Another configuration is in force, or the same with other files.
    Reloaded(Box<Reloaded>),
    /// Something is wrong with it, and nothing changed.
    Refused {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// Its listeners cannot be opened, and nothing changed.
    Unbound(String),
    /// There is no reload here and now.
    Impossible(&'static str),
}

/// What a reload changed.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// In the file of the configuration.
    pub changes: Vec<Change>,
    /// Files it names that hold something else.
    pub files: Vec<PathBuf>,
    /// Keys that changed and count only after a restart.
    pub held_back: Vec<&'static str>,
    /// What the operator should know.
    pub warnings: Vec<Problem>,
    /// Which sessions are concerned.
    pub affected: Affected,
}

impl Outcome {
    pub(super) fn refused(file: &Path, findings: Findings) -> Self {
        Self::Refused {
            file: file.to_owned(),
            problems: findings.problems,
        }
    }

    pub(super) fn unbound(why: &str) -> Self {
        Self::Unbound(why.to_owned())
    }

    /// Writes it down.
    pub(super) fn log(&self, by: By) {
        let by = by.as_str();
        match self {
            Self::Reloaded(reloaded) => reloaded.log(by),
            Self::Refused { file, problems } => {
                let errors = problems.iter().filter(|problem| problem.is_error()).count();
                tracing::error!(by, errors, "reload refused: nothing changed");
                for problem in problems.iter().filter(|problem| problem.is_error()) {
                    log_problem(file, problem);
                }
            }
            Self::Unbound(error) => {
                tracing::error!(by, error, "reload refused: nothing changed");
            }
            Self::Impossible(reason) => tracing::warn!(by, reason, "not reloaded"),
        }
    }

    /// The HTTP status and the body of the answer.
    pub fn answer(&self) -> (u16, Value) {
        match self {
            Self::Reloaded(reloaded) => (200, reloaded.to_json()),
            Self::Refused { problems, .. } => {
                let problems: Vec<Value> = problems.iter().map(problem_json).collect();
                let error = "the configuration is refused: nothing changed";
                (422, json!({ "error": error, "problems": problems }))
            }
            Self::Unbound(why) => (409, json!({ "error": format!("{why}: nothing changed") })),
            Self::Impossible(why) => (409, json!({ "error": why })),
        }
    }
}

impl Reloaded {
    fn log(&self, by: &'static str) {
        let Affected {
            sessions,
            revised,
            vanished,
        } = self.affected;
        tracing::info!(
            by,
            keys_changed = self.changes.len(),
            files_changed = self.files.len(),
            sessions,
            sessions_revised = revised,
            sessions_draining = vanished,
            "reloaded"
        );
        for Change { key, old, new } in self.changes.iter().take(MOST_LINES) {
            tracing::info!(key, old, new, "configuration changed");
        }
        if let Some(more) = self
            .changes
            .len()
            .checked_sub(MOST_LINES)
            .filter(|n| *n > 0)
        {
            tracing::info!(more, "further keys changed");
        }
        for file in self.files.iter().take(MOST_LINES) {
            tracing::info!(file = %file.display(), "file taken anew");
        }
        for key in &self.held_back {
            tracing::warn!(key, "changed, and counts only after a restart");
        }
        for warning in self.warnings.iter().take(MOST_LINES) {
            let Problem {
                key,
                found,
                allowed,
                ..
            } = warning;
            let line = warning.line.map(|line| line.0);
            tracing::warn!(key, line, found, better = allowed, "configuration");
        }
    }

    fn to_json(&self) -> Value {
        let changes = self.changes.iter().map(|change| {
            let Change { key, old, new } = change;
            json!({ "key": key, "old": old, "new": new })
        });
        let files = self.files.iter().map(|file| file.display().to_string());
        let warnings = self.warnings.iter().map(problem_json);
        json!({
            "changed": changes.collect::<Vec<_>>(),
            "files": files.collect::<Vec<_>>(),
            "after_restart": self.held_back,
            "warnings": warnings.collect::<Vec<_>>(),
            "sessions": {
                "live": self.affected.sessions,
                "revised": self.affected.revised,
                "draining": self.affected.vanished,
            },
        })
    }
}

impl By {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Admin => "admin",
            Self::Files => "renewed files",
        }
    }
}

fn log_problem(file: &Path, problem: &Problem) {
    let Problem {
        key,
        found,
        allowed,
        ..
    } = problem;
    let line = problem.line.map(|line| line.0);
    tracing::error!(file = %file.display(), line, key, found, allowed, "configuration");
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "severity": if problem.is_error() { "error" } else { "warning" },
        "line": problem.line.map(|line| line.0),
        "key": problem.key,
        "found": problem.found,
        "allowed": problem.allowed,
    })
}

/// Lines in the log of one reload about keys, files or warnings each. The answer has all.
const MOST_LINES: usize = 100;
