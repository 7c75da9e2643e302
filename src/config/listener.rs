//! `[[listener]]`: where clients connect, and with which certificates.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::Reported;
use crate::config::file::Section;
use crate::config::server::HANDSHAKE_TIMES;
use crate::config::value::{checked, duration, flag, one_of, path, size};
use crate::config::{CertificateFiles, Line, Listener, Tls, TlsVersion, admission, tcp};

/// Default of `notsent_lowat`: one TLS record of the largest size. Less makes more, smaller
/// writes; more hides data from the slow-consumer policy, which cannot see the kernel's queue.
const NOTSENT_LOWAT: u64 = 16 << 10;

/// Below one page the kernel wakes us for every segment; above 16 MiB it bounds nothing.
const NOTSENT_LOWATS: RangeInclusive<u64> = 4 << 10..=16 << 20;

/// Default of `handshake_timeout`: two round trips, so ten seconds forgive lost packets on a
/// bad line, and a client that says nothing holds its slot no longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Default of `min_version`: 1.2 with the library's suites (AEAD and forward secrecy only) is
/// sound, and still what some devices speak.
const MIN_VERSION: TlsVersion = TlsVersion::V1_2;

/// What `[listener.tls] certificates` must look like.
const CERTIFICATES: &str = "certificates = [{ cert = \"chain.pem\", key = \"key.pem\" }]";

/// Reads every `[[listener]]`.
pub(super) fn listeners(root: &mut Section<'_>) -> Result<Vec<Listener>, Reported> {
    let sections = root.sections(
        "listener",
        "at least one [[listener]] with a `bind` address",
    )?;
    let mut taken = HashMap::new();
    let listeners: Vec<_> = sections
        .into_iter()
        .map(|section| listener(section, &mut taken))
        .collect();
    listeners.into_iter().collect()
}

fn listener(
    mut section: Section<'_>,
    taken: &mut HashMap<SocketAddr, Line>,
) -> Result<Listener, Reported> {
    let bind = section.required("bind", checked(address, BIND), BIND);
    let bind = bind.and_then(|bind| {
        // Port 0 is whichever port is free, so it never collides.
        if bind.value.port() != 0
            && let Some(first) = taken.insert(bind.value, bind.at())
        {
            let found = format!("{}, which line {} has already", bind.value, first.0);
            return Err(section.error("bind", bind.line, found, "each address once"));
        }
        Ok(bind.value)
    });
    let notsent_lowat = section.or("notsent_lowat", size(NOTSENT_LOWATS), NOTSENT_LOWAT);
    let trust = admission::trust(&mut section);
    let tcp = tcp::patience(&mut section);
    let tls = encryption(&mut section);
    section.done();
    Ok(Listener {
        bind: bind?,
        trust: trust?,
        tls: tls?,
        tcp: tcp?,
        // The bounds above fit into 32 bits.
        notsent_lowat: u32::try_from(notsent_lowat?.value).unwrap_or(u32::MAX),
    })
}

/// What `bind` must look like.
const BIND: &str = "an address and a port: \"0.0.0.0:8443\", \"[::]:8443\"";

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let wrong = "it is no address with a port (names are not looked up)";
    text.parse().map_err(|_| wrong)
}

/// `[listener.tls]`, or `plaintext = true` in its place: never neither, never both.
fn encryption(section: &mut Section<'_>) -> Result<Option<Tls>, Reported> {
    let plaintext = section.or("plaintext", flag, false);
    let tls = section
        .section("tls")
        .and_then(|tls| tls.map(tls_keys).transpose());
    let (plaintext, tls) = (plaintext?, tls?);
    match (plaintext.value, tls) {
        (false, Some(tls)) => Ok(Some(tls)),
        (true, None) => {
            let found = "a listener without TLS: tokens and messages travel in clear";
            section.warning(
                "plaintext",
                plaintext.line,
                found,
                "[listener.tls], unless something before it encrypts",
            );
            Ok(None)
        }
        (true, Some(_)) => Err(section.error(
            "plaintext",
            plaintext.line,
            "both plaintext = true and [listener.tls]",
            "one of the two",
        )),
        (false, None) => Err(section.error(
            "tls",
            Some(section.start()),
            "neither [listener.tls] nor plaintext = true",
            "[listener.tls] with certificates, or plaintext = true to serve ws:// in clear",
        )),
    }
}

fn tls_keys(mut section: Section<'_>) -> Result<Tls, Reported> {
    let certificates = section
        .sections("certificates", CERTIFICATES)
        .and_then(|entries| {
            let entries: Vec<_> = entries.into_iter().map(certificate).collect();
            entries.into_iter().collect::<Result<Vec<_>, _>>()
        });
    let versions = &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
    let min_version = section.or("min_version", one_of(versions), MIN_VERSION);
    let timeout = section.or(
        "handshake_timeout",
        duration(HANDSHAKE_TIMES),
        HANDSHAKE_TIMEOUT,
    );
    if let Ok(certificates) = &certificates {
        section.name_tls(Tls {
            certificates: certificates.clone(),
            min_version: MIN_VERSION,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        });
    }
    section.done();
    Ok(Tls {
        certificates: certificates?,
        min_version: min_version?.value,
        handshake_timeout: timeout?.value,
    })
}

fn certificate(mut section: Section<'_>) -> Result<CertificateFiles, Reported> {
    let cert = section.required(
        "cert",
        path,
        "the path of a PEM file: the chain, leaf first",
    );
    let key = section.required("key", path, "the path of a PEM file: the private key");
    let line = section.start();
    let cert = cert.map(|cert| section.resolve(&cert.value));
    let key = key.map(|key| section.resolve(&key.value));
    section.done();
    Ok(CertificateFiles {
        cert: cert?,
        key: key?,
        line,
    })
}
