//! What those who answer operators, and who end the process, need to know of the configuration in
//! force.

use std::sync::Arc;

use crate::admin::{Guard, Token};
use crate::config::Drain;
use crate::server::desk::ReadyCheck;
use crate::server::key_refresh;
use crate::server::prepared::Prepared;

/// See the module's documentation. Exchanged whole.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) ready: Vec<ReadyCheck>,
    /// The public keys of the tokens that the edge signs, as JSON.
    pub(super) keys: Option<Arc<str>>,
    /// The names of all.
    pub(super) routes: Vec<String>,
    pub(super) drain: Drain,
    token: Option<Arc<Token>>,
    is_loopback: bool,
}

impl Standing {
    pub(super) fn of(prepared: &Prepared) -> Self {
        let config = &prepared.shared.config;
        let admin = config.admin.as_ref();
        Self {
            ready: key_refresh::ready_checks(&prepared.key_sets),
            keys: prepared.shared.grants.jwks().map(Arc::from),
            routes: config.routes.iter().map(|r| r.name.clone()).collect(),
            drain: config.server.drain.clone(),
            token: prepared.admin_token.clone(),
            is_loopback: admin.is_some_and(|admin| admin.bind.ip().to_canonical().is_loopback()),
        }
    }

    pub(super) fn guard(&self) -> Guard {
        Guard {
            token: self.token.clone(),
            is_loopback: self.is_loopback,
        }
    }
}
