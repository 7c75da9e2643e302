//! What the service manager is told (`sd_notify`), where there is one: nothing is said where
//! `NOTIFY_SOCKET` is not set.

use std::time::Duration;

use sd_notify::NotifyState;

/// The process serves.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The process has begun to end.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The configuration is being read again; [`ready`] says that it was.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the clock cannot be read for the service manager"),
    }
}

/// Another process is the service from now on, and it serves.
pub fn handed_over_to(pid: u32) {
    notify(&[NotifyState::MainPid(pid), NotifyState::Ready]);
}

/// Everything still turns.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How long the manager waits for [`alive`]; `None`: it does not.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told (NOTIFY_SOCKET)");
    }
}
