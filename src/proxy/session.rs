//! Steps 9 to 15: a session's own task, from the 101 to the record.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::auth::{Admission, Authenticator, TokenRefused};
use crate::drain::Seat;
use crate::http::Opened;
use crate::proto::cause::DialFailure;
use crate::proto::seed::Seed;
use crate::proto::session::{Admitted, Event, MaskKeys, Session, Summary, TokenVerdict};
use crate::proto::token::Masked;
use crate::proxy::granting::Pending;
use crate::proxy::judging::take_place;
use crate::proxy::{Bearer, Fate, Held, random};
use crate::relay::{Handle, Relay};
use crate::revocation::Marks;
use crate::route::{NoPlace, Place};
use crate::telemetry::{Record, chain};
use crate::tls::Downstream;
use crate::upstream::{Connected, DialFailed};

/// What a session still needs when its 101 has been answered.
pub(super) enum Awaiting {
    /// The token in the first message, and then the upstream.
    Token(Box<Pending>),
    /// Nothing: the request head was enough, and the upstream agreed.
    Nothing(Ready),
}

/// A session whose request head decided.
pub(super) struct Ready {
    pub(super) id: String,
    pub(super) bearer: Option<Seat<Bearer>>,
    pub(super) place: Option<Box<Place>>,
    pub(super) admitted: Admitted,
    pub(super) connected: Box<Connected>,
    /// What the upstream may be dialled with again, where the session outlives it.
    pub(super) kept: Option<Box<Pending>>,
}

/// Step 9: the session becomes a task of its own.
pub(super) fn spawn_session(
    held: Held,
    index: usize,
    opened: Opened<Downstream>,
    awaiting: Awaiting,
) {
    let Some(route) = held.snapshot.route(index) else {
        return;
    };
    let Some(mask_keys) = mask_keys() else {
        tracing::error!("the system gives no random bytes");
        return;
    };
    let began = Instant::now();
    let policy = Arc::clone(&route.policy);
    let session = match &awaiting {
        Awaiting::Token(_) => Session::new(policy, mask_keys, now()),
        Awaiting::Nothing(ready) => {
            Session::admitted(policy, ready.admitted.clone(), mask_keys, now())
        }
    };
    let handle = Rc::clone(&held.seat.handle);
    handle.belong_to(route);
    if is_outdated(&held) {
        handle.leave();
        handle.drain();
    }
    let mut relay = Relay::new(session, opened.stream, opened.early, handle);
    let mut running = Running {
        id: Box::default(),
        index,
        began,
        bearer: None,
        place: None,
        endpoint: None,
        detail: None,
        pending: None,
        held,
    };
    match awaiting {
        Awaiting::Token(pending) => {
            running.id = pending.dial.request_id.as_str().into();
            running.pending = Some(pending);
        }
        Awaiting::Nothing(ready) => {
            running.id = ready.id.into();
            running.bearer = ready.bearer;
            running.place = ready.place;
            running.pending = ready.kept;
            running.endpoint = Some(ready.connected.endpoint.into());
            relay.connect(ready.connected.stream, ready.connected.early);
        }
    }
    tokio::task::spawn_local(run(Box::new(running), Box::new(relay)));
}

/// Whether the route went while the client was being let in. New limits are told.
fn is_outdated(held: &Held) -> bool {
    let now = held.worker.snapshot();
    !Rc::ptr_eq(&now, &held.snapshot) && now.revise(&held.seat.handle) == Fate::Vanished
}

/// A session and what its record will say.
pub(super) struct Running {
    pub(super) id: Box<str>,
    pub(super) index: usize,
    began: Instant,
    /// Its place among those with a token.
    bearer: Option<Seat<Bearer>>,
    /// Its place among the sessions of the route, where those are counted.
    place: Option<Box<Place>>,
    pub(super) endpoint: Option<Box<str>>,
    pub(super) detail: Option<String>,
    /// Until the upstream was dialled; where the session outlives it, to the end.
    pub(super) pending: Option<Box<Pending>>,
    pub(super) held: Held,
}

pub(super) type SessionRelay = Relay<Downstream, TcpStream>;

/// Steps 10 to 15.
async fn run(mut running: Box<Running>, mut relay: Box<SessionRelay>) {
    while !relay.session_mut().is_ended() {
        let event = relay.next_event().await;
        running.answer(&mut relay, event).await;
    }
    running.record(relay.session_mut().summary());
}

impl Running {
    /// Does what the session needs done outside its two connections. Boxed, so that the task
    /// of an idle session stays small.
    fn answer<'a>(
        &'a mut self,
        relay: &'a mut SessionRelay,
        event: Event,
    ) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move {
            let handle = Rc::clone(&self.held.seat.handle);
            match event {
                Event::VerifyToken(Masked(first_message)) => {
                    let verdict = self.verify(first_message);
                    if let Some(verdict) = unless_stopped(&handle, verdict).await {
                        relay.session_mut().handle_token(verdict, now());
                    }
                }
                Event::VerifyRefresh(Masked(token)) => {
                    let verdict = self.renew(relay, token).await;
                    relay.session_mut().handle_refreshed(verdict, now());
                }
                Event::Dial => {
                    if let Some(dialed) = unless_stopped(&handle, self.dial()).await {
                        let dialed = dialed.map(|(stream, early)| relay.connect(stream, early));
                        relay.session_mut().handle_dialed(dialed, now());
                    }
                }
                Event::Redial => self.redial(relay).await,
                Event::Ended => {}
            }
        })
    }

    /// Step 15.
    fn record(self, summary: Summary) {
        let marks = self.bearer.as_ref().map(|bearer| &bearer.handle.marks);
        let subject = marks.and_then(Marks::sub).map(str::to_owned);
        let route = self.held.snapshot.route(self.index);
        self.held.worker.telemetry.record(&Record {
            id: self.id.into(),
            route: route.map(|route| route.name.clone()).unwrap_or_default(),
            subject,
            client: self.held.origin.client,
            via: self.held.origin.via.as_deref().copied(),
            endpoint: self.endpoint.map(String::from),
            detail: self.detail,
            duration: self.began.elapsed(),
            summary,
        });
    }

    /// Step 11. The reason of a refusal stays here.
    async fn verify(&mut self, first_message: String) -> TokenVerdict {
        let Some(authenticator) = self.held.snapshot.authenticator(self.index) else {
            return TokenVerdict::Refused;
        };
        let admitting = authenticator.admit_message(&first_message, SystemTime::now);
        let admission = match in_time(authenticator, admitting).await {
            Ok(admission) => admission,
            Err(refused) => {
                self.detail = Some(chain(&refused));
                return match refused.is_unjudged() {
                    true => TokenVerdict::Unavailable,
                    false => TokenVerdict::Refused,
                };
            }
        };
        let admitted = match self.seat(&admission) {
            Ok(admitted) => admitted,
            Err(revoked) => {
                self.detail = Some(revoked);
                return TokenVerdict::Refused;
            }
        };
        let Some(pending) = &mut self.pending else {
            return TokenVerdict::Refused;
        };
        let snapshot = &self.held.snapshot;
        let granting = snapshot
            .grants()
            .grant(snapshot.config(), self.index, &admission, pending);
        if let Err(refused) = granting.await {
            self.detail = Some(chain(&refused));
            return refused.verdict();
        }
        // After the last that keeps a client out: whoever is refused lingers for a while.
        if let Some(full) = self.take_place(&admission) {
            return full;
        }
        self.held.permit.admit();
        TokenVerdict::Admitted(admitted)
    }

    /// A new token in place of the one that admitted the session, which goes on meanwhile and
    /// may end. What the upstream was told of the older one stands. It is judged by the keys
    /// that are in force now: issuers change theirs while sessions go on.
    pub(super) async fn renew(&mut self, relay: &mut SessionRelay, token: String) -> TokenVerdict {
        let (now, born) = (self.held.worker.snapshot(), Rc::clone(&self.held.snapshot));
        let route = born.route(self.index);
        let renewer = route.and_then(|route| now.renewer(&route.name));
        let Some(authenticator) = renewer.or_else(|| born.authenticator(self.index)) else {
            return TokenVerdict::Refused;
        };
        let older = self.bearer.as_ref().map(|bearer| Rc::clone(&bearer.handle));
        let marks = older.as_ref().map(|older| &older.marks);
        let identity = (marks.and_then(Marks::iss), marks.and_then(Marks::sub));
        let renewing = authenticator.renew(&token, identity, SystemTime::now);
        let mut renewing = pin!(in_time(authenticator, renewing));
        let renewed = loop {
            tokio::select! {
                renewed = &mut renewing => break renewed,
                event = relay.next_event() => if event == Event::Ended {
                    return TokenVerdict::Refused;
                },
            }
        };
        let renewed = match renewed {
            Ok(admission) => self.seat(&admission).inspect(|_| {
                let kept = self.pending.as_mut();
                if let Some(older) = kept.and_then(|kept| kept.admission.as_mut()) {
                    **older = admission;
                }
            }),
            Err(refused) => Err(chain(&refused)),
        };
        match renewed {
            Ok(admitted) => TokenVerdict::Admitted(admitted),
            Err(refused) => {
                self.detail = Some(format!("refresh: {refused}"));
                TokenVerdict::Refused
            }
        }
    }

    /// Takes a place on the route; or says that there is none.
    fn take_place(&mut self, admission: &Admission) -> Option<TokenVerdict> {
        let route = self.held.snapshot.route(self.index)?;
        match take_place(&self.held.worker, route, admission) {
            Ok(place) => {
                self.place = place;
                None
            }
            Err(NoPlace::Route) => Some(TokenVerdict::RouteFull),
            Err(NoPlace::Subject) => Some(TokenVerdict::SubjectFull),
        }
    }

    /// Takes the place of a session with this token, unless that was revoked.
    fn seat(&mut self, admission: &Admission) -> Result<Admitted, String> {
        let clock = SystemTime::now();
        let (worker, handle) = (&self.held.worker, &self.held.seat.handle);
        let route = handle.route().map(|route| route.name.as_str());
        let bearer = worker.seat(route.unwrap_or_default(), admission, handle, clock);
        self.bearer = bearer.map_err(|revoked| revoked.to_string())?;
        Ok(admitted(admission, clock))
    }

    /// Step 12.
    async fn dial(&mut self) -> Result<(TcpStream, Bytes), DialFailure> {
        let (Some(mut pending), Some(upstream)) = (
            self.pending.take(),
            self.held.snapshot.upstream_of(self.index),
        ) else {
            return Err(DialFailure::Unreachable);
        };
        match upstream.dial(&pending.dial).await {
            Ok(connected) => {
                if self.held.snapshot.outlives_upstream(self.index) {
                    pending.handle_connected(&connected);
                    self.pending = Some(pending);
                }
                self.endpoint = Some(connected.endpoint.into());
                Ok((connected.stream, connected.early))
            }
            Err(failed) => {
                self.detail = Some(chain(&failed));
                Err(match failed {
                    DialFailed::Unreachable(_) => DialFailure::Unreachable,
                    DialFailed::TimedOut(_) => DialFailure::TimedOut,
                    _ => DialFailure::Refused,
                })
            }
        }
    }
}

/// What comes of `work`, which others are waited for with. `None`: the session is to end before;
/// the relay hears why at its next turn.
async fn unless_stopped<T>(handle: &Handle, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = handle.ending() => None,
        done = work => Some(done),
    }
}

/// The verdict, which waits for the issuer's keys where it has to, and not for ever.
pub(super) async fn in_time(
    authenticator: &Authenticator,
    admitting: impl Future<Output = Result<Admission, TokenRefused>>,
) -> Result<Admission, TokenRefused> {
    match timeout(authenticator.patience(), admitting).await {
        Ok(verdict) => verdict,
        Err(_) => Err(TokenRefused::KeysLate),
    }
}

/// What the session keeps of an admission granted when the wall clock read `clock`.
pub(super) fn admitted(admission: &Admission, clock: SystemTime) -> Admitted {
    Admitted {
        expires: admission.expires_at.and_then(|at| instant(at, clock)),
        grants: admission.grants.clone(),
    }
}

/// A moment of the wall clock, which reads `clock` now, on the clock that sessions read: what
/// happens to the wall clock later moves no deadline. `None`: so far off that it never comes.
fn instant(at: SystemTime, clock: SystemTime) -> Option<Instant> {
    now().checked_add(at.duration_since(clock).unwrap_or_default())
}

/// Masking keys of a session, or of a new upstream leg. `None`: the system gives none.
pub(super) fn mask_keys() -> Option<MaskKeys> {
    let [a, b, c, d, e, f, g, h, seed @ ..] = random::<16>()?;
    Some(MaskKeys {
        first_message: [a, b, c, d],
        close: [e, f, g, h],
        seed: Seed(u64::from_ne_bytes(seed)),
    })
}

/// The clock as the session reads it: tokio's, so that tests can move it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<T>(
        _: impl FnOnce(Box<Running>, Box<Relay<Downstream, TcpStream>>) -> T,
    ) -> usize {
        size_of::<T>()
    }

    #[test]
    fn an_idle_session_stays_small() {
        // Beside these it owns its two sockets and the TLS state; its pipes own nothing.
        assert!(size_of_output(run) <= 128, "{}", size_of_output(run));
        let relay = size_of::<Relay<Downstream, TcpStream>>();
        assert!(relay <= 1312, "{relay}");
        let running = size_of::<Running>();
        assert!(running <= 224, "{running}");
    }
}
