//! A storm: an upstream with thousands of sessions restarts, by a clock that jumps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::Dials;
use crate::proto::limits::Rate;
use crate::proto::policy::{Backoff, Hold};
use crate::proto::seed::Seed;
use crate::proto::session::{MaskKeys, Session};
use crate::proto::side::Side;
use crate::proto::sim;
use crate::upstream::Pace;

const SESSIONS: usize = 5000;
const RATE: u64 = 500;
const BURST: u64 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// What comes next of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Deadline,
    Dial,
}

fn session(seed: u64, now: Instant) -> Session {
    let mut policy = sim::policy();
    policy.hold = Some(Hold {
        max_hold: 30 * SECOND,
        buffer: 1 << 16,
        close_codes: Vec::new(),
        backoff: Backoff {
            first: SECOND / 4,
            max: 5 * SECOND,
        },
        replay_messages: 0,
        replay_buffer: 0,
        notice: None,
        resume_notice: None,
    });
    Session::new(Arc::new(policy), keys(seed), now)
}

fn keys(seed: u64) -> MaskKeys {
    MaskKeys {
        first_message: [0; 4],
        close: [0; 4],
        seed: Seed(seed),
    }
}

#[test]
fn five_thousand_held_sessions_come_back_at_the_pace_of_their_upstream() {
    let start = Instant::now();
    // Until then each dial is refused.
    let down = start + 3 * SECOND;
    let rate = Rate {
        units: NonZeroU64::new(RATE).expect("a rate"),
        per: SECOND,
    };
    let burst = NonZeroU64::new(BURST).expect("a burst");
    let pace = Pace::new(Some(Dials { rate, burst }), start);
    let mut sessions: Vec<_> = (0..SESSIONS as u64).map(|n| session(n, start)).collect();
    let mut due = BinaryHeap::new();
    for (n, session) in sessions.iter_mut().enumerate() {
        session.handle_reset(Side::Upstream, start);
        due.extend(
            session
                .poll_timeout()
                .map(|at| Reverse((at, n, Next::Deadline))),
        );
    }
    let mut dials = Vec::new();
    while let Some(Reverse((now, n, next))) = due.pop() {
        let session = &mut sessions[n];
        match next {
            Next::Deadline => session.handle_timeout(now),
            Next::Dial => {
                dials.push(now);
                let failed = Err(DialFailure::Unreachable);
                let dialed = if now < down { failed } else { Ok(keys(0)) };
                session.handle_redialed(dialed, now);
            }
        }
        if session.poll_event() == Some(Event::Redial) {
            let until = session.held_until().expect("it is held");
            match pace.turn(now, until) {
                Some(turn) => due.push(Reverse((turn, n, Next::Dial))),
                None => session.handle_redialed(Err(DialFailure::Unreachable), now),
            }
        } else if session.is_holding() {
            due.extend(
                session
                    .poll_timeout()
                    .map(|at| Reverse((at, n, Next::Deadline))),
            );
        }
        assert!(dials.len() < 10 * SESSIONS, "no end of dials");
    }
    let back = sessions.iter().filter(|s| !s.is_holding() && !s.is_ended());
    assert_eq!(back.count(), SESSIONS);
    for (at, from) in dials.iter().enumerate() {
        let until = *from + SECOND;
        let within = dials[at..].partition_point(|at| *at < until);
        assert!(within as u64 <= RATE + BURST, "{within} in one second");
    }
    // Nobody's turn is wasted: all are back as soon as the pace allows.
    let last = *dials.last().expect("dials");
    let least = Duration::from_millis(2) * u32::try_from(dials.len()).expect("few");
    assert!(last - start <= least + SECOND, "{:?}", last - start);
}
