//! One connection, from the accept to its record: the steps of the design, top to bottom.
//!
//! This is where the IO modules meet; they do not know each other. Everything that is cold
//! after the opening handshake is dropped here, and the session goes on as a task of its
//! own, so that nothing of the handshake's memory stays with it.

mod arrival;
mod authorize;
mod bearers;
pub mod granting;
mod judging;
mod redialing;
mod session;
pub mod shedding;
pub mod web_client;
mod worker;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::auth::Admission;
use crate::config::{TcpPatience, Trust};
use crate::drain::Seat;
use crate::http::{self, Accept, HeadLimits, NotOpened, Opened, Request};
use crate::listener::{Accepted, Permit};
use crate::proto::client_address::Source;
use crate::proto::handshake::Fields;
use crate::proto::handshake::reject::Reject;
use crate::proxy::arrival::{Arrived, Origin, arrive, settle};
pub use crate::proxy::bearers::{Bearer, end_revoked};
use crate::proxy::granting::Pending;
use crate::proxy::judging::{Decision, Judged, decide, judge, pending, place_first};
use crate::proxy::session::{Awaiting, Ready, admitted, spawn_session};
use crate::proxy::worker::Fate;
pub use crate::proxy::worker::{Affected, Shared, Snapshot, Worker};
use crate::relay::Handle;
use crate::socket;
use crate::telemetry::chain;
use crate::tls::{Acceptor, Downstream};
use crate::upstream::{Connected, DialFailed, DialRequest, Scheme};

/// How connections come in at one listener.
#[derive(Debug)]
pub struct Entrance {
    /// Under which protection.
    pub encryption: Encryption,
    /// Whose word counts on where they come from.
    pub trust: Trust,
    /// How long TCP waits for them.
    pub tcp: TcpPatience,
}

/// What protects the connections of a listener.
#[derive(Debug)]
pub enum Encryption {
    /// In clear.
    Plaintext,
    /// Over TLS.
    Tls {
        /// Certificates and versions.
        acceptor: Acceptor,
        /// Longest TLS handshake.
        timeout: Duration,
    },
}

/// What a connection holds from the accept to its end.
struct Held {
    worker: Rc<Worker>,
    /// What was in force at the accept.
    snapshot: Rc<Snapshot>,
    origin: Origin,
    seat: Seat<Handle>,
    permit: Permit,
}

type Client = Request<Downstream>;

/// Takes in one accepted connection, and serves it. It has its seat, and its configuration, from
/// the call on: whoever waits for everybody waits for it, and what is taken before its first turn
/// is not half of what it meets. Its session, if it becomes one, goes on as a task of its own
/// after this returns.
pub fn serve(
    worker: &Rc<Worker>,
    accepted: Accepted,
    entrance: &Arc<Entrance>,
) -> impl Future<Output = ()> + use<> {
    worker.telemetry.counters.accepted.add();
    let handle = Handle::new(Rc::clone(&worker.gauge));
    let seat = worker.registry.enter_outside(handle);
    let (worker, snapshot) = (Rc::clone(worker), worker.snapshot());
    serve_seated(worker, snapshot, seat, accepted, Arc::clone(entrance))
}

async fn serve_seated(
    worker: Rc<Worker>,
    snapshot: Rc<Snapshot>,
    seat: Seat<Handle>,
    accepted: Accepted,
    entrance: Arc<Entrance>,
) {
    if let Err(error) = socket::set_patience(&accepted.tcp, &entrance.tcp) {
        tracing::debug!(%error, "broken at the accept");
        return;
    }
    let arriving = Box::pin(arrive(&worker, &snapshot, accepted, &entrance));
    let Some(Arrived {
        tcp,
        origin,
        permit,
        awaited,
    }) = arriving.await
    else {
        return;
    };
    let mut held = Held {
        seat,
        origin,
        permit,
        snapshot,
        worker,
    };
    let Some(stream) = terminate_tls(&held.worker, tcp, &entrance.encryption).await else {
        return;
    };
    let scheme = if stream.is_tls() {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let Some(mut client) = read_request(&mut held, stream, &entrance.trust, awaited).await else {
        return;
    };
    if held.worker.registry.is_closed() {
        return refuse(&held, client, Reject::Draining).await;
    }
    // From here on a drain waits for it; one that has not asked for anything may be cut off.
    held.seat.come_in();
    let judged = match judge(&held, &client) {
        Ok(judged) => judged,
        Err(reject) => return refuse(&held, client, reject).await,
    };
    // Which may wait for the issuer's keys, and then has no need of a client that went away.
    let decided = tokio::select! {
        biased;
        decided = Box::pin(decide(&held, &judged)) => decided,
        why = client.abandoned() => return count_not_opened(&held.worker, &why),
    };
    match decided {
        Ok(decision) => {
            let pending = pending(&held, &judged, &client, scheme);
            open(held, judged, decision, client, pending).await;
        }
        Err(reject) => refuse(&held, client, reject).await,
    }
}

/// Step 2: the TLS handshake, under its deadline.
async fn terminate_tls(
    worker: &Worker,
    tcp: TcpStream,
    encryption: &Encryption,
) -> Option<Downstream> {
    let Encryption::Tls { acceptor, timeout } = encryption else {
        return Some(Downstream::Plain(tcp));
    };
    let deadline = tokio::time::Instant::now() + *timeout;
    // Boxed, so that the task that waits here stays small.
    let failed = match timeout_at(deadline, Box::pin(acceptor.accept(tcp))).await {
        Ok(Ok(stream)) => return Some(Downstream::Tls(stream)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "not complete in time".to_owned(),
    };
    worker.telemetry.counters.tls_failed.add();
    tracing::debug!(reason = failed, "TLS handshake failed");
    None
}

/// Steps 3 and 4: one bounded request head, checked; and the end of step 1, where it says who
/// the client is.
async fn read_request(
    held: &mut Held,
    stream: Downstream,
    trust: &Trust,
    awaited: Option<Source>,
) -> Option<Client> {
    let limits = &held.snapshot.config().limits;
    let head = HeadLimits {
        deadline: tokio::time::Instant::now() + limits.request_head_timeout,
        max_head: limits.max_request_head,
        max_headers: limits.max_headers,
    };
    let vet = |fields: Fields<'_>| settle(held, fields, trust, awaited);
    match http::read_vetted_request(stream, &head, vet).await {
        Ok(client) => Some(client),
        Err(why) => {
            count_not_opened(&held.worker, &why);
            None
        }
    }
}

async fn refuse(held: &Held, client: Client, reject: Reject) {
    count_not_opened(&held.worker, &NotOpened::Rejected(reject));
    client.reject(reject).await;
}

fn count_not_opened(worker: &Worker, why: &NotOpened) {
    let counters = &worker.telemetry.counters;
    match why {
        NotOpened::Rejected(_) => counters.rejected.add(),
        _ => counters.no_request.add(),
    }
    tracing::debug!(reason = %why, "not opened");
}

/// Steps 8 and 12, in the order that the decision asks for: the edge's own answer first, where
/// the first message will decide; else the upstream's.
async fn open(
    mut held: Held,
    judged: Judged,
    decision: Decision,
    client: Client,
    pending: Option<Box<Pending>>,
) {
    let Some(mut pending) = pending else {
        // No randomness, no session: the keys would be guessable.
        tracing::error!("the system gives no random bytes");
        return client.reject(Reject::Unavailable).await;
    };
    let index = judged.index;
    match decision {
        Decision::Later => {
            // The client has been answered by then: the upstream may agree to that answer.
            pending.dial.subprotocols = judged.subprotocol.clone().into_iter().collect();
            let accept = Accept {
                subprotocol: judged.subprotocol,
                fields: Vec::new(),
            };
            if let Some(opened) = answer(&held, client, accept).await {
                spawn_session(held, index, opened, Awaiting::Token(pending));
            }
        }
        Decision::Admitted {
            admission,
            bearer,
            at,
        } => {
            let admitted = admitted(&admission, at);
            let granted = grant_first(&held, index, client, &admission, &mut pending).await;
            let Some(client) = granted else { return };
            // After the last that keeps a client out, and given back before anybody is told of
            // a failed dial: whoever is refused takes his time over it.
            let place = match place_first(&held, index, &admission) {
                Ok(place) => place,
                Err(reject) => return refuse(&held, client, reject).await,
            };
            held.permit.admit();
            let Some((client, dialed)) = dial_first(&held, index, client, &pending.dial).await
            else {
                return;
            };
            let connected = match dialed {
                Ok(connected) => connected,
                Err(failed) => {
                    drop(place);
                    return refuse_undialed(&held, client, failed).await;
                }
            };
            let accept = Accept {
                subprotocol: judged.answered(connected.subprotocol.as_deref()),
                fields: connected.set_cookies.clone(),
            };
            if let Some(opened) = answer(&held, client, accept).await {
                let holds = held.snapshot.outlives_upstream(index);
                if holds {
                    pending.handle_connected(&connected);
                }
                let ready = Ready {
                    id: pending.dial.request_id.clone(),
                    kept: holds.then_some(pending),
                    bearer,
                    place,
                    admitted,
                    connected: Box::new(connected),
                };
                spawn_session(held, index, opened, Awaiting::Nothing(ready));
            }
        }
    }
}

/// Step 8.
async fn answer(held: &Held, client: Client, accept: Accept) -> Option<Opened<Downstream>> {
    match client.accept(accept).await {
        Ok(opened) => {
            held.worker.telemetry.counters.sessions.add();
            Some(opened)
        }
        Err(why) => {
            count_not_opened(&held.worker, &why);
            None
        }
    }
}

/// The rest of step 11 before step 8: a client that is not to come in hears so in HTTP.
async fn grant_first(
    held: &Held,
    index: usize,
    mut client: Client,
    admission: &Admission,
    pending: &mut Pending,
) -> Option<Client> {
    let snapshot = &held.snapshot;
    let granting = snapshot
        .grants()
        .grant(snapshot.config(), index, admission, pending);
    let granted = tokio::select! {
        biased;
        granted = Box::pin(granting) => granted,
        why = client.abandoned() => {
            count_not_opened(&held.worker, &why);
            return None;
        }
    };
    match granted {
        Ok(()) => Some(client),
        Err(refused) => {
            tracing::debug!(client = %held.origin.client, reason = %chain(&refused), "not granted");
            refuse(held, client, refused.reject()).await;
            None
        }
    }
}

/// Step 12 before step 8. `None`: the client went away.
async fn dial_first(
    held: &Held,
    index: usize,
    mut client: Client,
    request: &DialRequest,
) -> Option<(Client, Result<Connected, DialFailed>)> {
    let upstream = held.snapshot.upstream_of(index)?;
    tokio::select! {
        dialed = upstream.dial(request) => Some((client, dialed)),
        why = client.abandoned() => {
            count_not_opened(&held.worker, &why);
            None
        }
    }
}

/// The upstream's own refusal reaches the client.
async fn refuse_undialed(held: &Held, client: Client, failed: DialFailed) {
    tracing::debug!(client = %held.origin.client, reason = %chain(&failed), "dial failed");
    held.worker.telemetry.counters.rejected.add();
    match failed {
        DialFailed::Refused(refusal) => client.relay(refusal).await,
        other => client.reject(other.reject()).await,
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}
