//! A whole session under any policy and any order of what can happen to it.
//!
//! After each step [`World`] checks what is true at all times; in the end everything that
//! was in the way is removed, and the session must have moved every byte and must end.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::proto::cause::DialFailure;
use tidegate::proto::session::{Admitted, Event, TokenVerdict};
use tidegate::proto::side::Side;
use tidegate_fuzz::frames::Piece;
use tidegate_fuzz::policies::AnyPolicy;
use tidegate_fuzz::world::{BOTH, World};

/// Of a good token; a step in time is at most 65 seconds.
const TOKEN_LIFE: Duration = Duration::from_secs(40);

#[derive(Arbitrary, Debug)]
enum Op {
    Client(Piece),
    Upstream(Piece),
    Eof(Leg),
    Reset(Leg),
    Block(Leg),
    Capacity(Leg, u8),
    Unlimited(Leg),
    Flush(Leg, bool),
    Shut(Leg, bool),
    Slice(u8),
    Advance(u16),
    Deadline,
    Token(bool),
    Dialed(Option<u8>),
    Drain,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Leg {
    Down,
    Up,
}

impl Leg {
    fn side(self) -> Side {
        match self {
            Self::Down => Side::Downstream,
            Self::Up => Side::Upstream,
        }
    }
}

fuzz_target!(|input: (AnyPolicy, Vec<Op>)| {
    let (AnyPolicy(policy), ops) = input;
    let mut world = World::new(policy);
    for op in &ops {
        apply(&mut world, op);
        world.drive();
    }
    finish(&mut world);
});

fn apply(world: &mut World, op: &Op) {
    match op {
        Op::Client(piece) => send(world, Side::Downstream, piece),
        Op::Upstream(piece) => send(world, Side::Upstream, piece),
        Op::Eof(leg) => world.wires[leg.side()].eof = true,
        Op::Reset(leg) => world.reset(leg.side()),
        Op::Block(leg) => world.wires[leg.side()].capacity = 0,
        Op::Capacity(leg, n) => world.wires[leg.side()].capacity = usize::from(*n),
        Op::Unlimited(leg) => world.wires[leg.side()].capacity = usize::MAX,
        Op::Flush(leg, blocked) => world.wires[leg.side()].flush_blocked = *blocked,
        Op::Shut(leg, blocked) => world.wires[leg.side()].shut_blocked = *blocked,
        Op::Slice(n) => world.slice = usize::from(*n).saturating_mul(7).max(1),
        Op::Advance(millis) => world.advance(Duration::from_millis(u64::from(*millis))),
        Op::Deadline => {
            world.skip();
        }
        Op::Token(good) => {
            if matches!(world.asked, Some(Event::VerifyToken(_))) {
                world.asked = None;
                answer_token(world, *good);
            }
        }
        Op::Dialed(failure) => {
            if world.asked == Some(Event::Dial) {
                world.asked = None;
                answer_dial(world, *failure);
            }
        }
        Op::Drain => world.session.handle_drain(world.now),
    }
}

fn send(world: &mut World, from: Side, piece: &Piece) {
    if !world.wires[from].eof {
        world.wires[from].to_edge.extend(piece.encode(from));
    }
}

fn answer_token(world: &mut World, good: bool) {
    let verdict = if good {
        TokenVerdict::Admitted(Admitted {
            expires: Some(world.now + TOKEN_LIFE),
            ..Admitted::default()
        })
    } else {
        TokenVerdict::Refused
    };
    world.session.handle_token(verdict, world.now);
}

fn answer_dial(world: &mut World, failure: Option<u8>) {
    let dialed = match failure.map(|n| n % 3) {
        None => {
            world.connect();
            Ok(())
        }
        Some(0) => Err(DialFailure::Unreachable),
        Some(1) => Err(DialFailure::TimedOut),
        Some(_) => Err(DialFailure::Refused),
    };
    world.session.handle_dialed(dialed, world.now);
}

/// Both peers read, answer and end from here on: so must the session.
fn finish(world: &mut World) {
    for side in BOTH {
        let wire = &mut world.wires[side];
        wire.capacity = usize::MAX;
        (wire.flush_blocked, wire.shut_blocked) = (false, false);
    }
    world.slice = usize::MAX;
    for _ in 0..20_000 {
        world.drive();
        if world.session.is_ended() {
            return;
        }
        if answer(world) {
            continue;
        }
        if BOTH
            .iter()
            .all(|side| world.wires[*side].to_edge.is_empty())
        {
            break;
        }
        assert!(
            world.skip(),
            "bytes wait and nobody moves them: {:?}",
            world.session
        );
    }
    for side in BOTH {
        world.wires[side].eof = true;
    }
    for _ in 0..20_000 {
        world.drive();
        if world.session.is_ended() {
            return;
        }
        assert!(
            answer(world) || world.skip(),
            "it does not end: {:?}",
            world.session
        );
    }
    panic!("no end: {:?}", world.session);
}

/// Gives the session what it asked for, if it did.
fn answer(world: &mut World) -> bool {
    match world.asked.take() {
        Some(Event::VerifyToken(_)) => answer_token(world, true),
        Some(_) => answer_dial(world, None),
        None => return false,
    }
    true
}
