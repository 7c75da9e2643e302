//! The configuration file as a tree of sections and values that know their line.
//!
//! The only file that names `toml`. It reads the tree by hand rather than through serde's
//! derive, because a derived reader stops at the first wrong type or unknown key, and an
//! operator is owed all of them at once: every reader here writes its problem down and goes
//! on. It knows neither the keys nor their meaning; those are in the file of each section.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::answer::{Given, Mismatch, Placed, Reported};
use crate::config::identity::Identity;
use crate::config::problem::{Named, Problem, suggest};
use crate::config::source::{Source, printable};
use crate::config::{Authorize, Jwt, Line, Tls};

/// One pass over one file: where it stands, and everything wrong that was found so far.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    source: &'a Source,
    base: &'a Path,
    problems: RefCell<Vec<Problem>>,
    named: RefCell<Named>,
}

impl<'a> Reading<'a> {
    /// `base` is the folder that relative paths in the file start from.
    pub(super) fn new(source: &'a Source, base: &'a Path) -> Self {
        Self {
            source,
            base,
            problems: RefCell::default(),
            named: RefCell::default(),
        }
    }

    /// The syntax tree. All syntax errors are reported, and then nothing else is: what a
    /// broken line was meant to say is a guess, and guesses make false problems.
    pub(super) fn document(&self) -> Result<Document<'a>, Reported> {
        let (root, errors) = DeTable::parse_recoverable(self.source.text());
        if errors.is_empty() {
            return Ok(Document(root.into_inner()));
        }
        let mut last = None;
        for error in errors {
            let line = error.span().map(|span| self.source.line_at(span.start));
            // One slip makes several errors on its line; the first says what it was.
            if line.is_none() || line != last {
                self.report(Problem::error(line, "", error.message(), "valid TOML 1.1"));
            }
            last = line;
        }
        Err(Reported)
    }

    /// Everything found wrong, in no order, and what the file names.
    pub(super) fn into_findings(self) -> (Vec<Problem>, Named) {
        (self.problems.into_inner(), self.named.into_inner())
    }

    pub(super) fn report(&self, problem: Problem) -> Reported {
        self.problems.borrow_mut().push(problem);
        Reported
    }
}

/// A file without syntax errors.
#[derive(Debug)]
pub(super) struct Document<'a>(DeTable<'a>);

impl<'a> Document<'a> {
    /// The top of the file.
    pub(super) fn root<'d>(&'d self, reading: &'d Reading<'d>) -> Section<'d>
    where
        'a: 'd,
    {
        Section::new(reading, Some(&self.0), None, String::new())
    }
}

/// One table of the file, or its absence: then every key is absent.
///
/// Each key is asked for by name, and [`Section::done`] reports those that nobody asked
/// for. So all keys are asked for first, and only then are their values put together.
#[derive(Debug)]
pub(super) struct Section<'a> {
    reading: &'a Reading<'a>,
    table: Option<&'a DeTable<'a>>,
    line: Option<Line>,
    path: String,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The value of a key that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value<'a>) -> Result<T, Mismatch>,
    ) -> Result<Option<Placed<T>>, Reported> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        self.parse(&value, parse).map(Some)
    }

    /// The value of a key, or its default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value<'a>) -> Result<T, Mismatch>,
        default: T,
    ) -> Result<Placed<T>, Reported> {
        Ok(self.optional(key, parse)?.unwrap_or(Placed {
            value: default,
            line: self.line,
            given: Given::Default,
        }))
    }

    /// The value of a key that must be there; `allowed` says what to write.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value<'a>) -> Result<T, Mismatch>,
        allowed: &str,
    ) -> Result<Placed<T>, Reported> {
        let found = self.optional(key, parse)?;
        found.ok_or_else(|| self.missing(key, allowed))
    }

    /// The items of a list that may be absent. Every item is looked at.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value<'a>) -> Result<T, Mismatch>,
    ) -> Result<Option<Placed<Vec<Placed<T>>>>, Reported> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let Some(items) = value.items() else {
            return Err(self.mismatch(&value, Mismatch::of(&value, "a list: [\"…\", \"…\"]")));
        };
        let items: Vec<_> = items.iter().map(|item| self.parse(item, &parse)).collect();
        Ok(Some(Placed {
            value: items.into_iter().collect::<Result<_, _>>()?,
            line: Some(value.line),
            given: Given::Written,
        }))
    }

    /// A table below this one, when it is there.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Option<Self>, Reported> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        self.below(&value, self.path_of(key)).map(Some)
    }

    /// A table below this one; an empty one when it is absent.
    pub(super) fn section_or_empty(&mut self, key: &'static str) -> Result<Self, Reported> {
        let absent = Section::new(self.reading, None, self.line, self.path_of(key));
        Ok(self.section(key)?.unwrap_or(absent))
    }

    /// The tables of a list, numbered from one in their paths; at least one must be there.
    pub(super) fn sections(
        &mut self,
        key: &'static str,
        allowed: &str,
    ) -> Result<Vec<Self>, Reported> {
        let value = self.value(key).ok_or_else(|| self.missing(key, allowed))?;
        let Some(items) = value.items() else {
            return Err(self.mismatch(&value, Mismatch::of(&value, allowed)));
        };
        if items.is_empty() {
            return Err(self.mismatch(&value, Mismatch::new("an empty list", allowed)));
        }
        let path = self.path_of(key);
        let sections: Vec<_> = (1..)
            .zip(&items)
            .map(|(number, item)| self.below(item, format!("{path}.#{number}")))
            .collect();
        sections.into_iter().collect()
    }

    /// The same where one table alone need not be a list.
    pub(super) fn one_or_more(
        &mut self,
        key: &'static str,
        allowed: &str,
    ) -> Result<Vec<Self>, Reported> {
        match self.value(key) {
            Some(value) if value.items().is_none() => {
                Ok(vec![self.below(&value, self.path_of(key))?])
            }
            _ => self.sections(key, allowed),
        }
    }

    /// Every entry of a table whose keys are the operator's own, in the order of the file.
    pub(super) fn entries<T>(
        &self,
        parse: impl Fn(&str, &Value<'a>) -> Result<T, Mismatch>,
    ) -> Result<Vec<Placed<T>>, Reported> {
        let mut entries: Vec<_> = self.table.iter().flat_map(|table| table.iter()).collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let parsed: Vec<_> = entries
            .into_iter()
            .map(|(key, node)| {
                let value = self.at(node, self.path_of(key.get_ref()));
                self.parse(&value, |value| parse(key.get_ref(), value))
            })
            .collect();
        parsed.into_iter().collect()
    }

    /// The table that the value of one of those entries is.
    pub(super) fn entry(&self, value: &Value<'a>) -> Result<Self, Reported> {
        self.below(value, value.path.clone())
    }

    /// Whether the file has the key. The key counts as asked for.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Counts a key as asked for.
    pub(super) fn expect(&mut self, key: &'static str) {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }

    /// Where a key's value stands.
    pub(super) fn line_of(&self, key: &str) -> Option<Line> {
        let node = self.table?.get(key)?;
        Some(self.reading.source.line_at(node.span().start))
    }

    /// Reports every key of the table that nobody asked for.
    pub(super) fn done(self) {
        let Some(table) = self.table else { return };
        for (key, node) in table {
            let key_text: &str = key.get_ref();
            if self.asked.contains(&key_text) {
                continue;
            }
            let hint = suggest(key_text, &self.asked)
                .map(|near| format!("did you mean `{near}`? "))
                .unwrap_or_default();
            let value = self.at(node, self.path_of(key_text));
            self.reading.report(Problem::error(
                self.reading.source.line_at(key.span().start),
                value.path,
                format!("the unknown key `{}`", printable(key_text)),
                format!("{hint}keys here are {}", self.asked.join(", ")),
            ));
        }
    }

    /// Gives the section the name that the operator knows it by.
    pub(super) fn rename(&mut self, path: String) {
        self.path = path;
    }

    /// A path in the file, taken from the folder of the file when it is relative.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.reading.base.join(path)
    }

    /// Where the section begins; the first line when it is absent.
    pub(super) fn start(&self) -> Line {
        self.line.unwrap_or(Line(1))
    }

    /// Reports an error about a key.
    pub(super) fn error(
        &self,
        key: &str,
        line: Option<Line>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Reported {
        let problem = Problem::error(line, self.path_of(key), found, allowed);
        self.reading.report(problem)
    }

    /// Reports a warning about a key.
    pub(super) fn warning(
        &self,
        key: &str,
        line: Option<Line>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        let problem = Problem::warning(line, self.path_of(key), found, allowed);
        self.reading.report(problem);
    }

    /// Reports that a key is absent.
    pub(super) fn missing(&self, key: &str, allowed: &str) -> Reported {
        self.error(key, self.line, format!("no `{key}`"), allowed)
    }

    fn new(
        reading: &'a Reading<'a>,
        table: Option<&'a DeTable<'a>>,
        line: Option<Line>,
        path: String,
    ) -> Self {
        Self {
            reading,
            table,
            line,
            path,
            asked: Vec::new(),
        }
    }

    fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.expect(key);
        let node = self.table?.get(key)?;
        Some(self.at(node, self.path_of(key)))
    }

    fn at(&self, node: &'a Spanned<DeValue<'a>>, path: String) -> Value<'a> {
        Value {
            node,
            line: self.reading.source.line_at(node.span().start),
            path,
            source: self.reading.source,
        }
    }

    /// What `parse` reads in a value.
    pub(super) fn parse<T>(
        &self,
        value: &Value<'a>,
        parse: impl FnOnce(&Value<'a>) -> Result<T, Mismatch>,
    ) -> Result<Placed<T>, Reported> {
        match parse(value) {
            Ok(parsed) => Ok(Placed {
                value: parsed,
                line: Some(value.line),
                given: Given::Written,
            }),
            Err(mismatch) => Err(self.mismatch(value, mismatch)),
        }
    }

    fn mismatch(&self, value: &Value<'_>, mismatch: Mismatch) -> Reported {
        let Mismatch { found, allowed } = mismatch;
        let path = value.path.clone();
        self.reading
            .report(Problem::error(value.line, path, found, allowed))
    }

    fn below(&self, value: &Value<'a>, path: String) -> Result<Self, Reported> {
        let DeValue::Table(table) = value.node.get_ref() else {
            let key = path.rsplit('.').next().unwrap_or_default();
            let allowed = match key.strip_prefix('#') {
                Some(_) => "a table: { … }".to_owned(),
                None => format!("a table: {key} = {{ … }}"),
            };
            return Err(self.mismatch(value, Mismatch::of(value, allowed)));
        };
        Ok(Section::new(
            self.reading,
            Some(table),
            Some(value.line),
            path,
        ))
    }

    /// Notes the files that this section of a listener names.
    pub(super) fn name_tls(&self, tls: Tls) {
        let listener = self.path.strip_suffix(".tls").unwrap_or(&self.path);
        let named = (listener.to_owned(), tls);
        self.reading.named.borrow_mut().tls.push(named);
    }

    /// Notes the keys that this section of a route names.
    pub(super) fn name_jwt(&self, jwt: Jwt) {
        self.reading.named.borrow_mut().jwt.push(jwt);
    }

    /// Notes the service that this section of a route names.
    pub(super) fn name_authorize(&self, authorize: Authorize) {
        self.reading.named.borrow_mut().authorize.push(authorize);
    }

    /// Notes the key that this section names.
    pub(super) fn name_identity(&self, identity: Identity) {
        self.reading.named.borrow_mut().identity.push(identity);
    }

    /// The section as the path of a key: `route.chat.auth.jwt`.
    pub(super) fn place(&self) -> &str {
        &self.path
    }

    fn path_of(&self, key: &str) -> String {
        let key = printable(key);
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key,
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }
}

/// One value of the file.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    node: &'a Spanned<DeValue<'a>>,
    pub(super) line: Line,
    path: String,
    source: &'a Source,
}

impl<'a> Value<'a> {
    /// The text, when it is a string.
    pub(super) fn text(&self) -> Option<&'a str> {
        self.node.get_ref().as_str()
    }

    /// The truth value, when it is one.
    pub(super) fn flag(&self) -> Option<bool> {
        self.node.get_ref().as_bool()
    }

    /// The number, when it is a whole one that is not negative.
    pub(super) fn count(&self) -> Option<u64> {
        let number = self.node.get_ref().as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// The number, when it is a whole one.
    pub(super) fn integer(&self) -> Option<i64> {
        let number = self.node.get_ref().as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// The items, when it is a list.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        let items = self.node.get_ref().as_array()?;
        let item = |node: &'a Spanned<DeValue<'a>>| Value {
            node,
            line: self.source.line_at(node.span().start),
            ..self.clone()
        };
        Some(items.iter().map(item).collect())
    }

    /// Whether it is a number of any kind.
    pub(super) fn is_number(&self) -> bool {
        self.node.get_ref().is_integer() || self.node.get_ref().is_float()
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.node.get_ref().is_table()
    }

    /// The value as it may be printed.
    pub(super) fn describe(&self) -> String {
        match self.node.get_ref() {
            DeValue::String(text) => format!("\"{}\"", printable(text)),
            DeValue::Integer(number) => {
                format!("the number {}", printable(&number.to_string()))
            }
            DeValue::Float(number) => format!("the number {}", printable(&number.to_string())),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}
