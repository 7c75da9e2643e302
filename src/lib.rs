//! Tidegate: a secure WebSocket reverse proxy.

#![forbid(unsafe_code)]

pub mod auth;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
pub mod http;
pub mod listener;
pub mod proto;
pub mod proxy;
pub mod relay;
pub mod route;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod upstream;
