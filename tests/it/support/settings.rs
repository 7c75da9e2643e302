//! A configuration file in pieces: the least that works, and what a test puts in its place.
//!
//! One text serves both the proxy in this process and the real program.

use std::net::{Ipv4Addr, SocketAddr};

use tidegate::config::Config;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::folder::Folder;
use super::token::{AUDIENCE, ISSUER, SECRET_NAME};

/// The origin that the tests' routes admit.
pub const ORIGIN: &str = "https://app.example.com";

/// See [`proxy`].
pub struct Settings {
    endpoints: Vec<String>,
    bind: SocketAddr,
    workers: usize,
    grace: &'static str,
    drain: &'static str,
    server: String,
    limits: String,
    listener: String,
    tls: String,
    route: String,
    auth: String,
    sections: String,
    upstream: String,
    adapt: Vec<Change>,
    more: String,
    files: Vec<(String, String)>,
}

/// See [`Settings::adapt`].
type Change = Box<dyn FnOnce(&mut Config)>;

/// A proxy with one route, `/chat`, that admits [`ORIGIN`] with a token in the first message
/// and passes on to `upstream`.
pub fn proxy(upstream: SocketAddr) -> Settings {
    Settings {
        endpoints: vec![format!("ws://{upstream}")],
        bind: (Ipv4Addr::LOCALHOST, 0).into(),
        workers: 1,
        grace: "10s",
        drain: "spread = \"0s\"",
        server: String::new(),
        limits: String::new(),
        listener: String::new(),
        tls: String::new(),
        route: format!("path = \"/chat\"\norigins = [\"{ORIGIN}\"]"),
        auth: with_jwt("method = \"first-message\"\ntoken_field = \"/token\""),
        sections: String::new(),
        upstream: String::new(),
        adapt: Vec::new(),
        more: String::new(),
        files: Vec::new(),
    }
}

/// Keys of `[route.auth]`, and what makes the tests' tokens good.
fn with_jwt(keys: &str) -> String {
    format!(
        "{keys}\njwt = {{ algorithms = [\"HS256\"], key = {{ env = \"{SECRET_NAME}\" }}, \
         issuer = \"{ISSUER}\", audience = [\"{AUDIENCE}\"] }}"
    )
}

impl Settings {
    /// The endpoints in place of the one.
    pub fn endpoints(mut self, addresses: &[SocketAddr]) -> Self {
        self.endpoints = addresses.iter().map(|a| format!("ws://{a}")).collect();
        self
    }

    /// A path that the endpoint has of its own.
    pub fn endpoint_path(mut self, path: &str) -> Self {
        for endpoint in &mut self.endpoints {
            endpoint.push_str(path);
        }
        self
    }

    /// The address of the first listener, where one is bound already.
    pub fn bind(mut self, bind: SocketAddr) -> Self {
        self.bind = bind;
        self
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub fn grace(mut self, grace: &'static str) -> Self {
        self.grace = grace;
        self
    }

    /// The keys of `[server] drain`, but for `grace`.
    pub fn drain(mut self, keys: &'static str) -> Self {
        self.drain = keys;
        self
    }

    /// More keys of `[server]`.
    pub fn server(mut self, keys: &str) -> Self {
        self.server = keys.to_owned();
        self
    }

    /// More keys of `[limits]`.
    pub fn process_limits(mut self, keys: &str) -> Self {
        self.limits = keys.to_owned();
        self
    }

    /// More keys of the listener.
    pub fn listener(mut self, keys: &str) -> Self {
        self.listener = keys.to_owned();
        self
    }

    /// More keys of `[listener.tls]`.
    pub fn tls(mut self, keys: &str) -> Self {
        self.tls = keys.to_owned();
        self
    }

    /// The keys of the route: path, origins and so on.
    pub fn route(mut self, keys: &str) -> Self {
        self.route = keys.to_owned();
        self
    }

    /// More keys of the route.
    pub fn route_also(mut self, keys: &str) -> Self {
        self.route = format!("{}\n{keys}", self.route);
        self
    }

    /// More keys of `[route.auth]`.
    pub fn auth_also(mut self, keys: &str) -> Self {
        self.auth = format!("{}\n{keys}", self.auth);
        self
    }

    /// The keys of `[route.auth]`, but for `jwt`.
    pub fn auth(mut self, keys: &str) -> Self {
        self.auth = with_jwt(keys);
        self
    }

    /// Whose tokens are good, as `[route.auth.jwt]` or several, in place of the tests' own.
    pub fn issuers(self, tables: &str) -> Self {
        let keys = "method = \"first-message\"\ntoken_field = \"/token\"";
        self.auth_of_issuers(keys, tables)
    }

    /// The same with other keys of `[route.auth]`.
    pub fn auth_of_issuers(mut self, keys: &str, tables: &str) -> Self {
        self.auth = format!("{keys}\n{tables}");
        self
    }

    /// No token: the upstream is dialled before the 101.
    pub fn without_token(mut self) -> Self {
        self.auth = "method = \"none\"".to_owned();
        self
    }

    /// A section of the route: `limits`, `backpressure`, `keepalive`, `headers`.
    pub fn section(mut self, name: &str, keys: &str) -> Self {
        self.sections = format!("{}[route.{name}]\n{keys}\n", self.sections);
        self
    }

    /// More of the file: whole listeners, upstreams, routes.
    pub fn more(mut self, text: &str) -> Self {
        self.more.push_str(text);
        self
    }

    /// A file beside the configuration, which may name it.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// More keys of `[[upstream]]`.
    pub fn upstream(mut self, keys: &str) -> Self {
        self.upstream = keys.to_owned();
        self
    }

    /// Changes the checked configuration: for times too short to be allowed in a file. Only
    /// for the proxy in this process.
    pub fn adapt(mut self, change: impl FnOnce(&mut Config) + 'static) -> Self {
        self.adapt.push(Box::new(change));
        self
    }

    /// The file; its relative paths are the names in a [`Folder`].
    pub fn toml(&self) -> String {
        let Self {
            bind,
            workers,
            grace,
            drain,
            server,
            limits,
            listener,
            tls,
            route,
            auth,
            sections,
            upstream,
            more,
            ..
        } = self;
        format!(
            r#"
[server]
workers = {workers}
drain = {{ grace = "{grace}", {drain} }}
{server}

[[listener]]
bind = "{bind}"
{listener}
[listener.tls]
certificates = [{{ cert = "localhost.pem", key = "localhost.key" }}]
{tls}

[limits]
{limits}

[[upstream]]
name = "server"
endpoints = {endpoints:?}
{upstream}

[[route]]
name = "chat"
upstream = "server"
{route}
[route.auth]
{auth}
{sections}
{more}"#,
            endpoints = self.endpoints,
        )
    }

    /// Makes the folder that the file lies in, with the certificate for `localhost`.
    pub fn folder(&self) -> (Folder, CertificateDer<'static>) {
        let folder = Folder::new();
        let certificate = folder.certificate("localhost", &["localhost"]);
        folder.write("proxy.toml", &self.toml());
        for (name, text) in &self.files {
            folder.write(name, text);
        }
        (folder, certificate)
    }

    pub fn apply_to(self, config: &mut Config) {
        for change in self.adapt {
            change(config);
        }
    }
}
