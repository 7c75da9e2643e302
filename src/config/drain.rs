//! `[server] drain`: how the sessions of a process that is to end are ended.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::answer::{Placed, Reported};
use crate::config::file::Section;
use crate::config::units::duration_text;
use crate::config::value::duration;

/// `[server] drain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long clients are still taken in, while `/readyz` says already that they should be
    /// sent elsewhere.
    pub lame_duck: Duration,
    /// The sessions' closes are spread over this long.
    pub spread: Duration,
    /// Longest time from the signal to the end of the last session, the two above included.
    pub grace: Duration,
}

/// Default of `lame_duck` where there is an admin address: load balancers ask every few
/// seconds. Where there is none nobody can hear that they should look elsewhere.
const LAME_DUCK: Duration = Duration::from_secs(5);

/// Default of `spread`: clients that come back over ten seconds instead of all at once are a
/// load that the next instance can take, and half of the grace period remains.
const SPREAD: Duration = Duration::from_secs(10);

/// Default of `grace`: what Kubernetes waits by default between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(30);

/// A session that lasts longer than a day is not waited for.
const GRACES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Whether there is somebody to tell before clients are turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// `[admin]` answers `/readyz`.
    Asked,
    /// There is no admin address.
    Unknown,
}

/// Reads the table; what is not written has its default.
pub(super) fn drain(mut section: Section<'_>, readiness: Readiness) -> Result<Drain, Reported> {
    let up_to_a_day = || duration(Duration::ZERO..=*GRACES.end());
    let lame_duck = section.optional("lame_duck", up_to_a_day());
    let spread = section.or("spread", up_to_a_day(), SPREAD);
    let grace = section.or("grace", duration(GRACES), GRACE);
    let fitting = grace.and_then(|grace| {
        let spread = spread?;
        fit(&section, lame_duck?.as_ref(), &spread, &grace, readiness)
    });
    section.done();
    fitting
}

fn fit(
    section: &Section<'_>,
    lame_duck: Option<&Placed<Duration>>,
    spread: &Placed<Duration>,
    grace: &Placed<Duration>,
    readiness: Readiness,
) -> Result<Drain, Reported> {
    let text = |time: &Duration| duration_text(*time);
    if spread.value > grace.value {
        let found = format!(
            "spread {} above grace {}",
            spread.show(text),
            grace.show(text)
        );
        let allowed = "at most the grace period: sessions that are closed after it are cut off";
        return Err(section.error("spread", spread.line.max(grace.line), found, allowed));
    }
    let room = grace.value - spread.value;
    let lame_duck = match (lame_duck, readiness) {
        (Some(written), _) if written.value > room => {
            let found = format!(
                "lame_duck {} and spread {} above grace {}",
                duration_text(written.value),
                spread.show(text),
                grace.show(text)
            );
            let allowed = "at most the grace period together: it begins with the signal";
            return Err(section.error("lame_duck", written.line, found, allowed));
        }
        (Some(written), _) => written.value,
        (None, Readiness::Asked) => LAME_DUCK.min(room),
        (None, Readiness::Unknown) => Duration::ZERO,
    };
    Ok(Drain {
        lame_duck,
        spread: spread.value,
        grace: grace.value,
    })
}
