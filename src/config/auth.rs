//! `[route.auth]`: how a client proves who it is, and where it does. What makes its token good
//! is in `jwt`.

pub mod authorize;
mod expiry;
pub(super) mod first_message;
pub(super) mod fits;
pub mod identity;
mod jwt;
mod method;
mod place;
mod refresh;

pub(super) use self::refresh::Refresh;
use crate::config::answer::{Placed, Reported};
use crate::config::auth::authorize::Authorize;
use crate::config::auth::identity::SignedIdentity;
use crate::config::auth::method::{METHOD, Method, Methods};
use crate::config::file::Section;
use crate::config::{Auth, Line, TokenAuth, TokenPlace};
use crate::proto::policy::{FirstMessage, OnExpiry};

/// What `[route.auth]` says.
pub(super) struct Read {
    pub(super) auth: Auth,
    pub(super) first_message: Option<FirstMessage>,
    pub(super) on_expiry: OnExpiry,
    pub(super) authorize: Option<Authorize>,
    pub(super) identity: Option<SignedIdentity>,
    pub(super) refresh: Option<Refresh>,
}

/// Reads `[route.auth]` of a route.
pub(super) fn auth(route: &mut Section<'_>) -> Result<Read, Reported> {
    let Some(mut section) = route.section("auth")? else {
        return Err(route.missing("auth", &format!("[route.auth] with method = {METHOD}")));
    };
    let methods = section.required("method", method::methods, METHOD);
    let authorize = authorize::authorize(&mut section);
    let identity = identity::identity(&mut section);
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
    let read = outcome?;
    Ok(Read {
        authorize: authorize?,
        identity: identity?,
        ..read
    })
}

fn warn_of_none(section: &mut Section<'_>, line: Option<Line>) {
    for key in method::keys() {
        if section.has(key) {
            let found = format!("`{key}` beside method = \"none\", which reads no token");
            let allowed = "method = \"first-message\", or no such key";
            section.error(key, section.line_of(key), found, allowed);
        }
    }
    // With `authorize` somebody is asked all the same.
    if !section.has("authorize") {
        let found = "no token is asked for: everyone whose origin passes is admitted";
        let allowed = "method = \"first-message\" with [route.auth.jwt]";
        section.warning("method", line, found, allowed);
    }
}

fn without_token() -> Read {
    Read {
        auth: Auth::None,
        first_message: None,
        on_expiry: OnExpiry::Ignore,
        authorize: None,
        identity: None,
        refresh: None,
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
    let refresh = refresh::refresh(section);
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
        authorize: None,
        identity: None,
        refresh: refresh?,
    })
}
