//! The load: a child process that opens connections and keeps them busy, or idle.
//!
//! Owns what it is told and what it answers. A plan is a list of works, done one after another
//! over the same connections. Each has two steps: `prepare` (connect, warm up), after which the
//! bench reads the proxy's CPU time and memory, and `run`, after which it reads them again. How
//! the works are done is in `workload.rs`.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child;
use crate::client::Entrance;
use crate::stats::Percentiles;
use crate::workload::Workload;

/// What a load process is told, once, on its first line.
#[derive(Debug, Deserialize, Serialize)]
pub struct Plan {
    /// The proxy, or the upstream itself.
    pub entrance: Entrance,
    /// The upstream's port for orders.
    pub control: u16,
    /// What to do.
    pub works: Vec<Work>,
}

/// A workload.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Work {
    /// Opens connections that say nothing after their first echo.
    Open {
        /// That many more.
        connections: usize,
    },
    /// Messages to and fro on open connections, all busy at once.
    Echo {
        /// Opened before, where they are not yet.
        connections: usize,
        /// Bytes of a message.
        payload: usize,
        /// Messages under way per connection.
        in_flight: usize,
        /// How long before and during the measurement.
        times: Times,
    },
    /// Messages of JSON to and fro on connections opened for it, all busy at once.
    Json {
        /// What the proxy makes of them.
        route: Route,
        /// Opened in place of those that are open.
        connections: usize,
        /// How long before and during the measurement.
        times: Times,
    },
    /// Messages of 64 bytes to and fro, going round over all open connections.
    Turns {
        /// Messages under way, each on another connection.
        at_once: usize,
        /// How long before and during the measurement.
        times: Times,
    },
    /// Messages of 64 bytes at a fixed rate, whether or not earlier ones have come back.
    Paced {
        /// Used in turn.
        connections: usize,
        /// Over all connections.
        per_second: f64,
        /// How long before and during the measurement.
        times: Times,
    },
    /// Whole connections, one after another: open, one echo of 64 bytes, close.
    Connect {
        /// How many at a time.
        at_once: usize,
        /// How long before and during the measurement.
        times: Times,
    },
    /// Connections that all begin at the same moment, each with one echo; they stay open.
    Storm {
        /// How many.
        connections: usize,
    },
    /// The upstream sends one message to each connection; when all have come, it does again.
    FanOut {
        /// Opened before.
        connections: usize,
        /// Bytes of a message.
        payload: usize,
        /// How long before and during the measurement.
        times: Times,
    },
    /// Connections that never read while the upstream sends as fast as it can, until nothing
    /// moves any more.
    SlowReaders {
        /// Opened before.
        connections: usize,
        /// Bytes of a message.
        payload: usize,
    },
}

impl Work {
    /// About how long it takes when nothing else is to be done, for an estimate of the rest.
    pub fn expected(&self) -> Duration {
        let opening = |connections: usize| connections as u64;
        let millis = match *self {
            Self::Open { connections } => 1200 + opening(connections),
            Self::Echo {
                connections, times, ..
            }
            | Self::Paced {
                connections, times, ..
            }
            | Self::Json {
                connections, times, ..
            }
            | Self::FanOut {
                connections, times, ..
            } => opening(connections) + times.warm_up_ms + times.run_ms,
            Self::Turns { times, .. } | Self::Connect { times, .. } => {
                times.warm_up_ms + times.run_ms
            }
            Self::Storm { connections } => opening(connections),
            Self::SlowReaders { .. } => 2500,
        };
        Duration::from_millis(millis)
    }
}

/// Which of Tidegate's routes is used. To the others they are one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Route {
    /// Messages stream through.
    Usual,
    /// Messages are held to rules.
    Ruled,
}

impl Route {
    /// What is asked for.
    pub fn path(self) -> &'static str {
        match self {
            Self::Usual => "/chat",
            Self::Ruled => "/chat/ruled",
        }
    }
}

/// How long a workload runs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Times {
    /// Before the measurement, in milliseconds.
    pub warm_up_ms: u64,
    /// During it, in milliseconds.
    pub run_ms: u64,
}

/// What the bench says for each step of each work.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Step {
    /// Get ready.
    Prepare,
    /// Do it; this is measured.
    Run,
}

/// Answer to a step.
#[derive(Debug, Deserialize, Serialize)]
pub enum Reply {
    /// It is done; after `Prepare` it may be empty.
    Done(Outcome),
    /// It could not be done, in words.
    Failed(String),
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    /// Round trips, deliveries or connections.
    pub count: u64,
    /// From its beginning to the last answer.
    pub seconds: f64,
    /// Of a round trip, a delivery, or opening a connection up to its first echo.
    pub micros: Percentiles,
}

/// The child process.
pub fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut orders = child::orders();
        let Some(line) = orders.recv().await else {
            return Ok(());
        };
        let plan: Plan = serde_json::from_str(&line)?;
        let mut workload = Workload::new(&plan)?;
        let mut works = plan.works.iter().copied();
        let mut work = None;
        // Connections stay open until the bench has read its figures and goes away.
        while let Some(line) = orders.recv().await {
            let result = match serde_json::from_str(&line)? {
                Step::Prepare => {
                    work = works.next();
                    workload.prepare(work).await
                }
                Step::Run => workload.run(work).await,
            };
            let reply = match result {
                Ok(outcome) => Reply::Done(outcome),
                Err(error) => Reply::Failed(error.to_string()),
            };
            println!("{}", serde_json::to_string(&reply)?);
        }
        Ok(())
    })
}
