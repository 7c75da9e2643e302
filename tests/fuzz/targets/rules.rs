//! Any message under rules: what the scan finds is what another parser finds, and a session
//! does what the rules say, however the message is cut, and says nothing of it before.

#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Tree;
use tidegate::proto::cause::{Cause, Misbehaviour};
use tidegate::proto::frame::{Fin, OpCode};
use tidegate::proto::json::{Malformed, Value};
use tidegate::proto::rule::{Refusal, Verdict};
use tidegate::proto::seed::Seed;
use tidegate::proto::session::{Admitted, Event, MaskKeys, Session};
use tidegate::proto::side::Side;
use tidegate_fuzz::frames::frame;
use tidegate_fuzz::inspections::{POINTERS, grants, inspection};
use tidegate_fuzz::policies::open;
use tidegate_fuzz::world::World;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Where it is cut into fragments, and whether a ping stands there.
    cuts: Vec<(u16, bool)>,
    /// How much is read at a time.
    slice: u8,
    message: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    if let Ok(text) = std::str::from_utf8(input.message) {
        compare(text);
    }
    follow(&input);
});

/// The scan against serde_json.
fn compare(text: &str) {
    let (inspection, places) = inspection();
    let tree = serde_json::from_str::<Tree>(text);
    match inspection.places.scan(text) {
        Ok(found) => {
            let tree = tree.expect("another parser reads it, too");
            for (pointer, place) in POINTERS.iter().zip(places) {
                let (value, other) = (found.at(place), tree.pointer(pointer));
                assert!(is_same(value, other), "{pointer}: {value:?} {other:?}");
            }
        }
        Err(Malformed::Syntax | Malformed::Surrogate | Malformed::HugeNumber) => {
            assert!(tree.is_err(), "another parser reads it");
        }
        // It is JSON, and other parsers read it, each in its way.
        Err(_) => {}
    }
}

fn is_same(value: &Value<'_>, tree: Option<&Tree>) -> bool {
    match (value, tree) {
        (Value::Absent, None) | (Value::Null, Some(Tree::Null)) => true,
        (Value::Flag(flag), Some(Tree::Bool(other))) => flag == other,
        (Value::Text(text), Some(Tree::String(other))) => text == other,
        (Value::Number(number), Some(Tree::Number(other))) => {
            let number: f64 = number.parse().expect("a number");
            let other = other.as_f64().expect("a float");
            // serde_json may be off by some digits at the end.
            (number - other).abs() <= number.abs() * 1e-12 || number.abs() < 1e-300
        }
        (Value::Container, Some(Tree::Array(_) | Tree::Object(_))) => true,
        _ => false,
    }
}

/// A session against the rules.
fn follow(input: &Input<'_>) {
    let (mut policy, (inspection, _)) = (open(), inspection());
    let verdict = std::str::from_utf8(input.message)
        .map(|text| inspection.judge(text, &grants()))
        .ok();
    policy.inspection = Some(inspection);
    let mut world = World::new(policy.clone());
    let admitted = Admitted {
        grants: grants(),
        ..Admitted::default()
    };
    let keys = MaskKeys {
        first_message: [1, 2, 3, 4],
        close: [5, 6, 7, 8],
        seed: Seed(9),
    };
    world.session = Session::admitted(Arc::new(policy), admitted, keys, world.now);
    world.slice = 1 + usize::from(input.slice);
    let (mut sent, mut data) = (Vec::new(), Vec::new());
    let mut cuts: Vec<(usize, bool)> = input
        .cuts
        .iter()
        .map(|(at, ping)| (usize::from(*at) % (input.message.len() + 1), *ping))
        .collect();
    cuts.truncate(20);
    cuts.sort_unstable();
    cuts.push((input.message.len(), false));
    let (mut start, last) = (0, cuts.len() - 1);
    for (index, (at, ping)) in cuts.into_iter().enumerate() {
        let opcode = match index {
            0 => OpCode::Text,
            _ => OpCode::Continuation,
        };
        let fin = match index == last {
            true => Fin::Final,
            false => Fin::More,
        };
        let fragment = frame(Side::Downstream, fin, opcode, &input.message[start..at]);
        data.extend_from_slice(&fragment);
        sent.extend(fragment);
        if ping {
            sent.extend(frame(Side::Downstream, Fin::Final, OpCode::Ping, b"now"));
        }
        start = at;
    }
    let passed = |world: &World| {
        let frames = world.wires.upstream.seen.whole().iter();
        let data = frames.filter(|(opcode, _)| !opcode.is_control());
        data.flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>()
    };
    let (early, end) = sent.split_at(sent.len() - 1);
    world.wires.downstream.to_edge.extend(early);
    world.drive();
    assert_eq!(passed(&world), b"", "before its end");
    world.wires.downstream.to_edge.extend(end);
    world.drive();
    let cause = world.session.summary().cause;
    match verdict {
        None => {
            let rule = Misbehaviour::TextNotUtf8;
            assert_eq!(cause, Cause::Misbehaved(Side::Downstream, rule));
        }
        Some(Verdict::Allow(_)) => {
            assert_eq!(cause, Cause::Internal, "it goes on");
            assert_eq!(passed(&world), data);
            return;
        }
        Some(Verdict::Refuse(Refusal::Drop, _)) => assert_eq!(cause, Cause::Internal),
        Some(Verdict::Refuse(Refusal::Close, why)) => {
            assert_eq!(cause, Cause::MessageRefused(why));
        }
        Some(Verdict::Refresh(None)) => assert_eq!(cause, Cause::TokenRefused),
        Some(Verdict::Refresh(Some(token))) => {
            assert_eq!(world.asked, Some(Event::VerifyRefresh(token)));
        }
    }
    assert_eq!(passed(&world), b"");
    assert_eq!(world.session.owned_memory(), 0);
}
