//! Tidegate: a secure WebSocket reverse proxy, the edge in front of existing WebSocket
//! servers.
//!
//! # The flow of one connection
//!
//! [`listener`] accepts it and takes a permit; [`tls`] terminates TLS; [`http`] reads one
//! bounded request head, which [`proto::handshake`] checks; [`route`] finds the route and
//! [`proto::origin`] checks the origin, and [`auth`] the token in the head, if there is one;
//! else the client is answered 101, the session collects the first message and [`auth`]
//! verifies the token in it; [`upstream`] dials and opens a WebSocket there; [`relay`] moves
//! frames both ways, driving a [`Session`](proto::session::Session) that judges every one; at
//! the end [`telemetry`] writes one record. What the edge itself asks of web services goes
//! through [`outbound`]. [`proxy`] is where all that is written down, top to bottom; it is the
//! file to read first.
//!
//! Beside the connections, on a thread for the [`housekeeping`], [`admin`] answers operators,
//! and [`revocation`] keeps the tokens that count no longer, whose sessions then end. There
//! [`server`] takes another configuration, too: a connection keeps the one it was accepted
//! under.
//!
//! Around them all the process begins and ends in good order: [`drain`] paces the end of the
//! connections, [`handover`] passes the sockets on to the next process, and [`supervisor`]
//! tells the service manager.
//!
//! # Invariants
//!
//! - **`proto` has no IO.** It touches no socket, reads no clock, spawns nothing, and knows
//!   neither tokio nor the configuration file. Every rule is tested without waiting.
//! - **Nothing unjudged is written.** A byte from a peer reaches the other peer only after
//!   its frame's header was judged, and then unchanged; where a route looks into messages,
//!   only after the whole message was ([`proto::rule`]).
//! - **An idle session owns no buffer.** Reading, judging and writing happen in memory of
//!   the worker's; only what the other leg did not take is kept, below a watermark.
//! - **The edge's own frames leave only between frames.**
//! - **One funnel.** Every session ends through one `fail(cause)`, or a peer's own Close,
//!   and with one record; [`proto::cause`] is the only place that turns a cause into codes.
//! - **IO modules do not know each other.** They meet in [`proxy`], and the process in
//!   [`server`]. `tests/it/architecture.rs` holds this.
//!
//! # Modules in reading order
//!
//! [`proxy`], [`proto`] (the contract, then `session`, `pipe`, `frame`), [`relay`],
//! [`config`], then the IO modules as they come up; [`server`], [`housekeeping`] and [`cli`]
//! around them.

// What a peer sends must not reach a panic. Tests may panic.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
pub mod handover;
pub mod housekeeping;
pub mod http;
pub mod listener;
pub mod outbound;
pub mod proto;
pub mod proxy;
pub mod relay;
pub mod revocation;
pub mod route;
pub mod server;
pub mod socket;
pub mod supervisor;
pub mod telemetry;
pub mod tls;
pub mod upstream;
