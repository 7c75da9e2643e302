//! Whole sessions in a simulated world: no socket, no waiting.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::proto::cause::{DialFailure, Misbehaviour, QuotaKind};
use crate::proto::close::CloseCode;
use crate::proto::frame::{Fin, OpCode};
use crate::proto::limits::OnExcess;
use crate::proto::policy::OnSlowConsumer;
use crate::proto::sim::{
    KEY, Seen, Sim, close_payload, first_message, fragment, frame, policy, quota,
};
use Side::{Downstream, Upstream};

mod interleavings;

const BOTH: [Side; 2] = [Downstream, Upstream];

fn text(payload: &[u8]) -> Seen {
    Seen {
        fin: Fin::Final,
        opcode: OpCode::Text,
        payload: payload.to_vec(),
    }
}

fn awaiting_token() -> Sim {
    let mut policy = policy();
    policy.first_message = Some(first_message());
    Sim::new(policy)
}

/// A session whose token was good.
fn admitted(mut sim: Sim) -> Sim {
    sim.send(Downstream, &frame(Downstream, OpCode::Text, b"token"));
    assert_eq!(sim.events.pop(), Some(Event::VerifyToken("token".into())));
    sim.session
        .handle_token(TokenVerdict::Admitted(Admitted::default()), sim.now);
    sim.drive();
    assert_eq!(sim.events.pop(), Some(Event::Dial));
    sim.session.handle_dialed(Ok(()), sim.now);
    sim.drive();
    sim
}

mod relaying {
    use super::*;

    #[test]
    fn frames_pass_both_ways_byte_for_byte() {
        for from in BOTH {
            let mut sim = Sim::new(policy());
            let mut sent = frame(from, OpCode::Text, "héllo".as_bytes());
            sent.extend(fragment(from, Fin::More, OpCode::Binary, &[0; 70_000]));
            sent.extend(frame(from, OpCode::Ping, b"are you there"));
            sent.extend(fragment(from, Fin::Final, OpCode::Continuation, b""));
            sent.extend(frame(from, OpCode::Pong, b"unasked"));
            sim.send(from, &sent);
            assert_eq!(sim.wires[from.other()].taken, sent);
            assert_eq!(sim.session.owned_memory(), 0);
            assert_eq!(sim.session.summary().tallies[from].messages, 2);
            assert_eq!(sim.session.summary().tallies[from].bytes, sent.len() as u64);
        }
    }

    #[test]
    fn a_large_frame_streams_through_before_its_end_has_come() {
        let mut sim = Sim::new(policy());
        let whole = frame(Downstream, OpCode::Binary, &[7; 100_000]);
        sim.send(Downstream, &whole[..50_000]);
        assert_eq!(sim.wires.upstream.taken, whole[..50_000]);
    }

    #[test]
    fn no_byte_of_a_frame_that_breaks_the_rules_passes() {
        for from in BOTH {
            let mut sim = Sim::new(policy());
            let good = frame(from, OpCode::Text, b"good");
            let mut sent = good.clone();
            sent.extend([0xC1, 0x80, 1, 2, 3, 4]);
            sim.send(from, &sent);
            let got = &sim.wires[from.other()].taken;
            assert!(got.starts_with(&good));
            assert_eq!(sim.seen(from.other()).len(), 2, "and a Close");
            sim.eof(Downstream);
            sim.eof(Upstream);
            assert_eq!(
                sim.ended(),
                Cause::Misbehaved(from, Misbehaviour::ReservedBits)
            );
        }
    }
}

mod limits {
    use super::*;

    #[test]
    fn a_frame_of_exactly_the_limit_passes_and_one_more_byte_does_not() {
        let mut policy = policy();
        policy.limits.max_frame_size = 100;
        let mut sim = Sim::new(policy);
        sim.send(Downstream, &frame(Downstream, OpCode::Binary, &[1; 100]));
        assert_eq!(sim.seen(Upstream).len(), 1);
        // The header alone is enough to know.
        let over = frame(Downstream, OpCode::Binary, &[1; 101]);
        sim.send(Downstream, &over[..6]);
        assert_eq!(sim.close_code(Downstream), Some(1009));
        assert_eq!(sim.close_code(Upstream), Some(1001));
    }

    #[test]
    fn a_message_of_fragments_is_held_to_the_message_limit() {
        let mut policy = policy();
        policy.limits.max_message_size = 100;
        let mut sim = Sim::new(policy);
        sim.send(
            Downstream,
            &fragment(Downstream, Fin::More, OpCode::Binary, &[1; 60]),
        );
        sim.send(
            Downstream,
            &fragment(Downstream, Fin::Final, OpCode::Continuation, &[1; 41]),
        );
        assert_eq!(sim.close_code(Downstream), Some(1009));
        assert_eq!(sim.seen(Upstream)[0].payload.len(), 60);
    }

    #[test]
    fn the_upstream_has_limits_of_its_own() {
        let mut policy = policy();
        policy.limits.max_upstream_message_size = Some(10);
        let mut sim = Sim::new(policy);
        sim.send(Upstream, &frame(Upstream, OpCode::Binary, &[1; 11]));
        assert_eq!(sim.close_code(Downstream), Some(1014));
        assert_eq!(sim.close_code(Upstream), Some(1009));
    }

    #[test]
    fn messages_beyond_the_quota_wait_for_it() {
        let mut policy = policy();
        policy.limits.messages = Some(quota(10, 5, OnExcess::Throttle));
        let mut sim = Sim::new(policy);
        let message = frame(Downstream, OpCode::Text, b"m");
        sim.send(Downstream, &message.repeat(20));
        assert_eq!(sim.seen(Upstream).len(), 5);
        assert!(sim.session.space(Downstream).is_empty());
        sim.advance(Duration::from_millis(99));
        assert_eq!(sim.seen(Upstream).len(), 5);
        sim.advance(Duration::from_millis(1));
        assert_eq!(sim.seen(Upstream).len(), 6);
        sim.advance(Duration::from_millis(1_400));
        assert_eq!(sim.seen(Upstream).len(), 20);
        let tally = sim.session.summary().tallies.downstream;
        assert_eq!(
            (tally.messages, tally.dropped, tally.throttled),
            (20, 0, Duration::from_millis(1_500))
        );
    }

    #[test]
    fn messages_beyond_the_quota_are_dropped_whole() {
        let mut policy = policy();
        policy.limits.messages = Some(quota(1, 2, OnExcess::Drop));
        let mut sim = Sim::new(policy);
        for n in 0..4u8 {
            sim.send(
                Downstream,
                &fragment(Downstream, Fin::More, OpCode::Text, &[b'a' + n]),
            );
            sim.send(Downstream, &frame(Downstream, OpCode::Ping, b"between"));
            sim.send(
                Downstream,
                &fragment(Downstream, Fin::Final, OpCode::Continuation, b"!"),
            );
        }
        let data: Vec<_> = sim
            .seen(Upstream)
            .into_iter()
            .filter(|seen| !seen.opcode.is_control())
            .map(|seen| seen.payload)
            .collect();
        assert_eq!(data, [b"a", b"!", b"b", b"!"]);
        assert_eq!(sim.seen(Upstream).len(), 8, "pings are never dropped");
        let tally = sim.session.summary().tallies.downstream;
        assert_eq!((tally.messages, tally.dropped), (2, 2));
    }

    #[test]
    fn a_message_beyond_the_quota_closes_with_1008() {
        let mut policy = policy();
        policy.limits.messages = Some(quota(1, 2, OnExcess::Close));
        let mut sim = Sim::new(policy);
        let message = frame(Downstream, OpCode::Text, b"m");
        sim.send(Downstream, &message.repeat(3));
        assert_eq!(sim.close_code(Downstream), Some(1008));
        assert_eq!(sim.close_code(Upstream), Some(1001));
        assert_eq!(sim.seen(Upstream).len(), 3, "two messages, and the Close");
        assert_eq!(
            sim.session.summary().cause,
            Cause::QuotaExceeded(QuotaKind::Messages)
        );
    }

    #[test]
    fn bytes_beyond_the_quota_wait_for_it_even_in_a_frame_above_the_burst() {
        let mut policy = policy();
        policy.limits.bytes = Some(quota(1_000, 2_000, OnExcess::Throttle));
        let mut sim = Sim::new(policy);
        let sent = frame(Downstream, OpCode::Binary, &[1; 9_992]);
        assert_eq!(sent.len(), 10_000);
        sim.send(Downstream, &sent);
        assert_eq!(sim.wires.upstream.taken.len(), 2_000);
        sim.advance(Duration::from_secs(4));
        assert_eq!(sim.wires.upstream.taken.len(), 6_000);
        sim.advance(Duration::from_secs(4));
        assert_eq!(sim.wires.upstream.taken, sent);
    }

    #[test]
    fn bytes_beyond_the_quota_are_dropped_as_whole_messages() {
        let mut policy = policy();
        policy.limits.bytes = Some(quota(10, 100, OnExcess::Drop));
        let mut sim = Sim::new(policy);
        for size in [60, 60, 10] {
            sim.send(
                Downstream,
                &frame(Downstream, OpCode::Binary, &vec![1; size]),
            );
        }
        let sizes: Vec<_> = sim.seen(Upstream).iter().map(|s| s.payload.len()).collect();
        assert_eq!(sizes, [60, 10]);
        assert_eq!(sim.session.summary().tallies.downstream.dropped, 1);
    }

    #[test]
    fn the_later_fragments_of_an_admitted_message_wait_instead_of_being_dropped() {
        let mut policy = policy();
        policy.limits.bytes = Some(quota(10, 100, OnExcess::Drop));
        let mut sim = Sim::new(policy);
        sim.send(
            Downstream,
            &fragment(Downstream, Fin::More, OpCode::Binary, &[1; 80]),
        );
        sim.send(
            Downstream,
            &fragment(Downstream, Fin::Final, OpCode::Continuation, &[1; 80]),
        );
        assert_eq!(sim.seen(Upstream).len(), 1);
        sim.advance(Duration::from_secs(9));
        assert_eq!(sim.seen(Upstream).len(), 2);
    }

    #[test]
    fn a_byte_beyond_the_quota_closes_with_1008() {
        let mut policy = policy();
        policy.limits.bytes = Some(quota(10, 100, OnExcess::Close));
        let mut sim = Sim::new(policy);
        let all = frame(Downstream, OpCode::Binary, &[1; 94]);
        assert_eq!(all.len(), 100);
        sim.send(Downstream, &all);
        assert_eq!(sim.close_code(Downstream), None);
        sim.send(Downstream, &frame(Downstream, OpCode::Binary, b""));
        assert_eq!(sim.close_code(Downstream), Some(1008));
        assert_eq!(sim.seen(Upstream).len(), 2, "the first, and the Close");
    }

    #[test]
    fn a_flood_of_pings_closes_with_1008() {
        let mut policy = policy();
        policy.limits.control = quota(1, 10, OnExcess::Close);
        let mut sim = Sim::new(policy);
        let ping = frame(Downstream, OpCode::Ping, b"");
        sim.send(Downstream, &ping.repeat(10));
        assert_eq!(sim.seen(Upstream).len(), 10);
        sim.send(Downstream, &ping);
        assert_eq!(sim.close_code(Downstream), Some(1008));
    }

    #[test]
    fn empty_fragments_count_as_control_frames() {
        let mut policy = policy();
        policy.limits.control = quota(1, 10, OnExcess::Close);
        let mut sim = Sim::new(policy);
        let mut sent = fragment(Downstream, Fin::More, OpCode::Binary, b"");
        sent.extend(fragment(Downstream, Fin::More, OpCode::Continuation, b"").repeat(10));
        sim.send(Downstream, &sent);
        assert_eq!(sim.close_code(Downstream), Some(1008));
    }

    #[test]
    fn text_that_is_not_utf8_closes_with_1007_at_the_bad_byte() {
        let mut sim = Sim::new(policy());
        sim.send(
            Downstream,
            &fragment(Downstream, Fin::More, OpCode::Text, b"\xce\xba\xe1"),
        );
        let second = fragment(
            Downstream,
            Fin::Final,
            OpCode::Continuation,
            b"A rest that never comes",
        );
        sim.send(Downstream, &second[..7]);
        assert_eq!(sim.close_code(Downstream), Some(1007));
        assert_eq!(sim.close_code(Upstream), Some(1001));
        assert_eq!(sim.seen(Upstream).len(), 2, "the good fragment, the Close");
    }

    #[test]
    fn binary_and_unvalidated_text_may_hold_any_bytes() {
        let mut sim = Sim::new(policy());
        sim.send(Downstream, &frame(Downstream, OpCode::Binary, b"\xff\xff"));
        assert_eq!(sim.seen(Upstream).len(), 1);
        let mut policy = policy();
        policy.limits.validate_utf8 = false;
        let mut sim = Sim::new(policy);
        sim.send(Downstream, &frame(Downstream, OpCode::Text, b"\xff\xff"));
        assert_eq!(sim.seen(Upstream).len(), 1);
    }

    #[test]
    fn a_fragment_that_waits_for_its_quota_is_charged_once() {
        let mut policy = policy();
        policy.limits.messages = Some(quota(1, 1, OnExcess::Throttle));
        policy.limits.control = quota(1, 3, OnExcess::Close);
        let mut sim = Sim::new(policy);
        let mut message = fragment(Downstream, Fin::More, OpCode::Text, b"");
        message.extend(fragment(Downstream, Fin::Final, OpCode::Continuation, b"m"));
        sim.send(Downstream, &message.repeat(10));
        sim.advance(Duration::from_secs(9));
        assert_eq!(sim.close_code(Downstream), None);
        assert_eq!(sim.session.summary().tallies.downstream.messages, 10);
    }

    #[test]
    fn time_throttled_counts_up_to_the_end() {
        let mut policy = policy();
        policy.limits.messages = Some(quota(1, 1, OnExcess::Throttle));
        let mut sim = Sim::new(policy);
        sim.send(Downstream, &frame(Downstream, OpCode::Text, b"m").repeat(2));
        sim.advance(Duration::from_millis(500));
        sim.session.handle_reset(Downstream, sim.now);
        let tally = sim.session.summary().tallies.downstream;
        assert_eq!(tally.throttled, Duration::from_millis(500));
    }
}

mod first_messages {
    use super::*;

    #[test]
    fn a_token_in_fragments_is_collected_and_consumed() {
        let mut sim = awaiting_token();
        sim.send(
            Downstream,
            &fragment(Downstream, Fin::More, OpCode::Text, b"to"),
        );
        sim.send(Downstream, &frame(Downstream, OpCode::Ping, b"?"));
        sim.send(
            Downstream,
            &fragment(Downstream, Fin::Final, OpCode::Continuation, b"ken"),
        );
        assert_eq!(sim.events, [Event::VerifyToken("token".into())]);
        assert_eq!(sim.seen(Downstream)[0].opcode, OpCode::Pong);
        assert_eq!(sim.seen(Downstream)[0].payload, b"?");
        assert!(sim.wires.upstream.taken.is_empty());
    }

    #[test]
    fn what_follows_the_token_waits_and_then_passes() {
        let mut sim = awaiting_token();
        let mut sent = frame(Downstream, OpCode::Text, b"token");
        let behind = frame(Downstream, OpCode::Text, b"behind");
        sent.extend(&behind);
        sim.send(Downstream, &sent);
        assert!(sim.session.space(Downstream).is_empty());
        sim.session
            .handle_token(TokenVerdict::Admitted(Admitted::default()), sim.now);
        sim.session.handle_dialed(Ok(()), sim.now);
        sim.drive();
        assert_eq!(sim.wires.upstream.taken, behind);
    }

    #[test]
    fn the_first_message_is_forwarded_and_answered_where_the_route_says_so() {
        let mut policy = policy();
        let mut first = first_message();
        first.forward = true;
        first.reply = Some("ready".to_owned());
        policy.first_message = Some(first);
        let mut sim = awaiting_token();
        sim.session = Sim::new(policy).session;
        let mut sim = admitted(sim);
        sim.send(Downstream, &frame(Downstream, OpCode::Text, b"next"));
        assert_eq!(sim.seen(Upstream), [text(b"token"), text(b"next")]);
        assert_eq!(sim.seen(Downstream), [text(b"ready")]);
    }

    #[test]
    fn no_token_in_time_closes_with_3008() {
        let mut sim = awaiting_token();
        sim.advance(Duration::from_millis(9_999));
        assert_eq!(sim.close_code(Downstream), None);
        sim.advance(Duration::from_millis(1));
        assert_eq!(sim.close_code(Downstream), Some(3008));
        sim.send(
            Downstream,
            &frame(Downstream, OpCode::Close, &close_payload(3008, "")),
        );
        assert_eq!(sim.ended(), Cause::TokenTimeout);
    }

    #[test]
    fn pings_do_not_prolong_the_wait_for_a_token() {
        let mut sim = awaiting_token();
        for _ in 0..10 {
            sim.advance(Duration::from_secs(1));
            sim.send(Downstream, &frame(Downstream, OpCode::Ping, b""));
        }
        assert_eq!(sim.close_code(Downstream), Some(3008));
    }

    #[test]
    fn a_refusal_closes_with_the_code_of_its_kind() {
        for (verdict, code, cause) in [
            (TokenVerdict::Refused, 3000, Cause::TokenRefused),
            (TokenVerdict::Forbidden, 3003, Cause::AdmissionForbidden),
            (TokenVerdict::Unavailable, 1013, Cause::AdmissionUnavailable),
        ] {
            let mut sim = awaiting_token();
            sim.send(Downstream, &frame(Downstream, OpCode::Text, b"bad"));
            sim.session.handle_token(verdict, sim.now);
            sim.drive();
            assert_eq!(sim.close_code(Downstream), Some(code));
            sim.eof(Downstream);
            assert_eq!(sim.ended(), cause);
        }
    }

    #[test]
    fn a_binary_first_message_closes_with_3000() {
        let mut sim = awaiting_token();
        sim.send(Downstream, &frame(Downstream, OpCode::Binary, b"token"));
        assert_eq!(sim.close_code(Downstream), Some(3000));
    }

    #[test]
    fn one_byte_over_the_size_closes_with_1009() {
        let mut sim = awaiting_token();
        sim.send(Downstream, &frame(Downstream, OpCode::Text, &[b'a'; 1025]));
        assert_eq!(sim.close_code(Downstream), Some(1009));
    }

    #[test]
    fn a_stranger_cannot_fill_the_pipe() {
        let mut sim = awaiting_token();
        // A frame that never ends: its bytes are collected as they come, and no further.
        let sent = frame(Downstream, OpCode::Text, &[b'a'; 1024]);
        sim.send(Downstream, &sent[..sent.len() - 1]);
        sim.wires.downstream.capacity = 0;
        assert!(sim.session.space(Downstream).len() <= 1024 + FIRST_MESSAGE_SLACK);
    }

    #[test]
    fn a_close_instead_of_a_token_is_echoed() {
        let mut sim = awaiting_token();
        sim.send(
            Downstream,
            &frame(Downstream, OpCode::Close, &close_payload(4000, "bye")),
        );
        assert_eq!(sim.close_code(Downstream), Some(4000));
        assert!(sim.wires.downstream.shut);
        assert!(matches!(sim.ended(), Cause::Closed { by: Downstream, .. }));
    }

    #[test]
    fn a_dial_that_fails_is_told_apart() {
        for (failure, code) in [
            (DialFailure::Unreachable, 1013),
            (DialFailure::TimedOut, 1014),
            (DialFailure::Refused, 1014),
        ] {
            let mut sim = awaiting_token();
            sim.send(Downstream, &frame(Downstream, OpCode::Text, b"token"));
            sim.session
                .handle_token(TokenVerdict::Admitted(Admitted::default()), sim.now);
            sim.session.handle_dialed(Err(failure), sim.now);
            sim.drive();
            assert_eq!(sim.close_code(Downstream), Some(code));
            sim.eof(Downstream);
            assert_eq!(sim.ended(), Cause::DialFailed(failure));
        }
    }

    #[test]
    fn empty_fragments_of_a_first_message_count_as_control_frames() {
        let mut policy = policy();
        policy.first_message = Some(first_message());
        policy.limits.control = quota(1, 10, OnExcess::Close);
        let mut sim = Sim::new(policy);
        let mut sent = fragment(Downstream, Fin::More, OpCode::Text, b"");
        sent.extend(fragment(Downstream, Fin::More, OpCode::Continuation, b"").repeat(10));
        sim.send(Downstream, &sent);
        assert_eq!(sim.close_code(Downstream), Some(1008));
    }

    #[test]
    fn pings_and_idleness_count_from_when_the_upstream_is_there() {
        let mut policy = policy();
        policy.first_message = Some(first_message());
        policy.keepalive.ping_interval = Some(Duration::from_secs(2));
        policy.keepalive.pong_timeout = Duration::from_secs(1);
        policy.keepalive.idle_timeout = Some(Duration::from_secs(3));
        let mut sim = Sim::new(policy);
        sim.advance(Duration::from_secs(9));
        assert!(sim.wires.downstream.taken.is_empty());
        let mut sim = admitted(sim);
        sim.advance(Duration::from_millis(2_200));
        assert_eq!(sim.seen(Downstream)[0].opcode, OpCode::Ping);
    }

    #[test]
    fn a_large_forwarded_message_leaves_room_to_read_what_follows() {
        let mut policy = policy();
        let mut first = first_message();
        first.forward = true;
        first.max_size = 20_000;
        policy.first_message = Some(first);
        let mut sim = Sim::new(policy);
        sim.wires.upstream.capacity = 0;
        sim.send(
            Downstream,
            &frame(Downstream, OpCode::Text, &[b'a'; 10_000]),
        );
        sim.session
            .handle_token(TokenVerdict::Admitted(Admitted::default()), sim.now);
        sim.session.handle_dialed(Ok(()), sim.now);
        sim.drive();
        assert!(!sim.session.space(Downstream).is_empty());
    }
}

mod closing {
    use super::*;

    #[test]
    fn a_close_and_its_answer_pass_with_code_and_reason() {
        for by in BOTH {
            let mut sim = Sim::new(policy());
            let close = frame(by, OpCode::Close, &close_payload(4001, "done"));
            sim.send(by, &close);
            assert_eq!(sim.wires[by.other()].taken, close);
            // The other peer may say more before it answers.
            let rest = frame(by.other(), OpCode::Text, b"last words");
            let answer = frame(by.other(), OpCode::Close, &close_payload(4001, "done"));
            sim.send(by.other(), &[&rest[..], &answer[..]].concat());
            assert_eq!(sim.wires[by].taken, [&rest[..], &answer[..]].concat());
            assert!(sim.wires.downstream.shut && sim.wires.upstream.shut);
            let code = CloseCode::from_wire(4001);
            assert_eq!(sim.ended(), Cause::Closed { by, code });
            let codes = sim.session.summary().close_codes;
            assert_eq!((codes.downstream, codes.upstream), (code, code));
        }
    }

    #[test]
    fn an_empty_close_passes() {
        let mut sim = Sim::new(policy());
        for side in BOTH {
            sim.send(side, &frame(side, OpCode::Close, b""));
        }
        assert_eq!(
            sim.ended(),
            Cause::Closed {
                by: Downstream,
                code: None
            }
        );
    }

    #[test]
    fn nothing_passes_behind_a_close() {
        for by in BOTH {
            let mut sim = Sim::new(policy());
            let close = frame(by, OpCode::Close, &close_payload(1000, ""));
            let more = frame(by, OpCode::Text, b"more");
            sim.send(by, &[&close[..], &more[..], b"\xff\xff\xff"].concat());
            assert_eq!(sim.wires[by.other()].taken, close);
        }
    }

    #[test]
    fn a_close_nobody_answers_is_answered_by_the_edge_in_the_end() {
        for by in BOTH {
            let mut sim = Sim::new(policy());
            sim.send(by, &frame(by, OpCode::Close, &close_payload(4001, "")));
            sim.advance(Duration::from_millis(4_999));
            assert_eq!(sim.close_code(by), None);
            sim.advance(Duration::from_millis(1));
            assert_eq!(sim.close_code(by), Some(4001));
            assert!(matches!(sim.ended(), Cause::Closed { .. }));
        }
    }

    #[test]
    fn an_end_of_stream_for_an_answer_is_turned_into_one() {
        for by in BOTH {
            let mut sim = Sim::new(policy());
            sim.send(by, &frame(by, OpCode::Close, &close_payload(4001, "")));
            sim.eof(by.other());
            assert_eq!(sim.close_code(by), Some(4001));
            assert!(matches!(sim.ended(), Cause::Closed { .. }));
        }
    }

    #[test]
    fn a_peer_that_vanishes_ends_the_other_leg() {
        for (gone, code) in [(Downstream, 1001), (Upstream, 1014)] {
            for reset in [false, true] {
                let mut sim = Sim::new(policy());
                sim.send(gone, &frame(gone, OpCode::Text, b"last"));
                if reset {
                    sim.session.handle_reset(gone, sim.now);
                    sim.drive();
                } else {
                    sim.eof(gone);
                }
                let other = gone.other();
                assert_eq!(sim.seen(other)[0], text(b"last"));
                assert_eq!(sim.close_code(other), Some(code));
                sim.send(
                    other,
                    &frame(other, OpCode::Close, &close_payload(code, "")),
                );
                assert_eq!(sim.ended(), Cause::Vanished(gone));
            }
        }
    }

    #[test]
    fn a_close_is_never_injected_into_a_frame() {
        let mut sim = Sim::new(policy());
        let whole = frame(Upstream, OpCode::Binary, &[7; 1000]);
        sim.send(Upstream, &whole[..500]);
        sim.session.handle_drain(sim.now);
        sim.drive();
        assert_eq!(sim.wires.downstream.taken, whole[..500]);
        sim.send(Upstream, &whole[500..]);
        let seen = sim.seen(Downstream);
        assert_eq!(seen[0].payload.len(), 1000);
        assert_eq!(sim.close_code(Downstream), Some(1012));
        assert_eq!(sim.close_code(Upstream), Some(1001));
    }

    /// A session that drains while half a message of `from` is with the other peer.
    fn drained_in_a_message(from: Side) -> (Sim, Vec<u8>) {
        let mut sim = Sim::new(policy());
        let first = fragment(from, Fin::More, OpCode::Text, b"one, ");
        sim.send(from, &first);
        sim.session.handle_drain(sim.now);
        sim.drive();
        (sim, first)
    }

    fn codes(sim: &Sim, from: Side) -> (Option<u16>, Option<u16>) {
        (sim.close_code(from), sim.close_code(from.other()))
    }

    fn drained_codes(from: Side) -> (Option<u16>, Option<u16>) {
        match from {
            Downstream => (Some(1012), Some(1001)),
            Upstream => (Some(1001), Some(1012)),
        }
    }

    #[test]
    fn a_message_of_which_the_other_peer_has_a_part_is_finished_before_the_close() {
        for from in BOTH {
            let (mut sim, mut message) = drained_in_a_message(from);
            assert_eq!(codes(&sim, from), (drained_codes(from).0, None));
            for (fin, text) in [(Fin::More, b"two, "), (Fin::Final, b"three")] {
                let next = fragment(from, fin, OpCode::Continuation, text);
                sim.send(from, &next[..4]);
                sim.send(from, &next[4..]);
                message.extend(next);
            }
            sim.send(from, &frame(from, OpCode::Text, b"too late"));
            assert!(sim.wires[from.other()].taken.starts_with(&message));
            assert_eq!(sim.seen(from.other()).len(), 4);
            assert_eq!(codes(&sim, from), drained_codes(from));
            assert_eq!(sim.session.summary().tallies[from].messages, 1);
            for side in BOTH {
                sim.send(side, &frame(side, OpCode::Close, &close_payload(1000, "")));
            }
            assert_eq!(sim.ended(), Cause::Drained);
        }
    }

    #[test]
    fn a_message_that_is_never_finished_holds_the_close_up_for_the_close_timeout_alone() {
        for from in BOTH {
            let (mut sim, _) = drained_in_a_message(from);
            sim.advance(Duration::from_millis(4_999));
            assert_eq!(codes(&sim, from), (drained_codes(from).0, None));
            sim.advance(Duration::from_millis(1));
            sim.drive();
            assert_eq!(codes(&sim, from), drained_codes(from));
            sim.advance(Duration::from_secs(1));
            assert_eq!(sim.ended(), Cause::Drained);
        }
    }

    #[test]
    fn who_closes_or_vanishes_in_its_message_holds_no_close_up() {
        for from in BOTH {
            let (mut sim, _) = drained_in_a_message(from);
            sim.send(from, &frame(from, OpCode::Close, &close_payload(1000, "")));
            assert_eq!(codes(&sim, from), drained_codes(from));
            let (mut sim, _) = drained_in_a_message(from);
            sim.eof(from);
            assert_eq!(sim.close_code(from.other()), drained_codes(from).1);
        }
    }

    #[test]
    fn a_message_of_which_the_other_peer_has_nothing_is_not_waited_for() {
        let mut sim = Sim::new(policy());
        let first = fragment(Upstream, Fin::More, OpCode::Text, &[b'1'; 100]);
        sim.wires.downstream.capacity = 0;
        sim.send(Upstream, &first[..50]);
        sim.session.handle_drain(sim.now);
        sim.take(Downstream, usize::MAX);
        assert_eq!(sim.close_code(Downstream), Some(1012));
        assert_eq!(sim.seen(Downstream).len(), 1);
    }

    #[test]
    fn text_that_is_finished_while_closing_is_still_checked() {
        let mut sim = Sim::new(policy());
        let whole = frame(Downstream, OpCode::Text, b"good, then \xff\xff");
        let (good, bad) = whole.split_at(whole.len() - 2);
        sim.send(Downstream, good);
        sim.session.handle_drain(sim.now);
        sim.send(Downstream, bad);
        assert_eq!(sim.wires.upstream.taken, good);
        assert_eq!(sim.close_code(Downstream), Some(1012));
    }

    #[test]
    fn a_frame_broken_off_is_followed_by_nothing() {
        for gone in BOTH {
            let mut sim = Sim::new(policy());
            let whole = frame(gone, OpCode::Binary, &[7; 1000]);
            sim.send(gone, &whole[..500]);
            sim.eof(gone);
            assert_eq!(sim.wires[gone.other()].taken, whole[..500]);
            assert_eq!(sim.ended(), Cause::Vanished(gone));
        }
    }

    #[test]
    fn a_frame_of_which_nothing_has_left_is_withdrawn_for_the_close() {
        let mut sim = Sim::new(policy());
        sim.wires.downstream.capacity = 0;
        let whole = frame(Upstream, OpCode::Text, b"whole");
        let part = frame(Upstream, OpCode::Binary, &[7; 1000]);
        sim.send(Upstream, &[&whole[..], &part[..500]].concat());
        sim.session.handle_drain(sim.now);
        sim.take(Downstream, usize::MAX);
        assert_eq!(sim.seen(Downstream)[0], text(b"whole"));
        assert_eq!(sim.seen(Downstream).len(), 2);
        assert_eq!(sim.close_code(Downstream), Some(1012));
    }

    #[test]
    fn a_drained_peer_may_answer_and_then_all_is_over() {
        let mut sim = Sim::new(policy());
        sim.session.handle_drain(sim.now);
        sim.drive();
        for side in BOTH {
            assert!(!sim.wires[side].shut);
            sim.send(side, &frame(side, OpCode::Text, b"too late"));
            sim.send(side, &frame(side, OpCode::Close, &close_payload(1012, "")));
            assert!(sim.wires[side].shut);
        }
        assert_eq!(sim.ended(), Cause::Drained);
    }

    #[test]
    fn a_peer_that_never_answers_is_aborted_at_the_close_timeout() {
        let mut sim = Sim::new(policy());
        sim.session.handle_drain(sim.now);
        sim.advance(Duration::from_millis(4_999));
        assert!(!sim.session.is_ended());
        sim.advance(Duration::from_millis(1));
        assert_eq!(sim.ended(), Cause::Drained);
    }

    #[test]
    fn a_session_that_is_cut_off_is_over_at_once_in_every_phase() {
        let mut fresh = Sim::new(policy());
        let mut draining = Sim::new(policy());
        draining.session.handle_drain(draining.now);
        let mut token = awaiting_token();
        for sim in [&mut fresh, &mut draining, &mut token] {
            for _ in 0..2 {
                sim.session.handle_cut_off(sim.now);
                sim.drive();
                assert_eq!(sim.ended(), Cause::Drained);
            }
        }
        let mut closed = Sim::new(policy());
        closed.send(
            Downstream,
            &frame(Downstream, OpCode::Close, &close_payload(1000, "")),
        );
        closed.session.handle_cut_off(closed.now);
        closed.drive();
        assert!(matches!(
            closed.ended(),
            Cause::Closed { by: Downstream, .. }
        ));
    }

    #[test]
    fn the_first_cause_stands() {
        let mut sim = Sim::new(policy());
        sim.send(Downstream, &[0xF1, 0x80]);
        sim.session.handle_drain(sim.now);
        sim.send(Upstream, &[0xF1, 0x80]);
        sim.eof(Upstream);
        sim.eof(Downstream);
        assert_eq!(
            sim.ended(),
            Cause::Misbehaved(Downstream, Misbehaviour::ReservedBits)
        );
    }

    #[test]
    fn a_close_payload_that_breaks_the_rules_does_not_pass() {
        let cases: [(&[u8], Misbehaviour, u16); 3] = [
            (b"\x03", Misbehaviour::ClosePayloadLength, 1002),
            (b"\x03\xed", Misbehaviour::CloseCode(1005), 1002),
            (b"\x03\xe8\xff", Misbehaviour::CloseReasonNotUtf8, 1007),
        ];
        for (payload, rule, code) in cases {
            let mut sim = Sim::new(policy());
            sim.send(Downstream, &frame(Downstream, OpCode::Close, payload));
            assert_eq!(sim.close_code(Downstream), Some(code));
            assert_eq!(sim.close_code(Upstream), Some(1001));
            assert_eq!(
                sim.session.summary().cause,
                Cause::Misbehaved(Downstream, rule)
            );
        }
    }

    #[test]
    fn an_answer_is_found_behind_data_that_nobody_takes_any_more() {
        for by in BOTH {
            let (mut sim, other) = (Sim::new(policy()), by.other());
            sim.send(by, &frame(by, OpCode::Close, &close_payload(1000, "")));
            sim.session.handle_reset(by, sim.now);
            sim.send(other, &frame(other, OpCode::Binary, &[7; 5_000]).repeat(40));
            sim.send(
                other,
                &frame(other, OpCode::Close, &close_payload(1000, "")),
            );
            assert!(matches!(sim.ended(), Cause::Closed { .. }));
        }
    }

    #[test]
    fn a_leg_that_broke_is_not_shut_down() {
        let mut sim = Sim::new(policy());
        sim.session.handle_drain(sim.now);
        sim.drive();
        sim.session.handle_reset(Downstream, sim.now);
        assert!(!sim.session.can_shut(Downstream));
        sim.drive();
        assert!(!sim.wires.downstream.shut);
    }

    #[test]
    fn a_close_that_can_never_leave_is_not_waited_for() {
        for from in BOTH {
            let (mut sim, to) = (Sim::new(policy()), from.other());
            let whole = frame(from, OpCode::Binary, &[7; 1000]);
            sim.send(from, &whole[..500]);
            sim.session.handle_drain(sim.now);
            sim.eof(from);
            assert_eq!(sim.wires[to].taken, whole[..500]);
            assert_eq!(sim.ended(), Cause::Drained);
            assert_eq!(sim.session.summary().close_codes[to], None);
        }
    }

    #[test]
    fn misbehaviour_for_an_answer_is_turned_into_one() {
        for by in BOTH {
            let mut sim = Sim::new(policy());
            sim.send(by, &frame(by, OpCode::Close, &close_payload(4001, "")));
            sim.send(by.other(), &[0xF1, 0x80]);
            assert_eq!(sim.close_code(by), Some(4001));
            sim.eof(by.other());
            assert!(matches!(sim.ended(), Cause::Closed { .. }));
        }
    }

    #[test]
    fn an_aborted_session_sends_nothing_more() {
        let mut sim = Sim::new(policy());
        sim.wires.downstream.capacity = 0;
        sim.send(Upstream, &frame(Upstream, OpCode::Text, b"stuck"));
        sim.session.handle_drain(sim.now);
        sim.advance(Duration::from_secs(5));
        assert_eq!(sim.ended(), Cause::Drained);
        assert!(sim.session.pending(Downstream).is_empty());
    }

    #[test]
    fn a_close_that_gets_out_behind_the_end_does_not_count() {
        let mut sim = Sim::new(policy());
        sim.session.handle_drain(sim.now);
        let close = sim.session.pending(Downstream).len();
        sim.session.handle_sent(Downstream, close, sim.now);
        sim.session.handle_timeout(sim.now + Duration::from_secs(5));
        sim.session.handle_flushed(Downstream, sim.now);
        assert_eq!(sim.session.summary().close_codes.downstream, None);
    }
}

mod backpressure {
    use super::*;

    #[test]
    fn a_reader_that_does_not_read_holds_no_more_than_the_watermark() {
        for to in BOTH {
            let mut sim = Sim::new(policy());
            sim.wires[to].capacity = 0;
            let flood = frame(to.other(), OpCode::Binary, &[7; 5_000]).repeat(100);
            sim.send(to.other(), &flood);
            assert_eq!(sim.session.buffered_amount(to.other()), 64 * 1024);
            assert!(sim.session.space(to.other()).is_empty());
            assert!(sim.session.owned_memory() <= 64 * 1024);
            sim.take(to, 40_000);
            assert!(sim.session.buffered_amount(to.other()) <= 64 * 1024);
            sim.take(to, usize::MAX);
            assert_eq!(sim.wires[to].taken, flood);
            assert_eq!(sim.session.owned_memory(), 0);
            assert_eq!(sim.session.summary().peaks[to.other()], 64 * 1024);
        }
    }

    #[test]
    fn a_stalled_reader_ends_the_session_with_1013() {
        let mut sim = Sim::new(policy());
        sim.wires.downstream.capacity = 0;
        sim.send(Upstream, &frame(Upstream, OpCode::Binary, &[7; 100]));
        sim.advance(Duration::from_secs(59));
        assert_eq!(sim.close_code(Upstream), None);
        sim.advance(Duration::from_secs(1));
        assert_eq!(sim.session.summary().cause, Cause::Stalled(Downstream));
        assert_eq!(sim.close_code(Upstream), Some(1001));
        // The Close cannot be delivered: aborted.
        sim.advance(Duration::from_secs(5));
        assert_eq!(sim.ended(), Cause::Stalled(Downstream));
        assert_eq!(sim.session.summary().close_codes.downstream, None);
    }

    #[test]
    fn a_reader_that_takes_a_little_is_not_stalled() {
        let mut sim = Sim::new(policy());
        sim.wires.downstream.capacity = 0;
        sim.send(Upstream, &frame(Upstream, OpCode::Binary, &[7; 1000]));
        for _ in 0..10 {
            sim.advance(Duration::from_secs(59));
            sim.take(Downstream, 1);
        }
        assert_eq!(sim.wires.downstream.taken.len(), 10);
        assert_eq!(sim.close_code(Upstream), None);
    }

    #[test]
    fn a_slow_consumer_is_closed_where_the_policy_says_so() {
        let mut policy = policy();
        policy.backpressure.on_slow_consumer = OnSlowConsumer::Close;
        let mut sim = Sim::new(policy);
        sim.wires.downstream.capacity = 0;
        let flood = frame(Upstream, OpCode::Binary, &[7; 5_000]).repeat(100);
        sim.send(Upstream, &flood);
        for _ in 0..6 {
            sim.advance(Duration::from_secs(10));
            sim.take(Downstream, 1);
        }
        assert_eq!(sim.session.summary().cause, Cause::SlowConsumer);
        sim.take(Downstream, usize::MAX);
        assert_eq!(sim.close_code(Downstream), Some(1013));
    }

    #[test]
    fn whole_messages_are_dropped_for_a_slow_consumer_where_the_policy_says_so() {
        let mut policy = policy();
        policy.backpressure.on_slow_consumer = OnSlowConsumer::Drop;
        let mut sim = Sim::new(policy);
        sim.wires.downstream.capacity = 0;
        let mut flood = Vec::new();
        for n in 0..100u8 {
            flood.extend(fragment(Upstream, Fin::More, OpCode::Binary, &[n; 2_500]));
            flood.extend(fragment(
                Upstream,
                Fin::Final,
                OpCode::Continuation,
                &[n; 2_500],
            ));
        }
        flood.extend(frame(Upstream, OpCode::Ping, b"never dropped"));
        sim.slice = 4_096;
        sim.send(Upstream, &flood);
        assert!(sim.session.buffered_amount(Upstream) <= 64 * 1024);
        assert_eq!(sim.wires.upstream.taken, b"");
        sim.take(Downstream, usize::MAX);
        let seen = sim.seen(Downstream);
        let (last, data) = seen.split_last().unwrap();
        assert_eq!(last.opcode, OpCode::Ping);
        for (index, pair) in data.chunks(2).enumerate() {
            assert_eq!(pair[0].payload, [index as u8; 2_500], "the oldest are kept");
            assert_eq!(pair[1].payload, [index as u8; 2_500], "and whole");
        }
        let tally = sim.session.summary().tallies.upstream;
        assert!(tally.messages >= 9, "{tally:?}");
        assert_eq!(tally.messages + tally.dropped, 100);
        assert_eq!(data.len() as u64, tally.messages * 2);
    }

    #[test]
    fn under_drop_the_upstream_never_waits_for_a_client_that_takes_nothing() {
        // As large as one read of a flood is, and in small slices.
        for slice in [64 * 1024, 16_000, 100] {
            let mut policy = policy();
            policy.backpressure.on_slow_consumer = OnSlowConsumer::Drop;
            let mut sim = Sim::new(policy);
            sim.slice = slice;
            sim.wires.downstream.capacity = 0;
            let message = frame(Upstream, OpCode::Binary, &[7; 4_000]);
            for _ in 0..100 {
                sim.send(Upstream, &message);
                assert_eq!(sim.unread(Upstream), 0, "slice {slice}");
            }
            sim.send(Upstream, &message.repeat(100));
            assert_eq!(sim.unread(Upstream), 0, "slice {slice}");
            assert!(sim.session.buffered_amount(Upstream) >= 40 * 1024);
            assert!(sim.session.summary().peaks.upstream <= 64 * 1024);
            sim.take(Downstream, usize::MAX);
            let tally = sim.session.summary().tallies.upstream;
            assert_eq!(tally.messages + tally.dropped, 200, "slice {slice}");
            assert_eq!(sim.seen(Downstream).len() as u64, tally.messages);
            assert!(tally.messages >= 10, "slice {slice}: {tally:?}");
        }
    }

    #[test]
    fn a_reader_that_keeps_up_loses_nothing_under_the_drop_policy() {
        let mut policy = policy();
        policy.backpressure.on_slow_consumer = OnSlowConsumer::Drop;
        let mut sim = Sim::new(policy);
        let flood = frame(Upstream, OpCode::Binary, &[7; 200_000]).repeat(5);
        sim.send(Upstream, &flood);
        assert_eq!(sim.wires.downstream.taken, flood);
    }

    #[test]
    fn a_low_watermark_of_nothing_does_not_hold_back_the_rest_of_a_header() {
        for from in BOTH {
            let (mut policy, to) = (policy(), from.other());
            policy.backpressure.low_watermark = 0;
            let mut sim = Sim::new(policy);
            sim.wires[to].capacity = 0;
            // The first byte of the second frame is the last below the high watermark.
            let header = frame(from, OpCode::Binary, &[7; 60_000]).len() - 60_000;
            let mut sent = frame(from, OpCode::Binary, &vec![7; 64 * 1024 - 1 - header]);
            sent.extend(frame(from, OpCode::Binary, b"more"));
            sim.send(from, &sent);
            assert_eq!(sim.session.buffered_amount(from), 64 * 1024);
            sim.take(to, usize::MAX);
            assert_eq!(sim.wires[to].taken, sent);
        }
    }

    #[test]
    fn messages_that_fit_are_kept_although_more_came_with_them() {
        let mut policy = policy();
        policy.backpressure.on_slow_consumer = OnSlowConsumer::Drop;
        let mut sim = Sim::new(policy);
        sim.wires.downstream.capacity = 0;
        sim.send(Upstream, &frame(Upstream, OpCode::Text, b"blocked"));
        sim.send(
            Upstream,
            &frame(Upstream, OpCode::Binary, &[7; 996]).repeat(200),
        );
        let tally = sim.session.summary().tallies.upstream;
        assert_eq!(tally.messages + tally.dropped, 201);
        // A quarter of the pipe is not for new messages.
        assert_eq!(tally.messages, 1 + (48 * 1024 - 9) / 1000);
    }
}

mod properties {
    use super::*;

    fn any_frame(from: Side) -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40),
            1 => prop::collection::vec(any::<u8>(), 100..400),
        ];
        let opcode = prop_oneof![
            4 => Just(OpCode::Binary),
            3 => Just(OpCode::Continuation),
            3 => Just(OpCode::Text),
            1 => Just(OpCode::Ping),
            1 => Just(OpCode::Pong),
            1 => Just(OpCode::Close),
        ];
        (opcode, any::<bool>(), any::<bool>(), payload).prop_map(
            move |(opcode, fin, valid, mut payload)| {
                let fin = if fin || opcode.is_control() {
                    Fin::Final
                } else {
                    Fin::More
                };
                if opcode.is_control() {
                    payload.truncate(125);
                }
                if opcode == OpCode::Close && valid {
                    payload = close_payload(1000, "");
                }
                if valid {
                    for byte in &mut payload {
                        *byte &= if opcode == OpCode::Close { 0xFF } else { 0x7F };
                    }
                }
                fragment(from, fin, opcode, &payload)
            },
        )
    }

    fn any_stream(from: Side) -> impl Strategy<Value = Vec<u8>> {
        (
            prop::collection::vec(any_frame(from), 0..12),
            prop::collection::vec(any::<u8>(), 0..6),
        )
            .prop_map(|(frames, noise)| [frames.concat(), noise].concat())
    }

    fn run(from: Side, stream: &[u8], slices: &[usize], capacity: Option<usize>) -> Sim {
        let mut policy = policy();
        policy.limits.max_frame_size = 300;
        policy.limits.max_message_size = 500;
        policy.limits.max_upstream_message_size = Some(500);
        let mut sim = Sim::new(policy);
        let mut rest = stream;
        let mut slices = slices.iter().cycle();
        while !rest.is_empty() {
            let n = slices.next().map_or(1, |n| *n).min(rest.len());
            if let Some(capacity) = capacity {
                for side in BOTH {
                    sim.wires[side].capacity = capacity;
                }
            }
            sim.send(from, &rest[..n]);
            rest = &rest[n..];
        }
        for side in BOTH {
            sim.wires[side].capacity = usize::MAX;
        }
        sim.drive();
        sim
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Text cut off by a bad byte is the one place where the cut shows: how much of
        /// the frame had already streamed through. Whole frames and the cause are equal.
        #[test]
        fn any_slicing_gives_the_same_frames_and_the_same_cause(
            (from, stream) in prop_oneof![
                any_stream(Downstream).prop_map(|stream| (Downstream, stream)),
                any_stream(Upstream).prop_map(|stream| (Upstream, stream)),
            ],
            slices in prop::collection::vec(1..50usize, 1..20),
            capacity in prop::option::of(1..60usize),
        ) {
            let whole = run(from, &stream, &[usize::MAX], None);
            let sliced = run(from, &stream, &slices, capacity);
            prop_assert_eq!(whole.session.summary().cause, sliced.session.summary().cause);
            let data = |sim: &Sim| {
                let mut seen = sim.seen(from.other());
                // A Close cannot follow a frame broken off.
                seen.retain(|seen| seen.opcode != OpCode::Close);
                seen
            };
            prop_assert_eq!(data(&whole), data(&sliced));
            prop_assert_eq!(whole.close_code(from), sliced.close_code(from));
        }

        /// Transparency: what goes out is what came in, up to where the session ended.
        #[test]
        fn what_leaves_is_a_prefix_of_what_came_and_at_most_a_close(
            (from, stream) in prop_oneof![
                any_stream(Downstream).prop_map(|stream| (Downstream, stream)),
                any_stream(Upstream).prop_map(|stream| (Upstream, stream)),
            ],
            slices in prop::collection::vec(1..50usize, 1..20),
        ) {
            let sim = run(from, &stream, &slices, None);
            let taken = &sim.wires[from.other()].taken;
            let common = taken.iter().zip(&stream).take_while(|(a, b)| a == b).count();
            let injected = &taken[common..];
            prop_assert!(injected.len() <= 2 + 4 + 125, "{:?}", injected);
            let closes = sim.seen(from.other()).iter().filter(|seen| seen.opcode == OpCode::Close).count();
            prop_assert!(closes <= 1);
            prop_assert_eq!(sim.session.owned_memory() > 300, false, "{}", sim.session.owned_memory());
        }

        #[test]
        fn after_the_end_nothing_changes(
            stream in any_stream(Downstream),
            more in any_stream(Upstream),
        ) {
            let mut sim = run(Downstream, &stream, &[usize::MAX], None);
            sim.session.handle_reset(Downstream, sim.now);
            sim.session.handle_reset(Upstream, sim.now);
            sim.drive();
            prop_assert!(sim.session.is_ended());
            let (summary, events) = (sim.session.summary(), sim.events.len());
            for side in BOTH {
                sim.send(side, &more);
                sim.eof(side);
                sim.session.handle_sent(side, 10, sim.now);
                sim.session.handle_flushed(side, sim.now);
            }
            sim.session.handle_drain(sim.now);
            sim.session.handle_timeout(sim.now + Duration::from_secs(100_000));
            sim.session.handle_token(TokenVerdict::Admitted(Admitted::default()), sim.now);
            sim.session.handle_dialed(Ok(()), sim.now);
            sim.drive();
            prop_assert_eq!(sim.session.summary(), summary);
            prop_assert_eq!(sim.events.len(), events);
            prop_assert_eq!(sim.session.poll_timeout(), None);
        }

        #[test]
        fn a_stranger_can_send_anything(noise in prop::collection::vec(any::<u8>(), 0..300), slice in 1..40usize) {
            let mut sim = awaiting_token();
            sim.slice = slice;
            sim.send(Downstream, &noise);
            sim.advance(Duration::from_secs(100));
            prop_assert!(sim.wires.upstream.taken.is_empty());
            let verifying = matches!(sim.events.last(), Some(Event::VerifyToken(_)));
            prop_assert!(verifying || sim.session.is_ended());
        }
    }
}

#[test]
fn the_clients_mask_is_the_one_used_in_these_tests() {
    let ping = frame(Downstream, OpCode::Ping, b"");
    assert_eq!(ping[2..], KEY);
}

#[test]
fn an_idle_session_is_a_few_hundred_bytes() {
    assert!(size_of::<Session>() <= 1200, "{}", size_of::<Session>());
}
