//! `tidegate demo`: the edge at work on one's own machine, with nothing but this program.
//!
//! Owns the echo server behind the edge, the certificate and the secret where there are none,
//! and the clients that try the edge out. The edge in the middle is the same that serves, on
//! the configuration that was given; the demo reads from it what should happen, and has no
//! limits of its own.
//!
//! - `stage.rs`: what the demo takes from a configuration, and what it adds.
//! - `tour.rs`: the steps in their order, and their lines. `door_steps.rs`, `rate_step.rs`,
//!   `slow_step.rs`: the steps.
//! - `hints.rs`: what is said before and after.
//! - `client.rs`: the client. `echo.rs`: the upstream. `frames.rs`: what they share.

mod client;
mod door_steps;
pub mod echo;
mod frames;
pub mod hints;
mod rate_step;
mod slow_step;
mod stage;
pub mod tour;

use std::io;

pub use stage::{Ports, Records, Stage, Unsuitable};

/// Random bytes from the system.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}
