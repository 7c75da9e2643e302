//! Who may know whom: reads the `use` lines of the sources and holds the rules of the
//! design. Tests inside the sources are left out.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules that do IO. They meet in `proxy`, and do not know each other.
const IO: [&str; 14] = [
    "revocation",
    "admin",
    "listener",
    "tls",
    "http",
    "auth",
    "route",
    "upstream",
    "outbound",
    "relay",
    "drain",
    "handover",
    "supervisor",
    "telemetry",
];

struct Source {
    /// Relative to `src`, with `/`.
    path: String,
    /// The first part of the path, without `.rs`.
    module: String,
    text: String,
}

impl Source {
    /// Every path named in the file that begins with `name::`, as `name::next`.
    fn names(&self, name: &str) -> Vec<String> {
        let prefix = format!("{name}::");
        let mut found = Vec::new();
        for line in self.text.lines().filter(|line| !is_comment(line)) {
            let mut rest = line;
            while let Some(at) = rest.find(&prefix) {
                let begins =
                    !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                rest = &rest[at + prefix.len()..];
                if begins {
                    let next = rest
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next();
                    found.push(next.unwrap_or_default().to_owned());
                }
            }
        }
        found
    }

    fn mentions(&self, text: &str) -> bool {
        self.text
            .lines()
            .any(|line| !is_comment(line) && line.contains(text))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The sources without their tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    assert!(sources.len() > 30, "only {} sources found", sources.len());
    sources
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if name != "tests" {
                collect(root, &path, sources);
            }
        } else if name.ends_with(".rs") && !["tests.rs", "testing.rs", "sim.rs"].contains(&&*name) {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap();
            let module = relative.split('/').next().unwrap().trim_end_matches(".rs");
            sources.push(Source {
                path: relative.to_owned(),
                module: module.to_owned(),
                text: text.to_owned(),
            });
        }
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for source in sources() {
        assert!(source.text.starts_with("//!"), "{}", source.path);
    }
}

#[test]
fn the_core_knows_nothing_but_itself() {
    let mut seen = 0;
    for source in sources().iter().filter(|source| source.module == "proto") {
        seen += 1;
        for next in source.names("crate") {
            assert_eq!(next, "proto", "{} uses crate::{next}", source.path);
        }
        for foreign in [
            "tokio",
            "hyper",
            "hyper_util",
            "rustls",
            "toml",
            "tracing",
            "serde",
            "socket2",
        ] {
            assert!(
                source.names(foreign).is_empty(),
                "{} uses {foreign}",
                source.path
            );
        }
        for io in [
            "std::net::Tcp",
            "std::net::Udp",
            "ToSocketAddrs",
            "std::fs",
            "std::env",
            "std::thread",
            "std::io",
            "::now()",
        ] {
            assert!(!source.mentions(io), "{} mentions {io}", source.path);
        }
    }
    assert!(seen >= 15, "only {seen} files of the core found");
}

#[test]
fn io_modules_know_the_configuration_and_the_core_but_not_each_other() {
    let mut seen = 0;
    for source in sources() {
        if !IO.contains(&&*source.module) {
            continue;
        }
        seen += 1;
        for next in source.names("crate") {
            // The options of a TCP connection are the same on both legs.
            let shared = ["config", "proto", "socket"].contains(&&*next);
            let allowed = shared || next == source.module;
            assert!(allowed, "{} uses crate::{next}", source.path);
        }
    }
    assert!(seen >= IO.len(), "only {seen} files of IO modules found");
}

#[test]
fn the_options_of_sockets_know_only_the_configuration() {
    let sources = sources();
    let socket = sources.iter().find(|source| source.path == "socket.rs");
    for next in socket.expect("it is there").names("crate") {
        assert_eq!(next, "config");
    }
}

#[test]
fn the_configuration_knows_only_the_core() {
    let mut seen = 0;
    for source in sources().iter().filter(|source| source.module == "config") {
        seen += 1;
        for next in source.names("crate") {
            assert!(
                next == "config" || next == "proto",
                "{} uses crate::{next}",
                source.path
            );
        }
    }
    assert!(seen >= 3, "only {seen} files of the configuration found");
}

#[test]
fn each_library_has_its_place() {
    let places: [(&str, &[&str]); 13] = [
        ("toml", &["config/file.rs"]),
        (
            "hyper",
            &["http.rs", "http/", "upstream/", "outbound.rs", "admin.rs"],
        ),
        (
            "hyper_util",
            &["http.rs", "http/", "upstream/", "outbound.rs", "admin.rs"],
        ),
        // The demonstration's client is a client of the product, not a part of it.
        ("rustls", &["tls/", "demo/"]),
        ("tokio_rustls", &["tls/", "demo/"]),
        ("jsonwebtoken", &["auth/"]),
        ("governor", &["proto/limits.rs"]),
        ("rustls_pemfile", &["tls/"]),
        ("rustls_native_certs", &["tls/"]),
        ("rcgen", &["tls/"]),
        ("listenfd", &["listener/stock.rs"]),
        ("rustix", &["handover.rs", "cli/descriptors.rs"]),
        ("sd_notify", &["supervisor.rs"]),
    ];
    let sources = sources();
    for (library, places) in places {
        for source in &sources {
            let uses = !source.names(library).is_empty();
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            assert!(!uses || allowed, "{} uses {library}", source.path);
        }
    }
    for (library, place) in [("toml", "config/file.rs"), ("governor", "proto/limits.rs")] {
        let uses = |source: &&Source| source.path == place && !source.names(library).is_empty();
        assert!(
            sources.iter().any(|source| uses(&source)),
            "{library} is not seen at all"
        );
    }
}

#[test]
fn futures_are_written_by_hand_in_one_place_at_most() {
    for source in sources() {
        assert!(!source.mentions("impl Future for"), "{}", source.path);
        assert!(!source.mentions("macro_rules!"), "{}", source.path);
        assert!(!source.mentions("mod utils"), "{}", source.path);
    }
}
