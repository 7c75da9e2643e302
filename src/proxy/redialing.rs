//! Step 12 again, for a session that outlives its upstream: another endpoint first, in its
//! turn among all that come back, with what the upstream was told before and a fresh identity.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use tokio::time::sleep_until;

use crate::proto::cause::DialFailure;
use crate::proto::session::Event;
use crate::proto::token::Masked;
use crate::proxy::granting::Pending;
use crate::proxy::session::{Running, SessionRelay, mask_keys, now};
use crate::proxy::{Snapshot, random};
use crate::telemetry::chain;
use crate::upstream::{Connected, DialRequest};

/// Why no other leg came of an attempt. For the log.
type Detail = String;

impl Running {
    /// Dials while the client goes on to be served, and the session may end.
    pub(super) async fn redial(&mut self, relay: &mut SessionRelay) {
        relay.disconnect();
        let until = relay.session_mut().held_until().unwrap_or_else(now);
        let lost = self.pending.as_mut().and_then(|kept| kept.endpoint.take());
        if let Some(endpoint) = &lost {
            self.held.worker.telemetry.counters.held.add();
            tracing::debug!(
                id = &*self.id,
                endpoint,
                "upstream lost: the client is held"
            );
        }
        let snapshot = self.snapshot_to_dial();
        let request = self.request_again();
        let mut dialing = pin!(async {
            let (snapshot, name) = snapshot.ok_or("no such upstream")?;
            dial_again(&snapshot, &name, request?, lost, until).await
        });
        let dialed = loop {
            tokio::select! {
                biased;
                dialed = &mut dialing => break dialed,
                event = relay.next_event() => match event {
                    Event::Ended => return,
                    Event::VerifyRefresh(Masked(token)) => {
                        let verdict = self.renew(relay, token).await;
                        relay.session_mut().handle_refreshed(verdict, now());
                        // Its end may have come meanwhile, and is said once.
                        if relay.session_mut().is_ended() {
                            return;
                        }
                    }
                    // Before there was an upstream, or answered already.
                    Event::VerifyToken(_) | Event::Dial | Event::Redial => {}
                },
            }
        };
        self.handle_redialed(relay, dialed);
    }

    fn handle_redialed(&mut self, relay: &mut SessionRelay, dialed: Result<Connected, Detail>) {
        let keys = mask_keys().ok_or_else(|| "the system gives no random bytes".to_owned());
        let redialed = match dialed.and_then(|connected| Ok((connected, keys?))) {
            Ok((connected, keys)) => {
                self.held.worker.telemetry.counters.resumed.add();
                tracing::debug!(id = &*self.id, endpoint = connected.endpoint, "resumed");
                self.detail = None;
                if let Some(kept) = &mut self.pending {
                    kept.handle_connected(&connected);
                }
                self.endpoint = Some(connected.endpoint.into());
                relay.connect(connected.stream, connected.early);
                Ok(keys)
            }
            Err(detail) => {
                tracing::debug!(id = &*self.id, reason = detail, "redial failed");
                self.detail = Some(detail);
                Err(DialFailure::Unreachable)
            }
        };
        relay.session_mut().handle_redialed(redialed, now());
    }

    /// What is in force now, where it still has the upstream of this name: its endpoints may
    /// have moved. Else what the session began with.
    fn snapshot_to_dial(&self) -> Option<(Rc<Snapshot>, String)> {
        let own = &self.held.snapshot;
        let name = own.upstream_of(self.index)?.name().to_owned();
        let current = self.held.worker.snapshot();
        let has_it = current.upstream_named(&name).is_some();
        let snapshot = if has_it { current } else { Rc::clone(own) };
        Some((snapshot, name))
    }

    /// What the upstream was told before, but for what may be used once.
    fn request_again(&mut self) -> Result<DialRequest, Detail> {
        let kept = self
            .pending
            .as_mut()
            .ok_or("nothing is kept to dial with")?;
        kept.dial.key = random().ok_or("the system gives no random bytes")?;
        let snapshot = &self.held.snapshot;
        snapshot
            .grants()
            .sign_again(snapshot.config(), self.index, kept)
            .map_err(|error| chain(&error))?;
        Ok(kept.dial.clone())
    }
}

impl Pending {
    /// The upstream has to agree to the same again: the client was told.
    pub(super) fn handle_connected(&mut self, connected: &Connected) {
        self.dial.subprotocols = connected.subprotocol.iter().cloned().collect();
        self.endpoint = Some(connected.endpoint.clone());
    }
}

async fn dial_again(
    snapshot: &Snapshot,
    name: &str,
    request: DialRequest,
    lost: Option<String>,
    until: Instant,
) -> Result<Connected, Detail> {
    let upstream = snapshot.upstream_named(name).ok_or("no such upstream")?;
    let turn = upstream.turn(now(), until);
    let turn = turn.ok_or("its turn among all that come back is too late")?;
    sleep_until(turn.into()).await;
    let dialed = upstream.dial_but(&request, lost.as_deref()).await;
    let connected = dialed.map_err(|failed| chain(&failed))?;
    if connected.subprotocol.as_deref() != request.subprotocols.first().map(String::as_str) {
        return Err("the upstream does not agree to the subprotocol again".to_owned());
    }
    Ok(connected)
}

#[cfg(test)]
mod tests;
