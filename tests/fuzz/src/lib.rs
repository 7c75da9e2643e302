//! What the fuzz targets share: policies and frames made from fuzz bytes, a checker for
//! what a peer reads, and two worlds, one around the session and one around the relay.
//!
//! Written against the public API of the crate alone, and without its own test helpers, so
//! that a mistake in those is not repeated here.

pub mod checker;
pub mod frames;
pub mod inspections;
pub mod policies;
pub mod wire;
pub mod world;
