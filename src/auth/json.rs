//! JSON objects without repeated members, at any depth.
//!
//! serde_json keeps the last of two equal members, other readers the first. Two programs that
//! read a token differently are an attack waiting to happen, so a repetition is an error
//! (RFC 7515 §4, RFC 7519 §4, RFC 8725 §2.4).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not JSON, not an object, or nested deeper than serde_json reads (128).
    Malformed,
    /// A member occurs twice.
    Duplicate,
}

/// Reads one object. Memory is bounded by the length of the input, times a small factor.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Value, Fault> {
    match serde_json::from_slice::<Unique>(bytes) {
        Ok(Unique(object @ Value::Object(_))) => Ok(object),
        Ok(_) => Err(Fault::Malformed),
        // The visitor below accepts every type, so the one error of this category is its own.
        Err(error) if error.is_data() => Err(Fault::Duplicate),
        Err(_) => Err(Fault::Malformed),
    }
}

/// A value none of whose objects has two members of the same name.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Unique(value)) = seq.next_element()? {
            elements.push(value);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Unique(value))) = map.next_entry::<String, Unique>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("repeated member"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,0.5,null,true,"x\u0041"],"b":{"c":{}},"d":1e3}"#;
        assert_eq!(
            parse_object(text.as_bytes()),
            Ok(json!({"a": [1, -2, 0.5, null, true, "xA"], "b": {"c": {}}, "d": 1e3}))
        );
    }

    #[test]
    fn a_repeated_member_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"{"x":[{"a":1,"a":1}]}"#,
        ] {
            assert_eq!(
                parse_object(text.as_bytes()),
                Err(Fault::Duplicate),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_one_object_is_malformed() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for text in [
            "",
            "null",
            "[]",
            "\"a\"",
            "1",
            "{",
            "{}{}",
            "{} x",
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":1e999}"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
            &deep,
        ] {
            assert_eq!(
                parse_object(text.as_bytes()),
                Err(Fault::Malformed),
                "{text}"
            );
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), Err(Fault::Malformed));
    }
}
