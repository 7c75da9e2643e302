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
//! names of its members. That is at most six times the length of the text.

use std::borrow::Cow;
use std::fmt;

/// Objects and arrays inside each other. Messages stay below ten; parsers differ from
/// a hundred on.
pub const MAX_DEPTH: usize = 64;

/// Members of an object that are compared one by one. Beyond, sorting is cheaper.
const FEW: usize = 16;

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
    next: Vec<(Step, Node)>,
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
    pub fn scan<'m>(&self, text: &'m [u8]) -> Result<Found<'m>, Malformed> {
        let text = std::str::from_utf8(text).map_err(|_| Malformed::NotUtf8)?;
        let mut scanner = Scanner {
            text,
            at: 0,
            names: Vec::new(),
            found: vec![Value::Absent; self.count],
        };
        scanner.value(Some(&self.root), 0)?;
        scanner.white_space();
        if scanner.at < text.len() {
            return Err(Malformed::Syntax);
        }
        Ok(Found(scanner.found))
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
/// since some know that `ſ` and `K` (the Kelvin sign) are an s and a k.
fn is_in_other_case(one: &str, other: &str) -> bool {
    if one.is_ascii() && other.is_ascii() {
        return one.eq_ignore_ascii_case(other);
    }
    let fold = |c: char| c.to_uppercase().flat_map(char::to_lowercase);
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

struct Scanner<'m> {
    text: &'m str,
    at: usize,
    /// Of the members so far of all objects that are open, the innermost last.
    names: Vec<Cow<'m, str>>,
    found: Vec<Value<'m>>,
}

impl<'m> Scanner<'m> {
    /// Reads one value. `node`: where it stands, if there may be something to find.
    fn value(&mut self, node: Option<&Node>, depth: usize) -> Result<(), Malformed> {
        self.white_space();
        let place = node.and_then(|node| node.place);
        let value = match self.peek() {
            Some(b'"') => {
                self.at += 1;
                match place {
                    Some(_) => Value::Text(self.string()?),
                    None => return self.rest_of_string(|_| ()),
                }
            }
            Some(b'{' | b'[') if depth == MAX_DEPTH => return Err(Malformed::TooDeep),
            Some(b'{') => {
                self.at += 1;
                self.object(node, depth + 1)?;
                Value::Container
            }
            Some(b'[') => {
                self.at += 1;
                self.array(node, depth + 1)?;
                Value::Container
            }
            Some(b't') => self.literal("true", Value::Flag(true))?,
            Some(b'f') => self.literal("false", Value::Flag(false))?,
            Some(b'n') => self.literal("null", Value::Null)?,
            _ => Value::Number(self.number()?),
        };
        if let Some(Place(place)) = place
            && let Some(found) = self.found.get_mut(place)
        {
            *found = value;
        }
        Ok(())
    }

    /// Reads the members of an object, behind its `{`.
    fn object(&mut self, node: Option<&Node>, depth: usize) -> Result<(), Malformed> {
        self.white_space();
        if self.skip(b'}') {
            return Ok(());
        }
        let first = self.names.len();
        loop {
            self.white_space();
            self.expect(b'"')?;
            let name = self.string()?;
            let next = match node {
                Some(node) => node.named(&name)?,
                None => None,
            };
            let seen = self.names.get(first..).unwrap_or_default();
            if seen.len() < FEW && seen.contains(&name) {
                return Err(Malformed::RepeatedName);
            }
            self.names.push(name);
            self.white_space();
            self.expect(b':')?;
            self.value(next, depth)?;
            self.white_space();
            if !self.skip(b',') {
                break;
            }
        }
        self.expect(b'}')?;
        if has_repetition(self.names.get_mut(first..).unwrap_or_default()) {
            return Err(Malformed::RepeatedName);
        }
        self.names.truncate(first);
        Ok(())
    }

    /// Reads the elements of an array, behind its `[`.
    fn array(&mut self, node: Option<&Node>, depth: usize) -> Result<(), Malformed> {
        self.white_space();
        if self.skip(b']') {
            return Ok(());
        }
        let mut index = 0;
        loop {
            self.value(node.and_then(|node| node.at_index(index)), depth)?;
            self.white_space();
            if !self.skip(b',') {
                return self.expect(b']');
            }
            index += 1;
        }
    }

    /// Reads a string behind its opening quote.
    fn string(&mut self) -> Result<Cow<'m, str>, Malformed> {
        let plain = self.plain();
        if self.skip(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        self.rest_of_string(|piece| text.push_str(piece))?;
        Ok(Cow::Owned(text))
    }

    /// Reads a string to its closing quote, and hands it over unescaped, piece by piece.
    fn rest_of_string(&mut self, mut take: impl FnMut(&str)) -> Result<(), Malformed> {
        loop {
            take(self.plain());
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => take(self.escaped()?.encode_utf8(&mut [0; 4])),
                // The end, or a control character.
                _ => return Err(Malformed::Syntax),
            }
        }
    }

    /// The part of a string that stands for itself.
    fn plain(&mut self) -> &'m str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1F);
        let len = rest.bytes().position(|byte| is_special(&byte));
        let plain = rest.get(..len.unwrap_or(rest.len())).unwrap_or_default();
        self.at += plain.len();
        plain
    }

    /// The character of an escape, behind its `\`.
    fn escaped(&mut self) -> Result<char, Malformed> {
        Ok(match self.next() {
            Some(same @ (b'"' | b'\\' | b'/')) => char::from(same),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(Malformed::Syntax),
        })
    }

    /// The character of one or two `\u` escapes, behind the first `\u`.
    fn unicode_escape(&mut self) -> Result<char, Malformed> {
        let unit = self.hex()?;
        let code = match unit {
            0 => return Err(Malformed::Nul),
            0xD800..=0xDBFF => {
                if !(self.skip(b'\\') && self.skip(b'u')) {
                    return Err(Malformed::Surrogate);
                }
                let low = self.hex()?;
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(Malformed::Surrogate);
                }
                0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
            }
            unit => unit,
        };
        char::from_u32(code).ok_or(Malformed::Surrogate)
    }

    fn hex(&mut self) -> Result<u32, Malformed> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or(Malformed::Syntax)?;
        }
        Ok(unit)
    }

    fn literal(&mut self, word: &str, value: Value<'m>) -> Result<Value<'m>, Malformed> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(Malformed::Syntax);
        }
        self.at += word.len();
        Ok(value)
    }

    /// Reads a number, and leaves it as it is written.
    fn number(&mut self) -> Result<&'m str, Malformed> {
        let start = self.at;
        self.skip(b'-');
        if !self.skip(b'0') {
            self.digits()?;
        }
        let mut is_long = false;
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            is_long = true;
            let _is_signed = self.skip(b'+') || self.skip(b'-');
            self.digits()?;
        }
        let number = self.text.get(start..self.at).unwrap_or_default();
        // A hundred digits are far from the end of a float.
        if (is_long || number.len() > 100) && !number.parse().is_ok_and(f64::is_finite) {
            return Err(Malformed::HugeNumber);
        }
        Ok(number)
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        match self.at > start {
            true => Ok(()),
            false => Err(Malformed::Syntax),
        }
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Whether the next byte is this one; then it is read.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        match self.skip(byte) {
            true => Ok(()),
            false => Err(Malformed::Syntax),
        }
    }
}

/// Whether a name occurs twice, among so many that they were not compared as they came.
fn has_repetition(names: &mut [Cow<'_, str>]) -> bool {
    if names.len() <= FEW {
        return false;
    }
    names.sort_unstable();
    names
        .windows(2)
        .any(|pair| matches!(pair, [one, other] if one == other))
}

#[cfg(test)]
mod tests;
