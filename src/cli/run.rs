//! `tidegate run`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::CONFIG;
use super::check::load;
use crate::server::{Prepared, Running};
use crate::telemetry::chain;

/// Serves `file` until a signal, and drains.
pub fn run(file: &Path) -> ExitCode {
    let prepared = match load(file) {
        Ok(found) => found.value,
        Err(_) => return ExitCode::from(CONFIG),
    };
    match start(prepared) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = chain(&error), "cannot serve");
            ExitCode::FAILURE
        }
    }
}

fn start(prepared: Prepared) -> io::Result<ExitCode> {
    let running = prepared.start(None)?;
    for address in &running.addresses {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = running.admin {
        tracing::info!(%address, "admin address");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(until_ended(running))
}

/// Waits for the first signal, drains, and waits for the end or for a second one.
pub async fn until_ended(mut running: Running) -> io::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // Workers end by themselves only if none of them could begin.
        () = running.ended() => return Ok(ExitCode::FAILURE),
    }
    tracing::info!("draining: no new connections, sessions are closed with 1012");
    running.drain();
    tokio::select! {
        _ = terminate.recv() => return Ok(at_once()),
        _ = interrupt.recv() => return Ok(at_once()),
        () = running.ended() => {}
    }
    running.telemetry.log_counters();
    match running.join() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) => Ok(ExitCode::FAILURE),
    }
}

fn at_once() -> ExitCode {
    tracing::warn!("second signal: exiting at once");
    ExitCode::FAILURE
}
