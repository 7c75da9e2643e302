//! What is wrong with a configuration: key, line, what was found, what is allowed.
//!
//! A problem's texts never hold a secret: whoever makes one writes "not shown" where a
//! secret was found. The source line beside it is masked by [`Source`].

use std::fmt::Write;
use std::path::Path;

use crate::config::identity::Identity;
use crate::config::source::Source;
use crate::config::{Authorize, Config, Jwt, Line, Tls};

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
    /// The key as a path, `route.chat.auth.jwt.key`; empty when it is about the file as a whole.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What is allowed, or what to do.
    pub allowed: String,
}

impl Problem {
    /// A problem that keeps the program from starting.
    pub fn error(
        line: impl Into<Option<Line>>,
        key: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            line: line.into(),
            key: key.into(),
            found: found.into(),
            allowed: allowed.into(),
        }
    }

    /// A problem that the operator should know of.
    pub fn warning(
        line: impl Into<Option<Line>>,
        key: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(line, key, found, allowed)
        }
    }

    /// Whether it keeps the program from starting.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// A configuration that the program can start with.
#[derive(Debug)]
pub struct Loaded {
    /// The checked values.
    pub config: Config,
    /// What the operator should know, in the order of the file.
    pub warnings: Vec<Problem>,
    /// The text it was read from, for [`render`].
    pub text: Source,
}

/// A configuration that the program cannot start with.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is refused")]
pub struct Refused {
    /// Every error and warning, in the order of the file.
    pub problems: Vec<Problem>,
    /// What the file names all the same, so that it can be looked at too.
    pub named: Box<Named>,
    /// The text it was read from, for [`render`].
    pub text: Source,
}

/// The certificates and keys that a refused file names, as far as they could be read.
#[derive(Debug, Default)]
pub struct Named {
    /// Key path of the listener, and its TLS section.
    pub tls: Vec<(String, Tls)>,
    /// The rules for tokens.
    pub jwt: Vec<Jwt>,
    /// The services that decide.
    pub authorize: Vec<Authorize>,
    /// The key that signs, where one is named.
    pub identity: Vec<Identity>,
}

/// Puts problems in the order of the file; those about the whole file come first.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
}

/// The problems as text for an operator: place and key, the source line, found, allowed.
///
/// `file` is printed as given. The text is empty when there are no problems, and otherwise
/// ends with a line end.
pub fn render(file: &Path, problems: &[Problem], source: &Source) -> String {
    let blocks: Vec<String> = problems
        .iter()
        .map(|problem| render_one(file, problem, source))
        .collect();
    blocks.join("\n")
}

fn render_one(file: &Path, problem: &Problem, source: &Source) -> String {
    let (label, remedy) = match problem.severity {
        Severity::Warning => ("warning", "better: "),
        Severity::Error => ("error", "allowed:"),
    };
    let mut text = format!("{label}: {}", file.display());
    // Writing to a String cannot fail, so the results below say nothing.
    if let Some(Line(line)) = problem.line {
        let _ = write!(text, ":{line}");
    }
    if !problem.key.is_empty() {
        let _ = write!(text, ": {}", problem.key);
    }
    text.push('\n');
    if let Some(line) = problem.line
        && let Some(shown) = source.shown(line, &problem.key)
    {
        let _ = writeln!(text, "  {:>5} | {shown}", line.0);
    }
    let _ = writeln!(text, "  found:   {}", problem.found);
    let _ = writeln!(text, "  {remedy} {}", problem.allowed);
    text
}

/// The candidate that `written` was probably meant to be, if one is close enough.
///
/// Close means at most a third of the letters wrong, and never more than two.
pub fn suggest<'a>(written: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let within = (written.chars().count() / 3).clamp(1, 2);
    candidates
        .iter()
        .map(|candidate| (distance(written, candidate), *candidate))
        .filter(|(distance, _)| *distance <= within)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance in which two swapped neighbours count as one edit.
#[expect(
    clippy::indexing_slicing,
    reason = "a table with a row and a column more than the words have letters"
)]
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_suggested() {
        let keys = ["origins", "name", "path"];
        assert_eq!(suggest("orgins", &keys), Some("origins"));
        assert_eq!(suggest("origin", &keys), Some("origins"));
        assert_eq!(suggest("nmae", &keys), Some("name"));
    }

    #[test]
    fn a_far_miss_is_not_suggested() {
        assert_eq!(suggest("colour", &["origins", "name", "path"]), None);
        assert_eq!(suggest("ab", &["cd"]), None);
    }

    #[test]
    fn problems_about_the_whole_file_come_first() {
        let mut problems = vec![
            Problem::error(Line(2), "b", "", ""),
            Problem::error(Line(1), "a", "", ""),
            Problem::error(None, "z", "", ""),
        ];
        sort(&mut problems);
        let keys: Vec<&str> = problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        assert_eq!(keys, ["z", "a", "b"]);
    }

    #[test]
    fn a_problem_without_place_has_no_source_line() {
        let problem = Problem::error(None, "", "no such file", "an existing file");
        let text = render(Path::new("x.toml"), &[problem], &Source::new("a = 1\n"));
        assert_eq!(
            text,
            "error: x.toml\n  found:   no such file\n  allowed: an existing file\n"
        );
    }
}
