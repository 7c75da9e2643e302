//! `cargo bench --bench edge`: what Tidegate costs next to other proxies, in one command.
//!
//! Owns the arguments and the schedule: rows, rounds, and within a round one proxy after another.
//! The same binary is the load generator and the upstream, as child processes, so that each can be
//! pinned to a core of its own. `README.md` beside this file says what the figures mean.

mod child;
mod client;
mod echo;
mod frames;
mod load;
mod measure;
mod proxies;
mod report;
mod rows;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use child::{Helper, Launcher};
use load::{Outcome, Plan, Reply, Work};
use measure::{Machine, Sample};
use proxies::{Installed, Kind, Proxy, Setting};
use report::{Measured, Reading, Report};
use rows::{Figure, Row, Size};

/// Measures CPU time and memory of Tidegate and of every other proxy that is installed.
#[derive(Parser)]
#[command(name = "edge")]
struct Arguments {
    /// Two minutes instead of about fifteen: fewer connections, shorter and fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Rounds that count, after one that does not [default: 5, or 3 with --quick].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Rows to measure: idle, 64B, 64Bx16, 1KiB, 64KiB, connect.
    #[arg(long, value_name = "ROW,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Proxies to measure: tidegate, nginx, haproxy, caddy, envoy. Ratios are of the first found.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    proxies: Vec<String>,
    /// A tidegate binary; without it `cargo build --release` makes one.
    #[arg(long, value_name = "FILE")]
    proxy_bin: Option<PathBuf>,
    /// Writes everything, raw readings included, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by `cargo bench`, and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What a child process is.
#[derive(Subcommand)]
#[command(disable_help_subcommand = true)]
enum Role {
    #[command(hide = true)]
    Echo,
    #[command(hide = true)]
    Load,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.role {
        _ if !arguments.bench => {
            println!("nothing is measured here: start it with cargo bench --bench edge");
            Ok(ExitCode::SUCCESS)
        }
        Some(Role::Echo) => echo::main().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Some(Role::Load) => load::main().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        None => bench(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("edge: {error}");
        ExitCode::FAILURE
    })
}

/// The whole run. Fails when something went wrong that makes the table incomplete.
fn bench(arguments: &Arguments) -> Result<ExitCode> {
    let launcher = Launcher::detect()?;
    let mut notes = Vec::new();
    let possible = possible_connections()?;
    let size = size(arguments, possible, &mut notes);
    let rows = chosen_rows(arguments, &size)?;
    let machine = Machine::look()?;
    if machine.load > 0.5 {
        notes.push(format!(
            "the machine was busy (load average {:.2}): the figures are disturbed",
            machine.load
        ));
    }
    let proxies = chosen_proxies(arguments, &mut notes)?;
    let mut upstream = launcher.helper("echo")?;
    let setting = Setting::prepare(upstream.receive(PATIENCE)?, possible)?;
    let mut bench = Bench {
        launcher: &launcher,
        setting: &setting,
        upstream: &upstream,
        rounds: size.rounds,
        failures: Vec::new(),
    };
    let proxies = bench.those_that_start(proxies);
    let rows = rows.into_iter().map(|row| bench.row(row, &proxies));
    let rows = rows.collect();
    let is_complete = bench.failures.is_empty();
    notes.extend(bench.failures);
    let report = Report {
        machine,
        placement: launcher.placement(),
        rounds: size.rounds,
        quick: arguments.quick,
        proxies: proxies
            .into_iter()
            .map(|proxy| (proxy.kind.name(), proxy.version))
            .collect(),
        notes,
        rows,
    };
    println!("{}", report.table());
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report.json()))?;
    }
    Ok(if is_complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How many connections a proxy can hold: two sockets each, and some files of its own.
fn possible_connections() -> Result<usize> {
    let open_files = measure::open_files()?;
    let possible = open_files.saturating_sub(200) / 2;
    match possible < Size::FULL.busy {
        true => Err(format!("only {open_files} files may be open: say ulimit -n 20000").into()),
        false => Ok(possible),
    }
}

/// Sizes by the arguments, and as far as open files allow.
fn size(arguments: &Arguments, possible: usize, notes: &mut Vec<String>) -> Size {
    let mut size = match arguments.quick {
        true => Size::QUICK,
        false => Size::FULL,
    };
    size.rounds = arguments.rounds.unwrap_or(size.rounds).max(1);
    let wanted = size.idle + rows::IDLE_BASE;
    if possible < wanted {
        size.idle = possible - rows::IDLE_BASE;
        notes.push(format!(
            "{} idle connections, for lack of open files: say ulimit -n {} for all",
            size.idle,
            2 * wanted + 200,
        ));
    }
    size
}

fn chosen_rows(arguments: &Arguments, size: &Size) -> Result<Vec<Row>> {
    let mut rows = rows::all(size);
    let known: Vec<&str> = rows.iter().map(|row| row.key).collect();
    if let Some(unknown) = unknown(&arguments.only, &known) {
        return Err(format!("no row {unknown:?}; there are {}", known.join(", ")).into());
    }
    rows.retain(|row| arguments.only.is_empty() || arguments.only.iter().any(|key| key == row.key));
    Ok(rows)
}

/// Those that are there, ours first; the others are noted.
fn chosen_proxies(arguments: &Arguments, notes: &mut Vec<String>) -> Result<Vec<Installed>> {
    let known = Kind::ALL.map(Kind::name);
    if let Some(unknown) = unknown(&arguments.proxies, &known) {
        return Err(format!("no proxy {unknown:?}; there are {}", known.join(", ")).into());
    }
    let mut found = Vec::new();
    for kind in Kind::ALL {
        if !arguments.proxies.is_empty() && !arguments.proxies.iter().any(|n| n == kind.name()) {
            continue;
        }
        let installed = match (kind, &arguments.proxy_bin) {
            (Kind::Tidegate, Some(binary)) => Some(Installed::at(kind, binary.canonicalize()?)),
            (Kind::Tidegate, None) => Some(Installed::at(kind, proxies::build_tidegate()?)),
            _ => Installed::find(kind),
        };
        if installed.is_none() {
            let (name, how) = (kind.name(), kind.how_to_install());
            notes.push(format!("{name} not found; {how}"));
        }
        found.extend(installed);
    }
    match found.is_empty() {
        true => Err(format!("nothing to measure: {}", notes.join("; ")).into()),
        false => Ok(found),
    }
}

fn unknown<'a>(wanted: &'a [String], known: &[&str]) -> Option<&'a str> {
    let mut wanted = wanted.iter().map(String::as_str);
    wanted.find(|name| !known.contains(name))
}

/// What stays the same for all rows.
struct Bench<'a> {
    launcher: &'a Launcher,
    setting: &'a Setting,
    upstream: &'a Helper,
    rounds: usize,
    /// Measurements that could not be made, and why.
    failures: Vec<String>,
}

impl Bench<'_> {
    /// Starts each once: a proxy that cannot be started is left out, and that is a failure.
    fn those_that_start(&mut self, proxies: Vec<Installed>) -> Vec<Installed> {
        let (launcher, setting) = (self.launcher, self.setting);
        let starts = |proxy: &Installed| match proxy.start(launcher, setting) {
            Ok(_) => true,
            Err(problem) => {
                self.failures
                    .push(format!("{} did not start: {problem}", proxy.kind.name()));
                false
            }
        };
        proxies.into_iter().filter(starts).collect()
    }

    /// One row: a round that does not count, then those that do, the proxies in turn. A proxy
    /// that fails is left out of the rest of the row.
    fn row(&mut self, row: Row, proxies: &[Installed]) -> Measured {
        eprintln!("{} …", row.title);
        let mut readings = vec![Vec::new(); proxies.len()];
        let mut running: Vec<_> = proxies.iter().map(|_| None).collect();
        let mut has_failed = vec![false; proxies.len()];
        // Memory is read from fresh processes, which need no warm-up.
        let warm_up = usize::from(row.figure != Figure::ResidentKib);
        for round in 0..warm_up + self.rounds {
            for (index, installed) in proxies.iter().enumerate() {
                if has_failed[index] {
                    continue;
                }
                match self.measure(installed, &mut running[index], &row) {
                    Ok(reading) if round >= warm_up => readings[index].push(reading),
                    Ok(_) => {}
                    Err(problem) => {
                        has_failed[index] = true;
                        let name = installed.kind.name();
                        let failure = format!("{name} failed in row {}: {problem}", row.key);
                        self.failures.push(failure);
                    }
                }
            }
        }
        Measured { row, readings }
    }

    /// One measurement. The proxy is left running for the next round, unless its memory was read.
    fn measure(
        &self,
        installed: &Installed,
        running: &mut Option<Proxy>,
        row: &Row,
    ) -> Result<Reading> {
        let proxy = match running.take() {
            Some(proxy) => proxy,
            None => installed.start(self.launcher, self.setting)?,
        };
        let result = self.run(installed.kind, &proxy, row);
        match result {
            Ok(_) if row.figure == Figure::CpuMicros => *running = Some(proxy),
            Err(problem) => return Err(format!("{problem}\n{}", proxy.last_words()).into()),
            Ok(_) => {}
        }
        result
    }

    fn run(&self, kind: Kind, proxy: &Proxy, row: &Row) -> Result<Reading> {
        let mut load = self.launcher.helper("load")?;
        let asks_for_token = kind == Kind::Tidegate;
        load.send(&Plan {
            port: proxy.port,
            certificate: self.setting.certificate(),
            first_message: asks_for_token.then(|| self.setting.first_message.clone()),
            work: row.work,
        })?;
        done(load.receive(patience(row.work))?)?;
        let before = self.samples(proxy, &load)?;
        load.send(&"run")?;
        let outcome = done(load.receive(patience(row.work))?)?;
        let after = self.samples(proxy, &load)?;
        let (of_proxy, of_load) = (after.0 - before.0, after.1 - before.1);
        let total = match row.figure {
            Figure::CpuMicros => of_proxy.cpu_ns as f64 / 1000.0,
            Figure::ResidentKib => of_proxy.resident_kib as f64,
        };
        Ok(Reading {
            figure: total / outcome.count as f64,
            per_second: outcome.count as f64 / outcome.seconds,
            micros: outcome.micros,
            proxy_busy: of_proxy.cpu_ns as f64 / 1e9 / outcome.seconds,
            load_busy: of_load as f64 / 1e9 / outcome.seconds,
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

fn done(reply: Reply) -> Result<Outcome> {
    match reply {
        Reply::Done(outcome) => Ok(outcome),
        Reply::Failed(problem) => Err(problem.into()),
    }
}

/// How long a step of a workload may take at most.
fn patience(work: Work) -> Duration {
    PATIENCE
        + match work {
            // 50 connections a second would be very slow.
            Work::Idle { connections, .. } => Duration::from_millis(20 * connections as u64),
            Work::Echo { times, .. } | Work::Connect { times, .. } => {
                Duration::from_millis(times.warm_up_ms + times.run_ms)
            }
        }
}

/// For answers that should come at once.
const PATIENCE: Duration = Duration::from_secs(30);
