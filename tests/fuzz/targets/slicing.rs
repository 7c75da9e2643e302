//! One byte stream from one peer, cut in two ways and taken in two ways by the other: the
//! cause, the close codes and the whole frames are the same.
//!
//! Text broken off by a bad byte is the one place where the cut shows: how much of that
//! frame had already gone through. So frames that did not get their end are not compared.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::proto::cause::Cause;
use tidegate::proto::frame::OpCode;
use tidegate::proto::limits::OnExcess;
use tidegate::proto::policy::OnSlowConsumer;
use tidegate::proto::side::Side;
use tidegate_fuzz::checker::Whole;
use tidegate_fuzz::frames::Piece;
use tidegate_fuzz::policies::AnyPolicy;
use tidegate_fuzz::world::{BOTH, World};

#[derive(Arbitrary, Debug)]
struct Input {
    policy: AnyPolicy,
    from_client: bool,
    pieces: Vec<Piece>,
    cuts: Vec<(u8, u8)>,
}

fuzz_target!(|input: Input| {
    let from = if input.from_client {
        Side::Downstream
    } else {
        Side::Upstream
    };
    let stream: Vec<u8> = input
        .pieces
        .iter()
        .flat_map(|piece| piece.encode(from))
        .collect();
    let mut policy = input.policy;
    remove_time(&mut policy);
    let whole = run(&policy, from, &stream, &[]);
    let cut = run(&policy, from, &stream, &input.cuts);
    assert_eq!(whole, cut);
});

/// The clock stands still, so nothing may wait for it; and how much is taken in between
/// must not decide what is dropped.
fn remove_time(AnyPolicy(policy): &mut AnyPolicy) {
    policy.first_message = None;
    policy.backpressure.on_slow_consumer = OnSlowConsumer::Throttle;
    let limits = &mut policy.limits;
    for quota in [&mut limits.messages, &mut limits.bytes] {
        quota.take_if(|quota| quota.on_excess == OnExcess::Throttle);
    }
    limits.control.on_excess = OnExcess::Close;
}

#[derive(Debug, PartialEq)]
struct Outcome {
    cause: Cause,
    closed: bool,
    frames: Vec<Whole>,
    answer: Option<Whole>,
}

fn run(AnyPolicy(policy): &AnyPolicy, from: Side, stream: &[u8], cuts: &[(u8, u8)]) -> Outcome {
    let mut world = World::new(policy.clone());
    let mut rest = stream;
    let mut cuts = cuts.iter().cycle();
    while let Some((size, capacity)) = cuts.next()
        && !rest.is_empty()
    {
        let (now, later) = rest.split_at(rest.len().min(1 + usize::from(*size) * 4));
        for side in BOTH {
            world.wires[side].capacity = usize::from(*capacity) * 8;
        }
        world.wires[from].to_edge.extend(now);
        world.drive();
        rest = later;
    }
    for side in BOTH {
        world.wires[side].capacity = usize::MAX;
    }
    world.wires[from].to_edge.extend(rest);
    world.drive();
    let is_close = |(opcode, _): &&Whole| *opcode == OpCode::Close;
    Outcome {
        cause: world.session.summary().cause,
        closed: world.wires[from].seen.is_closed(),
        // A Close cannot follow a frame broken off.
        frames: world.wires[from.other()]
            .seen
            .whole()
            .iter()
            .filter(|frame| !is_close(frame))
            .cloned()
            .collect(),
        answer: world.wires[from]
            .seen
            .whole()
            .iter()
            .find(is_close)
            .cloned(),
    }
}
