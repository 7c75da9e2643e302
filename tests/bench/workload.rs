//! How each work is done.
//!
//! Owns the connections of one load process. Between works they rest, each in a task that answers
//! pings, so that none is lost however long the others take. Every message under way has come back
//! before a run answers, so nothing is counted twice or missed. It knows neither which proxy it
//! talks to nor what is done with its answers.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Client, Dialer};
use crate::control::{Control, Order};
use crate::exchange::{Batch, nanoseconds};
use crate::frames;
use crate::load::{Outcome, Plan, Route, Work};
use crate::messages;
use crate::resting::Resting;
use crate::stats::Percentiles;

/// The connections of one load process, and what they do.
pub struct Workload {
    dialer: Arc<Dialer>,
    /// To the route with rules.
    ruled: Arc<Dialer>,
    control_port: u16,
    /// Messages of 64 bytes, one at a time: what every connection begins with.
    small: Arc<Batch>,
    /// Messages of 200 bytes of JSON, one at a time.
    json: Arc<Batch>,
    resting: Resting,
    /// Connections that only listen, and where they say that a message came.
    listeners: JoinSet<io::Result<()>>,
    arrivals: Option<mpsc::UnboundedReceiver<Instant>>,
    /// Connections that nobody reads.
    unread: Vec<Client>,
}

impl Workload {
    /// With no connection yet.
    pub fn new(plan: &Plan) -> io::Result<Self> {
        let under_way = plan.works.iter().map(|work| match *work {
            Work::Echo {
                payload, in_flight, ..
            } => payload * in_flight,
            _ => 64,
        });
        let largest = under_way.max().unwrap_or_default();
        let read_size = (2 * largest).clamp(4 * 1024, 128 * 1024);
        let dialer = |route| Dialer::new(&plan.entrance, route, read_size).map(Arc::new);
        Ok(Self {
            dialer: dialer(Route::Usual)?,
            ruled: dialer(Route::Ruled)?,
            control_port: plan.control,
            small: Arc::new(Batch::new(64, 1)),
            json: Arc::new(Batch::of(json(), 1)),
            resting: Resting::new(),
            listeners: JoinSet::new(),
            arrivals: None,
            unread: Vec::new(),
        })
    }

    /// The first step. `None`: there was one too many.
    pub async fn prepare(&mut self, work: Option<Work>) -> io::Result<Outcome> {
        let work = work.ok_or(io::ErrorKind::InvalidInput)?;
        if let Work::Json { .. } = work {
            drop(self.resting.call_back().await?);
        }
        if self.resting.len() == 0 {
            let mut control = Control::connect(self.control_port).await?;
            control.wait_until_nobody_is_there().await?;
        }
        match work {
            Work::Open { .. } => Ok(Outcome::default()),
            Work::Echo {
                connections, times, ..
            }
            | Work::Paced {
                connections, times, ..
            } => {
                let missing = connections.saturating_sub(self.resting.len());
                self.open(missing).await?;
                self.messages(work, times.warm_up_ms).await
            }
            Work::Json {
                route,
                connections,
                times,
            } => {
                let dialer = match route {
                    Route::Usual => Arc::clone(&self.dialer),
                    Route::Ruled => Arc::clone(&self.ruled),
                };
                let first = Arc::clone(&self.json);
                self.open_with(&dialer, &first, connections).await?;
                self.messages(work, times.warm_up_ms).await
            }
            Work::Turns { times, .. } => self.messages(work, times.warm_up_ms).await,
            Work::Connect { at_once, times } => self.connect(at_once, times.warm_up_ms).await,
            Work::Storm { .. } => self.connect(OPENERS, 100).await,
            Work::FanOut {
                connections,
                payload,
                times,
            } => {
                self.open(connections).await?;
                self.start_listening(payload).await?;
                self.fan_out(payload, times.warm_up_ms).await
            }
            Work::SlowReaders { connections, .. } => {
                self.open(connections).await?;
                self.unread = self.resting.call_back().await?;
                Ok(Outcome::default())
            }
        }
    }

    /// The second step, which is measured.
    pub async fn run(&mut self, work: Option<Work>) -> io::Result<Outcome> {
        let work = work.ok_or(io::ErrorKind::InvalidInput)?;
        match work {
            Work::Open { connections } => self.idle(connections).await,
            Work::Echo { times, .. }
            | Work::Json { times, .. }
            | Work::Paced { times, .. }
            | Work::Turns { times, .. } => self.messages(work, times.run_ms).await,
            Work::Connect { at_once, times } => self.connect(at_once, times.run_ms).await,
            Work::Storm { connections } => self.storm(connections).await,
            Work::FanOut { payload, times, .. } => self.fan_out(payload, times.run_ms).await,
            Work::SlowReaders { payload, .. } => self.flood(payload).await,
        }
    }

    /// Opens connections, a few at a time, each with one echo so that the upstream leg stands.
    async fn open(&mut self, connections: usize) -> io::Result<()> {
        let (dialer, first) = (Arc::clone(&self.dialer), Arc::clone(&self.small));
        self.open_with(&dialer, &first, connections).await
    }

    async fn open_with(
        &mut self,
        dialer: &Arc<Dialer>,
        first: &Arc<Batch>,
        connections: usize,
    ) -> io::Result<()> {
        let mut openers = JoinSet::new();
        let (opened, mut clients) = mpsc::unbounded_channel();
        for opener in 0..OPENERS {
            let (dialer, batch) = (Arc::clone(dialer), Arc::clone(first));
            let opened = opened.clone();
            let share = (connections + OPENERS - 1 - opener) / OPENERS;
            openers.spawn(async move {
                for _ in 0..share {
                    let (client, _) = open_one(&dialer, &batch, Instant::now()).await?;
                    opened.send(client).map_err(io::Error::other)?;
                }
                Ok(())
            });
        }
        drop(opened);
        while let Some(client) = clients.recv().await {
            self.resting.add(client);
        }
        all(openers).await.map(|_| ())
    }

    async fn idle(&mut self, connections: usize) -> io::Result<Outcome> {
        let begun = Instant::now();
        self.open(connections).await?;
        tokio::time::sleep(SETTLING).await;
        // One that ended is not idle: its memory would be missing from the figure.
        self.resting.check()?;
        Ok(untimed(begun, connections as u64))
    }

    /// Messages over the connections that rest, as `work` says.
    async fn messages(&mut self, work: Work, run_ms: u64) -> io::Result<Outcome> {
        let clients = self.resting.call_back().await?;
        let (begun, run) = (Instant::now(), Duration::from_millis(run_ms));
        let until = begun + run;
        let tasks = match work {
            Work::Paced { per_second, .. } => {
                messages::paced(clients, per_second, &self.small, run)
            }
            Work::Turns { at_once, .. } => messages::in_turns(clients, at_once, &self.small, until),
            Work::Json { .. } => messages::all_busy(clients, &self.json, until),
            Work::Echo {
                payload, in_flight, ..
            } => {
                let batch = Arc::new(Batch::new(payload, in_flight));
                messages::all_busy(clients, &batch, until)
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut times = Vec::new();
        for (clients, of_them) in in_time(run + OPENING, all(tasks)).await? {
            clients
                .into_iter()
                .for_each(|client| self.resting.add(client));
            times.extend(of_them);
        }
        Ok(outcome(begun, times))
    }

    async fn connect(&self, at_once: usize, run_ms: u64) -> io::Result<Outcome> {
        let begun = Instant::now();
        let until = begun + Duration::from_millis(run_ms);
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let (dialer, batch) = (Arc::clone(&self.dialer), Arc::clone(&self.small));
            tasks.spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < until {
                    let (client, time) = open_one(&dialer, &batch, Instant::now()).await?;
                    times.push(time);
                    in_time(OPENING, client.close()).await?;
                }
                Ok(times)
            });
        }
        Ok(outcome(begun, all(tasks).await?.concat()))
    }

    /// All begin now.
    async fn storm(&mut self, connections: usize) -> io::Result<Outcome> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (dialer, batch) = (Arc::clone(&self.dialer), Arc::clone(&self.small));
            tasks.spawn(async move { open_one(&dialer, &batch, begun).await });
        }
        let (clients, times): (Vec<_>, _) = all(tasks).await?.into_iter().unzip();
        let outcome = outcome(begun, times);
        clients
            .into_iter()
            .for_each(|client| self.resting.add(client));
        Ok(outcome)
    }

    async fn start_listening(&mut self, payload: usize) -> io::Result<()> {
        let expected: Arc<[u8]> = frames::text(payload).into();
        let (sender, arrivals) = mpsc::unbounded_channel();
        for client in self.resting.call_back().await? {
            let (expected, sender) = (Arc::clone(&expected), sender.clone());
            self.listeners
                .spawn(async move { client.listen(&expected, &sender).await });
        }
        self.arrivals = Some(arrivals);
        Ok(())
    }

    async fn fan_out(&mut self, payload: usize, run_ms: u64) -> io::Result<Outcome> {
        let mut control = Control::connect(self.control_port).await?;
        let arrivals = self.arrivals.as_mut();
        let arrivals = arrivals.ok_or(io::ErrorKind::InvalidInput)?;
        let begun = Instant::now();
        let mut times = Vec::new();
        while begun.elapsed() < Duration::from_millis(run_ms) {
            let told = Instant::now();
            control.order(Order::Broadcast(payload)).await?;
            let late = tokio::time::sleep(OPENING);
            tokio::pin!(late);
            for _ in 0..self.listeners.len() {
                tokio::select! {
                    Some(arrival) = arrivals.recv() => times.push(nanoseconds(arrival - told)),
                    Some(ended) = self.listeners.join_next() => ended??,
                    () = &mut late => {
                        return Err(io::Error::other("a message for everybody did not reach all"));
                    }
                }
            }
        }
        Ok(outcome(begun, times))
    }

    /// Orders a flood, and waits until the kernel takes no more of it from the upstream.
    async fn flood(&mut self, payload: usize) -> io::Result<Outcome> {
        let begun = Instant::now();
        let mut control = Control::connect(self.control_port).await?;
        let before = control.order(Order::Flooded).await?;
        control.order(Order::Flood(payload)).await?;
        let (mut flooded, mut quiet) = (before, 0);
        while quiet < STALLED {
            if begun.elapsed() > FLOODING {
                return Err(io::Error::other(
                    "the flood is still taken from the upstream",
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = control.order(Order::Flooded).await?;
            quiet = if now == flooded { quiet + 1 } else { 0 };
            flooded = now;
        }
        match flooded > before {
            true => Ok(untimed(begun, self.unread.len() as u64)),
            false => Err(io::Error::other("nothing was taken of the flood")),
        }
    }
}

/// Opens one connection and has one echo; nanoseconds since `begun`.
async fn open_one(dialer: &Dialer, batch: &Batch, begun: Instant) -> io::Result<(Client, u32)> {
    let opening = async {
        let mut client = dialer.connect().await?;
        client.echo(batch, begun, &mut [0; 512]).await?;
        Ok(client)
    };
    let client = in_time(OPENING, opening).await?;
    Ok((client, nanoseconds(begun.elapsed())))
}

/// 200 bytes that the rules of `tidegate.toml` allow.
fn json() -> Vec<u8> {
    let head = r#"{"type":"publish","user":"alice","id":1712,"tags":["a","b"],"text":""#;
    let end = "\"}";
    let mut text = frames::text(200 - head.len() - end.len());
    // It is a string here.
    for quote in text.iter_mut().filter(|byte| **byte == b'"') {
        *quote = b'\'';
    }
    [head.as_bytes(), &text, end.as_bytes()].concat()
}

fn outcome(begun: Instant, times: Vec<u32>) -> Outcome {
    let outcome = untimed(begun, times.len() as u64);
    Outcome {
        micros: Percentiles::of(times),
        ..outcome
    }
}

fn untimed(begun: Instant, count: u64) -> Outcome {
    Outcome {
        count,
        seconds: begun.elapsed().as_secs_f64(),
        micros: Percentiles::default(),
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
const OPENING: Duration = Duration::from_secs(20);

/// How long idle connections are left alone before their memory is read: allocators and garbage
/// collectors give back what opening took.
const SETTLING: Duration = Duration::from_secs(1);

/// A flood has stalled when nothing moved that often, looked at every 100 ms.
const STALLED: u32 = 5;

/// How long buffers may take to fill.
const FLOODING: Duration = Duration::from_secs(20);
