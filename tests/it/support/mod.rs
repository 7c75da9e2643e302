//! What the integration tests start and talk to: an upstream, the proxy in this process or
//! as the real program, clients on TLS, and raw sockets for what no library would send.
//!
//! Nothing here waits for a fixed time. [`within`] bounds every wait for an event, and
//! [`until`] waits for what has no event: a counter, a line of a log.

pub mod admin;
pub mod client;
pub mod folder;
pub mod issuer;
pub mod key_server;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod service;
pub mod settings;
pub mod socket;
pub mod token;
pub mod upstream;

use std::future::Future;
use std::time::{Duration, Instant};

/// Far longer than anything takes on a busy machine: only a hang comes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The output of `future`, which must come in time.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("did not happen within {PATIENCE:?}: {what}"),
    }
}

/// Waits until `found` finds something.
pub async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// Asserts that `started` lies between `least` and `most` ago: what a timeout promises, and
/// what a busy machine may add.
pub fn assert_took(started: Instant, least: Duration, most: Duration) {
    let took = started.elapsed();
    assert!(
        (least..=most).contains(&took),
        "took {took:?}, expected {least:?} to {most:?}"
    );
}
