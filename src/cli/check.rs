//! `tidegate check`, and the loading that `run` and `demo` share with it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::{CONFIG, descriptors, env, report, say};
use crate::config::problem::{self, Loaded, Problem};
use crate::config::{self, source::Source};
use crate::server::{Origin, Prepared};

/// Reports on `file`; 0 when it would start.
pub fn check(file: &Path) -> ExitCode {
    let loaded = load(file);
    let (problems, verdict, code) = match &loaded {
        Ok(found) => (&found.problems, "would start", ExitCode::SUCCESS),
        Err(found) => (&found.problems, "refused", ExitCode::from(CONFIG)),
    };
    if let Ok(found) = &loaded {
        // Not a fault of the file, and a service has other limits than a shell: not counted.
        if let Some(shortage) = descriptors::shortage(found.value.config()) {
            say(&format!("warning: as run from here: {shortage}\n"));
        }
        for source in found.value.fetched() {
            say(&format!(
                "note: keys are fetched from {source} at start, and not now\n"
            ));
        }
    }
    let errors = problems.iter().filter(|p| p.is_error()).count();
    let warnings = problems.len() - errors;
    say(&format!(
        "{}: {verdict}; {errors} {}, {warnings} {}\n",
        file.display(),
        plural(errors, "error"),
        plural(warnings, "warning"),
    ));
    code
}

/// A configuration that was loaded, or not, and what there is to say about it.
pub struct Found<T> {
    /// What came of it.
    pub value: T,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Loads a file and everything it names, and prints every problem.
pub fn load(file: &Path) -> Result<Found<Prepared>, Found<()>> {
    let loaded = Prepared::read(&Origin::new(file, Arc::new(env)));
    let (value, findings) = match loaded {
        Ok((prepared, findings)) => (Ok(prepared), findings),
        Err(findings) => (Err(()), findings),
    };
    report(file, &findings.problems, &findings.text);
    let problems = findings.problems;
    match value {
        Ok(value) => Ok(Found { value, problems }),
        Err(value) => Err(Found { value, problems }),
    }
}

/// Loads a file alone; prints every problem if it is refused.
pub fn read(file: &Path) -> Result<Loaded, Found<()>> {
    config::load(file).map_err(|refused| finish(file, (), refused.problems, &refused.text))
}

/// Loads what a configuration names, and prints every problem, those of the file too.
pub fn prepare(
    file: &Path,
    loaded: Loaded,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Found<Prepared>, Found<()>> {
    let Loaded {
        config,
        warnings: mut problems,
        text,
    } = loaded;
    match Prepared::load(config, env) {
        Ok((prepared, more)) => {
            problems.extend(more);
            Ok(finish(file, prepared, problems, &text))
        }
        Err(more) => {
            problems.extend(more);
            Err(finish(file, (), problems, &text))
        }
    }
}

fn finish<T>(file: &Path, value: T, mut problems: Vec<Problem>, text: &Source) -> Found<T> {
    problem::sort(&mut problems);
    report(file, &problems, text);
    Found { value, problems }
}

fn plural(count: usize, word: &str) -> String {
    match count {
        1 => word.to_owned(),
        _ => format!("{word}s"),
    }
}
