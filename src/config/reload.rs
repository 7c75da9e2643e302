//! `[server] reload`: how another configuration is taken while the process runs.

use crate::config::answer::Reported;
use crate::config::file::Section;
use crate::config::value::{flag, one_of};

/// `[server] reload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether the files that the configuration names are watched. On by default: a certificate
    /// that was renewed and is not served is an outage that comes weeks later.
    pub watch: bool,
    /// For whom new limits hold, where a reload does not say itself.
    pub apply: Apply,
}

/// For whom the limits of another configuration hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Apply {
    /// For the sessions that begin from then on. The default: nobody who is here is closed for
    /// a limit that did not hold when he came.
    #[default]
    New,
    /// For those that are here, too.
    Live,
}

impl Apply {
    /// Reads the word for it.
    pub fn from_word(word: &str) -> Option<Self> {
        let chosen = WORDS.iter().find(|(known, _)| *known == word);
        chosen.map(|(_, apply)| *apply)
    }
}

const WORDS: &[(&str, Apply)] = &[("new", Apply::New), ("live", Apply::Live)];

/// Reads `reload`.
pub(super) fn reload(mut section: Section<'_>) -> Result<Reload, Reported> {
    let watch = section.or("watch", flag, true);
    let apply = section.or("apply", one_of(WORDS), Apply::New);
    section.done();
    Ok(Reload {
        watch: watch?.value,
        apply: apply?.value,
    })
}
