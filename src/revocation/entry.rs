//! One revocation, and its text: a JSON object, in the body of a request or on a line of the
//! file.
//!
//! ```json
//! {"jti":"8f1c…","exp":1764003600}
//! {"sub":"alice","before":1764000000}
//! {"sub":"alice","iss":"https://id.example.com","route":"chat"}
//! {"route":"chat"}
//! ```
//!
//! `jti` names one token, `sub` all of one subject, `route` alone all that are used there;
//! beside the first two, `route` and `iss` narrow it to one route or one issuer. `before` is
//! the second up to which, itself included, tokens were issued that count no longer: their
//! times are whole seconds, and one issued in the same second may be the older. `exp` is when
//! the last of the tokens expires, and with it the entry.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::revocation::marks::Marks;

/// What an entry names first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One token.
    Jti,
    /// A subject's.
    Sub,
    /// A route's.
    Route,
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    kind: Kind,
    name: Box<str>,
    /// `None`: on any route; always for [`Kind::Route`], whose name it is.
    route: Option<Box<str>>,
    /// `None`: of any issuer.
    iss: Option<Box<str>>,
    /// The last second; `None` for [`Kind::Jti`], which names one token whenever issued.
    before: Option<u64>,
    /// When the last of the tokens expires.
    exp: u64,
    /// The version of the store that had it first, where `before` was not said, so that now was
    /// meant: then it covers every session that is older, whatever the issuer's clock says.
    /// 0: none has it yet.
    made: Option<u64>,
}

/// What an entry has that does not say so itself.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// When it is made: `before`, where that is missing.
    pub now: u64,
    /// From then to `exp`, where that is missing, in seconds.
    pub keep: u64,
}

impl Entry {
    /// Reads its text. The second part: whether it left out a time.
    ///
    /// # Errors
    /// What is wrong with it, in words for the operator.
    pub fn parse(text: &[u8], defaults: Defaults) -> Result<(Self, Complete), String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut json = serde_json::Deserializer::from_str(text);
        let written = json
            .deserialize_map(Fields)
            .and_then(|written| json.end().map(|()| written))
            .map_err(|error| in_words(&error))?;
        written.check(defaults)
    }

    /// Its text, without a line end. Every time is in it.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::Map::new();
        let mut put = |name: &str, value: Option<serde_json::Value>| {
            json.extend(value.map(|value| (name.to_owned(), value)));
        };
        put(self.kind.word(), Some((*self.name).into()));
        put("route", self.route.as_deref().map(Into::into));
        put("iss", self.iss.as_deref().map(Into::into));
        put("before", self.before.map(Into::into));
        put("exp", Some(self.exp.into()));
        serde_json::Value::Object(json)
    }

    /// What it names first.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The token, subject or route of that kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The route it is for alone.
    pub fn route(&self) -> Option<&str> {
        match self.kind {
            Kind::Route => Some(&self.name),
            Kind::Jti | Kind::Sub => self.route.as_deref(),
        }
    }

    /// Whether a token that it names can still be good. Routes forgive a difference of clocks.
    pub const fn is_alive(&self, now: u64) -> bool {
        now < self.exp.saturating_add(LARGEST_LEEWAY)
    }

    /// Whether the token with these marks, of the name that this entry has, is meant.
    pub(super) fn covers(&self, marks: &Marks, route: &str) -> bool {
        self.route.as_deref().is_none_or(|only| only == route)
            && self
                .iss
                .as_deref()
                .is_none_or(|iss| Some(iss) == marks.iss())
            && self.before.is_none_or(|before| {
                marks.issued() <= before || self.made.is_some_and(|made| marks.version() < made)
            })
    }

    /// Whether it differs from another in its times at most.
    pub(super) fn names_the_same(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// Covers from now on what another does that names the same.
    pub(super) fn prolong(&mut self, other: &Self) {
        self.before = self.before.max(other.before);
        self.exp = self.exp.max(other.exp);
        self.made = self.made.max(other.made);
    }

    /// Notes which version of the store has it first.
    pub(super) fn handle_stored(&mut self, version: u64) {
        if self.made == Some(0) {
            self.made = Some(version);
        }
    }

    fn key(&self) -> (Kind, &str, Option<&str>, Option<&str>) {
        (
            self.kind,
            &self.name,
            self.route.as_deref(),
            self.iss.as_deref(),
        )
    }
}

/// Whether a text named every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// It did.
    Yes,
    /// It left the choice to us.
    No,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Sub => "sub",
            Self::Route => "route",
        }
    }
}

/// The members as they were written.
#[derive(Default)]
struct Written {
    jti: Option<String>,
    sub: Option<String>,
    route: Option<String>,
    iss: Option<String>,
    before: Option<u64>,
    exp: Option<u64>,
}

impl Written {
    fn check(self, defaults: Defaults) -> Result<(Entry, Complete), String> {
        let (kind, name, route) = match (self.jti, self.sub, self.route) {
            (Some(_), Some(_), _) => return Err("both `jti` and `sub`: one entry each".to_owned()),
            (Some(jti), None, route) => (Kind::Jti, jti, route),
            (None, Some(sub), route) => (Kind::Sub, sub, route),
            (None, None, Some(route)) => (Kind::Route, route, None),
            (None, None, None) => return Err("none of `jti`, `sub` and `route`".to_owned()),
        };
        if kind == Kind::Jti && self.before.is_some() {
            return Err("`before` beside `jti`, which is one token whenever issued".to_owned());
        }
        let latest = defaults.now.saturating_add(LARGEST_LEEWAY);
        if self.before.is_some_and(|before| before > latest) {
            let text = "`before` lies more than 5 minutes ahead: tokens that are not issued yet \
                        cannot be revoked (it is in seconds since 1970)";
            return Err(text.to_owned());
        }
        if self.exp.is_some_and(|exp| exp > LATEST) {
            return Err("`exp` lies beyond 9999 (it is in seconds since 1970)".to_owned());
        }
        let is_complete = self.exp.is_some() && (self.before.is_some() || kind == Kind::Jti);
        let exp = self
            .exp
            .unwrap_or(defaults.now.saturating_add(defaults.keep));
        let before = match kind {
            Kind::Jti => None,
            Kind::Sub | Kind::Route => Some(self.before.unwrap_or(defaults.now)),
        };
        let entry = Entry {
            kind,
            name: name.into(),
            route: route.map(Into::into),
            iss: self.iss.map(Into::into),
            before,
            exp,
            made: (kind != Kind::Jti && self.before.is_none()).then_some(0),
        };
        match is_complete {
            true => Ok((entry, Complete::Yes)),
            false => Ok((entry, Complete::No)),
        }
    }
}

/// The members of an entry. A member that is not known is an error, so that no slip of the pen
/// revokes more than was meant; one that occurs twice is, too.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"sub\":\"alice\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
        let mut written = Written::default();
        while let Some(member) = map.next_key::<String>()? {
            match member.as_str() {
                "jti" => text(&mut written.jti, "jti", &mut map)?,
                "sub" => text(&mut written.sub, "sub", &mut map)?,
                "route" => text(&mut written.route, "route", &mut map)?,
                "iss" => text(&mut written.iss, "iss", &mut map)?,
                "before" => seconds(&mut written.before, "before", &mut map)?,
                "exp" => seconds(&mut written.exp, "exp", &mut map)?,
                other => {
                    let shown: String = other
                        .chars()
                        .take(32)
                        .flat_map(char::escape_default)
                        .collect();
                    return Err(A::Error::custom(format!(
                        "the unknown member `{shown}`; there are jti, sub, route, iss, before, exp"
                    )));
                }
            }
        }
        Ok(written)
    }
}

fn text<'de, A: MapAccess<'de>>(
    place: &mut Option<String>,
    member: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    let value = once(place, member, map)?;
    let is_name =
        |text: &str| (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(char::is_control);
    match value {
        serde_json::Value::String(text) if is_name(&text) => *place = Some(text),
        _ => {
            return Err(A::Error::custom(format!(
                "`{member}` is not a text of 1 to {LONGEST_NAME} bytes without control characters"
            )));
        }
    }
    Ok(())
}

fn seconds<'de, A: MapAccess<'de>>(
    place: &mut Option<u64>,
    member: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    let value = once(place, member, map)?;
    *place = value.as_u64();
    match place {
        Some(_) => Ok(()),
        None => Err(A::Error::custom(format!(
            "`{member}` is not a whole number of seconds since 1970"
        ))),
    }
}

fn once<'de, T, A: MapAccess<'de>>(
    place: &Option<T>,
    member: &str,
    map: &mut A,
) -> Result<serde_json::Value, A::Error> {
    match place {
        Some(_) => Err(A::Error::custom(format!("`{member}` twice"))),
        None => map.next_value(),
    }
}

/// Without the place, which `serde_json` adds and which is always the first line.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(what, _)| what);
    match error.classify() {
        serde_json::error::Category::Data => what.to_owned(),
        _ => format!("it is not a JSON object: {what}"),
    }
}

/// Bytes of the longest name, as of the longest `sub` and `jti` in a token that is taken.
pub(super) const LONGEST_NAME: usize = 1024;

/// Seconds: the largest `leeway` that the configuration allows.
const LARGEST_LEEWAY: u64 = 300;

/// The last second of the year 9999: later times are mistakes.
const LATEST: u64 = 253_402_300_799;
