//! Which certificate a client gets: by the server name it asks for (RFC 6066 §3).
//!
//! Knows nothing of files. A name is matched exactly, or by a wildcard that stands for the
//! whole left-most label and nothing else (RFC 9525 §6.3).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by name, and the one for everybody else.
pub(super) struct ByName {
    default: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `*.example.com` is kept as `example.com`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

/// Whether a name was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It now leads to the certificate.
    New,
    /// Another certificate has it already, and keeps it.
    Taken,
}

impl ByName {
    /// Every client gets `default`: one that names no server, or one that nobody has here.
    /// To refuse those instead would tell a scanner which names exist.
    pub(super) fn new(default: Arc<CertifiedKey>) -> Self {
        Self {
            default,
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }

    /// Gives the clients that ask for `name` this certificate, unless the name is taken.
    pub(super) fn add(&mut self, name: &str, certificate: &Arc<CertifiedKey>) -> Added {
        let name = name.to_ascii_lowercase();
        let entry = match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.entry(parent.to_owned()),
            None => self.exact.entry(name),
        };
        match entry {
            // A certificate may list a name twice, in other letters.
            Entry::Occupied(owner) if Arc::ptr_eq(owner.get(), certificate) => Added::New,
            Entry::Occupied(_) => Added::Taken,
            Entry::Vacant(free) => {
                free.insert(Arc::clone(certificate));
                Added::New
            }
        }
    }

    fn find(&self, server_name: Option<&str>) -> &Arc<CertifiedKey> {
        server_name
            .map(str::to_ascii_lowercase)
            .and_then(|name| {
                self.exact.get(&name).or_else(|| {
                    let (_label, parent) = name.split_once('.')?;
                    self.wildcard.get(parent)
                })
            })
            .unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.find(hello.server_name())))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName")
            .field("exact", &self.exact.keys())
            .field("wildcard", &self.wildcard.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_pki;

    #[test]
    fn a_name_leads_to_its_certificate() {
        let certificates: Vec<_> = (0..4).map(|_| test_pki::certified(&["x"])).collect();
        let [default, exact, wildcard, late] = certificates.as_slice() else {
            unreachable!("four were made");
        };
        let mut names = ByName::new(Arc::clone(default));
        assert_eq!(names.add("a.example.com", exact), Added::New);
        assert_eq!(names.add("*.Example.com", wildcard), Added::New);
        assert_eq!(names.add("A.example.com", late), Added::Taken);
        assert_eq!(names.add("*.example.com", late), Added::Taken);

        let cases = [
            (None, default),
            (Some("a.example.com"), exact),
            (Some("A.EXAMPLE.COM"), exact),
            (Some("b.example.com"), wildcard),
            (Some("example.com"), default),
            (Some("c.b.example.com"), default),
            (Some("b.example.org"), default),
            (Some("localhost"), default),
            (Some("*.example.com"), wildcard),
        ];
        for (name, expected) in cases {
            assert!(Arc::ptr_eq(names.find(name), expected), "{name:?}");
        }
    }
}
