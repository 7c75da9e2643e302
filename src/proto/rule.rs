//! What a client may say: the rules of a route, asked about each of its messages.
//!
//! Owns the order and the meaning of rules, and the shape of a message that brings a new
//! token. Sees a whole message and what the client's token grants; knows nothing of frames
//! and of how a token is verified.

use std::fmt;

use crate::proto::json::{Found, Malformed, Place, Places, Value, exact_integer};
use crate::proto::limits::Quota;
use crate::proto::token::Masked;

/// Everything a route looks for in the messages of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Where it looks.
    pub places: Places,
    /// The message that brings a new token; `None`: there is none.
    pub refresh: Option<Refresh>,
    /// `None`: every other message passes, of any kind.
    pub rules: Option<Rules>,
}

/// The shape of a message that brings a new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// What tells it from other messages: at this place ...
    pub field: Place,
    /// ... this text.
    pub equals: String,
    /// Where the token is.
    pub token: Place,
    /// Text sent to the client when the token is good.
    pub reply: Option<String>,
}

/// The rules of a route, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The first whose conditions hold is the one that counts.
    pub list: Vec<Rule>,
    /// What happens with a message that no rule is about.
    pub default: Action,
    /// What happens with text that is not strictly JSON.
    pub on_malformed: Refusal,
    /// What happens with binary messages.
    pub on_binary: Action,
    /// The claims that requirements name: a name, or a JSON pointer that begins with `/`.
    pub claims: Vec<String>,
}

/// What happens with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes through.
    Allow,
    /// It does not.
    Refuse(Refusal),
}

/// How a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is taken out and counted.
    Drop,
    /// The session is closed.
    Close,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The messages it is about: all these hold. None: every message.
    pub when: Vec<Condition>,
    /// What must hold for those messages, all of it.
    pub require: Vec<Requirement>,
    /// What happens with them.
    pub action: Action,
    /// What happens when a requirement is not met.
    pub otherwise: Refusal,
    /// How many may go through.
    pub quota: Option<Quota>,
}

/// A test of one value of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where the value is.
    pub at: Place,
    /// What it must be.
    pub test: Test,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// One of these.
    In(Vec<Scalar>),
    /// A text that begins so.
    Prefix(String),
    /// There at all, were it `null`.
    Present,
    /// Not there.
    Absent,
}

/// A value that can be compared. Another type is another value: `1` is not `"1"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
}

/// A value of the message that the client's token must grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Where the value is.
    pub at: Place,
    /// The claim, by its index in [`Rules::claims`]: this value, or an array that holds it.
    pub claim: usize,
    /// Whether a `*` at the end of the claim's text stands for anything.
    pub patterns: Patterns,
}

/// Whether a claim's text may be a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patterns {
    /// Each of its characters stands for itself.
    Off,
    /// A `*` at its end stands for anything.
    Suffix,
}

/// What a token grants: the values of each of [`Rules::claims`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Grants(pub Vec<Vec<Scalar>>);

impl fmt::Debug for Grants {
    /// Masks the values, which are claims.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grants").field(&"***").finish()
    }
}

/// What is decided about a whole text message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through, if the quota of this rule allows.
    Allow(Option<usize>),
    /// It does not.
    Refuse(Refusal, Objection),
    /// It is for the edge, and brings this token, or none.
    Refresh(Option<Masked>),
}

/// What is wrong with a message. Rules are counted from one, as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// It is not strictly JSON.
    Malformed(Malformed),
    /// It is binary.
    Binary,
    /// A rule says so.
    Forbidden(usize),
    /// The token does not grant what a rule requires.
    NotGranted(usize),
    /// No rule is about it.
    NoRule,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "malformed: {why}"),
            Self::Binary => f.write_str("a binary message"),
            Self::Forbidden(rule) => write!(f, "rule #{rule} forbids it"),
            Self::NotGranted(rule) => write!(f, "rule #{rule}: not granted by the token"),
            Self::NoRule => f.write_str("no rule is about it"),
        }
    }
}

impl Inspection {
    /// Judges a whole text message of a client whose token grants `grants`.
    pub fn judge(&self, message: &str, grants: &Grants) -> Verdict {
        let found = match self.places.scan(message) {
            Ok(found) => found,
            Err(why) => return self.judge_malformed(why),
        };
        if let Some(refresh) = &self.refresh
            && matches!(found.at(refresh.field), Value::Text(text) if *text == *refresh.equals)
        {
            return Verdict::Refresh(match found.at(refresh.token) {
                Value::Text(token) => Some(Masked(token.clone().into_owned())),
                _ => None,
            });
        }
        let Some(rules) = &self.rules else {
            return Verdict::Allow(None);
        };
        match rules.judge(&found, grants) {
            Ok(verdict) => verdict,
            Err(why) => self.judge_malformed(why),
        }
    }

    /// Judges a text message that cannot be read. Without rules nothing is forbidden, and
    /// such a message brings no new token.
    pub fn judge_malformed(&self, why: Malformed) -> Verdict {
        match &self.rules {
            Some(rules) => Verdict::Refuse(rules.on_malformed, Objection::Malformed(why)),
            None => Verdict::Allow(None),
        }
    }
}

impl Rules {
    fn judge(&self, found: &Found<'_>, grants: &Grants) -> Result<Verdict, Malformed> {
        for (index, rule) in self.list.iter().enumerate() {
            if !rule.is_about(found)? {
                continue;
            }
            let number = index + 1;
            let granted = |requirement: &Requirement| requirement.is_met(found, grants);
            return Ok(match rule.action {
                _ if !rule.require.iter().all(granted) => {
                    Verdict::Refuse(rule.otherwise, Objection::NotGranted(number))
                }
                Action::Allow => Verdict::Allow(Some(index)),
                Action::Refuse(refusal) => Verdict::Refuse(refusal, Objection::Forbidden(number)),
            });
        }
        Ok(match self.default {
            Action::Allow => Verdict::Allow(None),
            Action::Refuse(refusal) => Verdict::Refuse(refusal, Objection::NoRule),
        })
    }
}

impl Rule {
    fn is_about(&self, found: &Found<'_>) -> Result<bool, Malformed> {
        for condition in &self.when {
            if !condition.holds(found)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Condition {
    /// A number is compared in one form only: `1.0`, `1e0` and `1.00000000000000001` are
    /// 1 to some parsers and not to others, and so they are refused rather than unequal.
    fn holds(&self, found: &Found<'_>) -> Result<bool, Malformed> {
        let value = found.at(self.at);
        Ok(match &self.test {
            Test::Absent => *value == Value::Absent,
            Test::Present => *value != Value::Absent,
            Test::Prefix(prefix) => {
                matches!(value, Value::Text(text) if text.starts_with(prefix.as_str()))
            }
            Test::In(scalars) => {
                let is_number = |scalar: &Scalar| matches!(scalar, Scalar::Integer(_));
                if let Value::Number(number) = value
                    && exact_integer(number).is_none()
                    && scalars.iter().any(is_number)
                {
                    return Err(Malformed::InexactNumber);
                }
                scalars.iter().any(|scalar| scalar.is(value))
            }
        })
    }
}

impl Requirement {
    fn is_met(&self, found: &Found<'_>, grants: &Grants) -> bool {
        let value = found.at(self.at);
        let granted = grants.0.get(self.claim).map(Vec::as_slice);
        granted.unwrap_or_default().iter().any(|scalar| {
            let pattern = match (self.patterns, scalar) {
                (Patterns::Suffix, Scalar::Text(text)) => text.strip_suffix('*'),
                _ => None,
            };
            match (pattern, value) {
                (Some(prefix), Value::Text(text)) => text.starts_with(prefix),
                _ => scalar.is(value),
            }
        })
    }
}

impl Scalar {
    fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Text(text), Value::Text(found)) => text == found,
            (Self::Integer(integer), Value::Number(found)) => {
                exact_integer(found) == Some(*integer)
            }
            (Self::Flag(flag), Value::Flag(found)) => flag == found,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
