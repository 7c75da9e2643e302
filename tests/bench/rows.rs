//! What a row of the table is, and the scene that it is measured in.
//!
//! Owns the kinds of figures, and how much is measured. A scene is a list of works done one after
//! another over one proxy; each row takes its figure from one of them. Which there are is in
//! `scenes.rs`.

use crate::load::{Times, Work};
use crate::verdict::Target;

/// What one visit to a proxy does, and the rows it gives.
pub struct Scene {
    /// For progress.
    pub title: String,
    /// Done one after another, over the same connections.
    pub works: Vec<Work>,
    /// At least one.
    pub rows: Vec<Row>,
    /// Which listener of the proxy is used.
    pub way: Way,
    /// What is different in configurations.
    pub variant: Variant,
}

/// What a scene changes in configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What Tidegate's tokens are signed with.
    pub algorithm: Algorithm,
    /// What rivals are told of buffers.
    pub buffers: Buffers,
}

impl Variant {
    /// Of most rows.
    pub const USUAL: Self = Self {
        algorithm: Algorithm::Hs256,
        buffers: Buffers::Usual,
    };
}

/// What goes before the HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// TLS.
    Tls,
    /// Nothing.
    Plain,
}

/// What a rival's buffers are tuned for. Tidegate's watermarks stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// As its documentation advises for many connections.
    Usual,
    /// For large messages, at the price of memory.
    Large,
}

/// Of a token's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A shared secret.
    Hs256,
    /// ECDSA over P-256.
    Es256,
}

/// One row.
pub struct Row {
    /// For `--rows` and for JSON.
    pub key: &'static str,
    /// For the table.
    pub title: String,
    /// The work of the scene that it speaks of.
    pub work: usize,
    /// What is compared.
    pub figure: Figure,
    /// What it should reach.
    pub target: Target,
}

/// What is compared; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Microseconds of CPU time of the proxy per round trip, delivery or connection.
    CpuMicros,
    /// The same, held against that of the scene's first work, too.
    CpuGrowth,
    /// KiB by which the proxy's resident memory grew since before the scene's first opening of
    /// connections (`since`), per connection opened.
    ResidentKib {
        /// The work that began with it.
        since: usize,
    },
    /// KiB by which it had grown when it was largest, per connection.
    PeakKib,
    /// Microseconds that half of the messages took longer than without a proxy.
    AddedP50,
    /// Microseconds that one message in a hundred took longer.
    AddedP99,
}

impl Figure {
    /// Head of its column.
    pub fn unit(self) -> &'static str {
        match self {
            Self::CpuMicros | Self::CpuGrowth => "CPU µs",
            Self::ResidentKib { .. } => "KiB/conn",
            Self::PeakKib => "peak KiB/conn",
            Self::AddedP50 => "added p50 µs",
            Self::AddedP99 => "added p99 µs",
        }
    }

    /// Whether memory is read, which needs a fresh process each time.
    pub fn is_memory(self) -> bool {
        matches!(self, Self::ResidentKib { .. } | Self::PeakKib)
    }
}

/// How much is measured.
pub struct Size {
    /// After the warm-up.
    pub rounds: usize,
    /// Open and idle, in the first and in the second row of that kind.
    pub idle: (usize, usize),
    /// Open and busy.
    pub busy: usize,
    /// Listening to the same upstream.
    pub audience: usize,
    /// Beginning at one moment.
    pub storm: usize,
    /// Never reading.
    pub slow: usize,
    /// Of one measurement.
    pub times: Times,
}

impl Size {
    /// Figures to publish.
    pub const FULL: Self = Self {
        rounds: 5,
        idle: (4000, 9000),
        busy: 100,
        audience: 2000,
        storm: 1000,
        slow: 50,
        times: Times {
            warm_up_ms: 400,
            run_ms: 1800,
        },
    };

    /// A look, in two minutes with every rival.
    pub const QUICK: Self = Self {
        rounds: 2,
        idle: (500, 1500),
        busy: 50,
        audience: 300,
        storm: 300,
        slow: 20,
        times: Times {
            warm_up_ms: 100,
            run_ms: 400,
        },
    };

    /// The same with at most so many connections.
    pub fn at_most(mut self, connections: usize) -> Self {
        self.idle.1 = self.idle.1.min(connections);
        self.idle.0 = self.idle.0.min(self.idle.1 / 2);
        self.audience = self.audience.min(connections);
        self.storm = self.storm.min(connections);
        self
    }
}
