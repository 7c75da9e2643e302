//! How many questions are under way at once, and what a question costs the client that waits.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::auth::Admission;
use crate::config::Line;
use crate::config::url::WebUrl;

fn authorizer(url: &str, timeout: Duration) -> Authorizer {
    let settings = Authorize {
        url: WebUrl::parse(url).expect("a URL"),
        ca: None,
        timeout,
        cache: None,
        token: None,
        request_headers: vec!["x-device".to_owned()],
        response_headers: Vec::new(),
        place: "route.chat.auth.authorize".to_owned(),
        line: Line(1),
    };
    let client = WebClient::to(&settings.url, None).expect("no roots are needed");
    Authorizer::new(&settings, client, None)
}

async fn decide(authorizer: &Authorizer) -> Result<Vec<Field>, NotAuthorized> {
    let admission = Admission::anonymous();
    let asked = Asked {
        route: "chat",
        request_id: "r-1",
        client_ip: Ipv4Addr::LOCALHOST.into(),
        host: "localhost",
        path_and_query: "/chat",
        origin: None,
        admission: &admission,
        headers: &[],
    };
    authorizer.decide(&asked).await
}

#[tokio::test]
async fn a_question_takes_a_turn_and_gives_it_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let authorizer = authorizer(&url, Duration::from_secs(30));
    let serve = async {
        let (mut tcp, _) = listener.accept().await.expect("accepted");
        let turns = authorizer.in_flight.available_permits();
        assert_eq!(turns, MAX_IN_FLIGHT - 1);
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        tcp.write_all(answer).await.expect("written");
    };
    let (decided, ()) = tokio::join!(decide(&authorizer), serve);
    assert!(decided.is_ok_and(|added| added.is_empty()));
    assert_eq!(authorizer.in_flight.available_permits(), MAX_IN_FLIGHT);
    // A client that goes away takes its question along.
    let given_up = async {
        listener.accept().await.expect("accepted");
    };
    tokio::select! {
        decided = decide(&authorizer) => panic!("{decided:?}"),
        () = given_up => {}
    }
    assert_eq!(authorizer.in_flight.available_permits(), MAX_IN_FLIGHT);
}

#[tokio::test]
async fn one_question_too_many_waits_for_its_turn_and_not_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let authorizer = authorizer(&url, Duration::from_millis(50));
    let all = u32::try_from(MAX_IN_FLIGHT).expect("few");
    let others = authorizer.in_flight.acquire_many(all).await;
    let decided = decide(&authorizer).await;
    assert!(
        matches!(decided, Err(NotAuthorized::Busy(_))),
        "{decided:?}"
    );
    drop(others.expect("never closed"));
    let listener = listener.into_std().expect("a socket");
    let accepted = listener.accept().expect_err("nothing was asked");
    assert_eq!(accepted.kind(), io::ErrorKind::WouldBlock);
    // With a turn it is asked, and here not answered.
    let decided = decide(&authorizer).await;
    assert!(
        matches!(decided, Err(NotAuthorized::NotAnswered(_))),
        "{decided:?}"
    );
    listener.accept().expect("a question");
}

#[test]
fn only_named_fields_are_shown() {
    let authorizer = authorizer("http://127.0.0.1:1", Duration::from_secs(1));
    let fields: Fields<'_> = &[("cookie", b"a"), ("X-Device", b"1"), ("x-device", b"2")];
    let shown = authorizer.shown(fields);
    let values: Vec<_> = shown.iter().map(|field| &field.value[..]).collect();
    assert_eq!(values, [b"1", b"2"]);
}

#[test]
fn the_edge_s_own_credentials_are_in_no_debug_text() {
    let authorizer = Authorizer {
        fields: vec![Field {
            name: "authorization".to_owned(),
            value: b"Bearer hunter2".to_vec(),
        }],
        ..authorizer("http://127.0.0.1/?key=hunter2", Duration::from_secs(1))
    };
    let text = format!("{authorizer:?}");
    assert!(!text.contains("hunter2"), "{text}");
}
