//! The integration tests: one binary, one module for each subject.

mod admin;
mod architecture;
mod backpressure;
mod bench;
mod cli;
mod closing;
mod config;
mod demo;
mod descriptors;
mod drain;
mod expiry;
mod handshake;
mod head_token;
mod jwks;
mod keepalive;
mod limits;
mod memory;
mod none_route;
mod origin;
mod recipes;
mod relay;
mod routes;
mod support;
mod tls;
mod token;
mod upstreams;
