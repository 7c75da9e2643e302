//! `X-Tidegate-Identity`: verified as an upstream would, with the served keys and another
//! library than the one that signed; and never the client's.

use std::process::Command;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::server::Request;

use crate::admin::ADMIN;
use crate::support::admin::get;
use crate::support::folder::Folder;
use crate::support::program::tidegate;
use crate::support::proxy::Proxy;
use crate::support::settings::{Settings, proxy};
use crate::support::token::{SECRET, SECRET_NAME, good, good_claims, message, signed};
use crate::support::upstream::{Upstream, upstream};

const HEADER: &str = "X-Tidegate-Identity";

fn signing(upstream: &Upstream, keys: &str) -> Settings {
    proxy(upstream.address).more(ADMIN).auth_also(keys)
}

/// The values of the header that the upstream got.
fn identities(request: &Request) -> Vec<String> {
    let values = request.headers().get_all(HEADER).into_iter();
    values
        .map(|v| v.to_str().expect("text").to_owned())
        .collect()
}

/// What an upstream does: fetches the set, finds the key by its `kid`, verifies.
async fn verified(proxy: &Proxy, token: &str, issuer: &str, audience: &str) -> Value {
    let admin = proxy.admin.expect("an admin address");
    let served = get(admin, "/.well-known/jwks.json").await;
    assert_eq!(served.status(), 200);
    let set: JwkSet = serde_json::from_str(&served.body).expect("a JWKS");
    let kid = decode_header(token).expect("a header").kid.expect("a kid");
    let key = DecodingKey::from_jwk(set.find(&kid).expect("it is served")).expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.leeway = 0;
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["iss", "aud", "exp"]);
    let decoded = decode::<Value>(token, &key, &validation);
    decoded.expect("it verifies").claims
}

#[tokio::test]
async fn the_upstream_verifies_who_the_client_is_in_both_orders() {
    for first in [false, true] {
        let upstream = upstream().await;
        let keys = "identity = { claims = { sub = \"sub\", roles = \"/realm/roles\" } }";
        let settings = match first {
            true => signing(&upstream, "").auth(&format!("method = \"header\"\n{keys}")),
            false => signing(&upstream, keys),
        };
        let proxy = settings.start();
        let mut claims = good_claims();
        claims["realm"] = json!({"roles": ["editor"]});
        let token = signed(&claims, SECRET);
        let mut request = proxy.entrance.request("/chat");
        if first {
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        let client = async {
            let (mut client, _) = proxy.entrance.ask(request).await.expect("a 101");
            if !first {
                client.send(message(&token)).await;
            }
            client
        };
        let (client, (server, request)) = tokio::join!(client, upstream.accept_with_request());
        let [identity] = &identities(&request)[..] else {
            panic!("one header: {:?}", request.headers());
        };
        // The defaults: the issuer of the edge, the upstream as the audience.
        let says = verified(&proxy, identity, "tidegate", "server").await;
        assert_eq!(says["sub"], "alice");
        assert_eq!(says["roles"], json!(["editor"]));
        assert_eq!(says["route"], "chat");
        let id = request.headers()["x-request-id"].to_str().expect("text");
        assert_eq!(says["jti"], id);
        drop((client, server));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_cannot_say_who_it_is_in_any_spelling() {
    for keys in ["", "identity = {}"] {
        let upstream = upstream().await;
        let proxy = signing(&upstream, keys).start();
        let mut request = proxy.entrance.request("/chat");
        for name in [
            HEADER,
            "x-tidegate-identity",
            "X_Tidegate_Identity",
            "X-Tidegate_Identity",
        ] {
            request = request.with_header(name, "forged");
        }
        let (mut client, _) = proxy.entrance.ask(request).await.expect("a 101");
        client.send(message(&good())).await;
        let (server, request) = upstream.accept_with_request().await;
        let own = usize::from(!keys.is_empty());
        assert_eq!(identities(&request).len(), own);
        for (name, value) in request.headers() {
            assert_ne!(value, "forged", "{name}");
        }
        drop((client, server));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn claims_that_do_not_fit_into_a_header_admit_nobody() {
    let upstream = upstream().await;
    let keys = "identity = { claims = { big = \"big\" } }";
    let mut proxy = signing(&upstream, keys).start();
    let mut claims = good_claims();
    claims["big"] = "x".repeat(4096).into();
    let mut client = proxy.entrance.open().await;
    client.send(message(&signed(&claims, SECRET))).await;
    assert_eq!(client.closed().await.0, 3000);
    let detail = proxy.record().await.detail.expect("a reason");
    assert!(detail.contains("4096 bytes"), "{detail}");
    proxy.stop().await;
    upstream.assert_untouched();
}

#[tokio::test]
async fn a_process_that_signs_nothing_serves_no_key() {
    let upstream = upstream().await;
    let proxy = signing(&upstream, "").start();
    let admin = proxy.admin.expect("an admin address");
    assert_eq!(get(admin, "/.well-known/jwks.json").await.status(), 404);
    proxy.stop().await;
}

#[tokio::test]
async fn the_log_names_a_key_that_was_made_at_start() {
    let upstream = upstream().await;
    let program = signing(&upstream, "identity = {}").spawn().await;
    let client = program.entrance.admitted().await;
    let (server, request) = upstream.accept_with_request().await;
    let identity = identities(&request).remove(0);
    let kid = decode_header(&identity).expect("a header").kid;
    let lines = program.log();
    let made = lines.iter().find(|line| line.contains("a key made now"));
    let made: Value = serde_json::from_str(made.expect("it is said")).expect("JSON");
    assert_eq!(made["kid"].as_str(), kid.as_deref());
    let (_, signature) = identity.rsplit_once('.').expect("a signature");
    assert!(program.log().iter().all(|line| !line.contains(signature)));
    drop((client, server));
}

/// A key in a file is served at each start, so edges that share it serve the same set.
#[tokio::test]
async fn a_key_from_a_file_is_kept() {
    let folder = Folder::new();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let file = folder.write("identity.key", &key.serialize_pem());
    let more =
        format!("{ADMIN}[identity]\nkey = {{ file = {file:?} }}\nissuer = \"https://edge\"\n");
    let mut served = Vec::new();
    for _ in 0..2 {
        let upstream = upstream().await;
        let proxy = proxy(upstream.address)
            .auth_also("identity = { audience = \"backend\" }")
            .more(&more)
            .start();
        let client = proxy.entrance.admitted().await;
        let (server, request) = upstream.accept_with_request().await;
        let identity = identities(&request).remove(0);
        verified(&proxy, &identity, "https://edge", "backend").await;
        let admin = proxy.admin.expect("an admin address");
        served.push(get(admin, "/.well-known/jwks.json").await.body);
        drop((client, server));
        proxy.stop().await;
    }
    assert_eq!(served[0], served[1]);
}

#[tokio::test]
async fn check_says_what_is_wrong_with_the_key_and_the_service() {
    let upstream = upstream().await;
    let settings = proxy(upstream.address)
        .auth_also("identity = {}")
        .section(
            "auth.authorize",
            "url = \"https://policy.example.com\"\nca = \"absent.pem\"\n\
             token = { env = \"TIDEGATE_TEST_UNSET\" }",
        )
        .more("[identity]\nkey = { file = \"identity.key\" }\n");
    let (folder, _) = settings.folder();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    folder.write("identity.key", &key.serialize_pem());
    let checked = tidegate(&["check", "--config", "proxy.toml"], folder.root());
    assert_eq!(checked.status.code(), Some(78));
    let said = String::from_utf8(checked.stderr).expect("UTF-8");
    for text in [
        "identity.key",
        "no EC key on curve P-256",
        "openssl genpkey -algorithm EC",
        "route.chat.auth.authorize.ca",
        "absent.pem",
        "route.chat.auth.authorize.token",
        "TIDEGATE_TEST_UNSET is not set",
    ] {
        assert!(said.contains(text), "{text}:\n{said}");
    }
}

/// Without `ca` the system's roots vouch for the service, so there have to be some.
#[tokio::test]
async fn check_looks_for_the_system_s_roots() {
    let upstream = upstream().await;
    let keys = "url = \"https://policy.example.com\"";
    let (folder, _) = proxy(upstream.address)
        .section("auth.authorize", keys)
        .folder();
    let check = |roots: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["check", "--config", "proxy.toml"]);
        command.env(SECRET_NAME, SECRET).env("SSL_CERT_FILE", roots);
        command.env("SSL_CERT_DIR", "").current_dir(folder.root());
        let output = command.output().expect("it can be run");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code(), said)
    };
    let (code, said) = check("localhost.pem");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check("localhost.key");
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("no root certificates in the system"),
        "{said}"
    );
    assert!(said.contains("ca-certificates"), "{said}");
}
