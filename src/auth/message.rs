//! The token in a first message.
//!
//! Owns where in the message the token stands. Does not know what a good token is.
//!
//! Nothing is built from the JSON document but the token itself: a stranger's message costs
//! no more memory than its own length, however it is nested.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::auth::TokenRefused;

/// Finds the token in a message.
///
/// Without `field` the whole message is the token, and white space around it is ignored. With
/// it the message is a JSON document and the field a string in it, taken as it is. Either way
/// the prefix `Bearer ` is dropped, in any case (RFC 6750 §2.1).
///
/// # Errors
/// [`TokenRefused::NotJson`], the variants about the field, and [`TokenRefused::Empty`].
pub fn extract_token<'m>(
    message: &'m str,
    field: Option<&Pointer>,
) -> Result<Cow<'m, str>, TokenRefused> {
    let found = match field {
        None => Cow::Borrowed(message.trim_matches([' ', '\t', '\r', '\n'])),
        Some(pointer) => find_text(message, pointer)?,
    };
    let token = match found {
        Cow::Borrowed(text) => Cow::Borrowed(without_scheme(text)),
        Cow::Owned(text) => Cow::Owned(without_scheme(&text).to_owned()),
    };
    if token.is_empty() {
        return Err(TokenRefused::Empty);
    }
    Ok(token)
}

/// Checks the member `type` of a message that is an object.
///
/// # Errors
/// [`TokenRefused::NotJson`], and [`TokenRefused::MessageType`] when it is another or absent.
pub fn check_type(message: &str, wanted: &str) -> Result<(), TokenRefused> {
    match find_text(message, &Pointer::to_member("type")) {
        Ok(found) if found == wanted => Ok(()),
        Err(TokenRefused::NotJson) => Err(TokenRefused::NotJson),
        Ok(_) | Err(_) => Err(TokenRefused::MessageType),
    }
}

/// A JSON pointer to a member or an element, not to the whole document (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads its text form, `/payload/token`.
    ///
    /// # Errors
    /// Where it does not begin with `/`, or a `~` is not followed by `0` or `1` (§3).
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let steps = text.strip_prefix('/').ok_or(PointerError)?;
        steps
            .split('/')
            .map(unescape)
            .collect::<Result<_, _>>()
            .map(Pointer)
    }

    /// That of a member of the document itself.
    pub(super) fn to_member(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

/// A text that is not a pointer to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a JSON pointer such as \"/token\" or \"/payload/token\" (`~` is written `~0`, `/` as `~1`)"
)]
pub struct PointerError;

fn unescape(step: &str) -> Result<String, PointerError> {
    let mut pieces = step.split('~');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (meant, rest) = match (piece.strip_prefix('0'), piece.strip_prefix('1')) {
            (Some(rest), _) => ('~', rest),
            (_, Some(rest)) => ('/', rest),
            (None, None) => return Err(PointerError),
        };
        text.push(meant);
        text.push_str(rest);
    }
    Ok(text)
}

fn without_scheme(text: &str) -> &str {
    match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => {
            rest.trim_start_matches(' ')
        }
        _ => text,
    }
}

/// Finds a string in a JSON document.
///
/// # Errors
/// [`TokenRefused::NotJson`] and the variants about the field.
pub(super) fn find_text<'d>(
    document: &'d str,
    pointer: &Pointer,
) -> Result<Cow<'d, str>, TokenRefused> {
    let mut json = serde_json::Deserializer::from_str(document);
    let found = Walk(&pointer.0)
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found))
        .map_err(|_| TokenRefused::NotJson)?;
    match found {
        Found::Text(text) => Ok(text),
        Found::Other => Err(TokenRefused::FieldNotString),
        Found::Nothing => Err(TokenRefused::FieldMissing),
        Found::Repeated => Err(TokenRefused::FieldRepeated),
    }
}

enum Found<'m> {
    Text(Cow<'m, str>),
    Other,
    Nothing,
    Repeated,
}

/// Reads a value and answers what stands at the end of the steps that are left.
struct Walk<'p>(&'p [String]);

impl Walk<'_> {
    /// What a value that is no text amounts to.
    fn scalar<'m>(&self) -> Found<'m> {
        if self.0.is_empty() {
            Found::Other
        } else {
            Found::Nothing
        }
    }

    fn text<'m>(&self, text: impl FnOnce() -> Cow<'m, str>) -> Found<'m> {
        if self.0.is_empty() {
            Found::Text(text())
        } else {
            Found::Nothing
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Found<'de>, E> {
        Ok(self.scalar())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Found<'de>, E> {
        Ok(self.scalar())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Found<'de>, E> {
        Ok(self.scalar())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Found<'de>, E> {
        Ok(self.scalar())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Found<'de>, E> {
        Ok(self.scalar())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Found<'de>, E> {
        Ok(self.text(|| Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Found<'de>, E> {
        Ok(self.text(|| Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found<'de>, A::Error> {
        let mut found = self.scalar();
        let Some((step, rest)) = self.0.split_first() else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(found);
        };
        let wanted = array_index(step);
        let mut index = 0_usize;
        loop {
            if Some(index) == wanted {
                match seq.next_element_seed(Walk(rest))? {
                    Some(value) => found = value,
                    None => break,
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
            index += 1;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = self.scalar();
        let Some((step, rest)) = self.0.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(found);
        };
        let mut times = 0_usize;
        while let Some(name) = map.next_key_seed(Compare(step))? {
            match name {
                Name::Step if times == 0 => found = map.next_value_seed(Walk(rest))?,
                Name::Step | Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            times += usize::from(matches!(name, Name::Step));
        }
        Ok(if times > 1 { Found::Repeated } else { found })
    }
}

/// A step into an array: decimal, without leading zeros (RFC 6901 §4).
fn array_index(step: &str) -> Option<usize> {
    let canonical = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| canonical)
}

/// Compares the name of a member, unescaped, with the step that is looked for.
struct Compare<'p>(&'p str);

enum Name {
    Step,
    Other,
}

impl<'de> DeserializeSeed<'de> for Compare<'_> {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Compare<'_> {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        Ok(if name == self.0 {
            Name::Step
        } else {
            Name::Other
        })
    }
}

#[cfg(test)]
mod tests;
