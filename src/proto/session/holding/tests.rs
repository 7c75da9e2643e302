//! Upstreams that go and come, by a clock that jumps.

use proptest::prelude::*;

use super::*;
use crate::proto::frame::Fin;
use crate::proto::json::{Place as At, Places, Pointer};
use crate::proto::limits::OnExcess;
use crate::proto::policy::{Heartbeat, Keepalive, OnExpiry};
use crate::proto::rule::{Grants, Inspection, Refresh};
use crate::proto::session::{Admitted, TokenVerdict};
use crate::proto::side::Side::{Downstream, Upstream};
use crate::proto::sim::{
    Seen, Sim, Wire, close_payload, first_message, fragment, frame, policy, quota,
};

const MAX_HOLD: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(1);

fn holding() -> Policy {
    Policy {
        hold: Some(Hold {
            max_hold: MAX_HOLD,
            buffer: 1000,
            close_codes: vec![CloseCode::SERVICE_RESTART],
            backoff: Backoff {
                first: Duration::from_millis(250),
                max: Duration::from_secs(5),
            },
            replay_messages: 0,
            replay_buffer: 10_000,
            notice: None,
            resume_notice: None,
        }),
        ..policy()
    }
}

fn with(change: impl FnOnce(&mut Hold)) -> Policy {
    let mut policy = holding();
    policy.hold.as_mut().map(change);
    policy
}

fn at(places: &mut Places, pointer: &str) -> At {
    places.add(&Pointer::parse(pointer).expect("a pointer"))
}

fn text(text: &str) -> Vec<u8> {
    frame(Downstream, OpCode::Text, text.as_bytes())
}

/// The texts and binary messages among what a peer has got.
fn messages(seen: Vec<Seen>) -> Vec<String> {
    let data = seen.into_iter().filter(|seen| !seen.opcode.is_control());
    data.map(|seen| String::from_utf8(seen.payload).unwrap())
        .collect()
}

fn heard(sim: &Sim) -> Vec<String> {
    messages(sim.seen(Downstream))
}

fn said(wire: &Wire) -> Vec<String> {
    messages(wire.seen(Upstream))
}

fn control(seen: Vec<Seen>, opcode: OpCode) -> Vec<Vec<u8>> {
    let of_kind = seen.into_iter().filter(|seen| seen.opcode == opcode);
    of_kind.map(|seen| seen.payload).collect()
}

/// How often the driver is asked to dial, each time in vain, until `span` has passed.
fn redials(sim: &mut Sim, span: Duration) -> usize {
    let (end, mut count) = (sim.now + span, 0);
    while let Some(deadline) = sim.session.poll_timeout().filter(|at| *at <= end) {
        sim.advance(deadline.saturating_duration_since(sim.now));
        if sim.events.pop_if(|event| *event == Event::Redial).is_some() {
            count += 1;
            let failed = Err(DialFailure::Unreachable);
            sim.session.handle_redialed(failed, sim.now);
        }
        assert!(count < 10_000);
    }
    sim.advance(end.saturating_duration_since(sim.now));
    count
}

#[test]
fn the_client_stays_and_the_next_upstream_hears_what_it_said_meanwhile() {
    let mut sim = Sim::new(holding());
    sim.send(Downstream, &text("before"));
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"hello"));
    sim.eof(Upstream);
    assert!(sim.session.is_holding());
    sim.send(Downstream, &text("meanwhile"));
    sim.advance(Duration::from_secs(1));
    assert_eq!(sim.events, [Event::Redial]);
    let before = sim.redialed(usize::MAX);
    assert!(!sim.session.is_holding());
    sim.send(Downstream, &text("after"));
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"again"));
    assert_eq!(said(&before), ["before"]);
    assert_eq!(said(&sim.wires.upstream), ["meanwhile", "after"]);
    assert_eq!(heard(&sim), ["hello", "again"]);
    let holds = sim.session.summary().holds;
    assert_eq!((holds.times, holds.time), (1, Duration::from_secs(1)));
}

#[test]
fn without_the_policy_the_session_ends_with_its_upstream() {
    let mut sim = Sim::new(policy());
    sim.eof(Upstream);
    assert_eq!(sim.close_code(Downstream), Some(1014));
}

#[test]
fn only_the_close_codes_of_the_policy_are_outlived() {
    for (code, is_held) in [(1012, true), (1001, false), (1000, false), (1011, false)] {
        let mut sim = Sim::new(holding());
        let close = frame(Upstream, OpCode::Close, &close_payload(code, "bye"));
        sim.send(Upstream, &close);
        assert_eq!(sim.session.is_holding(), is_held, "{code}");
        let heard = (!is_held).then_some(code);
        assert_eq!(sim.close_code(Downstream), heard, "{code}");
        if is_held {
            // RFC 6455 §5.5.1: a Close is answered.
            assert_eq!(sim.close_code(Upstream), Some(code));
            assert!(sim.wires.upstream.shut);
        }
    }
}

#[test]
fn an_answer_that_the_upstream_does_not_take_is_not_offered_again() {
    let mut sim = Sim::new(holding());
    sim.take(Upstream, 0);
    let close = frame(Upstream, OpCode::Close, &close_payload(1012, ""));
    sim.send(Upstream, &close);
    assert!(!sim.session.pending(Upstream).is_empty());
    // And its connection is no stalled one.
    assert_eq!(sim.session.poll_timeout(), Some(deadline(&sim)));
    sim.session.handle_reset(Upstream, sim.now);
    assert!(sim.session.is_holding());
    assert!(sim.session.pending(Upstream).is_empty());
    assert!(!sim.session.can_shut(Upstream));
}

fn deadline(sim: &Sim) -> Instant {
    match &sim.session.phase {
        Phase::Holding(holding) => holding.deadline(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_close_that_comes_inside_a_frame_of_the_clients_is_not_answered() {
    let mut sim = Sim::new(holding());
    sim.take(Upstream, 5);
    sim.send(Downstream, &text("half of it gets through"));
    let close = frame(Upstream, OpCode::Close, &close_payload(1012, ""));
    sim.send(Upstream, &close);
    assert!(sim.session.is_holding());
    sim.take(Upstream, usize::MAX);
    assert_eq!(sim.wires.upstream.taken.len(), 5);
    sim.redialed(usize::MAX);
    sim.send(Downstream, &text("next"));
    assert_eq!(said(&sim.wires.upstream), ["next"]);
}

#[test]
fn dials_are_asked_for_with_growing_pauses_until_the_hold_is_over() {
    for (lost, code) in [
        (Lost::Vanished, 1013),
        (Lost::Closed(CloseCode::SERVICE_RESTART), 1012),
    ] {
        let mut sim = Sim::new(holding());
        match lost {
            Lost::Vanished => sim.eof(Upstream),
            Lost::Closed(_) => {
                let close = frame(Upstream, OpCode::Close, &close_payload(1012, ""));
                sim.send(Upstream, &close);
            }
        }
        let count = redials(&mut sim, MAX_HOLD - MOMENT);
        // Some five with growing ceilings, then on average one each 2.5 seconds.
        assert!((8..40).contains(&count), "{count}");
        assert!(sim.session.is_holding());
        sim.advance(MOMENT);
        assert_eq!(sim.close_code(Downstream), Some(code));
        sim.send(
            Downstream,
            &frame(Downstream, OpCode::Close, &close_payload(code, "")),
        );
        assert_eq!(sim.ended(), Cause::HoldOver(lost));
        assert_eq!(sim.session.summary().holds.time, MAX_HOLD);
    }
}

#[test]
fn pauses_are_jittered_from_nothing_to_a_ceiling_that_doubles() {
    let backoff = Backoff {
        first: Duration::from_millis(250),
        max: Duration::from_secs(5),
    };
    let ceilings = [250, 500, 1000, 2000, 4000, 5000, 5000];
    let mut sums = [Duration::ZERO; 7];
    for seed in (0..1000).map(Seed) {
        let mut resumable = Resumable::new(&holding(), Instant::now()).unwrap();
        for (sum, ceiling) in sums.iter_mut().zip(ceilings) {
            let pause = resumable.pause(backoff, seed);
            assert!(pause <= Duration::from_millis(ceiling));
            *sum += pause;
        }
        resumable.attempts = u32::MAX;
        assert!(resumable.pause(backoff, seed) <= backoff.max);
    }
    for (sum, ceiling) in sums.iter().zip(ceilings) {
        let mean = sum.as_millis() / 1000;
        let half = u128::from(ceiling / 2);
        assert!(mean > half * 9 / 10 && mean < half * 11 / 10, "{mean}");
    }
}

#[test]
fn half_a_message_for_the_client_cannot_be_resumed() {
    let whole = frame(Upstream, OpCode::Text, b"a whole message");
    let part = fragment(Upstream, Fin::More, OpCode::Text, b"a part");
    for sent in [&whole[..5], &part[..], &[&part[..], &whole[..1]].concat()] {
        let mut sim = Sim::new(holding());
        sim.send(Upstream, sent);
        sim.eof(Upstream);
        assert!(!sim.session.is_holding());
        let cause = sim.session.summary().cause;
        assert_eq!(cause, Cause::Vanished(Upstream));
    }
}

#[test]
fn half_a_message_that_the_client_has_not_seen_is_taken_back() {
    let mut sim = Sim::new(holding());
    sim.take(Downstream, 0);
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"whole"));
    let half = &frame(Upstream, OpCode::Text, b"only half")[..6];
    sim.send(Upstream, half);
    sim.eof(Upstream);
    assert!(sim.session.is_holding());
    sim.take(Downstream, usize::MAX);
    sim.redialed(usize::MAX);
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"more"));
    assert_eq!(heard(&sim), ["whole", "more"]);
    assert_eq!(sim.wires.downstream.taken.len(), 7 + 6);
}

#[test]
fn a_message_that_a_slow_client_is_spared_can_be_cut() {
    let mut policy = holding();
    policy.backpressure.on_slow_consumer = crate::proto::policy::OnSlowConsumer::Drop;
    policy.backpressure.high_watermark = 1000;
    policy.backpressure.low_watermark = 500;
    let mut sim = Sim::new(policy);
    sim.take(Downstream, 0);
    sim.send(Upstream, &frame(Upstream, OpCode::Binary, &[1; 700]));
    let dropped = fragment(Upstream, Fin::More, OpCode::Binary, &[2; 200]);
    sim.send(Upstream, &dropped);
    sim.eof(Upstream);
    assert!(sim.session.is_holding(), "{:?}", sim.session);
    sim.take(Downstream, usize::MAX);
    sim.redialed(usize::MAX);
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"more"));
    assert_eq!(sim.seen(Downstream).len(), 2);
}

#[test]
fn the_buffer_holds_what_it_may_and_then_the_client_is_not_read() {
    for (buffer, high) in [(1000, 64 * 1024), (200_000, 64 * 1024), (5000, 5000)] {
        let mut policy = with(|hold| hold.buffer = buffer);
        policy.backpressure.high_watermark = high;
        policy.backpressure.low_watermark = high / 2;
        let mut sim = Sim::new(policy);
        sim.eof(Upstream);
        let messages: Vec<u8> = (0..3000).flat_map(|_| text(&"x".repeat(94))).collect();
        sim.send(Downstream, &messages);
        assert_eq!(messages.len() - sim.unread(Downstream), buffer);
        assert_eq!(sim.session.buffered_amount(Downstream), buffer);
        assert!(sim.session.owned_memory() <= buffer.max(high), "{buffer}");
        sim.redialed(usize::MAX);
        assert_eq!(sim.wires.upstream.taken, messages);
        assert_eq!(sim.session.owned_memory(), 0);
    }
}

#[test]
fn limits_and_quotas_hold_while_the_session_is_held() {
    let mut policy = holding();
    policy.limits.max_frame_size = 100;
    policy.limits.messages = Some(quota(1, 2, OnExcess::Close));
    let mut sim = Sim::new(policy.clone());
    sim.eof(Upstream);
    sim.send(Downstream, &text(&"x".repeat(101)));
    assert_eq!(sim.close_code(Downstream), Some(1009));
    let mut sim = Sim::new(policy);
    sim.eof(Upstream);
    for _ in 0..3 {
        sim.send(Downstream, &text("x"));
    }
    assert_eq!(sim.close_code(Downstream), Some(1008));
}

#[test]
fn pings_are_answered_by_the_edge_while_there_is_nobody_else() {
    let mut sim = Sim::new(holding());
    sim.send(Downstream, &frame(Downstream, OpCode::Ping, b"one"));
    sim.eof(Upstream);
    sim.send(Downstream, &frame(Downstream, OpCode::Ping, b"two"));
    sim.send(Downstream, &frame(Downstream, OpCode::Pong, b"late"));
    assert_eq!(control(sim.seen(Downstream), OpCode::Pong), [b"two"]);
    let before = sim.redialed(usize::MAX);
    sim.send(Downstream, &frame(Downstream, OpCode::Ping, b"three"));
    assert_eq!(control(before.seen(Upstream), OpCode::Ping), [b"one"]);
    let after = sim.seen(Upstream);
    assert_eq!(control(after.clone(), OpCode::Ping), [b"three"]);
    assert!(control(after, OpCode::Pong).is_empty());
}

#[test]
fn the_edges_own_pings_go_on_and_reap_a_dead_client() {
    let mut policy = holding();
    policy.keepalive = Keepalive {
        ping_interval: Some(Duration::from_secs(10)),
        pong_timeout: Duration::from_secs(5),
        ..policy.keepalive
    };
    let mut sim = Sim::new(policy);
    sim.eof(Upstream);
    redials(&mut sim, Duration::from_secs(12));
    let pings = control(sim.seen(Downstream), OpCode::Ping);
    assert_eq!(pings.len(), 1);
    sim.send(Downstream, &frame(Downstream, OpCode::Pong, &pings[0]));
    redials(&mut sim, Duration::from_secs(12));
    assert!(sim.session.is_holding());
    redials(&mut sim, Duration::from_secs(5));
    assert_eq!(sim.session.summary().cause, Cause::PongMissing(Downstream));
}

#[test]
fn an_upstream_that_answers_no_ping_is_lost_and_the_next_is_pinged_anew() {
    let mut policy = holding();
    policy.keepalive.upstream_ping_interval = Some(Duration::from_secs(10));
    let mut sim = Sim::new(policy);
    sim.advance(Duration::from_secs(12));
    assert_eq!(control(sim.seen(Upstream), OpCode::Ping).len(), 1);
    sim.advance(Duration::from_secs(10));
    assert!(sim.session.is_holding());
    redials(&mut sim, Duration::from_secs(20));
    sim.redialed(usize::MAX);
    // The answer to the old one's ping is not waited for, and the next comes in its time.
    sim.advance(Duration::from_secs(12));
    let pings = control(sim.seen(Upstream), OpCode::Ping);
    assert_eq!(pings.len(), 1);
    sim.send(Upstream, &frame(Upstream, OpCode::Pong, &pings[0]));
    sim.advance(Duration::from_secs(9));
    assert!(!sim.session.is_holding());
    assert!(sim.seen(Downstream).is_empty());
}

#[test]
fn heartbeats_are_answered_while_the_upstream_is_away() {
    let mut policy = holding();
    policy.keepalive.heartbeat = Some(Heartbeat {
        request: "ping".to_owned(),
        reply: "pong".to_owned(),
    });
    let mut sim = Sim::new(policy);
    sim.eof(Upstream);
    sim.send(Downstream, &text("ping"));
    assert_eq!(heard(&sim), ["pong"]);
    sim.redialed(usize::MAX);
    assert!(said(&sim.wires.upstream).is_empty());
}

#[test]
fn a_client_that_closes_or_vanishes_is_held_no_longer() {
    let mut sim = Sim::new(holding());
    sim.eof(Upstream);
    sim.send(
        Downstream,
        &frame(Downstream, OpCode::Close, &close_payload(1000, "")),
    );
    assert_eq!(sim.close_code(Downstream), Some(1000));
    assert!(matches!(sim.ended(), Cause::Closed { by: Downstream, .. }));
    let mut sim = Sim::new(holding());
    sim.eof(Upstream);
    sim.eof(Downstream);
    assert_eq!(sim.ended(), Cause::Vanished(Downstream));
    let mut sim = Sim::new(holding());
    sim.eof(Upstream);
    sim.reset(Downstream);
    assert_eq!(sim.ended(), Cause::Vanished(Downstream));
}

#[test]
fn drain_and_revocation_end_a_held_session_at_once() {
    let mut sim = Sim::new(holding());
    sim.eof(Upstream);
    sim.session.handle_drain(sim.now);
    sim.drive();
    assert_eq!(sim.close_code(Downstream), Some(1012));
    assert_eq!(sim.session.summary().cause, Cause::Drained);
    let mut sim = Sim::new(holding());
    sim.eof(Upstream);
    sim.session.handle_revoked(sim.now);
    sim.drive();
    assert_eq!(sim.close_code(Downstream), Some(3000));
}

#[test]
fn a_dial_that_comes_too_late_changes_nothing() {
    let mut sim = Sim::new(holding());
    sim.eof(Upstream);
    sim.session.handle_drain(sim.now);
    sim.drive();
    sim.redialed(usize::MAX);
    assert_eq!(sim.session.summary().cause, Cause::Drained);
    assert!(sim.wires.upstream.taken.is_empty());
}

/// A session whose token was good, and whose upstream is there.
fn admitted(policy: Policy, life: Duration) -> Sim {
    let mut sim = Sim::new(policy);
    sim.send(Downstream, &text("the token"));
    let admitted = Admitted {
        expires: Some(sim.now + life),
        grants: Grants::default(),
    };
    let verdict = TokenVerdict::Admitted(admitted);
    sim.session.handle_token(verdict, sim.now);
    sim.session.handle_dialed(Ok(()), sim.now);
    sim.drive();
    sim.events.clear();
    sim
}

#[test]
fn a_token_that_expires_ends_a_held_session() {
    let mut policy = holding();
    policy.first_message = Some(first_message());
    policy.on_expiry = OnExpiry::Close { notice: None };
    let mut sim = admitted(policy, Duration::from_secs(10));
    sim.eof(Upstream);
    redials(&mut sim, Duration::from_secs(10));
    assert_eq!(sim.session.summary().cause, Cause::TokenExpired);
}

#[test]
fn the_first_message_is_said_again_to_each_upstream_with_another_mask() {
    let mut policy = holding();
    let mut first = first_message();
    first.forward = true;
    policy.first_message = Some(first);
    let mut sim = admitted(policy, MAX_HOLD);
    sim.send(Downstream, &text("one"));
    sim.eof(Upstream);
    let first = sim.redialed(5);
    assert_eq!(said(&first), ["the token", "one"]);
    // The second gets a part of it, and is gone.
    sim.send(Downstream, &text("two"));
    sim.reset(Upstream);
    let second = sim.redialed(usize::MAX);
    assert_eq!(second.taken.len(), 5);
    assert_eq!(said(&sim.wires.upstream), ["the token", "two"]);
    assert_ne!(first.taken[2..6], sim.wires.upstream.taken[2..6]);
}

#[test]
fn the_first_messages_are_said_again_and_later_ones_are_not() {
    let mut sim = Sim::new(with(|hold| hold.replay_messages = 2));
    for message in ["join", "subscribe", "chat"] {
        sim.send(Downstream, &text(message));
    }
    sim.eof(Upstream);
    sim.send(Downstream, &text("meanwhile"));
    sim.redialed(usize::MAX);
    let expected = ["join", "subscribe", "meanwhile"];
    assert_eq!(said(&sim.wires.upstream), expected);
    sim.eof(Upstream);
    sim.redialed(usize::MAX);
    assert_eq!(said(&sim.wires.upstream), ["join", "subscribe"]);
}

#[test]
fn a_message_to_be_said_again_survives_a_cut_in_its_middle() {
    let mut sim = Sim::new(with(|hold| hold.replay_messages = 1));
    let message = text("subscribe to everything");
    sim.take(Upstream, 9);
    sim.send(Downstream, &message[..15]);
    sim.eof(Upstream);
    sim.send(Downstream, &message[15..]);
    sim.redialed(usize::MAX);
    sim.send(Downstream, &text("next"));
    assert_eq!(
        said(&sim.wires.upstream),
        ["subscribe to everything", "next"]
    );
}

#[test]
fn a_session_that_cannot_be_set_up_again_is_not_held() {
    let mut sim = Sim::new(with(|hold| {
        hold.replay_messages = 3;
        hold.replay_buffer = 1000;
    }));
    sim.send(Downstream, &text(&"x".repeat(994)));
    sim.eof(Upstream);
    assert_eq!(sim.session.summary().cause, Cause::Vanished(Upstream));
    assert_eq!(sim.session.owned_memory(), 0);
}

#[test]
fn the_rest_of_a_message_that_the_lost_upstream_has_a_part_of_is_dropped() {
    let mut sim = Sim::new(holding());
    sim.send(
        Downstream,
        &fragment(Downstream, Fin::More, OpCode::Text, "é".as_bytes()),
    );
    sim.send(
        Downstream,
        &fragment(Downstream, Fin::More, OpCode::Continuation, &[0xc3])[..7],
    );
    sim.eof(Upstream);
    sim.send(
        Downstream,
        &fragment(Downstream, Fin::Final, OpCode::Continuation, &[0xa9]),
    );
    sim.send(Downstream, &text("whole"));
    sim.redialed(usize::MAX);
    assert_eq!(said(&sim.wires.upstream), ["whole"]);
    let tally = sim.session.summary().tallies.downstream;
    assert_eq!((tally.messages, tally.dropped), (1, 1));
}

#[test]
fn the_client_is_told_when_there_is_room_and_no_lie() {
    let policy = with(|hold| {
        hold.notice = Some("held".to_owned());
        hold.resume_notice = Some("resumed".to_owned());
    });
    let mut sim = Sim::new(policy.clone());
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"hello"));
    sim.eof(Upstream);
    assert_eq!(heard(&sim), ["hello", "held"]);
    sim.redialed(usize::MAX);
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"again"));
    assert_eq!(heard(&sim), ["hello", "held", "resumed", "again"]);

    // One that is behind hears it when it has caught up, or not at all when it is over.
    let mut policy = policy;
    policy.backpressure.high_watermark = 1000;
    let mut sim = Sim::new(policy);
    sim.take(Downstream, 0);
    let big = "x".repeat(996);
    sim.send(Upstream, &frame(Upstream, OpCode::Text, big.as_bytes()));
    sim.session.handle_reset(Upstream, sim.now);
    sim.take(Downstream, usize::MAX);
    assert_eq!(heard(&sim), [&big, "held"]);
    sim.redialed(usize::MAX);
    sim.take(Downstream, 0);
    sim.send(Upstream, &frame(Upstream, OpCode::Text, big.as_bytes()));
    sim.session.handle_reset(Upstream, sim.now);
    sim.redialed(usize::MAX);
    sim.take(Downstream, usize::MAX);
    assert_eq!(heard(&sim), [&big, "held", "resumed", &big]);
}

#[test]
fn an_upstream_that_comes_and_goes_does_not_renew_the_hold() {
    let mut sim = Sim::new(holding());
    let began = sim.now;
    sim.eof(Upstream);
    for _ in 0..1000 {
        if !sim.session.is_holding() {
            break;
        }
        redials(&mut sim, Duration::from_secs(1));
        if sim.session.is_holding() {
            sim.redialed(usize::MAX);
            sim.eof(Upstream);
        }
    }
    assert_eq!(sim.session.summary().cause, Cause::HoldOver(Lost::Vanished));
    assert_eq!(sim.now - began, MAX_HOLD);
    assert!(sim.session.summary().holds.times >= 30);
}

#[test]
fn an_upstream_that_lasted_renews_the_hold() {
    let mut sim = Sim::new(holding());
    sim.eof(Upstream);
    redials(&mut sim, MAX_HOLD - MOMENT);
    sim.redialed(usize::MAX);
    sim.advance(LASTING);
    sim.eof(Upstream);
    assert_eq!(sim.session.held_until(), Some(sim.now + MAX_HOLD));
}

#[test]
fn a_redial_waits_for_the_verdict_on_a_new_token() {
    let mut policy = holding();
    let mut places = Places::default();
    policy.inspection = Some(Inspection {
        refresh: Some(Refresh {
            field: at(&mut places, "/type"),
            equals: "refresh".to_owned(),
            token: at(&mut places, "/token"),
            reply: Some("refreshed".to_owned()),
        }),
        places,
        rules: None,
    });
    let refresh = r#"{"type":"refresh","token":"new"}"#;
    let asked = Event::VerifyRefresh("new".into());
    let verdict = || TokenVerdict::Admitted(Admitted::default());
    // The upstream is lost while the verdict is waited for.
    let mut sim = Sim::new(policy.clone());
    sim.send(Downstream, &text(refresh));
    sim.eof(Upstream);
    sim.advance(Duration::from_secs(1));
    assert_eq!(sim.events, [asked]);
    sim.session.handle_refreshed(verdict(), sim.now);
    sim.drive();
    assert_eq!(sim.events.last(), Some(&Event::Redial));
    assert_eq!(heard(&sim), ["refreshed"]);
    // The new token comes while the upstream is away.
    let mut sim = Sim::new(policy);
    sim.eof(Upstream);
    sim.advance(Duration::from_secs(1));
    sim.send(Downstream, &text(refresh));
    sim.send(Downstream, &text(r#"{"type":"chat"}"#));
    sim.session.handle_refreshed(verdict(), sim.now);
    sim.drive();
    assert_eq!(sim.events.len(), 2);
    sim.redialed(usize::MAX);
    assert_eq!(said(&sim.wires.upstream), [r#"{"type":"chat"}"#]);
}

#[derive(Clone, Debug)]
enum Step {
    Say(usize, usize),
    Ping,
    Take(usize),
    Lose,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..60_usize, 1..4_usize).prop_map(|(size, parts)| Step::Say(size, parts)),
        1 => Just(Step::Ping),
        3 => (0..80_usize).prop_map(Step::Take),
        2 => Just(Step::Lose),
        1 => Just(Step::Wait),
    ]
}

/// Message `n`, as long as wanted, in so many parts.
fn message(n: usize, size: usize, parts: usize) -> (String, Vec<u8>) {
    let said = format!("{n}:{}", "x".repeat(size));
    let part = said.len().div_ceil(parts);
    let chunks: Vec<_> = said.as_bytes().chunks(part).collect();
    let mut bytes = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        let opcode = if at == 0 {
            OpCode::Text
        } else {
            OpCode::Continuation
        };
        let fin = if at + 1 == chunks.len() {
            Fin::Final
        } else {
            Fin::More
        };
        bytes.extend(fragment(Downstream, fin, opcode, chunk));
    }
    (said, bytes)
}

/// The whole messages that an upstream has got. Panics when its stream is broken.
fn whole(wire: &Wire) -> Vec<String> {
    let (mut whole, mut open) = (Vec::new(), None);
    for seen in wire.seen(Upstream) {
        let text = String::from_utf8(seen.payload).unwrap();
        let so_far = match seen.opcode {
            OpCode::Text => {
                assert_eq!(open, None);
                text
            }
            OpCode::Continuation => open.take().expect("an open message") + text.as_str(),
            _ => continue,
        };
        match seen.fin {
            Fin::Final => whole.push(so_far),
            Fin::More => open = Some(so_far),
        }
    }
    whole
}

proptest! {
    #[test]
    fn each_upstream_hears_whole_messages_once_and_in_order(
        steps in prop::collection::vec(step(), 1..60),
        replayed in 0..4_u32,
        slice in 1..50_usize,
    ) {
        let mut sim = Sim::new(with(|hold| {
            hold.replay_messages = replayed;
            hold.buffer = 400;
        }));
        sim.slice = slice;
        sim.take(Upstream, 0);
        let (mut sent, mut wires) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Say(size, parts) => {
                    let (text, bytes) = message(sent.len(), size, parts);
                    sent.push(text);
                    sim.send(Downstream, &bytes);
                }
                Step::Ping => sim.send(Downstream, &frame(Downstream, OpCode::Ping, b"?")),
                Step::Take(n) => sim.take(Upstream, n),
                Step::Lose if sim.session.is_holding() => wires.push(sim.redialed(0)),
                Step::Lose => sim.reset(Upstream),
                Step::Wait => sim.advance(MOMENT),
            }
        }
        if sim.session.is_holding() {
            wires.push(sim.redialed(0));
        }
        sim.take(Upstream, usize::MAX);
        let replayed = replayed as usize;
        let mut next = 0;
        let all = wires.iter().chain([&sim.wires.upstream]);
        for wire in all {
            let heard = whole(wire);
            let again = heard.iter().take_while(|text| {
                let n: usize = text.split(':').next().unwrap().parse().unwrap();
                n < next
            });
            let again = again.count();
            // What is heard again is the first messages, all in their order.
            prop_assert!(again <= replayed.min(next));
            prop_assert_eq!(&heard[..again], &sent[..again]);
            for text in &heard[again..] {
                let at = sent.iter().position(|sent| sent == text).unwrap();
                prop_assert!(at >= next, "{} twice or late", text);
                next = at + 1;
            }
        }
        // The last one has all of the first, and whatever nobody had a part of.
        let heard = whole(&sim.wires.upstream);
        let first = replayed.min(sent.len());
        prop_assert_eq!(&heard[..first], &sent[..first]);
        if let Some(newest) = sent.last()
            && wires.is_empty()
        {
            prop_assert_eq!(heard.last(), Some(newest));
        }
    }
}
