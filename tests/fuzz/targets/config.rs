//! Any text as a configuration: it is checked or refused with at least one error, and
//! every message can be printed.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidegate::config;
use tidegate::config::diff::diff;
use tidegate::config::problem::{Problem, render};
use tidegate::config::source::Source;

fuzz_target!(|text: &str| {
    match config::parse(text, Path::new("")) {
        Ok(loaded) => {
            let config = &loaded.config;
            assert!(!config.listeners.is_empty());
            assert!(!config.routes.is_empty() && !config.upstreams.is_empty());
            for route in &config.routes {
                let backpressure = &route.policy.backpressure;
                assert!(backpressure.low_watermark < backpressure.high_watermark);
                assert!(route.upstream < config.upstreams.len());
                let limits = &route.policy.limits;
                assert!(limits.max_frame_size <= limits.max_message_size);
            }
            assert!(!loaded.warnings.iter().any(Problem::is_error));
            print(&loaded.warnings, &loaded.text);
        }
        Err(refused) => {
            assert!(refused.problems.iter().any(Problem::is_error));
            print(&refused.problems, &refused.text);
        }
    }
    compare(text);
});

/// Whatever changed can be told of, and nothing when nothing did.
fn compare(text: &str) {
    let (whole, half) = (
        Source::new(text),
        Source::new(&text[..text.floor_char_boundary(text.len() / 2)]),
    );
    assert!(diff(&whole, &whole).is_empty());
    for change in diff(&half, &whole) {
        let moves = |c: char| c.is_control() && c != '\t';
        assert!(!change.to_string().contains(moves), "{change:?}");
    }
}

/// What reaches the operator's terminal moves no cursor.
fn print(problems: &[Problem], text: &Source) {
    let printed = render(Path::new("proxy.toml"), problems, text);
    assert_eq!(printed.is_empty(), problems.is_empty());
    let moves = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!printed.contains(moves), "{printed:?}");
}
