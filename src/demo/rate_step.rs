//! The step that sends faster than the route allows, and measures what comes through.

use std::time::{Duration, Instant};

use crate::demo::client::{Client, Heard, PATIENCE};
use crate::demo::door_steps::millis;
use crate::demo::stage::Records;
use crate::demo::tour::{Finding, Happened, Trouble, Visitor, closed_with, told};
use crate::proto::close::CloseCode;
use crate::proto::frame::OpCode;
use crate::proto::limits::{OnExcess, Quota};

/// How long the rate is measured, once the burst is used up.
const MEASURED: Duration = Duration::from_millis(2500);

/// How far from its limit a measured rate may lie.
const TOLERANCE: f64 = 0.2;

/// Fewer messages would measure the clock, more than these the machine.
const MEASURABLE: std::ops::RangeInclusive<u64> = 4..=1_000_000;

/// A burst takes as long as its messages take to go round, and at least that is forgiven.
const BURST_FORGIVEN: Duration = Duration::from_millis(500);

/// What every message says.
const TEXT: &str = "tick";

/// A quota, and how much is sent against it.
struct Trial {
    quota: Quota,
    /// Per second.
    rate: f64,
    burst: u64,
    /// What the quota admits while it is measured.
    more: u64,
}

/// More messages at once than the burst allows.
pub(super) async fn rate_exceeded(visitor: &Visitor<'_>, records: &mut Records) -> Finding {
    let nothing = |why: &str| {
        let why = format!("nothing to show: {why}");
        Finding::new("too many messages", "", Ok(Happened::Skipped(why)))
    };
    let Some(quota) = &visitor.stage.route.policy.limits.messages else {
        return nothing("the route has messages = \"off\"");
    };
    let trial = Trial::new(quota);
    if !MEASURABLE.contains(&trial.more) || !MEASURABLE.contains(&trial.total()) {
        return nothing(&format!("{} is not for a short tour", trial.limit()));
    }
    let (expected, happened) = match quota.on_excess {
        OnExcess::Throttle => (
            format!("the burst at once, then {}/s", trial.rate),
            throttled(visitor, &trial).await,
        ),
        OnExcess::Drop => (
            "the burst, and what the rate adds to it".to_owned(),
            dropped(visitor, &trial, records).await,
        ),
        OnExcess::Close => (
            format!("closed with {}", CloseCode::POLICY_VIOLATION.get()),
            closed(visitor, &trial).await,
        ),
    };
    let tried = format!("{} messages at once", trial.total());
    Finding::new(tried, expected, happened)
}

async fn throttled(visitor: &Visitor<'_>, trial: &Trial) -> Result<Happened, Trouble> {
    let (mut client, began) = trial.begin(visitor).await?;
    let mut burst_took = Duration::ZERO;
    for n in 1..=trial.total() {
        match client.hear().await? {
            Heard::Message(message) if message == TEXT => {}
            other => return Ok(Happened::Wrong(format!("{} after {n}", told(&other)))),
        }
        if n == trial.burst {
            burst_took = began.elapsed();
        }
    }
    let measured = trial.more as f64 / (began.elapsed() - burst_took).as_secs_f64();
    client.close().await?;
    let text = format!(
        "throttled: the first {} in {}, then {measured:.1}/s ({})",
        trial.burst,
        millis(burst_took),
        trial.limit(),
    );
    Ok(match trial.is_kept(measured, burst_took) {
        true => Happened::Right(text),
        false => Happened::Wrong(text),
    })
}

async fn dropped(
    visitor: &Visitor<'_>,
    trial: &Trial,
    records: &mut Records,
) -> Result<Happened, Trouble> {
    let (mut client, began) = trial.begin(visitor).await?;
    // Control frames are not dropped: its answer comes behind everything.
    client.queue(OpCode::Ping, b"")?;
    let mut echoed = 0;
    loop {
        match client.hear().await? {
            Heard::Message(message) if message == TEXT => echoed += 1,
            Heard::Pong => break,
            other => return Ok(Happened::Wrong(told(&other))),
        }
    }
    let most = trial.burst as f64 + trial.rate * began.elapsed().as_secs_f64() + 1.0;
    let address = client.address;
    client.close().await?;
    let record = records
        .of(address)
        .await
        .ok_or("no record of the session")?;
    let dropped = record.summary.tallies.downstream.dropped;
    let text = format!("{echoed} echoed, {dropped} dropped ({})", trial.limit());
    let is_right = (trial.burst..trial.total()).contains(&echoed)
        && echoed as f64 <= most
        && echoed + dropped == trial.total();
    Ok(match is_right {
        true => Happened::Right(text),
        false => Happened::Wrong(text),
    })
}

async fn closed(visitor: &Visitor<'_>, trial: &Trial) -> Result<Happened, Trouble> {
    let (mut client, _) = trial.begin(visitor).await?;
    let code = CloseCode::POLICY_VIOLATION.get();
    // What is echoed before the close is not what this is about.
    let happened = loop {
        match closed_with(&mut client, code, PATIENCE).await? {
            Happened::Wrong(text) if text == told(&Heard::Message(TEXT.into())) => {}
            other => break other,
        }
    };
    Ok(match happened {
        Happened::Right(text) => Happened::Right(format!("{text} ({})", trial.limit())),
        other => other,
    })
}

impl Trial {
    fn new(quota: &Quota) -> Self {
        let rate = quota.rate.units.get() as f64 / quota.rate.per.as_secs_f64();
        Self {
            quota: *quota,
            rate,
            burst: quota.burst.get(),
            more: (rate * MEASURED.as_secs_f64()).round() as u64,
        }
    }

    fn total(&self) -> u64 {
        self.burst.saturating_add(self.more)
    }

    /// Whether the burst came at once and the rest at the rate.
    fn is_kept(&self, measured: f64, burst_took: Duration) -> bool {
        let throttled = Duration::from_secs_f64(self.burst as f64 / self.rate);
        (measured / self.rate - 1.0).abs() <= TOLERANCE
            && burst_took < throttled.max(BURST_FORGIVEN)
    }

    fn limit(&self) -> String {
        format!("limit {}/s, burst {}", self.rate, self.quota.burst)
    }

    /// A session with everything in its queue.
    async fn begin(&self, visitor: &Visitor<'_>) -> Result<(Client, Instant), Trouble> {
        let mut client = visitor.admitted().await?.client;
        for _ in 0..self.total() {
            client.queue(OpCode::Text, TEXT.as_bytes())?;
        }
        Ok((client, Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::message_rate;

    fn trial(rate: &str, burst: u64) -> Trial {
        Trial::new(&Quota {
            rate: message_rate(rate).expect("a rate"),
            burst: burst.try_into().expect("not zero"),
            on_excess: OnExcess::Throttle,
        })
    }

    #[test]
    fn what_is_sent_uses_the_burst_up_and_measures_for_seconds() {
        assert_eq!(trial("50/s", 100).total(), 225);
        assert_eq!(trial("600/m", 5).total(), 30);
        assert_eq!(trial("10/h", 5).more, 0);
    }

    #[test]
    fn a_rate_that_is_not_the_configured_one_is_noticed() {
        let (trial, at_once) = (trial("50/s", 100), Duration::from_millis(1));
        assert!(trial.is_kept(50.0, at_once));
        assert!(trial.is_kept(41.0, at_once));
        assert!(trial.is_kept(59.0, at_once));
        assert!(!trial.is_kept(39.0, at_once));
        assert!(!trial.is_kept(61.0, at_once));
        assert!(!trial.is_kept(50.0, Duration::from_secs(2)));
    }
}
