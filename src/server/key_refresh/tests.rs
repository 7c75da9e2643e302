//! Claims about the schedule. What happens to clients is in `tests/it/jwks.rs`.

use super::*;

fn source(refresh: u64, refetch_interval: u64) -> Jwks {
    Jwks {
        source: JwksSource::File(PathBuf::new()),
        refresh: Duration::from_secs(refresh),
        refetch_interval: Duration::from_secs(refetch_interval),
        timeout: Duration::from_secs(1),
        max_age: None,
    }
}

/// The times from one reading to the next, for so many failures before.
fn between(source: &Jwks, failures: u32) -> Duration {
    let course = Course {
        failures,
        ..Course::default()
    };
    source.refetch_interval + course.pause(source)
}

#[test]
fn a_source_that_fails_is_read_sooner_and_then_ever_more_seldom() {
    let source = source(600, 10);
    let seconds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 40, u32::MAX]
        .map(|failures| between(&source, failures).as_secs());
    assert_eq!(seconds, [600, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600]);
}

#[test]
fn no_source_is_read_more_often_than_its_refetch_interval() {
    for (refresh, interval) in [(10, 10), (10, 600), (86_400, 1)] {
        let source = source(refresh, interval);
        for failures in 0..20 {
            assert!(between(&source, failures) >= source.refetch_interval);
        }
    }
}
