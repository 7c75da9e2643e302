//! Sessions while memory is short, and when it is gone.

use std::time::Duration;

use crate::proto::cause::Cause;
use crate::proto::frame::{Fin, OpCode};
use crate::proto::side::Side::{self, Downstream, Upstream};
use crate::proto::sim::{Sim, fragment, frame, inspecting, policy};

const STALL: Duration = Duration::from_secs(60);
const HIGH: usize = 64 * 1024;

/// A client that takes nothing, and some of what the upstream sent on its way to it.
fn backlog(bytes: usize) -> Sim {
    let mut sim = Sim::new(policy());
    sim.take(Downstream, 0);
    sim.send(Upstream, &frame(Upstream, OpCode::Binary, &vec![7; bytes]));
    assert!(sim.session.owned_memory() >= bytes);
    sim
}

#[test]
fn a_short_session_takes_nothing_in_where_something_is_under_way() {
    let mut sim = backlog(20_000);
    sim.session.handle_shortage(sim.now);
    let message = frame(Upstream, OpCode::Binary, &[7; 1000]);
    sim.send(Upstream, &message);
    assert_eq!(sim.unread(Upstream), message.len());
    // The other way nothing is under way, and everything passes.
    let other = frame(Downstream, OpCode::Text, b"passes");
    sim.send(Downstream, &other);
    assert_eq!(sim.wires.upstream.taken, other);
    sim.take(Downstream, usize::MAX);
    assert_eq!(sim.unread(Upstream), 0);
    assert_eq!(sim.seen(Downstream).len(), 2);
    assert_eq!(sim.session.owned_memory(), 0);
}

#[test]
fn relief_has_it_read_again() {
    let mut sim = backlog(20_000);
    sim.session.handle_shortage(sim.now);
    sim.send(Upstream, &frame(Upstream, OpCode::Binary, &[7; 1000]));
    assert!(sim.unread(Upstream) > 0);
    sim.session.handle_relief();
    sim.drive();
    assert_eq!(sim.unread(Upstream), 0);
    sim.advance(STALL - Duration::from_millis(1));
    assert_eq!(sim.close_code(Upstream), None);
}

#[test]
fn half_a_message_that_is_held_does_not_wait_for_ever() {
    let mut sim = Sim::new(inspecting());
    let half = fragment(Downstream, Fin::More, OpCode::Text, &[b' '; 10_000]);
    sim.send(Downstream, &half);
    assert!(sim.session.owned_memory() >= 10_000);
    sim.session.handle_shortage(sim.now);
    sim.send(Downstream, &half);
    assert_eq!(sim.unread(Downstream), half.len());
    sim.advance(STALL / 2);
    // Told again, it has no more time.
    sim.session.handle_shortage(sim.now);
    sim.advance(STALL / 2);
    assert_eq!(sim.session.summary().cause, Cause::Overloaded);
    assert_eq!(sim.close_code(Downstream), Some(1013));
    assert_eq!(sim.close_code(Upstream), Some(1001));
    assert_eq!(sim.session.owned_memory(), 0);
}

#[test]
fn an_overloaded_session_lets_go_of_its_memory_at_once() {
    for bytes in [1, 5_000, HIGH - 10] {
        let mut sim = backlog(bytes);
        sim.session.handle_overload(sim.now);
        sim.drive();
        assert_eq!(sim.session.owned_memory(), 0, "{bytes}");
        assert_eq!(sim.session.summary().cause, Cause::Overloaded);
        // The client has not read what was before: it is cut off. The upstream hears why not.
        assert_eq!(sim.session.summary().close_codes.downstream, None);
        assert_eq!(sim.close_code(Upstream), Some(1001));
        sim.advance(Duration::from_secs(5));
        assert_eq!(sim.ended(), Cause::Overloaded);
    }
}

#[test]
fn a_client_whose_way_back_is_free_hears_1013() {
    let mut sim = Sim::new(policy());
    sim.take(Upstream, 0);
    sim.send(Downstream, &frame(Downstream, OpCode::Binary, &[7; 20_000]));
    sim.session.handle_overload(sim.now);
    sim.drive();
    assert_eq!(sim.close_code(Downstream), Some(1013));
    assert_eq!(sim.session.owned_memory(), 0);
    assert!(sim.wires.upstream.taken.is_empty(), "not a part of a frame");
    sim.eof(Downstream);
    assert_eq!(sim.ended(), Cause::Overloaded);
}

#[test]
fn nothing_follows_a_frame_that_is_cut_off() {
    let mut sim = Sim::new(policy());
    sim.take(Downstream, 5_000);
    sim.send(Upstream, &frame(Upstream, OpCode::Binary, &[7; 20_000]));
    sim.session.handle_overload(sim.now);
    sim.take(Downstream, usize::MAX);
    assert_eq!(sim.wires.downstream.taken.len(), 5_000);
    assert_eq!(sim.session.owned_memory(), 0);
}

#[test]
fn one_that_closes_already_lets_go_as_well() {
    let mut sim = backlog(20_000);
    sim.session.handle_drain(sim.now);
    sim.drive();
    assert!(sim.session.owned_memory() >= 20_000);
    sim.session.handle_overload(sim.now);
    sim.drive();
    assert_eq!(sim.session.owned_memory(), 0);
    assert_eq!(
        sim.session.summary().cause,
        Cause::Drained,
        "the first stands"
    );
}

#[test]
fn an_idle_session_is_told_in_vain() {
    let mut sim = Sim::new(policy());
    sim.session.handle_shortage(sim.now);
    for side in [Downstream, Upstream] {
        let message = frame(side, OpCode::Text, b"passes");
        sim.send(side, &message);
        let to: Side = side.other();
        assert_eq!(sim.wires[to].taken, message);
    }
    sim.session.handle_relief();
    assert_eq!(sim.session.poll_timeout(), None);
}
