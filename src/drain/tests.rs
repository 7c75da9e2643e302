//! The spread of a drain, by a clock that jumps, and who is waited for.

use super::*;

const SPREAD: Duration = Duration::from_secs(10);

/// When each of `count` connections was asked.
async fn asked(count: usize, seed: u64) -> Vec<(usize, Duration)> {
    let registry = Registry::default();
    let _seats: Vec<_> = (0..count).map(|n| registry.enter(n)).collect();
    let (begun, asked) = (Instant::now(), RefCell::new(Vec::new()));
    let ask = |n: &usize| asked.borrow_mut().push((*n, begun.elapsed()));
    assert_eq!(registry.pick(|_| true).ask(SPREAD, seed, ask).await, count);
    asked.into_inner()
}

#[tokio::test(start_paused = true)]
async fn each_connection_is_asked_in_its_own_part_of_the_spread() {
    for seed in 0..20 {
        let part = SPREAD / 5;
        for (n, at) in asked(5, seed).await {
            let begin = part * u32::try_from(n).expect("five");
            // The timer counts whole milliseconds.
            let end = begin + part + Duration::from_millis(1);
            assert!((begin..=end).contains(&at), "{n} at {at:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_seed_asks_at_other_moments() {
    assert_ne!(asked(5, 1).await, asked(5, 2).await);
}

#[tokio::test(start_paused = true)]
async fn no_second_has_twice_its_share_and_the_last_is_asked_in_time() {
    let asked = asked(5_000, 7).await;
    let mut seconds = [0; 11];
    for (_, at) in &asked {
        seconds[usize::try_from(at.as_secs()).expect("seconds")] += 1;
    }
    assert!(seconds.iter().all(|n| *n <= 505), "{seconds:?}");
    assert_eq!(asked.len(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_spread_is_not_waited_for_when_nobody_is_left_to_ask() {
    let registry = Registry::default();
    let seats = RefCell::new((0..5).map(|n| registry.enter(n)).collect::<Vec<_>>());
    let begun = Instant::now();
    let ask = |n: &i32| {
        if *n == 1 {
            seats.borrow_mut().clear();
        }
    };
    registry.drain(Whom::Inside, SPREAD, 1, ask).await;
    assert!(begun.elapsed() < SPREAD * 2 / 5 + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn only_those_that_are_picked_are_asked() {
    let registry = Registry::default();
    let _seats: Vec<_> = (0..9).map(|n| registry.enter(n)).collect();
    let asked = RefCell::new(Vec::new());
    let ask = |n: &i32| asked.borrow_mut().push(*n);
    let picked = registry.pick(|n| n % 3 == 0);
    let _later = registry.enter(12);
    let count = picked.ask(SPREAD, 1, ask).await;
    assert_eq!((count, asked.into_inner()), (3, vec![0, 3, 6]));
    assert!(!registry.is_closed());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_last_connection_is_noticed() {
    let registry = Registry::default();
    let mut seats: Vec<_> = (0..3).map(|n| registry.enter(n)).collect();
    let waiting = registry.clone();
    let wait = async move { waiting.emptied(Whom::Inside).await };
    tokio::pin!(wait);
    while let Some(seat) = seats.pop() {
        let early = tokio::time::timeout(Duration::from_secs(1), wait.as_mut()).await;
        assert!(early.is_err());
        drop(seat);
    }
    wait.await;
    assert_eq!(registry.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_has_not_come_in_is_waited_for_only_with_everybody() {
    let registry = Registry::default();
    let (outside, inside) = (registry.enter_outside(1), registry.enter_outside(2));
    registry.emptied(Whom::Inside).await;
    inside.come_in();
    assert_eq!(registry.waited_for(Whom::Inside), 1);
    drop(inside);
    registry.emptied(Whom::Inside).await;
    let everybody = registry.emptied(Whom::Everybody);
    tokio::pin!(everybody);
    let early = tokio::time::timeout(Duration::from_secs(1), everybody.as_mut()).await;
    assert!(early.is_err());
    drop(outside);
    everybody.await;
}

#[test]
fn places_are_used_again() {
    let registry = Registry::default();
    for n in 0..100 {
        let _seat = registry.enter(n);
    }
    assert_eq!(registry.0.slots.borrow().len(), 1);
    assert_eq!(registry.waited_for(Whom::Everybody), 0);
}
