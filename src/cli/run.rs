//! `tidegate run`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::RunRequest;
use super::check::load;
use super::life::{Launch, Signals, until_ended};
use super::{CONFIG, descriptors};
use crate::handover::Predecessor;
use crate::listener::{Named, Stock};
use crate::server::{By, Prepared, Reloads, Running};
use crate::supervisor;
use crate::telemetry::chain;

/// Serves until a signal, and drains; or takes the place of a process that serves.
pub fn run(request: &RunRequest) -> ExitCode {
    let (predecessor, stock) = match inherit(request.take_over) {
        Ok(inherited) => inherited,
        Err(error) => return failed(None, &error),
    };
    descriptors::raise();
    // Before anything that may take a while: a signal that nobody has asked for ends a process.
    let (runtime, heard) = match hear() {
        Ok(heard) => heard,
        Err(error) => return failed(predecessor, &error),
    };
    let file: &Path = &request.config;
    let prepared = match load(file) {
        Ok(found) => found.value,
        Err(_) => {
            if let Some(predecessor) = predecessor {
                let why = format!("{} is refused; the log says why", file.display());
                predecessor.failed(&why);
            }
            return ExitCode::from(CONFIG);
        }
    };
    match start(prepared, stock, predecessor.is_some()) {
        Ok(running) => serve(&runtime, heard, running, predecessor),
        Err(error) => failed(predecessor, &error),
    }
}

/// The sockets that this process did not bind: those of the process before it, or of a service
/// manager.
fn inherit(take_over: bool) -> io::Result<(Option<Predecessor>, Stock)> {
    if !take_over {
        return Ok((None, Stock::activated()?));
    }
    let (predecessor, sockets) = Predecessor::meet().map_err(|error| {
        let what = format!(
            "nobody hands sockets over on the standard input ({error}): --take-over is for the \
             process that SIGUSR2 or `tidegate upgrade` starts"
        );
        io::Error::new(error.kind(), what)
    })?;
    let named = sockets
        .into_iter()
        .map(|(bind, socket)| Named { bind, socket });
    Ok((Some(predecessor), Stock::inherit(named.collect())?))
}

fn start(prepared: Prepared, stock: Stock, taken_over: bool) -> io::Result<Running> {
    if let Some(shortage) = descriptors::shortage(prepared.config()) {
        tracing::warn!("{shortage}");
    }
    let foreign = stock.foreign(&prepared.binds());
    if let (Some(address), false) = (foreign.first(), taken_over) {
        // Whoever connects there would never be answered.
        let what = format!(
            "LISTEN_FDS passes a socket for {address}, which no [[listener]] and no [admin] \
             binds: add it there, or take it out of the socket unit"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let running = prepared.start_on(stock.clone(), None)?;
    for address in stock.forget_inherited() {
        tracing::info!(%address, "no longer listened on");
    }
    for address in &running.addresses {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = running.admin {
        tracing::info!(%address, "admin address");
    }
    Ok(running)
}

/// What the process hears from now on, and where.
struct Heard {
    hangup: Signal,
    ending: Signals,
}

fn hear() -> io::Result<(Runtime, Heard)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let within = runtime.enter();
    let heard = Heard {
        hangup: signal(SignalKind::hangup())?,
        ending: Signals::new()?,
    };
    drop(within);
    Ok((runtime, heard))
}

fn serve(
    runtime: &Runtime,
    heard: Heard,
    running: Running,
    predecessor: Option<Predecessor>,
) -> ExitCode {
    let ended = runtime.block_on(async {
        announce(predecessor);
        // Ends with the runtime.
        tokio::spawn(reload_at(heard.hangup, running.reloads.clone()));
        until_ended(running, heard.ending, Some(Launch::as_this())).await
    });
    ended.unwrap_or_else(|error| failed(None, &error))
}

/// Has the configuration read again at each signal. What came of it is in the log.
async fn reload_at(mut hangup: Signal, reloads: Reloads) {
    while hangup.recv().await.is_some() {
        supervisor::reloading();
        reloads.ask(By::Signal, None).await;
        supervisor::ready();
    }
}

/// To whoever waits for it.
fn announce(predecessor: Option<Predecessor>) {
    match predecessor.map(Predecessor::serving) {
        // The process before this one says so, as long as the manager listens to that one.
        Some(Ok(())) => tracing::info!("took over from the process before"),
        Some(Err(error)) => {
            tracing::warn!(%error, "the process before this one is gone");
            supervisor::ready();
        }
        None => supervisor::ready(),
    }
}

fn failed(predecessor: Option<Predecessor>, error: &io::Error) -> ExitCode {
    let error = chain(error);
    tracing::error!(error, "cannot serve");
    if let Some(predecessor) = predecessor {
        predecessor.failed(&error);
    }
    ExitCode::FAILURE
}
