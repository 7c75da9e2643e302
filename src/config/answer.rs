//! How the readers of a configuration answer: a value and its place, or what is wrong.

use crate::config::Line;
use crate::config::file::Value;

/// Proof that a problem was written down: whoever holds one may give up quietly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

/// Why a value is not what its key wants.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) found: String,
    pub(super) allowed: String,
}

impl Mismatch {
    pub(super) fn new(found: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            allowed: allowed.into(),
        }
    }

    /// The value itself is the fault.
    pub(super) fn of(value: &Value<'_>, allowed: impl Into<String>) -> Self {
        Self::new(value.describe(), allowed)
    }
}

/// Whether a value stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Written,
    Default,
}

/// A checked value and where it stands; a default stands where its section begins.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) line: Option<Line>,
    pub(super) given: Given,
}

impl<T> Placed<T> {
    /// Where to point at; the first line when the section is absent.
    pub(super) fn at(&self) -> Line {
        self.line.unwrap_or(Line(1))
    }

    /// Another value in the same place.
    pub(super) fn map<U>(&self, change: impl FnOnce(&T) -> U) -> Placed<U> {
        Placed {
            value: change(&self.value),
            line: self.line,
            given: self.given,
        }
    }

    /// The value as text, marked when the operator did not write it.
    pub(super) fn show(&self, text: impl Fn(&T) -> String) -> String {
        match self.given {
            Given::Written => text(&self.value),
            Given::Default => format!("{} (the default)", text(&self.value)),
        }
    }
}
