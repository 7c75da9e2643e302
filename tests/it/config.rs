//! Configurations as files: what is accepted and with which warnings, what is refused and
//! with which words. The expected text stands beside each file.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tidegate::config::problem::{Loaded, Problem, Refused, render};
use tidegate::config::{self, Auth, KeySource, Keys, PathPattern};
use tidegate::proto::limits::OnExcess;

#[test]
fn every_valid_configuration_loads_with_its_warnings() {
    let files = configurations("valid");
    assert!(files.len() >= 4, "only {} files seen", files.len());
    for file in files {
        let Loaded { warnings, text, .. } = load(&file);
        let shown = render(name(&file), &warnings, &text);
        assert_eq!(shown, expected(&file), "{}", file.display());
    }
}

#[test]
fn every_invalid_configuration_is_refused_with_its_text() {
    let files = configurations("invalid");
    assert!(files.len() >= 12, "only {} files seen", files.len());
    for file in files {
        let Refused { problems, text, .. } =
            config::load(&file).expect_err("an invalid file loads");
        assert!(problems.iter().any(Problem::is_error), "{}", file.display());
        let shown = render(name(&file), &problems, &text);
        assert_eq!(shown, expected(&file), "{}", file.display());
    }
}

#[test]
fn no_text_about_an_invalid_configuration_holds_a_secret() {
    let files = configurations("invalid");
    let mut with_secret = 0;
    for file in files {
        let source = fs::read_to_string(&file).expect("the file is readable");
        with_secret += usize::from(source.contains("hunter2"));
        let refused = config::load(&file).expect_err("an invalid file loads");
        let shown = render(name(&file), &refused.problems, &refused.text);
        assert!(!shown.contains("hunter2"), "{}: {shown}", file.display());
        assert!(
            !format!("{refused:?}").contains("hunter2"),
            "{}",
            file.display()
        );
    }
    assert!(with_secret >= 2, "only {with_secret} files hold a secret");
}

#[test]
fn the_reference_loads_without_warnings() {
    let loaded = load(&root("proxy.toml"));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn the_reference_says_what_the_demo_needs() {
    let config = load(&root("proxy.toml")).config;
    let listener = &config.listeners[0];
    assert_eq!(listener.bind.to_string(), "0.0.0.0:8443");
    let tls = listener.tls.as_ref().expect("the reference has TLS");
    assert_eq!(tls.certificates[0].cert, root("certs/localhost.pem"));
    assert_eq!(tls.certificates[0].key, root("certs/localhost.key"));
    let route = &config.routes[0];
    assert_eq!((route.name.as_str(), &route.host), ("chat", &None));
    assert_eq!(route.path, PathPattern::Exact("/chat".to_owned()));
    let Auth::Token(auth) = &route.auth else {
        panic!("the reference asks for a token");
    };
    let shape = auth.first_message().expect("in the first message");
    assert_eq!(shape.token_field.as_deref(), Some("/token"));
    let secret = KeySource::Env("TIDEGATE_JWT_SECRET".to_owned());
    assert_eq!(auth.jwt[0].keys, Keys::One(secret));
    assert_eq!(route.headers[0].header, "x-user-id");
    let endpoint = &config.upstreams[route.upstream].endpoints[0];
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("127.0.0.1", 9001));
    assert_eq!(endpoint.path_and_query, None);
}

/// The reference promises to show the defaults, so leaving its optional keys out changes nothing.
#[test]
fn the_reference_shows_the_defaults() {
    let full = load(&root("proxy.toml")).config;
    let bare = load(&root("tests/configs/valid/minimal.toml")).config;
    assert_eq!(full.server, bare.server);
    assert_eq!(full.limits, bare.limits);
    assert_eq!(
        full.listeners[0].notsent_lowat,
        bare.listeners[0].notsent_lowat
    );
    assert_eq!(full.listeners[0].tcp, bare.listeners[0].tcp);
    assert_eq!(full.upstreams[0].tcp, bare.upstreams[0].tcp);
    let tls = |config: &config::Config| config.listeners[0].tls.clone().expect("both have TLS");
    assert_eq!(tls(&full).min_version, tls(&bare).min_version);
    assert_eq!(tls(&full).handshake_timeout, tls(&bare).handshake_timeout);
    let (full_policy, bare_policy) = (&full.routes[0].policy, &bare.routes[0].policy);
    assert_eq!(full_policy.limits, bare_policy.limits);
    assert_eq!(full_policy.backpressure, bare_policy.backpressure);
    assert_eq!(full_policy.keepalive, bare_policy.keepalive);
    assert_eq!(full_policy.close_timeout, bare_policy.close_timeout);
    let first = |config: &config::Config| {
        config.routes[0]
            .policy
            .first_message
            .clone()
            .expect("both ask for a token")
    };
    assert_eq!(first(&full).timeout, first(&bare).timeout);
    assert_eq!(first(&full).max_size, first(&bare).max_size);
    assert_eq!(first(&full).forward, first(&bare).forward);
    assert_eq!(
        full.upstreams[0].dial_timeout,
        bare.upstreams[0].dial_timeout
    );
    assert_eq!(
        full.upstreams[0].handshake_timeout,
        bare.upstreams[0].handshake_timeout
    );
}

/// What the reference shows in comments can be taken out of them.
#[test]
fn the_places_of_tokens_in_the_reference_load_out_of_their_comments() {
    let list = "[\"header\", \"cookie\", \"subprotocol\", \"query\", \"first-message\"]";
    let mut text = reference().replace(
        "  method = \"first-message\"\n",
        &format!("  method = {list}\n"),
    );
    for key in [
        "cookie = \"session\"",
        "subprotocol_prefix = \"bearer.\"",
        "query = \"access_token\"",
        "i_know_query_tokens_leak = true",
        "forward_token = true",
        "\"X-Realm\" = { claim = \"/realm_access\", format = \"json\" }",
    ] {
        let commented = format!("  # {key}\n");
        assert!(text.contains(&commented), "{key} is not shown");
        // The comment about headers stands above their section.
        let below = match key.starts_with('"') {
            true => format!("  [route.headers]\n  {key}\n"),
            false => format!("  {key}\n"),
        };
        text = text.replace(&commented, &below);
    }
    let text = text.replacen("  [route.headers]\n  \"X-User-Id\"", "  \"X-User-Id\"", 1);
    let loaded = config::parse(&text, Path::new("")).expect("it loads");
    assert_eq!(loaded.warnings, []);
    let Auth::Token(auth) = &loaded.config.routes[0].auth else {
        panic!("it asks for a token");
    };
    assert_eq!(auth.places.len(), 5);
    assert!(auth.forward_token);

    let preset = "preset = \"graphql-ws\"";
    assert!(reference().contains(&format!("  # {preset}\n")));
    let text = reference()
        .replace(&format!("# {preset}"), preset)
        .replace("[\"chat.v1\"]", "[\"graphql-transport-ws\"]")
        .replace("  reply =", "  # reply =")
        .replace("  forward = false", "  forward = true");
    let loaded = config::parse(&text, Path::new("")).expect("it loads");
    assert_eq!(loaded.warnings, []);
}

#[test]
fn what_is_switched_off_is_off() {
    let config = load(&root("tests/configs/valid/everything-off.toml")).config;
    let route = &config.routes[0];
    assert_eq!(route.policy.limits.messages, None);
    assert_eq!(route.policy.limits.bytes, None);
    assert_eq!(route.policy.limits.control.on_excess, OnExcess::Throttle);
    assert!(!route.policy.limits.validate_utf8);
    assert_eq!(route.policy.keepalive.ping_interval, None);
    assert_eq!(route.policy.first_message, None);
    assert_eq!(config.server.drain.spread, Duration::ZERO);
    assert!(config.listeners[0].tls.is_none());
}

#[test]
fn the_lame_duck_is_on_where_somebody_can_hear_of_it_and_fits_into_the_grace_period() {
    let lame_duck = |file: &str| load(&root(file)).config.server.drain.lame_duck.as_secs();
    assert_eq!(lame_duck("tests/configs/valid/minimal.toml"), 0);
    assert_eq!(lame_duck("tests/configs/valid/drain.toml"), 20);
    assert_eq!(lame_duck("tests/configs/valid/admin-defaults.toml"), 5);
}

#[test]
fn tcp_never_gives_a_peer_up_before_its_route_does() {
    let seconds = Duration::from_secs;
    let timeouts = |stall: &str| {
        let backpressure = format!("stall_timeout = \"{stall}\"");
        let text = reference()
            .replace("stall_timeout = \"60s\"", &backpressure)
            .replace("tcp_user_timeout = \"2m\"", "");
        let config = config::parse(&text, Path::new(""))
            .expect("it loads")
            .config;
        (
            config.listeners[0].tcp.user_timeout,
            config.upstreams[0].tcp.user_timeout,
        )
    };
    assert_eq!(timeouts("1s"), (Some(seconds(120)), Some(seconds(120))));
    assert_eq!(timeouts("119s"), (Some(seconds(120)), Some(seconds(120))));
    assert_eq!(timeouts("2m"), (Some(seconds(180)), Some(seconds(180))));
    assert_eq!(timeouts("1d"), (Some(seconds(86460)), Some(seconds(86460))));
}

#[test]
fn a_missing_file_is_a_problem_with_its_remedy() {
    let file = root("tests/configs/no-such.toml");
    let refused = config::load(&file).expect_err("no such file");
    assert_eq!(refused.problems.len(), 1);
    assert!(refused.problems[0].is_error());
    assert_eq!(refused.problems[0].line, None);
    assert!(refused.problems[0].allowed.contains("--config"));
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("no-text-{}.toml", std::process::id()));
    fs::write(&file, [0xff, 0xfe, 0x00]).expect("the file is writable");
    let refused = config::load(&file).expect_err("no text");
    fs::remove_file(&file).expect("the file was written above");
    assert!(refused.problems[0].allowed.contains("UTF-8"));
}

proptest! {
    #[test]
    fn a_damaged_file_is_refused_or_loads_but_never_panics(
        cuts in proptest::collection::vec((0.0..1.0, 0_usize..80), 1..4),
        inserted in "[ \\[\\]{}='\"\\n.#a-z0-9\u{e4}]{0,12}",
    ) {
        let mut text = reference();
        for (at, length) in cuts {
            let start = text.floor_char_boundary((at * text.len() as f64) as usize);
            let end = text.floor_char_boundary(start + length);
            text.replace_range(start..end, &inserted);
        }
        if let Err(refused) = config::parse(&text, Path::new("")) {
            prop_assert!(refused.problems.iter().any(Problem::is_error));
            for problem in &refused.problems {
                prop_assert!(!problem.found.is_empty() && !problem.allowed.is_empty());
            }
        }
    }

    #[test]
    fn an_inline_secret_is_not_printed_whatever_else_is_wrong(
        kept in proptest::collection::vec(proptest::bool::weighted(0.9), 200),
    ) {
        let text = reference().replace("key = { env = \"TIDEGATE_JWT_SECRET\" }", "key = \"hunter2\"");
        prop_assert!(text.contains("hunter2"));
        let lines = text.lines().zip(kept.into_iter().chain(std::iter::repeat(true)));
        let text: String = lines
            .filter(|(line, kept)| *kept || line.contains("hunter2"))
            .map(|(line, _)| format!("{line}\n"))
            .collect();
        let refused = config::parse(&text, Path::new("")).expect_err("a secret in the file");
        let shown = render(Path::new("x.toml"), &refused.problems, &refused.text);
        prop_assert!(!shown.contains("hunter2"), "{}", shown);
    }
}

fn reference() -> String {
    fs::read_to_string(root("proxy.toml")).expect("the reference is readable")
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn configurations(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root("tests/configs").join(kind)).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension() == Some(OsStr::new("toml")))
        .collect();
    files.sort();
    files
}

fn name(file: &Path) -> &Path {
    Path::new(file.file_name().expect("a file has a name"))
}

fn expected(file: &Path) -> String {
    let beside = file.with_extension("txt");
    fs::read_to_string(&beside).unwrap_or_else(|error| panic!("{}: {error}", beside.display()))
}

fn load(file: &Path) -> Loaded {
    config::load(file).unwrap_or_else(|refused| {
        let shown = render(name(file), &refused.problems, &refused.text);
        panic!("{} is refused:\n{shown}", file.display())
    })
}
