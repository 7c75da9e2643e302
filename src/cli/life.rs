//! The life of a process that serves: signals, the hand-over to another one, and the drain.

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::TAKE_OVER;
use crate::config::units::duration_text;
use crate::handover::{NotServing, Successor};
use crate::server::{Ending, Running, Upgrade, Wish};
use crate::supervisor;
use crate::telemetry::chain;

/// How the process that takes this one's place is started: as this one was.
#[derive(Debug)]
pub struct Launch {
    program: OsString,
    arguments: Vec<OsString>,
}

impl Launch {
    /// The program by the name this one was called by, so that whatever lies there at the time
    /// is started: a new binary, also behind a link.
    pub fn as_this() -> Self {
        let mut arguments = env::args_os();
        let program = arguments.next().unwrap_or_else(|| "tidegate".into());
        let mut arguments: Vec<_> = arguments.filter(|argument| argument != TAKE_OVER).collect();
        arguments.push(TAKE_OVER.into());
        Self { program, arguments }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        // What was passed to this process is not passed again, and the watchdog is to be that
        // of whichever process is the service.
        for passed in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(passed);
        }
        command
    }
}

/// Waits until the process is to end, has another one take its place if it is asked to, drains,
/// and waits for the end or for a second signal. Without `launch` there is no hand-over.
pub async fn until_ended(
    mut running: Running,
    mut signals: Signals,
    launch: Option<Launch>,
) -> io::Result<ExitCode> {
    let Some(told) = until_told(&mut running, &mut signals, launch.as_ref()).await else {
        // Workers end by themselves only if none of them could begin.
        return Ok(ExitCode::FAILURE);
    };
    let (told_at, before) = (Instant::now(), running.telemetry.standing());
    let times = running.drain_times();
    if let Told::HandedOver = told {
        tracing::info!("handed over: the new process serves, sessions here are closed with 1012");
        running.drain(Ending::HandedOver, times.grace);
    } else {
        supervisor::stopping();
        // Whoever is at the terminal waits for the end, and sends nobody elsewhere.
        if told == Told::Terminate && !times.lame_duck.is_zero() {
            let lame_duck = duration_text(times.lame_duck);
            tracing::info!(
                lame_duck,
                "draining: not ready any more, clients are still let in"
            );
            running.announce();
            tokio::select! {
                () = signals.end() => return Ok(at_once()),
                () = tokio::time::sleep(times.lame_duck) => {}
            }
        }
        tracing::info!("draining: no new connections, sessions are closed with 1012");
        let left = times.grace.saturating_sub(told_at.elapsed());
        running.drain(Ending::Stopped, left);
    }
    tokio::select! {
        () = signals.end() => return Ok(at_once()),
        () = running.ended() => {}
    }
    running.telemetry.log_drain(before, told_at.elapsed());
    running.telemetry.log_counters();
    match running.join() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) => Ok(ExitCode::FAILURE),
    }
}

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// SIGTERM: by a supervisor.
    Terminate,
    /// SIGINT: from a terminal.
    Interrupt,
    /// Another process serves in its place.
    HandedOver,
}

/// Serves, and tries to be replaced as often as it is asked to. `None`: every worker has ended.
async fn until_told(
    running: &mut Running,
    signals: &mut Signals,
    launch: Option<&Launch>,
) -> Option<Told> {
    // Dropped with a process that does not serve yet: that one is ended.
    let mut successor = None;
    loop {
        let asked = tokio::select! {
            _ = signals.terminate.recv() => return Some(Told::Terminate),
            _ = signals.interrupt.recv() => return Some(Told::Interrupt),
            _ = signals.upgrade.recv() => Some(()),
            wish = running.wish() => match wish {
                Some(Wish::Drain) => return Some(Told::Terminate),
                Some(Wish::Upgrade) => Some(()),
                None => return None,
            },
            served = served(&mut successor) => {
                match served {
                    Ok(()) => {
                        if let Some(successor) = successor.take() {
                            hand_over(successor);
                        }
                        return Some(Told::HandedOver);
                    }
                    Err(why) => give_up(running, &why.to_string()),
                }
                successor = None;
                None
            }
        };
        if asked.is_none() {
            continue;
        }
        match (&successor, launch) {
            (Some(_), _) => tracing::info!("upgrade: the new process is being started already"),
            (None, None) => give_up(running, "only `tidegate run` can be replaced"),
            (None, Some(launch)) => match start(running, launch) {
                Ok(started) => successor = Some(started),
                Err(error) => give_up(running, &chain(&error)),
            },
        }
    }
}

async fn served(successor: &mut Option<Successor>) -> Result<(), NotServing> {
    match successor {
        Some(successor) => successor.serves().await,
        None => std::future::pending().await,
    }
}

fn start(running: &Running, launch: &Launch) -> io::Result<Successor> {
    running.set_upgrade(Upgrade::Starting);
    let sockets = running.stock().lend()?;
    let successor = Successor::start(launch.command(), &sockets)?;
    tracing::info!(
        pid = successor.pid(),
        sockets = sockets.len(),
        "upgrade: a new process is started, and takes the listening sockets over"
    );
    Ok(successor)
}

fn hand_over(successor: Successor) {
    if let Some(pid) = successor.pid() {
        supervisor::handed_over_to(pid);
    }
    successor.let_go();
}

fn give_up(running: &Running, why: &str) {
    tracing::error!(why, "upgrade failed: this process goes on serving");
    running.set_upgrade(Upgrade::Failed(why.to_owned()));
}

/// The signals that a process acts on. From the moment that this is made they end it no longer by
/// themselves, and those that come are acted on when it serves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Within a runtime, which need not turn yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// One that ends a process which drains already.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn at_once() -> ExitCode {
    tracing::warn!("second signal: exiting at once");
    ExitCode::FAILURE
}
