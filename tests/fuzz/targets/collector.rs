//! Any first message in any fragments, with anything in between: what is verified is what was
//! sent, whole, and the upstream hears nothing of it.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidegate::proto::cause::{Cause, Misbehaviour};
use tidegate::proto::frame::{Fin, OpCode};
use tidegate::proto::policy::FirstMessage;
use tidegate::proto::session::Event;
use tidegate::proto::side::Side;
use tidegate_fuzz::frames::frame;
use tidegate_fuzz::policies::open;
use tidegate_fuzz::world::World;

/// The largest first message of these sessions.
const MAX_SIZE: usize = 300;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Where it is cut into fragments, and whether a ping stands there.
    cuts: Vec<(u16, bool)>,
    /// How much is read at a time.
    slice: u8,
    /// What comes behind it.
    behind: Vec<u8>,
    message: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let mut policy = open();
    policy.first_message = Some(FirstMessage {
        timeout: std::time::Duration::from_secs(10),
        max_size: MAX_SIZE,
        forward: false,
        reply: None,
    });
    let mut world = World::new(policy);
    world.slice = 1 + usize::from(input.slice);
    let mut cuts: Vec<(usize, bool)> = input
        .cuts
        .iter()
        .map(|(at, ping)| (usize::from(*at) % (input.message.len() + 1), *ping))
        .collect();
    cuts.truncate(20);
    cuts.sort_unstable();
    cuts.push((input.message.len(), false));
    let (mut start, last) = (0, cuts.len() - 1);
    let mut pings = 0;
    for (index, (at, ping)) in cuts.into_iter().enumerate() {
        let opcode = match index {
            0 => OpCode::Text,
            _ => OpCode::Continuation,
        };
        let fin = match index == last {
            true => Fin::Final,
            false => Fin::More,
        };
        let payload = &input.message[start..at];
        let to_edge = &mut world.wires.downstream.to_edge;
        to_edge.extend(frame(Side::Downstream, fin, opcode, payload));
        if ping {
            pings += 1;
            to_edge.extend(frame(Side::Downstream, Fin::Final, OpCode::Ping, b"now"));
        }
        start = at;
    }
    world.wires.downstream.to_edge.extend(&input.behind);
    world.drive();
    let summary = world.session.summary();
    match (input.message.len() <= MAX_SIZE, std::str::from_utf8(input.message)) {
        (true, Ok(text)) => {
            assert_eq!(world.asked, Some(Event::VerifyToken(text.into())));
            let pongs = world.wires.downstream.seen.whole().len();
            assert!(pongs <= pings, "pongs to nobody");
        }
        (true, Err(_)) => assert_eq!(
            summary.cause,
            Cause::Misbehaved(Side::Downstream, Misbehaviour::TextNotUtf8)
        ),
        (false, _) => assert!(matches!(
            summary.cause,
            Cause::FrameTooBig(Side::Downstream) | Cause::MessageTooBig(Side::Downstream)
        )),
    }
    assert!(world.wires.upstream.seen.whole().is_empty());
});
