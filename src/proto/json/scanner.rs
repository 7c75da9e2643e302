//! The grammar of JSON (RFC 8259), byte by byte, and what of it is refused.
//!
//! Knows where in the document it is, by way of the nodes of the places looked for.

use std::borrow::Cow;

use super::{MAX_DEPTH, Malformed, Node, Place, Value};

/// Members of an object that are compared one by one. Beyond, sorting is cheaper.
const FEW: usize = 16;

/// One pass over one text.
pub(super) struct Scanner<'m> {
    text: &'m str,
    at: usize,
    /// Of the members so far of all objects that are open, the innermost last.
    names: Vec<Cow<'m, str>>,
    found: Vec<Value<'m>>,
}

impl<'m> Scanner<'m> {
    /// For a text of which so many places are looked at.
    pub(super) fn new(text: &'m str, places: usize) -> Self {
        Self {
            text,
            at: 0,
            names: Vec::new(),
            found: vec![Value::Absent; places],
        }
    }

    /// Reads the whole text.
    pub(super) fn scan(mut self, root: &Node) -> Result<Vec<Value<'m>>, Malformed> {
        self.value(Some(root), 0)?;
        self.white_space();
        match self.at == self.text.len() {
            true => Ok(self.found),
            false => Err(Malformed::Syntax),
        }
    }

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
