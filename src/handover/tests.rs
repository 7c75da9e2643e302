//! Both ends of a hand-over, and processes that end before it is done.

use std::net::Ipv4Addr;

use super::*;

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (one, other) = pair.expect("a pair");
    for end in [&one, &other] {
        let patience = Some(Duration::from_secs(10));
        set_socket_timeout(end, Timeout::Recv, patience).expect("an option");
    }
    (one, other)
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn more_sockets_than_fit_into_a_message_arrive_each_with_its_name() {
    let (old, new) = pair();
    let sockets: Vec<_> = (0..PART + 3)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound"))
        .collect();
    let lent: Vec<_> = sockets
        .iter()
        .map(|socket| {
            let bind = socket.local_addr().expect("bound");
            (
                bind,
                OwnedFd::from(socket.try_clone().expect("a descriptor")),
            )
        })
        .collect();
    send_sockets(&old, &lent).expect("sent");
    let received = receive_sockets(&new).expect("received");
    assert_eq!(received.len(), sockets.len());
    for ((bind, socket), sent) in received.iter().zip(&sockets) {
        assert_eq!(Some(*bind), sent.local_addr().ok());
        assert_eq!(socket.local_addr().ok(), sent.local_addr().ok());
    }
}

#[test]
fn what_is_no_list_of_sockets_is_refused() {
    for message in [&b"127.0.0.1:80"[..], b"no address", b"", b"\xff"] {
        let (old, new) = pair();
        send(&old, message).expect("sent");
        let error = receive_sockets(&new).expect_err("no sockets");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{message:?}");
    }
}

#[test]
fn a_reason_of_any_length_arrives_cut_at_a_character() {
    let (old, new) = pair();
    let long = "ü".repeat(MAX_TEXT);
    Predecessor(new).failed(&long);
    match receive_answer(&old) {
        Ok(Answer::Failed(why)) => assert_eq!(why, "ü".repeat(MAX_TEXT / 2)),
        other => panic!("{other:?}"),
    }
    let (old, new) = pair();
    Predecessor(new).serving().expect("sent");
    assert!(matches!(receive_answer(&old), Ok(Answer::Serving)));
}

#[tokio::test]
async fn a_process_that_ends_without_a_word_is_told_by_its_status() {
    let mut successor = Successor::start(shell("exit 3"), &[]).expect("started");
    match successor.serves().await {
        Err(NotServing::Ended(status)) => assert_eq!(status.code(), Some(3)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_that_is_given_up_is_ended() {
    let successor = Successor::start(shell("exec sleep 600"), &[]).expect("started");
    let pid = successor.pid().expect("it runs");
    drop(successor);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let error = Successor::start(Command::new("/nowhere/tidegate"), &[]).expect_err("no program");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
