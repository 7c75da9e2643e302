//! How sessions end: by a Close of either end, by an end that vanishes, by one that does
//! not answer.

use std::time::{Duration, Instant};

use tidegate::proto::cause::Cause;
use tidegate::proto::close::CloseCode;
use tidegate::proto::side::Side;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::support::client::Tls;
use crate::support::proxy::Proxy;
use crate::support::raw::{
    Seen, binary, close, fragment, masked, plain, read_frame, read_to_end, text, write,
};
use crate::support::settings::{Settings, proxy};
use crate::support::upstream::{Upstream, upstream};
use crate::support::{assert_took, within};

/// A session with both its ends in the test's hands.
async fn session(settings: impl Fn(Settings) -> Settings) -> (Proxy, Upstream, Tls, TcpStream) {
    let upstream = upstream().await;
    let proxy = settings(proxy(upstream.address)).start();
    let client = proxy.entrance.raw_admitted().await;
    let server = upstream.accept_raw().await;
    (proxy, upstream, client, server)
}

fn quick(settings: Settings) -> Settings {
    settings.route_also("close_timeout = \"300ms\"")
}

/// The Close that comes next, and that nothing comes behind it.
async fn last_words(stream: &mut (impl AsyncRead + Unpin)) -> (u16, String) {
    let frame = read_frame(stream).await.expect("a Close");
    assert_eq!(read_to_end(stream).await, b"");
    frame.close()
}

fn reset(tcp: &TcpStream) {
    let linger = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    linger.expect("an option is set");
}

fn code(code: u16) -> Option<CloseCode> {
    CloseCode::from_wire(code)
}

#[tokio::test]
async fn the_upstreams_close_passes_with_code_and_reason() {
    let upstream = upstream().await;
    let mut proxy = proxy(upstream.address).start();
    let client = proxy.entrance.admitted().await;
    let mut server = upstream.accept().await;
    server.close(4002, "the room is closed").await;
    assert_eq!(
        client.closed().await,
        (4002, "the room is closed".to_owned())
    );
    assert_eq!(
        server.closed().await,
        (4002, "the room is closed".to_owned())
    );
    let summary = proxy.record().await.summary;
    let by = Side::Upstream;
    assert_eq!(
        summary.cause,
        Cause::Closed {
            by,
            code: code(4002)
        }
    );
    assert_eq!(summary.close_codes.downstream, code(4002));
    proxy
        .counted("failed sessions", 0, |c| c.sessions_failed.get())
        .await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_close_without_code_passes_as_one_without_code() {
    let (mut proxy, _upstream, mut client, mut server) = session(|s| s).await;
    let empty = || Frame::close(None);
    write(&mut client, &masked(empty())).await;
    let heard = read_frame(&mut server).await.expect("a Close");
    assert_eq!((heard.opcode, heard.payload.len()), (8, 0));
    write(&mut server, &plain(empty())).await;
    let heard = read_frame(&mut client).await.expect("a Close");
    assert_eq!((heard.opcode, heard.payload.len()), (8, 0));
    assert_eq!(read_to_end(&mut client).await, b"");
    drop((client, server));
    let by = Side::Downstream;
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::Closed { by, code: None });
    proxy.stop().await;
}

#[tokio::test]
async fn messages_under_way_to_the_closing_end_still_arrive() {
    let (mut proxy, _upstream, mut client, mut server) = session(|s| s).await;
    write(&mut client, &masked(close(1000, "done"))).await;
    assert_eq!(
        read_frame(&mut server).await.expect("a Close").close().0,
        1000
    );
    let last = [plain(text("one more")), plain(close(1000, "done"))].concat();
    write(&mut server, &last).await;
    assert_eq!(
        read_frame(&mut client).await.expect("text").payload,
        b"one more"
    );
    assert_eq!(last_words(&mut client).await, (1000, "done".to_owned()));
    drop((client, server));
    assert_eq!(proxy.record().await.summary.tallies.upstream.messages, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn nothing_behind_a_close_passes() {
    let (mut proxy, _upstream, mut client, mut server) = session(|s| s).await;
    let bytes = [masked(close(1000, "")), masked(text("too late"))].concat();
    write(&mut client, &bytes).await;
    assert_eq!(
        read_frame(&mut server).await.expect("a Close").close().0,
        1000
    );
    write(&mut server, &plain(close(1000, ""))).await;
    assert_eq!(read_to_end(&mut server).await, b"");
    drop((client, server));
    assert_eq!(proxy.record().await.summary.tallies.downstream.messages, 0);
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_vanishes_is_told_as_1014() {
    type End = fn(TcpStream);
    let ends: [(&str, End); 2] = [
        ("in order, without a Close", drop),
        ("with a reset", |tcp| {
            reset(&tcp);
            drop(tcp);
        }),
    ];
    for (how, end) in ends {
        let (mut proxy, _upstream, mut client, mut server) = session(quick).await;
        write(&mut server, &plain(text("last"))).await;
        assert_eq!(
            read_frame(&mut client).await.expect("text").payload,
            b"last"
        );
        end(server);
        let heard = last_words(&mut client).await;
        assert_eq!(heard, (1014, "upstream failed".to_owned()), "{how}");
        drop(client);
        let summary = proxy.record().await.summary;
        assert_eq!(summary.cause, Cause::Vanished(Side::Upstream), "{how}");
        assert_eq!(summary.close_codes.downstream, code(1014), "{how}");
        proxy
            .counted("failed sessions", 1, |c| c.sessions_failed.get())
            .await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_told_as_1001() {
    for how in ["a reset", "an end of the connection", "an end of TLS"] {
        let (mut proxy, _upstream, mut client, mut server) = session(quick).await;
        match how {
            "a reset" => reset(client.get_ref().0),
            "an end of TLS" => client.shutdown().await.expect("close_notify is sent"),
            _ => client
                .get_mut()
                .0
                .shutdown()
                .await
                .expect("the end is sent"),
        }
        // What is dropped here is the connection, except where it is still to be read from.
        let client = (how != "a reset").then_some(client);
        assert_eq!(last_words(&mut server).await.0, 1001, "{how}");
        drop((server, client));
        let summary = proxy.record().await.summary;
        assert_eq!(summary.cause, Cause::Vanished(Side::Downstream), "{how}");
        assert_eq!(summary.close_codes.upstream, code(1001), "{how}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn an_upstream_that_only_ends_its_half_is_over() {
    let (mut proxy, _upstream, mut client, mut server) = session(quick).await;
    let last = plain(text("last"));
    server.write_all(&last).await.expect("it is sent");
    server.shutdown().await.expect("the end is sent");
    assert_eq!(
        read_frame(&mut client).await.expect("text").payload,
        b"last"
    );
    assert_eq!(last_words(&mut client).await.0, 1014);
    drop((client, server));
    let cause = proxy.record().await.summary.cause;
    assert_eq!(cause, Cause::Vanished(Side::Upstream));
    proxy.stop().await;
}

#[tokio::test]
async fn a_frame_that_breaks_off_is_followed_by_no_close() {
    // A Close in the middle of a frame would be read as its payload.
    let (mut proxy, _upstream, mut client, mut server) = session(|s| s).await;
    let frame = plain(binary(vec![7; 1000]));
    write(&mut server, &frame[..500]).await;
    let mut heard = vec![0; 500];
    let read = client.read_exact(&mut heard);
    within("the first half", read)
        .await
        .expect("the first half");
    drop(server);
    assert_eq!(read_to_end(&mut client).await, b"");
    drop(client);
    let summary = proxy.record().await.summary;
    assert_eq!(summary.cause, Cause::Vanished(Side::Upstream));
    assert_eq!(summary.close_codes.downstream, None);
    proxy.stop().await;

    let (mut proxy, _upstream, mut client, mut server) = session(|s| s).await;
    let frame = masked(binary(vec![7; 1000]));
    write(&mut client, &frame[..500]).await;
    let read = server.read_exact(&mut heard);
    within("the first half", read)
        .await
        .expect("the first half");
    reset(client.get_ref().0);
    drop(client);
    assert_eq!(read_to_end(&mut server).await, b"");
    drop(server);
    let summary = proxy.record().await.summary;
    assert_eq!(summary.cause, Cause::Vanished(Side::Downstream));
    assert_eq!(summary.close_codes.upstream, None);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_answers_no_close_is_aborted_in_time() {
    let (mut proxy, _upstream, mut client, mut server) = session(quick).await;
    let started = Instant::now();
    write(&mut server, &plain(close(4000, "go"))).await;
    assert_eq!(
        read_frame(&mut client).await.expect("a Close").close().0,
        4000
    );
    // The upstream is answered in the client's stead.
    assert_eq!(last_words(&mut server).await.0, 4000);
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_took(started, Duration::from_millis(250), Duration::from_secs(10));
    let by = Side::Upstream;
    let cause = proxy.record().await.summary.cause;
    assert_eq!(
        cause,
        Cause::Closed {
            by,
            code: code(4000)
        }
    );
    proxy.stop().await;
}

#[tokio::test]
async fn an_upstream_that_answers_no_close_is_aborted_in_time() {
    let (mut proxy, _upstream, mut client, mut server) = session(quick).await;
    let started = Instant::now();
    write(&mut client, &masked(close(4000, "go"))).await;
    assert_eq!(
        read_frame(&mut server).await.expect("a Close").close().0,
        4000
    );
    assert_eq!(last_words(&mut client).await.0, 4000);
    assert_eq!(read_to_end(&mut server).await, b"");
    assert_took(started, Duration::from_millis(250), Duration::from_secs(10));
    drop((client, server));
    proxy.record().await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_refused_client_that_keeps_sending_is_aborted_in_time() {
    let (mut proxy, _upstream, client, _server) = session(quick).await;
    let started = Instant::now();
    let (mut reading, mut writing) = tokio::io::split(client);
    write(&mut writing, &plain(text("unmasked"))).await;
    let flood = async {
        let noise = vec![0; 16 << 10];
        while writing.write_all(&noise).await.is_ok() {}
    };
    let listen = async {
        assert_eq!(
            read_frame(&mut reading).await.expect("a Close").close().0,
            1002
        );
        read_to_end(&mut reading).await;
    };
    within("the connection is aborted", async {
        tokio::join!(flood, listen)
    })
    .await;
    assert_took(started, Duration::from_millis(250), Duration::from_secs(10));
    let tally = proxy.record().await.summary.tallies.downstream;
    assert_eq!((tally.messages, tally.bytes), (0, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn both_ends_may_close_at_once() {
    let (mut proxy, _upstream, mut client, mut server) = session(|s| s).await;
    let (from_client, from_server) = (masked(close(4001, "c")), plain(close(4002, "s")));
    tokio::join!(
        write(&mut client, &from_client),
        write(&mut server, &from_server)
    );
    let (heard_by_client, heard_by_server): (Option<Seen>, Option<Seen>) =
        tokio::join!(read_frame(&mut client), read_frame(&mut server));
    assert_eq!(heard_by_client.expect("a Close").close().0, 4002);
    assert_eq!(heard_by_server.expect("a Close").close().0, 4001);
    assert_eq!(read_to_end(&mut client).await, b"");
    drop((client, server));
    let cause = proxy.record().await.summary.cause;
    assert!(matches!(cause, Cause::Closed { .. }), "{cause:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_unfinished_message_of_fragments_leaves_room_for_a_close() {
    // Between fragments there is a boundary.
    let upstream = upstream().await;
    let proxy = proxy(upstream.address).start();
    let mut client = proxy.entrance.raw_admitted().await;
    let mut server = upstream.accept().await;
    let open = fragment(Data::Text, "never finished", false);
    server.send(Message::Frame(open)).await;
    let heard = read_frame(&mut client).await.expect("a fragment");
    assert_eq!((heard.is_final, heard.opcode), (false, 1));
    proxy.drain();
    assert_eq!(
        read_frame(&mut client).await.expect("a Close").close().0,
        1012
    );
    assert_eq!(server.closed().await.0, 1001);
    drop(client);
    proxy.stop().await;
}
