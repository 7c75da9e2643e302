//! `[[upstream]]`: the WebSocket servers behind the edge.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::answer::Reported;
use crate::config::file::Section;
use crate::config::hold;
use crate::config::names;
use crate::config::tcp;
use crate::config::url::{host_and_port, split_authority};
use crate::config::value::{checked, duration};
use crate::config::{Endpoint, Upstream};

/// Default of `dial_timeout`: a server on the same network answers in a millisecond, so five
/// seconds forgive two lost packets and still leave a client time to try again.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Default of `handshake_timeout`: a server that needs more than five seconds for a 101 is
/// not well, and another endpoint or another try serves the client better.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Below a hundredth of a second no network is reached reliably; above five minutes the
/// client is long gone.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);

/// What an endpoint must look like.
const ENDPOINT: &str =
    "ws://host[:port][/path][?query]: \"ws://127.0.0.1:9001\", \"ws://[::1]:9001/chat\"";

/// What `endpoints` must look like.
const ENDPOINTS: &str = "at least one: endpoints = [\"ws://127.0.0.1:9001\"]";

/// Every `[[upstream]]`.
pub(super) struct Upstreams {
    /// In the order of their index; there even when something else is wrong, so that what
    /// routes name can be checked.
    pub(super) names: Result<Vec<String>, Reported>,
    /// The checked values.
    pub(super) checked: Result<Vec<Arc<Upstream>>, Reported>,
}

/// Reads every `[[upstream]]`.
pub(super) fn upstreams(root: &mut Section<'_>) -> Upstreams {
    let wanted = "at least one [[upstream]] with a `name` and `endpoints`";
    let sections = match root.sections("upstream", wanted) {
        Ok(sections) => sections,
        Err(reported) => {
            return Upstreams {
                names: Err(reported),
                checked: Err(reported),
            };
        }
    };
    let mut taken = HashMap::new();
    let (names, checked): (Vec<_>, Vec<_>) = sections
        .into_iter()
        .map(|mut section| {
            let name = names::unique(&mut section, "upstream", &mut taken);
            (name.clone(), upstream(section, name).map(Arc::new))
        })
        .unzip();
    Upstreams {
        names: names.into_iter().collect(),
        checked: checked.into_iter().collect(),
    }
}

fn upstream(
    mut section: Section<'_>,
    name: Result<String, Reported>,
) -> Result<Upstream, Reported> {
    let endpoints = endpoints(&mut section);
    let dial_timeout = section.or("dial_timeout", duration(TIMES), DIAL_TIMEOUT);
    let handshake_timeout = section.or("handshake_timeout", duration(TIMES), HANDSHAKE_TIMEOUT);
    let dials = hold::dials(&mut section);
    let tcp = tcp::patience(&mut section);
    section.done();
    Ok(Upstream {
        name: name?,
        endpoints: endpoints?,
        dial_timeout: dial_timeout?.value,
        handshake_timeout: handshake_timeout?.value,
        dials: dials?,
        tcp: tcp?,
    })
}

fn endpoints(section: &mut Section<'_>) -> Result<Vec<Endpoint>, Reported> {
    let Some(written) = section.list("endpoints", checked(endpoint, ENDPOINT))? else {
        return Err(section.missing("endpoints", ENDPOINTS));
    };
    if written.value.is_empty() {
        return Err(section.error("endpoints", written.line, "an empty list", ENDPOINTS));
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in written.value {
        let Endpoint {
            host,
            port,
            path_and_query,
            ..
        } = &item.value;
        let twice = endpoints.iter().any(|seen| {
            (&seen.host, &seen.port, &seen.path_and_query) == (host, port, path_and_query)
        });
        if twice {
            let found = format!("{} twice", item.value.authority);
            section.error("endpoints", item.line, found, "each endpoint once");
        }
        endpoints.push(item.value);
    }
    Ok(endpoints)
}

/// Reads one endpoint (RFC 6455 §3). A query without a path stands on the path `/`.
fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("no ws:// in front")?;
    match scheme {
        "ws" => {}
        "wss" => {
            return Err(
                "TLS towards an upstream is not available; write ws:// and keep that network private",
            );
        }
        "http" | "https" => return Err("the scheme of a WebSocket endpoint is ws"),
        _ => return Err("the scheme is not ws"),
    }
    let (authority, path) = split_authority(rest)?;
    let (host, port) = host_and_port(authority, 80)?;
    let path_and_query = match path {
        "" => None,
        query if query.starts_with('?') => Some(format!("/{query}")),
        path => Some(path.to_owned()),
    };
    Ok(Endpoint {
        host,
        port,
        authority: authority.to_owned(),
        path_and_query,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_host_port_and_path() {
        let cases = [
            (
                "ws://127.0.0.1:9001",
                "127.0.0.1",
                9001,
                "127.0.0.1:9001",
                None,
            ),
            ("ws://Chat", "chat", 80, "Chat", None),
            ("ws://my_app:80/", "my_app", 80, "my_app:80", Some("/")),
            (
                "ws://[::1]:9001/a/b?c=d",
                "::1",
                9001,
                "[::1]:9001",
                Some("/a/b?c=d"),
            ),
            ("ws://h?c=d", "h", 80, "h", Some("/?c=d")),
        ];
        for (text, host, port, authority, path) in cases {
            let endpoint = endpoint(text).expect(text);
            assert_eq!(endpoint.host, host, "{text}");
            assert_eq!(endpoint.port, port, "{text}");
            assert_eq!(endpoint.authority, authority, "{text}");
            assert_eq!(endpoint.path_and_query.as_deref(), path, "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let cases = [
            "",
            "127.0.0.1:9001",
            "WS://h",
            "wss://h",
            "http://h",
            "ws://",
            "ws://:80",
            "ws:///x",
            "ws://user@h",
            "ws://user:secret@h",
            "ws://h#x",
            "ws://h:0",
            "ws://h:",
            "ws://h:65536",
            "ws://h:+80",
            "ws://h:80:81",
            "ws://::1",
            "ws://[::1",
            "ws://[::1]x",
            "ws://[h]",
            "ws://h/a b",
            "ws://h/\r\nX: y",
            "ws://hé",
            "ws://-h",
            "ws://a..b",
        ];
        for text in cases {
            assert!(endpoint(text).is_err(), "{text:?} was accepted");
        }
    }
}
