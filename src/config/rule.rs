//! `[[route.rule]]` and `[route.rules]`: what the clients of a route may say.
//!
//! Joins them with `refresh` of `[route.auth]` to what a session looks for in messages.

use std::ops::RangeInclusive;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::auth::Refresh as RefreshShape;
use crate::config::file::{Section, Value};
use crate::config::units::size_text;
use crate::config::value::{checked, flag, one_of};
use crate::config::{names, policy};
use crate::proto::json::{Places, Pointer};
use crate::proto::limits::Limits;
use crate::proto::rule::{
    Action, Condition, Inspection, Patterns, Refresh, Refusal, Requirement, Rule, Rules, Scalar,
    Test,
};

/// Default of `[route.rules] default`, `on_malformed` and `on_binary`, of `otherwise`, too:
/// what nobody permitted is forbidden, and a client that is told so can be mended.
const CLOSE: Refusal = Refusal::Close;

/// A message that is looked into is held whole, and parsed in one go: 16 MiB take a core a
/// few hundredths of a second.
const LARGEST_MESSAGE: u64 = 16 << 20;

/// Each rule is asked about each message. Far beyond what one can oversee.
const MOST_RULES: usize = 100;

/// Conditions or requirements of a rule, and values of `in`.
const MOST_ITEMS: usize = 100;

/// Numbers up to 2⁵³ are the same to every JSON parser.
const INTEGERS: RangeInclusive<i64> = -(1 << 53) + 1..=(1 << 53) - 1;

/// What `when` must look like.
const WHEN: &str = "when = { pointer = \"/type\", equals = \"publish\" }, or a list of such tables";

/// What `require` must look like.
const REQUIRE: &str =
    "require = { pointer = \"/channel\", claim = \"channels\" }, or a list of such tables";

/// What a pointer must look like.
const POINTER: &str = "a JSON pointer into the message (RFC 6901): \"/type\", \"/payload/channel\"";

/// What `claim` must look like.
const CLAIM: &str = "the name of a claim, or a JSON pointer into the claims: \"sub\", \"/org/id\"";

/// What a condition must say.
const TEST: &str = "exactly one of `equals`, `in`, `prefix` and `absent`";

/// What a value must be to be compared.
const SCALAR: &str = "a text, true, false, or a whole number of at most 9007199254740991";

static ACTIONS: [(&str, Action); 3] = [
    ("allow", Action::Allow),
    ("drop", Action::Refuse(Refusal::Drop)),
    ("close", Action::Refuse(Refusal::Close)),
];

static REFUSALS: [(&str, Refusal); 2] = [("drop", Refusal::Drop), ("close", Refusal::Close)];

/// Whether the clients of a route have tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    Asked,
    None,
}

/// Where rules look, as it is gathered.
#[derive(Default)]
struct Gathered {
    places: Places,
    claims: Vec<String>,
}

/// Reads `[[route.rule]]` and `[route.rules]`. `None`: messages are not looked into.
pub(super) fn inspection(
    route: &mut Section<'_>,
    refresh: Option<RefreshShape>,
    tokens: Tokens,
    limits: &Result<Limits, Reported>,
) -> Result<Option<Inspection>, Reported> {
    let mut gathered = Gathered::default();
    let rules = rules(route, tokens, &mut gathered)?;
    if rules.is_none() && refresh.is_none() {
        return Ok(None);
    }
    if let Ok(limits) = limits
        && limits.max_message_size > LARGEST_MESSAGE
    {
        let found = format!(
            "{}, beside rules or refresh",
            size_text(limits.max_message_size)
        );
        let allowed = format!(
            "at most \"{}\": a message that is looked into is held whole",
            size_text(LARGEST_MESSAGE)
        );
        let line = route.line_of("limits");
        return Err(route.error("limits.max_message_size", line, found, allowed));
    }
    let refresh = refresh.map(|shape| Refresh {
        field: gathered.places.add(&shape.field),
        equals: shape.equals,
        token: gathered.places.add(&shape.token_field),
        reply: shape.reply,
    });
    let rules = rules.map(|rules| Rules {
        claims: gathered.claims,
        ..rules
    });
    Ok(Some(Inspection {
        places: gathered.places,
        refresh,
        rules,
    }))
}

fn rules(
    route: &mut Section<'_>,
    tokens: Tokens,
    gathered: &mut Gathered,
) -> Result<Option<Rules>, Reported> {
    let mut defaults = route.section_or_empty("rules")?;
    let default = defaults.or("default", one_of(&ACTIONS), Action::Refuse(CLOSE));
    let on_malformed = defaults.or("on_malformed", one_of(&REFUSALS), CLOSE);
    let on_binary = defaults.or("on_binary", one_of(&ACTIONS), Action::Refuse(CLOSE));
    defaults.done();
    if !route.has("rule") {
        return match route.line_of("rules") {
            None => Ok(None),
            line => {
                let found = "[route.rules] without [[route.rule]]: nothing would be looked at";
                Err(route.error("rules", line, found, "at least one [[route.rule]]"))
            }
        };
    }
    let sections = route.sections("rule", "[[route.rule]]: each with its own header")?;
    if sections.len() > MOST_RULES {
        let found = format!("{} rules", sections.len());
        let allowed = format!("at most {MOST_RULES}: each is asked about each message");
        return Err(route.error("rule", route.line_of("rule"), found, allowed));
    }
    let mut for_all = false;
    let list: Vec<_> = sections
        .into_iter()
        .map(|mut section| {
            if for_all {
                let found = "a rule behind one without `when`, which is about every message";
                section.error(
                    "",
                    Some(section.start()),
                    found,
                    "a `when` in the rule before",
                );
            }
            for_all |= !section.has("when");
            rule(section, tokens, gathered)
        })
        .collect();
    Ok(Some(Rules {
        list: list.into_iter().collect::<Result<_, _>>()?,
        default: default?.value,
        on_malformed: on_malformed?.value,
        on_binary: on_binary?.value,
        claims: Vec::new(),
    }))
}

fn rule(
    mut section: Section<'_>,
    tokens: Tokens,
    gathered: &mut Gathered,
) -> Result<Rule, Reported> {
    let when = several(&mut section, "when", WHEN, |item| condition(item, gathered));
    let require = several(&mut section, "require", REQUIRE, |item| {
        requirement(item, gathered)
    });
    let action = section.or("action", one_of(&ACTIONS), Action::Allow);
    let otherwise = section.or("otherwise", one_of(&REFUSALS), CLOSE);
    let quota = policy::rule_quota(&mut section);
    check_sense(&mut section, tokens, &action);
    section.done();
    Ok(Rule {
        when: when?,
        require: require?,
        action: action?.value,
        otherwise: otherwise?.value,
        quota: quota?,
    })
}

/// Reports keys that would do nothing.
fn check_sense(
    section: &mut Section<'_>,
    tokens: Tokens,
    action: &Result<Placed<Action>, Reported>,
) {
    let refuses = matches!(action, Ok(action) if action.value != Action::Allow);
    for key in ["require", "quota"] {
        if refuses && section.has(key) {
            let found = format!("`{key}` in a rule that lets nothing through");
            let allowed = format!("action = \"allow\", or no `{key}`");
            section.error(key, section.line_of(key), found, allowed);
        }
    }
    if section.has("require") && tokens == Tokens::None {
        let found = "`require` beside method = \"none\": there are no claims to compare with";
        let allowed = "no `require`, or a method with a token";
        section.error("require", section.line_of("require"), found, allowed);
    }
    if section.has("otherwise") && !section.has("require") {
        let found = "`otherwise` without `require`: it says what happens when that is not met";
        let allowed = "a `require` beside it; what no rule is about is [route.rules] default";
        section.error("otherwise", section.line_of("otherwise"), found, allowed);
    }
}

/// Reads a table, or a list of tables; none when the key is absent.
fn several<'a, T>(
    section: &mut Section<'a>,
    key: &'static str,
    allowed: &str,
    mut read: impl FnMut(Section<'a>) -> Result<T, Reported>,
) -> Result<Vec<T>, Reported> {
    if !section.has(key) {
        return Ok(Vec::new());
    }
    let items = section.one_or_more(key, allowed)?;
    if items.len() > MOST_ITEMS {
        let found = format!("{} of them", items.len());
        let line = section.line_of(key);
        return Err(section.error(key, line, found, format!("at most {MOST_ITEMS}")));
    }
    let read: Vec<_> = items.into_iter().map(&mut read).collect();
    read.into_iter().collect()
}

fn condition(mut section: Section<'_>, gathered: &mut Gathered) -> Result<Condition, Reported> {
    let at = section.required("pointer", checked(pointer, POINTER), POINTER);
    let equals = section.optional("equals", scalar);
    let any_of = section.optional("in", scalars);
    let prefix = section.optional("prefix", prefix);
    let absent = section.optional("absent", flag);
    let written = ["equals", "in", "prefix", "absent"]
        .into_iter()
        .filter(|key| section.has(key))
        .count();
    let count = match written {
        1 => Ok(()),
        0 => Err(section.error(
            "",
            Some(section.start()),
            "a condition without a test",
            TEST,
        )),
        _ => Err(section.error("", Some(section.start()), format!("{written} tests"), TEST)),
    };
    section.done();
    let tests = [
        equals?.map(|equals| Test::In(vec![equals.value])),
        any_of?.map(|any_of| Test::In(any_of.value)),
        prefix?.map(|prefix| Test::Prefix(prefix.value)),
        absent?.map(|absent| match absent.value {
            true => Test::Absent,
            false => Test::Present,
        }),
    ];
    count?;
    let at = gathered.places.add(&at?.value);
    match tests.into_iter().flatten().next() {
        Some(test) => Ok(Condition { at, test }),
        // The count says there is one.
        None => Err(Reported),
    }
}

fn requirement(mut section: Section<'_>, gathered: &mut Gathered) -> Result<Requirement, Reported> {
    let at = section.required("pointer", checked(pointer, POINTER), POINTER);
    let claim = section.required("claim", checked(names::claim, CLAIM), CLAIM);
    let patterns = section.or("patterns", flag, false);
    section.done();
    let (at, claim) = (at?.value, claim?.value);
    let known = gathered.claims.iter().position(|known| *known == claim);
    let index = known.unwrap_or(gathered.claims.len());
    if known.is_none() {
        gathered.claims.push(claim);
    }
    Ok(Requirement {
        at: gathered.places.add(&at),
        claim: index,
        patterns: match patterns?.value {
            true => Patterns::Suffix,
            false => Patterns::Off,
        },
    })
}

/// A JSON pointer below the whole message.
pub(super) fn pointer(text: &str) -> Result<Pointer, &'static str> {
    let text = names::pointer(text)?;
    Pointer::parse(&text).map_err(|_| "it is no pointer")
}

fn scalar(value: &Value<'_>) -> Result<Scalar, Mismatch> {
    let text = value.text().map(|text| Scalar::Text(text.to_owned()));
    let flag = value.flag().map(Scalar::Flag);
    let integer = value.integer().filter(|number| INTEGERS.contains(number));
    text.or(flag)
        .or(integer.map(Scalar::Integer))
        .ok_or_else(|| Mismatch::of(value, SCALAR))
}

fn scalars(value: &Value<'_>) -> Result<Vec<Scalar>, Mismatch> {
    let allowed = || format!("a list of 1 to {MOST_ITEMS} values, each {SCALAR}");
    let items = value
        .items()
        .filter(|items| (1..=MOST_ITEMS).contains(&items.len()))
        .ok_or_else(|| Mismatch::of(value, allowed()))?;
    items
        .iter()
        .map(|item| scalar(item).map_err(|mismatch| Mismatch::new(mismatch.found, allowed())))
        .collect()
}

fn prefix(value: &Value<'_>) -> Result<String, Mismatch> {
    let text = value.text().filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| {
        let allowed = "a text that is not empty; for any value at all: absent = false";
        Mismatch::of(value, allowed)
    })
}
