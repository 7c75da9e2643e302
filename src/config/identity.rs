//! `[identity]`: the key with which the edge signs `X-Tidegate-Identity`.

use std::sync::Arc;

use crate::config::answer::{Placed, Reported};
use crate::config::file::Section;
use crate::config::value::checked;
use crate::config::{Admin, KeySource, Line, Route, names, secret};

/// Default of `issuer`: enough for an upstream that knows one edge.
const ISSUER: &str = "tidegate";

/// What `key` must look like.
const KEY: &str = "key = { file = \"identity.key\" } or key = { env = \"NAME\" }: an EC key on curve P-256, in PEM";

/// `[identity]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The private key and where it stands; `None`: made when the process starts.
    pub key: Option<(KeySource, Line)>,
    /// `iss`.
    pub issuer: String,
}

impl Default for Identity {
    /// What holds when the section is absent.
    fn default() -> Self {
        Self {
            key: None,
            issuer: ISSUER.to_owned(),
        }
    }
}

/// Reports that identities are signed with a key that nobody can come to know.
pub(super) fn warn_of_unknown_key(
    root: &Section<'_>,
    routes: &Result<Vec<Arc<Route>>, Reported>,
    identity: &Result<Identity, Reported>,
    admin: &Result<Option<Admin>, Reported>,
) {
    let (Ok(routes), Ok(Identity { key: None, .. }), Ok(None)) = (routes, identity, admin) else {
        return;
    };
    let mut signing = routes.iter().filter(|route| route.identity.is_some());
    if let Some(route) = signing.next() {
        let found = "no key, and no [admin] that serves the one made at start: no upstream can \
             verify X-Tidegate-Identity";
        root.warning(
            "identity",
            Some(route.line),
            found,
            "[identity] with a `key`, or [admin]",
        );
    }
}

/// Reads `[identity]`.
pub(super) fn identity(root: &mut Section<'_>) -> Result<Identity, Reported> {
    let Some(mut section) = root.section("identity")? else {
        return Ok(Identity::default());
    };
    let key = match section.has("key") {
        true => secret::source(&mut section, "key", KEY).map(Some),
        false => Ok(None),
    };
    let issuer = section.or(
        "issuer",
        checked(
            names::string_or_uri,
            "the `iss` of what the edge signs: \"https://edge.example.com\"",
        ),
        ISSUER.to_owned(),
    );
    section.done();
    let Placed { value: issuer, .. } = issuer?;
    let identity = Identity { key: key?, issuer };
    root.name_identity(identity.clone());
    Ok(identity)
}
