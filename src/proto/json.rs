//! JSON texts (RFC 8259), scanned strictly for the values at a few places.
//!
//! What reads the message behind the edge is unknown, and must not see another value than a
//! rule saw. So a text is refused wherever parsers are known to differ: a name that occurs
//! twice in an object, however it is spelled; a surrogate without its other half; U+0000,
//! where some end a string; a number beyond what a 64-bit float holds; deep nesting; and of
//! course anything the grammar does not have (a byte order mark, comments, trailing commas,
//! leading zeros, NaN). In objects that are looked into, a name that differs from a name
//! looked for only by case is refused too, since some parsers take the one for the other.
//!
//! Builds no tree: what is kept is the values asked for, and for the time of an object the
//! names of its members. That is at most twelve times the length of the text.
//!
//! Owns the places and what is found there; the grammar is `scanner`'s.

mod scanner;

use std::borrow::Cow;
use std::fmt;

use self::scanner::Scanner;

/// Objects and arrays inside each other. Messages stay below ten; parsers differ from
/// a hundred on.
pub const MAX_DEPTH: usize = 64;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is not UTF-8.
    NotUtf8,
    /// It is not one JSON value.
    Syntax,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A name occurs twice in an object.
    RepeatedName,
    /// A name is one that is looked for, but for the case of its letters.
    NameInOtherCase,
    /// A `\u` escape of half a character.
    Surrogate,
    /// U+0000 in a string.
    Nul,
    /// A number too large for a 64-bit float.
    HugeNumber,
    /// A number that a rule compares, in another form than the shortest of a whole number
    /// that every parser holds exactly.
    InexactNumber,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "not UTF-8",
            Self::Syntax => "not JSON",
            Self::TooDeep => "nested too deep",
            Self::RepeatedName => "a name twice in one object",
            Self::NameInOtherCase => "a name that a rule looks for, in another case",
            Self::Surrogate => "half a surrogate pair",
            Self::Nul => "U+0000 in a string",
            Self::HugeNumber => "a number too large",
            Self::InexactNumber => "a compared number that is no plain whole number",
        })
    }
}

/// A JSON pointer to a member or an element, not to the whole document (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// A text that is not a pointer to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPointer;

impl Pointer {
    /// Reads its text form, `/payload/channel`.
    ///
    /// # Errors
    ///
    /// It does not begin with `/`, or a `~` is not followed by `0` or `1` (§3).
    pub fn parse(text: &str) -> Result<Self, NotAPointer> {
        let steps = text.strip_prefix('/').ok_or(NotAPointer)?;
        let steps: Result<_, _> = steps.split('/').map(unescape_step).collect();
        steps.map(Self)
    }
}

fn unescape_step(step: &str) -> Result<String, NotAPointer> {
    let mut parts = step.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = match part.strip_prefix('0') {
            Some(rest) => ('~', rest),
            None => ('/', part.strip_prefix('1').ok_or(NotAPointer)?),
        };
        text.push(escaped);
        text.push_str(rest);
    }
    Ok(text)
}

/// Stands for one place of [`Places`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

/// The places of a document that are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    root: Node,
    count: usize,
}

/// A step on the way to one or more places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// The place that ends here.
    place: Option<Place>,
    next: Vec<(Step, Self)>,
}

/// A name, which is also an index where it is written as one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    name: String,
    /// Decimal, without leading zeros (RFC 6901 §4).
    index: Option<usize>,
}

impl Places {
    /// Looks at one more place. The same pointer gives the same place.
    pub fn add(&mut self, pointer: &Pointer) -> Place {
        let mut node = &mut self.root;
        for name in &pointer.0 {
            let known = node.next.iter().position(|(step, _)| step.name == *name);
            let at = known.unwrap_or(node.next.len());
            if known.is_none() {
                node.next.push((Step::new(name), Node::default()));
            }
            let Some((_, next)) = node.next.get_mut(at) else {
                break;
            };
            node = next;
        }
        *node.place.get_or_insert_with(|| {
            self.count += 1;
            Place(self.count - 1)
        })
    }

    /// Reads the whole text, and finds what stands at the places.
    ///
    /// # Errors
    ///
    /// The text is not strictly JSON: see the head of this file.
    pub fn scan<'m>(&self, text: &'m str) -> Result<Found<'m>, Malformed> {
        Scanner::new(text, self.count).scan(&self.root).map(Found)
    }
}

impl Step {
    fn new(name: &str) -> Self {
        let canonical = name == "0" || !name.starts_with(['0', '+']);
        Self {
            name: name.to_owned(),
            index: name.parse().ok().filter(|_| canonical),
        }
    }
}

impl Node {
    fn named(&self, name: &str) -> Result<Option<&Self>, Malformed> {
        if let Some((_, next)) = self.next.iter().find(|(step, _)| step.name == name) {
            return Ok(Some(next));
        }
        if self
            .next
            .iter()
            .any(|(step, _)| is_in_other_case(&step.name, name))
        {
            return Err(Malformed::NameInOtherCase);
        }
        Ok(None)
    }

    fn at_index(&self, index: usize) -> Option<&Self> {
        let found = self.next.iter().find(|(step, _)| step.index == Some(index));
        found.map(|(_, next)| next)
    }
}

/// Whether two names that differ are one to a parser that ignores case: by way of upper case,
/// since some know that `ſ` and `K` (the Kelvin sign) are an s and a k. `İ` and `ẞ` are for
/// some an i and a small ß, for Unicode's own mapping not quite.
fn is_in_other_case(one: &str, other: &str) -> bool {
    if one.is_ascii() && other.is_ascii() {
        return one.eq_ignore_ascii_case(other);
    }
    let plain = |c: char| match c {
        'İ' => 'i',
        'ẞ' => 'ß',
        other => other,
    };
    let fold = |c: char| plain(c).to_uppercase().flat_map(char::to_lowercase);
    one.chars().flat_map(fold).eq(other.chars().flat_map(fold))
}

/// What stands at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'m> {
    /// Nothing.
    Absent,
    /// `null`.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number as it is written.
    Number(&'m str),
    /// A string, unescaped.
    Text(Cow<'m, str>),
    /// An array or an object.
    Container,
}

/// What stands at the places of one text.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'m>(Vec<Value<'m>>);

impl<'m> Found<'m> {
    /// What stands at `place`.
    pub fn at(&self, place: Place) -> &Value<'m> {
        self.0.get(place.0).unwrap_or(&Value::Absent)
    }
}

/// The number as a whole one, when its form is the shortest there is and every parser holds
/// it exactly, be it in a float (RFC 8259 §6).
pub fn exact_integer(number: &str) -> Option<i64> {
    const LARGEST: u64 = (1 << 53) - 1;
    let integer: i64 = number.parse().ok()?;
    let is_exact = integer.unsigned_abs() <= LARGEST && number != "-0";
    is_exact.then_some(integer)
}

#[cfg(test)]
mod tests;
