//! Streams cut anywhere.

use proptest::prelude::*;

use super::*;
use crate::proto::frame::OpCode;
use crate::proto::sim::{fragment, frame};

const CLIENT: Side = Side::Downstream;

fn text(payload: &[u8]) -> Vec<u8> {
    frame(CLIENT, OpCode::Text, payload)
}

fn ping() -> Vec<u8> {
    frame(CLIENT, OpCode::Ping, b"ping")
}

/// Two messages, of which the second is in three fragments with a ping between.
fn stream() -> (Vec<u8>, usize) {
    let first = text(b"first");
    let mut stream = first.clone();
    stream.extend(fragment(CLIENT, Fin::More, OpCode::Binary, &[1; 200]));
    stream.extend(ping());
    stream.extend(fragment(CLIENT, Fin::More, OpCode::Continuation, b""));
    stream.extend(fragment(CLIENT, Fin::Final, OpCode::Continuation, b"end"));
    (stream, first.len())
}

#[test]
fn what_no_upstream_got_a_part_of_waits_whole() {
    let (stream, first) = stream();
    for sent in [0, first, stream.len()] {
        let mut replay = Replay::new(0, 0);
        replay.handle_sent(&stream[..sent]);
        assert!(replay.is_at_boundary());
        let rest = replay.handle_lost(&stream[sent..]);
        let whole = Rest {
            waiting: 0,
            goes_on: false,
            behind: Ends::Frame,
        };
        assert_eq!(rest, whole, "{sent}");
    }
}

#[test]
fn the_message_an_upstream_got_a_part_of_is_lost_to_its_end() {
    let (stream, first) = stream();
    for sent in first + 1..stream.len() {
        for admitted in sent..=stream.len() {
            let mut replay = Replay::new(0, 0);
            for byte in &stream[..sent] {
                replay.handle_sent(&[*byte]);
            }
            let rest = replay.handle_lost(&stream[sent..admitted]);
            assert_eq!(rest.waiting, admitted - sent);
            assert_eq!(rest.goes_on, admitted < stream.len(), "{sent} {admitted}");
            assert_eq!(rest.behind, Ends::Frame);
        }
    }
}

#[test]
fn a_control_frame_that_was_cut_is_lost_alone() {
    let mut stream = ping();
    let whole = stream.len();
    stream.extend(text(b"message"));
    for sent in 1..whole {
        let mut replay = Replay::new(0, 0);
        replay.handle_sent(&stream[..sent]);
        assert!(!replay.is_at_boundary());
        let rest = replay.handle_lost(&stream[sent..]);
        assert_eq!((rest.waiting, rest.goes_on), (whole - sent, false));
    }
}

#[test]
fn one_byte_over_the_copy_is_not_complete_and_owns_nothing() {
    let message = text(b"0123456789");
    let mut exact = Replay::new(1, message.len());
    exact.handle_sent(&message);
    assert!(exact.is_complete());
    assert_eq!(exact.begin_again(Vec::new()).0, message);
    let mut over = Replay::new(1, message.len() - 1);
    over.handle_sent(&message);
    assert!(!over.is_complete());
    assert_eq!(over.owned(), 0);
}

#[test]
fn only_the_first_messages_are_copied_and_no_control_frame() {
    let mut replay = Replay::new(2, 1 << 20);
    let (one, two) = (text(b"one"), text(b"two"));
    replay.handle_sent(&[&ping()[..], &one, &ping(), &two, &text(b"three")].concat());
    let (preamble, whole) = replay.begin_again(Vec::new());
    assert_eq!(preamble, [one, two].concat());
    assert_eq!(whole, preamble.len());
}

#[test]
fn a_preamble_that_was_cut_is_said_from_its_beginning_again() {
    let (first, one, two) = (text(b"token"), text(b"one"), text(b"two"));
    let mut replay = Replay::new(1, 1 << 20);
    replay.handle_preamble(first.len());
    replay.handle_sent(&[&first[..], &one].concat());
    let rest = replay.handle_lost(&two);
    assert_eq!((rest.waiting, rest.behind), (0, Ends::Frame));
    let (preamble, whole) = replay.begin_again(first.clone());
    assert_eq!(preamble, [&first[..], &one].concat());
    assert_eq!(whole, preamble.len());
    // The new upstream gets a part of it.
    replay.handle_sent(&preamble[..3]);
    let waiting = [&preamble[3..], &two].concat();
    let rest = replay.handle_lost(&waiting);
    assert_eq!(rest.waiting, preamble.len() - 3);
    assert_eq!(replay.begin_again(first).0, preamble);
}

proptest! {
    #[test]
    fn a_copy_and_what_waits_are_the_whole_stream(
        sizes in prop::collection::vec(0..300usize, 1..8),
        cuts in prop::collection::vec(0..40usize, 1..100),
        admitted in 0..2_000usize,
    ) {
        let mut stream = Vec::new();
        for (n, size) in sizes.iter().enumerate() {
            let opcode = if n == 0 { OpCode::Binary } else { OpCode::Continuation };
            let fin = if n + 1 == sizes.len() { Fin::Final } else { Fin::More };
            stream.extend(fragment(CLIENT, fin, opcode, &vec![n as u8; *size]));
        }
        let mut replay = Replay::new(2, 1 << 20);
        let mut sent = 0;
        for cut in cuts {
            let end = (sent + cut).min(stream.len());
            replay.handle_sent(&stream[sent..end]);
            sent = end;
        }
        let admitted = (sent + admitted).min(stream.len());
        let rest = replay.handle_lost(&stream[sent..admitted]);
        prop_assert_eq!((rest.waiting, rest.goes_on), (0, false));
        let (mut again, whole) = replay.begin_again(Vec::new());
        prop_assert!(whole <= again.len());
        again.extend_from_slice(&stream[sent..]);
        prop_assert_eq!(again, stream);
    }
}
