//! What was aimed at, and whether it was reached.
//!
//! Owns the targets and the judgement. A ratio is held against the rival that makes it look worst.
//! Pure; it knows neither rows nor proxies.

use super::stats::Spread;

/// What a row should reach. Less is better everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Measured for the picture only.
    Nothing,
    /// At most this share of the best rival's figure; the second is what we would like.
    Share(f64, Option<f64>),
    /// At most this share of the best rival's figure, and at most so many units ourselves; the
    /// third is what we would like.
    ShareAndFigure(f64, f64, f64),
    /// At most this many times our own figure in another step of the same measurement.
    Growth(f64),
    /// At most so many bytes in the proxy's own account of its largest buffer.
    Watermark(f64),
}

/// What was measured of the proxy that is judged. All are medians and spreads over the rounds.
pub struct Found<'a> {
    /// Its figure.
    pub figure: Spread,
    /// Its figure by that of each rival, by name.
    pub ratios: Vec<(&'a str, Spread)>,
    /// Its figure by its own in the step of [`Target::Growth`], or the bytes of
    /// [`Target::Watermark`].
    pub own: Option<Spread>,
}

/// The judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There was no target.
    NoTarget,
    /// Something was not measured.
    Unknown,
    /// The target was missed.
    Missed,
    /// The target was reached.
    Met,
    /// And what we would like, too.
    Better,
}

impl Target {
    /// In words, for a column.
    pub fn words(self) -> String {
        match self {
            Self::Nothing => "–".to_owned(),
            Self::Share(share, _) => format!("≤ {share:.2} ×"),
            Self::ShareAndFigure(share, figure, _) => format!("≤ {share:.2} ×, ≤ {figure}"),
            Self::Growth(times) => format!("≤ {times:.1} × that at first"),
            Self::Watermark(bytes) => format!("buffer ≤ {bytes} B"),
        }
    }

    /// The share of the best rival, where one is aimed at.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Share(share, _) | Self::ShareAndFigure(share, ..) => Some(share),
            Self::Nothing | Self::Growth(_) | Self::Watermark(_) => None,
        }
    }

    /// Judges by medians; a watermark by the largest value, since it may never be passed.
    pub fn judge(self, found: &Found<'_>) -> Verdict {
        let best = found.best().map(|(_, ratio)| ratio.median);
        match self {
            Self::Nothing => Verdict::NoTarget,
            Self::Share(share, liked) => best.map_or(Verdict::Unknown, |best| {
                grade(best <= share, liked.is_some_and(|liked| best <= liked))
            }),
            Self::ShareAndFigure(share, figure, liked) => best.map_or(Verdict::Unknown, |best| {
                let own = found.figure.median;
                grade(best <= share && own <= figure, own <= liked)
            }),
            Self::Growth(times) => found
                .own
                .map_or(Verdict::Unknown, |own| grade(own.median <= times, false)),
            Self::Watermark(bytes) => found
                .own
                .map_or(Verdict::Unknown, |own| grade(own.max <= bytes, false)),
        }
    }
}

impl Found<'_> {
    /// The rival to which the ratio is largest.
    pub fn best(&self) -> Option<(&str, Spread)> {
        let ratios = self.ratios.iter().copied();
        ratios.max_by(|one, other| one.1.median.total_cmp(&other.1.median))
    }
}

impl Verdict {
    /// For a column.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoTarget => "–",
            Self::Unknown => "unknown",
            Self::Missed => "MISSED",
            Self::Met => "met",
            Self::Better => "met, and better",
        }
    }
}

fn grade(is_met: bool, is_liked: bool) -> Verdict {
    match (is_met, is_liked) {
        (false, _) => Verdict::Missed,
        (true, false) => Verdict::Met,
        (true, true) => Verdict::Better,
    }
}
