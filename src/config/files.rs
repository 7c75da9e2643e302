//! Which files a configuration names whose content counts: they are watched.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::{Auth, Authorize, Config, Jwks, JwksSource, Jwt, KeySource, Keys, Route, Tls};

impl Config {
    /// Certificates, keys, roots and secrets. Not the sets of keys and the revocations: who
    /// uses those looks after their files, too.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let tls = self.listeners.iter().filter_map(|l| l.tls.as_ref());
        let mut files: BTreeSet<PathBuf> = tls.flat_map(Tls::files).collect();
        files.extend(self.routes.iter().flat_map(|route| route.files()));
        let admin = self.admin.as_ref().and_then(|admin| admin.token.as_ref());
        files.extend(admin.and_then(|token| token.source.file()));
        let identity = self.identity.key.as_ref();
        files.extend(identity.and_then(|(source, _)| source.file()));
        files
    }
}

impl Tls {
    /// Certificates and keys.
    pub fn files(&self) -> Vec<PathBuf> {
        let pairs = self.certificates.iter();
        pairs
            .flat_map(|pair| [pair.cert.clone(), pair.key.clone()])
            .collect()
    }
}

impl Authorize {
    /// Roots and token.
    pub fn files(&self) -> Vec<PathBuf> {
        let ca = self.ca.as_ref().map(|(path, _)| path.clone());
        let token = self.token.as_ref();
        let token = token.and_then(|(source, _)| source.file());
        ca.into_iter().chain(token).collect()
    }
}

impl Jwks {
    /// The roots that vouch for its source.
    pub fn ca(&self) -> Option<&PathBuf> {
        match &self.source {
            JwksSource::File(_) => None,
            JwksSource::Url { ca, .. } => ca.as_ref(),
        }
    }
}

impl KeySource {
    /// The file, where it is one.
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Env(_) => None,
            Self::File(path) => Some(path.clone()),
        }
    }
}

impl Route {
    fn files(&self) -> Vec<PathBuf> {
        let issuers: &[Jwt] = match &self.auth {
            Auth::None => &[],
            Auth::Token(auth) => &auth.jwt,
        };
        let keys = issuers.iter().filter_map(|jwt| match &jwt.keys {
            Keys::One(source) => source.file(),
            Keys::Set(jwks) => jwks.ca().cloned(),
        });
        let authorize = self.authorize.iter().flat_map(Authorize::files);
        keys.chain(authorize).collect()
    }
}
