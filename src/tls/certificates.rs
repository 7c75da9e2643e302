//! From PEM files to certificates that can be served, and everything that is wrong with them.
//!
//! Owns the reading of PEM (the one call of `rustls-pemfile`). Every problem of every file is
//! found, each with the key and line of the configuration it stands at. A certificate that
//! has expired is a warning and not an error: the process can start, and refusing to would
//! turn one certificate's lapse into the outage of every other.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls_pemfile::Item;

use crate::config::problem::{Problem, Severity};
use crate::config::{CertificateFiles, Line};
use crate::tls::x509::{self, DAY, Facts};

/// A certificate with its key, ready to be served.
pub(super) struct Identity {
    /// The chain and the key that signs.
    pub(super) certified: Arc<CertifiedKey>,
    /// About the leaf.
    pub(super) facts: Facts,
}

/// Where an entry of `certificates` stands in the configuration.
pub(super) struct Place {
    /// `listener.#1.tls.certificates[0]`.
    pub(super) key: String,
    /// Its line.
    pub(super) line: Line,
}

impl Place {
    fn problem(&self, severity: Severity, field: &str, found: String, allowed: &str) -> Problem {
        Problem {
            severity,
            line: Some(self.line),
            key: format!("{}.{field}", self.key),
            found,
            allowed: allowed.to_owned(),
        }
    }

    pub(super) fn error(&self, field: &str, found: String, allowed: &str) -> Problem {
        self.problem(Severity::Error, field, found, allowed)
    }

    pub(super) fn warning(&self, field: &str, found: String, allowed: &str) -> Problem {
        self.problem(Severity::Warning, field, found, allowed)
    }
}

/// A certificate this close to its end is warned about, in days. Issuers that renew by
/// themselves do so with a third of the lifetime left, which is 30 days of 90.
pub(super) const EXPIRES_SOON: i64 = 14;

/// Largest PEM file read. A chain of ten certificates has about 20 KiB.
const MAX_FILE: u64 = 1024 * 1024;

/// Loads one pair of files as of `now`. Problems are added to `problems`; if one of them is
/// an error there is no identity.
pub(super) fn load(
    files: &CertificateFiles,
    place: &Place,
    provider: &CryptoProvider,
    now: SystemTime,
    problems: &mut Vec<Problem>,
) -> Option<Identity> {
    // Both files are read before either can end this, so that both are judged.
    let chain = read_chain(&files.cert, place).map_err(|problem| problems.push(problem));
    let key = read_key(&files.key, place).map_err(|problem| problems.push(problem));
    problems.extend(exposed_key(&files.key, place));
    let (chain, key) = (chain.ok()?, key.ok()?);
    problems.extend(validity(&chain, &files.cert, place, now));
    match certify(chain, key, files, place, provider) {
        Ok(identity) => Some(identity),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

fn read_chain(path: &Path, place: &Place) -> Result<Vec<CertificateDer<'static>>, Problem> {
    const ALLOWED: &str = "a PEM file with the certificate chain, leaf first";
    let chain = read_certificates(path);
    let chain = chain.map_err(|error| place.error("cert", at(path, error), ALLOWED))?;
    if chain.is_empty() {
        return Err(place.error("cert", at(path, "no certificate in it"), ALLOWED));
    }
    Ok(chain)
}

/// The certificates of a PEM file, in their order; other sections are passed over.
pub(super) fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = read_pem(path)?.into_iter().filter_map(|item| match item {
        Item::X509Certificate(certificate) => Some(certificate),
        _ => None,
    });
    Ok(certificates.collect())
}

fn read_key(path: &Path, place: &Place) -> Result<PrivateKeyDer<'static>, Problem> {
    const ALLOWED: &str =
        "a PEM file with exactly one private key (PKCS#8, SEC1 or PKCS#1), not encrypted";
    let items = read_pem(path).map_err(|error| place.error("key", at(path, error), ALLOWED))?;
    let mut keys = items.into_iter().filter_map(|item| match item {
        Item::Pkcs8Key(key) => Some(PrivateKeyDer::from(key)),
        Item::Sec1Key(key) => Some(PrivateKeyDer::from(key)),
        Item::Pkcs1Key(key) => Some(PrivateKeyDer::from(key)),
        _ => None,
    });
    match (keys.next(), keys.next()) {
        (Some(key), None) => Ok(key),
        (None, _) => Err(place.error("key", at(path, "no private key in it"), ALLOWED)),
        (Some(_), Some(_)) => {
            Err(place.error("key", at(path, "more than one private key in it"), ALLOWED))
        }
    }
}

/// All sections of a PEM file that are known. The one place that names `rustls-pemfile`.
fn read_pem(path: &Path) -> io::Result<Vec<Item>> {
    let file = File::open(path)?;
    rustls_pemfile::read_all(&mut BufReader::new(file.take(MAX_FILE))).collect()
}

/// A warning if others than the owner may read or write the key.
fn exposed_key(path: &Path, place: &Place) -> Option<Problem> {
    // A file that cannot be looked at could not be read either, and that is reported.
    let mode = path.metadata().ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then(|| {
        place.warning(
            "key",
            at(
                path,
                format_args!("open to others than its owner, mode {mode:04o}"),
            ),
            &format!("mode 0600: chmod 600 {}", path.display()),
        )
    })
}

/// What is wrong with the times of each certificate of the chain: an expired intermediate
/// fails clients just as an expired leaf does.
fn validity(
    chain: &[CertificateDer<'_>],
    path: &Path,
    place: &Place,
    now: SystemTime,
) -> Vec<Problem> {
    // A clock before 1970 is read as 1970: every certificate is then not yet valid.
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed());
    chain
        .iter()
        .enumerate()
        .filter_map(|(i, certificate)| {
            let Facts {
                not_before,
                not_after,
                ..
            } = x509::facts(certificate)?;
            let (from, until) = (x509::date(not_before), x509::date(not_after));
            let found = if now > not_after {
                format!("certificate {} of the chain expired on {until}", i + 1)
            } else if now < not_before {
                format!(
                    "certificate {} of the chain is not valid before {from}",
                    i + 1
                )
            } else if not_after - now < EXPIRES_SOON * DAY {
                let left = (not_after - now) / DAY;
                format!(
                    "certificate {} of the chain expires on {until}, in {left} days",
                    i + 1
                )
            } else {
                return None;
            };
            let allowed = format!(
                "certificates that are valid for {EXPIRES_SOON} days or more: renew it, and a running process takes it by itself"
            );
            Some(place.warning("cert", at(path, found), &allowed))
        })
        .collect()
}

/// Joins chain and key; they must belong together.
fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    files: &CertificateFiles,
    place: &Place,
    provider: &CryptoProvider,
) -> Result<Identity, Problem> {
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| {
            let allowed = "an RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) or Ed25519 key";
            place.error("key", at(&files.key, error), allowed)
        })?;
    let facts = chain.first().and_then(|leaf| x509::facts(leaf));
    let certified = CertifiedKey::new(chain, key);
    match (certified.keys_match(), facts) {
        (Ok(()), Some(facts)) => Ok(Identity {
            certified: Arc::new(certified),
            facts,
        }),
        (Err(rustls::Error::InconsistentKeys(_)), _) => Err(mismatch(&certified, files, place)),
        (Err(error), _) => Err(place.error("cert", at(&files.cert, error), LEAF)),
        (Ok(()), None) => Err(place.error("cert", at(&files.cert, "not readable"), LEAF)),
    }
}

const LEAF: &str = "an X.509 version 3 certificate";

/// The key is not the leaf's. If it is another certificate's of the chain, the file is only
/// in the wrong order.
fn mismatch(certified: &CertifiedKey, files: &CertificateFiles, place: &Place) -> Problem {
    let owner = certified.cert.iter().position(|certificate| {
        let alone = vec![certificate.clone()];
        CertifiedKey::new(alone, Arc::clone(&certified.key))
            .keys_match()
            .is_ok()
    });
    match owner {
        Some(i) => place.error(
            "cert",
            at(
                &files.cert,
                format_args!("the key is that of certificate {}, not of the first", i + 1),
            ),
            "the leaf first, then each certificate's issuer",
        ),
        None => place.error(
            "key",
            format!(
                "{} is not the key of the certificate in {}",
                files.key.display(),
                files.cert.display()
            ),
            "the private key that the certificate was issued for",
        ),
    }
}

fn at(path: &Path, what: impl std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}
