//! Step 1: where a connection comes from, and whether there is a place for it.
//!
//! What holds for an address waits until it is known: the connection says it, or its PROXY
//! header, or a field of its request head. The further two only where a trusted proxy speaks.
//! How fast connections may come in all waits with it, so that it is spent by none whom the
//! caps of its own address keep out.

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

/// Takes a permit and learns the address; `None`: the connection is refused. Lists and trust
/// come first, as far as the connection alone tells: who fails there is closed without a word,
/// however full the process is.
pub(super) async fn arrive(
    worker: &Worker,
    snapshot: &Snapshot,
    accepted: Accepted,
    entrance: &Entrance,
) -> Option<Arrived> {
    let Accepted { mut tcp, peer } = accepted;
    let trust = &entrance.trust;
    if !may_come(worker, snapshot, peer, trust) {
        return None;
    }
    let permit = match worker.permits.take(&snapshot.config().limits.caps) {
        Ok(permit) => permit,
        Err(full) => {
            turn_away(worker, tcp, peer, full, entrance).await;
            return None;
        }
    };
    let named = match trust.proxy_protocol {
        ProxyProtocol::Off => Named::Connection,
        ProxyProtocol::Require => announced(worker, &mut tcp, peer).await?,
    };
    let origin = named.origin(peer);
    let mut arrived = Arrived {
        tcp,
        awaited: named.awaited(trust, &origin),
        origin,
        permit,
    };
    if arrived.awaited.is_some() {
        return Some(arrived);
    }
    let client = arrived.origin.client;
    let is_vetted = matches!(named, Named::Connection);
    if !is_vetted && !is_allowed(worker, snapshot, client) {
        return None;
    }
    match claim(snapshot, client, &mut arrived.permit) {
        Ok(()) => Some(arrived),
        Err(full) => {
            let Arrived { tcp, permit, .. } = arrived;
            drop(permit);
            turn_away(worker, tcp, client, full, entrance).await;
            None
        }
    }
}

/// Whether a connection may come in, as far as its own address tells.
fn may_come(worker: &Worker, snapshot: &Snapshot, peer: SocketAddr, trust: &Trust) -> bool {
    let is_trusted = trust.proxies.contains(peer.ip());
    match (trust.proxy_protocol, trust.client_address) {
        (ProxyProtocol::Require, _) if is_trusted => true,
        (ProxyProtocol::Require, _) => {
            count_unannounced(worker, peer, "not one of `trusted_proxies`");
            false
        }
        // Its address is not the client's.
        (ProxyProtocol::Off, Some(_)) if is_trusted => true,
        (ProxyProtocol::Off, _) => is_allowed(worker, snapshot, peer),
    }
}

fn is_allowed(worker: &Worker, snapshot: &Snapshot, client: SocketAddr) -> bool {
    let is_allowed = snapshot.config().limits.access.admits(client.ip());
    if !is_allowed {
        worker.telemetry.counters.denied.add();
        tracing::debug!(%client, "address is not allowed");
    }
    is_allowed
}

fn claim(snapshot: &Snapshot, client: SocketAddr, permit: &mut Permit) -> Result<(), Full> {
    let now = Instant::now().into_std();
    permit.claim(client.ip(), &snapshot.config().limits.caps, now)
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

/// What the PROXY header of a trusted proxy says. It has to say something.
async fn announced(worker: &Worker, tcp: &mut TcpStream, peer: SocketAddr) -> Option<Named> {
    let deadline = Instant::now() + PROXY_HEADER_TIMEOUT;
    match read_proxy_header(tcp, deadline).await {
        Ok(client) => Some(client.map_or(Named::Nobody, Named::Client)),
        Err(error) => {
            count_unannounced(worker, peer, &chain(&error));
            None
        }
    }
}

fn count_unannounced(worker: &Worker, peer: SocketAddr, reason: &str) {
    worker.telemetry.counters.no_proxy_header.add();
    tracing::debug!(%peer, reason, "no PROXY header");
}

/// The end of step 1 where a field of the request head says who the client is: for every head
/// that can be read, so that one which is refused for something else counts as well.
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
    if !is_allowed(worker, snapshot, client) {
        return Err(Reject::Address);
    }
    claim(snapshot, client, &mut held.permit).map_err(|full| {
        count(&held.worker, client, full);
        reject(full)
    })
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
        Full::AddressStrangers => counters.over_address_unauthenticated_cap.add(),
        Full::AddressRate => counters.over_address_rate.add(),
    }
    tracing::debug!(%client, %full, "connection refused");
}

fn reject(full: Full) -> Reject {
    match full {
        Full::Process | Full::Strangers | Full::Rate => Reject::Crowded,
        Full::Address | Full::AddressStrangers | Full::AddressRate => Reject::AddressCrowded,
    }
}

/// From the accept to the end of the PROXY header: a balancer sends it in its first packet.
const PROXY_HEADER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
