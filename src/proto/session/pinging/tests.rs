//! Pings, pongs and heartbeats, by a clock that jumps.

use std::time::Duration;

use crate::proto::cause::{Cause, QuotaKind};
use crate::proto::frame::{Fin, OpCode};
use crate::proto::limits::OnExcess;
use crate::proto::policy::{ExpiryNotice, Heartbeat, OnExpiry, Policy};
use crate::proto::session::{Admitted, RoundTrip};
use crate::proto::side::Side::{self, Downstream, Upstream};
use crate::proto::sim::{Seen, Sim, fragment, frame, inspecting, policy, quota};

const INTERVAL: Duration = Duration::from_secs(25);
/// The interval and its jitter.
const LONGEST: Duration = Duration::from_millis(27_500);
const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn pinging(to: Side) -> Sim {
    let mut policy = policy();
    match to {
        Downstream => policy.keepalive.ping_interval = Some(INTERVAL),
        Upstream => policy.keepalive.upstream_ping_interval = Some(INTERVAL),
    }
    Sim::new(policy)
}

/// Goes on to the next ping that leaves.
fn next_ping(sim: &mut Sim, to: Side) -> Seen {
    let pings = |sim: &Sim| {
        let seen = sim.seen(to).into_iter();
        seen.filter(|seen| seen.opcode == OpCode::Ping).count()
    };
    let before = pings(sim);
    let started = sim.now;
    while pings(sim) == before {
        let deadline = sim.session.poll_timeout().expect("a ping to come");
        sim.advance(deadline - sim.now);
        assert!(
            sim.now - started < 2 * LONGEST,
            "no ping: {:?}",
            sim.session
        );
    }
    sim.seen(to).pop().expect("the ping")
}

fn pong(sim: &mut Sim, from: Side, payload: &[u8]) {
    sim.send(from, &frame(from, OpCode::Pong, payload));
}

#[test]
fn a_silent_client_is_pinged_and_then_ended_with_3008() {
    let mut sim = pinging(Downstream);
    let ping = next_ping(&mut sim, Downstream);
    assert_eq!(ping.payload[..8], *b"tidegate");
    assert!(sim.wires.upstream.taken.is_empty());
    sim.advance(Duration::from_millis(9_999));
    assert_eq!(sim.close_code(Downstream), None);
    sim.advance(MILLI);
    assert_eq!(sim.close_code(Downstream), Some(3008));
    assert_eq!(sim.close_code(Upstream), Some(1001));
    assert_eq!(sim.session.summary().cause, Cause::PongMissing(Downstream));
    // And then it is cut off.
    sim.advance(5 * SECOND);
    assert_eq!(sim.ended(), Cause::PongMissing(Downstream));
}

#[test]
fn a_silent_upstream_is_pinged_and_then_ended_with_3008() {
    let mut sim = pinging(Upstream);
    next_ping(&mut sim, Upstream);
    assert!(sim.wires.downstream.taken.is_empty());
    sim.advance(10 * SECOND);
    assert_eq!(sim.close_code(Upstream), Some(3008));
    assert_eq!(sim.close_code(Downstream), Some(1014));
    assert_eq!(sim.session.summary().cause, Cause::PongMissing(Upstream));
}

#[test]
fn pings_come_within_a_tenth_of_the_interval_and_never_quite_alike() {
    for side in [Downstream, Upstream] {
        let mut sim = pinging(side);
        let mut spans = Vec::new();
        for _ in 0..20 {
            let before = sim.now;
            let ping = next_ping(&mut sim, side);
            spans.push(sim.now - before);
            pong(&mut sim, side, &ping.payload);
        }
        for span in &spans {
            assert!((INTERVAL * 9 / 10..=LONGEST).contains(span), "{span:?}");
        }
        spans.sort();
        spans.dedup();
        assert!(spans.len() > 15, "{spans:?}");
    }
}

#[test]
fn the_pong_to_the_edges_ping_stays_at_the_edge_and_others_pass() {
    for (side, other) in [(Downstream, Upstream), (Upstream, Downstream)] {
        let mut sim = pinging(side);
        for _ in 0..5 {
            let ping = next_ping(&mut sim, side);
            pong(&mut sim, side, &ping.payload);
        }
        assert_eq!(sim.wires[other].taken, b"");
        // Like the edge's own, as another edge would send it: of another session.
        let foreign = b"tidegate\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x01";
        let others = [&b"to the other end"[..], b"tidegate", b"", foreign];
        for payload in others {
            pong(&mut sim, side, payload);
        }
        let expected = others.map(|payload| frame(side, OpCode::Pong, payload));
        assert_eq!(sim.wires[other].taken, expected.concat());
    }
}

#[test]
fn pings_of_the_peers_pass_and_are_not_answered_by_the_edge() {
    let mut sim = pinging(Downstream);
    for (side, other) in [(Downstream, Upstream), (Upstream, Downstream)] {
        let ping = frame(side, OpCode::Ping, b"there?");
        sim.send(side, &ping);
        assert_eq!(sim.wires[other].taken, ping);
        sim.wires[other].taken.clear();
        assert!(sim.wires[side].taken.is_empty());
    }
}

#[test]
fn pongs_that_are_made_up_or_come_late_save_nobody_and_measure_nothing() {
    let mut sim = pinging(Downstream);
    let first = next_ping(&mut sim, Downstream);
    let mut next = first.clone();
    *next.payload.last_mut().unwrap() += 1;
    pong(&mut sim, Downstream, &next.payload);
    assert_eq!(sim.session.summary().round_trips.downstream, None);
    // It was heard, so it lives; the ping is answered no more.
    sim.advance(11 * SECOND);
    assert_eq!(sim.close_code(Downstream), None);
    pong(&mut sim, Downstream, &first.payload);
    assert_eq!(sim.session.summary().round_trips.downstream, None);
    let second = next_ping(&mut sim, Downstream);
    assert_ne!(first.payload, second.payload);
    for _ in 0..3 {
        pong(&mut sim, Downstream, &first.payload);
    }
    assert_eq!(sim.session.summary().round_trips.downstream, None);
    assert_eq!(sim.wires.upstream.taken, b"");
}

#[test]
fn no_pong_is_the_edges_own_where_it_never_pings() {
    let mut sim = Sim::new(policy());
    let mut other = pinging(Downstream);
    // The seed of both is the same.
    let ping = next_ping(&mut other, Downstream);
    pong(&mut sim, Downstream, &ping.payload);
    assert_eq!(sim.seen(Upstream)[0].payload, ping.payload);
}

#[test]
fn pings_to_the_upstream_are_masked_each_with_another_key() {
    let mut sim = pinging(Upstream);
    let mut keys = Vec::new();
    for _ in 0..5 {
        sim.wires.upstream.taken.clear();
        let ping = next_ping(&mut sim, Upstream);
        keys.push(sim.wires.upstream.taken[2..6].to_vec());
        assert_eq!(sim.wires.upstream.taken[1], 0x80 | 20);
        pong(&mut sim, Upstream, &ping.payload);
    }
    keys.dedup();
    assert_eq!(keys.len(), 5);
}

#[test]
fn round_trips_are_measured_from_the_moment_the_ping_left() {
    let mut sim = pinging(Downstream);
    assert_eq!(sim.session.summary().round_trips.downstream, None);
    let whole = frame(Upstream, OpCode::Binary, &[7; 1000]);
    sim.send(Upstream, &whole[..500]);
    sim.advance(LONGEST);
    // The ping has waited for the rest of the frame.
    sim.send(Upstream, &whole[500..]);
    let ping = sim.seen(Downstream).pop().unwrap();
    assert_eq!(ping.opcode, OpCode::Ping);
    sim.advance(80 * MILLI);
    pong(&mut sim, Downstream, &ping.payload);
    let measured = |sim: &Sim| sim.session.summary().round_trips.downstream;
    let all = RoundTrip {
        last: 80 * MILLI,
        least: 80 * MILLI,
        smoothed: 80 * MILLI,
    };
    assert_eq!(measured(&sim), Some(all));
    let ping = next_ping(&mut sim, Downstream);
    sim.advance(160 * MILLI);
    pong(&mut sim, Downstream, &ping.payload);
    let all = RoundTrip {
        last: 160 * MILLI,
        least: 80 * MILLI,
        smoothed: 90 * MILLI,
    };
    assert_eq!(measured(&sim), Some(all));
    // The same pong again is no other measure.
    pong(&mut sim, Downstream, &ping.payload);
    assert_eq!(measured(&sim), Some(all));
    assert_eq!(sim.session.summary().round_trips.upstream, None);
}

#[test]
fn a_ping_that_waits_for_the_end_of_a_frame_is_not_missed() {
    let mut sim = pinging(Downstream);
    let whole = frame(Upstream, OpCode::Binary, &[7; 1000]);
    sim.send(Upstream, &whole[..500]);
    sim.advance(Duration::from_secs(99));
    assert_eq!(sim.close_code(Upstream), None);
    sim.send(Upstream, &whole[500..]);
    assert_eq!(sim.seen(Downstream)[1].opcode, OpCode::Ping);
    sim.advance(Duration::from_millis(9_999));
    assert_eq!(sim.close_code(Upstream), None);
    sim.advance(MILLI);
    assert_eq!(sim.session.summary().cause, Cause::PongMissing(Downstream));
}

#[test]
fn a_client_kept_unread_by_its_quota_is_not_taken_for_dead() {
    let mut policy = policy();
    policy.keepalive.ping_interval = Some(INTERVAL);
    policy.limits.messages = Some(quota(1, 1, OnExcess::Throttle));
    let mut sim = Sim::new(policy);
    let message = frame(Downstream, OpCode::Text, b"m");
    sim.send(Downstream, &message.repeat(120));
    sim.advance(Duration::from_secs(60));
    assert_eq!(sim.close_code(Downstream), None);
}

#[test]
fn an_upstream_kept_unread_by_a_slow_client_is_not_taken_for_dead() {
    let mut policy = policy();
    policy.keepalive.upstream_ping_interval = Some(INTERVAL);
    policy.backpressure.stall_timeout = Duration::from_secs(1000);
    let mut sim = Sim::new(policy);
    sim.take(Downstream, 0);
    let message = frame(Upstream, OpCode::Binary, &[7; 1000]);
    sim.send(Upstream, &message.repeat(100));
    sim.advance(Duration::from_secs(200));
    assert_eq!(sim.close_code(Upstream), None);
}

#[test]
fn idleness_counts_data_frames_only() {
    let mut policy = policy();
    policy.keepalive.idle_timeout = Some(Duration::from_secs(30));
    let mut sim = Sim::new(policy);
    sim.advance(Duration::from_secs(20));
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"data"));
    sim.advance(Duration::from_secs(20));
    sim.send(Downstream, &frame(Downstream, OpCode::Ping, b""));
    assert_eq!(sim.close_code(Downstream), None);
    sim.advance(Duration::from_secs(10));
    assert_eq!(sim.close_code(Downstream), Some(3008));
    assert_eq!(sim.session.summary().cause, Cause::Idle);
}

#[test]
fn a_session_ends_with_its_lifetime_or_up_to_a_tenth_before() {
    let mut policy = policy();
    policy.keepalive.max_lifetime = Some(Duration::from_secs(3600));
    let mut sim = Sim::new(policy);
    sim.advance(Duration::from_secs(3239));
    assert_eq!(sim.close_code(Downstream), None);
    sim.advance(Duration::from_secs(361));
    assert_eq!(sim.close_code(Downstream), Some(1001));
    assert_eq!(sim.session.summary().cause, Cause::LifetimeOver);
}

mod heartbeat {
    use super::*;

    const REQUEST: &[u8] = br#"{"type":"ping"}"#;
    const REPLY: &[u8] = br#"{"type":"pong"}"#;

    fn beating(mut policy: Policy) -> Sim {
        policy.keepalive.heartbeat = Some(Heartbeat {
            request: String::from_utf8(REQUEST.to_vec()).unwrap(),
            reply: String::from_utf8(REPLY.to_vec()).unwrap(),
        });
        Sim::new(policy)
    }

    fn request() -> Vec<u8> {
        frame(Downstream, OpCode::Text, REQUEST)
    }

    fn texts(sim: &Sim, to: Side) -> Vec<Vec<u8>> {
        sim.seen(to).into_iter().map(|seen| seen.payload).collect()
    }

    /// A client that hears no pings, and whether it is still there after its heartbeats.
    fn outlives_pings(every: Option<Duration>) -> bool {
        let mut policy = policy();
        policy.keepalive.ping_interval = Some(Duration::from_secs(25));
        policy.keepalive.pong_timeout = Duration::from_secs(10);
        let mut sim = beating(policy);
        for _ in 0..20 {
            sim.advance(every.unwrap_or(Duration::from_secs(20)));
            if every.is_some() {
                sim.send(Downstream, &request());
            }
        }
        sim.close_code(Downstream).is_none()
    }

    #[test]
    fn it_stands_for_pongs_where_the_way_loses_them() {
        assert!(outlives_pings(Some(Duration::from_secs(20))));
        assert!(outlives_pings(Some(Duration::from_secs(24))));
        assert!(!outlives_pings(Some(Duration::from_secs(70))));
        assert!(!outlives_pings(None));
    }

    #[test]
    fn it_is_answered_at_the_edge_and_not_forwarded_in_any_slicing() {
        for policy in [policy(), inspecting()] {
            for slice in 1..30 {
                let mut sim = beating(policy.clone());
                sim.slice = slice;
                let message = frame(Downstream, OpCode::Text, br#"{"type":"ping "}"#);
                let sent = [&request()[..], &message, &request()].concat();
                sim.send(Downstream, &sent);
                assert_eq!(sim.wires.upstream.taken, message, "slices of {slice}");
                let seen = sim.seen(Downstream);
                assert!(!seen.is_empty() && seen.len() <= 2);
                assert!(seen.iter().all(|seen| seen.payload == REPLY));
                let summary = sim.session.summary();
                assert_eq!(summary.heartbeats, 2);
                let tally = summary.tallies.downstream;
                assert_eq!((tally.messages, tally.dropped), (1, 0));
                assert_eq!(sim.session.owned_memory(), 0);
            }
        }
    }

    #[test]
    fn only_the_exact_text_in_one_frame_is_one() {
        let others = [
            frame(Downstream, OpCode::Binary, REQUEST),
            frame(Downstream, OpCode::Ping, REQUEST),
            frame(Downstream, OpCode::Text, br#"{"type":"pinG"}"#),
            frame(Downstream, OpCode::Text, b"123456789012345"),
            [
                fragment(Downstream, Fin::More, OpCode::Text, REQUEST),
                fragment(Downstream, Fin::Final, OpCode::Continuation, b""),
            ]
            .concat(),
            [
                fragment(Downstream, Fin::More, OpCode::Text, b""),
                fragment(Downstream, Fin::Final, OpCode::Continuation, REQUEST),
            ]
            .concat(),
        ];
        let mut sim = beating(policy());
        for other in &others {
            sim.send(Downstream, other);
        }
        assert_eq!(sim.wires.upstream.taken, others.concat());
        assert!(sim.wires.downstream.taken.is_empty());
        // What the upstream sends is never one.
        let same = frame(Upstream, OpCode::Text, REQUEST);
        sim.send(Upstream, &same);
        assert_eq!(sim.wires.downstream.taken, same);
        assert_eq!(sim.session.summary().heartbeats, 0);
    }

    #[test]
    fn text_of_its_length_is_still_held_to_utf8() {
        let mut sim = beating(policy());
        sim.send(Downstream, &frame(Downstream, OpCode::Text, &[0xff; 15]));
        assert_eq!(sim.close_code(Downstream), Some(1007));
    }

    #[test]
    fn text_of_its_length_is_still_held_to_the_rules() {
        let mut sim = beating(inspecting());
        let malformed = frame(Downstream, OpCode::Text, b"123456789012 45");
        sim.send(Downstream, &malformed);
        assert_eq!(sim.close_code(Downstream), Some(1007));
    }

    #[test]
    fn it_counts_for_the_quotas() {
        let mut one = policy();
        one.limits.messages = Some(quota(1, 10, OnExcess::Close));
        let mut sim = beating(one);
        sim.send(Downstream, &request().repeat(11));
        let cause = Cause::QuotaExceeded(QuotaKind::Messages);
        assert_eq!(sim.session.summary().cause, cause);
        assert_eq!(sim.session.summary().heartbeats, 10);

        let mut other = policy();
        other.limits.bytes = Some(quota(1024, 1024, OnExcess::Throttle));
        let mut sim = beating(other);
        sim.send(Downstream, &request().repeat(200));
        let answered = 1024 / request().len() as u64;
        assert_eq!(sim.session.summary().heartbeats, answered);
        sim.advance(4 * SECOND);
        assert_eq!(sim.session.summary().heartbeats, 200);
    }

    #[test]
    fn it_is_no_sign_of_activity() {
        let mut policy = policy();
        policy.keepalive.idle_timeout = Some(30 * SECOND);
        let mut sim = beating(policy);
        for _ in 0..3 {
            sim.advance(9 * SECOND);
            sim.send(Downstream, &request());
        }
        sim.advance(4 * SECOND);
        assert_eq!(sim.session.summary().cause, Cause::Idle);
    }

    #[test]
    fn the_answer_waits_for_the_end_of_the_upstreams_message() {
        let mut sim = beating(policy());
        let first = fragment(Upstream, Fin::More, OpCode::Text, b"one");
        let last = fragment(Upstream, Fin::Final, OpCode::Continuation, b"two");
        sim.send(Upstream, &first);
        // However many ask meanwhile, one answer is enough.
        sim.send(Downstream, &request().repeat(3));
        assert_eq!(sim.wires.downstream.taken, first);
        sim.send(Upstream, &last);
        assert_eq!(texts(&sim, Downstream), [&b"one"[..], b"two", REPLY]);
    }

    #[test]
    fn answers_to_a_client_that_does_not_read_are_bounded() {
        let mut sim = beating(policy());
        sim.take(Downstream, 0);
        for _ in 0..1000 {
            sim.send(Downstream, &request().repeat(100));
        }
        let high = 64 * 1024;
        assert!(sim.session.buffered_amount(Upstream) <= high + 2 * 127);
        assert!(sim.session.owned_memory() <= 2 * high + 1024);
        assert_eq!(sim.session.summary().heartbeats, 100_000);
        sim.advance(60 * SECOND);
        assert_eq!(sim.session.summary().cause, Cause::Stalled(Downstream));
    }

    #[test]
    fn an_answer_and_a_notice_that_both_wait_are_both_said() {
        let mut policy = policy();
        policy.on_expiry = OnExpiry::Close {
            notice: Some(ExpiryNotice {
                before: 10 * SECOND,
                message: "soon".to_owned(),
            }),
        };
        let mut sim = beating(policy);
        sim.session.keep(Admitted {
            expires: Some(sim.now + 60 * SECOND),
            ..Admitted::default()
        });
        sim.send(Upstream, &fragment(Upstream, Fin::More, OpCode::Text, b"a"));
        sim.advance(51 * SECOND);
        sim.send(Downstream, &request());
        let last = fragment(Upstream, Fin::Final, OpCode::Continuation, b"b");
        sim.send(Upstream, &last);
        assert_eq!(texts(&sim, Downstream), [&b"a"[..], b"b", REPLY, b"soon"]);
    }

    #[test]
    fn nothing_is_answered_once_the_session_closes() {
        let mut sim = beating(policy());
        let close = frame(Upstream, OpCode::Close, &[0x03, 0xe8]);
        sim.send(Upstream, &close);
        sim.send(Downstream, &request());
        assert_eq!(sim.wires.downstream.taken, close);
    }
}
