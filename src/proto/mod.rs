//! The protocol without IO.

pub mod handshake;
pub mod limits;
pub mod origin;
pub mod policy;
