//! One session between two wires, driven in the order that `tidegate::proto` prescribes,
//! with everything checked after each step that is true at all times.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::proto::cause::Cause;
use tidegate::proto::limits::{OnExcess, Quota};
use tidegate::proto::policy::Policy;
use tidegate::proto::seed::Seed;
use tidegate::proto::session::{Event, MaskKeys, Session, Summary};
use tidegate::proto::side::{Side, Sides};

use crate::checker::Checker;

/// Both legs.
pub const BOTH: [Side; 2] = [Side::Downstream, Side::Upstream];

/// More rounds than any input can keep busy.
const MANY: usize = 100_000;

const SCRATCH_LEN: usize = 128 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What lies between the edge and one peer.
#[derive(Debug)]
pub struct Wire {
    /// Sent by the peer, not yet read.
    pub to_edge: VecDeque<u8>,
    /// Whether the peer sends nothing more; taken when the edge has heard it.
    pub eof: bool,
    /// Bytes the peer still takes.
    pub capacity: usize,
    /// Whether what was taken stays in the sink (sealed records).
    pub flush_blocked: bool,
    /// Whether shutting down does not get through.
    pub shut_blocked: bool,
    /// What the peer got.
    pub seen: Checker,
    unflushed: bool,
    broken: bool,
}

/// The session and what is around it.
pub struct World {
    /// The session.
    pub session: Session,
    /// The clock.
    pub now: Instant,
    /// By leg.
    pub wires: Sides<Wire>,
    /// Asked by the session, not answered yet.
    pub asked: Option<Event>,
    /// Most bytes that one read moves.
    pub slice: usize,
    began: Instant,
    policy: Arc<Policy>,
    has_upstream: bool,
    ended: Option<Summary>,
}

impl World {
    /// A new session under `policy`.
    pub fn new(policy: Policy) -> Self {
        let (policy, now) = (Arc::new(policy), Instant::now());
        let keys = MaskKeys {
            first_message: [1, 2, 3, 4],
            close: [5, 6, 7, 8],
            seed: Seed(9),
        };
        let wire = |side| Wire {
            to_edge: VecDeque::new(),
            eof: false,
            capacity: usize::MAX,
            flush_blocked: false,
            shut_blocked: false,
            seen: Checker::new(side),
            unflushed: false,
            broken: false,
        };
        Self {
            session: Session::new(Arc::clone(&policy), keys, now),
            now,
            wires: Sides {
                downstream: wire(Side::Downstream),
                upstream: wire(Side::Upstream),
            },
            asked: None,
            slice: usize::MAX,
            began: now,
            has_upstream: policy.first_message.is_none(),
            policy,
            ended: None,
        }
    }

    /// The upstream leg is there from now on.
    pub fn connect(&mut self) {
        self.has_upstream = true;
    }

    /// The connection of `side` breaks.
    pub fn reset(&mut self, side: Side) {
        if self.exists(side) && !self.session.is_ended() {
            self.wires[side].broken = true;
            self.session.handle_reset(side, self.now);
        }
    }

    /// Moves bytes until nothing moves any more, and checks.
    pub fn drive(&mut self) {
        for _ in 0..MANY {
            let moved = self.pump(Side::Downstream) | self.pump(Side::Upstream);
            self.hear();
            self.check();
            if !moved {
                self.check_flow();
                return;
            }
        }
        panic!("no end of moving: {:?}", self.session);
    }

    /// Time passes, and every deadline in it is met when it is due.
    pub fn advance(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(deadline) = self.session.poll_timeout()
            && deadline <= end
        {
            self.meet(deadline);
        }
        self.now = end;
    }

    /// Meets the nearest deadline, if there is one.
    pub fn skip(&mut self) -> bool {
        let deadline = self.session.poll_timeout();
        if let Some(deadline) = deadline {
            self.meet(deadline);
        }
        deadline.is_some()
    }

    fn meet(&mut self, deadline: Instant) {
        self.now = self.now.max(deadline);
        for _ in 0..16 {
            self.session.handle_timeout(self.now);
            self.drive();
            if self.session.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("the same deadline again and again: {:?}", self.session);
    }

    /// One read from `from` and the writes to the other leg, as the relay does them.
    fn pump(&mut self, from: Side) -> bool {
        let to = from.other();
        let mut scratch = SCRATCH.take();
        scratch.resize(SCRATCH_LEN, 0);
        let back = self.session.lend(from, scratch);
        let mut moved = self.exists(from) && self.read(from);
        moved |= self.exists(to) && self.write(to);
        if let Some(scratch) = self.session.reclaim(from).or(back) {
            SCRATCH.set(scratch);
        }
        moved
    }

    fn exists(&self, side: Side) -> bool {
        side == Side::Downstream || self.has_upstream
    }

    fn read(&mut self, from: Side) -> bool {
        let wire = &mut self.wires[from];
        let space = self.session.space(from);
        if space.is_empty() {
            return false;
        }
        assert!(!wire.broken, "a broken leg is read");
        let n = space.len().min(wire.to_edge.len()).min(self.slice);
        space[..n].copy_from_slice(&wire.to_edge.make_contiguous()[..n]);
        wire.to_edge.drain(..n);
        if n > 0 {
            self.session.handle_filled(from, n, self.now);
        } else if std::mem::take(&mut wire.eof) {
            self.session.handle_eof(from, self.now);
        } else {
            return false;
        }
        true
    }

    fn write(&mut self, to: Side) -> bool {
        let (mut moved, mut blocked) = (false, false);
        loop {
            let (wire, pending) = (&mut self.wires[to], self.session.pending(to));
            if pending.is_empty() {
                break;
            }
            assert!(!wire.broken, "a broken leg is written to");
            let n = pending.len().min(wire.capacity);
            if n == 0 {
                blocked = true;
                break;
            }
            wire.seen.push(&pending[..n]);
            wire.capacity -= n;
            wire.unflushed = true;
            self.session.handle_sent(to, n, self.now);
            moved = true;
        }
        let wire = &mut self.wires[to];
        if wire.broken {
            wire.unflushed = false;
        } else if wire.unflushed && wire.flush_blocked {
            blocked = true;
        } else if wire.unflushed {
            wire.unflushed = false;
            self.session.handle_flushed(to, self.now);
            moved = true;
        }
        if blocked {
            self.session.handle_blocked(to, self.now);
        }
        let wire = &self.wires[to];
        if self.session.can_shut(to) && !wire.shut_blocked {
            assert!(wire.seen.is_closed(), "shut down before the Close");
            assert!(!wire.broken, "a broken leg is shut down");
            self.session.handle_shut(to);
            moved = true;
        }
        moved
    }

    fn hear(&mut self) {
        match self.session.poll_event() {
            Some(Event::Ended) => {
                assert!(self.ended.is_none(), "ended twice");
                self.ended = Some(self.session.summary());
                self.asked = None;
            }
            Some(event) => {
                assert!(self.ended.is_none(), "{event:?} after the end");
                self.asked = Some(event);
            }
            None => {}
        }
    }

    /// What is true at all times.
    fn check(&mut self) {
        let backpressure = &self.policy.backpressure;
        let first = self.policy.first_message.as_ref();
        // The forwarded first message, the reply and the notice come on top of the watermark.
        let mut extra = first.map_or(0, |first| first.max_size + 100);
        if self.policy.inspection.is_some() {
            // One message that is looked into is held besides.
            let size = usize::try_from(self.policy.limits.max_message_size).unwrap_or(usize::MAX);
            extra += size + size / 8 + 1024;
        }
        for side in BOTH {
            let buffered = self.session.buffered_amount(side);
            assert!(buffered <= backpressure.high_watermark + extra);
            assert!(!self.wires[side].broken || self.session.pending(side).is_empty());
        }
        assert!(self.session.owned_memory() <= 2 * (backpressure.high_watermark + extra));
        self.check_quota();
        assert_eq!(self.session.is_ended(), self.ended.is_some());
        if let Some(summary) = &self.ended {
            assert_eq!(*summary, self.session.summary(), "it changes after the end");
            assert_eq!(self.session.poll_timeout(), None);
            for side in BOTH {
                assert!(self.session.space(side).is_empty());
                assert!(self.session.pending(side).is_empty());
                assert!(!self.session.can_shut(side));
            }
        }
    }

    /// What peers send is read as long as nothing is in the way: no full sink, no quota, no
    /// question that waits for its answer.
    fn check_flow(&self) {
        let is_running = self.session.summary().cause == Cause::Internal;
        let is_open = |wire: &Wire| wire.capacity > 0 && !wire.flush_blocked;
        let open = BOTH.iter().all(|side| is_open(&self.wires[*side]));
        if !is_running || !open || self.asked.is_some() {
            return;
        }
        for side in BOTH {
            let wire = &self.wires[side];
            let unread = !wire.to_edge.is_empty() || wire.eof;
            assert!(
                !unread || !self.exists(side) || self.may_throttle(side),
                "{side:?} is not read: {:?}",
                self.session
            );
        }
    }

    fn may_throttle(&self, side: Side) -> bool {
        let limits = &self.policy.limits;
        let quotas = [&limits.messages, &limits.bytes, &Some(limits.control)];
        let throttles = |quota: &Quota| quota.on_excess == OnExcess::Throttle;
        side == Side::Downstream && quotas.into_iter().flatten().any(throttles)
    }

    /// No span admits more messages than the burst and the rate.
    fn check_quota(&self) {
        let Some(quota) = &self.policy.limits.messages else {
            return;
        };
        let passed = u128::from(self.session.summary().tallies.downstream.messages);
        let nanos = (self.now - self.began).as_nanos();
        let earned = nanos * u128::from(quota.rate.units.get()) / quota.rate.per.as_nanos();
        assert!(passed <= u128::from(quota.burst.get()) + earned + 1);
    }
}
