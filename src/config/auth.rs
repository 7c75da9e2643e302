//! `[route.auth]`: how a client proves who it is, and where it does. What makes its token good
//! is in `jwt`.

mod expiry;
mod first_message;
pub(super) mod fits;
mod jwt;
mod method;
mod place;

use crate::config::answer::{Placed, Reported};
use crate::config::auth::method::{METHOD, Method, Methods};
use crate::config::file::Section;
use crate::config::{Auth, Line, TokenAuth, TokenPlace};
use crate::proto::policy::{FirstMessage, OnExpiry};

/// What `[route.auth]` says.
pub(super) struct Read {
    pub(super) auth: Auth,
    pub(super) first_message: Option<FirstMessage>,
    pub(super) on_expiry: OnExpiry,
}

/// Reads `[route.auth]` of a route.
pub(super) fn auth(route: &mut Section<'_>) -> Result<Read, Reported> {
    let Some(mut section) = route.section("auth")? else {
        return Err(route.missing("auth", &format!("[route.auth] with method = {METHOD}")));
    };
    let methods = section.required("method", method::methods, METHOD);
    let outcome = match &methods {
        Ok(Placed { value, line, .. }) => match value {
            Methods::None => {
                warn_of_none(&mut section, *line);
                Ok(without_token())
            }
            Methods::Of(methods) => with_token(&mut section, methods),
        },
        // Nobody knows which keys are wanted, so only what makes a token good is checked.
        Err(reported) => {
            method::keys().for_each(|key| section.expect(key));
            if section.has("jwt") {
                // What is wrong with it has been reported, and nothing else is asked.
                let _ = jwt::issuers(&mut section);
            }
            Err(*reported)
        }
    };
    section.done();
    outcome
}

fn warn_of_none(section: &mut Section<'_>, line: Option<Line>) {
    for key in method::keys() {
        if section.has(key) {
            let found = format!("`{key}` beside method = \"none\", which reads no token");
            let allowed = "method = \"first-message\", or no such key";
            section.error(key, section.line_of(key), found, allowed);
        }
    }
    let found = "no token is asked for: everyone whose origin passes is admitted";
    section.warning(
        "method",
        line,
        found,
        "method = \"first-message\" with [route.auth.jwt]",
    );
}

fn without_token() -> Read {
    Read {
        auth: Auth::None,
        first_message: None,
        on_expiry: OnExpiry::Ignore,
    }
}

fn with_token(section: &mut Section<'_>, methods: &[Method]) -> Result<Read, Reported> {
    method::refuse_unread(section, methods);
    let places: Vec<_> = methods
        .iter()
        .map(|method| place::place(section, *method))
        .collect();
    let forward_token = place::forward_token(section);
    let first_message = match methods.contains(&Method::FirstMessage) {
        true => first_message::first_message(section).map(Some),
        false => Ok(None),
    };
    let on_expiry = expiry::on_expiry(section);
    let jwt = jwt::issuers(section);
    let places = places.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut places: Vec<TokenPlace> = places.into_iter().flatten().collect();
    let (shape, first_message) = first_message?.unzip();
    places.extend(shape.map(TokenPlace::FirstMessage));
    Ok(Read {
        auth: Auth::Token(TokenAuth {
            places,
            forward_token: forward_token?,
            jwt: jwt?,
        }),
        first_message,
        on_expiry: on_expiry?,
    })
}
