//! One visit to a proxy: a load process does the works of a scene, and before and after each the
//! proxy's CPU time and memory are read.
//!
//! Owns the order of that, and how a row takes its figure from it. It knows nothing of rounds.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use crate::child::{Helper, Launcher};
use crate::client::Entrance;
use crate::load::{Outcome, Plan, Reply, Step, Work};
use crate::measure::Sample;
use crate::proxies::{Kind, Proxy};
use crate::records;
use crate::report::Reading;
use crate::rows::{Figure, Row, Scene, Way};
use crate::setting::Setting;
use crate::stats::Spread;
use crate::stop;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What stays the same for all visits.
pub struct Site<'a> {
    /// Starts processes.
    pub launcher: &'a Launcher,
    /// Certificate, keys, tokens.
    pub setting: &'a Setting,
    /// The upstream.
    pub upstream: &'a Helper,
    /// Its ports: for WebSocket, for orders.
    pub ports: (u16, u16),
}

/// What was read, work by work.
pub struct Visit {
    works: Vec<Done>,
    /// The largest buffer of each session, in bytes, where the proxy says so.
    buffers: Vec<u64>,
}

/// One work.
struct Done {
    before: Sample,
    after: Sample,
    /// The largest seen during the run.
    peak_kib: i64,
    /// CPU time of load and upstream together.
    helpers_ns: i64,
    outcome: Outcome,
}

impl Site<'_> {
    /// All works of `scene` over one proxy.
    pub fn visit(&self, kind: Kind, proxy: &Proxy, scene: &Scene) -> Result<Visit> {
        let asks_for_token = kind == Kind::Tidegate;
        let entrance = Entrance {
            port: proxy.port(scene.way),
            certificate: (scene.way == Way::Tls).then(|| self.setting.certificate()),
            first_message: asks_for_token
                .then(|| self.setting.first_message(scene.variant.algorithm)),
        };
        let mut load = self.load(entrance, &scene.works)?;
        let mut works = Vec::new();
        for &work in &scene.works {
            works.push(self.work(&mut load, proxy, work)?);
        }
        // All sessions end with it.
        drop(load);
        let reads_records = scene.rows.iter().any(|row| row.figure == Figure::PeakKib);
        let buffers = match works.last() {
            Some(last) if asks_for_token && reads_records => buffers(proxy, last.outcome.count)?,
            _ => Vec::new(),
        };
        Ok(Visit { works, buffers })
    }

    /// The only work of a scene with the upstream itself, in clear and without a proxy.
    pub fn direct(&self, work: Work) -> Result<Outcome> {
        let entrance = Entrance {
            port: self.ports.0,
            certificate: None,
            first_message: None,
        };
        let mut load = self.load(entrance, &[work])?;
        step(&mut load, Step::Prepare, work, || ())?;
        step(&mut load, Step::Run, work, || ())
    }

    fn load(&self, entrance: Entrance, works: &[Work]) -> Result<Helper> {
        let mut load = self.launcher.helper("load")?;
        load.send(&Plan {
            entrance,
            control: self.ports.1,
            works: works.to_vec(),
        })?;
        Ok(load)
    }

    fn work(&self, load: &mut Helper, proxy: &Proxy, work: Work) -> Result<Done> {
        step(load, Step::Prepare, work, || ())?;
        let (before, helpers_before) = self.samples(proxy, load)?;
        let mut peak_kib = before.resident_kib;
        let mut look = || {
            // Only where it is the figure: looking takes time that a busy proxy misses.
            if matches!(work, Work::SlowReaders { .. }) {
                let now = Sample::of(proxy.pid()).unwrap_or_default();
                peak_kib = peak_kib.max(now.resident_kib);
            }
        };
        let outcome = step(load, Step::Run, work, &mut look)?;
        look();
        let (after, helpers_after) = self.samples(proxy, load)?;
        Ok(Done {
            before,
            after,
            peak_kib,
            helpers_ns: helpers_after - helpers_before,
            outcome,
        })
    }

    /// The proxy, and the CPU time of load and upstream together.
    fn samples(&self, proxy: &Proxy, load: &Helper) -> Result<(Sample, i64)> {
        // The last bookkeeping of closed connections belongs to the proxy's cost.
        std::thread::sleep(Duration::from_millis(20));
        let helpers = Sample::of(load.pid())?.cpu_ns + Sample::of(self.upstream.pid())?.cpu_ns;
        Ok((Sample::of(proxy.pid())?, helpers))
    }
}

fn step(load: &mut Helper, step: Step, work: Work, look: impl FnMut()) -> Result<Outcome> {
    load.send(&step)?;
    match load.receive(PATIENCE + 10 * work.expected(), look)? {
        Reply::Done(outcome) => Ok(outcome),
        Reply::Failed(problem) => Err(problem.into()),
    }
}

/// Waits for the records of `sessions` sessions. More may be there: of the opening of the row.
fn buffers(proxy: &Proxy, sessions: u64) -> Result<Vec<u64>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let peaks = records::peaks_for_clients(&proxy.log());
        let seen = peaks.len() as u64;
        if seen >= sessions {
            return match peaks.iter().any(|peak| *peak > 0) {
                true => Ok(peaks),
                false => Err("the flood never reached its buffers".into()),
            };
        }
        if Instant::now() > deadline {
            return Err(format!("{seen} records of {sessions} sessions").into());
        }
        stop::check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Visit {
    /// What one row takes from it. `direct`: the same work without a proxy.
    pub fn reading(&self, row: &Row, direct: Option<&Outcome>) -> io::Result<Reading> {
        let done = self.works.get(row.work);
        let done = done.ok_or_else(|| io::Error::other("a row of no work"))?;
        let micros = done.outcome.micros;
        let added = |proxied: f64, direct: Option<f64>| {
            // Less than nothing is chance, and no ratio could be made of it.
            (proxied - direct.unwrap_or_default()).max(1.0)
        };
        let figure = match row.figure {
            Figure::CpuMicros | Figure::CpuGrowth => done.cpu_micros(),
            Figure::ResidentKib { since } => self.growth_kib(since, row.work),
            Figure::PeakKib => {
                (done.peak_kib - done.before.resident_kib) as f64 / done.outcome.count as f64
            }
            Figure::AddedP50 => added(micros.p50, direct.map(|direct| direct.micros.p50)),
            Figure::AddedP99 => added(micros.p99, direct.map(|direct| direct.micros.p99)),
        };
        let own = match row.figure {
            Figure::CpuGrowth => self.works.first().map(|first| figure / first.cpu_micros()),
            Figure::PeakKib => {
                Spread::of(self.buffers.iter().map(|peak| *peak as f64)).map(|buffers| buffers.max)
            }
            _ => None,
        };
        let (seconds, cpu) = (done.outcome.seconds, done.after - done.before);
        Ok(Reading {
            figure,
            own,
            per_second: done.outcome.count as f64 / seconds,
            micros,
            proxy_busy: cpu.cpu_ns as f64 / 1e9 / seconds,
            load_busy: done.helpers_ns as f64 / 1e9 / seconds,
        })
    }

    /// Round trips per second of the first work.
    pub fn per_second(&self) -> f64 {
        let outcome = self.works.first().map(|first| first.outcome);
        outcome.map_or(0.0, |outcome| outcome.count as f64 / outcome.seconds)
    }

    /// Memory per connection opened by the works from `since` to `last`.
    fn growth_kib(&self, since: usize, last: usize) -> f64 {
        let works = self.works.get(since..=last).unwrap_or_default();
        let opened: u64 = works.iter().map(|work| work.outcome.count).sum();
        let (Some(first), Some(last)) = (works.first(), works.last()) else {
            return f64::NAN;
        };
        (last.after - first.before).resident_kib as f64 / opened as f64
    }
}

impl Done {
    fn cpu_micros(&self) -> f64 {
        (self.after - self.before).cpu_ns as f64 / 1000.0 / self.outcome.count as f64
    }
}

/// For answers that should come at once.
const PATIENCE: Duration = Duration::from_secs(30);
