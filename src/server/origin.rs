//! Where a configuration comes from, so that it can be read again; and what there is to say
//! about it when it was.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config;
use crate::config::problem::{self, Loaded, Problem};
use crate::config::source::Source;
use crate::server::prepared::{Prepared, inspect};

/// Looks an environment variable up.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A file and an environment.
#[derive(Clone)]
pub struct Origin {
    file: PathBuf,
    env: Env,
    /// What the file said when it was read last.
    text: Source,
}

/// What is to be said about a configuration, in the order of the file.
#[derive(Debug)]
pub struct Findings {
    /// Errors and warnings.
    pub problems: Vec<Problem>,
    /// What they are about.
    pub text: Source,
}

impl Origin {
    /// Of `file`, which nobody has read yet.
    pub fn new(file: &Path, env: Env) -> Self {
        Self {
            file: file.to_owned(),
            env,
            text: Source::default(),
        }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn env(&self) -> &dyn Fn(&str) -> Option<String> {
        &*self.env
    }

    pub(super) fn text(&self) -> &Source {
        &self.text
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Findings {
    fn new(mut problems: Vec<Problem>, text: Source) -> Self {
        problem::sort(&mut problems);
        Self { problems, text }
    }

    /// As text for an operator.
    pub fn render(&self, file: &Path) -> String {
        problem::render(file, &self.problems, &self.text)
    }
}

impl Prepared {
    /// Reads a file and loads everything it names. The result can be read again.
    ///
    /// # Errors
    /// Every problem found, warnings included.
    pub fn read(origin: &Origin) -> Result<(Self, Findings), Findings> {
        Self::read_after(origin, None)
    }

    pub(super) fn read_after(
        origin: &Origin,
        before: Option<&Self>,
    ) -> Result<(Self, Findings), Findings> {
        let loaded = config::load(&origin.file).map_err(|mut refused| {
            let more = inspect(&refused.named, origin.env());
            refused.problems.extend(more);
            Findings::new(refused.problems, refused.text)
        })?;
        let Loaded {
            config,
            warnings: mut problems,
            text,
        } = loaded;
        match Self::load_after(config, origin.env(), before) {
            Ok((prepared, more)) => {
                problems.extend(more);
                let prepared = prepared.renewable(origin.clone(), text.clone());
                Ok((prepared, Findings::new(problems, text)))
            }
            Err(more) => {
                problems.extend(more);
                Err(Findings::new(problems, text))
            }
        }
    }

    /// The same, which can be read again at `origin`, where it reads `text`.
    #[must_use]
    pub fn renewable(mut self, origin: Origin, text: Source) -> Self {
        self.origin = Some(Origin { text, ..origin });
        self
    }
}
