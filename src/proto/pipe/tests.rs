//! The pipe alone, and against plain queues under any order of calls.

use proptest::prelude::*;

use super::*;

const WATERMARKS: Watermarks = Watermarks { high: 64, low: 32 };

/// A pipe that is given its bytes in a scratch buffer, as the relay does.
fn fill(pipe: &mut Pipe, bytes: &[u8]) -> usize {
    let space = pipe.space(usize::MAX);
    let n = bytes.len().min(space.len());
    space[..n].copy_from_slice(&bytes[..n]);
    pipe.handle_filled(n);
    n
}

fn lent(bytes: &[u8]) -> Pipe {
    let mut pipe = Pipe::new(WATERMARKS);
    assert!(pipe.lend(vec![0; 256]).is_none());
    assert_eq!(fill(&mut pipe, bytes), bytes.len());
    pipe
}

#[test]
fn nothing_unjudged_can_be_sent() {
    let mut pipe = lent(b"headertail");
    assert_eq!(pipe.unsent(), b"");
    pipe.admit(6, Ends::Frame);
    assert_eq!(pipe.unsent(), b"header");
    assert_eq!(pipe.unjudged(), b"tail");
}

#[test]
fn discarded_bytes_leave_no_gap() {
    let mut pipe = lent(b"aaXXbbYYcc");
    pipe.admit(2, Ends::Frame);
    pipe.discard(2);
    pipe.admit(2, Ends::Frame);
    pipe.discard(2);
    pipe.finish_judging();
    assert_eq!(pipe.unsent(), b"aabb");
    assert_eq!(pipe.unjudged(), b"cc");
    assert_eq!(pipe.buffered_amount(), 6);
}

#[test]
fn what_is_pushed_lies_where_something_was_taken_out() {
    for (pushed, all) in [(&b"YYY"[..], &b"aaYYY"[..]), (b"YYYYY", b"aaYYYYY")] {
        let mut pipe = lent(b"aaXXXXbb");
        pipe.admit(2, Ends::Frame);
        pipe.discard(4);
        pipe.push(pushed);
        assert_eq!((pipe.unsent(), pipe.unjudged()), (all, &b"bb"[..]));
        pipe.finish_judging();
        assert_eq!((pipe.unsent(), pipe.unjudged()), (all, &b"bb"[..]));
        assert!(pipe.is_whole());
        assert_eq!(pipe.buffered_amount(), all.len() + 2);
    }
}

#[test]
fn an_empty_pipe_owns_nothing() {
    let mut pipe = lent(b"all of it");
    pipe.admit(9, Ends::Frame);
    pipe.handle_sent(9);
    pipe.handle_flushed();
    assert!(pipe.reclaim().is_some());
    assert_eq!((pipe.owned(), pipe.buffered_amount()), (0, 0));
}

#[test]
fn a_rest_moves_into_a_buffer_of_its_own_and_back() {
    let mut pipe = lent(b"sent rest");
    pipe.admit(7, Ends::Inside);
    pipe.handle_sent(5);
    pipe.handle_flushed();
    assert!(pipe.reclaim().is_some());
    assert_eq!(pipe.owned(), 4);
    assert_eq!((pipe.unsent(), pipe.unjudged()), (&b"re"[..], &b"st"[..]));
    assert!(pipe.lend(vec![0; 256]).is_none());
    assert_eq!((pipe.unsent(), pipe.unjudged()), (&b"re"[..], &b"st"[..]));
    assert_eq!(pipe.owned(), 0);
}

#[test]
fn the_source_waits_from_the_high_watermark_down_to_the_low_one() {
    let mut pipe = Pipe::new(WATERMARKS);
    assert!(pipe.lend(vec![0; 256]).is_none());
    assert_eq!(fill(&mut pipe, &[7; 100]), 64);
    pipe.admit(64, Ends::Frame);
    assert!(pipe.space(usize::MAX).is_empty());
    pipe.handle_sent(31);
    pipe.handle_flushed();
    assert!(pipe.space(usize::MAX).is_empty(), "33 is above the low one");
    pipe.handle_sent(1);
    assert!(pipe.space(usize::MAX).is_empty(), "one byte is still held");
    pipe.handle_flushed();
    assert_eq!(pipe.space(usize::MAX).len(), 32);
    assert_eq!(pipe.peak(), 64);
}

#[test]
fn bytes_the_sink_holds_still_count() {
    let mut pipe = lent(&[1; 40]);
    pipe.admit(40, Ends::Frame);
    pipe.handle_sent(40);
    assert_eq!(pipe.buffered_amount(), 40);
    assert_eq!(pipe.space(usize::MAX).len(), 24);
    pipe.handle_flushed();
    assert_eq!(pipe.buffered_amount(), 0);
}

#[test]
fn a_frame_the_sink_has_begun_cannot_be_cut() {
    let mut pipe = lent(b"wholepart");
    pipe.admit(5, Ends::Frame);
    pipe.admit(2, Ends::Inside);
    assert_eq!(pipe.unsent_to_boundary(), b"whole");
    let mut begun = lent(b"wholepart");
    begun.admit(5, Ends::Frame);
    begun.admit(2, Ends::Inside);
    begun.handle_sent(6);

    pipe.cut_to_boundary();
    assert_eq!(
        (pipe.unsent(), pipe.unjudged()),
        (&b"whole"[..], &b"rt"[..])
    );
    assert!(pipe.is_whole() && !pipe.is_begun());

    assert!(begun.is_begun());
    begun.cut_to_boundary();
    assert_eq!(begun.unsent(), b"a");
    assert!(!begun.is_whole());
    assert!(!begun.is_sent_to_boundary());
}

#[test]
fn pushed_frames_stand_before_what_is_not_judged() {
    let mut pipe = lent(b"oldnew");
    pipe.admit(3, Ends::Frame);
    pipe.push(b"PUSHED");
    assert_eq!(pipe.unsent(), b"oldPUSHED");
    assert_eq!(pipe.unjudged(), b"new");
    assert!(pipe.is_whole());
}

#[derive(Clone, Debug)]
enum Op {
    Fill(usize),
    Admit(usize, bool),
    Discard(usize),
    Finish,
    Send(usize),
    Flush,
    Reclaim,
    Lend,
    Push(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..80usize).prop_map(Op::Fill),
        (1..40usize, any::<bool>()).prop_map(|(n, ends)| Op::Admit(n, ends)),
        (1..20usize).prop_map(Op::Discard),
        Just(Op::Finish),
        (1..40usize).prop_map(Op::Send),
        Just(Op::Flush),
        Just(Op::Reclaim),
        Just(Op::Lend),
        (1..4usize).prop_map(Op::Push),
    ]
}

proptest! {
    /// The pipe against three plain queues.
    #[test]
    fn any_order_of_calls_keeps_every_byte_in_its_place(ops in prop::collection::vec(op(), 1..60)) {
        let mut pipe = Pipe::new(WATERMARKS);
        let (mut unsent, mut unjudged) = (Vec::new(), Vec::new());
        let mut next = 0u8;
        let mut pushed = 0;
        for op in ops {
            match op {
                Op::Fill(n) => {
                    let bytes: Vec<u8> = (0..n).map(|_| { next = next.wrapping_add(1); next }).collect();
                    let n = fill(&mut pipe, &bytes);
                    unjudged.extend_from_slice(&bytes[..n]);
                }
                Op::Admit(n, ends) => {
                    pipe.admit(n, if ends { Ends::Frame } else { Ends::Inside });
                    let n = n.min(unjudged.len());
                    unsent.extend(unjudged.drain(..n));
                }
                Op::Discard(n) => {
                    pipe.discard(n);
                    unjudged.drain(..n.min(unjudged.len()));
                    pipe.finish_judging();
                }
                Op::Finish => pipe.finish_judging(),
                Op::Send(n) => {
                    let n = n.min(unsent.len());
                    pipe.handle_sent(n);
                    unsent.drain(..n);
                }
                Op::Flush => pipe.handle_flushed(),
                Op::Reclaim => drop(pipe.reclaim()),
                Op::Lend => drop(pipe.lend(vec![0; 128])),
                Op::Push(n) => {
                    pipe.push(&[0xEE; 4][..n]);
                    unsent.extend_from_slice(&[0xEE; 4][..n]);
                    pushed += n;
                }
            }
            prop_assert_eq!(pipe.unsent(), &unsent[..]);
            prop_assert_eq!(pipe.unjudged(), &unjudged[..]);
            prop_assert!(pipe.sent <= pipe.admitted && pipe.admitted == pipe.judged);
            prop_assert!(pipe.judged <= pipe.filled && pipe.filled <= pipe.storage.len());
            prop_assert!(pipe.boundary.is_none_or(|b| pipe.sent <= b && b <= pipe.admitted));
            prop_assert!(pipe.buffered_amount() <= WATERMARKS.high + pushed);
            prop_assert!(unsent.starts_with(pipe.unsent_to_boundary()));
        }
    }
}
