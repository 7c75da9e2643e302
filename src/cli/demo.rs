//! `tidegate demo`.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::args::DemoRequest;
use super::check::{prepare, read};
use super::life::{Signals, until_ended};
use super::{CONFIG, say};
use crate::demo::tour::{self, Outcome};
use crate::demo::{Ports, Records, Stage, Unsuitable, hints};
use crate::server::Running;
use crate::telemetry::chain;

/// Serves the configuration with an upstream of its own, plays the tour, and stays up.
pub fn demo(request: &DemoRequest) -> ExitCode {
    let file: &Path = &request.config;
    let ports = match request.any_port {
        true => Ports::Any,
        false => Ports::Configured,
    };
    let Ok(mut loaded) = read(file) else {
        return ExitCode::from(CONFIG);
    };
    let base = file.parent().unwrap_or(Path::new(""));
    let stage = match Stage::set(&mut loaded.config, base, ports) {
        Ok(stage) => stage,
        Err(unsuitable) => return refused(file, &unsuitable),
    };
    let Ok(prepared) = prepare(file, loaded, &|name| stage.env(name)) else {
        return ExitCode::from(CONFIG);
    };
    let (observer, records) = Records::observed();
    let running = match prepared.value.start(Some(observer)) {
        Ok(running) => running,
        Err(error) => return failed(&error, Some(error.kind())),
    };
    match shown(request, &stage, running, records) {
        Ok(code) => code,
        Err(error) => failed(&error, None),
    }
}

fn shown(
    request: &DemoRequest,
    stage: &Stage,
    running: Running,
    mut records: Records,
) -> io::Result<ExitCode> {
    let mut out = io::stdout();
    hints::welcome(stage, &running, &mut out)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let outcome = tour::play(stage, &running, &mut records, &mut out).await?;
        drop(records);
        let code = match outcome {
            Outcome::AsExpected => ExitCode::SUCCESS,
            Outcome::Unexpected => ExitCode::FAILURE,
        };
        if request.once {
            return Ok(code);
        }
        hints::farewell(stage, &running, &mut out)?;
        let drained = until_ended(running, Signals::new()?, None).await?;
        Ok(match outcome {
            Outcome::AsExpected => drained,
            Outcome::Unexpected => code,
        })
    })
}

fn refused(file: &Path, unsuitable: &Unsuitable) -> ExitCode {
    match unsuitable {
        Unsuitable::Echo(error) => failed(unsuitable, Some(error.kind())),
        Unsuitable::Certificate(..) | Unsuitable::Secret(_) => failed(unsuitable, None),
        Unsuitable::NoTls | Unsuitable::NoRoute | Unsuitable::NotLoopback(_) => {
            say(&format!("error: {}: {unsuitable}\n", file.display()));
            ExitCode::from(CONFIG)
        }
    }
}

fn failed(error: &dyn Error, listening: Option<io::ErrorKind>) -> ExitCode {
    say(&format!("error: {}\n", chain(error)));
    if listening == Some(io::ErrorKind::AddrInUse) {
        say("  or let the demo choose free ports: tidegate demo --any-port\n");
    }
    ExitCode::FAILURE
}
