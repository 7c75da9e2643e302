//! The load: a child process that opens connections and keeps them busy, or idle.
//!
//! Owns the workloads and the two steps of each: `prepare` (connect, warm up), after which the
//! bench reads the proxy's CPU time and memory, and `run`, after which it reads them again. Every
//! message under way has come back before `run` answers, so nothing is counted twice or missed.
//! It knows neither which proxy it talks to nor what is done with its answers.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::child;
use crate::client::{Batch, Client, Dialer};
use crate::measure::Percentiles;

/// What a load process is told, once, on its first line.
#[derive(Debug, Deserialize, Serialize)]
pub struct Plan {
    /// Port of the proxy on 127.0.0.1.
    pub port: u16,
    /// PEM file of the certificate it must show.
    pub certificate: PathBuf,
    /// Message with the token, where the proxy asks for one.
    pub first_message: Option<String>,
    /// What to do.
    pub work: Work,
}

/// A workload.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Work {
    /// Open connections that say nothing after their first echo.
    Idle {
        /// Opened before the measurement, so that what is allocated once is not counted.
        base: usize,
        /// Opened during it.
        connections: usize,
    },
    /// Messages to and fro on open connections.
    Echo {
        /// How many, all busy at once.
        connections: usize,
        /// Bytes of a message.
        payload: usize,
        /// Messages under way per connection.
        in_flight: usize,
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
}

/// How long a workload runs.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Times {
    /// Before the measurement, in milliseconds.
    pub warm_up_ms: u64,
    /// During it, in milliseconds.
    pub run_ms: u64,
}

/// Answer to each of the two steps.
#[derive(Debug, Deserialize, Serialize)]
pub enum Reply {
    /// It is done; after `prepare` it may be empty.
    Done(Outcome),
    /// It could not be done, in words.
    Failed(String),
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Outcome {
    /// Round trips, or connections.
    pub count: u64,
    /// From its beginning to the last answer.
    pub seconds: f64,
    /// Of a round trip, or of opening a connection up to its first echo.
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
        let mut load = Load::new(&plan)?;
        answer(load.prepare().await)?;
        if orders.recv().await.is_some() {
            answer(load.run().await)?;
            // Connections stay open until the bench has read its figures and goes away.
            orders.recv().await;
        }
        Ok(())
    })
}

fn answer(result: io::Result<Outcome>) -> io::Result<()> {
    let reply = match result {
        Ok(outcome) => Reply::Done(outcome),
        Err(error) => Reply::Failed(error.to_string()),
    };
    println!("{}", serde_json::to_string(&reply)?);
    Ok(())
}

struct Load {
    dialer: Arc<Dialer>,
    work: Work,
    batch: Arc<Batch>,
    /// Open connections that wait for their next task.
    clients: Vec<Client>,
    /// Idle connections, each in a task that answers pings.
    idle: JoinSet<io::Result<()>>,
}

impl Load {
    fn new(plan: &Plan) -> io::Result<Self> {
        let (batch, read_size) = match plan.work {
            Work::Echo {
                payload, in_flight, ..
            } => (
                Batch::new(payload, in_flight),
                (2 * payload * in_flight).clamp(4 * 1024, 128 * 1024),
            ),
            Work::Idle { .. } | Work::Connect { .. } => (Batch::new(64, 1), 4 * 1024),
        };
        let first_message = plan.first_message.as_deref();
        let dialer = Dialer::new(plan.port, &plan.certificate, first_message, read_size)?;
        Ok(Self {
            dialer: Arc::new(dialer),
            work: plan.work,
            batch: Arc::new(batch),
            clients: Vec::new(),
            idle: JoinSet::new(),
        })
    }

    async fn prepare(&mut self) -> io::Result<Outcome> {
        match self.work {
            Work::Idle { base, .. } => self.open_idle(base).await,
            Work::Echo {
                connections, times, ..
            } => {
                self.clients = self.open(connections).await?;
                self.echo(times.warm_up_ms).await
            }
            Work::Connect { at_once, times } => self.connect(at_once, times.warm_up_ms).await,
        }
    }

    async fn run(&mut self) -> io::Result<Outcome> {
        match self.work {
            Work::Idle { connections, .. } => self.open_idle(connections).await,
            Work::Echo { times, .. } => self.echo(times.run_ms).await,
            Work::Connect { at_once, times } => self.connect(at_once, times.run_ms).await,
        }
    }

    /// Opens connections, a few at a time, each with one echo so that the upstream leg stands.
    async fn open(&self, connections: usize) -> io::Result<Vec<Client>> {
        let mut openers = JoinSet::new();
        for opener in 0..OPENERS {
            let (dialer, batch) = (Arc::clone(&self.dialer), Arc::clone(&self.batch));
            let share = (connections + OPENERS - 1 - opener) / OPENERS;
            openers.spawn(async move {
                let mut clients = Vec::with_capacity(share);
                for _ in 0..share {
                    let mut client = in_time(OPENING, dialer.connect()).await?;
                    in_time(OPENING, client.echo(&batch, Instant::now())).await?;
                    clients.push(client);
                }
                Ok(clients)
            });
        }
        let opened = all(openers).await?;
        Ok(opened.into_iter().flatten().collect())
    }

    async fn open_idle(&mut self, connections: usize) -> io::Result<Outcome> {
        let begun = Instant::now();
        for mut client in self.open(connections).await? {
            self.idle.spawn(async move { client.idle().await });
        }
        // A connection that ended is not idle: its memory would be missing from the figure.
        tokio::time::sleep(SETTLING).await;
        if let Some(Ok(Err(error))) = self.idle.try_join_next() {
            return Err(error);
        }
        Ok(Outcome {
            count: connections as u64,
            seconds: begun.elapsed().as_secs_f64(),
            micros: Percentiles::default(),
        })
    }

    async fn echo(&mut self, run_ms: u64) -> io::Result<Outcome> {
        let begun = Instant::now();
        let run = Duration::from_millis(run_ms);
        let mut tasks = JoinSet::new();
        for mut client in self.clients.drain(..) {
            let batch = Arc::clone(&self.batch);
            tasks.spawn(async move {
                let times = in_time(run + OPENING, client.echo(&batch, begun + run)).await?;
                Ok((client, times))
            });
        }
        let mut times = Vec::new();
        for (client, of_one) in all(tasks).await? {
            self.clients.push(client);
            times.extend(of_one);
        }
        Ok(outcome(begun, times))
    }

    async fn connect(&self, at_once: usize, run_ms: u64) -> io::Result<Outcome> {
        let begun = Instant::now();
        let until = begun + Duration::from_millis(run_ms);
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let (dialer, batch) = (Arc::clone(&self.dialer), Arc::clone(&self.batch));
            tasks.spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < until {
                    let begun = Instant::now();
                    let mut client = in_time(OPENING, dialer.connect()).await?;
                    in_time(OPENING, client.echo(&batch, begun)).await?;
                    let time = begun.elapsed().as_nanos();
                    times.push(u32::try_from(time).unwrap_or(u32::MAX));
                    in_time(OPENING, client.close()).await?;
                }
                Ok(times)
            });
        }
        Ok(outcome(begun, all(tasks).await?.concat()))
    }
}

fn outcome(begun: Instant, times: Vec<u32>) -> Outcome {
    Outcome {
        count: times.len() as u64,
        seconds: begun.elapsed().as_secs_f64(),
        micros: Percentiles::of(times),
    }
}

/// All results, or the first failure.
async fn all<T: 'static>(mut tasks: JoinSet<io::Result<T>>) -> io::Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result.map_err(io::Error::other)??);
    }
    Ok(results)
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other(format!("not done after {limit:?}"))),
    }
}

/// Connections being opened at a time: enough to keep the proxy busy, too few for its backlog to
/// matter.
const OPENERS: usize = 16;

/// How long opening or closing one connection, or the last message of a run, may take.
const OPENING: Duration = Duration::from_secs(10);

/// How long idle connections are left alone before their memory is read: allocators and garbage
/// collectors give back what opening took.
const SETTLING: Duration = Duration::from_secs(1);
