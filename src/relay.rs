//! Drives a [`Session`] over its two connections: the only hand-written `poll`.
//!
//! At a wake-up it reads where there is space, writes what is pending, forwards events and
//! meets the timer, and does it again while anything moved, for a bounded number of turns.
//! All progress lives in the session: dropping the future of [`Relay::next_event`] and
//! polling a new one loses nothing.
//!
//! Knows byte streams and the session, and nothing of TLS, HTTP or tokens.

mod gauge;
mod handle;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;
use tokio::time::{Sleep, sleep_until};

use crate::proto::session::{Event, Session};
use crate::proto::side::{Side, Sides};

pub use self::gauge::{Gauge, Shown};
pub use self::handle::Handle;
use self::handle::{Memory, Why};

/// Turns of the two legs in one wake-up, before other sessions have theirs.
const MAX_TURNS: u32 = 6;

/// Reads of one leg in a turn: the second mostly finds that there is no more.
const READS_PER_TURN: u32 = 2;

/// The worker's scratch buffer: as much as one read may take. Watermarks below it, which
/// is the rule, make reads smaller.
const SCRATCH_LEN: usize = 128 * 1024;

thread_local! {
    /// Lent to one pipe at a time, for the time of its reads and the writes behind them.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One connection, and the bytes that arrived on it before it came here.
#[derive(Debug)]
struct Leg<S> {
    stream: S,
    /// Boxed, since it is gone after the first wake-up.
    early: Option<Box<Bytes>>,
    /// Whether the stream took bytes that its socket may not have yet.
    unflushed: bool,
}

/// What became of one read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// Bytes came, or the end.
    Moved,
    /// Nothing is there yet; the leg wakes the task when something is.
    Dry,
    /// The session has no space, so the leg was not asked.
    Nowhere,
}

/// How far one leg has come in a wake-up.
struct Turn {
    /// Whether there may be something that it has not seen.
    is_due: bool,
    /// It had nothing to read and has remembered whom to wake: it is not asked again.
    is_dry: bool,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            is_due: true,
            is_dry: false,
        }
    }
}

/// A session and its connections.
#[derive(Debug)]
pub struct Relay<D, U> {
    session: Session,
    downstream: Leg<D>,
    upstream: Option<Leg<U>>,
    handle: Rc<Handle>,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Option<Instant>,
}

impl<D, U> Relay<D, U>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// A session on `downstream`, with the bytes that came behind its request head.
    pub fn new(session: Session, downstream: D, early: Bytes, handle: Rc<Handle>) -> Self {
        Self {
            session,
            downstream: Leg::new(downstream, early),
            upstream: None,
            handle,
            timer: None,
            armed: None,
        }
    }

    /// Adds the upstream leg, with the bytes that came behind its 101.
    pub fn connect(&mut self, upstream: U, early: Bytes) {
        self.upstream = Some(Leg::new(upstream, early));
    }

    /// Drops what there is of the upstream leg.
    pub fn disconnect(&mut self) {
        self.upstream = None;
    }

    /// The session, to answer its events.
    pub const fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Relays until the session needs something that is not on its two connections.
    pub async fn next_event(&mut self) -> Event {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let now = tokio::time::Instant::now().into_std();
        if let Some(policy) = self.handle.take_policy() {
            self.session.handle_policy(&policy, now);
        }
        match self.handle.take_ending() {
            None => {}
            Some(Why::Drained) => self.session.handle_drain(now),
            Some(Why::Revoked) => self.session.handle_revoked(now),
            Some(Why::CutOff) => self.session.handle_cut_off(now),
        }
        match self.handle.take_memory() {
            None => {}
            Some(Memory::Ample) => self.session.handle_relief(),
            Some(Memory::Short) => self.session.handle_shortage(now),
            Some(Memory::Gone) => {
                // The session forgets it, and the leg that is cut off has it to the end.
                self.handle.keep_stuck(self.session.unflushed());
                self.session.handle_overload(now);
            }
        }
        if self.handle.register(cx.waker()) {
            // The timer would wake the task that polled before.
            self.armed = None;
        }
        let mut scratch = SCRATCH.take();
        let polled = self.poll_turns(&mut scratch, now, cx);
        SCRATCH.set(scratch);
        let session = self.session.owned_memory() + self.session.unflushed();
        self.handle.own_beside_stuck(session);
        polled
    }

    /// Gives each leg a turn, and another one as long as something has happened that it has
    /// not seen.
    fn poll_turns(
        &mut self,
        scratch: &mut Vec<u8>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        let mut turns = Sides {
            downstream: Turn::default(),
            upstream: Turn::default(),
        };
        let mut from = Side::Downstream;
        for _ in 0..MAX_TURNS {
            if turns[from].is_due {
                let moved = self.pump(from, &mut turns[from], scratch, now, cx);
                turns[from.other()].is_due |= moved;
                if let Some(event) = self.session.poll_event() {
                    return Poll::Ready(event);
                }
            }
            from = from.other();
            if !turns.downstream.is_due && !turns.upstream.is_due {
                if !self.poll_timer(now, cx) {
                    return Poll::Pending;
                }
                turns.downstream.is_due = true;
                turns.upstream.is_due = true;
            }
        }
        // Peers that keep it busy hold no deadline up.
        self.poll_timer(now, cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads `from`, unless it is dry, and writes to the other leg. Whether anything moved.
    fn pump(
        &mut self,
        from: Side,
        turn: &mut Turn,
        scratch: &mut Vec<u8>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> bool {
        turn.is_due = false;
        if turn.is_dry {
            let written = self.write(from.other(), now, cx);
            if written {
                // What was left over from before may all have gone.
                reclaim(&mut self.session, from, scratch);
            }
            return written;
        }
        lend(&mut self.session, from, scratch);
        let mut moved = false;
        for _ in 0..READS_PER_TURN {
            let read = self.read(from, now, cx);
            moved |= read == Read::Moved;
            let written = self.write(from.other(), now, cx);
            moved |= written;
            // There may be more to read, or room for it now.
            turn.is_due = read != Read::Dry && (read == Read::Moved || written);
            turn.is_dry = read == Read::Dry;
            if read != Read::Moved {
                break;
            }
        }
        reclaim(&mut self.session, from, scratch);
        moved
    }

    fn read(&mut self, from: Side, now: Instant, cx: &mut Context<'_>) -> Read {
        match (from, &mut self.upstream) {
            (Side::Downstream, _) => self.downstream.read(&mut self.session, from, now, cx),
            (Side::Upstream, Some(upstream)) => upstream.read(&mut self.session, from, now, cx),
            (Side::Upstream, None) => Read::Nowhere,
        }
    }

    fn write(&mut self, to: Side, now: Instant, cx: &mut Context<'_>) -> bool {
        match (to, &mut self.upstream) {
            (Side::Downstream, _) => self.downstream.write(&mut self.session, to, now, cx),
            (Side::Upstream, Some(upstream)) => upstream.write(&mut self.session, to, now, cx),
            (Side::Upstream, None) => false,
        }
    }

    /// Meets the session's nearest deadline. Whether it was due.
    ///
    /// A deadline that moved away leaves the timer where it is: it fires early once, finds
    /// nothing due, and is set anew. So a message touches no timer.
    fn poll_timer(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.session.poll_timeout() else {
            self.armed = None;
            return false;
        };
        if deadline <= now {
            self.session.handle_timeout(now);
            return true;
        }
        if let Some(armed) = self.armed
            && armed > now
            && armed <= deadline
        {
            return false;
        }
        let at = tokio::time::Instant::from_std(deadline);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().reset(at);
        self.armed = Some(deadline);
        // Without a budget of its own the timer would not even take the waker when the
        // streams have used up the task's, and nobody would poll it again.
        if pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
            // It was due between the reading of the clock and here.
            self.armed = None;
            cx.waker().wake_by_ref();
        }
        false
    }
}

impl<D, U> Drop for Relay<D, U> {
    fn drop(&mut self) {
        self.handle.own(0);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Leg<S> {
    fn new(stream: S, early: Bytes) -> Self {
        Self {
            stream,
            early: (!early.is_empty()).then(|| Box::new(early)),
            unflushed: false,
        }
    }

    /// Reads once, if the session has space.
    fn read(
        &mut self,
        session: &mut Session,
        from: Side,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Read {
        let space = session.space(from);
        if space.is_empty() {
            return Read::Nowhere;
        }
        if let Some(early) = &mut self.early {
            let n = space.len().min(early.remaining());
            if let Some(space) = space.get_mut(..n) {
                early.copy_to_slice(space);
            }
            if early.is_empty() {
                self.early = None;
            }
            session.handle_filled(from, n, now);
            return Read::Moved;
        }
        let mut buf = ReadBuf::new(space);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
        let n = buf.filled().len();
        match read {
            Poll::Pending => return Read::Dry,
            Poll::Ready(Ok(())) if n > 0 => session.handle_filled(from, n, now),
            Poll::Ready(Ok(())) => session.handle_eof(from, now),
            // TLS without its close_notify: to a WebSocket an end like any other, since
            // only a Close ends it properly.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                session.handle_eof(from, now);
            }
            Poll::Ready(Err(_)) => session.handle_reset(from, now),
        }
        Read::Moved
    }

    /// Writes what is pending, flushes, and shuts down when it is time, until there is no more
    /// to do. Whether anything moved.
    fn write(
        &mut self,
        session: &mut Session,
        to: Side,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> bool {
        let (mut moved, mut blocked) = (false, false);
        loop {
            let pending = session.pending(to);
            if !pending.is_empty() && !blocked {
                match Pin::new(&mut self.stream).poll_write(cx, pending) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        session.handle_sent(to, n, now);
                        self.unflushed = true;
                        moved = true;
                    }
                    Poll::Ready(_) => {
                        session.handle_reset(to, now);
                        return true;
                    }
                    Poll::Pending => blocked = true,
                }
                continue;
            }
            if !self.unflushed {
                break;
            }
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    moved = true;
                    // Which may leave something more to be sent.
                    session.handle_flushed(to, now);
                }
                Poll::Ready(Err(_)) => {
                    self.unflushed = false;
                    session.handle_reset(to, now);
                    return true;
                }
                Poll::Pending => {
                    blocked = true;
                    break;
                }
            }
        }
        if blocked {
            session.handle_blocked(to, now);
        }
        moved | self.shut(session, to, now, cx)
    }

    fn shut(
        &mut self,
        session: &mut Session,
        to: Side,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> bool {
        if !session.can_shut(to) {
            return false;
        }
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Ready(Ok(())) => session.handle_shut(to),
            Poll::Ready(Err(_)) => session.handle_reset(to, now),
            Poll::Pending => return false,
        }
        true
    }
}

fn lend(session: &mut Session, from: Side, scratch: &mut Vec<u8>) {
    if scratch.is_empty() {
        *scratch = vec![0; SCRATCH_LEN];
    }
    *scratch = session.lend(from, mem::take(scratch)).unwrap_or_default();
}

fn reclaim(session: &mut Session, from: Side, scratch: &mut Vec<u8>) {
    // A message that was held whole may have made it longer; the worker does not keep that.
    if let Some(lent) = session.reclaim(from)
        && lent.len() == SCRATCH_LEN
    {
        *scratch = lent;
    }
}

#[cfg(test)]
mod tests;
