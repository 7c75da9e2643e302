//! A web service over TLS that publishes a set of keys, well or badly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::folder::Folder;
use super::{until, within};

/// How the service answers.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// With this set.
    Publishes(String),
    /// With these bytes, after which it closes.
    Says(Vec<u8>),
    /// Not at all: the connection stays open.
    Silent,
    /// It closes at once, without TLS.
    Down,
    /// With a body that never ends.
    Endless,
}

/// Stops when dropped.
pub struct KeyServer {
    pub address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
    folder: Folder,
}

struct State {
    behaviour: Mutex<Behaviour>,
    /// Connections that were accepted.
    asked: AtomicUsize,
    /// Whether answers leave.
    open: watch::Sender<bool>,
}

impl KeyServer {
    /// Serves on a free port, with a certificate for `127.0.0.1`.
    pub async fn start(behaviour: Behaviour) -> Self {
        let folder = Folder::new();
        folder.certificate("keys", &["127.0.0.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            behaviour: Mutex::new(behaviour),
            asked: AtomicUsize::new(0),
            open: watch::Sender::new(true),
        });
        let acceptor = acceptor(&folder);
        let serving = tokio::spawn(serve(listener, acceptor, Arc::clone(&state)));
        Self {
            address,
            state,
            serving,
            folder,
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}/keys", self.address)
    }

    /// The root that its certificate leads to: itself.
    pub fn ca(&self) -> PathBuf {
        self.folder.path("keys.pem")
    }

    /// The keys of a `jwks` table that lead here.
    pub fn jwks(&self) -> String {
        format!("url = {:?}, ca = {:?}", self.url(), self.ca())
    }

    pub fn now(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().expect("nobody panics with it") = behaviour;
    }

    /// Holds answers back from now on.
    pub fn hold(&self) {
        self.state.open.send_replace(false);
    }

    /// Lets the answers go that [`Self::hold`] holds back.
    pub fn release(&self) {
        self.state.open.send_replace(true);
    }

    /// How often it was asked so far.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked so often.
    pub async fn until_asked(&self, times: usize) {
        until("the keys are asked for", || {
            (self.asked() >= times).then_some(())
        })
        .await;
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn acceptor(folder: &Folder) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(folder.path("keys.pem")).expect("a file");
    let chain = chain.map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(folder.path("keys.key")).expect("a key");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    loop {
        let (tcp, _) = listener.accept().await.expect("a connection");
        tokio::spawn(answer(tcp, acceptor.clone(), Arc::clone(&state)));
    }
}

/// Until either side has enough, which is no failure of this server.
async fn answer(tcp: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) -> Option<()> {
    state.asked.fetch_add(1, Ordering::SeqCst);
    let behaviour = state
        .behaviour
        .lock()
        .expect("nobody panics with it")
        .clone();
    if let Behaviour::Down = behaviour {
        return None;
    }
    let mut tls = acceptor.accept(tcp).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.ok()?);
    }
    let mut open = state.open.subscribe();
    let opened = within("answers may leave", open.wait_for(|open| *open)).await;
    opened.ok()?;
    match behaviour {
        Behaviour::Publishes(set) => {
            let length = set.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{set}");
            tls.write_all(answer.as_bytes()).await.ok()?;
        }
        Behaviour::Says(bytes) => tls.write_all(&bytes).await.ok()?,
        Behaviour::Silent => within("the client goes away", tls.read_u8())
            .await
            .map(drop)
            .ok()?,
        Behaviour::Endless => {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            tls.write_all(head).await.ok()?;
            // Ends when the client has enough.
            let chunk = format!("1000\r\n{}\r\n", "k".repeat(0x1000));
            loop {
                tls.write_all(chunk.as_bytes()).await.ok()?;
            }
        }
        Behaviour::Down => {}
    }
    tls.shutdown().await.ok()
}
