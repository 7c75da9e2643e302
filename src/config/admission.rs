//! Who may come in, how many at once and how fast: `[limits]` for the process,
//! `[route.limits]` for a route; and at a `[[listener]]`, whose word counts on where a client
//! connects from.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Mismatch, Placed, Reported};
use crate::config::file::{Section, Value};
use crate::config::policy::refillable;
use crate::config::rule::Tokens;
use crate::config::value::{checked, count, event_rate, in_memory, one_of, or_off};
use crate::proto::allowance::Allowance;
use crate::proto::client_address::Source;
use crate::proto::limits::Rate;
use crate::proto::network::{Access, Network, Networks};

/// How many connections there may be in the process, and how fast they may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Accepted connections at once.
    pub max_connections: usize,
    /// Those of them that are not admitted yet; at most `max_connections`.
    pub max_unauthenticated: usize,
    /// Connections from one address (IPv6: one /64).
    pub max_connections_per_ip: usize,
    /// Those of them that are not admitted yet; at most `max_unauthenticated`.
    pub max_unauthenticated_per_ip: usize,
    /// How fast connections may come; `None`: as fast as they do.
    pub handshakes: Option<Allowance>,
    /// The same from one address (IPv6: one /64).
    pub handshakes_per_ip: Option<Allowance>,
}

/// Whose word counts at a listener on where a client connects from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Networks of the proxies in front.
    pub proxies: Networks,
    /// What every connection begins with.
    pub proxy_protocol: ProxyProtocol,
    /// The field that says it; `None`: the connection does.
    pub client_address: Option<Source>,
}

/// Whether a connection begins with a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Never.
    #[default]
    Off,
    /// Always, from one of the trusted proxies, or it is closed.
    Require,
}

/// Who may open sessions on a route, and how many at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteAdmission {
    /// By address, beside what holds for the process.
    pub access: Access,
    /// Sessions at once; `None`: as many as the process may have.
    pub max_sessions: Option<usize>,
    /// The same with tokens of one issuer and subject.
    pub max_sessions_per_subject: Option<usize>,
}

/// Default of `max_connections`: at a few KiB each, idle, they fit in 1 GiB.
const MAX_CONNECTIONS: u64 = 100_000;

/// Default of `max_connections_per_ip`: an office behind one address fits, and one host
/// alone takes at most a hundredth of the whole.
const MAX_CONNECTIONS_PER_IP: u64 = 1_000;

/// Most connections: what the file descriptors of one large machine allow.
const MOST_CONNECTIONS: u64 = 10_000_000;

/// Default of `max_unauthenticated`, one in so many connections: in a second or two a
/// thousand clients come and are admitted, and those who never say who they are leave nine
/// places in ten to those who do.
const STRANGERS: u64 = 10;

/// But so many in a small process, so that a page full of visitors can come at once.
const FEWEST_STRANGERS: u64 = 100;

/// Default of `max_unauthenticated_per_ip`, one in so many strangers: it takes ten addresses to
/// keep the other newcomers out, and an office behind one can come in at once.
const FROM_ONE: u64 = 10;

/// But so many in a small process, so that a browser can open all its tabs again.
const FEWEST_FROM_ONE: u64 = 10;

/// Default of `handshakes_per_ip`: at once as many as may be there at once, for they may all
/// have to come back; then a tenth of them a second, ten times faster than a client that comes
/// back every second. Together as much as an address can use, and far below a flood.
const REFILL: u64 = 10;

/// Arrivals at once: more than that in a moment is no burst.
const BURSTS: RangeInclusive<u64> = 1..=1_000_000;

/// Entries of a list of networks: each connection is compared with all of them.
const MOST_NETWORKS: usize = 10_000;

/// What a network must look like.
const NETWORK: &str = "a network or an address: \"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.7\"";

/// Reads the caps of `[limits]`.
pub(super) fn caps(section: &mut Section<'_>) -> Result<Caps, Reported> {
    let connections = || count(1..=MOST_CONNECTIONS);
    let total = section.or("max_connections", connections(), MAX_CONNECTIONS);
    let strangers = section.optional("max_unauthenticated", connections());
    let per_ip = section.or(
        "max_connections_per_ip",
        connections(),
        MAX_CONNECTIONS_PER_IP,
    );
    let strangers_per_ip = section.optional("max_unauthenticated_per_ip", connections());
    let handshakes = allowance(section, "handshakes", None);
    let from_one = per_ip.as_ref().ok().and_then(|most| comes_back(most.value));
    let handshakes_per_ip = allowance(section, "handshakes_per_ip", from_one);
    let (total, strangers) = (total?, strangers?);
    let default = (total.value / STRANGERS).max(FEWEST_STRANGERS);
    if let Some(strangers) = &strangers
        && strangers.value > total.value
    {
        let found = format!(
            "{}, max_connections is {}",
            strangers.value,
            total.show(u64::to_string)
        );
        let allowed = "at most max_connections: who is not admitted yet is among them";
        return Err(section.error(
            "max_unauthenticated",
            strangers.line.max(total.line),
            found,
            allowed,
        ));
    }
    let strangers = strangers.map_or(default.min(total.value), |strangers| strangers.value);
    let default = (strangers / FROM_ONE).max(FEWEST_FROM_ONE).min(strangers);
    let strangers_per_ip = strangers_per_ip?;
    if let Some(from_one) = &strangers_per_ip
        && from_one.value > strangers
    {
        let found = format!("{}, max_unauthenticated is {strangers}", from_one.value);
        let allowed = "at most max_unauthenticated: those of one address are among them";
        let key = "max_unauthenticated_per_ip";
        return Err(section.error(key, from_one.line, found, allowed));
    }
    Ok(Caps {
        max_connections: in_memory(total.value),
        max_unauthenticated: in_memory(strangers),
        max_connections_per_ip: in_memory(per_ip?.value),
        max_unauthenticated_per_ip: in_memory(
            strangers_per_ip.map_or(default, |from_one| from_one.value),
        ),
        handshakes: handshakes?,
        handshakes_per_ip: handshakes_per_ip?,
    })
}

fn comes_back(most: u64) -> Option<Allowance> {
    Some(Allowance {
        rate: Rate {
            units: NonZeroU64::new(most.div_ceil(REFILL))?,
            per: Duration::from_secs(1),
        },
        burst: NonZeroU64::new(most)?,
    })
}

/// Reads `allow` and `deny`.
pub(super) fn access(section: &mut Section<'_>) -> Result<Access, Reported> {
    let allow = networks(section, "allow");
    let deny = networks(section, "deny");
    let allow = allow?;
    if let Some(allow) = &allow
        && allow.value.is_empty()
    {
        let found = "an empty list, which lets nobody in";
        let allowed = format!("leave it out to let everybody in; or {NETWORK}");
        return Err(section.error("allow", allow.line, found, allowed));
    }
    let deny = deny?;
    Ok(Access {
        allow: allow.map(|allow| networks_of(&allow)),
        deny: deny.map(|deny| networks_of(&deny)).unwrap_or_default(),
    })
}

/// Reads what a listener believes of those in front of it.
pub(super) fn trust(section: &mut Section<'_>) -> Result<Trust, Reported> {
    let protocols = &[
        ("off", ProxyProtocol::Off),
        ("require", ProxyProtocol::Require),
    ];
    let sources = &[
        ("connection", None),
        ("x-forwarded-for", Some(Source::XForwardedFor)),
        ("forwarded", Some(Source::Forwarded)),
    ];
    let protocol = section.or("proxy_protocol", one_of(protocols), ProxyProtocol::Off);
    let proxies = networks(section, "trusted_proxies");
    let source = section.or("client_address", one_of(sources), None);
    let (protocol, proxies, source) = (protocol?, proxies?, source?);
    let needs_proxies = [
        (
            protocol.value == ProxyProtocol::Require,
            "proxy_protocol",
            protocol.line,
        ),
        (source.value.is_some(), "client_address", source.line),
    ];
    let needing = needs_proxies.iter().find(|(needs, ..)| *needs);
    let trusted = proxies.as_ref().map(networks_of).unwrap_or_default();
    match (needing, &proxies) {
        (Some((_, key, line)), _) if trusted.is_empty() => {
            let found = "the word of somebody in front, and no `trusted_proxies`";
            let allowed = "trusted_proxies = [\"10.0.0.0/8\"]: the networks whose word counts";
            return Err(section.error(key, *line, found, allowed));
        }
        (None, Some(proxies)) if !trusted.is_empty() => {
            let found =
                "trusted for nothing: where clients connect from is read off the connection";
            let better = "client_address = \"x-forwarded-for\" or \"forwarded\", or proxy_protocol = \"require\"";
            section.warning("trusted_proxies", proxies.line, found, better);
        }
        _ => {}
    }
    for network in proxies.iter().flat_map(|proxies| &proxies.value) {
        if network.value.is_everything() {
            let found = format!("\"{}\": everybody may say to be anybody", network.value);
            let better = "the networks of your proxies alone";
            section.warning("trusted_proxies", network.line, found, better);
        }
    }
    Ok(Trust {
        proxies: trusted,
        proxy_protocol: protocol.value,
        client_address: source.value,
    })
}

/// Reads what `[route.limits]` says of who comes in.
pub(super) fn of_route(
    section: &mut Section<'_>,
    tokens: Tokens,
) -> Result<RouteAdmission, Reported> {
    let access = access(section);
    let sessions = || or_off(count(1..=MOST_CONNECTIONS));
    let most = section.or("max_sessions", sessions(), None);
    let of_subject = section.or("max_sessions_per_subject", sessions(), None);
    let of_subject = of_subject?;
    if of_subject.value.is_some() && matches!(tokens, Tokens::None) {
        let found = "a cap for each subject, and no tokens that name one";
        let allowed = "[route.auth] with tokens; or max_sessions alone";
        let key = "max_sessions_per_subject";
        return Err(section.error(key, of_subject.line, found, allowed));
    }
    Ok(RouteAdmission {
        access: access?,
        max_sessions: most?.value.map(in_memory),
        max_sessions_per_subject: of_subject.value.map(in_memory),
    })
}

/// Reads a rate with its burst; `None`: it is off.
pub(super) fn allowance(
    section: &mut Section<'_>,
    key: &'static str,
    default: Option<Allowance>,
) -> Result<Option<Allowance>, Reported> {
    if !section.has(key) {
        return Ok(default);
    }
    if !section.or(key, is_on, true)?.value {
        return Ok(None);
    }
    let Some(mut table) = section.section(key)? else {
        return Ok(default);
    };
    let rate = table.required("rate", event_rate, ALLOWANCE);
    let burst = table.required("burst", count(BURSTS), ALLOWANCE);
    let outcome = rate.and_then(|rate| refillable(&table, rate.value, burst?));
    table.done();
    let (rate, burst) = outcome?;
    Ok(Some(Allowance { rate, burst }))
}

/// What a rate with its burst must look like.
const ALLOWANCE: &str = "{ rate = \"100/s\", burst = 200 }";

fn is_on(value: &Value<'_>) -> Result<bool, Mismatch> {
    match value.text() {
        Some("off") => Ok(false),
        _ if value.is_table() => Ok(true),
        _ => Err(Mismatch::of(value, format!("{ALLOWANCE}, or \"off\""))),
    }
}

type Listed = Placed<Vec<Placed<Network>>>;

fn networks(section: &mut Section<'_>, key: &'static str) -> Result<Option<Listed>, Reported> {
    let listed = section.list(key, checked(str::parse::<Network>, NETWORK))?;
    if let Some(listed) = &listed
        && listed.value.len() > MOST_NETWORKS
    {
        let found = format!("{} entries", listed.value.len());
        let allowed = format!("at most {MOST_NETWORKS}: every connection is compared with all");
        return Err(section.error(key, listed.line, found, allowed));
    }
    Ok(listed)
}

fn networks_of(listed: &Listed) -> Networks {
    listed.value.iter().map(|network| network.value).collect()
}
