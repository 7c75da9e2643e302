//! The relay over connections whose every call may fall short, wait or fail, with futures
//! dropped after any number of polls.
//!
//! With peers that behave and calls that do not fail, every byte arrives although the
//! clock stands still. With any bytes and any calls, the session ends with a cause, what
//! the peers read is well-formed, nothing spins and no wake-up is forgotten.

#![no_main]

use std::rc::Rc;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate::proto::cause::Cause;
use tidegate::proto::frame::{Fin, OpCode};
use tidegate::proto::limits::{Limits, OnExcess};
use tidegate::proto::policy::{OnSlowConsumer, Policy};
use tidegate::proto::seed::Seed;
use tidegate::proto::session::{Admitted, Event, MaskKeys, Session, TokenVerdict};
use tidegate::proto::side::Side;
use tidegate::relay::{Handle, Relay};
use tidegate_fuzz::frames::{Piece, frame};
use tidegate_fuzz::policies::AnyPolicy;
use tidegate_fuzz::wire::{Clock, Turn, Wire, next_event};

#[derive(Arbitrary, Debug)]
struct Input {
    policy: AnyPolicy,
    peers: Peers,
    turns: [Vec<Turn>; 2],
    drops: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Peers {
    /// They send messages of these sizes, then Close.
    Behave([Vec<u16>; 2]),
    /// They send anything.
    DoAnything {
        pieces: [Vec<Piece>; 2],
        /// Whether each ends then, or stays silent.
        end: [bool; 2],
        /// After how many events the session is told to stop, if it is.
        stop: Option<u8>,
        /// Bytes of the client's that came with its request head.
        early: u8,
    },
}

/// Larger messages only make the runs slower: the watermarks are below.
const LARGEST: usize = 10_000;

fuzz_target!(|input: Input| {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(run(input));
});

async fn run(input: Input) {
    let AnyPolicy(policy) = input.policy;
    match input.peers {
        Peers::Behave(sizes) => behave(policy, sizes, input.turns, input.drops).await,
        Peers::DoAnything {
            pieces: [client, server],
            end,
            stop,
            early,
        } => {
            let encode = |pieces: Vec<Piece>, from| -> Vec<u8> {
                pieces.iter().flat_map(|piece| piece.encode(from)).collect()
            };
            let mut up = encode(client, Side::Downstream);
            let early = up.drain(..up.len().min(usize::from(early))).collect();
            let [client_turns, server_turns] = input.turns;
            let client = Wire::new(Side::Downstream, up, end[0], client_turns);
            let down = encode(server, Side::Upstream);
            let server = Wire::new(Side::Upstream, down, end[1], server_turns);
            anything(policy, [client, server], early, input.drops, stop).await;
        }
    }
}

async fn behave(mut policy: Policy, sizes: [Vec<u16>; 2], turns: [Vec<Turn>; 2], drops: Vec<u8>) {
    open_wide(&mut policy);
    let [up, down] = sizes;
    let up = messages(Side::Downstream, &up);
    let down = messages(Side::Upstream, &down);
    let [client_turns, server_turns] = turns.map(without_failures);
    let client = Wire::new(Side::Downstream, up.clone(), true, client_turns);
    let server = Wire::new(Side::Upstream, down.clone(), true, server_turns);
    let stop = Rc::new(Handle::default());
    let mut relay = Relay::new(
        session(policy),
        client.clone(),
        Bytes::new(),
        Rc::clone(&stop),
    );
    relay.connect(server.clone(), Bytes::new());
    let mut drops = drops.into_iter().cycle();
    let event = next_event(
        &mut relay,
        [&client, &server],
        &mut drops,
        Clock::Stands,
        &stop,
    )
    .await;
    assert_eq!(event, Event::Ended);
    assert!(matches!(
        relay.session_mut().summary().cause,
        Cause::Closed { .. }
    ));
    assert!(client.0.borrow().taken == down && server.0.borrow().taken == up);
    assert!(client.0.borrow().shut && server.0.borrow().shut);
}

async fn anything(
    policy: Policy,
    [client, server]: [Wire; 2],
    early: Vec<u8>,
    drops: Vec<u8>,
    stop_at: Option<u8>,
) {
    let asks = policy.first_message.is_some();
    let stop = Rc::new(Handle::default());
    let mut relay = Relay::new(
        session(policy),
        client.clone(),
        early.into(),
        Rc::clone(&stop),
    );
    if !asks {
        relay.connect(server.clone(), Bytes::new());
    }
    let mut drops = drops.into_iter().cycle();
    for events in 0..4 {
        if stop_at == Some(events) {
            stop.drain();
        }
        let wires = [&client, &server];
        let event = next_event(&mut relay, wires, &mut drops, Clock::Moves, &stop).await;
        let now = tokio::time::Instant::now().into_std();
        match event {
            Event::VerifyToken(_) => {
                relay
                    .session_mut()
                    .handle_token(TokenVerdict::Admitted(Admitted::default()), now);
            }
            Event::VerifyRefresh(_) => panic!("nothing is refreshed here"),
            Event::Dial => {
                relay.connect(server.clone(), Bytes::new());
                relay.session_mut().handle_dialed(Ok(()), now);
            }
            Event::Redial => panic!("nothing is held here"),
            Event::Ended => return,
        }
    }
    panic!("more events than there are: {relay:?}");
}

fn session(policy: Policy) -> Session {
    let keys = MaskKeys {
        first_message: [1, 2, 3, 4],
        close: [5, 6, 7, 8],
        seed: Seed(9),
    };
    let now = tokio::time::Instant::now().into_std();
    Session::new(policy.into(), keys, now)
}

/// Nothing but the watermarks is left of the policy.
fn open_wide(policy: &mut Policy) {
    policy.first_message = None;
    policy.limits = Limits {
        max_frame_size: u64::MAX,
        max_message_size: u64::MAX,
        max_upstream_frame_size: None,
        max_upstream_message_size: None,
        messages: None,
        bytes: None,
        ..policy.limits.clone()
    };
    policy.limits.control.on_excess = OnExcess::Close;
    policy.backpressure.on_slow_consumer = OnSlowConsumer::Throttle;
    let keepalive = &mut policy.keepalive;
    (keepalive.ping_interval, keepalive.idle_timeout) = (None, None);
    keepalive.max_lifetime = None;
}

fn messages(from: Side, sizes: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for size in sizes {
        let payload = vec![7; usize::from(*size) % LARGEST];
        bytes.extend_from_slice(&frame(from, Fin::Final, OpCode::Binary, &payload));
    }
    bytes.extend(frame(from, Fin::Final, OpCode::Close, b""));
    bytes
}

fn without_failures(turns: Vec<Turn>) -> Vec<Turn> {
    let is_good = |turn: &Turn| !matches!(turn, Turn::Fail);
    turns.into_iter().filter(is_good).collect()
}
