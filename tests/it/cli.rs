//! The command line: what it teaches, what it refuses, and how it says so.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::jwks;
use crate::support::folder::Folder;
use crate::support::issuer::Issuer;
use crate::support::program::tidegate;
use crate::support::settings::proxy;
use crate::support::token::message;
use crate::support::upstream::{echo, upstream};

/// Nobody is dialled by the commands that are tested here.
fn nowhere() -> SocketAddr {
    "127.0.0.1:9".parse().expect("an address")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn wrong_arguments_end_with_64() {
    let folder = Folder::new();
    for arguments in [
        &["serve"][..],
        &["run", "--unknown"],
        &["run", "extra"],
        &["check", "--config"],
        &["token"],
        &["token", "--route", "chat", "--ttl", "sixty"],
        &["token", "--route", "chat", "--claim", "nothing"],
        &["run", "--log-level", "loud"],
        &["run", "--log-format", "xml"],
    ] {
        let output = tidegate(arguments, folder.root());
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(
            stderr(&output).contains("--help"),
            "{arguments:?}: {output:?}"
        );
    }
}

#[test]
fn the_help_of_each_command_has_an_example() {
    let folder = Folder::new();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["token", "--help"],
    ] {
        let output = tidegate(arguments, folder.root());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let help = stdout(&output);
        let (_, examples) = help.split_once("Example").expect("an example");
        assert!(examples.contains("tidegate "), "{arguments:?}: {help}");
    }
    // Without arguments there is nothing to do: the same help, as an error.
    let nothing = tidegate(&[], folder.root());
    assert_eq!(nothing.status.code(), Some(64));
    assert!(stderr(&nothing).contains("Examples:"), "{nothing:?}");
    let version = tidegate(&["--version"], folder.root());
    assert_eq!(version.status.code(), Some(0));
    assert!(stdout(&version).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_accepts_what_would_start() {
    let (folder, _) = proxy(nowhere()).folder();
    let output = tidegate(&["check"], folder.root());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("would start; 0 errors, 0 warnings"), "{said}");
}

#[test]
fn check_says_everything_that_is_wrong_with_what_the_file_names() {
    let (folder, _) = proxy(nowhere()).folder();
    // The key of another certificate, and no secret.
    folder.certificate("other", &["localhost"]);
    fs::copy(folder.path("other.key"), folder.path("localhost.key")).expect("copied");
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("check")
        .current_dir(folder.root())
        .output()
        .expect("it can be run");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("refused; 2 errors"), "{said}");
    assert!(said.contains("localhost.key"), "{said}");
    assert!(said.contains("TIDEGATE_TEST_SECRET"), "{said}");
}

#[test]
fn check_says_everything_that_is_wrong_with_the_file() {
    let settings = proxy(nowhere())
        .section("limits", "max_frame_sise = \"1KiB\"\nmax_message_size = 7")
        .section("backpressure", "high_watermark = \"1KiB\"");
    let (folder, _) = settings.folder();
    for command in ["check", "run"] {
        let output = tidegate(&[command], folder.root());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        for key in ["max_frame_sise", "max_message_size", "high_watermark"] {
            assert!(said.contains(key), "{key} in {said}");
        }
    }
}

#[test]
fn check_looks_at_what_a_wrong_file_names_too() {
    let settings = proxy(nowhere()).section("limits", "max_frame_sise = \"1KiB\"");
    let (folder, _) = settings.folder();
    fs::remove_file(folder.path("localhost.key")).expect("removed");
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("check")
        .current_dir(folder.root())
        .output()
        .expect("it can be run");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("refused; 3 errors"), "{said}");
    for word in ["max_frame_sise", "localhost.key", "TIDEGATE_TEST_SECRET"] {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn check_warns_of_what_is_dangerous() {
    let settings = proxy(nowhere())
        .route("path = \"/chat\"\norigins = [\"*\"]")
        .without_token();
    let (folder, _) = settings.folder();
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(folder.path("localhost.key"), open).expect("set");
    let output = tidegate(&["check"], folder.root());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("0 errors, 3 warnings"), "{said}");
    for word in ["localhost.key", "origins", "method"] {
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_a_refused_configuration() {
    let folder = Folder::new();
    for command in [
        &["check"][..],
        &["run"],
        &["token", "--route", "chat"],
        &["check", "--config", "elsewhere.toml"],
    ] {
        let output = tidegate(command, folder.root());
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        assert!(stderr(&output).contains(".toml"), "{command:?}: {output:?}");
    }
}

#[test]
fn check_fetches_no_keys_and_says_so() {
    let source = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = source.local_addr().expect("it is bound");
    source.set_nonblocking(true).expect("an option is set");
    let url = format!("http://{address}/keys");
    let rule = jwks::rule(&format!("url = \"{url}\""));
    let (folder, _) = proxy(nowhere()).issuers(&rule).folder();
    let output = tidegate(&["check"], folder.root());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let note = format!("note: keys are fetched from {url} at start, and not now");
    assert!(said.contains(&note), "{said}");
    assert!(source.accept().is_err(), "somebody asked for keys");
}

#[test]
fn check_looks_into_a_file_with_keys() {
    let issuer = Issuer::new(&["a"]);
    let (folder, _) = proxy(nowhere())
        .issuers(&jwks::rule("file = \"keys.json\""))
        .file("keys.json", &issuer.publishes(&["a"]))
        .folder();
    let output = tidegate(&["check"], folder.root());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let secret = json!({ "kty": "oct", "kid": "s", "k": "aHVudGVyMg" });
    for (keys, status, words) in [
        (json!([issuer.jwk("a"), secret]), 0, "key `s` is symmetric"),
        (json!([secret]), 78, "no key for the configured algorithms"),
    ] {
        folder.write("keys.json", &json!({ "keys": keys }).to_string());
        let output = tidegate(&["check"], folder.root());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(
            said.contains(words) && !said.contains("aHVudGVyMg"),
            "{said}"
        );
    }
}

#[test]
fn a_route_with_the_keys_of_its_issuer_has_none_to_sign_with() {
    let rule = jwks::rule("url = \"https://127.0.0.1:9/keys\"");
    let (folder, _) = proxy(nowhere()).issuers(&rule).folder();
    let output = tidegate(&["token", "--route", "chat"], folder.root());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let said = stderr(&output);
    assert!(said.contains("ask the issuer for one"), "{said}");
}

#[tokio::test]
async fn a_minted_token_is_admitted() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address)
        .section("headers", "\"X-User-Id\" = \"sub\"\n\"X-Role\" = \"role\"");
    let (folder, _) = settings.folder();
    let output = tidegate(
        &[
            "token",
            "--route",
            "chat",
            "--sub",
            "bob",
            "--ttl",
            "60s",
            "--claim",
            "role=admin",
        ],
        folder.root(),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let token = stdout(&output);
    let proxy = settings.start();
    let mut client = proxy.entrance.open().await;
    client.send(message(token.trim_end())).await;
    let (server, head) = upstream.asked().await;
    assert_eq!(head.field("x-user-id"), Some("bob"));
    assert_eq!(head.field("x-role"), Some("admin"));
    drop((client, server));
    proxy.stop().await;
}

#[test]
fn no_token_is_minted_for_a_route_that_is_not_there_or_asks_for_none() {
    let (folder, _) = proxy(nowhere()).folder();
    let output = tidegate(&["token", "--route", "nowhere"], folder.root());
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(stderr(&output).contains("chat"), "{output:?}");
    let (folder, _) = proxy(nowhere()).without_token().folder();
    let output = tidegate(&["token", "--route", "chat"], folder.root());
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn every_line_of_the_json_log_is_json() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address).spawn().await;
    let mut client = program.entrance.admitted().await;
    client.echoes("hello").await;
    client.close(4000, "with \"quotes\"\nand lines").await;
    client.closed().await;
    let record = program.record(0).await;
    assert_eq!(record["route"], "chat");
    assert_eq!(record["subject"], "alice");
    assert_eq!(record["cause"], "closed");
    assert_eq!(record["side"], "downstream");
    program.signal("TERM");
    program.exited().await;
    let log = program.log();
    assert!(log.len() >= 4, "{log:#?}");
    for line in log {
        let parsed = serde_json::from_str::<Value>(&line);
        let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(parsed["level"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let text = proxy(nowhere()).toml();
    let (folder, _) = proxy(nowhere()).folder();
    let text = text.replace("127.0.0.1:0", &address.to_string());
    folder.write("proxy.toml", &text);
    let output = tidegate(&["run"], folder.root());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains(&address.to_string()), "{said}");
    assert!(said.contains("another program listens there"), "{said}");
}
