//! The protocol without IO: RFC 6455 as the edge needs it, limits, backpressure, endings.
//!
//! Nothing here touches a socket, reads a clock, spawns or knows of configuration files:
//! bytes and `now` go in; bytes to send, events and the next deadline come out. So every
//! rule is tested without a socket and without waiting.
//!
//! # The order of calls
//!
//! A driver owns the two connections and a [`Session`](session::Session). At each wake-up
//! it reads the clock once, and for each leg `from`, with `to` the other:
//!
//! 1. [`lend`](session::Session::lend) scratch memory to the pipe that `from` feeds.
//! 2. [`space`](session::Session::space): if it is not empty, read `from` into it, then
//!    [`handle_filled`](session::Session::handle_filled), or
//!    [`handle_eof`](session::Session::handle_eof), or
//!    [`handle_reset`](session::Session::handle_reset).
//! 3. While [`pending`](session::Session::pending) for `to` is not empty: write it, then
//!    [`handle_sent`](session::Session::handle_sent); if `to` takes nothing,
//!    [`handle_blocked`](session::Session::handle_blocked).
//! 4. When the socket of `to` has it all:
//!    [`handle_flushed`](session::Session::handle_flushed). If
//!    [`can_shut`](session::Session::can_shut), shut the writing half down and call
//!    [`handle_shut`](session::Session::handle_shut).
//! 5. [`reclaim`](session::Session::reclaim) the scratch memory.
//!
//! Then [`poll_event`](session::Session::poll_event), and
//! [`handle_timeout`](session::Session::handle_timeout) when
//! [`poll_timeout`](session::Session::poll_timeout) is due; all of it again while anything
//! moved. Dropping the driver between two calls loses nothing.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod allowance;
pub mod cause;
pub mod client_address;
pub mod close;
pub mod frame;
pub mod handshake;
pub mod json;
pub mod limits;
pub mod message;
pub mod network;
pub mod origin;
pub mod pipe;
pub mod policy;
pub mod proxy_header;
pub mod replay;
pub mod rule;
pub mod seed;
pub mod session;
pub mod side;
#[cfg(test)]
pub(crate) mod sim;
pub mod token;
pub mod utf8;
