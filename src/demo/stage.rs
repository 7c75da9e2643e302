//! What the demo takes from a configuration, and what it adds so that it can be served here:
//! certificates, a secret, an upstream, and free ports where they are asked for.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::auth::mint::{MintError, MintRequest, mint};
use crate::config::{Algorithm, Auth, Config, HostPattern, Jwt, KeySource, Keys, PathPattern};
use crate::config::{Endpoint, Route, Upstream};
use crate::demo::client::{Door, HOST, PATIENCE};
use crate::demo::echo::Echo;
use crate::demo::random;
use crate::proto::origin::{Origin, OriginPattern};
use crate::server::Running;
use crate::telemetry::{Observer, Record};
use crate::tls::Connector;
use crate::tls::dev_cert::{self, Made};

/// Which ports the demo listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Those of the configuration.
    Configured,
    /// Free ones, on loopback.
    Any,
}

/// Everything around the edge. Dropping it ends the upstream.
#[derive(Debug)]
pub struct Stage {
    /// What was made for this run, for the user to read.
    pub(super) made: Vec<String>,
    pub(super) route: Arc<Route>,
    pub(super) jwt: Jwt,
    pub(super) token_field: Option<String>,
    listener: usize,
    certificate: PathBuf,
    secret: Secret,
    _upstream: Vec<Echo>,
}

/// Why a configuration cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Unsuitable {
    /// There is no TLS to show.
    #[error("the demo connects over TLS, and no listener has [listener.tls]")]
    NoTls,
    /// There is no token to show.
    #[error(
        "the demo sends a token to the host localhost, and no route for that host has \
         auth.method = \"first-message\" without a preset, and a `key`"
    )]
    NoRoute,
    /// The upstream is somewhere else.
    #[error(
        "the demo's echo server would have to listen on {0}, which is not loopback on this \
         machine; `--any-port` puts it on a free port in place of that endpoint"
    )]
    NotLoopback(String),
    /// The echo server cannot listen, or there is something else that the system refuses.
    #[error("the demo's echo server cannot start")]
    Echo(#[source] io::Error),
    /// The certificate cannot be made.
    #[error("no development certificate can be made at {}", .0.display())]
    Certificate(PathBuf, #[source] io::Error),
    /// No secret can be made.
    #[error("no secret can be made")]
    Secret(#[source] io::Error),
}

/// Ends of sessions that wait to be looked at.
const RECORDS: usize = 1024;

/// A random key for this run. `Debug` prints a mask, and nothing else prints it.
struct Secret(String);

/// The records of the sessions that end.
#[derive(Debug)]
pub struct Records(mpsc::Receiver<Record>);

impl Stage {
    /// Sets the stage for a configuration whose file lies in the folder `base`: starts the
    /// upstream, makes what is missing, and adapts the configuration where `ports` says so.
    ///
    /// Certificates are made only below `base`: files that the configuration names elsewhere
    /// are not the demo's to create.
    ///
    /// # Errors
    /// See [`Unsuitable`].
    pub fn set(config: &mut Config, base: &Path, ports: Ports) -> Result<Self, Unsuitable> {
        let with_tls = |(i, listener): (usize, &crate::config::Listener)| {
            let files = listener.tls.as_ref()?.certificates.first()?;
            Some((i, files.cert.clone()))
        };
        let listeners = config.listeners.iter().enumerate();
        let (listener, certificate) = listeners
            .filter_map(with_tls)
            .next()
            .ok_or(Unsuitable::NoTls)?;
        let (route, token_field, jwt) = shown(config).ok_or(Unsuitable::NoRoute)?;
        let mut made = Vec::new();
        let upstream = start_upstream(config, route.upstream, ports)?;
        if ports == Ports::Any {
            for listener in &mut config.listeners {
                listener.bind = (Ipv4Addr::LOCALHOST, 0).into();
            }
        }
        make_certificates(config, base, &mut made)?;
        let echoes = upstream.iter().map(Echo::address);
        made.extend(echoes.map(|at| format!("an echo server as the upstream, on {at}")));
        let missing = own_secret(&jwt).filter(|name| std::env::var(name).is_err());
        made.extend(missing.map(|name| format!("a random secret, as {name} is not set")));
        Ok(Self {
            made,
            route,
            jwt,
            token_field,
            listener,
            certificate,
            secret: Secret::random().map_err(Unsuitable::Secret)?,
            _upstream: upstream,
        })
    }

    /// Looks an environment variable up. Where the route's secret is not in the environment,
    /// it is one made for this run.
    pub fn env(&self, name: &str) -> Option<String> {
        let found = std::env::var(name).ok();
        let is_ours = found.is_none() && own_secret(&self.jwt) == Some(name);
        found.or_else(|| is_ours.then(|| self.secret.0.clone()))
    }

    /// A token that the route accepts for so long.
    pub(super) fn token(&self, ttl: Duration) -> Result<String, MintError> {
        let request = MintRequest {
            subject: Some("demo".to_owned()),
            ttl,
            ..MintRequest::default()
        };
        let env = |name: &str| self.env(name);
        mint(&self.jwt, &env, &request, SystemTime::now())
    }

    /// The first message that carries this token.
    pub(super) fn first_message(&self, token: &str) -> String {
        message_with(token, self.token_field.as_deref())
    }

    /// How clients get in.
    pub(super) fn door(&self, running: &Running) -> io::Result<Door> {
        let address = running.addresses.get(self.listener);
        let address = *address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Door {
            address: SocketAddr::new(reachable(address.ip()), address.port()),
            connector: Connector::trusting(&self.certificate)?,
            path: match &self.route.path {
                PathPattern::Exact(path) => path.clone(),
                PathPattern::Prefix(prefix) => format!("{prefix}demo"),
            },
            subprotocols: self.route.subprotocols.clone(),
        })
    }

    /// An origin that the route admits, the edge's own if it is one: a page of its own is
    /// where a browser's console is opened. `None`: only programs without one get in.
    pub(super) fn origin(&self, port: u16) -> Option<String> {
        let own = format!("https://{HOST}:{port}");
        let listed = self.route.origins.iter();
        let listed = listed.map(|origin| origin.replace("*.", "demo."));
        [own].into_iter().chain(listed).find(|o| self.admits(o))
    }

    /// Whether the route lists this origin.
    pub(super) fn admits(&self, origin: &str) -> bool {
        let Ok(origin) = Origin::parse(origin) else {
            return false;
        };
        let patterns = self.route.origins.iter();
        patterns
            .filter_map(|text| OriginPattern::parse(text).ok())
            .any(|pattern| pattern.matches(&origin))
    }
}

impl Records {
    /// The observer to start the edge with, and what it sees.
    pub fn observed() -> (Observer, Self) {
        let (sender, records) = mpsc::channel(RECORDS);
        let observer = move |record: &Record| {
            // After the tour nobody listens, and more than fits is nobody's who asks.
            let _ = sender.try_send(record.clone());
        };
        (Box::new(observer), Self(records))
    }

    /// The record of the session of the client at `address`; `None`: it did not come in
    /// time. Records of others are passed over.
    pub(super) async fn of(&mut self, address: SocketAddr) -> Option<Record> {
        let found = async {
            loop {
                match self.0.recv().await {
                    Some(record) if record.client == address => return Some(record),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        timeout(PATIENCE, found).await.ok().flatten()
    }
}

impl Secret {
    /// 64 random bytes in hexadecimal: enough for each of the HMAC algorithms.
    fn random() -> io::Result<Self> {
        let bytes = random::<64>()?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The first route that takes a token in the first message from a client of localhost, and
/// the issuer whose key is here.
fn shown(config: &Config) -> Option<(Arc<Route>, Option<String>, Jwt)> {
    let is_here = |route: &Route| match &route.host {
        None => true,
        Some(HostPattern::Exact(host)) => host == HOST,
        Some(HostPattern::Suffix(_)) => false,
    };
    let mut routes = config.routes.iter().filter(|route| is_here(route));
    routes.find_map(|route| match &route.auth {
        Auth::Token(auth) => {
            let shape = auth.first_message()?;
            let is_free = shape.message_type.is_none();
            let field = shape.token_field.clone();
            let has_key = |jwt: &&Jwt| matches!(jwt.keys, Keys::One(_));
            let jwt = auth.jwt.iter().find(has_key)?;
            is_free.then(|| (Arc::clone(route), field, jwt.clone()))
        }
        Auth::None => None,
    })
}

fn message_with(token: &str, field: Option<&str>) -> String {
    let Some(pointer) = field else {
        return token.to_owned();
    };
    // The pointer begins with `/`, so the first piece is empty.
    let names: Vec<&str> = pointer.split('/').skip(1).collect();
    let message = names.iter().rev().fold(token.into(), |inner, name| {
        let name = name.replace("~1", "/").replace("~0", "~");
        serde_json::Value::Object([(name, inner)].into_iter().collect())
    });
    message.to_string()
}

/// The variable in whose place a secret may be made: one that both signs and verifies.
fn own_secret(jwt: &Jwt) -> Option<&str> {
    let is_hmac = jwt.algorithms.iter().all(|algorithm| {
        use Algorithm::{HS256, HS384, HS512};
        matches!(algorithm, HS256 | HS384 | HS512)
    });
    match &jwt.keys {
        Keys::One(KeySource::Env(name)) if is_hmac => Some(name),
        _ => None,
    }
}

/// Starts an echo server for each endpoint of the upstream, or one in place of them all.
fn start_upstream(
    config: &mut Config,
    index: usize,
    ports: Ports,
) -> Result<Vec<Echo>, Unsuitable> {
    let Some(upstream) = config.upstreams.get_mut(index) else {
        return Ok(Vec::new());
    };
    match ports {
        Ports::Configured => {
            let addresses = upstream.endpoints.iter().map(loopback);
            let addresses: Vec<SocketAddr> = addresses.collect::<Result<_, _>>()?;
            let listen = |address| Echo::listen(address).map_err(Unsuitable::Echo);
            addresses.into_iter().map(listen).collect()
        }
        Ports::Any => {
            let free = (Ipv4Addr::LOCALHOST, 0).into();
            let echo = Echo::listen(free).map_err(Unsuitable::Echo)?;
            let path = upstream.endpoints.first();
            let endpoint = Endpoint {
                host: echo.address().ip().to_string(),
                port: echo.address().port(),
                authority: echo.address().to_string(),
                path_and_query: path.and_then(|endpoint| endpoint.path_and_query.clone()),
            };
            *upstream = Arc::new(Upstream {
                endpoints: vec![endpoint],
                ..Upstream::clone(upstream)
            });
            Ok(vec![echo])
        }
    }
}

/// The address of an endpoint on this machine.
fn loopback(endpoint: &Endpoint) -> Result<SocketAddr, Unsuitable> {
    let address = (endpoint.host.as_str(), endpoint.port).to_socket_addrs();
    let address = address.ok().and_then(|mut found| found.next());
    address
        .filter(|address| address.ip().is_loopback())
        .ok_or_else(|| Unsuitable::NotLoopback(endpoint.authority.clone()))
}

/// Makes the certificates that are not there, or that were made here and are at their end.
fn make_certificates(
    config: &Config,
    base: &Path,
    made: &mut Vec<String>,
) -> Result<(), Unsuitable> {
    let listeners = config.listeners.iter();
    let pairs = listeners.filter_map(|listener| Some(&listener.tls.as_ref()?.certificates));
    for pair in pairs
        .flatten()
        .filter(|pair| is_below(&pair.cert, base) && is_below(&pair.key, base))
    {
        match dev_cert::ensure(&pair.cert, &pair.key) {
            Ok(Made::Created) => made.push(format!(
                "a development certificate for localhost, in {} and {}",
                pair.cert.display(),
                pair.key.display()
            )),
            Ok(Made::Existing) => {}
            // What is wrong with files from elsewhere is told where they are loaded.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Unsuitable::Certificate(pair.cert.clone(), error)),
        }
    }
    Ok(())
}

fn is_below(path: &Path, base: &Path) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    path.strip_prefix(base)
        .is_ok_and(|rest| rest.components().all(is_plain))
}

/// Where a client of this machine finds a listener.
fn reachable(listening: IpAddr) -> IpAddr {
    match listening {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn example(change: (&str, &str)) -> Config {
        let text = include_str!("../../proxy.toml");
        assert!(
            text.contains(change.0),
            "{} is not in the example",
            change.0
        );
        let text = text.replace(change.0, change.1);
        let base = Path::new("/nowhere");
        config::parse(&text, base).expect("it loads").config
    }

    #[test]
    fn the_first_message_carries_the_token_where_the_route_looks_for_it() {
        use crate::auth::message::{Pointer, extract_token};
        let pointers = ["/token", "/a/b", "/a~1b/~0", "/"];
        for field in pointers {
            let message = message_with("abc", Some(field));
            let pointer = Pointer::parse(field).expect("a pointer");
            let token = extract_token(&message, Some(&pointer)).expect("found");
            assert_eq!(token, "abc", "{message}");
        }
        assert_eq!(message_with("abc", None), "abc");
    }

    #[test]
    fn an_upstream_elsewhere_is_left_alone() {
        let change = ("ws://127.0.0.1:9001", "ws://192.0.2.1:9001");
        let mut config = example(change);
        let refused = Stage::set(&mut config, Path::new(""), Ports::Configured);
        assert!(matches!(refused, Err(Unsuitable::NotLoopback(at)) if at == "192.0.2.1:9001"));
    }

    #[test]
    fn a_configuration_without_a_route_for_localhost_is_unsuitable() {
        let change = (
            r#"path = "/chat""#,
            "path = '/chat'\nhost = 'chat.example.com'",
        );
        let mut config = example(change);
        let refused = Stage::set(&mut config, Path::new(""), Ports::Any);
        assert!(matches!(refused, Err(Unsuitable::NoRoute)));
    }

    #[test]
    fn certificates_are_made_below_the_configuration_alone() {
        let cases = [
            ("certs/a.pem", "", true),
            ("/etc/a.pem", "", false),
            ("../a.pem", "", false),
            ("/etc/tidegate/certs/a.pem", "/etc/tidegate", true),
            ("/etc/tidegate/../a.pem", "/etc/tidegate", false),
            ("/etc/a.pem", "/etc/tidegate", false),
        ];
        for (path, base, expected) in cases {
            assert_eq!(
                is_below(Path::new(path), Path::new(base)),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn free_ports_replace_those_of_the_configuration() {
        let mut config = example(("ws://127.0.0.1:9001", "ws://192.0.2.1:9001/x"));
        config.listeners[0].tls.as_mut().expect("TLS").certificates[0].cert = "/etc/x".into();
        let stage = Stage::set(&mut config, Path::new("/nowhere"), Ports::Any).expect("set");
        assert_eq!(config.listeners[0].bind.to_string(), "127.0.0.1:0");
        let endpoint = &config.upstreams[0].endpoints[0];
        assert!(std::net::TcpStream::connect(&endpoint.authority).is_ok());
        assert_eq!(stage.made.len(), 2, "{:?}", stage.made);
        assert_eq!(endpoint.path_and_query.as_deref(), Some("/x"));
    }

    #[test]
    fn debug_hides_the_secret() {
        let secret = Secret::random().expect("random");
        assert!(secret.0.len() >= 64);
        assert_eq!(format!("{secret:?}"), "***");
    }
}
