//! The schedule: scenes, rounds, and within a round one proxy after another.
//!
//! Owns what runs when, what is left out after a failure, and saying how far it is. How one visit
//! goes is in `visit.rs`.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::load::{Outcome, Work};
use crate::proxies::{Installed, Proxy};
use crate::report::{Measured, Reading};
use crate::rows::{Scene, Variant};
use crate::stop;
use crate::visit::{Site, Visit};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One run of the bench.
pub struct Schedule<'a> {
    site: Site<'a>,
    rounds: usize,
    progress: Progress,
    /// Measurements that could not be made, and why.
    pub failures: Vec<String>,
}

/// One proxy within one scene.
struct Runner<'a> {
    installed: &'a Installed,
    /// Left running between rounds, unless its memory is read.
    proxy: Option<Proxy>,
    has_failed: bool,
    /// By row, then by round.
    readings: Vec<Vec<Reading>>,
}

impl<'a> Schedule<'a> {
    /// Of so many rounds that count.
    pub fn new(site: Site<'a>, rounds: usize) -> Self {
        Self {
            site,
            rounds,
            progress: Progress::new(),
            failures: Vec::new(),
        }
    }

    /// Starts each once: a proxy that cannot be started is left out, and that is a failure.
    pub fn those_that_start(&mut self, proxies: Vec<Installed>) -> Vec<Installed> {
        let site = &self.site;
        let starts = |proxy: &Installed| {
            let started = proxy.start(site.launcher, site.setting, Variant::USUAL);
            if let Err(problem) = &started {
                let name = proxy.kind.name();
                self.failures
                    .push(format!("{name} did not start: {problem}"));
            }
            started.is_ok()
        };
        proxies.into_iter().filter(starts).collect()
    }

    /// All scenes. An error only when it was told to stop.
    pub fn run(&mut self, scenes: Vec<Scene>, proxies: &[Installed]) -> Result<Vec<Measured>> {
        self.progress.left = scenes
            .iter()
            .map(|scene| self.expected(scene) * proxies.len() as u32)
            .sum();
        let count = scenes.len();
        let mut measured = Vec::new();
        for (index, scene) in scenes.into_iter().enumerate() {
            let place = format!("[{}/{count}] {}", index + 1, scene.title);
            measured.extend(self.scene(scene, proxies, &place)?);
        }
        Ok(measured)
    }

    /// One scene: a round that does not count, then those that do, the proxies in turn. A proxy
    /// that fails is left out of the rest of it.
    fn scene(
        &mut self,
        mut scene: Scene,
        proxies: &[Installed],
        place: &str,
    ) -> Result<Vec<Measured>> {
        let runner = |installed| Runner {
            installed,
            proxy: None,
            has_failed: false,
            readings: scene.rows.iter().map(|_| Vec::new()).collect(),
        };
        let mut runners: Vec<Runner<'_>> = proxies.iter().map(runner).collect();
        if has_warm_up(&scene) {
            self.progress.say(place, "warm-up");
            self.warm_up(&mut scene, &mut runners)?;
        }
        for round in 1..=self.rounds {
            self.progress
                .say(place, &format!("round {round} of {}", self.rounds));
            let direct = self.direct(&scene)?;
            for runner in &mut runners {
                let Some(visit) = self.visit(runner, &scene)? else {
                    continue;
                };
                for (row, readings) in scene.rows.iter().zip(&mut runner.readings) {
                    readings.push(visit.reading(row, direct.as_ref())?);
                }
            }
        }
        Ok(by_row(scene, runners))
    }

    /// A round that is not shown. Where messages come at a fixed rate, it finds out which.
    fn warm_up(&mut self, scene: &mut Scene, runners: &mut [Runner<'_>]) -> Result<()> {
        let short = shortened(&scene.works);
        let works = std::mem::replace(&mut scene.works, short);
        let mut slowest = f64::INFINITY;
        for runner in runners {
            if let Some(visit) = self.visit(runner, scene)? {
                slowest = slowest.min(visit.per_second());
            }
        }
        scene.works = works;
        for work in &mut scene.works {
            if let Work::Paced { per_second, .. } = work {
                *per_second = slowest / 2.0;
                for row in &mut scene.rows {
                    row.title = format!("{} ({per_second:.0}/s)", row.title);
                }
            }
        }
        Ok(())
    }

    /// One visit; `None` when it failed now or before. An error when told to stop.
    fn visit(&mut self, runner: &mut Runner<'_>, scene: &Scene) -> Result<Option<Visit>> {
        if runner.has_failed {
            return Ok(None);
        }
        let begun = Instant::now();
        let kind = runner.installed.kind;
        let result = match runner.proxy.take() {
            Some(proxy) => Ok(proxy),
            None => {
                let (launcher, setting) = (self.site.launcher, self.site.setting);
                runner.installed.start(launcher, setting, scene.variant)
            }
        };
        let result = result.map_err(Into::into).and_then(|proxy| {
            let visit = self.site.visit(kind, &proxy, scene);
            let visit = visit.map_err(|problem| format!("{problem}\n{}", proxy.last_words()))?;
            let reads_memory = scene.rows.iter().any(|row| row.figure.is_memory());
            runner.proxy = (!reads_memory).then_some(proxy);
            Ok::<_, Box<dyn Error>>(visit)
        });
        stop::check()?;
        self.progress
            .book(begun.elapsed(), visit_time(&scene.works));
        match result {
            Ok(visit) => Ok(Some(visit)),
            Err(problem) => {
                runner.has_failed = true;
                let failure = format!("{} failed in {}: {problem}", kind.name(), scene.title);
                eprintln!("{failure}");
                self.failures.push(failure);
                Ok(None)
            }
        }
    }

    /// The same messages at the same rate without a proxy, where that is taken off.
    fn direct(&self, scene: &Scene) -> Result<Option<Outcome>> {
        match scene.works[..] {
            [work @ Work::Paced { .. }] => Ok(Some(self.site.direct(work)?)),
            _ => Ok(None),
        }
    }

    fn expected(&self, scene: &Scene) -> Duration {
        let counted = visit_time(&scene.works) * self.rounds as u32;
        match has_warm_up(scene) {
            true => counted + visit_time(&shortened(&scene.works)),
            false => counted,
        }
    }
}

/// Memory is read from fresh processes, which need no warm-up.
fn has_warm_up(scene: &Scene) -> bool {
    !scene.rows.iter().any(|row| row.figure.is_memory())
}

fn visit_time(works: &[Work]) -> Duration {
    let works: Duration = works.iter().map(Work::expected).sum();
    works + Duration::from_millis(300)
}

/// For the round that does not count: long enough to have been everywhere once. A fixed rate is not
/// known before it.
fn shortened(works: &[Work]) -> Vec<Work> {
    let mut works = works.to_vec();
    for work in &mut works {
        if let Work::Paced {
            connections, times, ..
        } = *work
        {
            *work = Work::Echo {
                connections,
                payload: 64,
                in_flight: 1,
                times,
            };
        }
        match work {
            Work::Echo { times, .. }
            | Work::Json { times, .. }
            | Work::Turns { times, .. }
            | Work::Connect { times, .. }
            | Work::FanOut { times, .. } => times.run_ms /= 4,
            Work::Paced { .. }
            | Work::Open { .. }
            | Work::Storm { .. }
            | Work::SlowReaders { .. } => {}
        }
    }
    works
}

fn by_row(scene: Scene, mut runners: Vec<Runner<'_>>) -> Vec<Measured> {
    let rows = scene.rows.into_iter().enumerate();
    rows.map(|(index, row)| Measured {
        row,
        readings: runners
            .iter_mut()
            .map(|runner| std::mem::take(&mut runner.readings[index]))
            .collect(),
    })
    .collect()
}

/// How far it is, and about how long it will take.
struct Progress {
    /// Expected of what is not done yet, before it is corrected by what was slower or faster.
    left: Duration,
    expected: Duration,
    taken: Duration,
}

impl Progress {
    fn new() -> Self {
        Self {
            left: Duration::ZERO,
            expected: Duration::ZERO,
            taken: Duration::ZERO,
        }
    }

    fn book(&mut self, taken: Duration, expected: Duration) {
        self.taken += taken;
        self.expected += expected;
        self.left = self.left.saturating_sub(expected);
    }

    fn say(&self, place: &str, what: &str) {
        let factor = match self.expected {
            Duration::ZERO => 1.0,
            expected => self.taken.as_secs_f64() / expected.as_secs_f64(),
        };
        let seconds = (self.left.as_secs_f64() * factor).ceil();
        let (minutes, seconds) = ((seconds / 60.0).floor(), seconds % 60.0);
        eprintln!("{place}: {what}; about {minutes:.0}:{seconds:02.0} to go");
    }
}
