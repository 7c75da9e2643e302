//! Certificates and folders for the tests of this module.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{Certificate, CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::config::{CertificateFiles, Line, Tls, TlsVersion};
use crate::tls::acceptor::provider;

/// A self-signed certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: Certificate,
    pub(super) key: KeyPair,
}

/// Makes a pair for `names`, valid between two days relative to now.
pub(super) fn made(names: &[&str], from_day: i32, to_day: i32) -> Pair {
    made_with(KeyPair::generate().expect("a key"), names, from_day, to_day)
}

/// The same for a given key.
pub(super) fn made_with(key: KeyPair, names: &[&str], from_day: i32, to_day: i32) -> Pair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "test");
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = date_time_ymd(1970, 1, 1) + since_1970.expect("after 1970");
    let day = |n: i32| {
        let days = Duration::from_secs(86_400) * n.unsigned_abs();
        if n < 0 { now - days } else { now + days }
    };
    params.not_before = day(from_day);
    params.not_after = day(to_day);
    let certificate = params.self_signed(&key).expect("a certificate");
    Pair { certificate, key }
}

/// A pair as rustls takes it.
pub(super) fn certified(names: &[&str]) -> Arc<CertifiedKey> {
    let pair = made(names, -1, 100);
    let key = PrivateKeyDer::try_from(pair.key.serialize_der()).expect("PKCS#8");
    let chain = vec![pair.certificate.der().clone()];
    Arc::new(CertifiedKey::from_der(chain, key, &provider()).expect("a match"))
}

/// A folder of one test, removed with its contents when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-tls-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that only its owner can read.
    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        path
    }

    /// Writes `name.pem` and `name.key`.
    pub(super) fn files(&self, name: &str, pair: &Pair) -> CertificateFiles {
        CertificateFiles {
            cert: self.write(&format!("{name}.pem"), &pair.certificate.pem()),
            key: self.write(&format!("{name}.key"), &pair.key.serialize_pem()),
            line: Line(7),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind in the system's temporary place harms nobody.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

/// A listener's TLS with these certificates.
pub(super) fn tls(certificates: Vec<CertificateFiles>, min_version: TlsVersion) -> Tls {
    Tls {
        certificates,
        min_version,
        handshake_timeout: Duration::from_secs(10),
    }
}
