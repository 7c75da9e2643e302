//! Policies as the configuration may make them, with smaller numbers: every edge is near.

use std::num::NonZeroU64;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use tidegate::proto::limits::{Limits, OnExcess, Quota, Rate};
use tidegate::proto::policy::{
    Backpressure, ExpiryNotice, FirstMessage, Keepalive, OnExpiry, OnSlowConsumer, Policy,
};

/// A policy that nothing in it contradicts.
#[derive(Clone, Debug)]
pub struct AnyPolicy(pub Policy);

impl<'a> Arbitrary<'a> for AnyPolicy {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        // Mostly such as a few frames reach, and low ones that the rest of a header is above.
        let highest = *u.choose(&[1_000, 5_000, 40_000])?;
        let high = u.int_in_range(300..=highest)?;
        let lowest = *u.choose(&[0, 20, high - 1])?;
        let policy = Policy {
            first_message: first_message(u)?,
            limits: limits(u)?,
            backpressure: Backpressure {
                high_watermark: high,
                low_watermark: u.int_in_range(0..=lowest)?,
                on_slow_consumer: *u.choose(&[
                    OnSlowConsumer::Throttle,
                    OnSlowConsumer::Drop,
                    OnSlowConsumer::Close,
                ])?,
                stall_timeout: seconds(u, 1, 100)?,
            },
            keepalive: Keepalive {
                ping_interval: option(u, |u| seconds(u, 1, 60))?,
                upstream_ping_interval: None,
                pong_timeout: seconds(u, 1, 20)?,
                idle_timeout: option(u, |u| seconds(u, 1, 60))?,
                max_lifetime: option(u, |u| seconds(u, 1, 1_000))?,
                heartbeat: None,
            },
            hold: None,
            close_timeout: seconds(u, 1, 20)?,
            on_expiry: on_expiry(u)?,
            inspection: None,
        };
        Ok(Self(policy))
    }
}

/// A policy under which nothing is dropped and nothing waits.
pub fn open() -> Policy {
    let never = Quota {
        rate: Rate {
            units: at_least_one(1_000_000),
            per: Duration::from_secs(1),
        },
        burst: at_least_one(1_000_000),
        on_excess: OnExcess::Close,
    };
    Policy {
        first_message: None,
        on_expiry: OnExpiry::Ignore,
        inspection: None,
        limits: Limits {
            max_frame_size: 20_000,
            max_message_size: 20_000,
            max_upstream_frame_size: None,
            max_upstream_message_size: None,
            messages: None,
            bytes: None,
            control: never,
            validate_utf8: true,
        },
        backpressure: Backpressure {
            high_watermark: 1_000,
            low_watermark: 500,
            on_slow_consumer: OnSlowConsumer::Throttle,
            stall_timeout: Duration::from_secs(60),
        },
        keepalive: Keepalive {
            ping_interval: None,
            upstream_ping_interval: None,
            pong_timeout: Duration::from_secs(10),
            idle_timeout: None,
            max_lifetime: None,
            heartbeat: None,
        },
        hold: None,
        close_timeout: Duration::from_secs(5),
    }
}

fn first_message(u: &mut Unstructured<'_>) -> Result<Option<FirstMessage>> {
    option(u, |u| {
        Ok(FirstMessage {
            timeout: seconds(u, 1, 20)?,
            max_size: u.int_in_range(1..=8_000)?,
            forward: u.arbitrary()?,
            reply: option(u, |_| Ok("ready".to_owned()))?,
        })
    })
}

fn on_expiry(u: &mut Unstructured<'_>) -> Result<OnExpiry> {
    if u.arbitrary()? {
        return Ok(OnExpiry::Ignore);
    }
    let notice = option(u, |u| {
        Ok(ExpiryNotice {
            before: seconds(u, 1, 60)?,
            message: "expiring".to_owned(),
        })
    })?;
    Ok(OnExpiry::Close { notice })
}

fn limits(u: &mut Unstructured<'_>) -> Result<Limits> {
    let max_frame_size = u.int_in_range(1..=8_000)?;
    let control = [OnExcess::Throttle, OnExcess::Close];
    let any = [OnExcess::Throttle, OnExcess::Drop, OnExcess::Close];
    Ok(Limits {
        max_frame_size,
        max_message_size: u.int_in_range(max_frame_size..=20_000)?,
        max_upstream_frame_size: option(u, |u| u.int_in_range(1..=8_000))?,
        max_upstream_message_size: option(u, |u| u.int_in_range(1..=20_000))?,
        messages: option(u, |u| quota(u, 1, &any))?,
        bytes: option(u, |u| bytes(u, max_frame_size, &any))?,
        control: quota(u, 1, &control)?,
        validate_utf8: u.arbitrary()?,
    })
}

/// A quota that drops or closes lets at least one frame pass; the configuration insists.
fn bytes(u: &mut Unstructured<'_>, max_frame_size: u64, any: &[OnExcess]) -> Result<Quota> {
    let mut quota = quota(u, 64, any)?;
    if quota.on_excess != OnExcess::Throttle {
        quota.burst = quota.burst.saturating_add(max_frame_size + 14);
    }
    Ok(quota)
}

fn quota(u: &mut Unstructured<'_>, least: u64, policies: &[OnExcess]) -> Result<Quota> {
    Ok(Quota {
        rate: Rate {
            units: at_least_one(u.int_in_range(least..=5_000)?),
            per: Duration::from_secs(*u.choose(&[1, 60])?),
        },
        burst: at_least_one(u.int_in_range(least..=5_000)?),
        on_excess: *u.choose(policies)?,
    })
}

fn at_least_one(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).unwrap_or(NonZeroU64::MIN)
}

fn seconds(u: &mut Unstructured<'_>, least: u64, most: u64) -> Result<Duration> {
    Ok(Duration::from_secs(u.int_in_range(least..=most)?))
}

fn option<'a, T>(
    u: &mut Unstructured<'a>,
    value: impl FnOnce(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Option<T>> {
    if u.arbitrary()? {
        Ok(Some(value(u)?))
    } else {
        Ok(None)
    }
}
