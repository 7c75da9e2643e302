//! Keeps the memory for bytes on their way, of all workers together, within
//! `limits.max_buffered`: near it the sessions that own the most take nothing more in, and at
//! it they end, the largest first.
//!
//! Each worker looks after its own sessions, at each rise that could matter, and every
//! `TICK` while memory is short. Together they sum up what all of them show.

use std::cmp::Reverse;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::proxy::Worker;
use crate::relay::{Gauge, Handle, Shown};

/// What all workers show each other. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Buffered(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    workers: Vec<Arc<Shown>>,
    /// Whether one of them found memory short.
    short: Notify,
}

/// How the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ample,
    Near,
    /// So many bytes have to go, down to where it is ample again.
    Over(usize),
}

impl Buffered {
    /// Nothing, of so many workers.
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(Inner {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            short: Notify::new(),
        }))
    }

    /// The gauge of one worker.
    pub fn gauge(&self, worker: usize) -> Gauge {
        Gauge::new(self.0.workers.get(worker).cloned().unwrap_or_default())
    }

    /// Bytes that all sessions own now.
    pub fn total(&self) -> usize {
        self.0.workers.iter().map(|shown| shown.owned()).sum()
    }

    fn largest(&self) -> usize {
        let largest = self.0.workers.iter().map(|shown| shown.largest());
        largest.max().unwrap_or_default()
    }
}

/// What one worker did while memory was short.
#[derive(Debug, Default)]
struct Episode {
    throttled: usize,
    closed: usize,
}

/// Looks after the memory of one worker's sessions, for ever.
pub async fn shed_load(worker: Rc<Worker>, all: Buffered) {
    let mut told: Option<Instant> = None;
    loop {
        let mut episode = Episode::default();
        while look(&worker, &all, &mut episode) != Level::Ample {
            all.0.short.notify_waiters();
            tokio::select! {
                () = worker.gauge.raised() => {}
                () = sleep(TICK) => {}
            }
        }
        let Episode { throttled, closed } = episode;
        if throttled + closed > 0 && told.is_none_or(|told| told.elapsed() > QUIET) {
            told = Some(Instant::now());
            tracing::warn!(
                throttled,
                closed,
                "max_buffered was nearly reached: the sessions that held the most had to wait or go"
            );
        }
        tokio::select! {
            () = worker.gauge.raised() => {}
            () = all.0.short.notified() => {}
        }
    }
}

/// Does for its worker what the level asks for.
fn look(worker: &Worker, all: &Buffered, episode: &mut Episode) -> Level {
    let Some(most) = worker.snapshot().config().limits.max_buffered else {
        worker.gauge.set_alarm(usize::MAX);
        relieve(worker);
        return Level::Ample;
    };
    let (own, total) = (worker.gauge.owned(), all.total());
    let (level, left) = level(total, most);
    // Even if all workers grow by as much meanwhile, the next level is not passed unseen.
    let workers = all.0.workers.len().max(1);
    worker
        .gauge
        .set_alarm(own.saturating_add((left / (2 * workers)).max(LEAST_STEP)));
    match level {
        Level::Ample => relieve(worker),
        Level::Near | Level::Over(_) => {
            let mut handles = worker.registry.handles();
            handles.retain(|handle| handle.owned() > 0);
            handles.sort_by_key(|handle| Reverse(handle.owned()));
            let largest = handles.first().map_or(0, |handle| handle.owned());
            worker.gauge.shown().set_largest(largest);
            // Others may have larger ones: those are to go first, give or take a half.
            let cut = all.largest() / 2;
            let large = handles.iter().filter(|handle| handle.owned() >= cut);
            episode.throttled += large.clone().filter(|handle| handle.throttle()).count();
            if let Level::Over(excess) = level {
                episode.closed += close(large, share(excess, own, total));
            }
        }
    }
    level
}

/// Where the process stands with `total` of `most` bytes, and how many are left to the next
/// level.
fn level(total: usize, most: usize) -> (Level, usize) {
    let near = most - most / NEAR;
    match total {
        _ if total < near => (Level::Ample, near - total),
        _ if total < most => (Level::Near, most - total),
        _ => (Level::Over(total - near), 0),
    }
}

/// The part of `excess` that a worker lets go which owns `own` of `total` bytes.
fn share(excess: usize, own: usize, total: usize) -> usize {
    let part = excess as u128 * own as u128 / total.max(1) as u128;
    usize::try_from(part).unwrap_or(usize::MAX)
}

/// Ends sessions, the largest first, until they make `target` bytes. How many that are new.
fn close<'a>(large: impl Iterator<Item = &'a Rc<Handle>>, target: usize) -> usize {
    let (mut shed, mut closed) = (0, 0);
    for handle in large {
        if shed >= target {
            break;
        }
        shed += handle.owned();
        closed += usize::from(handle.overload());
    }
    closed
}

fn relieve(worker: &Worker) {
    for handle in worker.registry.handles() {
        handle.relieve();
    }
}

/// Between two looks while memory is short: what closing sessions let go is seen, and a worker
/// reads no more than some MiB meanwhile.
const TICK: Duration = Duration::from_millis(20);

/// The last eighth of the budget is where sessions are throttled.
const NEAR: usize = 8;

/// A rise by less is not looked at: one pipe at the default watermark.
const LEAST_STEP: usize = 64 * 1024;

/// One line of the log in so long for each worker: peers cause it.
const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_eighth_is_near() {
        assert_eq!(level(0, 800), (Level::Ample, 700));
        assert_eq!(level(699, 800), (Level::Ample, 1));
        assert_eq!(level(700, 800), (Level::Near, 100));
        assert_eq!(level(799, 800), (Level::Near, 1));
        assert_eq!(level(800, 800), (Level::Over(100), 0));
        assert_eq!(level(usize::MAX, 800), (Level::Over(usize::MAX - 700), 0));
    }

    #[test]
    fn workers_let_go_in_proportion_to_what_they_own() {
        assert_eq!(share(100, 50, 200), 25);
        assert_eq!(share(100, 200, 200), 100);
        assert_eq!(share(100, 0, 0), 0);
        assert_eq!(share(usize::MAX, usize::MAX, usize::MAX), usize::MAX);
    }

    #[test]
    fn the_largest_are_closed_first_and_no_more_than_needed() {
        let handles: Vec<_> = [500, 400, 300, 200]
            .map(|owned| {
                let handle = Rc::new(Handle::default());
                handle.own(owned);
                handle
            })
            .into();
        assert_eq!(close(handles.iter(), 0), 0);
        assert_eq!(close(handles.iter(), 501), 2);
        // They have not gone yet: nobody goes in their place.
        assert_eq!(close(handles.iter(), 900), 0);
        assert_eq!(close(handles.iter(), 901), 1);
        assert_eq!(close(handles.iter(), usize::MAX), 1);
    }
}
