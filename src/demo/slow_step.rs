//! The step in which a client asks for much and does not read, while another goes on.

use std::time::{Duration, Instant};

use tokio::time::{interval, sleep};

use crate::config::units::size_text;
use crate::demo::client::{Client, Heard};
use crate::demo::door_steps::millis;
use crate::demo::echo::FLOOD_MESSAGE;
use crate::demo::stage::Records;
use crate::demo::tour::{Finding, Happened, Trouble, Visitor, expect_message, told};
use crate::proto::frame::OpCode;
use crate::proto::policy::{Backpressure, OnSlowConsumer};

/// How long nothing is read.
const UNREAD: Duration = Duration::from_secs(1);

/// Messages of the other client in this time; a quota with a smaller burst has fewer.
const OTHERS: u64 = 40;

/// What a round trip may take on a machine that has much else to do. One that waits for the
/// slow client would take [`UNREAD`].
const FORGIVEN: Duration = Duration::from_millis(500);

/// More than what sockets hold on both legs, so that the rest has to wait somewhere.
const LEAST_FLOOD: u64 = 4 << 20;

/// What the clients saw.
struct Seen {
    /// Bytes that arrived once the slow client read.
    arrived: u64,
    /// Round trips of the other client meanwhile.
    median: Duration,
    worst: Duration,
}

/// What the edge's record says of the slow session, about what went to its client.
struct Kept {
    /// Largest `buffered_amount`.
    peak: usize,
    /// Messages.
    dropped: u64,
}

/// A client that does not read.
pub(super) async fn slow_reader(visitor: &Visitor<'_>, records: &mut Records) -> Finding {
    let high = visitor.stage.route.policy.backpressure.high_watermark;
    let flood = LEAST_FLOOD.max(4 * high as u64);
    let tried = format!("{} sent, not read", size_text(flood));
    let expected = format!(
        "{} buffered, the high watermark, and the other client's echoes within {}",
        size_text(high as u64),
        millis(FORGIVEN)
    );
    let happened = async {
        let mut slow = visitor.admitted().await?.client;
        let address = slow.address;
        let seen = watch(visitor, &mut slow, flood).await?;
        slow.close().await?;
        let record = records
            .of(address)
            .await
            .ok_or("no record of the session")?;
        let kept = Kept {
            peak: record.summary.peaks.upstream,
            dropped: record.summary.tallies.upstream.dropped,
        };
        let policy = &visitor.stage.route.policy.backpressure;
        Ok(judged(policy, flood, &seen, &kept))
    };
    Finding::new(tried, expected, happened.await)
}

async fn watch(visitor: &Visitor<'_>, slow: &mut Client, flood: u64) -> Result<Seen, Trouble> {
    let mut other = visitor.admitted().await?.client;
    // Control frames are never dropped, so the pong tells the end of the flood.
    slow.say(&format!("flood {flood}B")).await?;
    slow.queue(OpCode::Ping, b"")?;
    let stall_timeout = visitor.stage.route.policy.backpressure.stall_timeout;
    let unread = sleep(UNREAD.min(stall_timeout / 2));
    let messages = visitor.stage.route.policy.limits.messages.as_ref();
    let count = messages.map_or(OTHERS, |quota| OTHERS.min(quota.burst.get()));
    let (echoed, ()) = tokio::join!(echoes(&mut other, count), unread);
    let (median, worst) = echoed?;
    let arrived = arrived(slow).await?;
    other.close().await?;
    Ok(Seen {
        arrived,
        median,
        worst,
    })
}

/// Median and longest of so many round trips, spread over the time that nothing is read.
async fn echoes(client: &mut Client, count: u64) -> Result<(Duration, Duration), Trouble> {
    let mut ticks = interval(UNREAD / u32::try_from(count).unwrap_or(u32::MAX).max(1));
    let mut took = Vec::new();
    for _ in 0..count {
        ticks.tick().await;
        let sent = Instant::now();
        client.say("still here").await?;
        expect_message(client, "still here").await?;
        took.push(sent.elapsed());
    }
    took.sort();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    let worst = took.last().copied().unwrap_or_default();
    Ok((median, worst))
}

/// Reads up to the pong, and counts the bytes of the messages.
async fn arrived(client: &mut Client) -> Result<u64, Trouble> {
    let mut bytes = 0;
    loop {
        match client.hear().await? {
            Heard::Message(message) => bytes += message.len() as u64,
            Heard::Pong => return Ok(bytes),
            other => return Err(told(&other).into()),
        }
    }
}

/// What the record and the clients say about a flood of so many bytes.
fn judged(policy: &Backpressure, flood: u64, seen: &Seen, kept: &Kept) -> Happened {
    let high = policy.high_watermark;
    let size = |bytes: usize| size_text(bytes as u64);
    let fate = match kept.dropped {
        0 => "nothing lost".to_owned(),
        dropped => format!("{dropped} messages dropped"),
    };
    let text = format!(
        "buffered_amount {} at most (watermark {}), {fate}; others echo in {}, at worst {}",
        size(kept.peak),
        size(high),
        millis(seen.median),
        millis(seen.worst),
    );
    let missing = flood.saturating_sub(seen.arrived);
    let is_held = match policy.on_slow_consumer {
        OnSlowConsumer::Throttle | OnSlowConsumer::Close => {
            kept.peak == high && kept.dropped == 0 && missing == 0
        }
        // A message that does not fit is dropped whole, so the last bytes may stay free.
        OnSlowConsumer::Drop => {
            (1..=high).contains(&kept.peak)
                && kept.dropped > 0
                && missing == kept.dropped * FLOOD_MESSAGE
        }
    };
    match is_held && seen.worst <= FORGIVEN {
        true => Happened::Right(text),
        false => Happened::Wrong(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: usize = 64 << 10;

    fn is_right(policy: OnSlowConsumer, peak: usize, dropped: u64, arrived: u64) -> bool {
        let policy = Backpressure {
            high_watermark: HIGH,
            low_watermark: HIGH / 2,
            on_slow_consumer: policy,
            stall_timeout: Duration::from_secs(60),
        };
        let seen = Seen {
            arrived,
            median: Duration::from_millis(1),
            worst: FORGIVEN,
        };
        let happened = judged(&policy, LEAST_FLOOD, &seen, &Kept { peak, dropped });
        matches!(happened, Happened::Right(_))
    }

    #[test]
    fn throttling_reaches_the_watermark_and_loses_nothing() {
        use OnSlowConsumer::Throttle;
        assert!(is_right(Throttle, HIGH, 0, LEAST_FLOOD));
        assert!(!is_right(Throttle, HIGH + 1, 0, LEAST_FLOOD));
        assert!(!is_right(Throttle, HIGH - 1, 0, LEAST_FLOOD));
        assert!(!is_right(Throttle, 0, 0, LEAST_FLOOD));
        assert!(!is_right(Throttle, HIGH, 0, LEAST_FLOOD - 1));
        assert!(!is_right(Throttle, HIGH, 1, LEAST_FLOOD - FLOOD_MESSAGE));
    }

    #[test]
    fn dropping_stays_below_the_watermark_and_counts_what_is_missing() {
        use OnSlowConsumer::Drop;
        let rest = LEAST_FLOOD - 3 * FLOOD_MESSAGE;
        assert!(is_right(Drop, HIGH - 100, 3, rest));
        assert!(!is_right(Drop, HIGH + 1, 3, rest));
        assert!(!is_right(Drop, HIGH - 100, 2, rest));
        assert!(!is_right(Drop, HIGH - 100, 0, LEAST_FLOOD));
    }

    #[test]
    fn a_slow_echo_of_the_other_client_is_a_failure() {
        let policy = Backpressure {
            high_watermark: HIGH,
            low_watermark: HIGH / 2,
            on_slow_consumer: OnSlowConsumer::Throttle,
            stall_timeout: Duration::from_secs(60),
        };
        let seen = Seen {
            arrived: LEAST_FLOOD,
            median: Duration::from_millis(1),
            worst: FORGIVEN + Duration::from_millis(1),
        };
        let kept = Kept {
            peak: HIGH,
            dropped: 0,
        };
        let happened = judged(&policy, LEAST_FLOOD, &seen, &kept);
        assert!(matches!(happened, Happened::Wrong(_)));
    }
}
