//! Ten thousand sessions at once: who is revoked ends within a second, and nobody else does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::LocalSet;

use super::*;
use crate::config::{Line, Revocation};
use crate::proto::cause::Cause;
use crate::proto::seed::Seed;
use crate::proto::session::{Admitted, Event, MaskKeys, Session};
use crate::proto::sim::policy;
use crate::relay::Relay;
use crate::revocation::{Keeper, Outcome, Tokens};

const SESSIONS: usize = 10_000;

/// One of that many is somebody else's.
const SPARED: usize = 10;

fn keeper() -> Keeper {
    let config = Revocation {
        file: None,
        max_entries: 1000,
        keep: Duration::from_secs(1000),
        line: Line(1),
    };
    let routes = vec![("chat".to_owned(), Tokens::Asked)];
    Keeper::load(&config, routes, SystemTime::now())
        .expect("no file")
        .0
}

/// A session as the proxy runs it, over streams in memory. What its peers hear.
fn spawn_session(bearers: &Registry<Bearer>, sub: &str) -> [DuplexStream; 2] {
    let (client, downstream) = duplex(1024);
    let (server, upstream) = duplex(1024);
    let handle = Rc::new(Handle::default());
    let seat = bearers.enter(Bearer {
        marks: Marks::new("chat", None, Some(sub), Some("id"), Some(1), 0),
        handle: Rc::clone(&handle),
    });
    let keys = MaskKeys {
        first_message: [1, 2, 3, 4],
        close: [5, 6, 7, 8],
        seed: Seed(9),
    };
    let now = tokio::time::Instant::now().into_std();
    let session = Session::admitted(Arc::new(policy()), Admitted::default(), keys, now);
    let mut relay = Relay::new(session, downstream, Bytes::new(), handle);
    relay.connect(upstream, Bytes::new());
    tokio::task::spawn_local(async move {
        assert_eq!(relay.next_event().await, Event::Ended);
        assert_eq!(relay.session_mut().summary().cause, Cause::TokenRevoked);
        drop(seat);
    });
    [client, server]
}

/// Processor time of this thread: what the machine does besides does not count.
fn spent() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|t| t.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(10 * ticks)
}

async fn close_code(peer: &mut DuplexStream) -> u16 {
    let mut frame = [0; 4];
    peer.read_exact(&mut frame).await.expect("a Close");
    // A client's frame is masked: header of two bytes, four of mask.
    if frame[1] & 0x80 == 0 {
        return u16::from_be_bytes([frame[2], frame[3]]);
    }
    let mut rest = [0; 4];
    peer.read_exact(&mut rest).await.expect("a Close");
    u16::from_be_bytes([rest[2] ^ frame[2], rest[3] ^ frame[3]])
}

#[tokio::test]
async fn revoked_sessions_end_within_a_second_where_there_are_ten_thousand() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let keeper = keeper();
            let bearers = Registry::default();
            let store = keeper.store();
            let mut changes = keeper.changes();
            let sub = |n: usize| match n % SPARED {
                0 => "bob",
                _ => "alice",
            };
            let mut peers: Vec<_> = (0..SESSIONS)
                .map(|n| spawn_session(&bearers, sub(n)))
                .collect();
            // Each is polled once before, and waits.
            yield_now().await;
            assert_eq!(bearers.live(), SESSIONS);

            let (began, before) = (Instant::now(), spent());
            let outcome = keeper.revoke(br#"{"sub":"alice"}"#, SystemTime::now());
            assert!(matches!(outcome, Outcome::Revoked(_)));
            assert!(changes.has_changed().expect("the keeper is there"));
            changes.mark_unchanged();
            sweep(&bearers, &store).await;
            for (n, [client, server]) in peers.iter_mut().enumerate() {
                if n % SPARED > 0 {
                    assert_eq!(close_code(client).await, 3000);
                    assert_eq!(close_code(server).await, 1001);
                }
            }
            let (took, worked) = (began.elapsed(), spent() - before);
            let second = Duration::from_secs(1);
            assert!(worked < second, "{worked:?} of processor time in {took:?}");

            // Their peers go, and so do they; the others stay.
            let mut n = 0;
            peers.retain(|_| {
                n += 1;
                (n - 1) % SPARED == 0
            });
            for _ in 0..1000 {
                if bearers.live() == SESSIONS / SPARED {
                    break;
                }
                yield_now().await;
            }
            sweep(&bearers, &store).await;
            yield_now().await;
            assert_eq!(bearers.live(), SESSIONS / SPARED);
        })
        .await;
}

#[test]
fn what_is_remembered_of_a_token_is_small() {
    // Beside it the claims themselves, in one piece, and sixteen bytes of the `Rc`.
    let bearer = size_of::<Bearer>();
    assert!(bearer <= 56, "{bearer}");
    let seat = size_of::<Option<Seat<Bearer>>>();
    assert!(seat <= 24, "{seat}");
}
