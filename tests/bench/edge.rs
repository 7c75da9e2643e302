//! `cargo bench --bench edge`: what Tidegate costs next to other proxies, in one command.
//!
//! Owns the arguments, and what is made of them. The same binary is the load generator and the upstream, as child processes, so that each can be
//! pinned to a core of its own. `README.md` beside this file says what the figures mean.

mod child;
mod client;
mod control;
mod echo;
mod exchange;
mod frames;
mod load;
mod measure;
mod messages;
mod proxies;
mod records;
mod report;
mod resting;
mod rows;
mod scenes;
mod schedule;
mod setting;
mod stats;
mod stop;
mod stream;
mod svg;
mod table;
mod verdict;
mod visit;
mod workload;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use child::Launcher;
use measure::Machine;
use proxies::{Installed, Kind};
use report::Report;
use rows::{Scene, Size};
use schedule::Schedule;
use setting::Setting;
use visit::Site;

/// Measures CPU time and memory of Tidegate and of every other proxy that is installed.
#[derive(Parser)]
#[command(name = "edge")]
struct Arguments {
    /// Two minutes instead of about twenty-five: fewer rows and connections, shorter and fewer
    /// rounds.
    #[arg(long)]
    quick: bool,
    /// Rounds that count, after one that does not [default: 5, or 2 with --quick].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Rows to measure: idle, idle-9000, growth, 64B, 64Bx16, 1KiB, 64KiB, 1MiB, plain, fan-out,
    /// connect, connect-es256, storm, slow, latency-p50, latency-p99.
    #[arg(long, alias = "only", value_name = "ROW,…", value_delimiter = ',')]
    rows: Vec<String>,
    /// Proxies to measure: tidegate, nginx, haproxy, caddy, envoy. Ratios are of the first found.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    proxies: Vec<String>,
    /// A tidegate binary; without it `cargo build --release` makes one.
    #[arg(long, value_name = "FILE")]
    proxy_bin: Option<PathBuf>,
    /// Writes everything, raw readings included, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the ratios with their targets into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
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
    stop::listen()?;
    let launcher = Launcher::detect()?;
    let mut notes = Vec::new();
    let possible = possible_connections()?;
    let size = size(arguments, possible, &mut notes);
    let scenes = chosen_scenes(arguments, &size)?;
    let machine = Machine::look()?;
    if machine.load > 0.5 {
        notes.push(format!(
            "the machine was busy (load average {:.2}): the figures are disturbed",
            machine.load
        ));
    }
    let proxies = chosen_proxies(arguments, &mut notes)?;
    let mut upstream = launcher.helper("echo")?;
    let ports: (u16, u16) = upstream.receive(PATIENCE, || ())?;
    let setting = Setting::prepare(ports.0, possible)?;
    let site = Site {
        launcher: &launcher,
        setting: &setting,
        upstream: &upstream,
        ports,
    };
    let mut schedule = Schedule::new(site, size.rounds);
    let proxies = schedule.those_that_start(proxies);
    let rows = schedule.run(scenes, &proxies)?;
    let is_complete = schedule.failures.is_empty();
    notes.extend(schedule.failures);
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
    publish(arguments, &report)?;
    Ok(if is_complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn publish(arguments: &Arguments, report: &Report) -> Result<()> {
    println!("{}", report.table());
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report.json()))?;
    }
    if let Some(file) = &arguments.svg {
        fs::write(file, report.svg())?;
    }
    Ok(())
}

/// How many connections a proxy can hold: two sockets each, and some files of its own.
fn possible_connections() -> Result<usize> {
    let open_files = measure::open_files()?;
    let possible = open_files.saturating_sub(200) / 2;
    match possible < 5 * Size::FULL.busy {
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
    let wanted = size.idle.1;
    if possible < wanted {
        notes.push(format!(
            "at most {possible} connections, for lack of open files: say ulimit -n {} for all",
            2 * wanted + 200,
        ));
    }
    size.at_most(possible)
}

fn chosen_scenes(arguments: &Arguments, size: &Size) -> Result<Vec<Scene>> {
    let scenes = scenes::all(size);
    let rows = scenes.iter().flat_map(|scene| &scene.rows);
    let known: Vec<&str> = rows.map(|row| row.key).collect();
    if let Some(unknown) = unknown(&arguments.rows, &known) {
        return Err(format!("no row {unknown:?}; there are {}", known.join(", ")).into());
    }
    let asked: Vec<&str> = arguments.rows.iter().map(String::as_str).collect();
    Ok(scenes::chosen(
        scenes,
        match (&asked[..], arguments.quick) {
            ([], true) => &scenes::QUICK,
            ([], false) => &known,
            (asked, _) => asked,
        },
    ))
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

/// For answers that should come at once.
const PATIENCE: Duration = Duration::from_secs(30);
