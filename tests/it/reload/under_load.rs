//! A thousand reloads of the real program while clients come, go and talk.

use super::*;

/// That make real differences: limits, a route, a listener's manners, a certificate.
const RELOADS: usize = 1000;

/// Who stay from the first to the last.
const SESSIONS: usize = 20;

/// Who come and go meanwhile, one session after another each.
const COMERS: usize = 3;

/// Memory may move by so much once everything was there a few times.
const GROWTH: u64 = 8 << 20;

fn settings(upstream: &Echo, n: usize) -> Settings {
    let frame = 1000 + n % 7;
    let settings = proxy(upstream.address)
        .workers(2)
        // All come from one address, as fast as the machine can.
        .process_limits("handshakes_per_ip = \"off\"")
        .more(ADMIN)
        .section("limits", &format!("max_frame_size = \"{frame}B\""))
        .section("keepalive", "ping_interval = \"off\"")
        .tls(["", "handshake_timeout = \"9s\""][n % 2]);
    match n % 3 {
        0 => settings,
        1 => settings.more(&second_route("feed")),
        _ => settings.more(&second_route("news")).more(second_listener()),
    }
}

/// Talks until told to stop, and says how often it was answered.
async fn stay(mut client: Client, stop: tokio::sync::watch::Receiver<bool>) -> usize {
    let mut answered = 0;
    while !*stop.borrow() {
        client.echoes("tick").await;
        answered += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.close(1000, "").await;
    assert_eq!(client.closed().await.0, 1000);
    answered
}

/// One session after another; each must come to be, talk, and end well.
async fn come_and_go(entrance: Entrance, stop: tokio::sync::watch::Receiver<bool>) -> usize {
    let mut sessions = 0;
    while !*stop.borrow() {
        let mut client = entrance.admitted().await;
        client.echoes("hello").await;
        client.close(1000, "").await;
        assert_eq!(client.closed().await.0, 1000);
        sessions += 1;
    }
    sessions
}

#[tokio::test]
async fn a_thousand_reloads_drop_nobody_and_leave_nothing_behind() {
    let upstream = echo().await;
    let program = settings(&upstream, 0).spawn_quiet().await;
    let admin = program.said("admin address").await["address"].clone();
    let admin = admin.as_str().expect("text").parse().expect("an address");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut staying = Vec::new();
    for _ in 0..SESSIONS {
        let client = program.entrance.admitted().await;
        staying.push(tokio::spawn(stay(client, stopped.clone())));
    }
    let coming: Vec<_> = (0..COMERS)
        .map(|_| tokio::spawn(come_and_go(program.entrance.clone(), stopped.clone())))
        .collect();
    let (began, mut early) = (Instant::now(), 0);
    for n in 1..=RELOADS {
        program
            .folder
            .write("proxy.toml", &settings(&upstream, n).toml());
        let query = ["", "?apply=live"][n % 2];
        let answered = post(admin, &format!("/reload{query}")).await;
        assert_eq!(answered.status(), 200, "{n}: {}", answered.body);
        assert_ne!(json(&answered.body)["changed"][0], Value::Null);
        if n == RELOADS / 5 {
            early = program.memory("VmRSS:");
        }
    }
    let (took, late) = (began.elapsed(), program.memory("VmRSS:"));
    stop.send(true).expect("they listen");
    let mut sessions = 0;
    for comer in coming {
        sessions += within("the last session", comer).await.expect("no failure");
    }
    for one in staying {
        let answered = within("the end of a session", one)
            .await
            .expect("no failure");
        assert!(answered > 1, "it talked all the time");
    }
    assert!(
        sessions > RELOADS / 20,
        "only {sessions} sessions meanwhile"
    );
    assert!(late < early + GROWTH, "{early} bytes, then {late}");
    println!("{RELOADS} reloads in {took:?}; {sessions} sessions came; {early} → {late} bytes");
    let failed: Vec<_> = program
        .log()
        .into_iter()
        .filter(|line| line.contains("session ended") && !line.contains("\"cause\":\"closed\""))
        .collect();
    assert_eq!(failed, [""; 0]);
    program.stop().await;
}
