//! `[route.headers]`: what the upstream is told of a client, out of the claims of its token.

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::source::printable;
use crate::config::value::{checked, one_of};
use crate::config::{Auth, ClaimFormat, ClaimHeader, auth, names};

/// What an entry must look like.
const HEADER: &str = "a header of your own: \"X-User-Id\" = \"sub\"";

/// What its value must look like.
const CLAIM: &str = "the name of a claim, or a JSON pointer into the claims: \"sub\", \
     \"/org/id\"; for a nested one { claim = \"/org\", format = \"json\" }";

const FORMATS: [(&str, ClaimFormat); 2] =
    [("text", ClaimFormat::Text), ("json", ClaimFormat::Json)];

/// Reads the entries: a name once in any spelling, and only beside a token to fill it from.
pub(super) fn headers(
    section: &mut Section<'_>,
    auth: &Result<auth::Read, Reported>,
) -> Result<Vec<ClaimHeader>, Reported> {
    let Some(table) = section.section("headers")? else {
        return Ok(Vec::new());
    };
    if let Ok(auth::Read {
        auth: Auth::None, ..
    }) = auth
    {
        let found =
            "[route.headers] beside method = \"none\": there are no claims to fill them from";
        section.error(
            "headers",
            Some(table.start()),
            found,
            "no [route.headers], or a method with a token",
        );
    }
    let names = table.entries(|name, _| {
        names::header(name).map_err(|wrong| {
            Mismatch::new(format!("the header `{}`: {wrong}", printable(name)), HEADER)
        })
    });
    let values = table.entries(|_, value| Ok(value.clone()))?;
    let claims: Vec<_> = values
        .iter()
        .map(|value| claim(&table, &value.value))
        .collect();
    let claims = claims.into_iter().collect::<Result<Vec<_>, _>>();
    let (names, claims) = (names?, claims?);
    report_repeated(&table, &names);
    let headers = names.into_iter().zip(claims);
    let headers = headers.map(|(header, (claim, format))| ClaimHeader {
        header: header.value,
        claim,
        format,
    });
    Ok(headers.collect())
}

fn claim(headers: &Section<'_>, written: &Value<'_>) -> Result<(String, ClaimFormat), Reported> {
    if !written.is_table() {
        let claim = headers.parse(written, checked(names::claim, CLAIM))?;
        return Ok((claim.value, ClaimFormat::Text));
    }
    let mut entry = headers.entry(written)?;
    let claim = entry.required("claim", checked(names::claim, CLAIM), CLAIM);
    let format = entry.or("format", one_of(&FORMATS), ClaimFormat::Text);
    entry.done();
    Ok((claim?.value, format?.value))
}

/// Reports headers that a claim and the service of `authorize` would both fill.
pub(super) fn report_filled_twice(
    route: &Section<'_>,
    auth: &Result<auth::Read, Reported>,
    headers: &Result<Vec<ClaimHeader>, Reported>,
) {
    let (Ok(auth), Ok(headers)) = (auth, headers) else {
        return;
    };
    let Some(authorize) = &auth.authorize else {
        return;
    };
    for name in &authorize.response_headers {
        let folded = names::folded(name);
        if headers
            .iter()
            .any(|seen| names::folded(&seen.header) == folded)
        {
            route.error(
                "auth.authorize.response_headers",
                Some(authorize.line),
                format!("the header `{name}`, which [route.headers] fills from a claim"),
                "each header from one place",
            );
        }
    }
}

fn report_repeated(table: &Section<'_>, names: &[Placed<String>]) {
    for (index, name) in names.iter().enumerate() {
        let mut before = names.iter().take(index);
        if before.any(|seen| seen.value == name.value) {
            let found = format!("the header `{}` twice", name.value);
            let allowed = "each header once, whatever its case";
            table.error(&name.value, name.line, found, allowed);
        }
    }
}
