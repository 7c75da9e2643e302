//! Step 1: where a connection comes from, and whether there is a place for it.
//!
//! What holds for an address waits until it is known: the connection says it, or its PROXY
//! header, or a field of its request head. The further two only where a trusted proxy speaks.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::{ProxyProtocol, Trust};
use crate::http;
use crate::listener::{Accepted, Full, Permit, read_proxy_header};
use crate::proto::client_address::{self, Source};
use crate::proto::handshake::Fields;
use crate::proto::handshake::reject::Reject;
use crate::proxy::{Encryption, Entrance, Held, Snapshot, Worker};
use crate::telemetry::chain;

/// A connection that may go on.
pub(super) struct Arrived {
    pub(super) tcp: TcpStream,
    pub(super) origin: Origin,
    pub(super) permit: Permit,
    /// The field of the request head that will say who the client is; `None`: it is known.
    pub(super) awaited: Option<Source>,
}

/// Where a connection comes from, as far as is known.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) client: SocketAddr,
    /// Who says so, where that is not the client's own connection.
    pub(super) via: Option<Box<SocketAddr>>,
}

/// Takes a permit and learns the address; `None`: the connection is refused.
pub(super) async fn arrive(
    worker: &Worker,
    snapshot: &Snapshot,
    accepted: Accepted,
    entrance: &Entrance,
) -> Option<Arrived> {
    let Accepted { mut tcp, peer } = accepted;
    let permit = match worker.permits.take(&snapshot.config().limits.caps) {
        Ok(permit) => permit,
        Err(full) => {
            turn_away(worker, tcp, peer, full, entrance).await;
            return None;
        }
    };
    let trust = &entrance.trust;
    let named = match trust.proxy_protocol {
        ProxyProtocol::Off => Named::Connection,
        ProxyProtocol::Require => announced(worker, &mut tcp, peer, trust).await?,
    };
    let origin = named.origin(peer);
    let mut arrived = Arrived {
        tcp,
        awaited: named.awaited(trust, &origin),
        origin,
        permit,
    };
    match check(worker, snapshot, &mut arrived) {
        Ok(()) => Some(arrived),
        Err(Refused::Address) => None,
        Err(Refused::Full(full)) => {
            let Arrived {
                tcp,
                origin,
                permit,
                ..
            } = arrived;
            drop(permit);
            turn_away(worker, tcp, origin.client, full, entrance).await;
            None
        }
    }
}

/// Why an address does not come in.
enum Refused {
    Address,
    Full(Full),
}

/// What holds for an address, if it is the client's already; then what holds for all.
fn check(worker: &Worker, snapshot: &Snapshot, arrived: &mut Arrived) -> Result<(), Refused> {
    let caps = &snapshot.config().limits.caps;
    if arrived.awaited.is_none() {
        let client = arrived.origin.client;
        admit_address(worker, snapshot, client, &mut arrived.permit)?;
    }
    let now = Instant::now().into_std();
    worker.permits.one_more(caps, now).map_err(Refused::Full)
}

/// Whom a connection is from, by what it begins with.
enum Named {
    /// No PROXY header is demanded: it speaks for itself.
    Connection,
    /// The header names the client.
    Client(SocketAddr),
    /// The header names nobody.
    Nobody,
}

impl Named {
    fn origin(&self, peer: SocketAddr) -> Origin {
        match self {
            Self::Client(client) => Origin {
                client: *client,
                via: Some(Box::new(peer)),
            },
            Self::Connection | Self::Nobody => Origin {
                client: peer,
                via: None,
            },
        }
    }

    /// The field that says more, which only a trusted proxy can fill. Who sends a PROXY header
    /// passes bytes through and fills no field: where it names nobody, fields are the word of
    /// nobody knows whom.
    fn awaited(&self, trust: &Trust, origin: &Origin) -> Option<Source> {
        let is_trusted = trust.proxies.contains(origin.client.ip());
        let is_known = matches!(self, Self::Nobody) || !is_trusted;
        trust.client_address.filter(|_| !is_known)
    }
}

fn admit_address(
    worker: &Worker,
    snapshot: &Snapshot,
    client: SocketAddr,
    permit: &mut Permit,
) -> Result<(), Refused> {
    let limits = &snapshot.config().limits;
    if !limits.access.admits(client.ip()) {
        worker.telemetry.counters.denied.add();
        tracing::debug!(%client, "address is not allowed");
        return Err(Refused::Address);
    }
    let now = Instant::now().into_std();
    let claimed = permit.claim(client.ip(), &limits.caps, now);
    claimed.map_err(Refused::Full)
}

/// What the PROXY header says. Nobody is believed but the trusted proxies, and they have to
/// say something.
async fn announced(
    worker: &Worker,
    tcp: &mut TcpStream,
    peer: SocketAddr,
    trust: &Trust,
) -> Option<Named> {
    let deadline = Instant::now() + PROXY_HEADER_TIMEOUT;
    let refused = match trust.proxies.contains(peer.ip()) {
        false => "not one of `trusted_proxies`".to_owned(),
        true => match read_proxy_header(tcp, deadline).await {
            Ok(client) => return Some(client.map_or(Named::Nobody, Named::Client)),
            Err(error) => chain(&error),
        },
    };
    worker.telemetry.counters.no_proxy_header.add();
    tracing::debug!(%peer, reason = refused, "no PROXY header");
    None
}

/// The end of step 1 where a field of the request head says who the client is.
pub(super) fn settle(
    held: &mut Held,
    fields: Fields<'_>,
    trust: &Trust,
    awaited: Option<Source>,
) -> Result<(), Reject> {
    let Some(source) = awaited else {
        return Ok(());
    };
    let peer = held.origin.client;
    let client = client_address::client(peer, &trust.proxies, source, fields)
        .map_err(|_| Reject::ClientAddress)?;
    if client != peer {
        held.origin.client = client;
        held.origin.via.get_or_insert_with(|| Box::new(peer));
    }
    let (worker, snapshot) = (&held.worker, &held.snapshot);
    match admit_address(worker, snapshot, client, &mut held.permit) {
        Ok(()) => Ok(()),
        Err(Refused::Address) => Err(Reject::Address),
        Err(Refused::Full(full)) => {
            count(worker, client, full);
            Err(reject(full))
        }
    }
}

/// Refuses a connection over a cap: in words where it is in clear, for over TLS the words
/// would cost the handshake that the cap is to save.
async fn turn_away(
    worker: &Worker,
    tcp: TcpStream,
    client: SocketAddr,
    full: Full,
    entrance: &Entrance,
) {
    count(worker, client, full);
    if let Encryption::Plaintext = entrance.encryption
        && let Some(_refusing) = worker.permits.refusing()
    {
        http::turn_away(tcp, reject(full)).await;
    }
}

fn count(worker: &Worker, client: SocketAddr, full: Full) {
    let counters = &worker.telemetry.counters;
    match full {
        Full::Process => counters.over_process_cap.add(),
        Full::Strangers => counters.over_unauthenticated_cap.add(),
        Full::Rate => counters.over_rate.add(),
        Full::Address => counters.over_address_cap.add(),
        Full::AddressRate => counters.over_address_rate.add(),
    }
    tracing::debug!(%client, %full, "connection refused");
}

fn reject(full: Full) -> Reject {
    match full {
        Full::Process | Full::Strangers | Full::Rate => Reject::Crowded,
        Full::Address | Full::AddressRate => Reject::AddressCrowded,
    }
}

/// From the accept to the end of the PROXY header: a balancer sends it in its first packet.
const PROXY_HEADER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
