//! The key of a route: read once, matched against the algorithms, tried out. Where it is a
//! set in a file, the same for the set as it is now.
//!
//! Owns the rules for key material (RFC 7518 §3.2 and §3.3, RFC 8725 §3.1 and §3.5) and the
//! words in which an operator hears of a breach. A secret never leaves [`crate::auth`], and no
//! message repeats any of its bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use jsonwebtoken::{DecodingKey, EncodingKey, crypto};

use crate::auth::jwks::MAX_DOCUMENT;
use crate::auth::jwt::library_name;
use crate::auth::key_sets::{KeySets, LiveKeys};
use crate::auth::public_key::{Kind, PublicKey, pem_labels};
use crate::config::problem::{Problem, Severity};
use crate::config::{Algorithm, Jwks, JwksSource, Jwt, KeySource, Keys};

/// Bytes of the largest key file: an RSA key of 8192 bits takes 6 KiB in PEM.
const MAX_KEY_FILE: usize = 64 << 10;

/// Bytes of the shortest HMAC secret: 256 bits, the least RFC 7518 §3.2 knows.
const MIN_SECRET: usize = 32;

/// A key that was found good for all the algorithms of its route.
pub(super) struct Loaded {
    pub(super) verifying: DecodingKey,
    /// Present where the key that verifies also signs: HMAC.
    pub(super) signing: Option<EncodingKey>,
}

/// What verifies the tokens of one issuer.
#[derive(Debug)]
pub(super) enum Verifying {
    /// Its `Debug` is a mask.
    One(DecodingKey),
    Set(Arc<LiveKeys>),
}

/// Reads what verifies: the key, or the set where it is a file. Returns the warnings along
/// with the result.
///
/// # Errors
/// Everything that is wrong, and the warnings.
pub(super) fn load_verifying(
    jwt: &Jwt,
    env: &dyn Fn(&str) -> Option<String>,
    sets: &mut KeySets,
) -> Result<(Verifying, Vec<Problem>), Vec<Problem>> {
    match &jwt.keys {
        Keys::One(source) => {
            let (loaded, warnings) = load(jwt, source, env)?;
            Ok((Verifying::One(loaded.verifying), warnings))
        }
        Keys::Set(jwks) => {
            let (keys, warnings) = load_set(jwt, jwks, sets)?;
            Ok((Verifying::Set(keys), warnings))
        }
    }
}

/// Finds the set among those that are known, and reads it if it is new and a file.
fn load_set(
    jwt: &Jwt,
    jwks: &Jwks,
    sets: &mut KeySets,
) -> Result<(Arc<LiveKeys>, Vec<Problem>), Vec<Problem>> {
    let mut report = Report::new(jwt);
    let (keys, is_new) = sets.share(jwt, jwks);
    match &jwks.source {
        JwksSource::File(path) if is_new => report.set_file(path, &keys),
        // What is fetched comes while the program runs.
        JwksSource::File(_) | JwksSource::Url { .. } => {}
    }
    match report.is_startable() {
        true => Ok((keys, report.problems)),
        false => Err(report.problems),
    }
}

/// Reads the one key. Returns the warnings along with the result.
///
/// # Errors
/// Everything that is wrong, and the warnings.
pub(super) fn load(
    jwt: &Jwt,
    source: &KeySource,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Loaded, Vec<Problem>), Vec<Problem>> {
    let mut report = Report::new(jwt);
    let kind = report.one_kind();
    let material = report.read(source, env, kind);
    let loaded = match (kind, material) {
        (Some(Kind::Hmac), Some(material)) => report.secret(&material),
        (Some(kind), Some(material)) => report.public_key(kind, &material),
        _ => None,
    };
    let loaded = loaded.filter(|loaded| report.try_out(loaded));
    match loaded {
        Some(loaded) if report.is_startable() => Ok((loaded, report.problems)),
        _ => Err(report.problems),
    }
}

/// Reads a whole key file, and its permission bits.
///
/// # Errors
/// Those of the file system, and a file of more than 64 KiB.
pub(super) fn read_file(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    read_bounded(path, MAX_KEY_FILE)
}

/// Reads a whole file that holds a set of keys.
///
/// # Errors
/// Those of the file system, and a file of more than [`MAX_DOCUMENT`] bytes.
pub fn read_set_file(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, MAX_DOCUMENT).map(|(bytes, _mode)| bytes)
}

fn read_bounded(path: &Path, most: usize) -> io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        let text = format!("larger than {} KiB", most >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok((bytes, mode))
}

/// What was read, and from where.
struct Material {
    bytes: Vec<u8>,
    /// For messages: `keys/jwt.pem`, `environment variable NAME`.
    origin: String,
    /// Permission bits, where it was a file.
    mode: Option<u32>,
}

/// Collects what is wrong, so that the operator hears all of it at once.
struct Report<'a> {
    jwt: &'a Jwt,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    fn new(jwt: &'a Jwt) -> Self {
        Self {
            jwt,
            problems: Vec::new(),
        }
    }

    /// Puts the keys of a file in force.
    fn set_file(&mut self, path: &Path, keys: &LiveKeys) {
        let name = path.display();
        let document = match read_set_file(path) {
            Ok(document) => document,
            Err(error) => {
                let found = format!("cannot read {name}: {error}");
                let allowed = "a file with the issuer's public keys that this process may read";
                return self.add(Severity::Error, "jwks", found, allowed);
            }
        };
        match keys.parse(&document) {
            Ok((set, set_aside)) => {
                for one in set_aside.iter().filter(|one| one.is_fault()) {
                    let found = format!("{name}: {one}; it is not used");
                    self.add(
                        Severity::Warning,
                        "jwks",
                        found,
                        "public keys for signatures",
                    );
                }
                keys.end(Some(set), Instant::now());
            }
            Err(refused) => {
                let found = format!("{name} is no set of keys to verify with: {refused}");
                let allowed = "a JWK set with public keys for the algorithms: {\"keys\":[…]}";
                self.add(Severity::Error, "jwks", found, allowed);
            }
        }
    }

    fn add(&mut self, severity: Severity, key: &str, found: String, allowed: &str) {
        self.problems.push(Problem {
            severity,
            line: Some(self.jwt.line),
            key: format!("{}.{key}", self.jwt.place),
            found,
            allowed: allowed.to_owned(),
        });
    }

    fn error(&mut self, found: String, allowed: &str) {
        self.add(Severity::Error, "key", found, allowed);
    }

    fn is_startable(&self) -> bool {
        self.problems.iter().all(|p| p.severity != Severity::Error)
    }

    /// The kind of key that all the algorithms take.
    fn one_kind(&mut self) -> Option<Kind> {
        let algorithms = &self.jwt.algorithms;
        let kind = algorithms.first().copied().map(Kind::of);
        let found = format!("{algorithms:?}");
        if kind.is_none() || algorithms.iter().any(|a| Some(Kind::of(*a)) != kind) {
            let allowed = "at least one algorithm, and only such as take the same key";
            self.add(Severity::Error, "algorithms", found, allowed);
            return None;
        }
        if algorithms.len() > 1 {
            let allowed = "one algorithm for one key (RFC 8725 §3.1); more is for a migration";
            self.add(Severity::Warning, "algorithms", found, allowed);
        }
        kind
    }

    fn read(
        &mut self,
        source: &KeySource,
        env: &dyn Fn(&str) -> Option<String>,
        kind: Option<Kind>,
    ) -> Option<Material> {
        let material = match source {
            KeySource::Env(name) => self.read_env(name, env(name), kind)?,
            KeySource::File(path) => match read_file(path) {
                Ok((bytes, mode)) => Material {
                    bytes,
                    origin: path.display().to_string(),
                    mode: Some(mode),
                },
                Err(error) => {
                    let found = format!("cannot read {}: {error}", path.display());
                    self.error(found, "a file that this process may read");
                    return None;
                }
            },
        };
        if material.bytes.trim_ascii().is_empty() {
            let found = format!("{} is empty", material.origin);
            self.error(found, how_to_make(kind));
            return None;
        }
        Some(material)
    }

    fn read_env(
        &mut self,
        name: &str,
        value: Option<String>,
        kind: Option<Kind>,
    ) -> Option<Material> {
        let origin = format!("environment variable {name}");
        let Some(value) = value else {
            let found = format!("{origin} is not set, or not UTF-8");
            self.error(found, how_to_make(kind));
            return None;
        };
        Some(Material {
            bytes: value.into_bytes(),
            origin,
            mode: None,
        })
    }

    fn secret(&mut self, material: &Material) -> Option<Loaded> {
        let origin = &material.origin;
        let secret = match material.mode {
            Some(_) => without_line_end(&material.bytes),
            None => &material.bytes,
        };
        // A public key as the secret is the mistake behind RS256/HS256 confusion: whoever has
        // the public key could sign.
        if !pem_labels(secret).is_empty() {
            let found = format!("{origin} holds a PEM key, and HMAC would use it as a secret");
            self.error(found, how_to_make(Some(Kind::Hmac)));
            return None;
        }
        let length = secret.len();
        if length < MIN_SECRET {
            let found = format!("{origin} holds {length} bytes");
            self.error(found, how_to_make(Some(Kind::Hmac)));
            return None;
        }
        let wanted = self.jwt.algorithms.iter().map(|a| digest_size(*a)).max();
        if wanted.is_some_and(|wanted| length < wanted) {
            let found = format!("{origin} holds {length} bytes");
            let allowed = "as many bytes as the digest: 48 for HS384, 64 for HS512 (RFC 7518 §3.2)";
            self.add(Severity::Warning, "key", found, allowed);
        }
        self.warn_of_readers(material);
        Some(Loaded {
            verifying: DecodingKey::from_secret(secret),
            signing: Some(EncodingKey::from_secret(secret)),
        })
    }

    fn warn_of_readers(&mut self, material: &Material) {
        if let Some(mode) = material.mode.filter(|mode| mode & 0o077 != 0) {
            let found = format!("{} has mode {:04o}", material.origin, mode & 0o7777);
            let allowed = "mode 0600: whoever reads the secret can sign tokens (chmod 600)";
            self.add(Severity::Warning, "key", found, allowed);
        }
    }

    fn public_key(&mut self, kind: Kind, material: &Material) -> Option<Loaded> {
        self.check_label(material)?;
        let origin = &material.origin;
        match PublicKey::parse(&material.bytes) {
            Some(public) if public.kind == Some(kind) => Some(Loaded {
                verifying: public.key,
                signing: None,
            }),
            Some(public) => {
                let found = format!("{origin} holds {}", public.found);
                let wanted = kind.name();
                let algorithms = &self.jwt.algorithms;
                self.error(found, &format!("{wanted}, which {algorithms:?} needs"));
                None
            }
            None => {
                let found = format!("{origin} holds a key that cannot be read");
                self.error(found, how_to_make(Some(kind)));
                None
            }
        }
    }

    /// Refuses whatever is not one PEM block with a public key.
    fn check_label(&mut self, material: &Material) -> Option<()> {
        let labels = pem_labels(&material.bytes);
        let origin = &material.origin;
        let private = labels.iter().find(|label| label.ends_with("PRIVATE KEY"));
        let (found, allowed) = match (private, labels.as_slice()) {
            (Some(label), _) => (
                format!("{origin} holds a {label}, and the edge must not be able to sign"),
                "its public half: openssl pkey -in private.pem -pubout -out public.pem",
            ),
            (None, [label]) if label == "PUBLIC KEY" || label == "RSA PUBLIC KEY" => {
                return Some(());
            }
            (None, [label]) if label == "CERTIFICATE" => (
                format!("{origin} holds a certificate"),
                "its public key: openssl x509 -in cert.pem -pubkey -noout > public.pem",
            ),
            (None, labels) => (
                format!("{origin} holds {} PEM blocks {labels:?}", labels.len()),
                "exactly one public key in PEM, which begins with -----BEGIN PUBLIC KEY-----",
            ),
        };
        self.error(found, allowed);
        None
    }

    /// Uses the key once with each algorithm: a key or a build that cannot work is found
    /// here and not at the first client.
    fn try_out(&mut self, loaded: &Loaded) -> bool {
        let works = |algorithm: &Algorithm| {
            let algorithm = library_name(*algorithm);
            let message = b"header.payload";
            match &loaded.signing {
                Some(key) => crypto::sign(message, key, algorithm)
                    .and_then(|s| crypto::verify(&s, message, &loaded.verifying, algorithm))
                    .is_ok_and(|verified| verified),
                // Nothing here can sign; that the wrong signature is judged at all is proof
                // that key and algorithm belong together.
                None => crypto::verify("AAAA", message, &loaded.verifying, algorithm)
                    .is_ok_and(|verified| !verified),
            }
        };
        let all = self.jwt.algorithms.iter().all(works);
        if !all {
            let found = "a key that the cryptography library does not take".to_owned();
            self.error(found, "a key for the configured algorithms");
        }
        all
    }
}

/// What is allowed, and how to come by it.
fn how_to_make(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Hmac) => "a secret of at least 32 random bytes: openssl rand -base64 48",
        Some(_) => "the issuer's public key in PEM: openssl pkey -in private.pem -pubout",
        None => "the key that verifies the tokens",
    }
}

/// One line end is what editors and `openssl rand` leave; more is the operator's own.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Bytes of an HMAC's digest; 0 where there is none.
fn digest_size(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
