//! Checked configuration: the types the program runs on, and the way to them from a file.
//!
//! What a key may be, its default and the reason for it stand in the file of its section
//! (`server`, `admission`, `listener`, `route`, `auth`, `headers`, `rule`, `policy`, `keepalive`,
//! `upstream`, `admin`); they read through `file`, which alone knows TOML. The types of `[route.auth]` are in
//! `token`. Nothing here opens what the configuration names: certificates, keys and secrets
//! are looked at by those who use them.

mod admin;
mod admission;
mod answer;
mod auth;
pub mod diff;
mod drain;
mod file;
mod files;
mod headers;
mod hold;
pub mod identity;
mod keepalive;
mod listener;
mod names;
mod policy;
pub mod problem;
mod reload;
mod route;
mod rule;
mod secret;
mod server;
pub mod source;
mod tcp;
mod token;
pub mod units;
mod upstream;
pub mod url;
mod value;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use crate::config::admission::{Caps, ProxyProtocol, RouteAdmission, Trust};
use crate::config::answer::Reported;
pub use crate::config::auth::authorize::Authorize;
pub use crate::config::auth::identity::SignedIdentity;
pub use crate::config::drain::Drain;
use crate::config::drain::Readiness;
use crate::config::file::{Reading, Section};
pub use crate::config::hold::Dials;
use crate::config::identity::Identity;
use crate::config::problem::{Loaded, Problem, Refused};
pub use crate::config::reload::{Apply, Reload};
use crate::config::source::Source;
pub use crate::config::token::{
    Algorithm, Auth, Jwks, JwksSource, Jwt, KeySource, Keys, MessageShape, TokenAuth, TokenPlace,
};
use crate::proto::network::Access;
use crate::proto::policy::Policy;

/// Reads and checks a configuration file. Relative paths in it start from its folder.
///
/// # Errors
/// Every problem of the file at once, or the one that it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Refused> {
    let base = path.parent().unwrap_or(Path::new(""));
    match read(path) {
        Ok(text) => parse(&text, base),
        Err(error) => Err(Refused {
            problems: vec![unreadable(path, &error)],
            named: Box::default(),
            text: Source::default(),
        }),
    }
}

/// Checks the text of a configuration. Relative paths in it start from `base`.
///
/// # Errors
/// Every problem of the text at once.
pub fn parse(text: &str, base: &Path) -> Result<Loaded, Refused> {
    let source = Source::new(text);
    let reading = Reading::new(&source, base);
    let config = reading
        .document()
        .and_then(|document| checked(document.root(&reading)));
    let (mut problems, named) = reading.into_findings();
    problem::sort(&mut problems);
    match config {
        Ok(config) if !problems.iter().any(Problem::is_error) => Ok(Loaded {
            config,
            warnings: problems,
            text: source,
        }),
        _ => Err(Refused {
            problems,
            named: Box::new(named),
            text: source,
        }),
    }
}

fn checked(mut root: Section<'_>) -> Result<Config, Reported> {
    let server = root.section_or_empty("server");
    let readiness = match root.has("admin") {
        true => Readiness::Asked,
        false => Readiness::Unknown,
    };
    let server = server.and_then(|section| server::server(section, readiness));
    let mut listeners = listener::listeners(&mut root);
    let limits = root.section_or_empty("limits").and_then(server::limits);
    let mut upstreams = upstream::upstreams(&mut root);
    let names = upstreams.names.as_deref().map_err(|reported| *reported);
    let routes = route::routes(&mut root, names);
    let revocation = root
        .section_or_empty("revocation")
        .and_then(admin::revocation);
    let admin = admin::admin(&mut root);
    let identity = identity::identity(&mut root);
    identity::warn_of_unknown_key(&root, &routes, &identity, &admin);
    if let (Ok(listeners), Ok(upstreams), Ok(routes)) =
        (&mut listeners, &mut upstreams.checked, &routes)
    {
        tcp::fit(&mut root, listeners, upstreams, routes)?;
    }
    if let (Ok(limits), Ok(routes)) = (&limits, &routes) {
        server::holds_a_session(&mut root, limits, routes)?;
    }
    root.done();
    Ok(Config {
        server: server?,
        listeners: listeners?,
        limits: limits?,
        routes: routes?,
        upstreams: upstreams.checked?,
        revocation: revocation?,
        admin: admin?,
        identity: identity?,
    })
}

/// Bytes of a configuration file: thousands of routes fit, and a wrong path such as a log or
/// a device does not fill the memory.
const LARGEST_FILE: u64 = 4 << 20;

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(LARGEST_FILE + 1)
        .read_to_string(&mut text)?;
    if read as u64 > LARGEST_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 4MiB",
        ));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let allowed = match error.kind() {
        io::ErrorKind::NotFound => {
            "an existing file: name it with --config, or run where proxy.toml is"
        }
        io::ErrorKind::PermissionDenied => "a file that this user may read",
        _ => "a text file in UTF-8, at most 4MiB",
    };
    let found = format!("{} cannot be read: {error}", path.display());
    Problem::error(None, "", found, allowed)
}

/// Where in the file a value stands: the 1-based line, for messages about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line(pub u32);

/// The whole configuration. Immutable; shared by all workers.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads and drain.
    pub server: Server,
    /// Sockets to accept on; at least one.
    pub listeners: Vec<Listener>,
    /// Limits of the whole process.
    pub limits: ProcessLimits,
    /// At least one.
    pub routes: Vec<Arc<Route>>,
    /// At least one; routes refer to them by index.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The tokens that count no longer.
    pub revocation: Revocation,
    /// `None`: there is no admin address.
    pub admin: Option<Admin>,
    /// The key that signs identities, where a route wants one.
    pub identity: Identity,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads ("auto" resolved to the number of cores).
    pub workers: NonZeroUsize,
    /// How sessions are ended at shutdown.
    pub drain: Drain,
    /// How another configuration is taken.
    pub reload: Reload,
}

/// `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address to accept on.
    pub bind: SocketAddr,
    /// `None`: plaintext, which the file had to say.
    pub tls: Option<Tls>,
    /// Whose word counts on where a client connects from.
    pub trust: Trust,
    /// Bytes of unsent data the kernel may queue towards a client (`TCP_NOTSENT_LOWAT`).
    pub notsent_lowat: u32,
    /// How long TCP waits for a client.
    pub tcp: TcpPatience,
}

/// `tcp_keepalive` and `tcp_user_timeout`; `None`: as the system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPatience {
    /// Silence after which the peer is probed. As long again, and it is given up.
    pub keepalive: Option<Duration>,
    /// Longest time that what was sent is not acknowledged, or not taken.
    pub user_timeout: Option<Duration>,
}

/// `[listener.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Chosen by SNI; the first is the default. At least one.
    pub certificates: Vec<CertificateFiles>,
    /// Oldest version spoken.
    pub min_version: TlsVersion,
    /// Deadline of the TLS handshake.
    pub handshake_timeout: Duration,
}

/// One entry of `certificates`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM chain, leaf first. Absolute, or relative to the process's directory.
    pub cert: PathBuf,
    /// PEM key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// Where the entry stands.
    pub line: Line,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// `[limits]`: the whole process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// How many connections there may be, and how fast they may come.
    pub caps: Caps,
    /// Who may come, by address.
    pub access: Access,
    /// From the accept (or the end of the TLS handshake) to the end of the request head.
    pub request_head_timeout: Duration,
    /// Bytes of the request head.
    pub max_request_head: usize,
    /// Header fields in the request head.
    pub max_headers: usize,
    /// Memory for bytes on their way, of all sessions together; `None`: unlimited.
    pub max_buffered: Option<usize>,
}

/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Unique; names the route in logs and on the command line.
    pub name: String,
    /// `None`: any host.
    pub host: Option<HostPattern>,
    /// Exact or prefix.
    pub path: PathPattern,
    /// Serialized origins as written, already checked by the parser of `proto::origin`.
    pub origins: Vec<String>,
    /// Whether a request without `Origin` passes.
    pub allow_missing_origin: bool,
    /// In order of the client's preference the first in this list is chosen.
    pub subprotocols: Vec<String>,
    /// Whether a client that offers none of them is refused with 400.
    pub subprotocols_required: bool,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// How a client proves who it is.
    pub auth: Auth,
    /// The service that has the last word on who is admitted.
    pub authorize: Option<Authorize>,
    /// What the edge signs about the client for the upstream.
    pub identity: Option<SignedIdentity>,
    /// Header name (lower case) and the claim it is filled from (name or JSON pointer).
    pub headers: Vec<ClaimHeader>,
    /// Who may open sessions, and how many at once.
    pub admission: RouteAdmission,
    /// What its sessions obey.
    pub policy: Arc<Policy>,
    /// Where the route begins.
    pub line: Line,
}

/// One entry of `[route.headers]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Valid lower-case field name.
    pub header: String,
    /// Claim name, or JSON pointer when it starts with `/`.
    pub claim: String,
    /// How the claim becomes text.
    pub format: ClaimFormat,
}

/// How a claim becomes the value of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimFormat {
    /// A string, number or boolean as it is, or an array of them joined by commas.
    #[default]
    Text,
    /// Any claim, as JSON in ASCII.
    Json,
}

/// `[[route]] host`: lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this host.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: one or more labels before it.
    Suffix(String),
}

/// `[[route]] path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// Written `/x/*`, kept as `/x/`: this and everything below it.
    Prefix(String),
}

/// `[[upstream]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Unique.
    pub name: String,
    /// Tried in turn; at least one.
    pub endpoints: Vec<Endpoint>,
    /// TCP connect, per endpoint.
    pub dial_timeout: Duration,
    /// From the connect to the end of the answer's head.
    pub handshake_timeout: Duration,
    /// How fast held sessions come back; `None`: as fast as they like.
    pub dials: Option<Dials>,
    /// How long TCP waits for it.
    pub tcp: TcpPatience,
}

/// One `ws://` address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// 80 when not written.
    pub port: u16,
    /// As written, for the `Host` header: `host[:port]`.
    pub authority: String,
    /// Path (and query) that replaces the client's path; `None` when the URL has none:
    /// the client's own passes through. A client's query is appended either way.
    pub path_and_query: Option<String>,
}

/// `[revocation]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Where the entries survive a restart; `None`: nowhere.
    pub file: Option<PathBuf>,
    /// Most entries at once.
    pub max_entries: usize,
    /// How long an entry is kept that does not say when its tokens expire.
    pub keep: Duration,
    /// Where `file` stands.
    pub line: Line,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address to answer on.
    pub bind: SocketAddr,
    /// Who changes anything must have it; there is one unless `bind` is a loopback address.
    pub token: Option<AdminToken>,
}

/// `[admin] token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// Where it comes from.
    pub source: KeySource,
    /// Where that stands.
    pub line: Line,
}
