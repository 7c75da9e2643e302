//! What the bench says at the end: for people, for programs, for the README.
//!
//! Owns what is said. Every figure is a median over the rounds with the smallest and the largest;
//! every ratio is taken within a round, between two measurements made one after the other, and
//! then the median of those is shown. How the table is set is in `table.rs`, the drawing in
//! `svg.rs`.

use serde::Serialize;
use serde_json::json;

use crate::measure::Machine;
use crate::rows::{Figure, Row};
use crate::stats::{Percentiles, Spread};
use crate::svg::{Group, Picture};
use crate::verdict::{Found, Verdict};

/// One proxy in one round of one row.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reading {
    /// In the unit of the row.
    pub figure: f64,
    /// What the target speaks of besides the figure: its growth since the scene's first work, or
    /// the bytes of the largest buffer.
    pub own: Option<f64>,
    /// Round trips, deliveries or connections per second.
    pub per_second: f64,
    /// Round trip, delivery, or opening up to the first echo, in microseconds.
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
    /// How a row came out for the proxy that is judged, the first; `None` where it has no figure.
    pub fn found(&self, measured: &Measured) -> Option<Found<'_>> {
        let rivals = self.proxies.iter().enumerate().skip(1);
        let ratio = |(index, rival): (usize, &(&'static str, String))| {
            Some((rival.0, measured.ratio(index)?))
        };
        Some(Found {
            figure: measured.spread(0, |reading| reading.figure)?,
            ratios: rivals.filter_map(ratio).collect(),
            own: measured.own(0),
        })
    }

    /// Only Tidegate is judged.
    pub fn verdict(&self, measured: &Measured) -> Verdict {
        let judged = self
            .proxies
            .first()
            .is_some_and(|first| first.0 == "tidegate");
        match self.found(measured) {
            Some(found) if judged => measured.row.target.judge(&found),
            _ => Verdict::Unknown,
        }
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

    /// The picture. Rows where buffers are compared are not in it: their target is no ratio.
    pub fn svg(&self) -> String {
        let rows = self.rows.iter();
        let groups = rows.filter(|measured| measured.row.figure != Figure::PeakKib);
        let group = |measured| self.group(measured);
        let rivals = self.proxies.iter().skip(1);
        let versions = self.proxies.iter().map(|(name, version)| {
            // The first number with a dot in it, of all that they say.
            let mut words = version.split([' ', '/', '-', '+']);
            let is_number = |word: &str| word.contains('.') && word.starts_with(char::is_numeric);
            format!(
                "{name} {}",
                words.find(|word| is_number(word)).unwrap_or("?")
            )
        });
        let versions: Vec<_> = versions.collect();
        let mut footer = vec![
            format!(
                "{}; Linux {}; {}",
                self.machine.processor, self.machine.kernel, self.placement
            ),
            versions.join(", "),
        ];
        // What a proxy said when it failed is for the table.
        footer.extend(
            self.notes
                .iter()
                .flat_map(|note| note.lines().take(1))
                .map(str::to_owned),
        );
        Picture {
            subtitle: format!(
                "Median of {} interleaved rounds, whiskers from the smallest to the largest; \
                 shorter is better{}",
                self.rounds,
                if self.quick { " — QUICK LOOK" } else { "" }
            ),
            rivals: rivals.map(|rival| rival.0).collect(),
            groups: groups.map(group).collect(),
            footer,
        }
        .draw()
    }

    fn group<'a>(&self, measured: &'a Measured) -> Group<'a> {
        Group {
            title: &measured.row.title,
            target: measured.row.target.share(),
            bars: (1..self.proxies.len())
                .map(|index| measured.ratio(index))
                .collect(),
        }
    }

    fn row_json(&self, measured: &Measured) -> serde_json::Value {
        let of_one = |(index, (name, _)): (usize, &(&'static str, String))| {
            json!({
                "proxy": name,
                "figure": measured.spread(index, |reading| reading.figure),
                "own": measured.own(index),
                "ratio_of_first_to_it": measured.ratio(index),
                "readings": measured.readings[index],
            })
        };
        let proxies: Vec<_> = self.proxies.iter().enumerate().map(of_one).collect();
        json!({
            "key": measured.row.key,
            "title": measured.row.title,
            "unit": measured.row.figure.unit(),
            "target": measured.row.target.words(),
            "verdict": self.verdict(measured).word(),
            "proxies": proxies,
        })
    }
}

impl Measured {
    /// Of one proxy over the rounds; `None` where it failed.
    pub fn spread(&self, proxy: usize, value: impl Fn(&Reading) -> f64) -> Option<Spread> {
        Spread::of(self.readings[proxy].iter().map(value))
    }

    /// Of the first proxy's figure to this one's, round by round.
    pub fn ratio(&self, proxy: usize) -> Option<Spread> {
        if proxy == 0 {
            return None;
        }
        let pairs = self.readings[0].iter().zip(&self.readings[proxy]);
        Spread::of(pairs.map(|(first, other)| first.figure / other.figure))
    }

    /// Growth or buffers of one proxy.
    pub fn own(&self, proxy: usize) -> Option<Spread> {
        Spread::of(
            self.readings[proxy]
                .iter()
                .filter_map(|reading| reading.own),
        )
    }
}
