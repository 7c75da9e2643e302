//! Tidegate: a secure WebSocket reverse proxy.

#![forbid(unsafe_code)]

pub mod auth;
pub mod config;
pub mod http;
pub mod listener;
pub mod proto;
pub mod relay;
pub mod route;
pub mod tls;
pub mod upstream;
