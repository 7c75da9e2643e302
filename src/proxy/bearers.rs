//! The live sessions that a token admitted, so that its revocation finds them.
//!
//! A session takes its place here before the store is asked, on the same thread that sweeps
//! after a change of the store: so a revocation meets either the question or the place.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::yield_now;

use crate::auth::Admission;
use crate::drain::{Registry, Seat};
use crate::proxy::Worker;
use crate::relay::Handle;
use crate::revocation::{Marks, Store};

/// A session as revocation knows it.
#[derive(Debug)]
pub struct Bearer {
    pub(super) marks: Marks,
    handle: Rc<Handle>,
}

/// The token is revoked.
#[derive(Debug, thiserror::Error)]
#[error("the token is revoked")]
pub(super) struct Revoked;

impl Worker {
    /// Gives a session that `admission` admits at `clock` its place, unless the token counts no
    /// longer. `None`: it has no token.
    pub(super) fn seat(
        &self,
        route: &str,
        admission: &Admission,
        handle: &Rc<Handle>,
        clock: SystemTime,
    ) -> Result<Option<Seat<Bearer>>, Revoked> {
        // Every token expires; who brought none has no such time.
        if admission.expires_at.is_none() {
            return Ok(None);
        }
        let version = self.revocations.version();
        let marks = Marks::new(
            route,
            admission.token_id.as_deref(),
            admission.subject.as_deref(),
            admission.issuer.as_deref(),
            admission.issued_at,
            version,
        );
        let seat = self.bearers.enter(Bearer {
            marks,
            handle: Rc::clone(handle),
        });
        match self.revocations.refuses(&seat.handle.marks, seconds(clock)) {
            true => Err(Revoked),
            false => Ok(Some(seat)),
        }
    }
}

/// Ends the sessions whose token counts no longer, after each change of the store.
pub async fn end_revoked(worker: Rc<Worker>, mut changes: watch::Receiver<u64>) {
    // The sender goes only with the process.
    while changes.changed().await.is_ok() {
        sweep(&worker.bearers, &worker.revocations).await;
    }
}

/// In portions: other sessions have their turn in between, and those found end meanwhile.
async fn sweep(bearers: &Registry<Bearer>, revocations: &Store) {
    for portion in bearers.handles().chunks(PORTION) {
        let now = seconds(SystemTime::now());
        for bearer in portion {
            if revocations.refuses(&bearer.marks, now) {
                bearer.handle.revoke();
            }
        }
        yield_now().await;
    }
}

fn seconds(clock: SystemTime) -> u64 {
    clock
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Sessions looked at in one go: three look-ups in a table each.
const PORTION: usize = 256;

#[cfg(test)]
mod tests;
