//! The client's end of TLS: for the edge's own requests, and for trying the edge out.
//!
//! Owns whom such a client trusts: one file and nothing else, or the system's roots. Names,
//! times and signatures are always verified; there is no way to switch that off. Owns no
//! socket and sets no deadline.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::TlsVersion;
use crate::tls::acceptor::provider;
use crate::tls::certificates;

/// A connection of [`Connector::connect`].
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects to servers whose certificate was issued by a root that it trusts.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Connector {
    /// For the edge's own requests: trusts the certificates of the file `ca` and no others,
    /// or without it the system's. Later connections resume the sessions of earlier ones.
    ///
    /// The system's are those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, where one of these is
    /// set. Certificates among them that cannot be used are passed over.
    ///
    /// # Errors
    /// No certificate that can be trusted is found.
    pub fn to_services(ca: Option<&Path>) -> io::Result<Self> {
        let roots = match ca {
            Some(file) => roots_of(file)?,
            None => system_roots()?,
        };
        Ok(Self(TlsConnector::from(Arc::new(client_config(roots)?))))
    }

    /// For trying the edge out: trusts the certificates of `file`, and no others. A
    /// self-signed certificate for a server is its own root: names, times and signatures are
    /// verified as ever.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate that can be trusted.
    pub fn trusting(file: &Path) -> io::Result<Self> {
        let mut config = client_config(roots_of(file)?)?;
        // Each connection stands for another client, so none may know another's ticket.
        config.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The TLS handshake with the server `name`, which its certificate must be for.
    ///
    /// # Errors
    /// A name that is none, a certificate that is not trusted, and the socket's own errors.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        name: &str,
    ) -> io::Result<(ClientStream, TlsVersion)> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let stream = self.0.connect(name, tcp).await?;
        let version = match stream.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            // rustls speaks no other.
            _ => TlsVersion::V1_2,
        };
        Ok((stream, version))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

fn client_config(roots: RootCertStore) -> io::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots_of(file: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates::read_certificates(file)? {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        let why = format!("no certificate in {}", file.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(roots)
}

fn system_roots() -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = match found.errors.first() {
            Some(error) => format!("no root certificates in the system: {error}"),
            None => "no root certificates in the system".to_owned(),
        };
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::CertificateFiles;
    use crate::tls::test_pki::{Folder, made, tls};
    use crate::tls::{Acceptor, dev_cert};

    /// What a client that trusts `trusted` makes of a server with `served`.
    async fn connected(
        served: &CertificateFiles,
        trusted: &Path,
        name: &str,
    ) -> io::Result<TlsVersion> {
        let tls = tls(vec![served.clone()], TlsVersion::V1_2);
        let (acceptor, _) = Acceptor::load(&tls, "listener[0]").expect("loads");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let tcp = TcpStream::connect(listener.local_addr().expect("bound"));
        let connector = Connector::trusting(trusted)?;
        let accept = async {
            let (tcp, _) = listener.accept().await.expect("accepted");
            // A client that refuses the certificate makes this fail.
            acceptor.accept(tcp).await.ok()
        };
        let connect = async { connector.connect(tcp.await?, name).await };
        let (_server, client) = tokio::join!(accept, connect);
        client.map(|(_, version)| version)
    }

    #[tokio::test]
    async fn the_development_certificate_is_trusted_for_its_names_alone() {
        let folder = Folder::new();
        let files = folder.files("dev", &made(&["unused"], -1, 100));
        std::fs::remove_file(&files.cert).expect("removed");
        std::fs::remove_file(&files.key).expect("removed");
        dev_cert::ensure(&files.cert, &files.key).expect("made");
        for name in ["localhost", "127.0.0.1", "::1"] {
            let version = connected(&files, &files.cert, name).await;
            assert_eq!(version.expect(name), TlsVersion::V1_3);
        }
        let error = connected(&files, &files.cert, "example.com").await;
        assert!(error.is_err());
    }

    #[tokio::test]
    async fn another_certificate_for_the_same_name_is_refused() {
        let folder = Folder::new();
        let served = folder.files("served", &made(&["localhost"], -1, 100));
        let other = folder.files("other", &made(&["localhost"], -1, 100));
        assert!(connected(&served, &served.cert, "localhost").await.is_ok());
        assert!(connected(&served, &other.cert, "localhost").await.is_err());
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let folder = Folder::new();
        let key = folder.files("a", &made(&["localhost"], -1, 100)).key;
        let error = Connector::trusting(&key).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = Connector::to_services(Some(&key)).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
