//! Rules and new tokens in whole sessions: what passes, when, and what never does.

use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::proto::frame::Fin;
use crate::proto::json::{Place as At, Places, Pointer};
use crate::proto::limits::{OnExcess, Quota};
use crate::proto::policy::{ExpiryNotice, FirstMessage, OnExpiry};
use crate::proto::rule::{Condition, Patterns, Refresh, Requirement, Rule, Rules, Scalar, Test};
use crate::proto::session::Admitted;
use crate::proto::side::Side::{Downstream, Upstream};
use crate::proto::sim::{Sim, close_payload, first_message, fragment, frame, policy, quota};

const PUBLISH: &[u8] = br#"{"type":"publish","channel":"news"}"#;
const LOG: &[u8] = br#"{"type":"log"}"#;
const PING: &[u8] = br#"{"type":"ping"}"#;
const REFRESH: &[u8] = br#"{"type":"refresh","token":"new"}"#;

fn at(places: &mut Places, pointer: &str) -> At {
    places.add(&Pointer::parse(pointer).expect("a pointer"))
}

/// Publishing into the channels of the first claim, pings; logs are dropped; nothing else.
fn inspection() -> Inspection {
    let mut places = Places::default();
    let kind = at(&mut places, "/type");
    let rule = |word: &str, action| Rule {
        when: vec![Condition {
            at: kind,
            test: Test::In(vec![Scalar::Text(word.to_owned())]),
        }],
        require: Vec::new(),
        action,
        otherwise: Refusal::Close,
        quota: None,
    };
    let mut publish = rule("publish", Action::Allow);
    publish.require.push(Requirement {
        at: at(&mut places, "/channel"),
        claim: 0,
        patterns: Patterns::Off,
    });
    let refresh = Refresh {
        field: kind,
        equals: "refresh".to_owned(),
        token: at(&mut places, "/token"),
        reply: None,
    };
    Inspection {
        places,
        refresh: Some(refresh),
        rules: Some(Rules {
            list: vec![
                publish,
                rule("ping", Action::Allow),
                rule("log", Action::Refuse(Refusal::Drop)),
            ],
            default: Action::Refuse(Refusal::Close),
            on_malformed: Refusal::Close,
            on_binary: Action::Refuse(Refusal::Close),
            claims: vec!["channels".to_owned()],
        }),
    }
}

fn inspecting() -> Policy {
    let mut policy = policy();
    policy.inspection = Some(inspection());
    policy
}

fn rules(policy: &mut Policy) -> &mut Rules {
    let inspection = policy.inspection.as_mut().expect("an inspection");
    inspection.rules.as_mut().expect("rules")
}

fn granting(channel: &str) -> Admitted {
    Admitted {
        grants: Grants(vec![vec![Scalar::Text(channel.to_owned())]]),
        ..Admitted::default()
    }
}

/// A session whose token grants the channel `news`.
fn relaying(policy: Policy) -> Sim {
    let mut sim = Sim::new(policy);
    sim.session.keep(granting("news"));
    sim
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(Downstream, OpCode::Text, payload)
}

fn cut(payload: &[u8], at: usize) -> Vec<u8> {
    let (one, two) = payload.split_at(at);
    let mut frames = fragment(Downstream, Fin::More, OpCode::Text, one);
    frames.extend(fragment(Downstream, Fin::Final, OpCode::Continuation, two));
    frames
}

fn end_both(sim: &mut Sim) -> Cause {
    sim.eof(Downstream);
    sim.eof(Upstream);
    sim.ended()
}

/// How a session ends whose client sends `bytes` behind a message that passes.
fn refused(policy: Policy, bytes: &[u8]) -> (Cause, Option<u16>) {
    let mut sim = relaying(policy);
    let good = text(PING);
    sim.send(Downstream, &[&good, bytes].concat());
    let seen = sim.seen(Upstream);
    assert_eq!(seen.len(), 2, "the first message, and a Close: {seen:?}");
    assert_eq!(sim.close_code(Upstream), Some(1001));
    let code = sim.close_code(Downstream);
    (end_both(&mut sim), code)
}

mod rules {
    use super::*;

    #[test]
    fn a_message_passes_as_it_came() {
        let mut sim = relaying(inspecting());
        let mut sent = text(PUBLISH);
        sent.extend(cut(PUBLISH, 7));
        sent.extend(frame(Downstream, OpCode::Pong, b"unasked"));
        sent.extend(text(PING));
        sim.send(Downstream, &sent);
        assert_eq!(sim.wires.upstream.taken, sent);
        assert_eq!(sim.session.owned_memory(), 0);
        let tally = sim.session.summary().tallies.downstream;
        assert_eq!((tally.messages, tally.bytes), (3, sent.len() as u64));
    }

    #[test]
    fn no_byte_passes_before_the_whole_message_was_judged() {
        for sent in [text(PUBLISH), cut(PUBLISH, 9)] {
            let mut sim = relaying(inspecting());
            for byte in &sent[..sent.len() - 1] {
                sim.send(Downstream, &[*byte]);
                assert_eq!(sim.wires.upstream.taken, b"");
            }
            let buffered = sim.session.buffered_amount(Downstream);
            assert_eq!(buffered, sent.len() - 1);
            sim.send(Downstream, &sent[sent.len() - 1..]);
            assert_eq!(sim.wires.upstream.taken, sent);
            assert_eq!(sim.session.buffered_amount(Downstream), 0);
            assert_eq!(sim.session.owned_memory(), 0);
        }
    }

    #[test]
    fn what_is_not_permitted_closes_with_3003() {
        for (message, objection) in [
            (
                r#"{"type":"publish","channel":"secret"}"#,
                Objection::NotGranted(1),
            ),
            (r#"{"type":"publish"}"#, Objection::NotGranted(1)),
            (r#"{"type":"admin"}"#, Objection::NoRule),
            ("[]", Objection::NoRule),
        ] {
            for bytes in [text(message.as_bytes()), cut(message.as_bytes(), 1)] {
                assert_eq!(
                    refused(inspecting(), &bytes),
                    (Cause::MessageRefused(objection), Some(3003)),
                    "{message}"
                );
            }
        }
        let mut policy = inspecting();
        rules(&mut policy).list[2].action = Action::Refuse(Refusal::Close);
        assert_eq!(
            refused(policy, &text(LOG)),
            (Cause::MessageRefused(Objection::Forbidden(3)), Some(3003))
        );
    }

    #[test]
    fn a_first_message_that_is_forwarded_is_held_to_the_rules() {
        for (message, passes, code) in [
            (
                &br#"{"token":"t","type":"publish","channel":"news"}"#[..],
                1,
                None,
            ),
            (br#"{"token":"t","type":"log"}"#, 0, None),
            (br#"{"token":"t","type":"refresh"}"#, 0, None),
            (
                br#"{"token":"t","type":"publish","channel":"all"}"#,
                0,
                Some(3003),
            ),
            (br#"{"token":"t"}"#, 0, Some(3003)),
            (br#"{"token":"t","type":"ping","b":1,"b":2}"#, 0, Some(1007)),
        ] {
            let mut policy = inspecting();
            policy.first_message = Some(FirstMessage {
                forward: true,
                ..first_message()
            });
            let mut sim = Sim::new(policy);
            sim.send(Downstream, &text(message));
            let verdict = TokenVerdict::Admitted(granting("news"));
            sim.session.handle_token(verdict, sim.now);
            sim.drive();
            assert_eq!(sim.close_code(Downstream), code);
            // Who is refused gets no further than here.
            assert_eq!(sim.events.contains(&Event::Dial), code.is_none());
            sim.session.handle_dialed(Ok(()), sim.now);
            sim.drive();
            let seen = sim.seen(Upstream);
            assert_eq!(seen.len(), passes);
            assert!(seen.iter().all(|seen| seen.payload == message));
        }
    }

    #[test]
    fn what_is_dropped_leaves_no_byte_and_is_counted() {
        let mut sim = relaying(inspecting());
        let mut sent = text(LOG);
        sent.extend(cut(LOG, 3));
        sent.extend(text(PING));
        sent.extend(cut(LOG, 0));
        sim.send(Downstream, &sent);
        assert_eq!(sim.wires.upstream.taken, text(PING));
        let tally = sim.session.summary().tallies.downstream;
        assert_eq!((tally.messages, tally.dropped), (1, 3));
        assert_eq!(tally.bytes, text(PING).len() as u64);
        assert_eq!(sim.session.owned_memory(), 0);
    }

    #[test]
    fn malformed_text_closes_with_1007_or_is_dropped() {
        let why = Objection::Malformed(Malformed::RepeatedName);
        let message = br#"{"type":"ping","type":"admin"}"#;
        assert_eq!(
            refused(inspecting(), &text(message)),
            (Cause::MessageRefused(why), Some(1007))
        );
        let mut policy = inspecting();
        rules(&mut policy).on_malformed = Refusal::Drop;
        let mut sim = relaying(policy);
        sim.send(Downstream, &text(message));
        sim.send(Downstream, &text(b""));
        assert_eq!(sim.wires.upstream.taken, b"");
        assert_eq!(sim.session.summary().tallies.downstream.dropped, 2);
    }

    #[test]
    fn text_that_is_not_utf8_closes_with_1007() {
        let bytes = text(b"{\"type\":\"ping\",\"x\":\"\xff\"}");
        let misbehaved = Cause::Misbehaved(Downstream, Misbehaviour::TextNotUtf8);
        assert_eq!(refused(inspecting(), &bytes), (misbehaved, Some(1007)));
        let mut policy = inspecting();
        policy.limits.validate_utf8 = false;
        let malformed = Cause::MessageRefused(Objection::Malformed(Malformed::NotUtf8));
        assert_eq!(refused(policy, &bytes), (malformed, Some(1007)));
    }

    #[test]
    fn binary_messages_close_with_1003_or_are_dropped_or_stream_through() {
        let binary = |fin| fragment(Downstream, fin, OpCode::Binary, &[1; 1000]);
        let last = fragment(Downstream, Fin::Final, OpCode::Continuation, &[2; 10]);
        assert_eq!(
            refused(inspecting(), &binary(Fin::Final)[..8]),
            (Cause::MessageRefused(Objection::Binary), Some(1003))
        );
        let mut policy = inspecting();
        rules(&mut policy).on_binary = Action::Refuse(Refusal::Drop);
        let mut sim = relaying(policy.clone());
        let sent = [binary(Fin::More), last.clone(), text(PING)].concat();
        sim.send(Downstream, &sent);
        assert_eq!(sim.wires.upstream.taken, text(PING));
        assert_eq!(sim.session.summary().tallies.downstream.dropped, 1);
        rules(&mut policy).on_binary = Action::Allow;
        let mut sim = relaying(policy);
        sim.send(Downstream, &sent[..500]);
        assert_eq!(sim.wires.upstream.taken, sent[..500]);
        sim.send(Downstream, &sent[500..]);
        assert_eq!(sim.wires.upstream.taken, sent);
    }

    #[test]
    fn control_frames_do_not_wait_for_a_message_under_way() {
        let mut sim = relaying(inspecting());
        let sent = cut(PUBLISH, 9);
        let one = fragment(Downstream, Fin::More, OpCode::Text, &PUBLISH[..9]);
        let ping = frame(Downstream, OpCode::Ping, b"now");
        sim.send(Downstream, &[&one, &ping[..]].concat());
        assert_eq!(sim.wires.upstream.taken, ping);
        sim.send(Downstream, &sent[one.len()..]);
        assert_eq!(sim.wires.upstream.taken, [ping, sent].concat());
    }

    #[test]
    fn the_upstreams_messages_are_not_looked_into() {
        let mut sim = relaying(inspecting());
        let sent = frame(Upstream, OpCode::Text, br#"{"type":"admin"}"#);
        sim.send(Upstream, &sent);
        assert_eq!(sim.wires.downstream.taken, sent);
    }

    #[test]
    fn a_close_inside_a_message_takes_its_beginning_with_it() {
        let mut sim = relaying(inspecting());
        let close = frame(Downstream, OpCode::Close, &close_payload(1000, "bye"));
        let one = fragment(Downstream, Fin::More, OpCode::Text, &PUBLISH[..9]);
        sim.send(Downstream, &[&one, &close[..]].concat());
        assert_eq!(sim.wires.upstream.taken, close);
        assert_eq!(sim.session.owned_memory(), 0);
    }

    #[test]
    fn a_session_that_fails_forgets_the_message_under_way() {
        let mut sim = relaying(inspecting());
        let sent = cut(PUBLISH, 9);
        sim.send(Downstream, &sent[..sent.len() - 3]);
        sim.session.handle_drain(sim.now);
        sim.drive();
        assert_eq!(sim.session.owned_memory(), 0);
        sim.send(Downstream, &sent[sent.len() - 3..]);
        assert_eq!(sim.seen(Upstream).len(), 1, "only a Close");
        assert_eq!(end_both(&mut sim), Cause::Drained);
    }

    #[test]
    fn rules_hold_while_the_upstream_closes() {
        let mut sim = relaying(inspecting());
        let close = frame(Upstream, OpCode::Close, &close_payload(1000, ""));
        sim.send(Upstream, &close);
        sim.send(Downstream, &text(PING));
        sim.send(Downstream, &text(br#"{"type":"admin"}"#));
        let seen = sim.seen(Upstream);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].payload, PING);
        assert_eq!(seen[1].opcode, OpCode::Close);
    }
}

mod bounds {
    use super::*;

    fn of_size(size: usize) -> Policy {
        let mut policy = inspecting();
        policy.limits.max_frame_size = size as u64;
        policy.limits.max_message_size = size as u64;
        policy
    }

    #[test]
    fn a_message_that_never_ends_holds_no_more_than_its_size() {
        for piece in [1, 10, 64, 1000] {
            let size = 100_000;
            let mut sim = relaying(of_size(size));
            let most = usize::try_from(most_held(size as u64)).unwrap();
            let mut opcode = OpCode::Text;
            for _ in 0..size {
                sim.send(
                    Downstream,
                    &fragment(Downstream, Fin::More, opcode, &vec![b' '; piece]),
                );
                opcode = OpCode::Continuation;
                assert!(sim.session.buffered_amount(Downstream) <= most);
                assert!(sim.session.owned_memory() <= 2 * most);
            }
            assert_eq!(sim.seen(Upstream).len(), 1, "only a Close");
            assert_eq!(sim.close_code(Downstream), Some(1009));
            assert_eq!(sim.session.owned_memory(), 0);
            assert_eq!(end_both(&mut sim), Cause::MessageTooBig(Downstream));
            assert!(sim.session.summary().peaks.downstream <= most + 2000);
        }
    }

    #[test]
    fn a_message_of_exactly_the_size_passes_far_above_the_watermark() {
        let size = 300_000;
        let padding = " ".repeat(size - PING.len());
        let message = [PING, padding.as_bytes()].concat();
        let pieces: Vec<_> = message.chunks(64).collect();
        let mut cut_fine = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let opcode = if index == 0 {
                OpCode::Text
            } else {
                OpCode::Continuation
            };
            let fin = if index == pieces.len() - 1 {
                Fin::Final
            } else {
                Fin::More
            };
            cut_fine.extend(fragment(Downstream, fin, opcode, piece));
        }
        for sent in [text(&message), cut(&message, 1000), cut_fine] {
            let mut sim = relaying(of_size(size));
            sim.take(Upstream, 10);
            sim.send(Downstream, &sent);
            sim.send(Downstream, &text(PING));
            assert!(sim.session.space(Downstream).is_empty(), "backpressure");
            sim.take(Upstream, usize::MAX);
            assert_eq!(sim.wires.upstream.taken, [sent, text(PING)].concat());
            assert_eq!(sim.session.owned_memory(), 0);
            assert!(sim.session.summary().peaks.downstream >= size);
        }
    }

    #[test]
    fn one_byte_over_the_size_closes_with_1009() {
        let over = vec![b' '; 101];
        for bytes in [text(&over), cut(&over, 50)] {
            let mut policy = of_size(100);
            policy.limits.max_frame_size = 100;
            assert_eq!(refused(policy, &bytes).1, Some(1009));
        }
    }
}

mod quotas {
    use super::*;

    fn with_quota(quota: Quota) -> Sim {
        let mut policy = inspecting();
        rules(&mut policy).list[0].quota = Some(quota);
        relaying(policy)
    }

    #[test]
    fn a_rules_quota_makes_its_messages_wait_and_charges_them_once() {
        for message in [text(PUBLISH), cut(PUBLISH, 5)] {
            let mut sim = with_quota(quota(10, 3, OnExcess::Throttle));
            sim.session.meters.bytes = Some(Meter::new(
                &Quota {
                    burst: NonZeroU64::new(10 * message.len() as u64).unwrap(),
                    ..quota(1, 1, OnExcess::Throttle)
                },
                sim.now,
            ));
            sim.send(Downstream, &[message.repeat(5), text(PING)].concat());
            assert_eq!(sim.wires.upstream.taken, message.repeat(3));
            assert!(sim.session.space(Downstream).is_empty());
            sim.advance(Duration::from_millis(100));
            assert_eq!(sim.wires.upstream.taken, message.repeat(4));
            sim.advance(Duration::from_millis(100));
            let all = [message.repeat(5), text(PING)].concat();
            assert_eq!(sim.wires.upstream.taken, all);
            let tally = sim.session.summary().tallies.downstream;
            assert_eq!((tally.messages, tally.throttled.as_millis()), (6, 200));
        }
    }

    #[test]
    fn a_message_that_waits_for_its_rules_quota_needs_nothing_behind_it() {
        for message in [text(PUBLISH), cut(PUBLISH, 5)] {
            let mut sim = with_quota(quota(10, 1, OnExcess::Throttle));
            sim.send(Downstream, &message.repeat(2));
            assert_eq!(sim.wires.upstream.taken, message);
            sim.advance(Duration::from_millis(100));
            assert_eq!(sim.wires.upstream.taken, message.repeat(2));
        }
    }

    #[test]
    fn a_rules_quota_drops_its_own_messages_only() {
        let mut sim = with_quota(quota(1, 2, OnExcess::Drop));
        sim.send(Downstream, &[text(PUBLISH).repeat(4), text(PING)].concat());
        let passed = [text(PUBLISH).repeat(2), text(PING)].concat();
        assert_eq!(sim.wires.upstream.taken, passed);
        assert_eq!(sim.session.summary().tallies.downstream.dropped, 2);
        // What is not granted is not charged, either.
        sim.advance(Duration::from_secs(1));
        sim.send(Downstream, &text(PUBLISH));
        assert_eq!(sim.seen(Upstream).len(), 4);
    }

    #[test]
    fn a_rules_quota_closes_with_1008() {
        let mut sim = with_quota(quota(1, 1, OnExcess::Close));
        sim.send(Downstream, &text(PUBLISH).repeat(2));
        assert_eq!(sim.close_code(Downstream), Some(1008));
        assert_eq!(sim.seen(Upstream).len(), 2);
        let cause = end_both(&mut sim);
        assert_eq!(cause, Cause::QuotaExceeded(QuotaKind::Rule));
    }

    #[test]
    fn a_session_ends_properly_while_a_message_waits_for_its_quota() {
        for message in [text(PUBLISH), cut(PUBLISH, 5)] {
            let mut sim = with_quota(quota(1, 1, OnExcess::Throttle));
            sim.send(Downstream, &[message.repeat(2), text(PING)].concat());
            assert_eq!(sim.wires.upstream.taken, message);
            sim.session.handle_drain(sim.now);
            sim.drive();
            assert_eq!(sim.session.owned_memory(), 0);
            // The answers are found behind what is thrown away.
            for side in [Downstream, Upstream] {
                sim.send(side, &frame(side, OpCode::Close, &close_payload(1001, "")));
            }
            assert_eq!(sim.ended(), Cause::Drained);
            let closes = sim.seen(Upstream).into_iter();
            let closes = closes.filter(|seen| seen.opcode == OpCode::Close);
            assert_eq!(closes.count(), 1);
            assert!(sim.wires.upstream.taken.starts_with(&message));
        }
    }

    #[test]
    fn a_large_message_passes_a_byte_quota_below_its_size() {
        let mut policy = inspecting();
        policy.limits.bytes = Some(quota(1_000, 100, OnExcess::Throttle));
        let mut sim = relaying(policy);
        let message = [PING, &[b' '; 900]].concat();
        sim.send(Downstream, &text(&message));
        assert_eq!(sim.wires.upstream.taken, b"");
        sim.advance(Duration::from_secs(1));
        assert_eq!(sim.wires.upstream.taken, text(&message));
    }
}

mod refreshing {
    use super::*;

    const LIFE: Duration = Duration::from_secs(300);

    fn expiring() -> Sim {
        let mut policy = inspecting();
        policy.on_expiry = OnExpiry::Close {
            notice: Some(ExpiryNotice {
                before: LIFE / 5,
                message: "expiring".to_owned(),
            }),
        };
        let refresh = policy.inspection.as_mut().expect("one").refresh.as_mut();
        refresh.expect("one").reply = Some("refreshed".to_owned());
        let mut sim = Sim::new(policy);
        sim.session.keep(lasting(&sim, "news"));
        sim
    }

    fn lasting(sim: &Sim, channel: &str) -> Admitted {
        Admitted {
            expires: Some(sim.now + LIFE),
            ..granting(channel)
        }
    }

    fn renewed(sim: &mut Sim, channel: &str) {
        let admitted = lasting(sim, channel);
        sim.session
            .handle_refreshed(TokenVerdict::Admitted(admitted), sim.now);
        sim.drive();
    }

    fn asked(sim: &mut Sim) -> Option<String> {
        match sim.events.pop() {
            Some(Event::VerifyRefresh(token)) => Some(token.0),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    #[test]
    fn a_new_token_is_consumed_and_moves_the_deadline_and_the_grants() {
        for sent in [text(REFRESH), cut(REFRESH, 4)] {
            let mut sim = expiring();
            sim.advance(LIFE / 2);
            sim.send(Downstream, &sent);
            assert_eq!(asked(&mut sim).as_deref(), Some("new"));
            renewed(&mut sim, "sports");
            assert_eq!(sim.wires.upstream.taken, b"");
            assert_eq!(sim.seen(Downstream)[0].payload, b"refreshed");
            let tally = sim.session.summary().tallies.downstream;
            assert_eq!((tally.messages, tally.dropped), (0, 0));
            sim.advance(LIFE - Duration::from_millis(1));
            assert_eq!(sim.close_code(Downstream), None);
            let sports = br#"{"type":"publish","channel":"sports"}"#;
            sim.send(Downstream, &text(sports));
            assert_eq!(sim.seen(Upstream).len(), 1);
            sim.advance(Duration::from_millis(1));
            assert_eq!(sim.close_code(Downstream), Some(3000));
            assert_eq!(end_both(&mut sim), Cause::TokenExpired);
        }
    }

    #[test]
    fn what_the_new_token_does_not_grant_is_forbidden_from_then_on() {
        let mut sim = expiring();
        sim.send(
            Downstream,
            &[text(PUBLISH), text(REFRESH), text(PUBLISH)].concat(),
        );
        assert_eq!(sim.seen(Upstream).len(), 1);
        renewed(&mut sim, "sports");
        assert_eq!(sim.close_code(Downstream), Some(3003));
        assert_eq!(sim.seen(Upstream).len(), 2, "and a Close");
    }

    #[test]
    fn a_refused_token_closes_with_3000() {
        let mut sim = expiring();
        sim.send(Downstream, &[text(REFRESH), text(PING)].concat());
        sim.session.handle_refreshed(TokenVerdict::Refused, sim.now);
        sim.drive();
        assert_eq!(sim.close_code(Downstream), Some(3000));
        assert_eq!(sim.seen(Upstream).len(), 1, "only a Close");
        assert_eq!(end_both(&mut sim), Cause::TokenRefused);
    }

    #[test]
    fn a_message_of_the_shape_without_a_token_closes_with_3000() {
        for message in [
            r#"{"type":"refresh"}"#,
            r#"{"type":"refresh","token":7}"#,
            r#"{"type":"refresh","token":null}"#,
        ] {
            let mut sim = expiring();
            sim.send(Downstream, &text(message.as_bytes()));
            assert_eq!(sim.close_code(Downstream), Some(3000), "{message}");
            assert_eq!(end_both(&mut sim), Cause::TokenRefused);
        }
    }

    #[test]
    fn what_comes_behind_waits_in_order_and_a_second_token_too() {
        let mut sim = expiring();
        let sent = [text(REFRESH), cut(PING, 3), text(REFRESH), text(PUBLISH)].concat();
        sim.send(Downstream, &sent);
        assert_eq!(asked(&mut sim).as_deref(), Some("new"));
        assert!(sim.session.space(Downstream).is_empty());
        sim.send(Downstream, &text(PING));
        assert_eq!(sim.wires.upstream.taken, b"");
        assert_eq!(sim.unread(Downstream), text(PING).len());
        renewed(&mut sim, "news");
        assert_eq!(sim.wires.upstream.taken, cut(PING, 3));
        assert_eq!(asked(&mut sim).as_deref(), Some("new"));
        renewed(&mut sim, "news");
        let passed = [cut(PING, 3), text(PUBLISH), text(PING)].concat();
        assert_eq!(sim.wires.upstream.taken, passed);
        assert_eq!(asked(&mut sim), None);
    }

    #[test]
    fn the_upstream_is_heard_while_a_token_is_looked_at() {
        let mut sim = expiring();
        sim.send(Downstream, &text(REFRESH));
        let message = frame(Upstream, OpCode::Text, b"news");
        sim.send(Upstream, &message);
        assert_eq!(sim.wires.downstream.taken, message);
        let close = frame(Upstream, OpCode::Close, &close_payload(1000, ""));
        sim.send(Upstream, &close);
        // The client's answer is heard, and the verdict comes too late.
        let answer = frame(Downstream, OpCode::Close, &close_payload(1000, ""));
        sim.send(Downstream, &answer);
        assert_eq!(sim.wires.upstream.taken, answer);
        sim.session.handle_refreshed(TokenVerdict::Refused, sim.now);
        let cause = end_both(&mut sim);
        assert!(
            matches!(cause, Cause::Closed { by: Upstream, .. }),
            "{cause:?}"
        );
    }

    #[test]
    fn a_token_that_comes_while_the_upstream_closes_is_consumed() {
        let mut sim = expiring();
        let close = frame(Upstream, OpCode::Close, &close_payload(1000, ""));
        sim.send(Upstream, &close);
        sim.send(Downstream, &[text(REFRESH), text(PING)].concat());
        assert_eq!(sim.wires.upstream.taken, text(PING));
        assert_eq!(asked(&mut sim), None);
    }

    #[test]
    fn an_old_token_expires_while_the_new_one_is_looked_at() {
        let mut sim = expiring();
        sim.send(Downstream, &text(REFRESH));
        sim.advance(LIFE);
        assert_eq!(sim.close_code(Downstream), Some(3000));
        renewed(&mut sim, "news");
        assert_eq!(end_both(&mut sim), Cause::TokenExpired);
    }

    #[test]
    fn a_notice_that_still_waits_is_not_given_after_the_new_token() {
        let mut sim = expiring();
        let fin = |fin, opcode| fragment(Upstream, fin, opcode, b"part");
        sim.send(Upstream, &fin(Fin::More, OpCode::Text));
        sim.advance(LIFE * 9 / 10);
        sim.send(Downstream, &text(REFRESH));
        renewed(&mut sim, "news");
        sim.send(Upstream, &fin(Fin::Final, OpCode::Continuation));
        let heard: Vec<_> = sim
            .seen(Downstream)
            .into_iter()
            .map(|s| s.payload)
            .collect();
        assert_eq!(heard, [&b"part"[..], b"part", b"refreshed"]);
    }

    #[test]
    fn nothing_is_refreshed_that_was_not_asked_for() {
        let mut sim = expiring();
        sim.session.handle_refreshed(TokenVerdict::Refused, sim.now);
        sim.drive();
        assert_eq!(sim.close_code(Downstream), None);
    }

    #[test]
    fn without_rules_everything_else_passes() {
        let mut policy = inspecting();
        policy.inspection.as_mut().expect("one").rules = None;
        let mut sim = relaying(policy);
        let mut sent = text(b"not JSON");
        sent.extend(text(br#"{"type":"refresh","type":"refresh"}"#));
        sent.extend(frame(Downstream, OpCode::Binary, REFRESH));
        sim.send(Downstream, &sent);
        assert_eq!(sim.wires.upstream.taken, sent);
        sim.send(Downstream, &text(REFRESH));
        assert_eq!(asked(&mut sim).as_deref(), Some("new"));
        assert_eq!(sim.wires.upstream.taken, sent);
    }

    #[test]
    fn text_that_is_not_utf8_does_not_pass_without_rules_either() {
        let mut policy = inspecting();
        policy.inspection.as_mut().expect("one").rules = None;
        let mut sim = relaying(policy);
        sim.send(Downstream, &text(b"\xff"));
        assert_eq!(sim.close_code(Downstream), Some(1007));
        assert_eq!(sim.seen(Upstream).len(), 1);
    }
}

mod properties {
    use super::*;

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let known = [
            PUBLISH,
            LOG,
            PING,
            br#"{"type":"publish","channel":"secret"}"#,
            br#"{"type":"ping","type":"log"}"#,
            br#"{"type":"p\u0069ng"}"#,
            br#"{"Type":"ping"}"#,
            b"\"ping\"",
            b"{",
            b"\xff",
            b"",
        ];
        prop::sample::select(known.map(<[u8]>::to_vec).to_vec())
    }

    /// One message's frames: `cuts` say where it is cut, and what stands in between.
    fn frames(message: &[u8], cuts: &[(usize, bool)]) -> Vec<u8> {
        let mut places: Vec<_> = cuts
            .iter()
            .map(|(at, ping)| (at % (message.len() + 1), *ping))
            .collect();
        places.sort_unstable();
        let mut sent = Vec::new();
        let (mut start, mut opcode) = (0, OpCode::Text);
        for (at, ping) in places {
            let piece = &message[start..at];
            sent.extend(fragment(Downstream, Fin::More, opcode, piece));
            if ping {
                sent.extend(frame(Downstream, OpCode::Ping, b"between"));
            }
            (start, opcode) = (at, OpCode::Continuation);
        }
        sent.extend(fragment(Downstream, Fin::Final, opcode, &message[start..]));
        sent
    }

    /// What passed of a stream, control frames left out, and how the session stands.
    fn passed(stream: &[u8], slices: &[usize], capacity: usize) -> (Vec<u8>, Option<u16>) {
        let mut policy = inspecting();
        rules(&mut policy).on_malformed = Refusal::Drop;
        let mut sim = relaying(policy);
        sim.take(Upstream, capacity);
        let mut rest = stream;
        let mut slices = slices.iter().cycle();
        while !rest.is_empty() {
            let n = slices.next().copied().unwrap_or(1).clamp(1, rest.len());
            let (now, later) = rest.split_at(n);
            sim.send(Downstream, now);
            rest = later;
        }
        sim.take(Upstream, usize::MAX);
        let data = sim.seen(Upstream).into_iter();
        let data = data.filter(|seen| !seen.opcode.is_control());
        let payloads = data.flat_map(|seen| {
            let end = (seen.fin == Fin::Final).then_some(b'\n');
            seen.payload.into_iter().chain(end)
        });
        (payloads.collect(), sim.close_code(Downstream))
    }

    proptest! {
        #[test]
        fn the_answer_is_the_same_for_any_slicing_and_fragmenting(
            messages in prop::collection::vec(
                (any_message(), prop::collection::vec((any::<usize>(), any::<bool>()), 0..4)),
                1..6,
            ),
            slices in prop::collection::vec(1..40_usize, 1..5),
            capacity in prop_oneof![Just(0), 0..100_usize, Just(usize::MAX)],
        ) {
            let whole: Vec<u8> = messages.iter().flat_map(|(m, _)| text(m)).collect();
            let cut: Vec<u8> = messages.iter().flat_map(|(m, cuts)| frames(m, cuts)).collect();
            let expected = passed(&whole, &[usize::MAX], usize::MAX);
            prop_assert_eq!(&passed(&whole, &slices, capacity), &expected);
            prop_assert_eq!(&passed(&cut, &[usize::MAX], usize::MAX), &expected);
            prop_assert_eq!(&passed(&cut, &slices, capacity), &expected);
        }

        #[test]
        fn whatever_passes_was_judged_whole(
            message in any_message(),
            cuts in prop::collection::vec((any::<usize>(), Just(false)), 0..4),
            missing in 1..20_usize,
        ) {
            let sent = frames(&message, &cuts);
            let mut sim = relaying(inspecting());
            let n = sent.len().saturating_sub(missing);
            sim.send(Downstream, &sent[..n]);
            prop_assert_eq!(sim.seen(Upstream).len(), 0);
            prop_assert_eq!(&sim.wires.upstream.taken, b"");
        }
    }
}
