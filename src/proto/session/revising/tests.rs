//! Limits that change under a session, by a clock that jumps.

use std::time::Duration;

use super::*;
use crate::proto::cause::Cause;
use crate::proto::frame::{Fin, OpCode};
use crate::proto::limits::OnExcess;
use crate::proto::side::Side::{Downstream, Upstream};
use crate::proto::sim::{Sim, fragment, frame, inspecting, policy, quota};

const MOMENT: Duration = Duration::from_millis(1);

fn revise(sim: &mut Sim, policy: Policy) {
    sim.session.handle_policy(&Arc::new(policy), sim.now);
    sim.drive();
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(Downstream, OpCode::Text, payload)
}

/// Data frames that the upstream has got.
fn passed(sim: &Sim) -> usize {
    let seen = sim.seen(Upstream).into_iter();
    seen.filter(|seen| !seen.opcode.is_control()).count()
}

#[test]
fn a_new_size_holds_from_the_next_frame_on() {
    let mut sim = Sim::new(policy());
    let message = text(&[b'm'; 100]);
    let (begun, rest) = message.split_at(50);
    sim.send(Downstream, begun);
    let mut smaller = policy();
    smaller.limits.max_frame_size = 99;
    revise(&mut sim, smaller);
    sim.send(Downstream, rest);
    sim.send(Downstream, &text(&[b'm'; 99]));
    assert_eq!((passed(&sim), sim.close_code(Downstream)), (2, None));
    sim.send(Downstream, &text(&[b'm'; 100]));
    assert_eq!(sim.close_code(Downstream), Some(1009));
}

#[test]
fn a_frame_that_is_collected_whole_is_not_broken_by_a_new_size() {
    let mut sim = Sim::new(inspecting());
    let message = text(format!("{:?}", "m".repeat(8000)).as_bytes());
    let (begun, rest) = message.split_at(4000);
    sim.send(Downstream, begun);
    let mut smaller = inspecting();
    smaller.limits.max_message_size = 100;
    revise(&mut sim, smaller);
    sim.send(Downstream, rest);
    assert_eq!((passed(&sim), sim.close_code(Downstream)), (1, None));
    sim.send(Downstream, &text(&[b'm'; 101]));
    assert_eq!(sim.close_code(Downstream), Some(1009));
}

#[test]
fn a_message_under_way_is_held_to_the_new_size() {
    let mut sim = Sim::new(policy());
    let first = fragment(Downstream, Fin::More, OpCode::Text, &[b'm'; 60]);
    sim.send(Downstream, &first);
    let mut smaller = policy();
    smaller.limits.max_message_size = 100;
    revise(&mut sim, smaller);
    let second = fragment(Downstream, Fin::Final, OpCode::Continuation, &[b'm'; 41]);
    sim.send(Downstream, &second);
    assert_eq!(sim.close_code(Downstream), Some(1009));
}

#[test]
fn a_quota_that_stays_keeps_its_bucket_and_another_begins_full() {
    let mut strict = policy();
    strict.limits.messages = Some(quota(1, 2, OnExcess::Close));
    let mut sim = Sim::new(strict.clone());
    sim.send(Downstream, &text(b"m").repeat(2));
    let mut other_size = strict.clone();
    other_size.limits.max_frame_size = 50;
    revise(&mut sim, other_size);
    sim.send(Downstream, &text(b"m"));
    assert_eq!((passed(&sim), sim.close_code(Downstream)), (2, Some(1008)));

    let mut sim = Sim::new(strict.clone());
    sim.send(Downstream, &text(b"m").repeat(2));
    strict.limits.messages = Some(quota(1, 3, OnExcess::Close));
    revise(&mut sim, strict);
    sim.send(Downstream, &text(b"m").repeat(3));
    assert_eq!((passed(&sim), sim.close_code(Downstream)), (5, None));
    sim.send(Downstream, &text(b"m"));
    assert_eq!(sim.close_code(Downstream), Some(1008));
}

#[test]
fn a_client_that_waits_for_a_quota_that_is_gone_is_read_at_once() {
    let mut strict = policy();
    strict.limits.messages = Some(quota(1, 1, OnExcess::Throttle));
    let mut sim = Sim::new(strict);
    sim.send(Downstream, &text(b"m").repeat(5));
    assert_eq!(passed(&sim), 1);
    sim.advance(MOMENT);
    revise(&mut sim, policy());
    assert_eq!(passed(&sim), 5);
    assert_eq!(sim.session.poll_timeout(), None);
    let throttled = sim.session.summary().tallies.downstream.throttled;
    assert_eq!(throttled, MOMENT);
}

#[test]
fn all_but_the_limits_stays_as_the_session_was_born() {
    let mut born = policy();
    born.keepalive.idle_timeout = Some(Duration::from_secs(60));
    born.close_timeout = Duration::from_secs(7);
    born.limits.validate_utf8 = false;
    let mut sim = Sim::new(born.clone());
    let mut other = policy();
    other.limits.max_frame_size = 10;
    other.backpressure.high_watermark = 1;
    revise(&mut sim, other.clone());
    let kept = &*sim.session.policy;
    assert_eq!(kept.keepalive, born.keepalive);
    assert_eq!(kept.backpressure, born.backpressure);
    assert_eq!(kept.close_timeout, born.close_timeout);
    assert!(!kept.limits.validate_utf8);
    assert_eq!(kept.limits.max_frame_size, 10);
    sim.send(Downstream, &frame(Downstream, OpCode::Text, b"\xff"));
    assert_eq!(passed(&sim), 1);
    sim.advance(Duration::from_secs(60));
    assert_eq!(sim.close_code(Downstream), Some(3008));
}

#[test]
fn sessions_share_the_policy_of_those_that_begin_now() {
    let mut sim = Sim::new(policy());
    let mut other = policy();
    other.limits.max_frame_size = 10;
    let other = Arc::new(other);
    sim.session.handle_policy(&other, sim.now);
    assert!(Arc::ptr_eq(&sim.session.policy, &other));
}

#[test]
fn a_session_that_is_over_takes_no_policy() {
    let mut sim = Sim::new(policy());
    sim.session.handle_drain(sim.now);
    sim.drive();
    let mut other = policy();
    other.close_timeout = Duration::ZERO;
    other.limits.max_frame_size = 0;
    revise(&mut sim, other.clone());
    assert_eq!(sim.session.policy.limits, policy().limits);
    sim.eof(Downstream);
    sim.eof(Upstream);
    assert_eq!(sim.ended(), Cause::Drained);
    revise(&mut sim, other);
    assert_eq!(sim.session.policy.limits, policy().limits);
}
