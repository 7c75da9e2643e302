//! The settings of a listener's TLS, with their reasons, and the way to a [`TlsStream`].
//!
//! Knows the configuration and nothing of the socket's use afterwards.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::version::TLS13;
use rustls::{ALL_VERSIONS, SupportedProtocolVersion};
use tokio::net::TcpStream;

use crate::config::problem::{Problem, Severity};
use crate::config::{Tls, TlsVersion};
use crate::tls::certificates::{self, Identity, Place};
use crate::tls::engine::Engine;
use crate::tls::sni::{Added, ByName};
use crate::tls::stream::TlsStream;

/// Turns accepted TCP connections of one listener into TLS streams.
///
/// Cheap to clone and shared by all workers, so that a ticket issued by one is accepted by
/// the others.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// Reads every file that `tls` names. `name` is the listener's key in the configuration,
    /// `listener.#1`, and begins the key of every problem.
    ///
    /// # Errors
    /// All problems, warnings too, if one of them is an error. Without an error the warnings
    /// come with the acceptor.
    pub fn load(tls: &Tls, name: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        Self::load_as_of(tls, name, SystemTime::now())
    }

    pub(super) fn load_as_of(
        tls: &Tls,
        name: &str,
        now: SystemTime,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let provider = Arc::new(provider());
        let mut problems = Vec::new();
        let identities = identities(tls, name, &provider, now, &mut problems);
        let names = by_name(&identities, &mut problems);
        if problems.iter().any(|p| p.severity == Severity::Error) {
            return Err(problems);
        }
        let built = match names {
            Some(names) => server_config(tls.min_version, names, provider),
            None => Err(rustls::Error::NoCertificatesPresented),
        };
        match built {
            Ok(config) => Ok((
                Self {
                    config: Arc::new(config),
                },
                problems,
            )),
            Err(error) => {
                problems.push(unusable(tls, name, &error));
                Err(problems)
            }
        }
    }

    /// The TLS handshake, up to and with our last flight. It has no deadline of its own; to
    /// end it early, drop the future: the socket goes with it.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the client leaves, [`io::ErrorKind::InvalidData`]
    /// with the reason if it breaks the protocol or nothing is spoken by both, and the
    /// socket's own errors.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream> {
        let engine = Engine::new(&self.config).map_err(io::Error::other)?;
        let mut stream = TlsStream::new(tcp, engine);
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// Loads all pairs, each with the place it stands at.
fn identities(
    tls: &Tls,
    name: &str,
    provider: &CryptoProvider,
    now: SystemTime,
    problems: &mut Vec<Problem>,
) -> Vec<(Place, Identity)> {
    tls.certificates
        .iter()
        .enumerate()
        .filter_map(|(i, files)| {
            let place = Place {
                key: format!("{name}.tls.certificates[{i}]"),
                line: files.line,
            };
            let identity = certificates::load(files, &place, provider, now, problems)?;
            Some((place, identity))
        })
        .collect()
}

/// The first certificate is for everybody; each is for its names. `None` without any.
fn by_name(identities: &[(Place, Identity)], problems: &mut Vec<Problem>) -> Option<ByName> {
    let (_, default) = identities.first()?;
    let mut by_name = ByName::new(Arc::clone(&default.certified));
    for (i, (place, identity)) in identities.iter().enumerate() {
        let mut taken = identity.facts.dns_names.clone();
        taken.retain(|name| by_name.add(name, &identity.certified) == Added::Taken);
        if !taken.is_empty() {
            let found = format!("an earlier certificate already has {}", taken.join(", "));
            let allowed = "each name once: the first certificate that has it is served";
            problems.push(place.warning("cert", found, allowed));
        }
        if i > 0 && identity.facts.dns_names.is_empty() {
            let found = "no DNS name among its alternative names: it is never chosen".to_owned();
            let allowed = "a certificate with names, or none at all here";
            problems.push(place.warning("cert", found, allowed));
        }
    }
    Some(by_name)
}

fn server_config(
    min_version: TlsVersion,
    names: ByName,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(min_version))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    // Our order of cipher suites, not the client's: see `provider`.
    config.ignore_client_order = true;
    // Only what is served. A client that offers protocols, and this one not among them, is
    // refused with no_application_protocol (RFC 7301 §3.2); one that offers none is served.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets that hold the session themselves, under keys that change every 6 hours: no
    // table that fills up (the default has 256 places), and 0-RTT, which can be replayed, is
    // impossible with them. One is enough, since a WebSocket client opens one connection.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    // Nothing is sent before the client's Finished proves that it is there.
    config.send_half_rtt_data = false;
    Ok(config)
}

static ONLY_V1_3: &[&SupportedProtocolVersion] = &[&TLS13];

fn versions(min_version: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min_version {
        TlsVersion::V1_2 => ALL_VERSIONS,
        TlsVersion::V1_3 => ONLY_V1_3,
    }
}

/// The provider's own suites with AES-128 before AES-256.
///
/// Every suite here is an AEAD with forward secrecy, and none can be attacked better than by
/// trying keys, 2^128 of them. So the cheapest for the edge, whose sessions are many, goes
/// first: AES-128-GCM costs about 8 % less than AES-256-GCM. A client without AES
/// instructions still gets ChaCha20-Poly1305 by offering nothing else. The key exchange
/// follows the client's order, which puts X25519MLKEM768 first where the client has it.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// What no file is to blame for: no entry at all, or no randomness for ticket keys.
fn unusable(tls: &Tls, name: &str, error: &rustls::Error) -> Problem {
    Problem {
        severity: Severity::Error,
        line: tls.certificates.first().map(|files| files.line),
        key: format!("{name}.tls"),
        found: error.to_string(),
        allowed: "at least one certificate, and a system that gives random bytes".to_owned(),
    }
}

#[cfg(test)]
mod tests;
