//! The rows of the table: each a workload and the figure that is compared.
//!
//! Owns their names and sizes. A new row is a new entry here, as long as a workload of `load.rs`
//! fits it.

use crate::load::{Times, Work};

/// One row.
pub struct Row {
    /// For `--only` and for JSON.
    pub key: &'static str,
    /// For the table.
    pub title: String,
    /// What the figure counts.
    pub figure: Figure,
    /// What the load does.
    pub work: Work,
}

/// What is compared; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Microseconds of CPU time of the proxy per round trip or connection.
    CpuMicros,
    /// KiB of resident memory of the proxy per open connection.
    ResidentKib,
}

impl Figure {
    /// Head of its column.
    pub fn unit(self) -> &'static str {
        match self {
            Self::CpuMicros => "CPU µs",
            Self::ResidentKib => "KiB/conn",
        }
    }
}

/// How much is measured.
pub struct Size {
    /// After the warm-up.
    pub rounds: usize,
    /// Open and idle.
    pub idle: usize,
    /// Open and busy.
    pub busy: usize,
    /// Of one measurement.
    pub times: Times,
}

impl Size {
    /// Figures to publish.
    pub const FULL: Self = Self {
        rounds: 5,
        idle: 4000,
        busy: 100,
        times: Times {
            warm_up_ms: 500,
            run_ms: 3000,
        },
    };

    /// A look, in two minutes with every rival.
    pub const QUICK: Self = Self {
        rounds: 3,
        idle: 500,
        busy: 50,
        times: Times {
            warm_up_ms: 150,
            run_ms: 400,
        },
    };
}

/// All rows, in the order of the table.
pub fn all(size: &Size) -> Vec<Row> {
    let (busy, times) = (size.busy, size.times);
    let echo = |key, what: &str, payload, in_flight, connections| Row {
        key,
        title: format!("{what}, {in_flight} in flight, {connections} connections"),
        figure: Figure::CpuMicros,
        work: Work::Echo {
            connections,
            payload,
            in_flight,
            times,
        },
    };
    vec![
        Row {
            key: "idle",
            title: format!("idle memory, {} connections", size.idle),
            figure: Figure::ResidentKib,
            work: Work::Idle {
                base: IDLE_BASE,
                connections: size.idle,
            },
        },
        echo("64B", "64 B", 64, 1, busy),
        echo("64Bx16", "64 B", 64, 16, busy),
        echo("1KiB", "1 KiB", 1024, 1, busy),
        // Fewer connections, or the run would be as long as its last round of messages.
        echo("64KiB", "64 KiB", 64 * 1024, 1, busy / 5),
        Row {
            key: "connect",
            title: format!("full connection, {AT_ONCE} at a time"),
            figure: Figure::CpuMicros,
            work: Work::Connect {
                at_once: AT_ONCE,
                times,
            },
        },
    ]
}

/// Connections open before the `idle` row counts.
pub const IDLE_BASE: usize = 50;

/// Connections that are being opened in the `connect` row.
const AT_ONCE: usize = 16;
