//! Claims about the choice of a route.

use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::config::{Auth, Line};
use crate::proto::limits::{Limits, OnExcess, Quota, Rate};
use crate::proto::origin::OriginRefused;
use crate::proto::policy::{Backpressure, Keepalive, OnExpiry, OnSlowConsumer, Policy};

/// `host` and `path` are written as in the configuration; the name is both together.
fn route(host: &str, path: &str) -> Arc<Route> {
    let host_pattern = match host.strip_prefix('*') {
        _ if host.is_empty() => None,
        Some(suffix) => Some(HostPattern::Suffix(suffix.to_owned())),
        None => Some(HostPattern::Exact(host.to_owned())),
    };
    let path_pattern = match path.strip_suffix('*') {
        Some(prefix) => PathPattern::Prefix(prefix.to_owned()),
        None => PathPattern::Exact(path.to_owned()),
    };
    Arc::new(Route {
        name: format!("{host}{path}"),
        host: host_pattern,
        path: path_pattern,
        origins: vec!["https://app.example.com".to_owned()],
        allow_missing_origin: false,
        subprotocols: Vec::new(),
        subprotocols_required: false,
        upstream: 0,
        auth: Auth::None,
        authorize: None,
        identity: None,
        headers: Vec::new(),
        admission: crate::config::RouteAdmission::default(),
        policy: Arc::new(policy()),
        line: Line(1),
    })
}

fn policy() -> Policy {
    let second = Duration::from_secs(1);
    Policy {
        first_message: None,
        on_expiry: OnExpiry::Ignore,
        inspection: None,
        limits: Limits {
            max_frame_size: 1,
            max_message_size: 1,
            max_upstream_frame_size: None,
            max_upstream_message_size: None,
            messages: None,
            bytes: None,
            control: Quota {
                rate: Rate {
                    units: NonZeroU64::MIN,
                    per: second,
                },
                burst: NonZeroU64::MIN,
                on_excess: OnExcess::Close,
            },
            validate_utf8: true,
        },
        backpressure: Backpressure {
            high_watermark: 2,
            low_watermark: 1,
            on_slow_consumer: OnSlowConsumer::Throttle,
            stall_timeout: second,
        },
        keepalive: Keepalive {
            ping_interval: None,
            upstream_ping_interval: None,
            pong_timeout: second,
            idle_timeout: None,
            max_lifetime: None,
            heartbeat: None,
        },
        hold: None,
        close_timeout: second,
    }
}

fn routes(list: &[(&str, &str)]) -> Routes {
    let list: Vec<_> = list.iter().map(|(host, path)| route(host, path)).collect();
    Routes::new(&list).expect("good origins")
}

fn found<'a>(routes: &'a Routes, host: &str, path: &str) -> Option<&'a str> {
    routes.find(host, path).map(|e| e.route.name.as_str())
}

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let mut list = vec![
        ("", "/*"),
        ("", "/chat"),
        ("*.example.com", "/chat/*"),
        ("*.eu.example.com", "/*"),
        ("a.example.com", "/chat/*"),
        ("a.example.com", "/chat/room/*"),
        ("a.example.com", "/chat/room/1"),
    ];
    let cases = [
        ("a.example.com", "/chat/room/1", "a.example.com/chat/room/1"),
        ("a.example.com", "/chat/room/2", "a.example.com/chat/room/*"),
        ("a.example.com", "/chat/x", "a.example.com/chat/*"),
        ("b.example.com", "/chat/room/1", "*.example.com/chat/*"),
        ("x.eu.example.com", "/chat/x", "*.eu.example.com/*"),
        ("other.org", "/chat", "/chat"),
        ("other.org", "/else", "/*"),
        ("example.com", "/chat/x", "/*"),
    ];
    for _ in 0..list.len() {
        list.rotate_left(1);
        let routes = routes(&list);
        for (host, path, name) in cases {
            assert_eq!(found(&routes, host, path), Some(name), "{host}{path}");
        }
    }
}

#[test]
fn a_path_unknown_to_the_exact_host_is_looked_for_elsewhere() {
    let routes = routes(&[("a.example.com", "/chat"), ("*.example.com", "/feed")]);
    assert_eq!(
        found(&routes, "a.example.com", "/feed"),
        Some("*.example.com/feed")
    );
    assert_eq!(found(&routes, "b.example.com", "/chat"), None);
}

#[test]
fn a_prefix_matches_below_the_slash_only() {
    let routes = routes(&[("", "/x/*")]);
    for path in ["/x/", "/x/y", "/x//", "/x/y/z"] {
        assert!(found(&routes, "h", path).is_some(), "{path}");
    }
    for path in ["/x", "/xy", "/", "", "/y/x/", "//x/"] {
        assert!(found(&routes, "h", path).is_none(), "{path}");
    }
}

#[test]
fn paths_are_case_sensitive_and_never_decoded() {
    let routes = routes(&[("", "/chat")]);
    for path in [
        "/Chat", "/%63hat", "/chat/", "/./chat", "//chat", "/chat%00",
    ] {
        assert!(found(&routes, "h", path).is_none(), "{path}");
    }
}

#[test]
fn a_host_suffix_needs_a_label_before_it() {
    let routes = routes(&[("*.example.com", "/*")]);
    assert!(found(&routes, "a.example.com", "/").is_some());
    assert!(found(&routes, "a.b.example.com", "/").is_some());
    for host in [
        "example.com",
        ".example.com",
        "evilexample.com",
        "a.example.com.",
        "a.example.com.evil",
        "",
    ] {
        assert!(found(&routes, host, "/").is_none(), "{host}");
    }
}

#[test]
fn of_equal_routes_the_first_written_wins() {
    let list = [route("", "/x"), route("", "/y"), route("", "/x")];
    let routes = Routes::new(&list).expect("good origins");
    assert_eq!(routes.find("h", "/x").map(|e| e.index), Some(0));
    assert_eq!(routes.find("h", "/y").map(|e| e.index), Some(1));
    assert_eq!(routes.iter().count(), 3);
}

#[test]
fn each_route_judges_origins_by_its_own_list() {
    let mut other = Arc::into_inner(route("", "/native")).expect("the only owner");
    other.allow_missing_origin = true;
    let routes = Routes::new(&[route("", "/chat"), Arc::new(other)]).expect("good origins");
    let check = |path, values: &[&[u8]]| {
        let entry = routes.find("h", path).expect("a route");
        entry.origins.check(values.iter().copied())
    };
    assert_eq!(check("/chat", &[]), Err(OriginRefused::Missing));
    assert_eq!(check("/native", &[]), Ok(()));
    assert_eq!(check("/chat", &[b"https://app.example.com"]), Ok(()));
    assert_eq!(
        check("/native", &[b"https://evil.example"]),
        Err(OriginRefused::NotAllowed)
    );
}

#[test]
fn an_origin_that_cannot_be_read_names_its_route() {
    let mut bad = Arc::into_inner(route("", "/chat")).expect("the only owner");
    bad.origins.push("app.example.com".to_owned());
    let error = Routes::new(&[Arc::new(bad)]).expect_err("not an origin");
    assert_eq!(error.source, OriginError::Scheme);
    assert_eq!(
        error.to_string(),
        r#"route /chat: origin "app.example.com""#
    );
}
