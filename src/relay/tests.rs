//! The relay over streams that are short, pending and failing, and its clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::advance;

use super::*;
use crate::proto::cause::Cause;
use crate::proto::frame::OpCode;
use crate::proto::policy::{ExpiryNotice, OnExpiry, Policy};
use crate::proto::seed::Seed;
use crate::proto::session::{Admitted, MaskKeys, TokenVerdict};
use crate::proto::sim::{close_payload, first_message, frame, policy};
use Side::{Downstream, Upstream};

const BOTH: [Side; 2] = [Downstream, Upstream];

const KEYS: MaskKeys = MaskKeys {
    first_message: [1, 2, 3, 4],
    close: [5, 6, 7, 8],
    seed: Seed(9),
};

fn session(policy: Policy) -> Session {
    let now = tokio::time::Instant::now().into_std();
    Session::new(Arc::new(policy), KEYS, now)
}

fn message(from: Side) -> Vec<u8> {
    frame(from, OpCode::Text, b"a small message")
}

fn close(from: Side) -> Vec<u8> {
    frame(from, OpCode::Close, &close_payload(1000, ""))
}

/// Runs `test` on a clock that stands still unless it is moved, or nothing else can happen.
fn paused<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

/// Whether the relay was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

fn poll<D, U>(relay: &mut Relay<D, U>, flag: &Arc<Flag>) -> Poll<Event>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let waker = Waker::from(Arc::clone(flag));
    pin!(relay.next_event()).poll(&mut Context::from_waker(&waker))
}

mod over_pipes {
    use super::*;

    struct World {
        client: DuplexStream,
        server: DuplexStream,
        handle: Rc<Handle>,
        relay: Relay<DuplexStream, DuplexStream>,
    }

    fn world(policy: Policy, early: &'static [u8], capacity: usize) -> World {
        let (client, downstream) = duplex(capacity);
        let (server, upstream) = duplex(capacity);
        let handle = Rc::new(Handle::default());
        let early = Bytes::from_static(early);
        let mut relay = Relay::new(session(policy), downstream, early, Rc::clone(&handle));
        relay.connect(upstream, Bytes::new());
        World {
            client,
            server,
            handle,
            relay,
        }
    }

    /// Runs the relay beside the peers' part of the test.
    async fn beside<T>(
        relay: &mut Relay<DuplexStream, DuplexStream>,
        peers: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            biased;
            done = peers => done,
            event = relay.next_event() => panic!("unexpected {event:?}"),
        }
    }

    async fn read(peer: &mut DuplexStream, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        peer.read_exact(&mut bytes).await.expect("as many bytes");
        bytes
    }

    async fn close_code(peer: &mut DuplexStream) -> u16 {
        let head = read(peer, 2).await;
        assert_eq!(head[0], 0x88, "a Close");
        let (len, masked) = (usize::from(head[1] & 0x7F), head[1] & 0x80 != 0);
        let key = if masked {
            read(peer, 4).await
        } else {
            vec![0; 4]
        };
        let payload = read(peer, len).await;
        u16::from_be_bytes([payload[0] ^ key[0], payload[1] ^ key[1]])
    }

    #[test]
    fn frames_pass_both_ways_through_peers_that_take_one_byte_at_a_time() {
        paused(async {
            for capacity in [1, 7, 64 * 1024] {
                let World {
                    mut client,
                    mut server,
                    mut relay,
                    ..
                } = world(policy(), b"", capacity);
                let (up, down) = (message(Downstream).repeat(9), message(Upstream).repeat(9));
                beside(&mut relay, async {
                    let (mut from_client, mut to_client) = tokio::io::split(&mut client);
                    let (mut from_server, mut to_server) = tokio::io::split(&mut server);
                    let (mut got_up, mut got_down) = (vec![0; up.len()], vec![0; down.len()]);
                    let done = tokio::join!(
                        to_client.write_all(&up),
                        to_server.write_all(&down),
                        from_client.read_exact(&mut got_down),
                        from_server.read_exact(&mut got_up),
                    );
                    assert!(done.0.is_ok() && done.1.is_ok() && done.2.is_ok() && done.3.is_ok());
                    assert_eq!((got_up, got_down), (up, down));
                })
                .await;
            }
        });
    }

    #[test]
    fn early_bytes_go_first() {
        paused(async {
            // A whole frame, and the first byte of the next, came behind the request head.
            let early = b"\x82\x81\0\0\0\0e\x82";
            let World {
                mut client,
                mut server,
                mut relay,
                ..
            } = world(policy(), early, 64);
            client.write_all(b"\x81\0\0\0\0l").await.unwrap();
            let got = beside(&mut relay, read(&mut server, 14)).await;
            assert_eq!(got, b"\x82\x81\0\0\0\0e\x82\x81\0\0\0\0l");
        });
    }

    #[test]
    fn a_deadline_is_met_when_nothing_else_happens() {
        paused(async {
            let mut policy = policy();
            policy.first_message = Some(first_message());
            let World {
                mut client,
                mut relay,
                server: _server,
                ..
            } = world(policy, b"", 64);
            let began = tokio::time::Instant::now();
            let code = beside(&mut relay, close_code(&mut client)).await;
            assert_eq!(code, 3008);
            let waited = began.elapsed();
            assert!(waited >= Duration::from_secs(10) && waited < Duration::from_millis(10_010));
        });
    }

    #[test]
    fn a_deadline_that_moved_away_is_met_where_it_is_now() {
        paused(async {
            let mut policy = policy();
            policy.keepalive.idle_timeout = Some(Duration::from_secs(30));
            let World {
                mut client,
                mut server,
                mut relay,
                ..
            } = world(policy, b"", 64);
            let began = tokio::time::Instant::now();
            beside(&mut relay, async {
                advance(Duration::from_secs(20)).await;
                server.write_all(&message(Upstream)).await.unwrap();
                assert_eq!(
                    read(&mut client, message(Upstream).len()).await,
                    message(Upstream)
                );
                assert_eq!(close_code(&mut client).await, 3008);
            })
            .await;
            let waited = began.elapsed();
            assert!(waited >= Duration::from_secs(50) && waited < Duration::from_millis(50_010));
        });
    }

    #[test]
    fn stop_wakes_an_idle_session() {
        paused(async {
            let World {
                mut client,
                mut server,
                handle,
                mut relay,
            } = world(policy(), b"", 64);
            let flag = Arc::new(Flag::default());
            assert!(poll(&mut relay, &flag).is_pending());
            assert!(!flag.take());
            handle.drain();
            assert!(flag.take());
            assert!(poll(&mut relay, &flag).is_pending());
            assert_eq!(close_code(&mut client).await, 1012);
            assert_eq!(close_code(&mut server).await, 1001);
        });
    }

    #[test]
    fn a_stop_before_the_first_poll_is_heard() {
        paused(async {
            let World {
                mut client,
                handle,
                mut relay,
                server: _server,
                ..
            } = world(policy(), b"", 64);
            handle.drain();
            assert_eq!(beside(&mut relay, close_code(&mut client)).await, 1012);
        });
    }

    #[test]
    fn an_upstream_that_ends_is_told_to_the_client() {
        paused(async {
            let World {
                mut client,
                server,
                mut relay,
                ..
            } = world(policy(), b"", 64);
            drop(server);
            assert_eq!(beside(&mut relay, close_code(&mut client)).await, 1014);
            drop(client);
            assert_eq!(relay.next_event().await, Event::Ended);
            let cause = relay.session_mut().summary().cause;
            assert_eq!(cause, Cause::Vanished(Upstream));
        });
    }

    #[test]
    fn a_client_that_vanishes_is_told_to_the_upstream() {
        paused(async {
            let World {
                client,
                mut server,
                mut relay,
                ..
            } = world(policy(), b"", 64);
            server.write_all(&message(Upstream)).await.unwrap();
            drop(client);
            assert_eq!(beside(&mut relay, close_code(&mut server)).await, 1001);
            drop(server);
            assert_eq!(relay.next_event().await, Event::Ended);
            let cause = relay.session_mut().summary().cause;
            assert_eq!(cause, Cause::Vanished(Downstream));
        });
    }

    #[test]
    fn a_leg_is_shut_down_when_both_closes_have_passed() {
        paused(async {
            let World {
                mut client,
                mut server,
                mut relay,
                ..
            } = world(policy(), b"", 64);
            let (there, back) = (close(Downstream), close(Upstream));
            client.write_all(&there).await.unwrap();
            let (event, ()) = tokio::join!(relay.next_event(), async {
                assert_eq!(read(&mut server, there.len()).await, there);
                server.write_all(&back).await.unwrap();
                assert_eq!(read(&mut client, back.len()).await, back);
            });
            assert_eq!(event, Event::Ended);
            for mut peer in [client, server] {
                assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
            }
            let codes = relay.session_mut().summary().close_codes;
            assert!(codes.downstream.is_some() && codes.upstream.is_some());
        });
    }
}

/// How one call on a [`Wire`] goes.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// Up to so many bytes.
    Bytes(usize),
    /// Not now. The wire wakes whoever asked when nothing else goes on.
    Wait,
}

/// What a [`Wire`] does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Write,
    Flush,
    Shutdown,
}

/// A connection whose every call goes as written down.
#[derive(Debug, Default)]
struct Wire {
    to_edge: VecDeque<u8>,
    eof: bool,
    taken: Vec<u8>,
    shut: bool,
    turns: VecDeque<Turn>,
    fault: Option<Fault>,
    /// Uses up the budget that the runtime gives a task.
    greedy: bool,
    waiting: Vec<Waker>,
    reads: usize,
    failed_reads: usize,
    writes: usize,
    moves: usize,
}

#[derive(Clone, Debug, Default)]
struct Shared(Rc<RefCell<Wire>>);

impl Wire {
    fn turn(&mut self, cx: &Context<'_>) -> Poll<usize> {
        match self.turns.pop_front().unwrap_or(Turn::Bytes(usize::MAX)) {
            Turn::Bytes(n) => Poll::Ready(n),
            Turn::Wait => {
                self.waiting.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn fail(&self, fault: Fault) -> io::Result<()> {
        match self.fault {
            Some(set) if set == fault => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    fn starve(&self, cx: &mut Context<'_>) {
        while self.greedy && pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        wire.starve(cx);
        let empty = wire.to_edge.is_empty() && !wire.eof;
        let turn = if empty { Poll::Pending } else { wire.turn(cx) };
        let Poll::Ready(n) = turn else {
            wire.failed_reads += 1;
            return Poll::Pending;
        };
        let n = n.max(1).min(buf.remaining()).min(wire.to_edge.len());
        for byte in wire.to_edge.drain(..n) {
            buf.put_slice(&[byte]);
        }
        wire.reads += 1;
        wire.moves += 1;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        wire.fail(Fault::Write)?;
        wire.turn(cx).map(|n| {
            let n = n.clamp(1, bytes.len());
            wire.taken.extend_from_slice(&bytes[..n]);
            wire.writes += 1;
            wire.moves += 1;
            Ok(n)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        wire.fail(Fault::Flush)?;
        wire.turn(cx).map(|_| Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        wire.fail(Fault::Shutdown)?;
        wire.turn(cx).map(|_| {
            wire.shut = true;
            wire.moves += 1;
            Ok(())
        })
    }
}

fn wired(policy: Policy) -> (Relay<Shared, Shared>, Shared, Shared) {
    wired_for(session(policy))
}

fn wired_for(session: Session) -> (Relay<Shared, Shared>, Shared, Shared) {
    let (client, server) = (Shared::default(), Shared::default());
    let handle = Rc::new(Handle::default());
    let mut relay = Relay::new(session, client.clone(), Bytes::new(), handle);
    relay.connect(server.clone(), Bytes::new());
    (relay, client, server)
}

fn send(wire: &Shared, bytes: &[u8]) {
    wire.0.borrow_mut().to_edge.extend(bytes);
}

#[test]
fn a_revocation_is_not_taken_for_a_drain_that_follows_it() {
    paused(async {
        let (mut relay, client, _server) = wired(policy());
        let flag = Arc::new(Flag::default());
        assert!(poll(&mut relay, &flag).is_pending());
        relay.handle.revoke();
        assert!(flag.take(), "it is woken");
        relay.handle.drain();
        assert!(poll(&mut relay, &flag).is_pending());
        assert_eq!(client.0.borrow().taken[2..4], 3000_u16.to_be_bytes());
    });
}

#[test]
fn a_small_message_costs_one_read_and_one_write() {
    paused(async {
        for from in BOTH {
            let (mut relay, client, server) = wired(policy());
            let (source, sink) = match from {
                Downstream => (client, server),
                Upstream => (server, client),
            };
            let flag = Arc::new(Flag::default());
            assert!(poll(&mut relay, &flag).is_pending());
            source.0.borrow_mut().failed_reads = 0;
            sink.0.borrow_mut().failed_reads = 0;
            send(&source, &message(from));
            assert!(poll(&mut relay, &flag).is_pending());
            assert!(!flag.take(), "it does not wake itself");
            let (source, sink) = (source.0.borrow(), sink.0.borrow());
            assert_eq!(sink.taken, message(from));
            assert_eq!(
                (source.reads, source.failed_reads, source.writes),
                (1, 1, 0)
            );
            assert_eq!((sink.reads, sink.failed_reads, sink.writes), (0, 1, 1));
            assert_eq!(relay.session_mut().owned_memory(), 0);
        }
    });
}

#[test]
fn a_relayed_message_allocates_nothing() {
    paused(async {
        let (mut relay, client, server) = wired(policy());
        let flag = Arc::new(Flag::default());
        for wire in [&client, &server] {
            wire.0.borrow_mut().taken.reserve(1 << 16);
            wire.0.borrow_mut().to_edge.reserve(1 << 10);
        }
        let messages = BOTH.map(message);
        let mut round_trip = || {
            for (source, message) in [&client, &server].into_iter().zip(&messages) {
                send(source, message);
                assert!(poll(&mut relay, &flag).is_pending());
            }
        };
        // The first one makes the thread's scratch buffer and the session's timer.
        round_trip();
        let counted = allocation_counter::measure(|| (0..100).for_each(|_| round_trip()));
        assert_eq!(counted.count_total, 0);
        assert_eq!(server.0.borrow().taken.len(), 101 * messages[0].len());
        assert_eq!(client.0.borrow().taken.len(), 101 * messages[1].len());
    });
}

#[test]
fn what_the_edge_says_by_itself_leaves_no_memory_behind() {
    paused(async {
        let mut policy = policy();
        policy.on_expiry = OnExpiry::Close {
            notice: Some(ExpiryNotice {
                before: Duration::from_secs(10),
                message: "expiring".to_owned(),
            }),
        };
        let now = tokio::time::Instant::now().into_std();
        let admitted = Admitted {
            expires: Some(now + Duration::from_secs(60)),
            ..Admitted::default()
        };
        let session = Session::admitted(Arc::new(policy), admitted, KEYS, now);
        let (mut relay, client, _server) = wired_for(session);
        let flag = Arc::new(Flag::default());
        assert!(poll(&mut relay, &flag).is_pending());
        advance(Duration::from_secs(50)).await;
        assert!(poll(&mut relay, &flag).is_pending());
        assert_eq!(
            client.0.borrow().taken,
            frame(Upstream, OpCode::Text, b"expiring")
        );
        assert_eq!(relay.session_mut().owned_memory(), 0);
    });
}

#[test]
fn a_leg_that_broke_is_not_tried_again_and_again() {
    paused(async {
        for fault in [Fault::Write, Fault::Flush, Fault::Shutdown] {
            let (mut relay, client, server) = wired(policy());
            client.0.borrow_mut().fault = Some(fault);
            let flag = Arc::new(Flag::default());
            if fault == Fault::Shutdown {
                relay.handle.drain();
                send(&client, &close(Downstream));
            } else {
                send(&server, &message(Upstream));
            }
            assert!(poll(&mut relay, &flag).is_pending());
            assert!(!flag.take(), "{fault:?} makes it spin");
            server.0.borrow_mut().eof = true;
            assert_eq!(poll(&mut relay, &flag), Poll::Ready(Event::Ended));
        }
    });
}

#[test]
fn a_timer_is_heard_although_the_streams_used_up_the_budget() {
    paused(async {
        let mut policy = policy();
        policy.first_message = Some(first_message());
        let (mut relay, client, _) = wired(policy);
        client.0.borrow_mut().greedy = true;
        let flag = Arc::new(Flag::default());
        let task = poll_fn(|_| Poll::Ready(poll(&mut relay, &flag)));
        assert!(task.await.is_pending());
        // The runtime wakes a task that ran out of budget at once; with a fresh one the
        // relay finds its timer set.
        client.0.borrow_mut().greedy = false;
        tokio::task::yield_now().await;
        flag.take();
        assert!(poll(&mut relay, &flag).is_pending());
        flag.take();
        advance(Duration::from_secs(11)).await;
        assert!(flag.take());
    });
}

#[test]
fn the_timer_wakes_the_task_that_polled_last() {
    paused(async {
        let mut policy = policy();
        policy.first_message = Some(first_message());
        policy.first_message.as_mut().unwrap().timeout = Duration::from_secs(1);
        let (mut relay, client, _) = wired(policy);
        let (first, second) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
        assert!(poll(&mut relay, &first).is_pending());
        send(&client, &frame(Downstream, OpCode::Text, b"token"));
        assert!(poll(&mut relay, &second).is_ready());
        let now = tokio::time::Instant::now().into_std();
        relay.session_mut().handle_token(TokenVerdict::Refused, now);
        assert!(poll(&mut relay, &second).is_pending());
        // The deadline of the closing handshake is later than that of the token was.
        let mut polled = poll(&mut relay, &second);
        for _ in 0..6 {
            second.take();
            advance(Duration::from_secs(1)).await;
            if second.take() {
                polled = poll(&mut relay, &second);
            }
        }
        assert_eq!(polled, Poll::Ready(Event::Ended));
    });
}

/// Polls until the session has ended, as a runtime would: only when woken. The wires wake
/// when nothing else goes on. A future is dropped after each count of polls in `drops`, and
/// the next one is another task's.
fn run(relay: &mut Relay<Shared, Shared>, wires: [&Shared; 2], drops: &[usize]) {
    let moves = || wires.map(|wire| wire.0.borrow().moves);
    let waiting = |wire: &Shared| mem::take(&mut wire.0.borrow_mut().waiting);
    let mut drops = drops.iter().copied().cycle();
    for _ in 0..100_000 {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        // Whoever asked before is gone, and cannot be woken.
        drop(wires.map(waiting));
        let mut next = pin!(relay.next_event());
        let mut idle = 0;
        for _ in 0..drops.next().unwrap_or(usize::MAX) {
            if !flag.take() {
                wires
                    .iter()
                    .copied()
                    .flat_map(waiting)
                    .for_each(Waker::wake);
                assert!(flag.take(), "nobody will ever wake it");
                idle = 0;
            }
            let before = moves();
            match next.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(event) => return assert_eq!(event, Event::Ended),
                Poll::Pending => idle = if moves() == before { idle + 1 } else { 0 },
            }
            assert!(idle < 4, "it spins");
        }
    }
    panic!("no end");
}

fn any_turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        3 => (1..40usize).prop_map(Turn::Bytes),
        1 => Just(Turn::Bytes(usize::MAX)),
        1 => Just(Turn::Wait),
    ];
    prop::collection::vec(turn, 0..200)
}

fn any_messages() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![0..200usize, 60_000..70_000usize], 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the calls do and whenever a future is dropped: every byte arrives, nobody
    /// waits for a wake-up that does not come, and nothing spins.
    #[test]
    fn every_byte_arrives_whatever_the_calls_do(
        up in any_messages(),
        down in any_messages(),
        turns in (any_turns(), any_turns()),
        drops in prop::collection::vec(1..5usize, 0..5),
    ) {
        paused(async {
            let (mut relay, client, server) = wired(policy());
            let mut sent = Vec::new();
            for (wire, from, sizes, turns) in [
                (&client, Downstream, up, turns.0),
                (&server, Upstream, down, turns.1),
            ] {
                let mut bytes: Vec<u8> = sizes
                    .iter()
                    .flat_map(|&size| frame(from, OpCode::Binary, &vec![7; size]))
                    .collect();
                bytes.extend(close(from));
                send(wire, &bytes);
                wire.0.borrow_mut().eof = true;
                wire.0.borrow_mut().turns = turns.into();
                sent.push(bytes);
            }
            run(&mut relay, [&client, &server], &drops);
            assert!(client.0.borrow().taken == sent[1] && server.0.borrow().taken == sent[0]);
            assert!(client.0.borrow().shut && server.0.borrow().shut);
            let cause = relay.session_mut().summary().cause;
            assert!(matches!(cause, Cause::Closed { .. }), "{cause:?}");
        });
    }
}
