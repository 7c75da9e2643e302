//! The one random number of a session, and what is drawn from it: the core has no randomness
//! of its own.
//!
//! What is drawn tells nothing about what else will be: payloads of pings are seen by the
//! peers, and masking keys must not be predictable (RFC 6455 §5.3).

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

/// A random number from the system, for one session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

/// What a number is drawn for, so that no two uses get the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The time to the next ping of the client.
    ClientPing,
    /// The time to the next ping of the upstream.
    UpstreamPing,
    /// The session's lifetime.
    Lifetime,
    /// What tells the edge's pings to the client from those of others.
    ClientMark,
    /// The same towards the upstream.
    UpstreamMark,
    /// A masking key.
    Mask,
    /// The pause before the next dial to an upstream that was lost.
    Redial,
}

impl Seed {
    /// The `n`-th number drawn for this use; always the same one.
    pub fn draw(self, what: Use, n: u32) -> u64 {
        // SipHash: from any number of results neither the seed nor another result follows.
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher.write_u8(what as u8);
        hasher.write_u32(n);
        hasher.finish()
    }

    /// From nine to eleven tenths of `span`: what would come at once for all sessions comes
    /// spread.
    pub fn around(self, span: Duration, what: Use, n: u32) -> Duration {
        span.saturating_sub(span / 10)
            .saturating_add(self.part_of(span / 5, what, n))
    }

    /// From nine tenths of `span` to all of it: spread, and never more than was asked for.
    pub fn at_most(self, span: Duration, what: Use, n: u32) -> Duration {
        span.saturating_sub(self.part_of(span / 10, what, n))
    }

    /// From nothing to all of `span`.
    pub fn part_of(self, span: Duration, what: Use, n: u32) -> Duration {
        let [a, b, c, d, ..] = self.draw(what, n).to_le_bytes();
        let drawn = u32::from_le_bytes([a, b, c, d]);
        span.mul_f64(f64::from(drawn) / f64::from(u32::MAX))
    }
}

impl fmt::Debug for Seed {
    /// Masks it: masking keys follow from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(1000);

    #[test]
    fn jitter_stays_within_a_tenth_and_uses_all_of_it() {
        let times = |of: fn(Seed, Duration, Use, u32) -> Duration| {
            let drawn = (0..1000).map(|n| of(Seed(7), SPAN, Use::ClientPing, n));
            let mut drawn: Vec<_> = drawn.collect();
            drawn.sort();
            (drawn[0], drawn[500], drawn[999])
        };
        let second = Duration::from_secs(1);
        let (least, middle, most) = times(Seed::around);
        assert!(least >= 900 * second && least < 910 * second, "{least:?}");
        assert!(middle > 980 * second && middle < 1020 * second);
        assert!(most <= 1100 * second && most > 1090 * second, "{most:?}");
        let (least, middle, most) = times(Seed::at_most);
        assert!(least >= 900 * second && least < 905 * second, "{least:?}");
        assert!(middle > 940 * second && middle < 960 * second);
        assert!(most <= SPAN && most > 995 * second, "{most:?}");
    }

    #[test]
    fn seeds_uses_and_numbers_all_draw_differently() {
        let mut drawn = Vec::new();
        for seed in [0, 1, u64::MAX] {
            for what in [
                Use::ClientPing,
                Use::ClientMark,
                Use::UpstreamMark,
                Use::Mask,
            ] {
                drawn.extend((0..100).map(|n| Seed(seed).draw(what, n)));
            }
        }
        let all = drawn.len();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), all);
        assert_eq!(Seed(1).draw(Use::Mask, 1), Seed(1).draw(Use::Mask, 1));
    }

    #[test]
    fn the_seed_is_not_printed() {
        assert_eq!(format!("{:?}", Seed(42)), "Seed(***)");
    }

    #[test]
    fn the_longest_and_the_shortest_time_make_no_trouble() {
        for span in [Duration::ZERO, Duration::MAX] {
            let around = Seed(1).around(span, Use::ClientPing, 0);
            assert!(around >= span - span / 10);
            assert!(Seed(1).at_most(span, Use::Lifetime, 0) <= span);
        }
    }
}
