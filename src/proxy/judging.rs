//! Steps 5 to 7: what a request head is found to be, and what the upstream will hear of it.

use std::time::SystemTime;

use crate::auth::head::{Presented, RequestHead, Stripped};
use crate::auth::{Admission, TokenRefused};
use crate::config::Route;
use crate::drain::Seat;
use crate::proto::handshake::forward;
use crate::proto::handshake::reject::Reject;
use crate::proto::handshake::server::choose_subprotocol;
use crate::proxy::granting::Pending;
use crate::proxy::session::in_time;
use crate::proxy::{Bearer, Client, Held, Worker, random};
use crate::route::{NoPlace, Place, RouteEntry, Subject};
use crate::telemetry::chain;
use crate::upstream::{DialRequest, Scheme};

/// A request head that may become a session of a route.
pub(super) struct Judged {
    pub(super) index: usize,
    /// The first of the client's that the route lists.
    pub(super) subprotocol: Option<String>,
    /// The token in the head, when one is there and the route reads it.
    presented: Option<Presented>,
}

/// Who decides on a client.
pub(super) enum Decision {
    /// The first message will.
    Later,
    /// The request head did, when the wall clock read `at`.
    Admitted {
        admission: Box<Admission>,
        /// Its place among those with a token.
        bearer: Option<Seat<Bearer>>,
        at: SystemTime,
    },
}

impl Judged {
    /// The subprotocol of the 101, when the upstream chose this one of those offered. Where
    /// the token came as a subprotocol, an upstream that knows none must not leave the client
    /// without: browsers give up when they offer some and get none.
    pub(super) fn answered(&self, chosen: Option<&str>) -> Option<String> {
        let brought_token = self
            .presented
            .as_ref()
            .is_some_and(Presented::is_subprotocol);
        let own = self.subprotocol.as_deref().filter(|_| brought_token);
        chosen.or(own).map(str::to_owned)
    }
}

/// Steps 5 and 6: the route, the origin, the subprotocol; and whether there is a token.
pub(super) fn judge(held: &Held, client: &Client) -> Result<Judged, Reject> {
    let snapshot = &held.snapshot;
    let opening = client.opening();
    let entry = snapshot
        .shared
        .routes
        .find(opening.host(), opening.path())
        .ok_or(Reject::NoRoute)?;
    if !entry.route.admission.access.admits(held.origin.client.ip()) {
        held.worker.telemetry.counters.denied.add();
        return Err(Reject::Address);
    }
    let fields = client.fields();
    check_origin(entry, &fields)?;
    let route = &entry.route;
    let chosen = choose_subprotocol(opening.subprotocols(), &route.subprotocols);
    if chosen.is_none() && route.subprotocols_required {
        return Err(Reject::NoCommonSubprotocol);
    }
    let authenticator = snapshot.authenticator(entry.index);
    let head = RequestHead {
        path_and_query: opening.path_and_query(),
        subprotocols: opening.subprotocols(),
        fields: &fields,
    };
    let presented = authenticator
        .ok_or(Reject::NoRoute)?
        .find_token(&head)
        .map_err(|refused| token_refused(&route.name, &refused))?;
    Ok(Judged {
        index: entry.index,
        subprotocol: chosen.map(str::to_owned),
        presented,
    })
}

fn check_origin(entry: &RouteEntry, fields: &[(&str, &[u8])]) -> Result<(), Reject> {
    let origins = fields
        .iter()
        .filter(|(name, _)| *name == "origin")
        .map(|(_, value)| *value);
    entry.origins.check(origins).map_err(|refused| {
        tracing::debug!(route = entry.route.name, %refused, "origin refused");
        Reject::Origin
    })
}

/// Step 7. The reason of a refusal stays here.
pub(super) async fn decide(held: &Held, judged: &Judged) -> Result<Decision, Reject> {
    let route = held.snapshot.route(judged.index);
    let authenticator = held.snapshot.authenticator(judged.index);
    let (Some(route), Some(authenticator)) = (route, authenticator) else {
        return Err(Reject::NoRoute);
    };
    let admission = match &judged.presented {
        Some(presented) => {
            let admitting = authenticator.admit(presented.token(), SystemTime::now);
            in_time(authenticator, admitting)
                .await
                .map_err(|refused| token_refused(&route.name, &refused))?
        }
        None if route.policy.first_message.is_some() => return Ok(Decision::Later),
        None => Admission::anonymous(),
    };
    let at = SystemTime::now();
    let bearer = held
        .worker
        .seat(&route.name, &admission, &held.seat.handle, at)
        .map_err(|revoked| {
            tracing::debug!(route = route.name, reason = %revoked, "token refused");
            Reject::Token
        })?;
    Ok(Decision::Admitted {
        admission: Box::new(admission),
        bearer,
        at,
    })
}

/// The place of a client whose request head decided.
pub(super) fn place_first(
    held: &Held,
    index: usize,
    admission: &Admission,
) -> Result<Option<Box<Place>>, Reject> {
    let route = held.snapshot.route(index).ok_or(Reject::NoRoute)?;
    take_place(&held.worker, route, admission).map_err(|full| match full {
        NoPlace::Route => Reject::RouteFull,
        NoPlace::Subject => Reject::SubjectFull,
    })
}

/// A place on the route for whom `admission` admits, where places are counted.
pub(super) fn take_place(
    worker: &Worker,
    route: &Route,
    admission: &Admission,
) -> Result<Option<Box<Place>>, NoPlace> {
    let subject = Subject {
        issuer: admission.issuer.as_deref(),
        subject: admission.subject.as_deref(),
    };
    let taken = worker.places.take(&route.name, &route.admission, subject);
    taken.inspect_err(|full| {
        let counters = &worker.telemetry.counters;
        match full {
            NoPlace::Route => counters.over_route_cap.add(),
            NoPlace::Subject => counters.over_subject_cap.add(),
        }
        tracing::debug!(route = route.name, %full, "session refused");
    })
}

fn token_refused(route: &str, refused: &TokenRefused) -> Reject {
    tracing::debug!(route, reason = chain(refused), "token refused");
    match refused.is_unjudged() {
        true => Reject::Undecided,
        false => Reject::Token,
    }
}

/// Everything the upstream and the service that decides will be told, gathered while the
/// request head is at hand; what claims say comes later.
pub(super) fn pending(
    held: &Held,
    judged: &Judged,
    client: &Client,
    scheme: Scheme,
) -> Option<Box<Pending>> {
    let grants = held.snapshot.grants();
    let route = held.snapshot.route(judged.index)?;
    let authenticator = held.snapshot.authenticator(judged.index)?;
    let opening = client.opening();
    let fields = client.fields();
    let replaced: Vec<&str> = route
        .headers
        .iter()
        .map(|mapped| mapped.header.as_str())
        .chain(grants.added(judged.index).iter().map(String::as_str))
        .collect();
    let origin = fields.iter().find(|(name, _)| *name == "origin");
    let head = RequestHead {
        path_and_query: opening.path_and_query(),
        subprotocols: opening.subprotocols(),
        fields: &forward::request_fields(&fields, &replaced),
    };
    let Stripped {
        path_and_query,
        subprotocols,
        fields: passed,
    } = authenticator.strip(&head, judged.presented.as_ref());
    let dial = DialRequest {
        path_and_query,
        host: opening.authority().to_owned(),
        origin: origin.and_then(|(_, value)| String::from_utf8(value.to_vec()).ok()),
        client_ip: held.origin.client.ip().to_canonical(),
        scheme,
        request_id: request_id()?,
        subprotocols,
        passed,
        mapped: Vec::new(),
        key: random()?,
    };
    let shown = grants.shown(judged.index, &fields);
    Some(Box::new(Pending {
        dial,
        shown,
        admission: None,
        endpoint: None,
    }))
}

fn request_id() -> Option<String> {
    Some(format!("{:032x}", u128::from_be_bytes(random::<16>()?)))
}
