//! The integration tests: one binary, one module for each subject.

mod architecture;
mod bench;
mod config;
