//! The pure parts of the bench: frames, statistics, verdicts, session records, the picture.
//!
//! They are compiled in here, since a bench without a harness runs no tests.

#[path = "../bench/frames.rs"]
mod frames;
#[path = "../bench/records.rs"]
mod records;
#[path = "../bench/stats.rs"]
mod stats;
#[path = "../bench/svg.rs"]
mod svg;
#[path = "../bench/verdict.rs"]
mod verdict;

mod of_frames {
    use super::frames::*;

    /// On both sides of each length encoding.
    const SIZES: [usize; 7] = [0, 1, 125, 126, 65_535, 65_536, 70_000];

    #[test]
    fn heads_of_every_length_are_decoded_and_never_before_they_are_whole() {
        for size in SIZES {
            let payload = text(size);
            for (frame, is_masked) in [
                (masked(TEXT, &payload), true),
                (bare(TEXT, &payload), false),
            ] {
                let head = Head::decode(&frame).unwrap();
                assert_eq!((head.first, head.key.is_some()), (TEXT, is_masked));
                assert_eq!(head.length, size as u64);
                assert_eq!(head.size + size, frame.len());
                for end in 0..head.size {
                    assert!(Head::decode(&frame[..end]).is_none(), "{size}: {end}");
                }
            }
        }
    }

    #[test]
    fn unmasking_in_pieces_gives_the_payload_back() {
        let payload = text(1003);
        let frame = masked(TEXT, &payload);
        let head = Head::decode(&frame).unwrap();
        let key = head.key.unwrap();
        for piece in 1..9 {
            let mut bytes = frame[head.size..].to_vec();
            for (index, chunk) in bytes.chunks_mut(piece).enumerate() {
                mask(chunk, key, (index * piece) as u64);
            }
            assert_eq!(bytes, payload, "pieces of {piece}");
        }
    }

    #[test]
    fn messages_are_counted_and_pings_answered_in_any_slicing() {
        let payload = text(300);
        let mut stream = bare(TEXT, &payload);
        stream.extend(bare(PING, b"hello"));
        stream.extend(bare(TEXT, &payload));
        stream.extend(bare(CLOSE, &[3, 232]));
        for piece in 1..stream.len() {
            let mut incoming = Incoming::default();
            for bytes in stream.chunks(piece) {
                incoming.feed(bytes, Some(&payload)).unwrap();
            }
            assert_eq!(incoming.messages, 2, "pieces of {piece}");
            assert_eq!(incoming.pongs, masked(PONG, b"hello"));
            assert!(incoming.is_closed);
        }
    }

    #[test]
    fn an_echo_that_differs_by_a_byte_or_in_length_is_noticed() {
        let payload = text(64);
        let mut other = payload.clone();
        other[63] ^= 1;
        for wrong in [&other[..], &payload[..63], &text(65)] {
            let result = Incoming::default().feed(&bare(TEXT, wrong), Some(&payload));
            assert!(result.is_err(), "{} bytes", wrong.len());
        }
    }

    #[test]
    fn text_has_the_size_asked_for_and_is_text() {
        for size in SIZES {
            let text = text(size);
            assert_eq!(text.len(), size);
            assert!(std::str::from_utf8(&text).is_ok());
        }
    }
}

mod of_records {
    use super::records::peaks_for_clients;

    #[test]
    fn only_records_of_sessions_count() {
        let log = r#"not json
{"level":"INFO","message":"listening","address":"127.0.0.1:1"}
{"level":"INFO","message":"session ended","id":"a","peak_buffered_from_upstream":65536}
{"level":"INFO","message":"session ended","id":"b","peak_buffered_from_upstream":0}
"#;
        assert_eq!(peaks_for_clients(log), [65536, 0]);
    }
}

mod of_stats {
    use super::stats::{Percentiles, Spread};

    #[test]
    fn nothing_has_no_spread() {
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 2.0, 8.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 3.0, 8.0));
        assert_eq!(Spread::of([9.0, 7.0, 1.0]).unwrap().median, 7.0);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        // 1 µs to 1,000 µs, backwards.
        let times = (1..=1000).rev().map(|n| n * 1000).collect();
        let percentiles = Percentiles::of(times);
        assert_eq!(percentiles.p50, 500.0);
        assert_eq!(percentiles.p99, 990.0);
        assert_eq!(percentiles.p999, 999.0);
        assert_eq!(Percentiles::of(vec![7000]).p999, 7.0);
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }
}

mod of_svg {
    use super::stats::Spread;
    use super::svg::{Group, Picture};

    fn picture() -> Picture<'static> {
        let spread = |values: [f64; 3]| Spread::of(values);
        Picture {
            subtitle: "a < b & c".to_owned(),
            rivals: vec!["nginx", "envoy"],
            groups: vec![
                Group {
                    title: "64 B",
                    target: Some(0.85),
                    bars: vec![spread([0.5, 0.6, 0.7]), spread([0.7, 0.8, 2.9])],
                },
                Group {
                    title: "slow",
                    target: None,
                    bars: vec![None, spread([7.0, 8.0, 9.0])],
                },
            ],
            footer: vec!["small print".to_owned()],
        }
    }

    #[test]
    fn words_cannot_break_the_file() {
        let svg = picture().draw();
        assert!(svg.contains("a &lt; b &amp; c"));
        assert!(!svg.contains("a < b"));
    }

    #[test]
    fn every_element_is_closed_and_nothing_is_not_a_number() {
        let svg = picture().draw();
        for element in ["text", "svg", "style", "title"] {
            let opened = svg.matches(&format!("<{element}")).count();
            let closed = svg.matches(&format!("</{element}>")).count();
            assert!(opened > 0 && opened == closed, "{element}");
        }
        for alone in ["<rect", "<line"] {
            let lines = svg.lines().filter(|line| line.starts_with(alone));
            assert!(lines.clone().count() > 0);
            assert!(lines.clone().all(|line| line.ends_with("/>")));
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn what_was_not_measured_has_no_bar_and_what_is_beyond_the_axis_ends_with_it() {
        let svg = picture().draw();
        // One in the legend, and one in the first group.
        assert_eq!(svg.matches("class=\"rival0\"").count(), 2);
        assert_eq!(svg.matches("class=\"rival1\"").count(), 3);
        assert!(svg.contains("→ 8.00"));
    }
}

mod of_verdict {
    use super::stats::Spread;
    use super::verdict::{Found, Target, Verdict};

    fn flat(value: f64) -> Spread {
        Spread::of([value]).unwrap()
    }

    fn found(figure: f64, ratios: &[f64], own: &[f64]) -> Found<'static> {
        let names = ["nginx", "haproxy", "caddy"].into_iter();
        Found {
            figure: flat(figure),
            ratios: names.zip(ratios.iter().copied().map(flat)).collect(),
            own: Spread::of(own.iter().copied()),
        }
    }

    #[test]
    fn the_best_rival_is_the_one_that_flatters_least() {
        let found = found(5.0, &[0.5, 0.8, 0.7], &[]);
        assert_eq!(found.best().unwrap().0, "haproxy");
    }

    #[test]
    fn a_share_is_held_against_the_best_rival() {
        let target = Target::Share(0.85, Some(0.75));
        assert_eq!(target.share(), Some(0.85));
        for (ratios, verdict) in [
            (&[0.2, 0.86][..], Verdict::Missed),
            (&[0.2, 0.85], Verdict::Met),
            (&[0.2, 0.75], Verdict::Better),
            (&[], Verdict::Unknown),
        ] {
            assert_eq!(target.judge(&found(1.0, ratios, &[])), verdict);
        }
        let target = Target::Share(0.85, None);
        assert_eq!(target.judge(&found(1.0, &[0.1], &[])), Verdict::Met);
    }

    #[test]
    fn memory_must_be_small_beside_the_rival_and_by_itself() {
        let target = Target::ShareAndFigure(0.35, 6.5, 5.0);
        for (figure, ratio, verdict) in [
            (4.0, 0.36, Verdict::Missed),
            (6.6, 0.10, Verdict::Missed),
            (6.5, 0.35, Verdict::Met),
            (5.0, 0.35, Verdict::Better),
        ] {
            assert_eq!(target.judge(&found(figure, &[ratio], &[])), verdict);
        }
    }

    #[test]
    fn growth_is_judged_by_its_median_and_a_watermark_by_its_worst() {
        let rounds = [1.0, 1.2, 9.0];
        let found = found(1.0, &[], &rounds);
        assert_eq!(Target::Growth(1.3).judge(&found), Verdict::Met);
        assert_eq!(Target::Growth(1.1).judge(&found), Verdict::Missed);
        assert_eq!(Target::Watermark(9.0).judge(&found), Verdict::Met);
        assert_eq!(Target::Watermark(8.9).judge(&found), Verdict::Missed);
        assert_eq!(Target::Nothing.judge(&found), Verdict::NoTarget);
    }

    #[test]
    fn every_target_and_verdict_can_be_said() {
        for target in [
            Target::Nothing,
            Target::Share(0.9, None),
            Target::ShareAndFigure(0.35, 6.5, 5.0),
            Target::Growth(1.3),
            Target::Watermark(65536.0),
        ] {
            assert!(!target.words().is_empty());
            assert!(!target.judge(&found(1.0, &[], &[])).word().is_empty());
        }
    }
}
