//! The command line: arguments, logging, signals, exit codes.
//!
//! Exit codes are those of `sysexits.h` where one fits: 64 for wrong arguments, 78 for a
//! configuration that is refused; 1 for anything else that failed.

mod args;
mod check;
mod demo;
mod descriptors;
mod life;
mod run;
mod token;
mod upgrade;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use self::args::{Args, Command, LogFormat, LogLevel};
use crate::config::problem::{self, Problem};
use crate::config::source::Source;

/// `EX_USAGE`: the arguments are wrong.
const USAGE: u8 = 64;

/// `EX_CONFIG`: the configuration is refused.
const CONFIG: u8 = 78;

/// Runs the program as its arguments say.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody reads it if this fails.
            let _ = error.print();
            return match error.exit_code() {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::from(USAGE),
            };
        }
    };
    let level = args.log_level.unwrap_or(match args.command {
        // Its tour is for reading, and a record for each step would drown it.
        Command::Demo(_) => LogLevel::Warn,
        _ => LogLevel::Info,
    });
    log_to_stderr(args.log_format, level);
    match args.command {
        Command::Demo(request) => demo::demo(&request),
        Command::Run(request) => run::run(&request),
        Command::Upgrade { config } => upgrade::upgrade(&config),
        Command::Check { config } => check::check(&config),
        Command::Token(request) => token::token(&request),
    }
}

fn log_to_stderr(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(level)
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// Looks a variable of the process's environment up. One that is not UTF-8 counts as
/// absent.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Prints problems for the operator.
fn report(file: &Path, problems: &[Problem], source: &Source) {
    say(&problem::render(file, problems, source));
}

/// Prints to the standard error, where a broken pipe is nobody's business.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
