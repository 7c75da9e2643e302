//! The scenes, in the order of the table.
//!
//! Owns the names of the rows, their workloads and their targets. A new row is a new entry here, as
//! long as a workload of `load.rs` fits it.

use crate::load::{Route, Times, Work};
use crate::rows::{Algorithm, Buffers, Figure, Row, Scene, Size, Variant, Way};
use crate::verdict::Target;

/// The rows that `--quick` measures unless others are asked for.
pub const QUICK: [&str; 8] = [
    "idle", "64B", "64Bx16", "64KiB", "plain", "fan-out", "connect", "slow",
];

/// All scenes, in the order of the table.
pub fn all(size: &Size) -> Vec<Scene> {
    let (busy, times) = (size.busy, size.times);
    vec![
        crowd(size),
        echo("64B", "64 B", (64, 1, busy), times, (0.85, 0.75)),
        echo("64Bx16", "64 B", (64, 16, busy), times, (0.90, 0.75)),
        echo("1KiB", "1 KiB", (1024, 1, busy), times, (0.85, 0.75)),
        // Fewer connections, or the run would be as long as its last round of messages.
        large(echo(
            "64KiB",
            "64 KiB",
            (64 * 1024, 1, busy / 5),
            times,
            (1.0, 0.85),
        )),
        large(echo(
            "1MiB",
            "1 MiB",
            (1024 * 1024, 1, busy / 12),
            times,
            (1.0, 0.85),
        )),
        Scene {
            way: Way::Plain,
            ..echo(
                "plain",
                "plain ws://, 64 B",
                (64, 1, busy),
                times,
                (0.90, 0.0),
            )
        },
        rules(size),
        fan_out(size),
        connect("connect", "full connection", times, 0.65),
        Scene {
            variant: Variant {
                algorithm: Algorithm::Es256,
                ..Variant::USUAL
            },
            ..connect("connect-es256", "full connection, ES256", times, 0.75)
        },
        storm(size),
        slow(size),
        latency(size),
    ]
}

/// The scenes that give the rows asked for, each no longer than these need.
pub fn chosen(scenes: Vec<Scene>, keys: &[&str]) -> Vec<Scene> {
    let mut scenes = scenes;
    for scene in &mut scenes {
        scene.rows.retain(|row| keys.contains(&row.key));
        let last = scene.rows.iter().map(|row| row.work + 1).max();
        scene.works.truncate(last.unwrap_or_default());
    }
    scenes.retain(|scene| !scene.rows.is_empty());
    scenes
}

/// A crowd that gathers: messages among few, then more and more of them idle, then messages going
/// round among all.
fn crowd(size: &Size) -> Scene {
    let (few, (some, many)) = (size.busy, size.idle);
    let idle = |key, work, connections| Row {
        key,
        title: format!("idle memory, {connections} connections"),
        work,
        figure: Figure::ResidentKib { since: 1 },
        target: Target::ShareAndFigure(0.35, 6.5, 5.0),
    };
    Scene {
        title: "crowd".to_owned(),
        works: vec![
            Work::Echo {
                connections: few,
                payload: 64,
                in_flight: 1,
                times: size.times,
            },
            Work::Open { connections: some },
            Work::Open {
                connections: many - some - few,
            },
            Work::Turns {
                at_once: few,
                times: size.times,
            },
        ],
        rows: vec![
            idle("idle", 1, some),
            idle("idle-9000", 2, many),
            Row {
                key: "growth",
                title: format!("64 B, {few} in flight over {many} connections"),
                work: 3,
                figure: Figure::CpuGrowth,
                target: Target::Growth(1.3),
            },
        ],
        way: Way::Tls,
        variant: Variant::USUAL,
    }
}

/// `load`: bytes of a message, messages in flight, connections. `shares`: target and wish.
fn echo(
    key: &'static str,
    what: &str,
    load: (usize, usize, usize),
    times: Times,
    shares: (f64, f64),
) -> Scene {
    let (payload, in_flight, connections) = load;
    let row = Row {
        key,
        title: format!("{what}, {in_flight} in flight, {connections} connections"),
        work: 0,
        figure: Figure::CpuMicros,
        target: Target::Share(shares.0, Some(shares.1).filter(|share| *share > 0.0)),
    };
    let work = Work::Echo {
        connections,
        payload,
        in_flight,
        times,
    };
    single(row, work)
}

/// With rivals tuned for it.
fn large(scene: Scene) -> Scene {
    let buffers = Buffers::Large;
    Scene {
        variant: Variant {
            buffers,
            ..scene.variant
        },
        ..scene
    }
}

/// Messages of JSON, first where they stream through, then under rules.
fn rules(size: &Size) -> Scene {
    let work = |route| Work::Json {
        route,
        connections: size.busy,
        times: size.times,
    };
    let row = Row {
        key: "rules",
        title: format!("200 B under rules, 1 in flight, {} connections", size.busy),
        work: 1,
        figure: Figure::CpuGrowth,
        target: Target::Growth(1.5),
    };
    Scene {
        works: vec![work(Route::Usual), work(Route::Ruled)],
        ..single(row, work(Route::Usual))
    }
}

fn connect(key: &'static str, what: &str, times: Times, share: f64) -> Scene {
    let row = Row {
        key,
        title: format!("{what}, {AT_ONCE} at a time"),
        work: 0,
        figure: Figure::CpuMicros,
        target: Target::Share(share, Some(0.5)),
    };
    let work = Work::Connect {
        at_once: AT_ONCE,
        times,
    };
    single(row, work)
}

fn storm(size: &Size) -> Scene {
    let row = Row {
        key: "storm",
        title: format!("full connection, {} at one moment", size.storm),
        work: 0,
        figure: Figure::CpuMicros,
        target: Target::Nothing,
    };
    let work = Work::Storm {
        connections: size.storm,
    };
    single(row, work)
}

fn fan_out(size: &Size) -> Scene {
    let row = Row {
        key: "fan-out",
        title: format!("64 B from upstream to each of {}", size.audience),
        work: 0,
        figure: Figure::CpuMicros,
        target: Target::Share(0.90, Some(0.75)),
    };
    let work = Work::FanOut {
        connections: size.audience,
        payload: 64,
        times: size.times,
    };
    single(row, work)
}

fn slow(size: &Size) -> Scene {
    let row = Row {
        key: "slow",
        title: format!("{} clients that never read, flooded", size.slow),
        work: 0,
        figure: Figure::PeakKib,
        target: Target::Watermark(HIGH_WATERMARK),
    };
    let work = Work::SlowReaders {
        connections: size.slow,
        payload: 1024,
    };
    single(row, work)
}

fn latency(size: &Size) -> Scene {
    let row = |key, what, figure, target| Row {
        key,
        title: format!("64 B at half load, added {what}"),
        work: 0,
        figure,
        target,
    };
    let work = Work::Paced {
        connections: size.busy,
        // Half of what the slowest proxy can do, which the warm-up round finds out.
        per_second: 0.0,
        times: size.times,
    };
    let target = Target::Share(1.0, None);
    Scene {
        title: "64 B at half load".to_owned(),
        works: vec![work],
        rows: vec![
            row("latency-p50", "p50", Figure::AddedP50, Target::Nothing),
            row("latency-p99", "p99", Figure::AddedP99, target),
        ],
        way: Way::Tls,
        variant: Variant::USUAL,
    }
}

fn single(row: Row, work: Work) -> Scene {
    Scene {
        title: row.title.clone(),
        works: vec![work],
        rows: vec![row],
        way: Way::Tls,
        variant: Variant::USUAL,
    }
}

/// Connections that are being opened in the `connect` rows.
const AT_ONCE: usize = 16;

/// `high_watermark` of `tidegate.toml`, in bytes.
const HIGH_WATERMARK: f64 = 64.0 * 1024.0;
