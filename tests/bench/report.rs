//! What the bench says at the end: a table for people, JSON for programs.
//!
//! Owns their shape. Every figure is a median over the rounds with the smallest and the largest;
//! every ratio is taken within a round, between two measurements made one after the other, and
//! then the median of those is shown.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use crate::measure::{Machine, Percentiles, Spread};
use crate::rows::{Figure, Row};

/// One proxy in one round of one row.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// In the unit of the row.
    pub figure: f64,
    /// Round trips or connections per second.
    pub per_second: f64,
    /// Round trip, or opening up to the first echo, in microseconds.
    pub micros: Percentiles,
    /// Share of the time the proxy was on its core, 0 to 1.
    pub proxy_busy: f64,
    /// The same of load and upstream together: near 1 they set the pace, not the proxy.
    pub load_busy: f64,
}

/// One row as measured.
pub struct Measured {
    /// The row.
    pub row: Row,
    /// By proxy, in the order of `Report::proxies`, then by round; fewer where one failed.
    pub readings: Vec<Vec<Reading>>,
}

/// All of a run.
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// How the processes were placed.
    pub placement: String,
    /// Rounds that count, per row.
    pub rounds: usize,
    /// Whether it was a quick look.
    pub quick: bool,
    /// Name and version; ratios are those of the first to each other.
    pub proxies: Vec<(&'static str, String)>,
    /// What the reader must know: missing rivals, failures, a busy machine.
    pub notes: Vec<String>,
    /// The rows.
    pub rows: Vec<Measured>,
}

impl Report {
    /// The table.
    pub fn table(&self) -> String {
        let mut text = self.head();
        for measured in &self.rows {
            let row = &measured.row;
            let first = self.proxies.first().map_or("", |proxy| proxy.0);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "\n{} ({})\n{:<10}{:>28}{:>12}{:>28}{:>9}{:>9}{:>9}{:>8}{:>7}",
                row.title,
                row.key,
                "",
                format!("{} (min–max)", row.figure.unit()),
                "per second",
                format!("{first} is … × of it"),
                "p50 µs",
                "p99 µs",
                "p99.9 µs",
                "proxy %",
                "load %",
            );
            for (index, (name, _)) in self.proxies.iter().enumerate() {
                let _ = writeln!(text, "{name:<10}{}", measured.line(index));
            }
        }
        for note in &self.notes {
            let _ = write!(text, "\nnote: {note}");
        }
        text
    }

    /// Everything, raw readings included.
    pub fn json(&self) -> serde_json::Value {
        let proxies: Vec<_> = self
            .proxies
            .iter()
            .map(|(name, version)| json!({ "name": name, "version": version }))
            .collect();
        let rows: Vec<_> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({
            "machine": self.machine,
            "placement": self.placement,
            "quick": self.quick,
            "rounds": self.rounds,
            "proxies": proxies,
            "rows": rows,
            "notes": self.notes,
        })
    }

    fn head(&self) -> String {
        let mut text = format!(
            "{}; Linux {}; load average at the start {:.2}\n{}; {} rounds, interleaved{}\n",
            self.machine.processor,
            self.machine.kernel,
            self.machine.load,
            self.placement,
            self.rounds,
            if self.quick {
                "; QUICK, not for publication"
            } else {
                ""
            },
        );
        for (name, version) in &self.proxies {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name}: {version}");
        }
        text
    }

    fn row_json(&self, measured: &Measured) -> serde_json::Value {
        let of_one = |(index, (name, _)): (usize, &(&'static str, String))| {
            json!({
                "proxy": name,
                "figure": measured.spread(index, |reading| reading.figure),
                "ratio_of_first_to_it": measured.ratio(index),
                "readings": measured.readings[index],
            })
        };
        let proxies: Vec<_> = self.proxies.iter().enumerate().map(of_one).collect();
        json!({
            "key": measured.row.key,
            "title": measured.row.title,
            "unit": measured.row.figure.unit(),
            "proxies": proxies,
        })
    }
}

impl Measured {
    fn spread(&self, proxy: usize, value: impl Fn(&Reading) -> f64) -> Option<Spread> {
        Spread::of(self.readings[proxy].iter().map(value))
    }

    /// Of the first proxy's figure to this one's, round by round.
    fn ratio(&self, proxy: usize) -> Option<Spread> {
        if proxy == 0 {
            return None;
        }
        let pairs = self.readings[0].iter().zip(&self.readings[proxy]);
        Spread::of(pairs.map(|(first, other)| first.figure / other.figure))
    }

    fn line(&self, proxy: usize) -> String {
        let Some(figure) = self.spread(proxy, |reading| reading.figure) else {
            return format!("{:>28}", "failed");
        };
        let ratio = self.ratio(proxy).map_or_else(|| "–".to_owned(), show);
        let median = |value: fn(&Reading) -> f64| {
            self.spread(proxy, value)
                .map_or(f64::NAN, |spread| spread.median)
        };
        if self.row.figure == Figure::ResidentKib {
            return format!("{:>28}{:>12}{ratio:>28}", show(figure), "");
        }
        format!(
            "{:>28}{:>12.0}{ratio:>28}{:>9.0}{:>9.0}{:>9.0}{:>8.0}{:>7.0}",
            show(figure),
            median(|reading| reading.per_second),
            median(|reading| reading.micros.p50),
            median(|reading| reading.micros.p99),
            median(|reading| reading.micros.p999),
            median(|reading| 100.0 * reading.proxy_busy),
            median(|reading| 100.0 * reading.load_busy),
        )
    }
}

fn show(spread: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max)
}
