//! Clients: the third party's WebSocket over TLS, and the TLS connection alone.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::Response;

use super::settings::ORIGIN;
use super::socket::{Socket, unlimited};
use super::{token, within};

/// A TLS connection to the proxy.
pub type Tls = TlsStream<TcpStream>;

/// A client of the proxy.
pub type Client = Socket<Tls>;

/// Where clients come in, and whom they trust there.
#[derive(Clone, Debug)]
pub struct Entrance {
    pub address: SocketAddr,
    certificate: CertificateDer<'static>,
    config: Arc<ClientConfig>,
}

impl Entrance {
    pub fn new(address: SocketAddr, certificate: CertificateDer<'static>) -> Self {
        let config = tls_config(&certificate, &version::TLS13);
        Self {
            address,
            certificate,
            config,
        }
    }

    pub async fn tcp(&self) -> TcpStream {
        let connected = within("a connection", TcpStream::connect(self.address)).await;
        connected.expect("the proxy listens")
    }

    /// A connection whose kernel holds little of what is not read.
    pub async fn narrow_tcp(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an option is set");
        let connected = within("a connection", socket.connect(self.address)).await;
        connected.expect("the proxy listens")
    }

    /// A TLS connection to `localhost` that nothing was sent on.
    pub async fn tls(&self) -> Tls {
        let tcp = self.tcp().await;
        self.tls_over(tcp).await.expect("a TLS connection")
    }

    pub async fn tls_over(&self, tcp: TcpStream) -> std::io::Result<Tls> {
        connect(Arc::clone(&self.config), "localhost", tcp).await
    }

    /// A TLS connection to another name, or in another version.
    pub async fn tls_as(
        &self,
        tcp: TcpStream,
        name: &'static str,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<Tls> {
        let config = tls_config(&self.certificate, version);
        connect(config, name, tcp).await
    }

    /// An opening handshake for `target` from [`ORIGIN`].
    pub fn request(&self, target: &str) -> ClientRequestBuilder {
        let uri = format!("wss://localhost:{}{target}", self.address.port());
        ClientRequestBuilder::new(uri.parse().expect("a URI")).with_header("Origin", ORIGIN)
    }

    /// What comes of an opening handshake.
    pub async fn ask(&self, request: ClientRequestBuilder) -> Result<(Client, Response), Error> {
        let tls = self.tls().await;
        ask_over(tls, request).await
    }

    /// A WebSocket at `/chat` on which no token was sent.
    pub async fn open(&self) -> Client {
        let asked = self.ask(self.request("/chat")).await;
        asked.expect("a 101").0
    }

    /// A WebSocket at `/chat` on which a good token was sent.
    pub async fn admitted(&self) -> Client {
        self.admitted_over(self.tls().await).await
    }

    pub async fn admitted_over(&self, tls: Tls) -> Client {
        let asked = ask_over(tls, self.request("/chat")).await;
        let (mut client, _) = asked.expect("a 101");
        client.send(token::message(&token::good())).await;
        client
    }
}

/// Trusts one certificate, and begins each TLS handshake anew.
fn tls_config(
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("the provider has it")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

async fn connect(
    config: Arc<ClientConfig>,
    name: &'static str,
    tcp: TcpStream,
) -> std::io::Result<Tls> {
    tcp.set_nodelay(true).expect("an option is set");
    let name = ServerName::try_from(name).expect("a name");
    let connected = TlsConnector::from(config).connect(name, tcp);
    within("a TLS handshake", connected).await
}

async fn ask_over(tls: Tls, request: ClientRequestBuilder) -> Result<(Client, Response), Error> {
    let asked = client_async_with_config(request, tls, Some(unlimited()));
    let (socket, response) = within("the answer to an opening handshake", asked).await?;
    Ok((Socket(socket), response))
}
