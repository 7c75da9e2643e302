//! Tokens that expire or are revoked, by a clock that jumps.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::proto::close::CloseCode;
use crate::proto::frame::Fin;
use crate::proto::policy::{ExpiryNotice, OnSlowConsumer, Policy};
use crate::proto::seed::{Seed, Use};
use crate::proto::session::{Event, MaskKeys, TokenVerdict};
use crate::proto::side::Side::{Downstream, Upstream};
use crate::proto::sim::{SEED, Sim, first_message, fragment, frame, policy};

const LIFE: Duration = Duration::from_secs(300);
const BEFORE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

fn closing(notice: Option<Duration>) -> Policy {
    let mut policy = policy();
    policy.first_message = Some(first_message());
    policy.on_expiry = OnExpiry::Close {
        notice: notice.map(|before| ExpiryNotice {
            before,
            message: "expiring".to_owned(),
        }),
    };
    policy
}

/// A session whose token was good, and whose upstream is not there yet.
fn dialling(policy: Policy, life: Duration) -> Sim {
    let mut sim = Sim::new(policy);
    sim.send(Downstream, &frame(Downstream, OpCode::Text, b"token"));
    let admitted = Admitted {
        expires: Some(sim.now + life),
        ..Admitted::default()
    };
    let verdict = TokenVerdict::Admitted(admitted);
    sim.session.handle_token(verdict, sim.now);
    sim.drive();
    assert_eq!(sim.events.last(), Some(&Event::Dial));
    sim
}

fn connect(sim: &mut Sim) {
    sim.session.handle_dialed(Ok(()), sim.now);
    sim.drive();
}

fn relaying(policy: Policy, life: Duration) -> Sim {
    let mut sim = dialling(policy, life);
    connect(&mut sim);
    sim
}

/// The texts that the client has got.
fn heard(sim: &Sim) -> Vec<String> {
    let texts = sim.seen(Downstream).into_iter();
    texts
        .filter(|seen| !seen.opcode.is_control())
        .map(|seen| String::from_utf8(seen.payload).expect("text"))
        .collect()
}

fn end_both(sim: &mut Sim) -> Cause {
    sim.eof(Downstream);
    sim.eof(Upstream);
    sim.ended()
}

#[test]
fn a_session_ends_with_its_token_and_not_before() {
    let mut sim = relaying(closing(None), LIFE);
    sim.advance(LIFE - MOMENT);
    assert_eq!(sim.close_code(Downstream), None);
    sim.advance(MOMENT);
    assert_eq!(sim.close_code(Downstream), Some(3000));
    assert_eq!(sim.close_code(Upstream), Some(1001));
    assert_eq!(end_both(&mut sim), Cause::TokenExpired);
}

#[test]
fn a_token_that_is_ignored_from_there_on_ends_nothing() {
    let mut policy = closing(None);
    policy.on_expiry = OnExpiry::Ignore;
    let mut sim = relaying(policy, LIFE);
    assert_eq!(sim.session.poll_timeout(), None);
    sim.advance(10 * LIFE);
    assert_eq!(sim.close_code(Downstream), None);
}

#[test]
fn the_sooner_of_lifetime_and_expiry_ends_the_session() {
    // With its jitter.
    let lifetime = SEED.at_most(LIFE, Use::Lifetime, 0);
    for (life, cause, code) in [
        (lifetime + MOMENT, Cause::LifetimeOver, 1001),
        (lifetime - MOMENT, Cause::TokenExpired, 3000),
        (lifetime, Cause::TokenExpired, 3000),
    ] {
        let mut policy = closing(Some(BEFORE));
        policy.keepalive.max_lifetime = Some(LIFE);
        let mut sim = relaying(policy, life);
        sim.advance(lifetime.min(life) - MOMENT);
        assert_eq!(sim.close_code(Downstream), None);
        sim.advance(MOMENT);
        assert_eq!(sim.close_code(Downstream), Some(code));
        assert_eq!(end_both(&mut sim), cause);
    }
}

#[test]
fn a_token_that_expires_while_the_upstream_is_dialled_ends_the_session() {
    let mut sim = dialling(closing(None), MOMENT);
    sim.advance(MOMENT);
    assert_eq!(sim.close_code(Downstream), Some(3000));
    // The dial's own outcome comes too late.
    connect(&mut sim);
    assert_eq!(end_both(&mut sim), Cause::TokenExpired);
}

#[test]
fn a_token_that_expires_at_once_ends_the_session_at_once() {
    let mut sim = relaying(closing(Some(BEFORE)), Duration::ZERO);
    sim.advance(Duration::ZERO);
    assert_eq!(heard(&sim), [""; 0]);
    assert_eq!(end_both(&mut sim), Cause::TokenExpired);
}

#[test]
fn messages_move_no_deadline_of_a_token() {
    let mut sim = relaying(closing(Some(BEFORE)), LIFE);
    let deadline = sim.session.poll_timeout();
    assert_eq!(deadline, Some(sim.now + LIFE - BEFORE));
    for from in [Downstream, Upstream] {
        sim.send(from, &frame(from, OpCode::Text, b"message"));
        assert_eq!(sim.session.poll_timeout(), deadline);
    }
}

#[test]
fn the_client_is_told_once_that_its_token_expires() {
    let mut sim = relaying(closing(Some(BEFORE)), LIFE);
    sim.advance(LIFE - BEFORE - MOMENT);
    assert_eq!(heard(&sim), [""; 0]);
    sim.advance(MOMENT);
    assert_eq!(heard(&sim), ["expiring"]);
    sim.advance(BEFORE - MOMENT);
    assert_eq!(heard(&sim), ["expiring"]);
    assert_eq!(sim.seen(Upstream), []);
    sim.advance(MOMENT);
    assert_eq!(end_both(&mut sim), Cause::TokenExpired);
}

#[test]
fn the_notice_of_a_short_token_follows_the_reply() {
    let mut policy = closing(Some(BEFORE));
    policy.first_message = policy.first_message.map(|mut first| {
        first.reply = Some("ready".to_owned());
        first
    });
    let mut sim = dialling(policy, BEFORE / 2);
    sim.advance(MOMENT);
    assert_eq!(heard(&sim), [""; 0]);
    connect(&mut sim);
    assert_eq!(heard(&sim), ["ready", "expiring"]);
}

#[test]
fn the_notice_waits_for_the_end_of_the_upstreams_message() {
    let mut sim = relaying(closing(Some(BEFORE)), LIFE);
    sim.send(
        Upstream,
        &fragment(Upstream, Fin::More, OpCode::Text, b"one"),
    );
    sim.advance(LIFE - BEFORE);
    sim.send(Upstream, &frame(Upstream, OpCode::Ping, b"between"));
    let last = fragment(Upstream, Fin::Final, OpCode::Continuation, b"two");
    sim.send(Upstream, &last[..3]);
    assert_eq!(heard(&sim), ["one"]);
    // A message that begins in the same read comes after it.
    let rest = [&last[3..], &frame(Upstream, OpCode::Text, b"three")].concat();
    sim.send(Upstream, &rest);
    assert_eq!(heard(&sim), ["one", "two", "expiring", "three"]);
}

#[test]
fn the_notice_waits_for_a_client_that_does_not_read() {
    let policy = closing(Some(BEFORE));
    let high = policy.backpressure.high_watermark;
    let mut sim = relaying(policy, LIFE);
    sim.take(Downstream, 0);
    let message = frame(Upstream, OpCode::Binary, &[0; 1000]);
    sim.send(Upstream, &message.repeat(200));
    assert_eq!(sim.session.buffered_amount(Upstream), high);
    // The stall timeout is shorter than the token's life.
    sim.session.life.as_mut().expect("a token").notice = Some(sim.now);
    sim.session.timers.milestone = Some(sim.now);
    sim.session.handle_timeout(sim.now);
    assert_eq!(sim.session.buffered_amount(Upstream), high);
    sim.take(Downstream, usize::MAX);
    let texts = sim.seen(Downstream).into_iter();
    assert_eq!(texts.filter(|seen| seen.opcode == OpCode::Text).count(), 1);
    assert_eq!(sim.seen(Downstream).len(), 201);
}

#[test]
fn the_notice_follows_a_message_that_was_taken_out() {
    let mut policy = closing(Some(BEFORE));
    policy.backpressure.on_slow_consumer = OnSlowConsumer::Drop;
    let mut sim = relaying(policy, LIFE);
    sim.take(Downstream, 0);
    let message = frame(Upstream, OpCode::Binary, &[0; 4_000]);
    sim.send(Upstream, &message.repeat(30));
    let first = fragment(Upstream, Fin::More, OpCode::Binary, &[0; 4_000]);
    sim.send(Upstream, &first);
    sim.take(Downstream, usize::MAX);
    sim.advance(LIFE - BEFORE);
    assert!(sim.session.summary().tallies.upstream.dropped > 1);
    let texts = |sim: &Sim| {
        let seen = sim.seen(Downstream).into_iter();
        seen.filter(|seen| seen.opcode == OpCode::Text).count()
    };
    assert_eq!(texts(&sim), 0);
    let last = fragment(Upstream, Fin::Final, OpCode::Continuation, b"last");
    sim.send(Upstream, &last);
    assert_eq!(texts(&sim), 1);
}

#[test]
fn nothing_is_said_behind_a_close() {
    let mut sim = relaying(closing(Some(BEFORE)), LIFE);
    sim.send(
        Upstream,
        &fragment(Upstream, Fin::More, OpCode::Text, b"one"),
    );
    sim.advance(LIFE - BEFORE);
    let close = crate::proto::sim::close_payload(CloseCode::GOING_AWAY.get(), "");
    sim.send(Upstream, &frame(Upstream, OpCode::Close, &close));
    sim.advance(LIFE);
    assert_eq!(heard(&sim), ["one"]);
    assert_eq!(sim.seen(Downstream).len(), 2);
}

#[test]
fn a_revoked_token_ends_the_session_in_every_phase() {
    let before_the_token = Sim::new(closing(None));
    let mut awaiting_verdict = Sim::new(closing(None));
    awaiting_verdict.send(Downstream, &frame(Downstream, OpCode::Text, b"token"));
    let phases = [
        before_the_token,
        awaiting_verdict,
        dialling(closing(None), LIFE),
        relaying(closing(None), LIFE),
    ];
    for mut sim in phases {
        sim.session.handle_revoked(sim.now);
        sim.drive();
        assert_eq!(sim.close_code(Downstream), Some(3000));
        sim.session.handle_token(TokenVerdict::Refused, sim.now);
        connect(&mut sim);
        assert_eq!(end_both(&mut sim), Cause::TokenRevoked);
    }
}

#[test]
fn a_newer_token_replaces_the_deadlines_of_the_older() {
    let mut policy = closing(Some(BEFORE));
    policy.keepalive.max_lifetime = Some(3 * LIFE);
    let mut sim = relaying(policy, LIFE);
    let end = sim.now + SEED.at_most(3 * LIFE, Use::Lifetime, 0);
    for life in [2 * LIFE, 9 * LIFE] {
        sim.session.keep(Admitted {
            expires: Some(sim.now + life),
            ..Admitted::default()
        });
    }
    assert_eq!(sim.session.poll_timeout(), Some(end));
    sim.session.keep(Admitted::default());
    assert_eq!(sim.session.poll_timeout(), Some(end));
    sim.advance(3 * LIFE);
    assert_eq!(end_both(&mut sim), Cause::LifetimeOver);
}

#[test]
fn a_session_that_its_request_head_admitted_relays_at_once_and_ends_with_its_token() {
    let mut policy = closing(Some(BEFORE));
    let mut first = first_message();
    first.reply = Some("ready".to_owned());
    policy.first_message = Some(first);
    let mut sim = Sim::new(policy.clone());
    let admitted = Admitted {
        expires: Some(sim.now + LIFE),
        ..Admitted::default()
    };
    let keys = MaskKeys {
        first_message: [1; 4],
        close: [2; 4],
        seed: Seed(9),
    };
    sim.session = Session::admitted(Arc::new(policy), admitted, keys, sim.now);
    sim.send(Downstream, &frame(Downstream, OpCode::Text, b"first"));
    sim.send(Upstream, &frame(Upstream, OpCode::Text, b"second"));
    let seen = sim.seen(Upstream);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].payload, b"first");
    assert_eq!(heard(&sim), ["second"]);
    assert_eq!(sim.events, []);
    // The deadline of a first message that nobody waits for is none.
    sim.advance(LIFE - BEFORE);
    assert_eq!(heard(&sim), ["second", "expiring"]);
    sim.advance(BEFORE - MOMENT);
    assert_eq!(sim.close_code(Downstream), None);
    sim.advance(MOMENT);
    assert_eq!(sim.close_code(Downstream), Some(3000));
    assert_eq!(sim.close_code(Upstream), Some(1001));
}
