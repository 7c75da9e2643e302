//! The text of the configuration file, and what of it may be shown.
//!
//! Secrets do not belong into the file, but an operator may have put one there: then the
//! message about it must not carry it into a log. A line that may hold one is shown up to
//! its `=`.

use std::fmt;

use crate::config::Line;

/// The text of the file. `Debug` prints its length only, since it may hold a secret by mistake.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    /// Takes the text of a file.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole text.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// The line that holds the byte at `offset`; past the end it is the last line.
    pub(super) fn line_at(&self, offset: usize) -> Line {
        let before = self.0.as_bytes().get(..offset).unwrap_or(self.0.as_bytes());
        let breaks = before.iter().filter(|byte| **byte == b'\n').count();
        Line(u32::try_from(breaks + 1).unwrap_or(u32::MAX))
    }

    /// A line as it may be printed beside a problem with `key`: without indentation, without
    /// control characters, cut when it is long, and without what may be a secret.
    /// `None` when there is no such line or it is blank.
    pub fn shown(&self, line: Line, key: &str) -> Option<String> {
        let index = usize::try_from(line.0).ok()?.checked_sub(1)?;
        let text = self.0.lines().nth(index)?.trim();
        if text.is_empty() {
            return None;
        }
        if self.is_inside_string(index) {
            return Some("… (inside a string)".to_owned());
        }
        let secret = names_secret(key) || has_secret_key(text) || self.is_about_tokens(index, text);
        if secret && !is_header(text) {
            return Some(match text.split_once('=') {
                Some((name, _)) => printable(&format!("{name}= … (not shown)")),
                None => "… (not shown)".to_owned(),
            });
        }
        Some(printable(text))
    }

    /// Whether a multi-line string is open where the line begins.
    fn is_inside_string(&self, index: usize) -> bool {
        let mut open: Option<&str> = None;
        for line in self.0.lines().take(index) {
            let mut rest = line;
            while let Some((at, quotes)) = next_quotes(rest, open) {
                open = if open.is_some() { None } else { Some(quotes) };
                rest = &rest[at + quotes.len()..];
            }
        }
        open.is_some()
    }

    /// Whether a line that is not harmless stands below the header of a `jwt` table.
    fn is_about_tokens(&self, index: usize, text: &str) -> bool {
        let above = self.0.lines().take(index);
        let header = above
            .map(str::trim)
            .filter(|line| line.starts_with('['))
            .last();
        let name = text.split('=').next().unwrap_or_default().trim();
        header.is_some_and(|header| words(header).any(|word| word == "jwt"))
            && !HARMLESS.contains(&name)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({} bytes)", self.0.len())
    }
}

/// Keys whose value may be a secret. The `key` of a certificate is a path, but what else
/// stands on its line may be the passphrase of that key.
const SECRET_KEYS: [&str; 7] = [
    "key",
    "secret",
    "password",
    "passphrase",
    "pass",
    "token",
    "private",
];

/// Keys of `[route.auth.jwt]` that hold none.
const HARMLESS: [&str; 4] = ["algorithms", "issuer", "audience", "leeway"];

/// Keys below the others of `[route.auth.jwt]` that say where a key is and not what it is.
const PLACES_AND_TIMES: [&str; 8] = [
    "env",
    "file",
    "url",
    "ca",
    "refresh",
    "refetch_interval",
    "timeout",
    "max_age",
];

/// Whether the key path lies below a `jwt` table and is not one of the harmless keys.
fn names_secret(key: &str) -> bool {
    let mut parts = key.split('.').skip_while(|part| *part != "jwt").skip(1);
    // The number of one of several tables is no key.
    let key = parts.find(|part| !part.starts_with('#'));
    key.is_some_and(|key| !HARMLESS.contains(&key))
}

/// Whether the value at this path of a file that was accepted may still be a secret.
pub(super) fn may_be_secret(path: &str) -> bool {
    let key = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    let key = key.as_str();
    SECRET_KEYS.contains(&key) || (names_secret(path) && !PLACES_AND_TIMES.contains(&key))
}

/// Whether one of [`SECRET_KEYS`] stands where a key stands: before a `=`, or before anything
/// else in a line that was meant to have one.
fn has_secret_key(text: &str) -> bool {
    let mut pieces: Vec<&str> = text.split('=').collect();
    if pieces.len() > 1 {
        pieces.pop();
    }
    let is_secret = |word: &str| SECRET_KEYS.contains(&word.to_ascii_lowercase().as_str());
    let first = pieces.first().copied().unwrap_or_default();
    let mut last_words = pieces
        .iter()
        .filter_map(|piece| words(piece).filter(|word| !word.is_empty()).last());
    words(first).any(is_secret) || last_words.any(is_secret)
}

/// `[route.auth.jwt]` and the like.
fn is_header(text: &str) -> bool {
    text.starts_with('[') && text.ends_with(']') && !text.contains(['=', '"', '\''])
}

/// The identifiers in a piece of TOML.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
}

/// The next triple quotes that open a string, or close the one that is open.
fn next_quotes<'a>(text: &str, open: Option<&'a str>) -> Option<(usize, &'a str)> {
    match open {
        Some(quotes) => text.find(quotes).map(|at| (at, quotes)),
        None => ["\"\"\"", "'''"]
            .into_iter()
            .filter_map(|quotes| text.find(quotes).map(|at| (at, quotes)))
            .min(),
    }
}

/// Keeps control characters from the terminal, passwords in URLs from everybody, and long
/// lines short.
pub(super) fn printable(text: &str) -> String {
    let text = without_user(text);
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Takes the user and the password out of every URL (RFC 3986 §3.2.1).
fn without_user(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(['"', '\'']).unwrap_or(after.len());
        let from = after[..end].rfind('@').unwrap_or(0);
        kept += before;
        kept += if from > 0 { "://…" } else { "://" };
        rest = &after[from..];
    }
    kept + rest
}

/// Characters of a line or a value that are printed: enough to recognise it.
const LONGEST: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: u32, key: &str) -> Option<String> {
        Source::new(text).shown(Line(line), key)
    }

    #[test]
    fn a_plain_line_is_shown_as_it_stands() {
        assert_eq!(
            shown("  path = \"/chat\"  # all\n", 1, "route.chat.path").as_deref(),
            Some("path = \"/chat\"  # all")
        );
    }

    #[test]
    fn an_inline_secret_is_never_shown() {
        let cases = [
            ("key = \"hunter2\"", 1, "route.chat.auth.jwt.key"),
            ("key = \"hunter2", 1, ""),
            ("key = hunter2", 1, ""),
            ("jwt = { key = \"hunter2\" }", 1, "route.chat.auth.method"),
            ("auth.jwt.key = \"hunter2\"", 1, ""),
            ("\"key\" = \"hunter2\"", 1, ""),
            ("[route.auth.jwt]\nkeyy = \"hunter2\"", 2, ""),
            ("[route.auth.jwt.key]\nvalue = \"hunter2", 2, ""),
            ("value = \"hunter2\"", 1, "route.chat.auth.jwt.key.value"),
            ("value = \"hunter2\"", 1, "route.chat.auth.jwt.#2.key.value"),
            ("[[route.auth.jwt]]\nvalue = \"hunter2\"", 2, ""),
            ("key = \"\"\"\nhunter2\\q\n\"\"\"", 2, ""),
            ("key = '''\nhunter2", 2, ""),
            ("secret = 'hunter2'", 1, ""),
            ("[route.auth.jwt]\n'hunter2'", 2, ""),
            ("key \"hunter2\"", 1, ""),
            ("\"key\": \"hunter2\"", 1, ""),
            ("cert = 'a', key = 'hunter2'", 1, ""),
            (
                "{ cert = 'a', key = 'b', pass = 'hunter2' }",
                1,
                "listener.#1.tls.certificates.#1.pass",
            ),
            ("endpoints = [\"ws://h\", \"ws://user:hunter2@h\"]", 1, ""),
            ("endpoints = [\"ws://user:hun@hunter2@h\"", 1, ""),
            ("'ws://user:hunter2@h' 'ws://user:hunter2@h'", 1, ""),
        ];
        for (text, line, key) in cases {
            let shown = shown(text, line, key).expect("the line exists");
            assert!(!shown.contains("hunter2"), "{text} is shown as {shown}");
        }
    }

    #[test]
    fn a_line_without_a_secret_is_not_hidden() {
        let cases = [
            ("token_field = \"token\"", "route.chat.auth.token_field"),
            ("[route.auth.jwt]", "route.chat.auth.jwt.key"),
            ("issuer = \"https://id\"", "route.chat.auth.jwt.#2.issuer"),
            (
                "issuer = \"https://id.example.com\"",
                "route.chat.auth.jwt.issuer",
            ),
            ("endpoints = [\"ws://h:1/a\"]", "upstream.chat.endpoints"),
        ];
        for (text, key) in cases {
            assert_eq!(shown(text, 1, key).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_closed_multi_line_string_hides_nothing_below_it() {
        let text = "reply = \"\"\"\nx\n\"\"\"\npath = \"/a\"";
        assert_eq!(shown(text, 4, "").as_deref(), Some("path = \"/a\""));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[2J", 1, "").as_deref(), Some("a\u{fffd}[2J"));
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = "x".repeat(LONGEST + 1);
        let shown = shown(&text, 1, "").expect("the line exists");
        assert_eq!(shown.chars().count(), LONGEST + 1);
        assert!(shown.ends_with('…'));
    }

    #[test]
    fn lines_are_counted_from_one_and_end_with_the_text() {
        let source = Source::new("a\nb\n");
        assert_eq!(source.line_at(0), Line(1));
        assert_eq!(source.line_at(2), Line(2));
        assert_eq!(source.line_at(99), Line(3));
        assert_eq!(source.shown(Line(3), ""), None);
        assert_eq!(source.shown(Line(0), ""), None);
    }
}
