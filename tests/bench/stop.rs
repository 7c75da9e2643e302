//! Being told to stop: SIGINT, SIGTERM and SIGHUP.
//!
//! Owns the one flag. The bench looks at it wherever it waits, fails, and on the way out ends what
//! it started and removes its files. A second signal ends it at once.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Begins to listen, in a thread of its own.
pub fn listen() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [interrupt, terminate, hangup] = runtime.block_on(async { kinds.map(signal) });
    let mut signals = (interrupt?, terminate?, hangup?);
    std::thread::spawn(move || {
        runtime.block_on(async {
            next(&mut signals).await;
            eprintln!("edge: stopping");
            ASKED.store(true, Ordering::Relaxed);
            next(&mut signals).await;
            // What it started notices: helpers by their input, proxies by the kernel.
            process::exit(130);
        });
    });
    Ok(())
}

async fn next(signals: &mut (Signal, Signal, Signal)) {
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
        _ = signals.2.recv() => {}
    }
}

/// Whether a signal came.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// An error if a signal came.
pub fn check() -> io::Result<()> {
    match is_asked() {
        true => Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "stopped by a signal",
        )),
        false => Ok(()),
    }
}
