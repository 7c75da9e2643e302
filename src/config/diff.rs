//! What differs between two texts of the configuration, key by key, for the log of a reload.
//!
//! Compares what is written and not what it means: a default that is written down is a change.
//! Values are shown as an operator may see them, and never one that may be a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::config::answer::Reported;
use crate::config::file::{Reading, Section, Value};
use crate::config::source::{Source, may_be_secret, printable};

/// One key, or one whole section, that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `route.chat.limits.max_frame_size`; tables of a list go by their `name` or `bind`.
    pub key: String,
    /// What was written before; `None`: nothing.
    pub old: Option<String>,
    /// What is written now; `None`: nothing.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| ABSENT.to_owned());
        write!(
            f,
            "{}: {} → {}",
            self.key,
            shown(&self.old),
            shown(&self.new)
        )
    }
}

/// The changes from one text to another, in the order of their keys. A text that is no TOML
/// counts as empty.
pub fn diff(old: &Source, new: &Source) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(String::new(), &tree(old), &tree(new), &mut changes);
    changes
}

type Table = BTreeMap<String, Node>;

/// A value of the file.
#[derive(PartialEq, Eq)]
enum Node {
    Leaf(Leaf),
    Table(Table),
}

/// Equal where all of it is, whatever is shown.
#[derive(PartialEq, Eq)]
struct Leaf {
    whole: String,
    may_be_secret: bool,
}

impl Node {
    fn describe(&self) -> String {
        match self {
            Self::Leaf(leaf) => leaf.shown(),
            Self::Table(table) => match table.len() {
                1 => "a section of 1 key".to_owned(),
                n => format!("a section of {n} keys"),
            },
        }
    }
}

impl Leaf {
    /// Without what may be a secret: the query of an address may be a password, too.
    fn shown(&self) -> String {
        if self.may_be_secret {
            return "… (not shown)".to_owned();
        }
        let mut rest = self.whole.as_str();
        let mut shown = String::new();
        while let Some((before, after)) = rest.split_once("://") {
            let end = after.find('"').unwrap_or(after.len());
            let (address, behind) = after.split_at(end);
            let query = address.split_once('?');
            let address = query.map_or(address.to_owned(), |(address, _)| format!("{address}?…"));
            shown += &format!("{before}://{address}");
            rest = behind;
        }
        printable(&(shown + rest))
    }
}

fn tree(source: &Source) -> Table {
    let reading = Reading::new(source, Path::new(""));
    let table = reading
        .document()
        .and_then(|document| table(&document.root(&reading)));
    table.unwrap_or_default()
}

fn table(section: &Section<'_>) -> Result<Table, Reported> {
    let entries = section.entries(|key, value| Ok((key.to_owned(), value.clone())))?;
    let mut table = Table::new();
    for entry in entries {
        let (key, value) = entry.value;
        let node = node(section, &key, &value)?;
        table.insert(key, node);
    }
    Ok(table)
}

fn node(section: &Section<'_>, key: &str, value: &Value<'_>) -> Result<Node, Reported> {
    if value.is_table() {
        return Ok(Node::Table(table(&section.entry(value)?)?));
    }
    let path = format!("{}.{key}", section.place());
    let items = value.items().unwrap_or_default();
    if !items.iter().any(Value::is_table) {
        return Ok(leaf(&path, value));
    }
    let mut tables = Table::new();
    for item in &items {
        match item.is_table() {
            true => insert(&mut tables, table(&section.entry(item)?)?),
            false => {
                tables.insert(format!("#{}", tables.len() + 1), leaf(&path, item));
            }
        }
    }
    Ok(Node::Table(tables))
}

fn leaf(path: &str, value: &Value<'_>) -> Node {
    Node::Leaf(Leaf {
        whole: whole(value),
        may_be_secret: may_be_secret(path),
    })
}

/// All of a value, as text.
fn whole(value: &Value<'_>) -> String {
    match (value.text(), value.items()) {
        (Some(text), _) => format!("\"{text}\""),
        (None, Some(items)) => {
            let items: Vec<String> = items.iter().map(whole).collect();
            format!("[{}]", items.join(", "))
        }
        (None, None) => {
            let described = value.describe();
            let number = described.strip_prefix("the number ");
            number.unwrap_or(&described).to_owned()
        }
    }
}

/// Adds a table of a list under the name that its operator knows it by.
fn insert(tables: &mut Table, table: Table) {
    let own = |key| match table.get(key) {
        Some(Node::Leaf(leaf)) => Some(leaf.whole.trim_matches('"').to_owned()),
        _ => None,
    };
    let name = own("name").or_else(|| own("bind"));
    let name = name.unwrap_or_else(|| format!("#{}", tables.len() + 1));
    let numbered = format!("{name}#{}", tables.len() + 1);
    let key = match tables.contains_key(&name) {
        true => numbered,
        false => name,
    };
    tables.insert(key, Node::Table(table));
}

fn compare(path: String, old: &Table, new: &Table, changes: &mut Vec<Change>) {
    let below = |key: &str| match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let mut keys: Vec<&String> = new.keys().chain(gone).collect();
    keys.sort();
    for key in keys {
        match (old.get(key), new.get(key)) {
            (Some(Node::Table(old)), Some(Node::Table(new))) => {
                compare(below(key), old, new, changes);
            }
            (old, new) if old == new => {}
            (old, new) => changes.push(Change {
                key: printable(&below(key)),
                old: old.map(Node::describe),
                new: new.map(Node::describe),
            }),
        }
    }
}

/// How the absence of a key is shown.
const ABSENT: &str = "(not in the file)";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(old: &str, new: &str) -> Vec<String> {
        let changes = diff(&Source::new(old), &Source::new(new));
        changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn the_same_values_in_another_order_and_form_are_no_change() {
        let old = "[server]\nworkers = 2\ndrain = { grace = \"9s\" }\n";
        let new = "# said\n[server.drain]\ngrace = '9s'\n[server]\nworkers = 2\n";
        assert_eq!(lines(old, new), [""; 0]);
    }

    #[test]
    fn a_value_that_changed_is_shown_with_what_it_was() {
        let old = "[limits]\nmax_headers = 64\nrequest_head_timeout = \"10s\"\n";
        let new = "[limits]\nmax_headers = 32\nmax_connections = 5\n";
        assert_eq!(
            lines(old, new),
            [
                "limits.max_connections: (not in the file) → 5",
                "limits.max_headers: 64 → 32",
                "limits.request_head_timeout: \"10s\" → (not in the file)",
            ]
        );
    }

    #[test]
    fn tables_of_a_list_are_found_again_by_their_names() {
        let old =
            "[[route]]\nname = \"a\"\npath = \"/a\"\n[[route]]\nname = \"b\"\npath = \"/b\"\n";
        let new = "[[route]]\nname = \"b\"\npath = \"/c\"\n[[route]]\nname = \"n\"\n";
        assert_eq!(
            lines(old, new),
            [
                "route.a: a section of 2 keys → (not in the file)",
                "route.b.path: \"/b\" → \"/c\"",
                "route.n: (not in the file) → a section of 1 key",
            ]
        );
        let twice = "[[listener]]\nbind = \"127.0.0.1:0\"\nx = 1\n";
        let old = format!("{twice}{twice}");
        let new = format!("{twice}[[listener]]\nbind = \"127.0.0.1:0\"\nx = 2\n");
        assert_eq!(lines(&old, &new), ["listener.127.0.0.1:0#2.x: 1 → 2"]);
    }

    #[test]
    fn lists_are_values() {
        let old = "[a]\nlist = [\"x\", \"y\"]\n";
        let new = "[a]\nlist = []\n";
        assert_eq!(lines(old, new), ["a.list: [\"x\", \"y\"] → []"]);
    }

    #[test]
    fn a_difference_behind_what_is_shown_is_one() {
        let config = |end: &str| format!("[a]\nreply = \"{}{end}\"\n", "x".repeat(500));
        let shown = lines(&config("y"), &config("z"));
        assert_eq!(shown.len(), 1);
        assert!(shown.iter().all(|line| line.chars().count() < 300));
        let tables = |n: u8| format!("[a]\nlist = [1, {{ b = {n} }}]\n");
        assert_eq!(lines(&tables(1), &tables(2)), ["a.list.#2.b: 1 → 2"]);
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        let config = |key: &str, token: &str, url: &str| {
            format!(
                "[admin]\ntoken = \"{token}\"\n[[route]]\nname = \"a\"\n[route.auth.jwt]\nkey = \"{key}\"\n\
                 jwks = \"{url}\"\n[identity]\nurl = \"{url}\"\n"
            )
        };
        let old = config("hunter2", "swordfish", "https://u:pw@id.example/?k=hush");
        let new = config("hunter3", "swordfish1", "https://id.example/?k=other");
        let shown = lines(&old, &new).join("\n");
        for secret in ["hunter", "sword", "hush", "other", "pw"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(shown.lines().count(), 4, "{shown}");
    }

    #[test]
    fn a_text_that_is_no_toml_counts_as_empty() {
        assert_eq!(
            lines("[", "[a]\nb = 1\n"),
            ["a: (not in the file) → a section of 1 key"]
        );
    }

    proptest! {
        #[test]
        fn any_two_texts_can_be_compared_and_told_of(
            lines in prop::collection::vec("(\\[{1,2}(a|b|jwt)\\]{1,2}|(name|key|a) = (1|'.{0,9}'|\\[\\]|\\{ b = 1 \\}))", 0..8),
            cut in 0..8usize,
        ) {
            let whole = Source::new(lines.join("\n"));
            let half = Source::new(lines[..cut.min(lines.len())].join("\n"));
            prop_assert_eq!(diff(&whole, &whole), []);
            for change in diff(&half, &whole) {
                let moves = |c: char| c.is_control() && c != '\t';
                prop_assert!(!change.to_string().contains(moves), "{:?}", change);
            }
        }
    }
}
