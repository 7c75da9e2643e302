//! Every order in which a small conversation can reach the session, up to a depth.
//!
//! The world is as small as it can be and still meet every part of the session: a few frames
//! from each peer, watermarks of a few bytes, sockets that take one byte or all. From each
//! state each thing that can happen is tried; what was reached before on another way is not
//! followed twice. After each step the invariants hold, and from each state the session comes
//! to its end once the peers do.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::proto::frame::Header;
use crate::proto::sim::SEED;

/// What can happen between two calls of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The driver reads so many bytes of the peer's at most.
    Read(Side, usize),
    /// The socket takes so many bytes at most, and has them.
    Write(Side, usize),
    /// The socket takes everything, but keeps it back (sealed TLS records).
    Seal(Side),
    /// It has it now.
    Flush(Side),
    /// The peer ends its half.
    Eof(Side),
    /// The connection breaks.
    Reset(Side),
    /// The nearest deadline passes.
    Deadline,
    /// The operator wants the session to end.
    Drain,
}

const ALL: usize = usize::MAX;

/// Reading and writing in pieces of every kind.
const TRAFFIC: [Step; 12] = [
    Step::Read(Downstream, ALL),
    Step::Read(Downstream, 9),
    Step::Read(Downstream, 1),
    Step::Read(Upstream, ALL),
    Step::Read(Upstream, 1),
    Step::Write(Downstream, ALL),
    Step::Write(Downstream, 1),
    Step::Write(Upstream, ALL),
    Step::Write(Upstream, 1),
    Step::Seal(Downstream),
    Step::Flush(Downstream),
    Step::Deadline,
];

/// Everything that ends a session, between whole reads and writes.
const ENDINGS: [Step; 12] = [
    Step::Read(Downstream, ALL),
    Step::Read(Upstream, ALL),
    Step::Write(Downstream, ALL),
    Step::Write(Downstream, 1),
    Step::Write(Upstream, ALL),
    Step::Write(Upstream, 1),
    Step::Eof(Downstream),
    Step::Eof(Upstream),
    Step::Reset(Downstream),
    Step::Reset(Upstream),
    Step::Deadline,
    Step::Drain,
];

/// A conversation and how it stands.
struct World {
    session: Session,
    now: Instant,
    /// What each peer says.
    said: Sides<Vec<u8>>,
    /// How much of it was read.
    read: Sides<usize>,
    /// What each peer was sent.
    taken: Sides<Vec<u8>>,
    sealed: Sides<bool>,
    eof: Sides<bool>,
    scratch: Option<Vec<u8>>,
    ended: usize,
}

impl World {
    fn new(policy: &Arc<Policy>, said: &Sides<Vec<u8>>, begin: Instant) -> Self {
        let keys = MaskKeys {
            first_message: [1, 2, 3, 4],
            close: [5, 6, 7, 8],
            seed: SEED,
        };
        Self {
            session: Session::new(Arc::clone(policy), keys, begin),
            now: begin,
            said: said.clone(),
            read: both(0),
            taken: both(Vec::new()),
            sealed: both(false),
            eof: both(false),
            scratch: Some(vec![0; 256]),
            ended: 0,
        }
    }

    /// Whether the step can be taken, and so was.
    fn step(&mut self, step: Step) -> bool {
        let was_possible = match step {
            Step::Read(from, most) => self.read(from, most),
            Step::Write(to, most) => self.write(to, most),
            Step::Seal(to) => self.seal(to),
            Step::Flush(to) => self.flush(to),
            Step::Eof(side) => self.end_of(side),
            Step::Reset(side) => {
                self.session.handle_reset(side, self.now);
                true
            }
            Step::Deadline => self.deadline(),
            Step::Drain => {
                self.session.handle_drain(self.now);
                true
            }
        };
        for side in BOTH {
            self.session.reclaim(side);
        }
        if self.session.poll_event() == Some(Event::Ended) {
            self.ended += 1;
        }
        was_possible
    }

    fn read(&mut self, from: Side, most: usize) -> bool {
        if let Some(scratch) = self.scratch.take() {
            self.scratch = self.session.lend(from, scratch);
        }
        let rest = &self.said[from][self.read[from]..];
        let space = self.session.space(from);
        let n = rest.len().min(space.len()).min(most);
        space[..n].copy_from_slice(&rest[..n]);
        if n > 0 {
            self.read[from] += n;
            self.session.handle_filled(from, n, self.now);
        }
        if let Some(scratch) = self.session.reclaim(from) {
            self.scratch = Some(scratch);
        }
        n > 0
    }

    fn write(&mut self, to: Side, most: usize) -> bool {
        if self.sealed[to] || !self.take(to, most) {
            return self.shut(to);
        }
        self.session.handle_flushed(to, self.now);
        if !self.session.pending(to).is_empty() {
            self.session.handle_blocked(to, self.now);
        }
        self.shut(to);
        true
    }

    fn take(&mut self, to: Side, most: usize) -> bool {
        let pending = self.session.pending(to);
        let n = pending.len().min(most);
        self.taken[to].extend_from_slice(&pending[..n]);
        if n > 0 {
            self.session.handle_sent(to, n, self.now);
        }
        n > 0
    }

    fn seal(&mut self, to: Side) -> bool {
        if self.sealed[to] || !self.take(to, ALL) {
            return false;
        }
        self.sealed[to] = true;
        self.session.handle_blocked(to, self.now);
        true
    }

    fn flush(&mut self, to: Side) -> bool {
        if !std::mem::take(&mut self.sealed[to]) {
            return false;
        }
        self.session.handle_flushed(to, self.now);
        self.shut(to);
        true
    }

    fn shut(&mut self, to: Side) -> bool {
        let can_shut = self.session.can_shut(to);
        if can_shut {
            self.session.handle_shut(to);
        }
        can_shut
    }

    /// Also before all was read that the peer said: the session need not rely on that order.
    fn end_of(&mut self, side: Side) -> bool {
        if self.eof[side] {
            return false;
        }
        self.eof[side] = true;
        self.session.handle_eof(side, self.now);
        true
    }

    fn deadline(&mut self) -> bool {
        let Some(deadline) = self.session.poll_timeout() else {
            return false;
        };
        self.now = self.now.max(deadline);
        self.session.handle_timeout(self.now);
        true
    }

    /// The state, whichever way led there. `peak` and the like count the way and are part of
    /// it all the same: rather a state too many than one too few.
    fn state(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.session).hash(&mut hasher);
        for side in BOTH {
            (self.read[side], self.sealed[side], self.eof[side]).hash(&mut hasher);
            self.taken[side].hash(&mut hasher);
        }
        hasher.finish()
    }

    /// What is true at all times.
    fn check(&self) {
        for side in BOTH {
            self.check_sent(side);
            let most = self.session.policy.backpressure.high_watermark;
            assert!(self.session.buffered_amount(side) <= most);
        }
        let session = &self.session;
        assert!(self.ended <= 1);
        assert_eq!(session.is_ended(), self.ended == 1);
        if session.is_ended() {
            assert!(BOTH.iter().all(|side| session.pending(*side).is_empty()));
            assert_eq!(session.poll_timeout(), None);
        }
    }

    /// The peer on `to` got frames that are whole but for the last, of which those that are
    /// not the edge's own came from the other peer, in that order and unchanged, and nothing
    /// behind a Close.
    fn check_sent(&self, to: Side) {
        let (mut sent, mut said) = (&self.taken[to][..], &self.said[to.other()][..]);
        let mut closed = false;
        while !sent.is_empty() {
            assert!(!closed, "something behind a Close");
            let decoded = Header::decode(sent, to.other()).expect("a legal header");
            let Some((header, at)) = decoded else { break };
            let end = sent
                .len()
                .min(at + usize::try_from(header.len).expect("short"));
            let (frame, rest) = sent.split_at(end);
            closed = header.opcode == OpCode::Close;
            sent = rest;
            match said.strip_prefix(frame) {
                Some(rest) => said = rest,
                None => assert!(closed || header.opcode == OpCode::Ping, "{frame:?}"),
            }
        }
    }

    /// Both peers take everything and end: so must the session, without waiting for a deadline.
    fn finish(&mut self) {
        for _ in 0..200 {
            if self.session.is_ended() {
                self.check();
                return;
            }
            let mut moved = false;
            for side in BOTH {
                moved |= self.step(Step::Flush(side));
                moved |= self.step(Step::Write(side, ALL));
                moved |= self.step(Step::Read(side, ALL));
            }
            if !moved {
                for side in BOTH {
                    moved |= self.step(Step::Eof(side));
                }
            }
            assert!(moved, "it is stuck");
            self.check();
        }
        panic!("no end: {:?}", self.session);
    }
}

fn both<T: Clone>(value: T) -> Sides<T> {
    Sides {
        downstream: value.clone(),
        upstream: value,
    }
}

fn cramped() -> Policy {
    let mut policy = policy();
    policy.backpressure.high_watermark = 24;
    policy.backpressure.low_watermark = 8;
    policy.keepalive.ping_interval = Some(Duration::from_secs(20));
    policy
}

/// Follows every way of at most `depth` steps. The number of states.
fn explore(policy: Policy, said: &Sides<Vec<u8>>, steps: &[Step], depth: usize) -> usize {
    let (policy, begin) = (Arc::new(policy), Instant::now());
    let (mut seen, mut ways) = (HashSet::new(), vec![Vec::new()]);
    for _ in 0..depth {
        let mut longer = Vec::new();
        for way in ways {
            for &step in steps {
                let mut world = World::new(&policy, said, begin);
                for step in &way {
                    world.step(*step);
                }
                if world.session.is_ended() || !world.step(step) {
                    continue;
                }
                let way: Vec<Step> = [&way[..], &[step]].concat();
                let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    world.check();
                    world.state()
                }));
                let state = checked.unwrap_or_else(|_| panic!("after {way:?}"));
                if seen.insert(state) {
                    let ends = std::panic::AssertUnwindSafe(|| world.finish());
                    std::panic::catch_unwind(ends).unwrap_or_else(|_| panic!("after {way:?}"));
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    seen.len()
}

fn conversation() -> Sides<Vec<u8>> {
    let client = [
        frame(Downstream, OpCode::Text, b"ab"),
        frame(Downstream, OpCode::Ping, b""),
        frame(Downstream, OpCode::Binary, &[0; 20]),
        frame(Downstream, OpCode::Close, &close_payload(1000, "")),
    ];
    let upstream = [
        fragment(Upstream, Fin::More, OpCode::Text, b"abc"),
        fragment(Upstream, Fin::Final, OpCode::Continuation, &[b'd'; 30]),
        frame(Upstream, OpCode::Close, &close_payload(4000, "")),
    ];
    Sides {
        downstream: client.concat(),
        upstream: upstream.concat(),
    }
}

#[test]
fn whatever_the_order_the_invariants_hold_and_the_session_ends() {
    // So many states that what is explored is known to be more than a handful.
    for (steps, least) in [(TRAFFIC, 10_000), (ENDINGS, 15_000)] {
        let states = explore(cramped(), &conversation(), &steps, 6);
        assert!(states > least, "{states}");
    }
}
