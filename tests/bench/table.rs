//! The table for people.
//!
//! Owns how it is set: the rows one by one with every proxy, then one line for each row with its
//! target and the verdict, which is Markdown as it stands.

use std::fmt::Write as _;

use crate::report::{Measured, Report};
use crate::rows::Figure;
use crate::stats::Spread;

impl Report {
    /// All of it.
    pub fn table(&self) -> String {
        let mut text = self.head();
        for measured in &self.rows {
            self.row(&mut text, measured);
        }
        self.summary(&mut text);
        for note in &self.notes {
            // Writing to a string does not fail, here and below.
            let _ = write!(text, "\nnote: {note}");
        }
        text
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
            let _ = writeln!(text, "{name}: {version}");
        }
        text
    }

    fn row(&self, text: &mut String, measured: &Measured) {
        let row = &measured.row;
        let first = self.proxies.first().map_or("", |proxy| proxy.0);
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

    fn summary(&self, text: &mut String) {
        let first = self.proxies.first().map_or("", |proxy| proxy.0);
        let _ = writeln!(
            text,
            "\n| row | | {first} | best rival | ratio to it | target | verdict |\n\
             |---|---|---|---|---|---|---|"
        );
        for measured in &self.rows {
            let row = &measured.row;
            let found = self.found(measured);
            let found = found.as_ref();
            let figure = found.map_or("failed".to_owned(), |found| {
                format!("{:.2} {}", found.figure.median, row.figure.unit())
            });
            let best = found.and_then(|found| found.best());
            let _ = writeln!(
                text,
                "| {} | {} | {figure}{} | {} | {} | {} | {} |",
                row.key,
                row.title,
                measured.own_words(),
                best.map_or("–", |best| best.0),
                best.map_or("–".to_owned(), |best| show(best.1)),
                row.target.words(),
                self.verdict(measured).word(),
            );
        }
    }
}

impl Measured {
    fn line(&self, proxy: usize) -> String {
        let Some(figure) = self.spread(proxy, |reading| reading.figure) else {
            return format!("{:>28}", "failed");
        };
        let ratio = self.ratio(proxy).map_or_else(|| "–".to_owned(), show);
        let median = |value: fn(&crate::report::Reading) -> f64| {
            self.spread(proxy, value)
                .map_or(f64::NAN, |spread| spread.median)
        };
        if self.row.figure.is_memory() {
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

    /// What is said beside the figure of the first proxy.
    fn own_words(&self) -> String {
        match (self.row.figure, self.own(0)) {
            (Figure::CpuGrowth, Some(own)) => format!(", {:.2} × that at first", own.median),
            (Figure::PeakKib, Some(own)) => format!(", buffer {} B", own.max),
            _ => String::new(),
        }
    }
}

fn show(spread: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max)
}
