//! How a claim becomes the value of a header: as text that every server reads alike, or not
//! at all.

use serde_json::{Number, Value};

use crate::auth::claims::MAX_EXACT_FLOAT;
use crate::auth::refused::HeaderFault;
use crate::config::ClaimFormat;

/// Bytes of the longest claim that is sent as text.
pub const MAX_TEXT: usize = 1024;

/// Bytes of the longest claim that is sent as JSON, whose names and quotes count too; servers
/// take heads of 8 KiB and more.
pub const MAX_JSON: usize = 4 * 1024;

/// The claim as a value, or why it cannot be one.
pub(super) fn value(claim: &Value, format: ClaimFormat) -> Result<String, HeaderFault> {
    let (text, longest) = match format {
        ClaimFormat::Text => (text(claim)?, MAX_TEXT),
        ClaimFormat::Json => (json(claim)?, MAX_JSON),
    };
    if text.len() > longest {
        return Err(HeaderFault::TooLong);
    }
    Ok(text)
}

/// Strings, numbers and booleans; an array of those joined by commas.
fn text(claim: &Value) -> Result<String, HeaderFault> {
    match claim {
        Value::Array(elements) => {
            let elements = elements.iter().map(|element| match scalar(element)? {
                text if text.contains(',') => Err(HeaderFault::Comma),
                text => Ok(text),
            });
            Ok(elements.collect::<Result<Vec<_>, _>>()?.join(","))
        }
        other => scalar(other),
    }
}

/// One value as text that every server reads alike (RFC 9110 §5.5): visible ASCII, with
/// spaces only inside, since those at the ends would be trimmed on the way.
fn scalar(value: &Value) -> Result<String, HeaderFault> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => exact(number)?,
        Value::Null | Value::Array(_) | Value::Object(_) => return Err(HeaderFault::Nested),
    };
    let visible = text.bytes().all(|b| matches!(b, b' '..=b'~'));
    if !visible || text.starts_with(' ') || text.ends_with(' ') {
        return Err(HeaderFault::Character);
    }
    Ok(text)
}

/// Two large identifiers must not become one by being read as floats.
fn exact(number: &Number) -> Result<String, HeaderFault> {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.abs() >= MAX_EXACT_FLOAT => {
            Err(HeaderFault::Inexact)
        }
        _ => Ok(number.to_string()),
    }
}

/// Compact JSON in visible ASCII: every other character is one of a string's, where `\\u`
/// stands for it (RFC 8259 §7).
fn json(claim: &Value) -> Result<String, HeaderFault> {
    check_exact(claim)?;
    let mut ascii = String::new();
    for c in claim.to_string().chars() {
        if matches!(c, ' '..='~') {
            ascii.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            ascii.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Ok(ascii)
}

/// What was read as JSON is nested at most 128 deep.
fn check_exact(claim: &Value) -> Result<(), HeaderFault> {
    match claim {
        Value::Number(number) => exact(number).map(drop),
        Value::Array(elements) => elements.iter().try_for_each(check_exact),
        Value::Object(members) => members.values().try_for_each(check_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}
