//! Running out of file descriptors: accepting pauses, nothing spins, and it comes back.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::program::Program;
use crate::support::settings::proxy;
use crate::support::upstream::echo;
use crate::support::{until, within};

fn failed_accepts(program: &Program) -> usize {
    let lines = program.log();
    let lines = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["message"] == "accept failed")
        .count()
}

#[tokio::test]
async fn running_out_of_descriptors_pauses_accepting_and_ends_nothing() {
    let upstream = echo().await;
    let mut program = proxy(upstream.address)
        .tls("handshake_timeout = \"5m\"")
        .spawn_with_descriptors(64)
        .await;
    let mut session = program.entrance.admitted().await;
    session.echoes("before").await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        // The kernel completes them all; the program can take about half.
        idle.push(program.entrance.tcp().await);
    }
    until("accepts fail", || {
        (failed_accepts(&program) > 0).then_some(())
    })
    .await;
    session.echoes("while there is none left").await;

    // From here on it only tries again now and then: at most each second, once the pause
    // has grown, and the processor has nothing to do.
    let (started, ticks, failed) = (Instant::now(), program.ticks(), failed_accepts(&program));
    let more = until("more accepts fail", || {
        Some(failed_accepts(&program)).filter(|now| *now >= failed + 3)
    })
    .await;
    until("two seconds pass", || {
        (started.elapsed() > Duration::from_secs(2)).then_some(())
    })
    .await;
    let elapsed = started.elapsed();
    let most = 12 + elapsed.as_secs() as usize;
    assert!(
        failed_accepts(&program) <= failed + most,
        "{more} in {elapsed:?}"
    );
    // A tick is a hundredth of a second: a tenth of the time at most.
    let ticks = program.ticks() - ticks;
    assert!(
        u128::from(ticks) <= elapsed.as_millis() / 100,
        "{ticks} in {elapsed:?}"
    );
    program.assert_running();

    drop(idle);
    let mut client = within("it serves again", async {
        loop {
            let tcp = program.entrance.tcp().await;
            if let Ok(tls) = program.entrance.tls_over(tcp).await {
                break program.entrance.admitted_over(tls).await;
            }
        }
    })
    .await;
    client.echoes("again").await;
    session.echoes("all the time").await;
    drop((session, client));
    program.stop().await;
}
