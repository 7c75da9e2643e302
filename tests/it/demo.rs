//! `tidegate demo`, as a user runs it: the program itself, in a folder with a configuration.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The steps of the tour, as they begin.
const STEPS: [&str; 7] = [
    " 1 ok      a good token, a message",
    " 2 ok      a page of another site   HTTP 403",
    " 3 ok      a forged token           closed with 3000",
    " 4 ok      a frame of ",
    " 5 ok      ",
    " 6 ok      4MiB sent, not read      buffered_amount ",
    " 7 ok      no token at all          closed with 3008",
];

#[test]
fn the_tour_on_the_reference_does_what_it_should() {
    let folder = Folder::with(&[]);
    let ran = folder.demo(&["--once", "--any-port"]);
    let text = toured(&ran);
    assert!(text.contains("greeted with {\"type\":\"ready\"}"), "{text}");
    assert!(
        text.contains("a frame of 64KiB + 1 B   closed with 1009"),
        "{text}"
    );
    assert!(text.contains("throttled: the first 100 "), "{text}");
    assert!(text.contains("(limit 50/s, burst 100)"), "{text}");
    assert!(
        text.contains("buffered_amount 64KiB at most (watermark 64KiB)"),
        "{text}"
    );
    assert!(text.contains("All 7 steps did what they should"), "{text}");
    let key = folder.0.join("certs/localhost.key");
    let mode = key.metadata().expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_tour_reads_from_the_configuration_what_should_happen() {
    let folder = Folder::with(&[
        (
            "timeout = \"10s\"                       # for",
            "timeout = \"1s\" # for",
        ),
        ("max_frame_size = \"64KiB\"", "max_frame_size = \"8KiB\""),
        ("reply = '{\"type\":\"ready\"}'", ""),
        ("token_field = \"/token\"", "token_field = \"/auth/jwt\""),
        ("forward = false", "forward = true"),
        ("subprotocols = [\"chat.v1\"]", ""),
        (
            "burst = 100, on_excess = \"throttle\"",
            "burst = 20, on_excess = \"drop\"",
        ),
        ("high_watermark = \"64KiB\"", "high_watermark = \"128KiB\""),
        (
            "on_slow_consumer = \"throttle\"",
            "on_slow_consumer = \"drop\"",
        ),
        ("path = \"/chat\"", "path = \"/rooms/*\""),
    ]);
    let text = toured(&folder.demo(&["--once", "--any-port"]));
    assert!(text.contains("no subprotocol, no greeting"), "{text}");
    assert!(
        text.contains("a frame of 8KiB + 1 B    closed with 1009"),
        "{text}"
    );
    assert!(text.contains("(limit 50/s, burst 20)"), "{text}");
    assert!(text.contains(" dropped (limit"), "{text}");
    assert!(text.contains("(watermark 128KiB)"), "{text}");
    assert!(text.contains(" messages dropped; "), "{text}");
}

#[test]
fn policies_that_close_are_shown_as_well() {
    let folder = Folder::with(&[
        (
            "timeout = \"10s\"                       # for",
            "timeout = \"1s\" # for",
        ),
        (
            "burst = 100, on_excess = \"throttle\"",
            "burst = 60, on_excess = \"close\"",
        ),
        (
            "on_slow_consumer = \"throttle\"",
            "on_slow_consumer = \"close\"",
        ),
    ]);
    let text = toured(&folder.demo(&["--once", "--any-port"]));
    assert!(text.contains("closed with 1008"), "{text}");
}

#[test]
fn a_limit_that_is_off_is_passed_over() {
    let folder = Folder::with(&[
        (
            "timeout = \"10s\"                       # for",
            "timeout = \"1s\" # for",
        ),
        (
            "messages = { rate = \"50/s\", burst = 100, on_excess = \"throttle\" }",
            "messages = \"off\"",
        ),
        ("\"https://localhost:8443\",", ""),
        ("\"https://app.example.com\",", "\"*\","),
        ("\"https://*.example.com\",", ""),
    ]);
    let ran = folder.demo(&["--once", "--any-port"]);
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{text}");
    assert!(
        text.contains(" 2 -       a page of another site   nothing to show"),
        "{text}"
    );
    assert!(
        text.contains(" 5 -       too many messages        nothing to show"),
        "{text}"
    );
}

#[test]
fn a_refused_configuration_is_told_like_check_does() {
    let folder = Folder::with(&[("max_frame_size = \"64KiB\"", "max_frame_size = 64")]);
    let ran = folder.demo(&["--once", "--any-port"]);
    assert_eq!(ran.status.code(), Some(78));
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(told.contains("route.chat.limits.max_frame_size"), "{told}");
    assert!(ran.stdout.is_empty());
    assert!(!folder.0.join("certs").exists());
}

#[test]
fn a_missing_configuration_is_told_with_its_remedy() {
    let folder = Folder::with(&[]);
    fs::remove_file(folder.0.join("proxy.toml")).expect("removed");
    let ran = folder.demo(&[]);
    assert_eq!(ran.status.code(), Some(78));
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(
        told.contains("name it with --config, or run where proxy.toml is"),
        "{told}"
    );
}

#[test]
fn a_port_that_is_taken_is_told_with_its_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = Folder::with(&[("127.0.0.1:9001", &address)]);
    let ran = folder.demo(&["--once"]);
    assert_eq!(ran.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(
        told.contains(&format!("cannot listen on {address}")),
        "{told}"
    );
    assert!(told.contains("tidegate demo --any-port"), "{told}");
}

/// The output of a tour of which every step did what it should.
fn toured(ran: &Output) -> String {
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{text}{told}");
    let mut lines = text.lines();
    for step in STEPS {
        assert!(
            lines.any(|line| line.starts_with(step)),
            "no {step:?} in {text}"
        );
    }
    assert!(!text.contains("eyJ"), "a token: {text}");
    text
}

/// A folder with the reference configuration, changed; removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn with(changes: &[(&str, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-demo-{}-{n}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml");
        let mut text = fs::read_to_string(reference).expect("the reference");
        for (from, to) in changes {
            assert!(text.contains(from), "{from:?} is not in the reference");
            text = text.replace(from, to);
        }
        fs::write(folder.join("proxy.toml"), text).expect("written");
        Self(folder)
    }

    fn demo(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("demo")
            .args(arguments)
            .current_dir(&self.0)
            .env_remove("TIDEGATE_JWT_SECRET")
            .output()
            .expect("it runs")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind in the system's temporary place harms nobody.
        let _removed = fs::remove_dir_all(&self.0);
    }
}
