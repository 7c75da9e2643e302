//! `tcp_keepalive` and `tcp_user_timeout` of `[[listener]]` and `[[upstream]]`: how long TCP
//! itself waits for a peer.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::answer::Reported;
use crate::config::file::Section;
use crate::config::units::duration_text;
use crate::config::value::{duration, or_off};
use crate::config::{Listener, Route, TcpPatience, Upstream};

/// Default of `tcp_keepalive`: a peer that is gone is found out within two minutes, where pings
/// are off, or before there is a session; one that is there answers a bare packet a minute.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// More often than every ten seconds is a load; two hours is what the system does by itself.
const KEEPALIVES: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(7200);

/// Default of `tcp_user_timeout`: as long as keepalive needs, so that a peer goes in the same
/// time whether something was under way or nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Below ten seconds lost packets end sessions; an hour above a day, so that it can follow the
/// longest `stall_timeout` there is.
const USER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(25 * 60 * 60);

/// By which the default exceeds the longest `stall_timeout`, so that this one comes first.
const AFTER_STALL: Duration = Duration::from_secs(60);

/// Reads both keys. [`fit`] has the last word on them.
pub(super) fn patience(section: &mut Section<'_>) -> Result<TcpPatience, Reported> {
    let keepalive = section.or(
        "tcp_keepalive",
        or_off(duration(KEEPALIVES)),
        Some(KEEPALIVE),
    );
    let user_timeout = section.or(
        "tcp_user_timeout",
        or_off(duration(USER_TIMEOUTS)),
        Some(USER_TIMEOUT),
    );
    let (keepalive, user_timeout) = (keepalive?, user_timeout?);
    Ok(TcpPatience {
        keepalive: keepalive.value,
        user_timeout: user_timeout.value,
    })
}

/// Holds `tcp_user_timeout` to the routes: a peer that does not read is no dead one for the
/// edge before `stall_timeout`, and for TCP it is none sooner.
pub(super) fn fit(
    root: &mut Section<'_>,
    listeners: &mut [Listener],
    upstreams: &mut [Arc<Upstream>],
    routes: &[Arc<Route>],
) -> Result<(), Reported> {
    let mut fits = Vec::new();
    let sections = root.sections("listener", "")?;
    for (section, listener) in sections.into_iter().zip(listeners) {
        fits.push(fit_one(&section, &mut listener.tcp, routes.iter()));
    }
    let sections = root.sections("upstream", "")?;
    for ((index, mut section), upstream) in sections.into_iter().enumerate().zip(upstreams) {
        section.rename(format!("upstream.{}", upstream.name));
        let routes = routes.iter().filter(|route| route.upstream == index);
        let tcp = &mut Arc::make_mut(upstream).tcp;
        fits.push(fit_one(&section, tcp, routes));
    }
    fits.into_iter().collect()
}

fn fit_one<'a>(
    section: &Section<'_>,
    tcp: &mut TcpPatience,
    routes: impl Iterator<Item = &'a Arc<Route>>,
) -> Result<(), Reported> {
    let stall = |route: &Route| route.policy.backpressure.stall_timeout;
    let longest = routes.max_by_key(|route| stall(route));
    let (Some(timeout), Some(route)) = (tcp.user_timeout, longest) else {
        return Ok(());
    };
    let stall = stall(route);
    if timeout > stall {
        return Ok(());
    }
    let line = section.line_of("tcp_user_timeout");
    if line.is_none() {
        tcp.user_timeout = Some(stall + AFTER_STALL);
        return Ok(());
    }
    let found = format!(
        "{}, stall_timeout of route {} is {}",
        duration_text(timeout),
        route.name,
        duration_text(stall)
    );
    let allowed = "more than every stall_timeout, which would never be reached, or \"off\"";
    Err(section.error("tcp_user_timeout", line, found, allowed))
}
