//! The steps at the door: who gets in, who does not, and with which words.

use std::time::{Duration, Instant};

use crate::config::TlsVersion;
use crate::config::units::{duration_text, size_text};
use crate::demo::client::{Client, ClientError, Door, PATIENCE};
use crate::demo::tour::{
    Admitted, Finding, Happened, Trouble, Visitor, closed_with, expect_message,
};
use crate::proto::close::CloseCode;
use crate::proto::frame::OpCode;

/// An origin that nobody lists: the name can belong to nobody (RFC 6761 §6.4).
const STRANGER: &str = "https://not-listed.invalid";

/// How much later than its timeout a close may arrive.
const LATE: Duration = Duration::from_secs(2);

/// A good token, and a message there and back.
pub(super) async fn good_token(visitor: &Visitor<'_>) -> Finding {
    let offered = &visitor.door.subprotocols;
    let agreed = offered.first().map_or("no subprotocol", String::as_str);
    let expected = format!("admitted over TLS with {agreed}, and the message back");
    let tried = async {
        let Admitted { mut client, ready } = visitor.admitted().await?;
        let sent = Instant::now();
        client.say("hello").await?;
        expect_message(&mut client, "hello").await?;
        let took = millis(sent.elapsed());
        let version = match client.tls {
            TlsVersion::V1_2 => "TLS 1.2",
            TlsVersion::V1_3 => "TLS 1.3",
        };
        let ready = ready.map_or("no greeting".to_owned(), |text| {
            format!("greeted with {text}")
        });
        let chosen = client.subprotocol.clone();
        let text = format!(
            "{version}, {}, {ready}; echoed in {took}",
            chosen.as_deref().unwrap_or("no subprotocol")
        );
        client.close().await?;
        Ok(match chosen.as_ref() == offered.first() {
            true => Happened::Right(text),
            false => Happened::Wrong(text),
        })
    };
    Finding::new("a good token, a message", expected, tried.await)
}

/// A page of another site.
pub(super) async fn wrong_origin(visitor: &Visitor<'_>) -> Finding {
    let tried = async {
        if visitor.stage.admits(STRANGER) {
            let why = "nothing to show: the route admits every origin".to_owned();
            return Ok(Happened::Skipped(why));
        }
        match Client::open(&visitor.door, Some(STRANGER)).await {
            Err(ClientError::Refused(403)) => {
                Ok(Happened::Right(format!("HTTP 403, for Origin: {STRANGER}")))
            }
            Err(ClientError::Refused(status)) => Ok(Happened::Wrong(format!("HTTP {status}"))),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Happened::Wrong("HTTP 101".to_owned())),
        }
    };
    Finding::new("a page of another site", "HTTP 403", tried.await)
}

/// A token with another signature.
pub(super) async fn forged_token(visitor: &Visitor<'_>) -> Finding {
    let code = CloseCode::UNAUTHORIZED.get();
    let tried = async {
        let mut client = visitor.opened().await?;
        client.say(&visitor.forged_message()?).await?;
        closed_with(&mut client, code, PATIENCE).await
    };
    let expected = format!("closed with {code}");
    Finding::new("a forged token", expected, tried.await)
}

/// A frame one byte above the limit, of which only the header is sent.
pub(super) async fn frame_too_big(visitor: &Visitor<'_>) -> Finding {
    let code = CloseCode::TOO_BIG.get();
    let limit = visitor.stage.route.policy.limits.max_frame_size;
    let tried = async {
        let mut client = visitor.admitted().await?.client;
        client.queue_header(OpCode::Binary, limit.saturating_add(1))?;
        let happened = closed_with(&mut client, code, PATIENCE).await?;
        Ok(match happened {
            Happened::Right(text) => Happened::Right(format!("{text}, by its header alone")),
            other => other,
        })
    };
    let frame = format!("a frame of {} + 1 B", size_text(limit));
    Finding::new(frame, format!("closed with {code}"), tried.await)
}

/// A client that connects and says nothing for the whole `timeout`.
pub(super) async fn no_token(door: Door, origin: Option<String>, timeout: Duration) -> Finding {
    let code = CloseCode::TIMEOUT.get();
    let limit = duration_text(timeout);
    let tried = async {
        let mut client = Client::open(&door, origin.as_deref()).await?;
        let opened = Instant::now();
        let happened = closed_with(&mut client, code, timeout + PATIENCE).await?;
        let took = opened.elapsed();
        let in_time = took.abs_diff(timeout) <= LATE;
        let after = |text: String| format!("{text} after {:.1} s", took.as_secs_f64());
        Ok::<_, Trouble>(match happened {
            Happened::Right(text) if in_time => Happened::Right(after(text)),
            Happened::Right(text) | Happened::Wrong(text) => Happened::Wrong(after(text)),
            Happened::Skipped(why) => Happened::Skipped(why),
        })
    };
    let expected = format!("closed with {code} after {limit}");
    Finding::new("no token at all", expected, tried.await)
}

/// A short time, for people.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
