//! `tidegate run`.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CONFIG;
use super::check::load;
use crate::config::units::duration_text;
use crate::server::{By, Ending, Prepared, Reloads, Running, Wish};
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
        .enable_time()
        .build()?
        .block_on(async {
            let hangup = signal(SignalKind::hangup())?;
            let reloading = tokio::spawn(reload_at(hangup, running.reloads.clone()));
            let code = until_ended(running).await;
            reloading.abort();
            code
        })
}

/// Has the configuration read again at each signal. What came of it is in the log.
async fn reload_at(mut hangup: Signal, reloads: Reloads) {
    while hangup.recv().await.is_some() {
        reloads.ask(By::Signal, None).await;
    }
}

/// Waits for the first signal, drains, and waits for the end or for a second one.
pub async fn until_ended(mut running: Running) -> io::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let told = tokio::select! {
        told = signals.next() => told,
        wish = running.wish() => match wish {
            Some(Wish::Drain) => Told::Terminate,
            // Workers end by themselves only if none of them could begin.
            None => return Ok(ExitCode::FAILURE),
        },
    };
    let (told_at, before) = (Instant::now(), running.telemetry.standing());
    let times = running.drain_times();
    // Whoever is at the terminal waits for the end, and sends nobody elsewhere.
    if told == Told::Terminate && !times.lame_duck.is_zero() {
        let lame_duck = duration_text(times.lame_duck);
        tracing::info!(
            lame_duck,
            "draining: not ready any more, clients are still let in"
        );
        running.announce();
        tokio::select! {
            _ = signals.next() => return Ok(at_once()),
            () = tokio::time::sleep(times.lame_duck) => {}
        }
    }
    tracing::info!("draining: no new connections, sessions are closed with 1012");
    running.drain(
        Ending::Stopped,
        times.grace.saturating_sub(told_at.elapsed()),
    );
    tokio::select! {
        _ = signals.next() => return Ok(at_once()),
        () = running.ended() => {}
    }
    running.telemetry.log_drain(before, told_at.elapsed());
    running.telemetry.log_counters();
    match running.join() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) => Ok(ExitCode::FAILURE),
    }
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// SIGTERM: by a supervisor.
    Terminate,
    /// SIGINT: from a terminal.
    Interrupt,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Terminate,
            _ = self.interrupt.recv() => Told::Interrupt,
        }
    }
}

fn at_once() -> ExitCode {
    tracing::warn!("second signal: exiting at once");
    ExitCode::FAILURE
}
