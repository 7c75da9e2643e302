//! A connection whose every read, write, flush and shutdown goes as the fuzz bytes say:
//! in full, in part, not now, or not at all. And the executor that goes with it: it polls
//! only what was woken, so that a wake-up that is forgotten is found.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use arbitrary::Arbitrary;
use tidegate::proto::session::Event;
use tidegate::proto::side::Side;
use tidegate::relay::{Handle, Relay};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::checker::Checker;

/// How one call goes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Turn {
    /// Everything.
    All,
    /// At most so many bytes, and at least one.
    Some(u8),
    /// Not now; whoever asked is woken when nothing else goes on.
    Wait,
    /// Not now, and whoever asked is woken at once.
    Yield,
    /// The connection is broken, from here on.
    Fail,
}

/// One connection; the test is its other end.
#[derive(Clone, Debug)]
pub struct Wire(pub Rc<RefCell<State>>);

/// What there is to know of a connection.
#[derive(Debug)]
pub struct State {
    /// Sent by the peer, not yet read.
    pub to_edge: VecDeque<u8>,
    /// Whether it ends then, or says nothing more.
    pub ends: bool,
    /// Everything the peer got.
    pub taken: Vec<u8>,
    /// The same, checked.
    pub seen: Checker,
    /// Whether a call has failed.
    pub broken: bool,
    /// Whether the edge ended its half.
    pub shut: bool,
    turns: VecDeque<Turn>,
    waiting: Vec<Waker>,
    moves: usize,
}

impl Wire {
    /// The connection to the peer on `side`, which sends `bytes` and then may end.
    pub fn new(side: Side, bytes: Vec<u8>, ends: bool, turns: Vec<Turn>) -> Self {
        Self(Rc::new(RefCell::new(State {
            to_edge: bytes.into(),
            ends,
            taken: Vec::new(),
            seen: Checker::new(side),
            broken: false,
            shut: false,
            turns: turns.into(),
            waiting: Vec::new(),
            moves: 0,
        })))
    }

    fn moves(&self) -> usize {
        self.0.borrow().moves
    }
}

impl State {
    fn turn(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        match self.turns.pop_front().unwrap_or(Turn::All) {
            Turn::All => Poll::Ready(Ok(usize::MAX)),
            Turn::Some(n) => Poll::Ready(Ok(usize::from(n).max(1))),
            Turn::Wait => {
                self.waiting.push(cx.waker().clone());
                Poll::Pending
            }
            Turn::Yield => {
                // The runtime's own way to say that others have their turn first.
                self.moves += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Fail => {
                self.broken = true;
                self.moves += 1;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        if state.to_edge.is_empty() && !state.ends {
            // Nothing will ever come, so there is nobody to remember.
            return Poll::Pending;
        }
        state.turn(cx).map_ok(|n| {
            let n = n.min(buf.remaining()).min(state.to_edge.len());
            buf.put_slice(&state.to_edge.make_contiguous()[..n]);
            state.to_edge.drain(..n);
            state.moves += 1;
        })
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        state.turn(cx).map_ok(|n| {
            let n = n.min(bytes.len());
            state.taken.extend_from_slice(&bytes[..n]);
            state.seen.push(&bytes[..n]);
            state.moves += 1;
            n
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().turn(cx).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        state.turn(cx).map_ok(|_| {
            assert!(!state.shut, "shut down twice");
            assert!(state.seen.is_closed(), "shut down before the Close");
            state.shut = true;
            state.moves += 1;
        })
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// So many deadlines are met before a session is told to stop: one whose peers are silent,
/// in the middle of a frame, may otherwise go on for ever.
const PATIENCE: u32 = 200;

/// Whether the session may wait for the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It must get along without.
    Stands,
    /// When nothing else goes on, it moves to the next deadline; where there is none, the
    /// session is told to stop.
    Moves,
}

/// Runs the relay to its next event. Each future is dropped after as many polls as `drops`
/// says, and the next one belongs to another task.
pub async fn next_event(
    relay: &mut Relay<Wire, Wire>,
    wires: [&Wire; 2],
    drops: &mut impl Iterator<Item = u8>,
    clock: Clock,
    stop: &Handle,
) -> Event {
    let mut waits = 0;
    for _ in 0..100_000 {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let polls = drops.next().map_or(usize::MAX, |n| usize::from(n).max(1));
        match poll_for(relay, wires, &flag, polls) {
            Outcome::Event(event) => return event,
            Outcome::Dropped => {}
            Outcome::Stuck => {
                assert_eq!(clock, Clock::Moves, "nobody will ever wake it: {relay:?}");
                waits += 1;
                let deadline = relay.session_mut().poll_timeout();
                let Some(deadline) = deadline.filter(|_| waits != PATIENCE) else {
                    stop.drain();
                    let woken = flag.0.load(Ordering::Relaxed);
                    assert!(woken, "stop wakes nobody: {relay:?}");
                    continue;
                };
                let now = tokio::time::Instant::now().into_std();
                tokio::time::advance(deadline.saturating_duration_since(now)).await;
                // Timers fire at the next whole millisecond.
                tokio::time::advance(std::time::Duration::from_millis(1)).await;
                let woken = flag.0.load(Ordering::Relaxed);
                assert!(woken, "the timer wakes nobody: {relay:?}");
            }
        }
    }
    panic!("no end: {relay:?}");
}

enum Outcome {
    Event(Event),
    Dropped,
    Stuck,
}

fn poll_for(
    relay: &mut Relay<Wire, Wire>,
    wires: [&Wire; 2],
    flag: &Arc<Flag>,
    polls: usize,
) -> Outcome {
    let waker = Waker::from(Arc::clone(flag));
    for wire in wires {
        // Whoever asked before is gone; this one must ask again for what it waits for.
        wire.0.borrow_mut().waiting.clear();
    }
    let mut next = pin!(relay.next_event());
    let mut idle = 0;
    for _ in 0..polls {
        if !flag.0.swap(false, Ordering::Relaxed) {
            let waiting: Vec<Waker> = wires
                .iter()
                .flat_map(|wire| std::mem::take(&mut wire.0.borrow_mut().waiting))
                .collect();
            if waiting.is_empty() {
                return Outcome::Stuck;
            }
            waiting.into_iter().for_each(Waker::wake);
            let woken = flag.0.swap(false, Ordering::Relaxed);
            assert!(woken, "only a task that is gone would be woken");
            idle = 0;
        }
        let before: usize = wires.iter().map(|wire| wire.moves()).sum();
        if let Poll::Ready(event) = next.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Outcome::Event(event);
        }
        let after: usize = wires.iter().map(|wire| wire.moves()).sum();
        idle = if after > before { 0 } else { idle + 1 };
        assert!(idle < 4, "it spins");
    }
    let nobody = wires.iter().all(|wire| wire.0.borrow().waiting.is_empty());
    if nobody && !flag.0.load(Ordering::Relaxed) {
        return Outcome::Stuck;
    }
    Outcome::Dropped
}
